"""The accepting side: an HTTP server that knows one path, and takes frames there.

Rule: what a stranger can hold is bounded: connections in all, those that have not shown a token,
the bytes of a request, and the time for one. What is no frame closes the connection it came on.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from meshlib.aio.framing import TokenCheck
from meshlib.aio.listener import ListenerConfig, listening_socket
from meshlib.aio.transport import QuietLog, Receiver, TransportCounters, join_address, refusal_word
from meshlib.aio.websocket.dialling import (
    CLOSE_TIMEOUT_S,
    GOING_AWAY,
    GOSSIP_PATH,
    MESSAGE_TOO_BIG,
    POLICY_VIOLATION,
    SILENT,
    UNSUPPORTED_DATA,
)
from meshlib.errors import RejectReason
from meshlib.limits import FRAME_BYTES_MAX

__all__ = ["WebSocketListener"]

_MESSAGES_WAITING_MAX = 4
"""Frames of one connection that are held before its peer is read no further."""


class WebSocketListener:
    """Accepts connections on one address and delivers their frames.

    Args:
        receiver: where frames go.
        tokens: what a request must show.
        counters: what is counted.
        config: what is granted.
        log: where what strangers cause is told.
        tls: for accepted connections, or None.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        tokens: TokenCheck,
        counters: TransportCounters,
        config: ListenerConfig,
        log: QuietLog,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._receiver = receiver
        self._tokens = tokens
        self._counters = counters
        self._config = config
        self._log = log
        self._tls = tls
        self._server: Server | None = None
        self._strangers: dict[ServerConnection, None] = {}
        self._accepted: dict[str, ServerConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port: the one given, or the free one that 0 found.

        Raises:
            OSError: the address cannot be listened on. Nothing was opened.
        """
        sock = await listening_socket(host, port)
        more: dict[str, Any] = {}
        if self._tls is not None:
            more = {"ssl": self._tls, "ssl_handshake_timeout": self._config.hello_timeout_s}
        self._server = await serve(
            self._take_frames,
            sock=sock,
            process_request=self._judge,
            create_connection=self._connection_type(),
            origins=[None],  # a page in a browser says where it is from; no peer does
            compression=None,
            max_size=FRAME_BYTES_MAX,
            max_queue=_MESSAGES_WAITING_MAX,
            open_timeout=self._config.hello_timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,  # who is alive is found out by gossip
            server_header=None,
            logger=SILENT,
            **more,
        )
        opened_port: int = sock.getsockname()[1]
        return opened_port

    def _connection_type(self) -> type[ServerConnection]:
        listener = self

        class Bounded(ServerConnection):
            """A connection that is counted from its first moment."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                listener._admit(self)

            def connection_lost(self, exc: Exception | None) -> None:
                listener._strangers.pop(self, None)
                super().connection_lost(exc)

        return Bounded

    def _admit(self, connection: ServerConnection) -> None:
        """Take a connection into account, or close it."""
        counters = self._counters
        if len(self._strangers) + len(self._accepted) >= self._config.accepted_max:
            counters.connections_refused += 1
            self._log.tell("too many connections", f"one from {_sender_of(connection)} was closed")
            connection.transport.abort()
            return
        counters.connections_accepted += 1
        if len(self._strangers) >= self._config.strangers_max:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()
            counters.hellos_timed_out += 1
        self._strangers[connection] = None

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a request that is not a peer's."""
        if request.path != GOSSIP_PATH:
            return self._refused(connection, HTTPStatus.NOT_FOUND, "nothing is here")
        shown = request.headers.get_all("Authorization")
        token = shown[0].removeprefix("Bearer ") if shown else ""
        is_form_right = not shown or (len(shown) == 1 and shown[0].startswith("Bearer "))
        if not is_form_right or not self._tokens.accepts(token.encode("utf-8", "surrogateescape")):
            return self._refused(connection, HTTPStatus.UNAUTHORIZED, "another token is wanted")
        return None

    def _refused(self, connection: ServerConnection, status: HTTPStatus, words: str) -> Response:
        self._counters.hellos_refused += 1
        self._log.tell("a connection was refused", f"{words}: {_sender_of(connection)}")
        return connection.respond(status, f"{words}\n")

    async def _take_frames(self, connection: ServerConnection) -> None:
        """Deliver what comes on one connection, until it is gone."""
        if connection not in self._strangers:
            return  # it had to make room in the very moment in which it became a peer
        del self._strangers[connection]
        sender = _sender_of(connection)
        self._accepted[sender] = connection
        try:
            await self._deliver(connection, sender)
        except TimeoutError:
            connection.transport.abort()  # its host may be gone
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == MESSAGE_TOO_BIG:
                self._counters.frames_malformed += 1
                self._log.tell("frame over its limit", f"from {sender}")
        finally:
            if self._accepted.get(sender) is connection:
                del self._accepted[sender]

    async def _deliver(self, connection: ServerConnection, sender: str) -> None:
        counters = self._counters
        while True:
            async with asyncio.timeout(self._config.silence_max_s):
                frame = await connection.recv()
            if not frame or isinstance(frame, str):
                counters.frames_malformed += 1
                self._log.tell("a message that is no frame", f"from {sender}")
                await connection.close(UNSUPPORTED_DATA)
                return
            counters.frames_received += 1
            counters.bytes_received += len(frame)
            if not self._receiver.frame_received(frame, sender):
                await self._receiver.wait_for_room()

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the connection of a sender; nothing happens when it is gone."""
        connection = self._accepted.get(sender)
        if connection is not None:
            self._hang_up(connection, POLICY_VIOLATION, refusal_word(reason))

    def _hang_up(self, connection: ServerConnection, code: int, word: str = "") -> None:
        task = asyncio.get_running_loop().create_task(connection.close(code, word))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def stop_accepting(self) -> None:
        """Take no further connection; those accepted stay. Idempotent."""
        if self._server is not None:
            self._server.close(close_connections=False)

    async def close(self, *, is_gentle: bool) -> None:
        """Close everything; returns with no task and no socket left. Idempotent.

        Args:
            is_gentle: whether peers are told, and given a second to agree.
        """
        if self._server is None:
            return
        self.stop_accepting()
        if is_gentle:
            for connection in list(self._accepted.values()):
                self._hang_up(connection, GOING_AWAY)
            if self._closing:
                await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT_S)
        for connection in [*self._strangers, *self._accepted.values()]:
            connection.transport.abort()
        await self._server.wait_closed()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _sender_of(connection: ServerConnection) -> str:
    address = connection.remote_address
    return join_address(address[0], address[1]) if address else "unknown"
