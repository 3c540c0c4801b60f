"""Gossip over WebSockets, on the same port as the API.

Each node dials its own outgoing connection to `/mesh/gossip` with the peer token in its
`Authorization` header; an accepted connection only receives. One binary message is one frame.

Rule: the tokens are checked by `auth` before anything here runs, and what is no frame closes
the connection it came on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)

from meshlib.aio import (
    LinkConfig,
    LinkFailure,
    LinkFault,
    OutgoingLinks,
    PeerRefusedError,
    Receiver,
    TransportCounters,
    bound_silence,
    dialled_socket,
    join_address,
    refusal_word,
    split_address,
)
from meshlib.errors import ConfigError, RejectReason, StateError
from meshlib.limits import ACCEPTED_CONNECTIONS_MAX
from meshlib_server.access.tls import PEER_NAMES, Tls
from meshlib_server.logs import quiet_warning
from meshlib_server.problems import problem

__all__ = ["GOSSIP_PATH", "WebSocketTransport"]

GOSSIP_PATH: Final = "/mesh/gossip"

_CLOSE_TIMEOUT_S: Final = 1.0
_INCOMING_BYTES_MAX: Final = 1024
"""What a peer may send on a connection that we dialled: nothing but control frames is due."""

_GOING_AWAY = 1001
_UNSUPPORTED_DATA = 1003
_POLICY_VIOLATION = 1008
_MESSAGE_TOO_BIG = 1009
_TRY_AGAIN_LATER = 1013


class WebSocketTransport:
    """Carries frames over WebSockets: dials with `websockets`, accepts by a Starlette route.

    Implements `meshlib.aio.Transport`. Listening is the HTTP server's: this object takes the
    connections that its route is handed.

    Args:
        address: what to advertise, as `host:port`.
        token: what to present to peers; None presents nothing.
        tls: what to show to peers that are dialled, and to ask of them; None: there is no TLS.
        links: how outgoing connections are kept.
        accepted_max: connections of peers that are held at once.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None,
        tls: Tls | None = None,
        links: LinkConfig | None = None,
        accepted_max: int = ACCEPTED_CONNECTIONS_MAX,
    ) -> None:
        self._address = address
        self._accepted_max = accepted_max
        self._tls = tls
        self._counters = TransportCounters()
        self.present(token)
        self._links = OutgoingLinks(
            self._dial,
            connection_lost=self._connection_lost,
            link_busy=self._link_busy,
            counters=self._counters,
            config=links,
        )
        self._receiver: Receiver | None = None
        self._accepted: dict[WebSocket, str] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def address(self) -> str:
        """Where peers reach this node, as `host:port`."""
        return self._address

    @property
    def counters(self) -> TransportCounters:
        """What was done and dropped so far."""
        return self._counters

    def present(self, token: str | None) -> None:
        """Show another token to peers that are dialled from now on; None shows none."""
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def start(self, receiver: Receiver) -> None:
        """Deliver to `receiver` from now on.

        Raises:
            StateError: started before.
        """
        if self._receiver is not None:
            raise StateError("the transport was started before")
        self._receiver = receiver

    def send(self, address: str, data: bytes) -> bool:
        """Queue one frame; False when it was dropped at once, and counted."""
        return self._links.send(address, data)

    async def close(self, *, drain_s: float) -> None:
        """Take no more, send what is queued for up to `drain_s` seconds, and close. Idempotent."""
        self._is_closed = True
        await self._links.close(drain_s=drain_s)
        for websocket in list(self._accepted):
            self._hang_up(websocket, _GOING_AWAY)
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_TIMEOUT_S)

    def drop_link(self, address: str) -> None:
        """Give up the outgoing link to an address, and what waits on it, without a report.

        Args:
            address: one without a link is ignored.
        """
        self._links.drop(address)

    def end_pause(self, address: str) -> None:
        """Dial again what could not be reached a moment ago, for its peer was heard.

        Args:
            address: one that is not waited for is ignored.
        """
        self._links.end_pause(address)

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the accepted connection that a frame came on: it carried what nobody sends.

        Args:
            sender: as it was handed to the receiver; one that is gone is ignored.
            reason: told to the sender, as the reason of the closing.
        """
        for websocket, known in list(self._accepted.items()):
            if known == sender:
                self._hang_up(websocket, _POLICY_VIOLATION, refusal_word(reason))

    async def endpoint(self, websocket: WebSocket) -> None:
        """Serve one accepted connection: the route of the gossip."""
        receiver = self._receiver
        if receiver is None or self._is_closed:
            await websocket.close(_TRY_AGAIN_LATER)
            return
        if self._tls is not None and not self._tls.admits_peer(websocket.scope.get(PEER_NAMES)):
            self._counters.hellos_refused += 1
            quiet_warning("a peer has not shown the certificate of one", _client_of(websocket))
            await problem(403, "a peer's certificate is required")(
                websocket.scope, websocket.receive, websocket.send
            )
            return
        if len(self._accepted) >= self._accepted_max:
            self._counters.connections_refused += 1
            quiet_warning("too many gossip connections", f"{len(self._accepted):,} are open")
            await websocket.close(_TRY_AGAIN_LATER)
            return
        await websocket.accept()
        self._counters.connections_accepted += 1
        sender = _client_of(websocket)
        self._accepted[websocket] = sender
        try:
            await self._receive_frames(websocket, receiver, sender)
        finally:
            del self._accepted[websocket]

    async def _receive_frames(self, websocket: WebSocket, receiver: Receiver, sender: str) -> None:
        counters = self._counters
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                if message.get("code") == _MESSAGE_TOO_BIG:
                    counters.frames_malformed += 1
                    quiet_warning("frame over its limit", f"from {sender}")
                return
            frame = message.get("bytes")
            if not frame:
                counters.frames_malformed += 1
                quiet_warning("a message that is no frame", f"from {sender}")
                await websocket.close(_UNSUPPORTED_DATA)
                return
            counters.frames_received += 1
            counters.bytes_received += len(frame)
            if not receiver.frame_received(frame, sender):
                await receiver.wait_for_room()

    def _hang_up(self, websocket: WebSocket, code: int, word: str = "") -> None:
        """Begin to close an accepted connection; its route then ends by itself."""

        async def close() -> None:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it may just have gone
                await websocket.close(code, word or None)

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _connection_lost(self, address: str, failure: LinkFailure) -> None:
        if self._receiver is not None:
            self._receiver.connection_lost(address, failure)

    def _link_busy(self, address: str, is_busy: bool) -> None:
        if self._receiver is not None:
            self._receiver.link_busy(address, is_busy=is_busy)

    async def _dial(self, address: str) -> _OutgoingConnection:
        """Connect to a peer.

        Raises:
            OSError: it cannot be reached, is no gossip endpoint, or refused the token.
        """
        tls = self._tls
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
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=_INCOMING_BYTES_MAX,
            )
        except (InvalidHandshake, InvalidURI, EOFError) as error:
            if isinstance(error, InvalidURI):  # the socket was not taken
                sock.close()
            quiet_warning("a peer refused the connection", f"{address}: {error}")
            is_token = isinstance(error, InvalidStatus) and error.response.status_code == 401
            fault = LinkFault.WRONG_TOKEN if is_token else LinkFault.OTHER
            raise PeerRefusedError(fault, str(error)) from error
        bound_silence(connection.transport, self._links.config.stall_s)
        return _OutgoingConnection(connection)


def _client_of(websocket: WebSocket) -> str:
    client = websocket.client
    return join_address(client.host, client.port) if client else "unknown"


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
