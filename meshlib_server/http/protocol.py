"""One connection: how long and how large its requests may be, and how it is closed.

Rule: what never reaches the application is answered as the application answers: in JSON, and
without a word of it in the log more than once a minute. And no answer is lost by how a connection
ends: with bytes unread, closing would be a reset, which takes the answer from whoever still sends.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from meshlib.limits import HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_REQUEST_BYTES_MAX
from meshlib_server.http.gate import Gate, Stage
from meshlib_server.logs import quiet_warning
from meshlib_server.problems import problem_body

__all__ = ["BoundedConfig", "BoundedProtocol"]

NO_HTTP: Final = "Invalid HTTP request received."

_HEADER_OVERHEAD_BYTES = 4
"""The colon, the space and the end of a line."""


class BoundedConfig(Config):
    """uvicorn's settings, and the gate that every connection goes through.

    Args:
        gate: the gate.
        options: uvicorn's own.
    """

    def __init__(self, app: Any, *, gate: Gate, **options: Any) -> None:
        super().__init__(app, **options)
        self.gate = gate


class _TooLarge(Exception):  # noqa: N818 - never leaves this file
    """The head in hand is over its limit."""


class _Flow(FlowControl):
    """Reads on only when what has been read was answered, so that what waits is bounded."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Read on, unless enough waits for its answer."""
        if not self._protocol.has_enough:
            super().resume_reading()


class _GentleTransport:
    """The transport as uvicorn uses it: to close it is to close it gently."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """Write, unless the end has begun."""
        if not self._protocol.is_lingering:
            self._protocol.write(data)

    def close(self) -> None:
        """Close, but read what still comes for a while."""
        self._protocol.linger()

    def is_closing(self) -> bool:
        """Tell whether the end has begun."""
        return self._protocol.is_lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _NoTransport:
    """What a connection has after its end."""

    def write(self, _data: bytes) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Do nothing: it is closed."""

    def is_closing(self) -> bool:
        """Tell that it is closed."""
        return True


