"""The accepting side of TCP: strangers become senders by a hello, then frames are delivered.

Rule: what a stranger can hold is bounded: connections in all, connections that have not said
hello, the bytes of a hello, and the time for one, TLS handshake included.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

from attrs import field, frozen

from meshlib.aio.framing import FrameDecoder, TokenCheck, check_hello, encode_refusal
from meshlib.aio.settings import check_positive
from meshlib.aio.transport import (
    LinkFault,
    QuietLog,
    Receiver,
    TransportCounters,
    join_address,
    refusal_word,
)
from meshlib.arguments import checked_types
from meshlib.errors import RejectReason, RemoteError
from meshlib.limits import ACCEPTED_CONNECTIONS_MAX

__all__ = ["Listener", "ListenerConfig", "listening_socket"]

_logger = logging.getLogger(__name__)
_BACKLOG = 512
_ACCEPT_RETRY_S = 0.1
_ACCEPT_BATCH = 64
"""Connections taken before the rest of the program has its turn."""


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class ListenerConfig:
    """What a listener grants to those who connect.

    Args:
        hello_timeout_s: a connection that has not said hello by then, its TLS handshake
            included, is closed.
        silence_max_s: a connection that sent nothing for so long is closed, for its host may
            be gone. Keep it well over the `LinkConfig.idle_close_s` of the peers.
        accepted_max: connections held; further ones are closed at once.
        strangers_max: connections that have not said hello; beyond it the oldest of them is
            closed, so that strangers cannot lock peers out for long.
    """

    hello_timeout_s: float = field(default=5.0, validator=check_positive)
    silence_max_s: float = field(default=120.0, validator=check_positive)
    accepted_max: int = field(default=ACCEPTED_CONNECTIONS_MAX, validator=check_positive)
    strangers_max: int = field(default=256, validator=check_positive)


class _AcceptedConnection(asyncio.Protocol):
    """One accepted connection: a hello, then frames for the receiver."""

    def __init__(self, listener: Listener, sender: str) -> None:
        loop = asyncio.get_running_loop()
        self.sender = sender
        self.is_greeted = False
        self.settled: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._listener = listener
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._heard_at = loop.time()
        self._silence: asyncio.TimerHandle | None = None
        self._resumption: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the transport; asyncio calls it first."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came, and hand on the frames that are whole."""
        if self._transport is None or self._transport.is_closing():
            return
        is_welcome = True
        try:
            for frame in self._decoder.feed(data):
                if self.is_greeted:
                    is_welcome &= self._listener.deliver(frame, self.sender)
                else:
                    self._greet(frame)
        except RemoteError as error:
            self._listener.refuse(self, error)
            return
        self._heard_at = asyncio.get_running_loop().time()
        if not is_welcome and self._resumption is None:
            self._transport.pause_reading()
            self._resumption = asyncio.create_task(self._resume_when_welcome())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Let go of the connection; asyncio calls it once, and last."""
        for future in (self.settled, self.closed):
            if not future.done():
                future.set_result(None)
        if self._silence is not None:
            self._silence.cancel()
        if self._resumption is not None:
            self._resumption.cancel()

    def abort(self) -> None:
        """Drop the connection at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def dismiss(self, word: str) -> None:
        """Say why, if there is a word for it, and close. Idempotent.

        A peer that does not take the word is dropped by what bounds its hello or its silence.
        """
        if not word:
            self.abort()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_refusal(word))
            self._transport.close()

    def _greet(self, frame: bytes) -> None:
        check_hello(frame, self._listener.tokens)
        self.is_greeted = True
        self._decoder.expect_frames()
        if not self.settled.done():
            self.settled.set_result(None)
        self._watch_silence()

    def _watch_silence(self) -> None:
        """Close the connection when it has been silent for too long; else look again then."""
        loop = asyncio.get_running_loop()
        if self._resumption is not None:
            self._heard_at = loop.time()  # a pause that this node made is not the peer's silence
        ends_at = self._heard_at + self._listener.config.silence_max_s
        if loop.time() >= ends_at:
            self.abort()
        else:
            self._silence = loop.call_at(ends_at, self._watch_silence)

    async def _resume_when_welcome(self) -> None:
        await self._listener.receiver.wait_for_room()
        self._resumption = None
        self._heard_at = asyncio.get_running_loop().time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


