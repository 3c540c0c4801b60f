"""Grow-only and up-and-down counters."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.crdt import GCounter, PNCounter
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    LimitExceeded,
)
from meshlib.identity import ActorId, actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
LOW, HIGH = sorted([ALICE, BOB])


@pytest.mark.parametrize("kind", [GCounter, PNCounter])
def test_concurrent_increments_add_up(kind: type[Any]) -> None:
    """Two writers that count at the same time are both counted, once."""
    one = kind().increment(3, by=ALICE)
    two = kind().increment(4, by=BOB)
    assert 7 == (one | two | one).value


@pytest.mark.parametrize("kind", [GCounter, PNCounter])
def test_a_delta_carries_the_new_total(kind: type[Any]) -> None:
    """A delta that arrives without the one before it still counts everything."""
    state = kind()
    first = state.increment(2, by=ALICE)
    second = (state | first).increment(5, by=ALICE)
    assert 7 == (kind() | second).value
    assert second == first | second
    assert state.is_bottom()


def test_a_pn_counter_goes_below_zero() -> None:
    """Decrements are counted apart from increments."""
    state = PNCounter().increment(2, by=ALICE) | PNCounter().decrement(5, by=BOB)
    assert -3 == state.value
    assert {ALICE: (2, 0), BOB: (0, 5)} == dict(state.totals)


def test_a_pn_counter_decomposes_by_actor_and_direction() -> None:
    """Each part is one total of one direction."""
    state = PNCounter().increment(2, by=ALICE)
    state |= state.decrement(1, by=ALICE)
    parts = list(state.decompose())
    assert [(2, 0), (0, 1)] == [part.totals[ALICE] for part in parts]
    assert state == parts[0] | parts[1]


@pytest.mark.parametrize("amount", [0, -1, 1 << 63])
@pytest.mark.parametrize("kind", [GCounter, PNCounter])
def test_an_amount_out_of_range_is_refused(kind: type[Any], amount: int) -> None:
    """Counting by nothing or backwards is a mistake; over 63 bits cannot be sent."""
    with pytest.raises((InvalidValueError, LimitError)):
        kind().increment(amount, by=ALICE)


@pytest.mark.parametrize("amount", [True, 1.0, "1"])
def test_an_amount_of_another_type_is_refused(amount: int) -> None:
    """A bool or a float is no amount."""
    with pytest.raises(InvalidTypeError):
        PNCounter().decrement(amount, by=ALICE)


def test_a_total_over_63_bits_is_refused() -> None:
    """The limit is on the total, not only on each amount."""
    state = GCounter().increment((1 << 63) - 1, by=ALICE)
    with pytest.raises(LimitError):
        state.increment(1, by=ALICE)


def test_an_actor_that_is_not_16_bytes_is_refused() -> None:
    """What peers would refuse is refused where it is written."""
    with pytest.raises(InvalidValueError):
        GCounter().increment(by=ActorId(b"short"))
    with pytest.raises(InvalidTypeError):
        PNCounter().increment(by="alice")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [GCounter, PNCounter])
def test_an_empty_actor_is_refused(kind: type[Any]) -> None:
    """Also by a counter in which nobody has counted yet."""
    with pytest.raises(InvalidValueError):
        kind().increment(by=ActorId(b""))
    with pytest.raises(InvalidTypeError):
        kind().increment(by=bytearray(ALICE))


@pytest.mark.parametrize("kind", [GCounter, PNCounter])
@pytest.mark.parametrize("others", [(), (BOB,)])
def test_a_counter_that_was_read_from_bytes_counts_on(
    kind: type[Any], others: tuple[ActorId, ...]
) -> None:
    """The total held goes on, whichever object the writer's id is, alone or among several."""
    state = kind().increment(3, by=ALICE)
    for other in others:
        state |= state.increment(1, by=other)
    again = kind.from_wire(state.to_wire())
    again |= again.increment(2, by=ActorId(bytes(bytearray(ALICE))))
    assert 5 + len(others) == again.value
    assert again == again | state == state | again


def test_joins_of_one_writer_keep_the_larger_of_each_direction() -> None:
    """Neither state need hold the other: an actor's deltas may arrive in any order."""
    state = PNCounter().increment(3, by=ALICE)
    lost = state.decrement(2, by=ALICE)
    other = state.increment(1, by=ALICE)
    assert {ALICE: (4, 2)} == dict((lost | other).totals) == dict((other | lost).totals)
    assert lost == state | lost == lost | state


def test_equal_counters_hash_equally() -> None:
    """Counters are frozen values: they can be in a set."""
    one = GCounter().increment(by=ALICE) | GCounter().increment(by=BOB)
    two = GCounter().increment(by=BOB) | GCounter().increment(by=ALICE)
    assert {one} == {two}
    assert one.digest() == two.digest()


def test_counters_of_different_kinds_do_not_join() -> None:
    """A join needs two states of one class."""
    with pytest.raises(TypeError):
        GCounter() | PNCounter()  # type: ignore[operator]


@pytest.mark.parametrize(
    "wire",
    [
        5,
        ((ALICE,),),
        ((ALICE, 0),),
        ((ALICE, -1),),
        ((ALICE, True),),
        ((ALICE, 1.0),),
        ((ALICE, 1 << 63),),
        ((b"short", 1),),
        (("alice", 1),),
        ((LOW, 1), (LOW, 1)),
        ((HIGH, 1), (LOW, 1)),
    ],
)
def test_a_malformed_counter_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        GCounter.from_wire(wire)


def test_too_many_actors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer cannot make this node hold actors without end."""
    monkeypatch.setattr("meshlib.crdt.counters.ACTORS_MAX", 1)
    with pytest.raises(LimitExceeded):
        PNCounter.from_wire(((LOW, 1, 0), (HIGH, 1, 0)))
