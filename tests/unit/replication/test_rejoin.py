"""Coming back after being away too long: as a new writer, with a peer's state, losing nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.world import World

from meshlib.errors import StateError
from meshlib.identity import actor_id
from meshlib.replication import (
    ActorForgotten,
    IdentityStolen,
    LogEntry,
    LostWrite,
    RejoinReport,
    Replica,
)

NEW = actor_id("a", 2)


def adopt(world: World, node: Replica, peer: Replica, *, actor: bytes = NEW) -> RejoinReport:
    """Come back by a transfer of a peer."""
    node.begin_rejoin(actor)  # type: ignore[arg-type]  # the tests' actors are bytes
    world.transfer(peer, node)
    assert node.reaches(peer.advertised_vector())
    return node.finish_rejoin()


def pair(world: World) -> tuple[Replica, Replica, list[LogEntry]]:
    """Two nodes that both have x, before one goes away."""
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(a, "x", "old")
    b.receive([entry])
    return a, b, [entry]


def test_what_no_peer_had_is_written_again(world: World) -> None:
    """As a new write of the new actor, which reaches the peers as any write does."""
    a, b, _ = pair(world)
    world.put(a, "mine", 1)
    report = adopt(world, a, b)
    assert (NEW, 1, ()) == (a.actor, report.kept, report.lost)
    b.receive(a.flush())
    assert {"x": "old", "mine": 1} == world.live(a) == world.live(b)
    entry: Any = b.get("m")
    assert (NEW, 1) == (entry.entry("mine").actor, entry.entry("mine").sequence)


def test_what_was_removed_meanwhile_stays_removed(world: World) -> None:
    """Though this node never saw the removal and its tombstone is gone."""
    a, b, _ = pair(world)
    world.remove(b, "x")
    b.collect_tombstones(b.version_vector, now=0.0)
    adopt(world, a, b)
    assert {} == world.live(a)


def test_what_something_newer_replaced_is_reported(world: World) -> None:
    """It is lost, and not silently."""
    a, b, _ = pair(world)
    world.put(a, "x", "mine")
    world.put(b, "x", "newer")
    report = adopt(world, a, b)
    assert (LostWrite("m", "x"),) == report.lost
    assert {"x": "newer"} == world.live(a)


def test_a_newer_write_of_this_node_replaces_the_peers(world: World) -> None:
    """The order of the stamps decides, as always."""
    a, b, _ = pair(world)
    world.put(b, "x", "theirs")
    world.put(a, "x", "newer")
    assert 1 == adopt(world, a, b).kept
    assert {"x": "newer"} == world.live(a)


def test_a_removal_made_while_away_is_made_again(world: World) -> None:
    """Also when the peer has the key no more, since another may still have it."""
    a, b, _ = pair(world)
    world.remove(a, "x")
    adopt(world, a, b)
    b.receive(a.flush())
    assert {} == world.live(a) == world.live(b)


def test_a_removal_of_what_the_peer_lacks_is_made_again(world: World) -> None:
    """A third node may have an older value that has not reached the peer."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    entry = world.put(c, "x", 1)
    a.receive([entry])
    world.remove(a, "x")
    world.put(b, "y", 2)
    adopt(world, a, b)
    b.receive(a.flush())
    b.receive([entry])
    assert {"y": 2} == world.live(b)


def test_writes_of_others_that_only_this_node_has_are_kept(world: World) -> None:
    """It may be their only survivor."""
    a, b, c = world.replica("a"), world.replica("b"), world.replica("c")
    world.put(b, "y", 2)
    a.receive([world.put(c, "x", 1)])
    assert 1 == adopt(world, a, b).kept
    assert {"x": 1, "y": 2} == world.live(a)


def test_other_types_are_joined(world: World) -> None:
    """A set and a counter drop no removals, so theirs and ours are joined as they are."""
    a, b = world.replica("a"), world.replica("b")
    for replica, tag in ((a, "mine"), (b, "theirs")):
        replica.open("t", type_tag="or_set")
        replica.write("t", partial(lambda t, s, c: s.add(t, dot=c.dot()), tag))
        replica.flush()
    world.increment(a)
    assert 2 == adopt(world, a, b).kept
    b.receive(a.flush())
    for replica in (a, b):
        tags: Any = replica.get("t")
        counter: Any = replica.get("n")
        assert ({"mine", "theirs"}, 1) == (set(tags.value), counter.value)
    assert a.content_digest() == b.content_digest()


