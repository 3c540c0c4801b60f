"""Pairs of lattices."""

from __future__ import annotations

import pytest

from meshlib.clock import Stamp
from meshlib.crdt import (
    Dot,
    GCounter,
    GSet,
    Lexicographic,
    LWWMap,
    MaxRegister,
    ORSet,
    Pair,
    bottom,
    decode,
    encode,
    type_tag,
)
from meshlib.errors import DecodeError, InvalidTypeError
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
Both = Pair.of(GCounter, ORSet)
Epoch = Lexicographic.of(GCounter, GSet)


def test_the_sides_of_a_pair_join_apart() -> None:
    """A delta of one side leaves the other alone."""
    state = Both()
    state.absorb(Both(state.first.increment(2, by=ALICE)))
    state.absorb(Both(second=state.second.add("x", dot=Dot(ALICE, 1))))
    assert (2, {"x"}) == state.value
    assert state.absorb(Both(GCounter().increment(1, by=ALICE))).is_bottom()


def test_absorbing_does_not_reach_the_delta() -> None:
    """A container inside the delta stays as it was."""
    delta = Both(second=ORSet[str]().add("x", dot=Dot(ALICE, 1)))
    state = Both() | delta
    state.absorb(Both(second=state.second.remove("x")))
    assert (0, {"x"}) == delta.value


def test_a_higher_first_replaces_the_second() -> None:
    """Raising the epoch wins over every change made under the old one."""
    old = Epoch(GCounter(), GSet[str]().add("x"))
    raised = Epoch(GCounter().increment(by=ALICE))
    assert (1, set()) == (old | raised).value == (raised | old).value
    assert old <= raised
    new = Epoch(raised.first, GSet[str]().add("y"))
    assert (1, {"y"}) == (old | new | raised).value


def test_equal_firsts_join_their_seconds() -> None:
    """Within an epoch the second is a lattice like any other."""
    first = GCounter().increment(by=ALICE)
    one, two = Epoch(first, GSet[str]().add("x")), Epoch(first, GSet[str]().add("y"))
    state = one.copy()
    assert Epoch(first, GSet[str]().add("y")) == state.absorb(two)
    assert {"x", "y"} == state.second.value


def test_firsts_that_cannot_be_compared_empty_the_second() -> None:
    """Two writers that raise the epoch at once leave the join of both epochs, and nothing else."""
    one = Epoch(GCounter().increment(by=ALICE), GSet[str]().add("x"))
    two = Epoch(GCounter().increment(by=BOB), GSet[str]().add("y"))
    assert (2, set()) == (one | two).value
    state = one.copy()
    assert two == state.absorb(two)
    assert one | two == state


def test_a_lexicographic_state_is_one_page() -> None:
    """Its second means nothing without its first, so it is compared and sent whole."""
    state = Epoch(GCounter().increment(by=ALICE), GSet[str]().add("x"))
    assert 256 == len(state.bucket_digests())
    assert state == state.part([0, 7])
    assert state.part([7]).is_bottom()
    assert 0 == Epoch().bucket_digests()[0]


def test_a_pair_passes_on_what_its_sides_can() -> None:
    """Stamps, transfers of numbered entries and pages go to the side that has them."""
    mapped = Pair.of(LWWMap, GCounter)
    entries = LWWMap[str, int]().set("k", 1, stamp=Stamp(5, 0, ALICE), sequence=1)
    state = mapped(entries, GCounter().increment(by=ALICE))
    assert Stamp(5, 0, ALICE) == state.latest_stamp()
    assert None is Both().latest_stamp()
    empty = mapped()
    new = empty.absorb_transfer(state, covers=lambda actor, sequence: True)
    assert ({}, 1) == (empty.first.value, empty.second.value) == (new.first.value, 1)
    parts = mapped()
    for bucket, digest in enumerate(state.bucket_digests()):
        if digest:
            parts.absorb(state.part([bucket]))
    assert state == parts
    removal = mapped(entries.remove("k", stamp=Stamp(6, 0, ALICE), sequence=2))
    state.absorb(removal)
    assert 1 == state.collect(lambda entry: True)
    assert 0 == Both().collect(lambda entry: True)


def test_classes_are_made_once_and_named() -> None:
    """The same two types give the same class, under a tag that a peer can resolve."""
    assert Both is Pair.of(GCounter, ORSet)
    assert "pair(g_counter,or_set)" == type_tag(Both)
    assert "lexicographic(g_counter,g_set)" == type_tag(Epoch)
    nested = bottom("pair(lexicographic(g_counter,g_set),max_register)")
    assert nested == decode(encode(nested))
    assert Both != Lexicographic.of(GCounter, ORSet)


def test_bad_sides_are_refused() -> None:
    """A class needs two lattices, and its objects states of exactly these."""
    with pytest.raises(InvalidTypeError):
        Pair()
    with pytest.raises(InvalidTypeError):
        Pair.of(GCounter, dict)  # type: ignore[type-var]
    with pytest.raises(InvalidTypeError):
        Both(MaxRegister())  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        Both().absorb(Epoch())  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        bottom("pair(g_counter)")


@pytest.mark.parametrize("wire", [None, (), ((),), ((), (), ()), (None, ())])
def test_a_malformed_pair_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        Both.from_wire(wire)
