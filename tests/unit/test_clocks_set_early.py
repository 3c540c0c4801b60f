"""Clocks that are set before their node has met anybody: what it wrote by then keeps its order."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.clocks import Clocks, events_of, start_apart, value_on_each

from meshlib.crdt import Embedded, LWWRegister, ORMap
from meshlib.errors import ClockAheadError
from meshlib.node import MeshNode
from meshlib.replication import WriteContext

PROMPT = "a prompt that is routed. " * 8


@pytest.fixture
def clocks() -> Clocks:
    """Return two nodes with right clocks that have met."""
    clocks = Clocks()
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    return clocks


def put(clocks: Clocks, name: str, value: bytes, *, key: str = "key") -> None:
    """Write at a node, and send what it has to say."""
    clocks.network.nodes[name].sync.set_config(key, value)
    clocks.network.pump(name)


def set_clock(clocks: Clocks, ahead_s: float, *, after_s: float = 0.0) -> None:
    """Set the late node's clock, and wait."""
    clocks.ahead_s["n2"] = ahead_s
    clocks.network.run(after_s)


def meet(clocks: Clocks, *, for_s: float = 30.0) -> None:
    """Let the late node reach the others."""
    clocks.network.cuts.clear()
    clocks.network.run(for_s)


def test_what_was_written_after_the_clock_was_set_right_is_of_its_own_time(clocks: Clocks) -> None:
    """It is newer than what another node wrote meanwhile; what was written before is older."""
    start_apart(clocks, "n2", 50.0)
    put(clocks, "n2", b"early", key="first")
    clocks.network.run(3.0)
    put(clocks, "n1", b"later", key="first")
    set_clock(clocks, 0.0, after_s=5.0)
    put(clocks, "n0", b"older")
    clocks.network.run(5.0)
    put(clocks, "n2", b"newer")
    clocks.network.run(3.0)
    meet(clocks)

    assert [b"newer"] * 3 == value_on_each(clocks, "key")
    assert [b"later"] * 3 == value_on_each(clocks, "first")
    assert [50.0] == [event.back_s for event in events_of(clocks, "n2")]


@pytest.mark.parametrize("ahead_s", [5.0, 90.0, 4000.0])
def test_what_was_written_in_the_moment_in_which_the_clock_was_set_is_of_that_moment(
    clocks: Clocks, ahead_s: float
) -> None:
    """Before any timer has seen it: the clock counts on, or has passed its latest stamp again."""
    start_apart(clocks, "n2", ahead_s)
    put(clocks, "n2", b"first", key="other")
    clocks.network.run(4.5)
    put(clocks, "n1", b"older")
    clocks.network.run(1.0)
    set_clock(clocks, 0.0)
    put(clocks, "n2", b"newer")
    put(clocks, "n2", b"twice", key="other")
    put(clocks, "n2", b"thrice", key="other")
    clocks.network.run(3.0)
    meet(clocks)

    assert [b"newer"] * 3 == value_on_each(clocks, "key")
    assert [b"thrice"] * 3 == value_on_each(clocks, "other")


@pytest.mark.parametrize("right_again", [False, True])
def test_what_was_written_before_the_clock_was_wrong_keeps_its_time(
    clocks: Clocks, right_again: bool
) -> None:
    """Nobody can tell which stamps are wrong: all stay, and it says that its clock is ahead."""
    late = start_apart(clocks, "n2", 0.0)
    put(clocks, "n0", b"older")
    clocks.network.run(10.0)
    put(clocks, "n2", b"newer")
    clocks.network.run(5.0)
    set_clock(clocks, 90.0, after_s=2.0)
    if right_again:
        set_clock(clocks, 0.0, after_s=5.0)
    meet(clocks)

    assert [b"newer"] * 3 == value_on_each(clocks, "key")
    assert [] == events_of(clocks, "n2")
    if not right_again:
        with pytest.raises(ClockAheadError):
            late.sync.set_config("key", b"ahead")


def test_stamps_that_are_ahead_of_the_very_clock_stay_as_they_are(clocks: Clocks) -> None:
    """It was wrong by another amount for a moment that no timer has seen."""
    start_apart(clocks, "n2", 5.0)
    put(clocks, "n2", b"before")
    clocks.network.run(1.0)
    set_clock(clocks, 95.0)
    put(clocks, "n2", b"glitch", key="other")
    set_clock(clocks, 5.0, after_s=3.0)
    meet(clocks, for_s=120.0)

    assert [] == events_of(clocks, "n2")
    assert [b"before"] * 3 == value_on_each(clocks, "key")
    assert [b"glitch"] * 3 == value_on_each(clocks, "other")


