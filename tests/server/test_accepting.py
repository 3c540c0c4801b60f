"""Connections that come just as the server stops taking them are taken, not reset."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from meshlib_server.http import HttpServer, HttpSettings

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer anything with 200."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def connected(listener: socket.socket) -> socket.socket:
    """Connect, and ask at once."""
    caller = socket.create_connection(listener.getsockname())
    caller.sendall(REQUEST)
    caller.setblocking(False)
    return caller


async def status_of(caller: socket.socket) -> bytes:
    """Read the status line."""
    line = await asyncio.get_running_loop().sock_recv(caller, 4096)
    return line.partition(b"\r\n")[0]


async def served(turns: int, count: int) -> list[bytes]:
    """Connect callers, let the loop turn, and end the server; return what they were told."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = HttpServer(answer, settings=HttpSettings(), connections_max=512)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn knows of no event
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        callers = [connected(listener) for _ in range(count)]
        for _ in range(turns):
            await asyncio.sleep(0)
        ending = asyncio.create_task(server.shutdown())
        try:
            async with asyncio.timeout(30):
                return [await status_of(caller) for caller in callers]
        finally:
            for caller in callers:
                caller.close()
            await ending
            server.should_exit = True
            await serving


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("count", [1, 200])
def test_who_has_connected_by_the_end_is_answered(turns: int, count: int) -> None:
    """In whichever turn of the loop it came, and however many came."""
    assert asyncio.run(served(turns, count)) == [b"HTTP/1.1 200 OK"] * count