def test_readers_and_writers_are_served_meanwhile(world: World) -> None:
    """They see what was there before, and what they write is kept."""
    a, b, _ = pair(world)
    a.begin_rejoin(NEW)
    assert a.is_rejoining
    assert {"x": "old"} == world.live(a)
    a.write("m", lambda s, c: s.set("meanwhile", 1, stamp=c.stamp(), sequence=c.sequence))
    assert ([], {}) == (a.flush(), dict(a.version_vector))
    world.transfer(b, a)
    a.finish_rejoin()
    assert {"x": "old", "meanwhile": 1} == world.live(a)
    assert not a.is_rejoining


def test_entries_may_do_instead_of_a_transfer(world: World) -> None:
    """When the peer's log still has everything."""
    a, b, entries = pair(world)
    a.begin_rejoin(NEW)
    a.receive(b.lacking(a.advertised_vector(), bytes_max=1000).entries)
    assert a.reaches(b.advertised_vector())
    a.finish_rejoin()
    assert {"x": "old"} == world.live(a)
    assert entries == a.lacking({}, bytes_max=1000).entries


def test_subscribers_get_every_document_anew(world: World) -> None:
    """What vanished has no delta."""
    a, b, _ = pair(world)
    world.remove(b, "x")
    a.changes()
    adopt(world, a, b)
    (change,) = a.changes()
    assert ("m", True) == (change.document, change.is_reset)


def test_a_state_meanwhile_is_the_former_one(world: World) -> None:
    """What is kept on disk is never half a transfer."""
    a, _, _ = pair(world)
    a.begin_rejoin(NEW)
    restored = world.replica("a", incarnation=9)
    restored.import_state(a.export_state())
    assert {"x": "old"} == world.live(restored)


def test_a_state_meanwhile_counts_what_was_written_meanwhile(world: World) -> None:
    """Else a start from it has what no vector names: peers lack it, and removals stay for ever."""
    a, b, _ = pair(world)
    a.begin_rejoin(NEW)
    a.open("n", type_tag="g_counter")
    a.write("m", lambda s, c: s.remove("x", stamp=c.stamp(), sequence=c.sequence))
    a.write("n", lambda s, c: s.increment(by=c.actor))
    state = a.export_state()
    later = a.write("m", lambda s, c: s.set("y", 1, stamp=c.stamp(), sequence=c.sequence))
    restored = world.replica("a", incarnation=9)
    restored.import_state(state)
    assert (state.vector[actor_id("a", 1)], later.sequence) == (3, 4)
    assert not b.reaches(restored.advertised_vector())
    world.transfer(restored, b)
    counter: Any = b.get("n")
    assert ({}, 1) == (world.live(b), counter.value)
    assert restored.content_digest() == b.content_digest()
    for each in (restored, b):
        assert 1 == each.collect_tombstones(each.version_vector, now=0.0)


def test_what_was_counted_on_disk_meanwhile_is_sent_by_one_that_goes_on(world: World) -> None:
    """Under the numbers that it has there."""
    a, b, _ = pair(world)
    a.begin_rejoin(NEW)
    for _ in range(2):
        a.write("m", lambda s, c: s.set("x", c.sequence, stamp=c.stamp(), sequence=c.sequence))
        a.export_state()
    a.finish_rejoin()
    entries = a.flush()
    b.receive(entries)
    assert [2, 3] == [entry.first for entry in entries]
    assert {"x": 3} == world.live(a) == world.live(b)
    assert a.vector_hash() == b.vector_hash()
    a._check()


