"""What a user passes wrongly where a type is made or a node is set up is named by an error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from meshlib import (
    ConsistentHashRing,
    DnsSeeds,
    Document,
    FixedSeeds,
    InvalidTypeError,
    InvalidValueError,
    LocalError,
    MemoryNetwork,
    MeshConfig,
    MeshRuntime,
    StateError,
)
from meshlib.crdt import LWWMap, ORMap, ORSet, lattice, register

pytestmark = pytest.mark.anyio

WRONG = cast("Any", 3)
"""What is of no type that is asked for."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("misuse", "named"),
    [
        (lambda: lattice(name=WRONG), "a record's name must be a string, not int"),
        (lambda: lattice(name="x", since=WRONG), "since must be a mapping"),
        (lambda: register(WRONG, ORSet), "a type tag must be a string, not int"),
        (lambda: register("x", WRONG), "a type to register must be a class, not int"),
        (lambda: ORMap.of(WRONG), "the type of a map's values must be a class, not int"),
        (lambda: FixedSeeds(cast("Any", [["a:1"]])), "a seed must be a string, not list"),
        (lambda: DnsSeeds(cast("Any", [["a:1"]])), "a name of seeds must be a string, not list"),
    ],
    ids=["record", "since", "tag", "class", "values", "seed", "name"],
)
def test_what_is_of_another_type_is_named(misuse: Callable[[], object], named: str) -> None:
    """And not what it lacks, such as `__mro__`."""
    with pytest.raises(InvalidTypeError, match=named):
        misuse()


def test_what_is_no_name_is_on_no_ring() -> None:
    """Whatever it is: asking is no error."""
    assert ["a"] not in ConsistentHashRing(["a"])


async def test_a_change_is_a_function() -> None:
    """And is named where it is none; nothing is written."""
    transport = MemoryNetwork().transport("a:1")
    async with MeshRuntime(MeshConfig(name="a"), transport=transport) as mesh:
        tags = mesh.document("tags", ORSet)
        with pytest.raises(InvalidTypeError, match="mutate must be a function"):
            tags.write(WRONG)


@pytest.mark.parametrize(
    ("reading", "error"),
    [
        ("now", InvalidTypeError),
        (None, InvalidTypeError),
        (True, InvalidTypeError),
        (math.nan, InvalidValueError),
        (math.inf, InvalidValueError),
        (1e18, InvalidValueError),
    ],
    ids=["text", "none", "bool", "nan", "infinite", "nanoseconds"],
)
async def test_a_wall_clock_that_gives_no_time_is_named(
    reading: Any, error: type[LocalError]
) -> None:
    """At the start, and by the call that needs it when the clock breaks later."""
    readings = [reading]
    transport = MemoryNetwork().transport("a:1")
    early = MeshRuntime(MeshConfig(name="a"), transport=transport, wall_clock=lambda: readings[-1])
    with pytest.raises(error, match="what wall_clock returns must be"):
        await early.start()
    await early.stop()

    readings.append(time.time())
    transport = MemoryNetwork().transport("b:1")
    late = MeshRuntime(MeshConfig(name="b"), transport=transport, wall_clock=lambda: readings[-1])
    async with late:
        readings.append(reading)
        with pytest.raises(error, match="what wall_clock returns must be"):
            late.sync.set_config("key", b"value")
        readings.append(time.time())
        late.sync.set_config("key", b"value")


async def test_a_transport_that_is_anothers_is_left_to_it() -> None:
    """Who is given the same one by mistake is told, and does not end the first."""
    network = MemoryNetwork()
    transport = network.transport("a:1")
    async with MeshRuntime(MeshConfig(name="a"), transport=transport) as first:
        second = MeshRuntime(MeshConfig(name="b"), transport=transport)
        with pytest.raises(StateError, match="transport was started before"):
            await second.start()
        third = MeshRuntime(MeshConfig(name="c"), transport=network.transport("c:1"), seeds=["a:1"])
        async with third:
            await third.wait_until(lambda: len(third.members()) == 2, timeout_s=10)
            await first.wait_until(lambda: len(first.members()) == 2, timeout_s=10)


async def test_a_change_that_was_made_in_place_travels_too() -> None:
    """It is a mistake that nothing shows here, and the others would never hear of it."""
    network = MemoryNetwork()
    here = MeshRuntime(MeshConfig(name="a"), transport=network.transport("a:1"))
    there = MeshRuntime(MeshConfig(name="b"), transport=network.transport("b:1"), seeds=["a:1"])
    async with here, there:
        await there.wait_ready(timeout_s=10)
        tags: Document[ORSet[str]] = here.document("tags", ORSet)
        receipt = tags.write(lambda state, w: state.absorb(state.add("x", dot=w.dot())))
        config: Document[LWWMap[str, int]] = here.document("config", LWWMap)
        config.write(
            lambda state, w: state.absorb(state.set("k", 1, stamp=w.stamp(), sequence=w.sequence))
        )
        await here.wait_converged(receipt, timeout_s=10)

        assert receipt.is_new
        assert "x" in there.document("tags", ORSet).state
        assert there.document("config", LWWMap).state.get("k") == 1


def test_a_map_of_a_type_with_its_elements_is_that_of_the_type() -> None:
    """So that a field has a default that a type checker knows all of."""
    assert ORMap.of(ORSet[str]) is ORMap.of(ORSet)
