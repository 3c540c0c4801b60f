"""Fixtures of the asyncio room: a receiver that records, and polling with a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.real_nats import RealNats, real_nats
from support.transports import Eventually, NewTcp, Recorder, poll_until

from meshlib.aio import (
    BridgedTransport,
    MemoryNetwork,
    NatsTransport,
    Regions,
    TcpTransport,
    Transport,
    WebSocketTransport,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def new_recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def eventually() -> Eventually:
    return poll_until


@pytest.fixture
async def new_tcp(anyio_backend: str) -> AsyncIterator[NewTcp]:
    """Make TCP transports on free ports of the loopback; all are closed at the end."""
    made: list[TcpTransport] = []

    def new(listen: str = "127.0.0.1:0", **settings: Any) -> TcpTransport:
        transport = TcpTransport(listen, **settings)
        made.append(transport)
        return transport

    yield new
    for transport in made:
        await transport.close(drain_s=0)


@pytest.fixture(scope="session")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNats]:
    """One server of NATS for all tests that leave it running."""
    with real_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


EACH_ITS_OWN = Regions(
    {f"across-{number}": [f"across-{number}"] for number in range(4)},
    bridges=[f"across-{number}:7000" for number in range(4)],
)
"""Regions of one node each, which is its bridge."""


@pytest.fixture(params=["tcp", "memory", "websocket", "nats", "bridged", "across"])
async def new_transport(
    request: pytest.FixtureRequest, anyio_backend: str
) -> AsyncIterator[Callable[[], Transport]]:
    """Make transports of one kind that can reach each other; all are closed at the end."""
    made: list[Transport] = []
    network = MemoryNetwork()

    def new() -> Transport:
        transport: Transport
        if request.param == "tcp":
            transport = TcpTransport("127.0.0.1:0")
        elif request.param == "websocket":
            transport = WebSocketTransport("127.0.0.1:0")
        elif request.param == "nats":
            server = request.getfixturevalue("shared_nats")
            transport = NatsTransport(f"node-{len(made)}:7000", servers=[server.url])
        elif request.param == "bridged":
            one = Regions({"one": ["127.0.0.0/8"]})
            transport = BridgedTransport(TcpTransport("127.0.0.1:0"), region="one", regions=one)
        elif request.param == "across":
            server = request.getfixturevalue("shared_nats")
            name = f"across-{len(made)}"
            transport = BridgedTransport(
                network.transport(f"{name}:7000"),
                region=name,
                regions=EACH_ITS_OWN,
                between=NatsTransport(f"{name}:7000", servers=[server.url]),
            )
        else:
            transport = network.transport(f"node-{len(made)}:7000")
        made.append(transport)
        return transport

    yield new
    for transport in made:
        await transport.close(drain_s=0)