def test_two_that_come_back_to_each_other_go_on(world: World) -> None:
    """A peer that has nothing is adopted by keeping what was here, as the new writer."""
    a, b, _ = pair(world)
    world.put(a, "mine", 1)
    world.put(b, "theirs", 2)
    b.begin_rejoin(actor_id("b", 2))
    report = adopt(world, a, b)
    b.finish_rejoin()
    assert (0, ()) == (report.kept, report.lost)
    world.put(a, "later", 3)
    b.receive(a.lacking(b.advertised_vector(), bytes_max=10_000).entries)
    a.receive(b.lacking(a.advertised_vector(), bytes_max=10_000).entries)
    assert {"x": "old", "mine": 1, "theirs": 2, "later": 3} == world.live(a) == world.live(b)
    assert a.vector_hash() == b.vector_hash()
    a._check()


def test_unsent_entries_survive_when_a_node_goes_on(world: World) -> None:
    """They were made by the old writer and are still sent."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    a.write("m", lambda s, c: s.set("x", 1, stamp=c.stamp(), sequence=c.sequence))
    old = a.actor
    a.begin_rejoin(NEW)
    a.write("m", lambda s, c: s.set("y", 2, stamp=c.stamp(), sequence=c.sequence))
    a.finish_rejoin()
    assert [(old, 1), (old, 2)] == [(entry.actor, entry.first) for entry in a.flush()]
    assert (NEW, 1) == (world.put(a, "z", 3).actor, a.version_vector[NEW])


def test_beginning_again_starts_over(world: World) -> None:
    """The former state stays the one that is served."""
    a, b, _ = pair(world)
    a.begin_rejoin(actor_id("a", 2))
    report = adopt(world, a, b, actor=actor_id("a", 3))
    assert (actor_id("a", 1), actor_id("a", 3)) == (report.old, report.new)
    assert {"x": "old"} == world.live(a)


def test_the_same_actor_cannot_come_back(world: World) -> None:
    """An actor is never used twice."""
    a = world.replica("a")
    with pytest.raises(StateError):
        a.begin_rejoin(a.actor)


def test_an_end_needs_a_beginning(world: World) -> None:
    """Out of order it is the caller's mistake."""
    with pytest.raises(StateError):
        world.replica("a").finish_rejoin()


def test_a_node_that_was_forgotten_is_told(world: World) -> None:
    """By the mark in a peer's vector, or in its state."""
    a, b, _ = pair(world)
    b.forget(a.actor)
    a.learn_forgotten(b.advertised_vector(), keep=())
    assert [ActorForgotten(actor=a.actor)] == a.events()


def test_a_node_with_more_than_was_forgotten_is_told(world: World) -> None:
    """It holds writes that the others refuse, and has to write them again."""
    a, b = world.replica("a"), world.replica("b")
    first, second = world.put(b, "x", 1), world.put(b, "y", 2)
    a.receive([first, second])
    c = world.replica("c")
    c.receive([first])
    c.forget(b.actor)
    assert [] == a.learn_forgotten(c.advertised_vector(), keep=())
    assert [ActorForgotten(actor=b.actor)] == a.events()


def test_a_document_opened_meanwhile_is_kept(world: World) -> None:
    """It is in none of the adopted ones, and what was written to it is written again."""
    a, b, _ = pair(world)
    a.begin_rejoin(NEW)
    for name, is_written in (("d", True), ("empty", False)):
        a.open(name, type_tag="lww_map")
        if is_written:
            a.write(name, lambda s, c: s.set("k", 1, stamp=c.stamp(), sequence=c.sequence))
    world.transfer(b, a)
    assert 1 == a.finish_rejoin().kept
    assert {"k": 1} == world.live(a, document="d")


def test_a_document_that_has_another_type_meanwhile_is_reported(world: World) -> None:
    """The cluster's document stays, and this node's is lost, not silently."""
    a, b, _ = pair(world)
    world.increment(b, document="d")
    a.begin_rejoin(NEW)
    a.open("d", type_tag="lww_map")
    world.transfer(b, a)
    assert (LostWrite("d", None),) == a.finish_rejoin().lost


def test_events_are_told_while_coming_back(world: World) -> None:
    """What is refused meanwhile is no secret."""
    a, b, _ = pair(world)
    thief = world.replica("a", incarnation=2)
    a.begin_rejoin(NEW)
    a.receive([world.put(thief, "x", 1)])
    assert [IdentityStolen(actor=NEW, sequence=1)] == a.events()
    assert b.actor not in a.version_vector


