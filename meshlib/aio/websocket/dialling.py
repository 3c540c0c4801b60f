"""The dialling side: each node keeps its own outgoing connections, which only send.

A connection goes to `GOSSIP_PATH` with the peer token in its `Authorization` header. One binary
message is one frame.

Rule: what a peer can say on a connection that was dialled is why it closes it, and nothing else.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from typing import Final, Protocol

from attrs import frozen

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
except ModuleNotFoundError as error:  # pragma: no cover - where the extra is not installed
    raise ModuleNotFoundError(
        "WebSockets need the extra `websocket`: pip install 'meshlib-crdt[websocket]'",
        name=error.name,
    ) from error

from meshlib.aio.links import Dialler, LinkConfig, bound_silence
from meshlib.aio.tcp import dialled_socket
from meshlib.aio.transport import (
    LinkFailure,
    LinkFault,
    PeerRefusedError,
    QuietLog,
    split_address,
)
from meshlib.errors import ConfigError

__all__ = [
    "CLOSE_TIMEOUT_S",
    "GOING_AWAY",
    "GOSSIP_PATH",
    "MESSAGE_TOO_BIG",
    "POLICY_VIOLATION",
    "TRY_AGAIN_LATER",
    "UNSUPPORTED_DATA",
    "DialledTls",
    "TlsOfPeers",
    "WebSocketDialler",
]

GOSSIP_PATH: Final = "/mesh/gossip"
"""Where a node takes frames, on whatever port it listens."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long the other side may take to agree to a closing."""

GOING_AWAY: Final = 1001
UNSUPPORTED_DATA: Final = 1003
POLICY_VIOLATION: Final = 1008
MESSAGE_TOO_BIG: Final = 1009
TRY_AGAIN_LATER: Final = 1013

_INCOMING_BYTES_MAX: Final = 1024
"""What a peer may send on a connection that was dialled: nothing but control frames is due."""

SILENT: Final = logging.getLogger("meshlib.aio.websocket.library")
SILENT.setLevel(logging.CRITICAL + 1)
"""What the library below would log, with a traceback, of whatever anybody sends."""


class TlsOfPeers(Protocol):
    """How peers are dialled over TLS, asked anew for each connection."""

    @property
    def client(self) -> ssl.SSLContext:
        """What is shown and asked for."""
        ...

    @property
    def peer_name(self) -> str | None:
        """The name that a peer's certificate must have; None: that of its host."""
        ...


@frozen
class DialledTls:
    """TLS that stays as it is; see `TlsOfPeers`.

    Args:
        client: what is shown and asked for.
        peer_name: the name that a peer's certificate must have; None: that of its host.
    """

    client: ssl.SSLContext
    peer_name: str | None = None


class WebSocketDialler(Dialler):
    """What every transport over WebSockets has in common: all but who accepts connections.

    Args:
        token: what to present to peers; None presents nothing.
        tls: how peers are dialled over TLS; None: without.
        links: how outgoing connections are kept.
        log: where what peers cause is told.
    """

    def __init__(
        self,
        *,
        token: str | None,
        tls: TlsOfPeers | None,
        links: LinkConfig | None,
        log: QuietLog,
    ) -> None:
        super().__init__(config=links)
        self._log = log
        self._peers_tls = tls
        self.present(token)

    def present(self, token: str | None) -> None:
        """Show another token to peers that are dialled from now on; None shows none."""
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def _dial(self, address: str) -> _OutgoingConnection:
        """Connect to a peer.

        Raises:
            OSError: it cannot be reached, is no gossip endpoint, or refused the token.
        """
        tls = self._peers_tls
        try:
            host, port = split_address(address)
            sock = await dialled_socket(host, port)
        except (ConfigError, UnicodeError) as error:
            raise ConnectionError(str(error)) from error
        name = tls.peer_name or host if tls is not None else None
        try:
            connection = await connect(
                f"{'ws' if tls is None else 'wss'}://{address}{GOSSIP_PATH}",
                sock=sock,
                ssl=None if tls is None else tls.client,
                server_hostname=name,
                additional_headers=self._headers,
                compression=None,  # frames are small or already dense
                proxy=None,  # peers are dialled directly, whatever the environment says
                open_timeout=None,  # the link has a deadline of its own
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=_INCOMING_BYTES_MAX,
                logger=SILENT,
            )
        except (InvalidHandshake, InvalidURI, EOFError) as error:
            if isinstance(error, InvalidURI):  # the socket was not taken
                sock.close()
            self._log.tell("a peer refused the connection", f"{address}: {error}")
            is_token = isinstance(error, InvalidStatus) and error.response.status_code == 401
            fault = LinkFault.WRONG_TOKEN if is_token else LinkFault.OTHER
            raise PeerRefusedError(fault, str(error)) from error
        bound_silence(connection.transport, self._links.config.stall_s)
        return _OutgoingConnection(connection)


class _OutgoingConnection:
    """One dialled WebSocket, as `OutgoingLinks` uses it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, frames: Sequence[bytes]) -> None:
        """Write frames, in order; see `Connection`."""
        try:
            for frame in frames:
                await self._connection.send(frame)
        except ConnectionClosed as error:
            raise ConnectionResetError(str(error)) from error

    async def wait_closed(self) -> None:
        """Return once the connection is gone; see `Connection`."""
        await self._connection.wait_closed()

    async def close(self) -> None:
        """Close with a handshake."""
        await self._connection.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._connection.transport.abort()

    def why_closed(self) -> LinkFailure:
        """Return what the accepting side said when it closed."""
        return LinkFailure.told(self._connection.close_reason or "")
