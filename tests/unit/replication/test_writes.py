"""Local writes: groups, numbers, limits, and what changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from support.world import World

from meshlib.crdt import LWWMap, ORSet, decode
from meshlib.errors import InvalidTypeError, LimitError, StateError, UnknownKeyError
from meshlib.identity import actor_id
from meshlib.limits import ENTRY_BYTES_MAX, VALUE_BYTES_MAX
from meshlib.replication import Replica
from meshlib.replication.writes import APPLIED_GROUP_BYTES_MAX


def put(replica: Replica, key: str, value: Any) -> Any:
    return replica.write("m", lambda s, c: s.set(key, value, stamp=c.stamp(), sequence=c.sequence))


def test_writes_of_one_flush_to_one_document_are_one_entry(world: World) -> None:
    """They share a number, which their entries carry from the first on."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    assert [1, 1] == [put(a, key, 0).sequence for key in "xy"]
    (entry,) = a.flush()
    delta: Any = decode(entry.delta)
    assert (1, 1, "m") == (entry.first, entry.last, entry.document)
    assert [1, 1] == [delta.entry(key).sequence for key in "xy"]


def test_each_document_has_an_entry_of_its_own(world: World) -> None:
    """Numbers are given in the order of the first writes."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    a.open("n", type_tag="g_counter")
    put(a, "x", 0)
    a.write("n", lambda s, c: s.increment(by=c.actor))
    put(a, "y", 0)
    assert [(1, "m"), (2, "n")] == [(entry.first, entry.document) for entry in a.flush()]


def test_a_write_is_visible_at_once_and_counted_at_the_flush(world: World) -> None:
    """The vector says only what travels."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    put(a, "x", 1)
    assert {"x": 1} == world.live(a)
    assert ({}, True) == (dict(a.version_vector), a.has_open_writes)
    a.flush()
    assert ({a.actor: 1}, False) == (dict(a.version_vector), a.has_open_writes)


def test_a_flush_without_writes_is_empty(world: World) -> None:
    """Nothing is made of nothing."""
    assert [] == world.replica("a").flush()


def test_a_bottom_delta_writes_nothing(world: World) -> None:
    """No number is used for it."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    receipt = a.write("m", lambda _s, _c: LWWMap())
    assert (0, False) == (receipt.sequence, receipt.is_new)
    assert [] == a.flush()


def test_a_delta_that_is_already_held_writes_nothing(world: World) -> None:
    """The receipt names the latest write before it."""
    a = world.replica("a")
    world.put(a, "x", 1)
    receipt = a.write("m", lambda s, _c: s.copy())
    assert (1, False) == (receipt.sequence, receipt.is_new)
    assert [] == a.flush()


def test_a_mutator_that_raises_changes_nothing(world: World) -> None:
    """Neither the document, nor the numbers."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    with pytest.raises(UnknownKeyError):
        a.write("m", lambda s, c: s.remove("x", stamp=c.stamp(), sequence=c.sequence))
    assert 1 == world.put(a, "x", 1).first


def test_a_delta_of_another_type_is_refused(world: World) -> None:
    """A document keeps its type."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    with pytest.raises(InvalidTypeError):
        a.write("m", lambda _s, _c: ORSet())


def test_an_unknown_document_cannot_be_written(world: World) -> None:
    """It has to be opened with its type first."""
    with pytest.raises(UnknownKeyError):
        world.replica("a").write("m", lambda s, _c: s)


def test_a_delta_over_the_limit_is_refused(world: World) -> None:
    """It would not fit a frame; the document is as before."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")

    def large(state: Any, context: Any) -> Any:
        delta = LWWMap[str, bytes]()
        for key in "xyz":
            value = b"v" * (VALUE_BYTES_MAX - 8)
            delta |= state.set(key, value, stamp=context.stamp(), sequence=context.sequence)
        return delta

    with pytest.raises(LimitError):
        a.write("m", large)
    assert {} == world.live(a)


def test_a_full_group_is_followed_by_another(world: World) -> None:
    """Each entry fits the limit, and each write carries its own entry's number."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    value = b"v" * (VALUE_BYTES_MAX - 8)
    assert [1, 2, 3] == [put(a, key, value).sequence for key in ("x", "y", "z")]
    entries = a.flush()
    assert [1, 2, 3] == [entry.first for entry in entries]
    assert all(len(entry.delta) <= ENTRY_BYTES_MAX for entry in entries)
    for key, entry in zip("xyz", entries, strict=True):
        delta: Any = decode(entry.delta)
        assert entry.first == delta.entry(key).sequence
    a._check()


def test_dots_are_free_and_follow_each_other(world: World) -> None:
    """Several in one write are different, and later ones go on."""
    a = world.replica("a")
    a.open("t", type_tag="or_set")
    a.write("t", lambda s, c: s.add("x", dot=c.dot()) | s.add("y", dot=c.dot()))
    a.write("t", lambda s, c: s.add("z", dot=c.dot()))
    tags: Any = a.get("t")
    assert [1, 2, 3] == sorted(dot.sequence for dot in tags.context)


def test_each_field_of_a_record_has_dots_of_its_own(world: World) -> None:
    """A field's dots follow each other without a gap, however many the other fields take."""
    a, b = world.replica("a"), world.replica("b")
    a.open("w", type_tag="pair(or_set,or_set)")

    def mutate(pair: Any, c: Any) -> Any:
        first, second = pair.first, pair.second
        delta = type(pair)(first.add("x", dot=c.dot(first)), second.add("y", dot=c.dot(second)))
        return delta | type(pair)(first=first.add("z", dot=c.dot(first)))

    a.write("w", mutate)
    a.write("w", lambda pair, c: type(pair)(second=pair.second.add("q", dot=c.dot(pair.second))))
    b.receive(a.flush())
    pair: Any = b.get("w")
    assert {"x", "z"} == pair.first.value
    assert {"y", "q"} == pair.second.value
    assert [0, 0] == [part.context.gap_count for part in (pair.first, pair.second)]
    with pytest.raises(InvalidTypeError):
        a.write("w", lambda _pair, c: c.dot())