def test_a_state_may_tell_that_one_was_forgotten(world: World) -> None:
    """The marks are in its vector too."""
    a, b, _ = pair(world)
    b.forget(a.actor)
    fresh = Replica(actor=a.actor, clock=world.clock(a.actor, "a"))
    world.transfer(b, fresh)
    assert ActorForgotten(actor=a.actor) in fresh.events()


@pytest.mark.parametrize("other_count", [10, 300])
def test_what_a_writer_forgotten_long_ago_wrote_stays_removed(
    world: World, other_count: int
) -> None:
    """A state's vector marks all that were forgotten: an entry that none covers would be news."""
    a, b, old = world.replica("a"), world.replica("b"), world.replica("old")
    writers = [old, *(world.replica(f"other {number}") for number in range(other_count))]
    for writer in writers:
        entry = world.put(writer, "x" if writer is old else "y", 1)
        a.receive([entry])
        b.receive([entry])
    for writer in writers:
        a.forget(writer.actor)
        b.forget(writer.actor)
    b.receive([world.put(a, "z", 1)])
    world.remove(b, "x")
    b.collect_tombstones(b.version_vector, now=0.0)
    report = adopt(world, a, b)

    assert report.kept == 0
    assert {"y": 1, "z": 1} == world.live(a)


def test_a_node_that_was_present_keeps_what_an_invented_number_covers(world: World) -> None:
    """Its own write, another's, and its own removal; a peer had none of them, and says it had."""
    a, b, _ = pair(world)
    world.put(a, "mine", 1)
    world.remove(a, "x")
    c = world.replica("c")
    a.receive([world.put(c, "theirs", 2)])
    invented = {a.actor: 65_536, c.actor: 1}
    a.begin_rejoin(NEW, was_present=True)
    world.transfer(b, a)
    for actor, number in invented.items():
        a._parts.vector.set(actor, number)
    report = a.finish_rejoin()

    assert (3, ()) == (report.kept, report.lost)
    b.receive(a.flush())
    assert {"mine": 1, "theirs": 2} == world.live(a) == world.live(b)


def test_a_node_that_was_present_does_not_bring_back_what_it_saw_removed(world: World) -> None:
    """A tombstone that the peers have dropped is not written again either."""
    a, b, _ = pair(world)
    removal = world.remove(b, "x")
    a.receive([removal])
    b.collect_tombstones(b.version_vector, now=0.0)
    a.begin_rejoin(NEW, was_present=True)
    world.transfer(b, a)

    assert 0 == a.finish_rejoin().kept
    assert {} == world.live(a)


def test_no_removal_is_dropped_while_a_peers_state_is_adopted(world: World) -> None:
    """What was removed meanwhile is still known when what this node had is written again."""
    a, b, _ = pair(world)
    a.begin_rejoin(NEW, was_present=True)
    world.transfer(b, a)
    a.receive([world.remove(b, "x")])
    a.collect_tombstones(a.version_vector, now=0.0)
    a.collect_tombstones(a.version_vector, now=1e6)
    a.finish_rejoin()

    assert {} == world.live(a)


def test_a_removal_that_an_invented_number_covers_is_made_again(world: World) -> None:
    """The adopted peer never had the key, and another one still has."""
    a, b, _ = pair(world)
    c = world.replica("c")
    mine = world.put(c, "y", 1)
    b.receive([mine])
    world.remove(a, "x")
    a.begin_rejoin(NEW, was_present=True)
    a.receive([mine])
    a._parts.vector.set(a.actor, 65_536)
    a.finish_rejoin()
    b.receive(a.flush())

    assert {"y": 1} == world.live(b)


def test_what_was_replaced_while_a_state_was_adopted_is_not_lost(world: World) -> None:
    """A node that was present knows what its value was replaced by: nobody's write is missing."""
    a, b, entries = pair(world)
    a.begin_rejoin(NEW, was_present=True)
    a.receive([*entries, world.put(b, "x", "new")])
    report = a.finish_rejoin()

    assert (0, ()) == (report.kept, report.lost)
    assert {"x": "new"} == world.live(a)
