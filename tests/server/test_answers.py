"""How an answer is written: its head and its body in one piece, where both are there."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from meshlib_server.http import HttpServer, HttpSettings

pytestmark = pytest.mark.anyio

ASKED = b" / HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written, and how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.has_ended = False

    def write(self, data: Any) -> None:
        """Keep a piece."""
        self.written.append(bytes(data))

    def can_write_eof(self) -> bool:
        """Say yes, as TCP does."""
        return True

    def write_eof(self) -> None:
        """Take note of it."""
        self.has_ended = True

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        """Tell whether it has ended."""
        return self.has_ended

    def close(self) -> None:
        """End."""
        self.has_ended = True

    def abort(self) -> None:
        """End at once."""
        self.has_ended = True


async def asked(app: Any, *requests: bytes) -> Wire:
    """Return what is written when these come in one piece."""
    server = HttpServer(app, settings=HttpSettings(), connections_max=8)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    protocol = server._make_protocol()
    server.gate.enter(protocol, "127.0.0.1")
    wire = Wire()
    protocol.connection_made(wire)
    protocol.data_received(b"".join(requests))
    for _ in range(20):
        await asyncio.sleep(0)
    server.gate.close()
    return wire


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in JSON."""
    await JSONResponse({"a": 1})(scope, receive, send)


async def test_an_answer_is_written_in_one_piece() -> None:
    """Head and body."""
    wire = await asked(answer, b"GET" + ASKED)

    [whole] = wire.written
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b'\r\n\r\n{"a":1}')


async def test_a_head_that_was_asked_for_alone_is_written() -> None:
    """With the length of the body that is not sent; and what comes next is behind it."""
    wire = await asked(answer, b"HEAD" + ASKED, b"GET" + ASKED)

    [head, whole] = wire.written
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 7\r\n" in head
    assert whole.endswith(b'\r\n\r\n{"a":1}')


async def test_a_head_does_not_wait_for_a_stream() -> None:
    """Whose first chunk may be long in coming."""

    async def silence() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(silence())(scope, receive, send)

    wire = await asked(stream, b"GET" + ASKED)

    [head] = wire.written
    assert head.endswith(b"\r\n\r\n")


async def test_a_head_whose_body_fails_is_written() -> None:
    """And then the connection ends, which says that the body is not whole."""

    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"7")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    wire = await asked(broken, b"GET" + ASKED)

    [head] = wire.written
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert wire.has_ended


@pytest.mark.parametrize(
    "come", [b"", b"GET / HT", b"GET" + ASKED, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_nothing_is_left_of_a_connection_once_it_has_ended(come: bytes) -> None:
    """Also where the collector does not look, whatever came before: it may be frozen."""
    server = HttpServer(answer, settings=HttpSettings(), connections_max=8)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    protocol = server._make_protocol()
    seen = weakref.ref(protocol)
    server.gate.enter(protocol, "127.0.0.1")
    protocol.connection_made(Wire())
    if come:
        protocol.data_received(come)
    gc.disable()
    try:
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        del protocol
        for _ in range(20):
            await asyncio.sleep(0)
        assert seen() is None
    finally:
        gc.enable()
        server.gate.close()