_NO_TRANSPORT: Final = _NoTransport()


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a caller; arguments as uvicorn gives them."""

    def __init__(
        self,
        config: BoundedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.is_lingering = False
        self.connecting: asyncio.Task[Any] | None = None
        """What agrees on TLS, until `connection_made`."""
        self._gate = config.gate
        self._real: asyncio.Transport | None = None
        self._is_aborted = False
        self._stage: tuple[Stage, int] = (Stage.OPENING, 0)
        self._request_number = 0
        self._is_in_head = self._is_in_body = False
        self._is_head_too_large = False
        self._head_bytes = self._head_lines = 0
        self._request_bytes = 0
        self._refusal: tuple[int, str] | None = None
        self._served: Any = None  # the request that is being answered, or was the last to be
        self._begun: Any = None  # that whose answer has been begun
        self._held_head = b""

    @property
    def is_aborted(self) -> bool:
        """Whether its place was wanted for others."""
        return self._is_aborted

    @property
    def has_enough(self) -> bool:
        """Whether nothing more is to be read before something is answered."""
        return not self.is_lingering and (bool(self.pipeline) or self._refusal is not None)

    # asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless room was wanted for others meanwhile."""
        self._real = transport
        super().connection_made(_GentleTransport(transport, self))  # type: ignore[arg-type]
        self.flow = _Flow(transport, self)
        if self._is_aborted:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._gate.leave(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        # It refers to nothing that refers to it, so that it goes by itself. The collector may never
        # look: what was alive when it took long is frozen (`lag.py`), thousands of callers as well.
        # asyncio's transport holds a method of its own, which it never calls again.
        getattr(self._real, "__dict__", {}).pop("_read_ready_cb", None)
        self.transport = _NO_TRANSPORT  # type: ignore[assignment]
        self.flow = self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()
        self._real = self._served = self._begun = self.connecting = None
        self._held_head = b""

    def data_received(self, data: bytes) -> None:
        """Parse what came; what is no request, or too large for one, is refused."""
        if self.is_lingering:
            if not self._gate.discard(self, len(data)):
                self.abort()
            return
        if self._refusal is not None or self.parser is None:
            return  # it had been read before reading was paused, and is not answered
        self._unset_keepalive_if_required()
        is_head_continued = self._is_in_head
        self._request_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                return
            self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            if self._is_head_too_large:
                self._refuse_head()
            else:
                self._refuse(400, NO_HTTP)
        else:
            if self._is_in_head and is_head_continued:
                # What the parser holds back it has not told of yet.
                self._head_bytes += len(data)
                if self._head_bytes > HTTP_HEAD_BYTES_MAX:
                    self._refuse_head()
            elif self._is_in_body and self._request_bytes > HTTP_REQUEST_BYTES_MAX:
                self._refuse(413, "the body is too large")
        self._note_stage()

    def write(self, data: bytes) -> None:
        """Write what uvicorn writes; the head of an answer together with the body behind it.

        uvicorn hands over the two one after the other, and a call of the operating system each
        costs as much as a few hundred lines here. Of a body in chunks the first may be long in
        coming, so its head does not wait.
        """
        served = self._served
        if self._real is None:
            return
        if self._held_head:
            data, self._held_head = self._held_head + data, b""
        elif served is not self._begun and served.response_started:
            self._begun = served
            if served.expected_content_length:
                self._held_head = data
                return
        self._real.write(data)

    def _write_held_head(self) -> None:
        """Write a head behind which nothing came: it was asked for alone, or the body failed."""
        if self._held_head and self._real is not None:
            self._real.write(self._held_head)
            self._held_head = b""

    def pause_writing(self) -> None:
        """Take note that the caller does not read its answer."""
        super().pause_writing()
        self._gate.stall(self, is_stalled=True)

    def resume_writing(self) -> None:
        """Take note that it does again."""
        super().resume_writing()
        self._gate.stall(self, is_stalled=False)

    # The parser's side

    def on_message_begin(self) -> None:
        """Begin to count what the request takes."""
        super().on_message_begin()
        self._request_number += 1
        self._is_in_head = True
        self._head_bytes = self._head_lines = self._request_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(len(url), lines=0)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or one that comes after a body in chunks."""
        self._count(len(name) + len(value) + _HEADER_OVERHEAD_BYTES, lines=1)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._is_in_head, self._is_in_body = False, True
        super().on_headers_complete()
        if self._gate.is_draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Take note that the request is whole."""
        self._is_in_body = False
        super().on_message_complete()

    def _count(self, size: int, *, lines: int) -> None:
        self._head_bytes += size
        self._head_lines += lines
        if self._head_bytes > HTTP_HEAD_BYTES_MAX or self._head_lines > HTTP_HEADERS_MAX:
            self._is_head_too_large = True
            raise _TooLarge  # stops the parser

    def on_response_complete(self) -> None:
        """Go on with the next request, or with what is to be said last."""
        self._write_held_head()
        super().on_response_complete()
        if self._refusal is not None and not self.pipeline and not self.is_lingering:
            if self._is_answering:
                return
            self._unset_keepalive_if_required()
            self._answer_last(*self._refusal)
        self._note_stage()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over: from here on it is a peer's, or refused."""
        assert self._real is not None
        self._gate.leave(self)
        self.transport = self._real
        super().handle_websocket_upgrade()

    # Refusals

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; uvicorn calls it, so its name is uvicorn's."""
        self._refuse(400, msg)

    def _refuse_head(self) -> None:
        self._refuse(
            431,
            f"the headers are over {HTTP_HEAD_BYTES_MAX:,} bytes or {HTTP_HEADERS_MAX} lines",
        )

    def _refuse(self, status: int, message: str) -> None:
        """Answer what cannot be served, after what came before it, and then close."""
        quiet_warning("what came in is not served", message)
        if self._is_in_body and self.cycle is not None:
            self._give_up_body()
        if self.is_lingering or self._is_aborted:
            return
        self._refusal = (status, message)
        self.flow.pause_reading()
        if not self.pipeline and not self._is_answering:
            self._answer_last(status, message)

    def _give_up_body(self) -> None:
        """The rest of the newest request's body is never read: its handler must not wait for it."""
        self._is_in_body = False
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            return
        if cycle.response_complete:
            self.linger()  # it was refused in time; there is nothing to add
        elif cycle.response_started:
            self.abort()
        else:
            cycle.response_complete = True
            cycle.disconnected = True
            cycle.message_event.set()

    @property
    def _is_answering(self) -> bool:
        return self._served is not None and not self._served.response_complete

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _answer_last(self, status: int, message: str) -> None:
        """Answer `{"error": ...}` and close: where the next request begins is not known."""
        body = json.dumps(problem_body(status, message)).encode()
        fields = [
            STATUS_LINE[status].rstrip(),
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(fields) + b"\r\n\r\n" + body)
        self.linger()

    # The gate's side

    def expire(self, stage: Stage) -> None:
        """Close what took too long, with a word when somebody may be reading."""
        if stage in (Stage.OPENING, Stage.LINGERING):
            self._gate.leave(self)
            self.abort()
        elif stage is Stage.HEAD:
            self._refuse(408, "the headers did not come in time")
        elif stage is Stage.BODY:
            self._refuse(408, "the body did not come in time")
        else:
            self.linger()

    def abort(self) -> None:
        """Close at once."""
        self._is_aborted = True
        if self._real is not None:
            self._real.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    def begin_draining(self) -> None:
        """Let the answer that is being made be the last."""
        if self._served is not None and not self._served.response_started:
            self._served.keep_alive = False

    def shutdown(self) -> None:
        """Close, or let the answer that is being made, or is just asked for, be the last."""
        if self._is_answering or self.pipeline:
            self.begin_draining()
        elif self._served is not None:
            self.linger()
        # Else it has only just come, and its request is on its way: the gate is draining.

    def linger(self) -> None:
        """Close gently: say that nothing more comes, and read until the other side closes too.

        How much is read, and for how long, the gate decides. Idempotent.
        """
        real = self._real
        if self.is_lingering or real is None or real.is_closing():
            return
        self._unset_keepalive_if_required()
        self._write_held_head()
        self.is_lingering = True
        self._gate.move(self, Stage.LINGERING)
        if real.can_write_eof():
            real.write_eof()
        elif self._refusal is None and not (self._is_in_head or self._is_in_body):
            real.close()  # TLS has its own word for it, and nothing is unread
            return
        self.flow.resume_reading()

    def _note_stage(self) -> None:
        """Tell the gate when the connection does something else than before."""
        if self.is_lingering:
            return
        if self.pipeline:
            stage = Stage.ANSWERING
        elif self._is_in_body:
            stage = Stage.BODY
        elif self._is_answering:
            stage = Stage.ANSWERING
        elif self._is_in_head:
            stage = Stage.HEAD
        else:
            stage = Stage.IDLE if self.cycle is not None else Stage.OPENING
        noted = (stage, self._request_number)
        if noted != self._stage:
            self._stage = noted
            self._gate.move(self, stage)
