"""The same flood over real sockets, from a peer that shows the token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.damage import Mutator, parse_frame
from support.flooded import (
    complete,
    corpus_of,
    open_documents,
    places_of,
    values_of,
    write_every_kind,
)

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import TcpTransport
from meshlib.aio.framing import encode_frame, encode_hello
from meshlib.aio.transport import split_address
from meshlib.gossip import GossipConfig
from meshlib.membership import MemberStatus
from meshlib.replication import ReplicationConfig

TOKEN = "of the peers"
AT_ONCE = 16
RECORDED = {1, 2, 5, 6, 8, 9, 11, 12, 13, 18}
"""Kinds of messages that a cluster at rest has sent by itself before it is flooded."""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recording(TcpTransport):
    """TCP that keeps what it is given to send."""

    seen: dict[bytes, str]

    def send(self, address: str, data: bytes) -> bool:
        self.seen.setdefault(data, address)
        return super().send(address, data)


@pytest.fixture
async def runtimes(anyio_backend: str) -> AsyncIterator[list[MeshRuntime]]:
    """Start three nodes that hold something of everything."""
    made: list[MeshRuntime] = []
    seen: dict[bytes, str] = {}
    for index in range(3):
        transport = Recording("127.0.0.1:0", token=TOKEN)
        transport.seen = seen
        config = MeshConfig(
            name=f"node-{index}",
            address="127.0.0.1:0",
            gossip=GossipConfig.local(),
            replication=ReplicationConfig(log_bytes_max=2048),
        )
        seeds = [made[0].transport.address] if made else []
        runtime = MeshRuntime(config, transport=transport, seeds=seeds)
        made.append(runtime)
        await runtime.start()
        await runtime.wait_ready()
        open_documents(runtime.node)
        write_every_kind(runtime.node, index, now=time.monotonic())
        runtime.wake()
    yield made
    for runtime in made:
        await runtime.stop()


def is_at_rest(runtimes: list[MeshRuntime]) -> bool:
    """Tell whether every node knows every other one alive, and all hold the same."""
    views = [places_of(runtime.node) for runtime in runtimes]
    values = [values_of(runtime.node) for runtime in runtimes]
    return (
        all(view == views[0] and len(view) == len(runtimes) for view in views)
        and all(status is MemberStatus.ALIVE for _, _, status in views[0])
        and all(value == values[0] for value in values)
    )


def codes(runtimes: list[MeshRuntime]) -> set[int]:
    """Return the kinds of messages that were sent so far."""
    transport: Any = runtimes[0].transport
    return {message[0] for frame in transport.seen for message in parse_frame(frame)[-1]}


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; fail when it does not in time."""
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "the cluster did not come to rest in time"
        await asyncio.sleep(0.05)


async def send_one(address: str, frame: bytes) -> None:
    """Connect, show the token, and send one frame; being closed for it is fine."""
    reader, writer = await asyncio.open_connection(*split_address(address))
    try:
        writer.write(encode_hello(TOKEN) + encode_frame(frame))
        writer.write_eof()
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def flood(runtimes: list[MeshRuntime], *, count: int, seed: int) -> None:
    """Send damaged frames of this cluster, a connection each, some at a time."""
    transport: Any = runtimes[0].transport
    corpus = complete(corpus_of(transport.seen), runtimes[0].node, runtimes[1].node)
    mutator = Mutator(seed)
    for start in range(0, count, AT_ONCE):
        chosen = [mutator.rng.choice(corpus) for _ in range(min(AT_ONCE, count - start))]
        sends = [send_one(address, mutator.damage(frame)) for frame, address in chosen]
        await asyncio.gather(*sends)


async def check_flood(runtimes: list[MeshRuntime], *, count: int) -> None:
    """Flood a cluster at rest, and look at everything that must be as it was."""
    await until(lambda: is_at_rest(runtimes) and codes(runtimes) >= RECORDED)
    values = [values_of(runtime.node) for runtime in runtimes]
    views = [places_of(runtime.node) for runtime in runtimes]
    before = sum(runtime.counters.frames_handled for runtime in runtimes)
    await flood(runtimes, count=count, seed=1)
    await until(lambda: is_at_rest(runtimes))

    assert all(runtime.is_running for runtime in runtimes)
    assert sum(runtime.counters.frames_handled for runtime in runtimes) >= before + count
    assert [runtime.counters.frames_failed for runtime in runtimes] == [0, 0, 0]
    assert sum(runtime.counters.senders_closed for runtime in runtimes) > count // 2
    assert [values_of(runtime.node) for runtime in runtimes] == values
    assert [places_of(runtime.node) for runtime in runtimes] == views
    for runtime in runtimes:
        runtime.node._check()


async def test_a_flood_over_tcp_changes_nothing(runtimes: list[MeshRuntime]) -> None:
    """No node ends, no member appears, nothing raises, and what users read is as it was."""
    await check_flood(runtimes, count=2_000)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_long_flood_over_tcp_changes_nothing(runtimes: list[MeshRuntime]) -> None:
    """Twenty thousand damaged frames."""
    await check_flood(runtimes, count=20_000)
