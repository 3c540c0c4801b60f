"""Entries from peers: new, repeated, early, bad, from the future, or not theirs."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.world import World

from meshlib.clock import HybridClock
from meshlib.crdt import GCounter, encode
from meshlib.errors import RejectReason
from meshlib.identity import actor_id
from meshlib.limits import DOCUMENT_NAME_BYTES_MAX
from meshlib.replication import (
    EntriesHeld,
    EntrySkipped,
    Gap,
    GapBufferFull,
    IdentityStolen,
    LogEntry,
    LogShortened,
    Replica,
    ReplicationConfig,
)
from meshlib.replication.entries.log import join_entries


def test_a_new_entry_is_absorbed_and_forwarded_as_it_came(world: World) -> None:
    """The same bytes go on, and the vector counts them."""
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(a, "x", 1)
    received = b.receive([entry])
    assert [entry] == received.new
    assert {"x": 1} == world.live(b)
    assert a.vector_hash() == b.vector_hash()
    assert [entry] == b.lacking({}, bytes_max=1000).entries


def test_a_repeated_entry_is_dropped_by_its_number(world: World) -> None:
    """Its bytes are not even read."""
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(a, "x", 1)
    b.receive([entry])
    received = b.receive([evolve(entry, delta=b"\xc1")])
    assert ([], [], []) == (received.new, received.gaps, received.rejected)


def test_an_entry_ahead_of_a_gap_waits_for_it(world: World) -> None:
    """The gap is named; once it is filled, both come in order."""
    a, b = world.replica("a"), world.replica("b")
    first, second, third = (world.put(a, key, 1) for key in "xyz")
    early = b.receive([third])
    assert [Gap(a.actor, 1, 2)] == early.gaps
    assert ({}, []) == (world.live(b), early.new)
    assert [first] == b.receive([first]).new
    assert [second, third] == b.receive([second]).new
    assert {"x": 1, "y": 1, "z": 1} == world.live(b)


def test_a_removal_moves_the_vector(world: World) -> None:
    """Equal vectors mean equal content, removals included."""
    a, b = world.replica("a"), world.replica("b")
    b.receive([world.put(a, "x", 1)])
    before = b.vector_hash()
    b.receive([world.remove(a, "x")])
    assert ({}, True) == (world.live(b), before != b.vector_hash())


def test_a_range_over_the_vector_is_absorbed_once_more(world: World) -> None:
    """A joined entry that overlaps what was absorbed brings just the rest."""
    a, b = world.replica("a"), world.replica("b")
    first, second = world.put(a, "x", 1), world.put(a, "y", 2)
    b.receive([first])
    joined = join_entries(first, second)
    assert [joined] == b.receive([joined]).new
    assert {"x": 1, "y": 2} == world.live(b)
    b._check()


def test_a_range_over_the_vector_does_not_bring_back_the_dead(world: World) -> None:
    """What it repeats may have been removed here, and its tombstone collected."""
    a, b = world.replica("a"), world.replica("b")
    first, second = world.put(a, "x", 1), world.put(a, "y", 2)
    b.receive([first])
    world.remove(b, "x")
    b.collect_tombstones(b.version_vector, now=0.0)
    b.receive([join_entries(first, second)])
    assert {"y": 2} == world.live(b)


def test_an_entry_that_cannot_be_read_is_refused_and_asked_for(world: World) -> None:
    """Nothing is changed, and the vector does not move over it."""
    a, b = world.replica("a"), world.replica("b")
    bad = evolve(world.put(a, "x", 1), delta=b"\xc1")
    received = b.receive([bad])
    assert [RejectReason.MALFORMED] == [one.reason for one in received.rejected]
    assert [Gap(a.actor, 1, 1)] == received.gaps
    assert ([], {}) == (b.documents(), dict(b.version_vector))


def test_a_good_copy_replaces_a_bad_one(world: World) -> None:
    """Another peer may have it whole."""
    a, b = world.replica("a"), world.replica("b")
    good = world.put(a, "x", 1)
    b.receive([evolve(good, delta=b"\xc1")])
    assert [good] == b.receive([good]).new
    assert [] == b.events()


def test_a_bad_entry_does_not_stop_its_writer_for_ever(world: World) -> None:
    """After three times it is passed over, loudly, and what waited behind it goes on."""
    a, b = world.replica("a"), world.replica("b")
    bad, good = evolve(world.put(a, "x", 1), delta=b"\xc1"), world.put(a, "y", 2)
    b.receive([bad, good])
    b.receive([bad])
    received = b.receive([bad])
    assert [bad, good] == received.new
    assert {"y": 2} == world.live(b)
    (event,) = b.events()
    assert isinstance(event, EntrySkipped)
    assert ("m", 1, 1) == (event.document, event.first, event.last)
    b._check()


def test_a_document_of_another_type_is_refused(world: World) -> None:
    """The type of a document is the one it was made with here."""
    a, b = world.replica("a"), world.replica("b")
    world.put(b, "x", 1, document="d")
    received = b.receive([world.increment(a, document="d")])
    assert [RejectReason.TYPE] == [one.reason for one in received.rejected]
    assert {"x": 1} == world.live(b, document="d")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * (DOCUMENT_NAME_BYTES_MAX + 1)])
def test_a_malformed_document_name_is_refused(world: World, name: str) -> None:
    """It would be no name here either."""
    a, b = world.replica("a"), world.replica("b")
    received = b.receive([evolve(world.put(a, "x", 1), document=name)])
    assert [RejectReason.MALFORMED] == [one.reason for one in received.rejected]
    assert [] == b.documents()


def test_an_entry_of_this_nodes_own_actor_is_refused(world: World) -> None:
    """Somebody else writes under its name: it has to take another."""
    a, thief = world.replica("a"), world.replica("a")
    received = a.receive([world.put(thief, "x", 1)])
    assert [RejectReason.IDENTITY] == [one.reason for one in received.rejected]
    assert [] == received.gaps
    assert [IdentityStolen(actor=a.actor, sequence=1)] == a.events()


def test_an_echo_of_an_own_entry_is_a_duplicate(world: World) -> None:
    """Peers may send back what came from here."""
    a = world.replica("a")
    received = a.receive([world.put(a, "x", 1)])
    assert ([], []) == (received.rejected, a.events())


def test_an_entry_from_the_future_waits_until_it_is_plausible(world: World) -> None:
    """It blocks nobody else, is told once, and is released by the vector."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 100.0
    first, second = world.put(a, "x", 1), world.put(a, "y", 2)
    received = b.receive([first, second])
    assert ([], []) == (received.new, received.gaps)
    (event,) = b.events()
    assert isinstance(event, EntriesHeld)
    assert (a.actor, 1) == (event.actor, event.first)
    assert [] == b.release().new
    world.wall_s += 45.0
    assert [first, second] == b.release().new
    assert {"x": 1, "y": 2} == world.live(b)


