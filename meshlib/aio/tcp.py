"""Frames over TCP, with a token and, optionally, TLS.

Each side dials its own outgoing connection; an accepted one only receives.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Collection, Sequence
from struct import Struct
from typing import Any

from meshlib.aio.framing import TokenCheck, encode_hello, read_refusal
from meshlib.aio.links import Connection, Dialler, LinkConfig, bound_silence
from meshlib.aio.listener import Listener, ListenerConfig
from meshlib.aio.transport import (
    LinkFailure,
    Receiver,
    is_unspecified,
    join_address,
    split_address,
)
from meshlib.arguments import check_kind, check_text
from meshlib.errors import ConfigError, RejectReason, StateError, check_several

__all__ = ["TcpTransport", "dialled_socket"]

_LENGTH = Struct(">I")
_WRITE_BUFFER_BYTES = 256 * 1024


class _OutgoingConnection(asyncio.Protocol):
    """One dialled connection: writes frames and respects the operating system's backpressure."""

    def __init__(self, hello: bytes) -> None:
        self._hello = hello
        self._refusal = ""
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello; asyncio calls it first."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Take the word by which the other side refuses, and close."""
        # An accepting side has nothing to say but why it closes; or this is not one of ours.
        self._refusal = read_refusal(data)
        self.abort()

    def pause_writing(self) -> None:
        """Have `send` wait: the operating system takes no more."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Wake whoever waits; asyncio calls it once, and last."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._writable.set()

    async def send(self, frames: Sequence[bytes]) -> None:
        """Write frames in one piece, and wait until the buffer is under its limit."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        pieces: list[bytes] = []
        for frame in frames:
            pieces += (_LENGTH.pack(len(frame)), frame)
        self._transport.write(b"".join(pieces))
        await self._writable.wait()
        if self._closed.done():
            raise ConnectionResetError("the connection was lost")

    async def wait_closed(self) -> None:
        """Return once the connection is gone; see `Connection`."""
        await asyncio.shield(self._closed)

    def why_closed(self) -> LinkFailure:
        """Return what the accepting side said when it closed."""
        return LinkFailure.told(self._refusal)

    async def close(self) -> None:
        """Send what was written, and close."""
        if self._transport is not None:
            self._transport.close()
            await self.wait_closed()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _check_types(**given: tuple[object, type, str]) -> None:
    """Refuse arguments that are neither None nor what they must be."""
    for name, (value, kind, wanted) in given.items():
        if value is not None:
            check_kind(name, value, kind, wanted=wanted)