def test_a_clock_that_was_set_right_before_the_first_write_is_right(clocks: Clocks) -> None:
    """A node that began alone has minted stamps for itself by then."""
    late = start_apart(clocks, "n2", 4000.0)
    clocks.network.run(20.0)
    assert late.is_ready
    set_clock(clocks, 0.0, after_s=5.0)
    put(clocks, "n2", b"older")
    clocks.network.run(3.0)
    put(clocks, "n0", b"newer")
    clocks.network.run(3.0)
    meet(clocks)

    assert [b"newer"] * 3 == value_on_each(clocks, "key")
    put(clocks, "n2", b"newest")
    clocks.network.run(2.0)
    assert [b"newest"] * 3 == value_on_each(clocks, "key")


def test_a_clock_that_is_set_back_again_and_again_leaves_its_stamps(clocks: Clocks) -> None:
    """Each time would make a new writer."""
    late = start_apart(clocks, "n2", 0.0)
    put(clocks, "n2", b"value")
    receipt = late.sync.set_config("other", b"value")
    for turn in range(1, 13):
        set_clock(clocks, -10.0 * turn, after_s=1.0)
    assert 8 == len(events_of(clocks, "n2"))
    set_clock(clocks, 0.0, after_s=1.0)
    meet(clocks)

    assert [b"value"] * 3 == value_on_each(clocks, "key")
    assert {"n0", "n1"} == late.seen_by(receipt)


def test_what_cannot_be_put_back_keeps_its_node_from_writing_on(clocks: Clocks) -> None:
    """Others hold all of that writer behind it: to take more and say nothing would be worse."""
    late = start_apart(clocks, "n2", 3600.0)
    document = late.document("map", ORMap.of(Embedded.of(LWWRegister)))

    def write(state: Any, context: WriteContext) -> Any:
        stamp = context.stamp()
        return state.update("k", lambda held: held.set("early", stamp=stamp), dot=context.dot())

    document.write(write)
    put(clocks, "n2", b"early")
    clocks.network.run(3.0)
    meet(clocks, for_s=5.0)
    set_clock(clocks, 0.0, after_s=30.0)

    assert 1 == len(events_of(clocks, "n2"))
    with pytest.raises(ClockAheadError):
        late.sync.set_config("key", b"later")


def register(node: MeshNode) -> None:
    """Register a worker, anew or again."""
    node.sync.sync_worker_state("w", model_id="m", url="http://w", health=True, load=0.0)


@pytest.mark.parametrize("ahead_s", [50.0, 3600.0])
def test_a_worker_that_was_removed_by_a_wrong_clock_is_routed_to_again(
    clocks: Clocks, ahead_s: float
) -> None:
    """Its tree is not shut for longer than its record is old."""
    nodes = clocks.network.nodes
    register(nodes["n0"])
    clocks.network.run(1.0)
    late = start_apart(clocks, "n2", ahead_s)
    clocks.network.run(20.0)
    register(late)
    late.sync.route("m", PROMPT)
    late.sync.remove_worker_state("w")
    clocks.network.run(1.0)
    register(late)
    clocks.network.run(2.0)
    meet(clocks, for_s=8.0)
    for name in ("n0", "n1"):
        nodes[name].sync.route("m", PROMPT)
        clocks.network.pump(name)
    clocks.network.run(1.0)

    assert [len(PROMPT)] * 3 == [
        node.sync.match_tree("m", PROMPT).matched for node in nodes.values()
    ]
    assert 1 == len(events_of(clocks, "n2"))
    states = [node.replica.content_digest() for node in nodes.values()]
    assert states == [states[0]] * 3


def write_at_random(seed: int) -> tuple[Clocks, dict[str, bytes]]:
    """Let three nodes write while one is apart with a wrong clock; return the last values."""
    rng = random.Random(seed)
    clocks = Clocks()
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    start_apart(clocks, "n2", rng.choice([5.0, 50.0, 90.0, 4000.0]))
    right_at = rng.choice([None, None, rng.randrange(12)])
    last: dict[str, bytes] = {}
    for turn in range(12):
        if turn == right_at:
            clocks.ahead_s["n2"] = 0.0
        key, value = f"k{rng.randrange(3)}", bytes([turn])
        put(clocks, rng.choice(["n0", "n1", "n2"]), value, key=key)
        last[key] = value
        clocks.network.run(rng.choice([2.0, 3.0, 5.0]))
    meet(clocks, for_s=20.0)
    return clocks, last


@pytest.mark.parametrize(
    "seeds", [range(24), pytest.param(range(24, 400), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_the_last_write_stays_whenever_the_clock_was_set_right(seeds: range) -> None:
    """By the time at which it was made, before or after, or never."""
    wrong = []
    for seed in seeds:
        clocks, last = write_at_random(seed)
        held = {key: value_on_each(clocks, key) for key in last}
        if held != {key: [value] * 3 for key, value in last.items()}:
            wrong.append(seed)

    assert [] == wrong
