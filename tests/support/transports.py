"""Fixtures of the asyncio room: a receiver that records, and polling with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from meshlib.aio import MemoryNetwork, MemoryTransport, TcpTransport, Transport


class Recorder:
    """A receiver that keeps what it hears, and that can ask for a pause."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.senders: list[str] = []
        self.lost: list[str] = []
        self.busy: list[tuple[str, bool]] = []
        self.room = asyncio.Event()
        self.room.set()

    def frame_received(self, data: bytes, sender: str) -> bool:
        self.frames.append(data)
        self.senders.append(sender)
        return self.room.is_set()

    async def wait_for_room(self) -> None:
        await self.room.wait()

    def connection_lost(self, address: str) -> None:
        self.lost.append(address)

    def link_busy(self, address: str, *, is_busy: bool) -> None:
        self.busy.append((address, is_busy))


async def poll_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return once the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def new_recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return poll_until


@pytest.fixture
async def new_tcp(anyio_backend: str) -> AsyncIterator[Callable[..., TcpTransport]]:
    """Make TCP transports on free ports of the loopback; all are closed at the end."""
    made: list[TcpTransport] = []

    def new(listen: str = "127.0.0.1:0", **settings: object) -> TcpTransport:
        transport = TcpTransport(listen, **settings)  # type: ignore[arg-type]
        made.append(transport)
        return transport

    yield new
    for transport in made:
        await transport.close(drain_s=0)


@pytest.fixture(params=["tcp", "memory"])
async def new_transport(
    request: pytest.FixtureRequest, anyio_backend: str
) -> AsyncIterator[Callable[[], Transport]]:
    """Make transports of one kind that can reach each other; all are closed at the end."""
    made: list[TcpTransport | MemoryTransport] = []
    network = MemoryNetwork()

    def new() -> Transport:
        transport: TcpTransport | MemoryTransport
        if request.param == "tcp":
            transport = TcpTransport("127.0.0.1:0")
        else:
            transport = network.transport(f"node-{len(made)}:7000")
        made.append(transport)
        return transport

    yield new
    for transport in made:
        await transport.close(drain_s=0)
