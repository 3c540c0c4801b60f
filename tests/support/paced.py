"""Requests at a steady rate on open connections, cheap enough for a machine that runs all the rest.

One event loop sends some thousand a second: a protocol on each connection, no client library, and
no task for a request. What is due is sent every two milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

from attrs import define, field

__all__ = ["Paced", "two_letters"]

TICK_S = 0.002
CONNECTIONS_MIN = 24
CONNECTIONS_MAX = 200


class _Ended(asyncio.Protocol):
    """Knows its transport, and when that is closed."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._closed.set()

    async def close(self) -> None:
        """Close the transport, and wait until it is."""
        self.transport.close()
        await self._closed.wait()


class _Connection(_Ended):
    """One request at a time."""

    def __init__(self, paced: Paced) -> None:
        super().__init__()
        self.asked_in = 0
        self._paced = paced
        self._held = b""

    def data_received(self, data: bytes) -> None:
        """Take note of the answer once all of it is there."""
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) >= int(length or 0):
            self._held = b""
            self._paced.answered(self, int(head[9:12]))


@define(eq=False)
class Paced:
    """What is offered to one port under one API key, and what became of it.

    Args:
        port: of an Envoy.
        key: of the caller.
        rate: requests a second, evenly.
        seen: how many had each status, by the seconds in which they were asked and answered.
        unsent: requests for which no connection was free: the machine, or the Envoy, is behind.
    """

    port: int
    key: str
    rate: float
    seen: Counter[tuple[int, int, int]] = field(factory=Counter)
    unsent: int = 0
    _free: list[_Connection] = field(factory=list)
    _opened: list[_Connection] = field(factory=list)
    _all_answered: asyncio.Event = field(factory=asyncio.Event)

    def answered(self, connection: _Connection, status: int) -> None:
        """Take note of an answer."""
        self.seen[connection.asked_in, int(time.time()), status] += 1
        self._free.append(connection)
        if len(self._free) == len(self._opened):
            self._all_answered.set()

    async def open(self) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(min(CONNECTIONS_MAX, CONNECTIONS_MIN + int(self.rate / 4))):
            _, made = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self.port
            )
            self._opened.append(made)
        self._free = list(self._opened)
        self._all_answered.set()

    async def offer(self, *, begins: float, until: asyncio.Event) -> None:
        """Offer from a moment of the clock on until told to end; wait for the answers."""
        request = self._request()
        await asyncio.sleep(max(0.0, begins - time.time()))
        sent = 0
        while not until.is_set():
            due = int((time.time() - begins) * self.rate)
            for _ in range(due - sent):
                self._send(request)
            sent = due
            await asyncio.sleep(TICK_S)
        await self._answers()

    async def burst(self, count: int) -> None:
        """Offer so many at once; wait for the answers."""
        for _ in range(count):
            self._send(self._request())
        await self._answers()

    def _request(self) -> bytes:
        return f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {self.key}\r\n\r\n".encode()

    def _send(self, request: bytes) -> None:
        if not self._free:
            self.unsent += 1
            return
        self._all_answered.clear()
        connection = self._free.pop()
        connection.asked_in = int(time.time())
        connection.transport.write(request)

    async def _answers(self) -> None:
        async with asyncio.timeout(10):
            await self._all_answered.wait()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(one.close() for one in self._opened))


class _TwoLetters(_Ended):
    def __init__(self) -> None:
        super().__init__()
        self._held = b""

    def data_received(self, data: bytes) -> None:
        """Answer as many requests, which have no bodies, as have come."""
        self._held += data
        count = self._held.count(b"\r\n\r\n")
        if count:
            self._held = self._held.rpartition(b"\r\n\r\n")[2]
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" * count)


@contextlib.asynccontextmanager
async def two_letters(port: int) -> AsyncIterator[None]:
    """Have a worker listen inside the block that answers each request with two letters."""
    made: list[_TwoLetters] = []

    def make() -> _TwoLetters:
        made.append(_TwoLetters())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        await asyncio.gather(*(one.close() for one in made))