class Listener:
    """Accepts connections on one address and delivers their frames.

    Args:
        receiver: where frames go.
        tokens: what a hello must show.
        counters: what is counted.
        config: what is granted.
        tls: for accepted connections, or None.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        tokens: TokenCheck,
        counters: TransportCounters,
        config: ListenerConfig,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.receiver = receiver
        self.tokens = tokens
        self.counters = counters
        self.config = config
        self._tls = tls
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._strangers: dict[asyncio.Task[None], None] = {}
        self._accepted: dict[str, _AcceptedConnection] = {}
        self._log = QuietLog(_logger)

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port: the one given, or the free one that 0 found.

        Raises:
            OSError: the address cannot be listened on. Nothing was opened.
        """
        listening = await listening_socket(host, port)
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept_all(listening))
        opened_port: int = listening.getsockname()[1]
        return opened_port

    def stop_accepting(self) -> None:
        """Take no further connection; those accepted stay. Idempotent."""
        if self._accepting is not None:
            self._accepting.cancel()

    async def close(self) -> None:
        """Close everything; returns with no task and no socket left. Idempotent."""
        self.stop_accepting()
        tasks = [*self._strangers, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        accepted = list(self._accepted.values())
        for connection in accepted:
            connection.abort()
        await asyncio.gather(*(connection.closed for connection in accepted))
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def deliver(self, frame: bytes, sender: str) -> bool:
        """Hand one frame to the receiver, and return whether more is welcome."""
        self.counters.frames_received += 1
        self.counters.bytes_received += len(frame)
        return self.receiver.frame_received(frame, sender)

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the connection of a sender; nothing happens when it is gone."""
        connection = self._accepted.get(sender)
        if connection is not None:
            connection.dismiss(refusal_word(reason))

    def refuse(self, connection: _AcceptedConnection, error: RemoteError) -> None:
        """Count and log why a connection is closed, tell the peer, and close it."""
        if connection.is_greeted:
            self.counters.frames_malformed += 1
            self._log.tell("malformed frame", f"{error}, from {connection.sender}")
        else:
            self.counters.hellos_refused += 1
            self._log.tell("hello refused", f"{error}, from {connection.sender}")
        # Who sends anything but a hello is no peer, and is told nothing.
        is_token = error.reason is RejectReason.IDENTITY
        connection.dismiss(LinkFault.WRONG_TOKEN if is_token else "")

    async def _accept_all(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        taken = 0
        try:
            while True:
                try:
                    accepted, socket_address = await loop.sock_accept(listening)
                except ConnectionError:
                    continue  # it was gone before it was taken
                except OSError as error:
                    # No descriptors are left, as a rule; those that close make room.
                    self._log.tell("cannot accept", str(error))
                    await asyncio.sleep(_ACCEPT_RETRY_S)
                    continue
                self._take(accepted, join_address(str(socket_address[0]), socket_address[1]))
                taken += 1
                if taken % _ACCEPT_BATCH == 0:
                    # To take what is waiting already gives nobody a turn, however many come.
                    await asyncio.sleep(0)
        finally:
            listening.close()

    def _take(self, accepted: socket.socket, sender: str) -> None:
        if len(self._accepted) + len(self._strangers) >= self.config.accepted_max:
            self.counters.connections_refused += 1
            self._log.tell("too many connections", f"one from {sender} was closed")
            accepted.close()
            return
        self.counters.connections_accepted += 1
        if len(self._strangers) >= self.config.strangers_max:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.cancel()
            self.counters.hellos_timed_out += 1
        task = asyncio.create_task(self._welcome(accepted, sender))
        self._strangers[task] = None
        task.add_done_callback(lambda done: self._strangers.pop(done, None))

    async def _welcome(self, accepted: socket.socket, sender: str) -> None:
        """See one connection through its handshake and hello, or close it."""
        timeout_s = self.config.hello_timeout_s
        connection = _AcceptedConnection(self, sender)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=self._tls,
                    ssl_handshake_timeout=timeout_s if self._tls else None,
                )
                await connection.settled
        except TimeoutError:
            self.counters.hellos_timed_out += 1
            self._log.tell("no hello", f"{sender} said nothing for {timeout_s:g} s")
        except OSError as error:
            self.counters.hellos_refused += 1
            self._log.tell("handshake failed", f"{error}, from {sender}")
        finally:
            if connection.is_greeted and not connection.closed.done():
                self._accepted[sender] = connection
                connection.closed.add_done_callback(lambda _: self._accepted.pop(sender, None))
            else:
                connection.abort()
                accepted.close()


async def listening_socket(host: str, port: int) -> socket.socket:
    """Open a socket that listens; `::` stands for every interface. The caller closes it.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, socket_address = found[0]
    is_dual = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
    listening = socket.create_server(
        (str(socket_address[0]), int(socket_address[1])),
        family=family,
        backlog=_BACKLOG,
        dualstack_ipv6=is_dual,
    )
    listening.setblocking(False)
    return listening