class TcpTransport(Dialler):
    """Carries frames over TCP: a `Transport`.

    Args:
        listen: `host:port` to listen on; port 0 takes a free one. `0.0.0.0` and `[::]` listen
            on every interface, and need `advertise`.
        advertise: `host:port` that peers dial; by default the listening one. Port 0 stands
            for the port that is listened on.
        token: the secret that this node shows to its peers and asks of them; None: none. It
            travels as it is: use TLS where the network is not trusted.
        accepted_tokens: further tokens that peers may show, while the token is being changed.
        server_tls: for accepted connections; its `verify_mode` asks for client certificates.
        client_tls: for dialled connections, and with the client's certificate where peers ask
            for one; give both contexts or neither.
        links: how outgoing links are kept.
        listener: what is granted to those who connect.
        rng: for the jitter of retries.

    Raises:
        ConfigError: an address that cannot be used or advertised, TLS for one direction only,
            an empty or oversized token, or a silence that peers' idle links would exceed.
        InvalidTypeError: an argument of another type, or one text in place of `accepted_tokens`.
    """

    def __init__(
        self,
        listen: str,
        *,
        advertise: str | None = None,
        token: str | None = None,
        accepted_tokens: Collection[str] = (),
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        links: LinkConfig | None = None,
        listener: ListenerConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check_types(
            advertise=(advertise, str, "a string"),
            token=(token, str, "a string"),
            server_tls=(server_tls, ssl.SSLContext, "an ssl.SSLContext"),
            client_tls=(client_tls, ssl.SSLContext, "an ssl.SSLContext"),
            links=(links, LinkConfig, "a LinkConfig"),
            listener=(listener, ListenerConfig, "a ListenerConfig"),
            rng=(rng, random.Random, "a random.Random"),
        )
        self._listen = split_address(listen)
        self._advertise = split_address(advertise or listen)
        if is_unspecified(self._advertise[0]):
            raise ConfigError(
                f"{join_address(*self._advertise)} is no address that peers could reach: "
                "advertise another"
            )
        if (server_tls is None) != (client_tls is None):
            raise ConfigError("TLS needs a context for each direction")
        check_several("accepted_tokens", accepted_tokens)
        for accepted in accepted_tokens:
            check_text("an accepted token", accepted)
        self._hello = encode_hello(token)
        tokens = TokenCheck([*([token] if token else []), *accepted_tokens])
        super().__init__(config=links, rng=rng)
        self._client_tls = client_tls
        self._server_tls = server_tls
        self._tokens = tokens
        self._listener_config = listener or ListenerConfig()
        if self._listener_config.silence_max_s <= self._links.config.idle_close_s:
            raise ConfigError("silence_max_s must be over idle_close_s")
        self._listener: Listener | None = None

    @property
    def address(self) -> str:
        """Where peers reach this transport.

        Raises:
            StateError: the port is chosen at `start`, which was not called.
        """
        if self._advertise[1] == 0:
            raise StateError("a transport on port 0 has no address before it is started")
        return join_address(*self._advertise)

    async def start(self, receiver: Receiver) -> None:
        """Listen, and deliver to `receiver` from now on.

        Raises:
            OSError: the address cannot be listened on. Nothing was started.
            StateError: started before.
        """
        self._check_fresh()
        listener = Listener(
            receiver,
            tokens=self._tokens,
            counters=self.counters,
            config=self._listener_config,
            tls=self._server_tls,
        )
        port = await listener.open(*self._listen)
        self._listener = listener
        self._advertise = (self._advertise[0], self._advertise[1] or port)
        self._begin(receiver)

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the incoming connection that a frame came on; see `Transport.close_sender`."""
        if self._listener is not None:
            self._listener.close_sender(sender, reason=reason)

    async def close(self, *, drain_s: float) -> None:
        """Stop listening, send what is queued for up to `drain_s` seconds, and close."""
        if self._listener is None:
            return
        self._listener.stop_accepting()
        await self._links.close(drain_s=drain_s)
        await self._listener.close()

    async def _dial(self, address: str) -> Connection:
        try:
            host, port = split_address(address)
        except ConfigError as error:
            raise ConnectionError(str(error)) from error
        try:
            sock = await dialled_socket(host, port)
        except UnicodeError as error:
            raise ConnectionError(f"{host!r} is no name of a host") from error
        transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: _OutgoingConnection(self._hello),
            sock=sock,
            ssl=self._client_tls,
            server_hostname=host if self._client_tls else None,
        )
        bound_silence(transport, self._links.config.stall_s)
        return connection


async def dialled_socket(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that answers. The caller closes what it gets.

    Args:
        host: a name or an address.
        port: 1 to 65,535.

    Raises:
        ConnectionRefusedError: every address of the host refused.
        OSError: the name is not known, or what the first of the others said that did not refuse.
    """
    errors: list[OSError] = []
    for family, kind, protocol, _, address in await _addresses(host, port):
        try:
            return await _connected(family, kind, protocol, address)
        except OSError as error:
            errors.append(error)
    if not errors:
        raise OSError(f"{host!r} has no address")
    others = (error for error in errors if not isinstance(error, ConnectionRefusedError))
    raise next(others, errors[0])


async def _addresses(host: str, port: int) -> list[Any]:
    """Return what a host's name stands for; an address in digits is asked of nobody."""
    kind, digits = socket.SOCK_STREAM, socket.AI_NUMERICHOST
    try:
        return socket.getaddrinfo(host, port, type=kind, flags=digits)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)


async def _connected(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