def test_own_writes_come_after_what_was_seen(world: World) -> None:
    """The hybrid clock moves past every stamp that is absorbed."""
    a, b = world.replica("a"), world.replica("b")
    world.offsets["a"] = 30.0
    b.receive([world.put(a, "x", "ahead")])
    a.receive([world.put(b, "x", "after")])
    assert {"x": "after"} == world.live(a) == world.live(b)


def test_a_gap_buffer_without_room_says_so(world: World) -> None:
    """The entry is asked for again later."""
    config = ReplicationConfig(gap_buffer_bytes_max=1024)
    a, b = world.replica("a"), world.replica("b", config=config)
    entries = [world.put(a, key, "v" * 100) for key in "xyz"]
    received = b.receive(entries[1:])
    assert [Gap(a.actor, 1, 1)] == received.gaps
    assert [GapBufferFull(actor=a.actor, first=3)] == b.events()
    assert entries[:2] == b.receive(entries[:1]).new


def test_a_log_over_its_limit_says_what_it_dropped(world: World) -> None:
    """A peer that still lacks these will get a transfer."""
    config = ReplicationConfig(log_bytes_max=1024)
    a, b = world.replica("a"), world.replica("b", config=config)
    for number in range(20):
        b.receive([world.put(a, f"k{number}", "v" * 50)])
    assert any(isinstance(event, LogShortened) for event in b.events())
    assert b.lacking({}, bytes_max=10_000).needs_transfer
    b._check()


def test_no_entry_raises(world: World) -> None:
    """Whatever bytes a peer sends, the replica stays whole."""
    replica = world.replica("a")

    @given(
        st.binary(max_size=40),
        st.sampled_from(["m", "", "\x00"]),
        st.integers(1, 9),
        st.integers(0, 3),
    )
    def check(delta: bytes, document: str, first: int, length: int) -> None:
        entry = LogEntry(actor_id("z", 1), first, first + length, document, delta)
        replica.receive([entry])
        replica._check()

    check()


@given(st.randoms(use_true_random=False))
def test_any_order_and_repetition_gives_the_same(rng: Any) -> None:
    """Entries may overtake and repeat each other as they like."""
    actor = actor_id("a", 1)
    entries = [
        LogEntry(actor, n, n, "n", encode(GCounter().increment(n, by=actor))) for n in range(1, 8)
    ]
    replica = Replica(
        actor=actor_id("b", 1), clock=HybridClock(actor_id("b", 1), wall_clock=lambda: 1.0)
    )
    sent = [rng.choice(entries) for _ in range(10)] + entries
    rng.shuffle(sent)
    for entry in sent:
        replica.receive([entry])
    counter: Any = replica.get("n")
    assert (7, {actor: 7}) == (counter.value, replica.version_vector)
    replica._check()


def test_whoever_is_held_up_has_something_waiting(world: World) -> None:
    """Writers stamped ahead that there is no room for are not remembered one by one."""
    config = ReplicationConfig(gap_buffer_bytes_max=1024)
    b = world.replica("b", config=config)
    for number in range(20):
        a = world.replica(f"a{number}")
        world.offsets[f"a{number}"] = 100.0
        b.receive([world.put(a, "x", "v" * 50)])

    held = b.inspectable()["intake"].diagnostics()["held"]
    waiting = b.inspectable()["gap_buffer"].diagnostics()["ranges"]
    assert held == set(waiting)
    assert 0 < len(held) < 20
    b._check()
