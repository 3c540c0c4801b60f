"""The network in memory: cuts, losses and their order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from support.transports import Eventually, Recorder

from meshlib.aio import MemoryNetwork, MemoryTransport
from meshlib.errors import ConfigError

pytestmark = pytest.mark.anyio


Trio = tuple[MemoryNetwork, dict[str, MemoryTransport], dict[str, Recorder]]


@pytest.fixture
async def trio(new_recorder: type[Recorder], anyio_backend: str) -> AsyncIterator[Trio]:
    """Return a network, three started transports a, b and c, and what each heard."""
    network = MemoryNetwork(rng=random.Random(7))
    transports = {name: network.transport(f"{name}:1") for name in "abc"}
    heard = {name: new_recorder() for name in "abc"}
    for name in "abc":
        await transports[name].start(heard[name])
    yield network, transports, heard
    for transport in transports.values():
        await transport.close(drain_s=0)


async def test_a_partition_lets_frames_pass_only_within_a_group(trio: Trio) -> None:
    """Between groups they vanish in silence, and are counted as lost."""
    network, transports, heard = trio
    network.partition({"a:1", "b:1"})

    transports["a"].send("b:1", b"within")
    transports["a"].send("c:1", b"across")
    await transports["a"].close(drain_s=1)

    assert ([b"within"], [], []) == (heard["b"].frames, heard["c"].frames, heard["a"].lost)
    assert 1 == network.frames_lost


async def test_addresses_in_no_group_stay_together(trio: Trio) -> None:
    """Cutting one node off leaves the rest whole."""
    network, _, _ = trio

    network.partition({"a:1"})

    assert (True, False) == (
        network.is_connected("b:1", "c:1"), network.is_connected("a:1", "c:1")
    )  # fmt: skip


async def test_a_healed_network_carries_again(trio: Trio) -> None:
    """What is sent after the healing arrives."""
    network, transports, heard = trio
    network.partition({"a:1"})
    network.heal()

    transports["a"].send("b:1", b"again")
    await transports["a"].close(drain_s=1)

    assert [b"again"] == heard["b"].frames


async def test_a_peer_behind_a_cut_is_not_reported_lost_when_it_ends(
    trio: Trio, eventually: Eventually
) -> None:
    """A node that dies beyond a partition dies unheard."""
    network, transports, heard = trio
    transports["a"].send("b:1", b"hello")
    await eventually(lambda: heard["b"].frames)
    network.partition({"a:1"})

    await transports["b"].close(drain_s=0)

    assert [] == heard["a"].lost


async def test_losses_repeat_with_the_seed(new_recorder: type[Recorder]) -> None:
    """The same random numbers lose the same frames."""

    async def run(seed: int) -> list[bytes]:
        network = MemoryNetwork(loss_probability=0.5, rng=random.Random(seed))
        one, other, heard = network.transport("a:1"), network.transport("b:1"), new_recorder()
        await one.start(new_recorder())
        await other.start(heard)
        for i in range(200):
            one.send("b:1", bytes([i]))
        await one.close(drain_s=5)
        await other.close(drain_s=0)
        return heard.frames

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)


async def test_frames_arrive_in_the_order_in_which_the_network_got_them(trio: Trio) -> None:
    """The order holds over senders, not only for each."""
    _, transports, heard = trio
    for i in range(50):
        transports["ab"[i % 2]].send("c:1", bytes([i]))

    await transports["a"].close(drain_s=1)
    await transports["b"].close(drain_s=1)

    assert [bytes([i]) for i in range(50)] == heard["c"].frames


async def test_a_transport_cut_off_at_once_sends_nothing_more(trio: Trio) -> None:
    """Closing without a drain is what a kill looks like."""
    _, transports, heard = trio
    transports["a"].send("b:1", b"too late")

    await transports["a"].close(drain_s=0)
    await asyncio.sleep(0)

    assert [] == heard["b"].frames


async def test_an_address_is_listened_on_once(trio: Trio, new_recorder: type[Recorder]) -> None:
    """A second listener hears what a port in use says."""
    network, _, _ = trio

    with pytest.raises(OSError):
        await network.transport("a:1").start(new_recorder())


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_loss_that_is_no_probability_is_refused(probability: float) -> None:
    """Only 0 to 1 is one."""
    with pytest.raises(ConfigError):
        MemoryNetwork(loss_probability=probability)
