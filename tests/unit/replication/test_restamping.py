"""Own writes put under earlier stamps, as a replica does it."""

from __future__ import annotations

from typing import Any

from support.world import World

from meshlib.identity import actor_id
from meshlib.replication import Replica, SetBack

NEW = actor_id("a", 2)


def times(replica: Replica) -> dict[str, tuple[int, int]]:
    """Return the time of each key of a map: milliseconds and logical part."""
    state: Any = replica.get("m")
    return {key: entry.stamp[:2] for key, entry in state.entries()}


def test_what_was_written_since_the_clock_was_set_back_keeps_its_time_and_its_order(
    world: World,
) -> None:
    """The clock had passed its latest stamp again; before that it counts on, at that moment."""
    a = world.replica("a")
    world.wall_s = 1005.0
    world.put(a, "wrong", 1)
    counting = times(a)["wrong"][0]
    world.wall_s = 1003.0
    world.put(a, "counted on", 1)
    world.put(a, "counted on again", 1)
    world.wall_s = 1006.0
    for key in ("second", "third"):
        world.put(a, key, 1)
    passed = [times(a)[key] for key in ("second", "third")]
    set_back = SetBack((counting, 0), 1_007_000, 1_002_000)

    assert 5000 == a.stamp_again(NEW, back_ms=5000, set_back=set_back)
    assert {
        "wrong": (counting - 5000, 0),
        "counted on": (1_002_000, 1),
        "counted on again": (1_002_000, 2),
        "second": passed[0],
        "third": passed[1],
    } == times(a)
    assert a.clock.latest == passed[1]
    a._check()


def test_the_clock_goes_on_from_what_was_put_back(world: World) -> None:
    """Its next stamp is later than all that is here, and by the wall clock where that is right."""
    a = world.replica("a")
    world.wall_s = 1090.0
    world.put(a, "early", 1)
    world.wall_s = 1001.0
    a.stamp_again(NEW, back_ms=90_000)
    world.put(a, "next", 1)

    assert times(a)["early"] < times(a)["next"]
    assert times(a)["next"] == (1_001_010, 0)
    assert 0.0 == a.clock.leap_s()
