"""What parts show of their state, and what they assert of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.errors import BrokenInvariant, InternalError
from meshlib.invariants import Diagnostics, check_parts, require
from meshlib.node import MeshNode


class Counting:
    """A part that is broken once it has counted too far, and knows how often it was asked."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.asked = 0

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the count."""
        return {"count": self.count}

    def _check(self) -> None:
        self.asked += 1
        require(self, self.count < 10, "it has counted too far")


@pytest.fixture
def node() -> MeshNode:
    """Return a node that has met another and holds something."""
    network = MiniNetwork()
    network.start("n0")
    network.start("n1")
    network.run(5.0)
    return network.nodes["n0"]


def test_a_broken_invariant_shows_the_state() -> None:
    """Whoever reads the message sees which part it is, what does not hold, and what it keeps."""
    with pytest.raises(BrokenInvariant) as caught:
        check_parts({"counting": Counting(10)})

    error = caught.value
    assert ("Counting", "it has counted too far") == (error.part, error.what)
    assert {"count": 10} == error.state
    assert "Counting: it has counted too far; {'count': 10}" == str(error)
    assert isinstance(error, InternalError)


def test_a_large_state_is_shown_in_part() -> None:
    """The message stays short; the error has all of it."""
    error = BrokenInvariant("Part", "no", state={"much": "x" * 100_000})

    assert len(str(error)) < 5_000
    assert 100_000 == len(str(error.state["much"]))


def test_parts_are_asked_in_turns_or_all_at_once() -> None:
    """As many turns as there are parts ask each of them once."""
    parts = {name: Counting() for name in "abc"}
    for turn in range(3):
        check_parts(parts, turn=turn)
    assert [1, 1, 1] == [part.asked for part in parts.values()]
    check_parts(parts)
    assert [2, 2, 2] == [part.asked for part in parts.values()]


def test_diagnostics_are_read_when_they_are_asked_for() -> None:
    """What is shown is of that moment."""
    part = Counting()
    shown = Diagnostics({"counting": part})
    part.count = 3

    assert {"count": 3} == shown["counting"]
    assert {"counting": {"count": 3}} == dict(shown)
    assert "{'count': 3}" in repr(shown)


def test_a_node_shows_each_of_its_parts(node: MeshNode) -> None:
    """By its name; an unknown name is a KeyError as in any mapping."""
    shown = node.diagnostics()

    assert len(shown) > 30
    assert node.actor == shown["replica"]["actor"]
    assert ("n1",) == shown["view"]["neighbours"]
    assert all(isinstance(dict(part), dict) for part in shown.values())
    with pytest.raises(KeyError):
        shown["nothing"]


def test_every_turn_of_a_nodes_check_is_one_part(node: MeshNode) -> None:
    """After as many turns as it has parts each was asked, and a broken one was found."""
    turns = len(node.diagnostics())
    for turn in range(turns):
        node._check(turn)
    node._engine._parts.outbox._bytes["n9:1"] = 5

    found = []
    for turn in range(turns):
        try:
            node._check(turn)
        except BrokenInvariant as error:
            found.append(error.part)
    assert ["Outbox"] == found
    with pytest.raises(BrokenInvariant, match="Outbox"):
        node._check()


def drop_a_count(node: MeshNode) -> None:
    """Forget one of the requests that are counted."""
    node.begin("w1", prefill_tokens=100, now=node._time.latest_s)
    node.sync.load._counts.clear()


def never_tell_an_end(node: MeshNode) -> None:
    """End a request, and tell nobody ever."""
    node.end(node.begin("w1", now=node._time.latest_s), now=node._time.latest_s)
    node.sync.load._telling._tell_at = None


def count_at_no_worker(node: MeshNode) -> None:
    """Count one request more at a worker than it has."""
    node.begin("w1", now=node._time.latest_s)
    node.sync.load._own._at["w1"].request_count += 1


def renew_what_is_removed(node: MeshNode) -> None:
    """Keep the renewal of a worker that is not there."""
    node.leases._renewed.add("w9")


def write_off_silently(node: MeshNode) -> None:
    """Write a member off, and pay no heed to it."""
    node._written_off._incarnations["n7"] = 3


@pytest.mark.parametrize(
    ("spoil", "part", "what"),
    [
        (drop_a_count, "SharedLoad", "the sum is not what is in flight"),
        (never_tell_an_end, "Telling", "a change that is never told"),
        (count_at_no_worker, "InFlight", "the counts by worker are not the requests"),
        (renew_what_is_removed, "WorkerLeases", "a renewal of no lease"),
        (write_off_silently, "WrittenOff", "what was written was not followed"),
    ],
)
def test_what_stands_beside_the_engine_is_checked_too(
    node: MeshNode, spoil: Callable[[MeshNode], None], part: str, what: str
) -> None:
    """Load, leases and who is written off: each names itself and what does not hold."""
    node._check()
    spoil(node)

    with pytest.raises(BrokenInvariant, match=f"^{part}: {what}"):
        node._check()