def test_a_type_without_a_context_has_no_dots(world: World) -> None:
    """Asking for one is the caller's mistake."""
    a = world.replica("a")
    a.open("m", type_tag="lww_map")
    with pytest.raises(InvalidTypeError):
        a.write("m", lambda _s, c: c.dot())


def test_the_joined_entry_holds_all_writes(world: World) -> None:
    """A counter's later total stands for the earlier ones."""
    a, b = world.replica("a"), world.replica("b")
    a.open("n", type_tag="g_counter")
    for _ in range(5):
        a.write("n", lambda s, c: s.increment(by=c.actor))
    b.receive(a.flush())
    counter: Any = b.get("n")
    assert 5 == counter.value


def test_open_writes_are_closed_before_anything_foreign_is_absorbed(world: World) -> None:
    """Else a removal could look settled while an older write is still open."""
    a, b = world.replica("a"), world.replica("b")
    entry = world.put(b, "x", 1)
    a.open("m", type_tag="lww_map")
    put(a, "y", 2)
    a.receive([entry])
    assert {a.actor: 1, b.actor: 1} == a.version_vector
    assert [1] == [own.first for own in a.flush()]


def test_a_local_change_is_told_as_such(world: World) -> None:
    """Subscribers see the new part, and whose it is."""
    a, b = world.replica("a"), world.replica("b")
    b.receive([world.put(a, "x", 1)])
    (local,), (remote,) = a.changes(), b.changes()
    assert ("m", True) == (local.document, local.is_local)
    assert ("m", False) == (remote.document, remote.is_local)
    assert [] == a.changes()


def test_the_vector_must_be_of_the_actor(world: World) -> None:
    """Stamps of another actor would break ties wrongly."""
    a = world.replica("a")
    with pytest.raises(StateError):
        Replica(actor=actor_id("b", 1), clock=a._parts.clock)


def count_up(replica: Replica, *, bytes_max: int = 100) -> Any:
    """Write by a mutator that joins its delta itself."""

    def mutate(state: Any, context: Any) -> Any:
        delta = state.add("x", dot=context.dot())
        state.absorb(delta)
        return delta

    return replica.write_applied("s", mutate, bytes_max=bytes_max)


def test_a_write_that_is_applied_travels_as_any_other(world: World) -> None:
    """It is seen at once, has a number, is told as a change, and the peer gets the same."""
    a, b = world.replica("a"), world.replica("b")
    a.open("s", type_tag="or_set")
    assert (1, True) == (count_up(a).sequence, count_up(a).is_new)
    state: Any = a.get("s")
    assert ["x"] == list(state)
    assert [True, True] == [change.is_local for change in a.changes()]
    (entry,) = a.flush()
    b.receive([entry])
    assert a.get("s") == b.get("s")
    a._check()


def test_an_applied_write_begins_an_entry_where_the_last_has_no_room(world: World) -> None:
    """What a write may take counts, for it is not encoded yet."""
    a = world.replica("a")
    a.open("s", type_tag="or_set")
    for _ in range(3):
        count_up(a, bytes_max=APPLIED_GROUP_BYTES_MAX // 2)
    assert [1, 2] == [entry.first for entry in a.flush()]
    a._check()


def test_applied_writes_and_others_share_an_entry(world: World) -> None:
    """The one is not encoded before the flush, the other is."""
    a, b = world.replica("a"), world.replica("b")
    a.open("s", type_tag="or_set")
    count_up(a)
    a.write("s", lambda s, c: s.add("y", dot=c.dot()))
    count_up(a)
    b.receive(a.flush())
    assert a.get("s") == b.get("s")
    state: Any = b.get("s")
    assert {"x", "y"} == set(state)


def test_an_applied_write_that_changes_nothing_is_none(world: World) -> None:
    """No number is used for it, and nobody hears of it."""
    a = world.replica("a")
    a.open("s", type_tag="or_set")
    receipt = a.write_applied("s", lambda s, _: type(s)(), bytes_max=100)
    assert (0, False) == (receipt.sequence, receipt.is_new)
    assert [] == a.changes()


def test_an_applied_write_over_the_limit_is_refused_before_it_is_made(world: World) -> None:
    """Afterwards would be too late."""
    a = world.replica("a")
    a.open("s", type_tag="or_set")
    with pytest.raises(LimitError):
        count_up(a, bytes_max=ENTRY_BYTES_MAX + 1)
    assert a.get("s").is_bottom()
