"""Counts that expire by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.crdt import WindowCounter, bottom, decode, encode, type_tag
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError
from meshlib.identity import ActorId, actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
LOW, HIGH = sorted([ALICE, BOB])


def recorded(*counts: tuple[int, ActorId, int]) -> WindowCounter:
    state = WindowCounter()
    for window, actor, amount in counts:
        state.absorb(state.record(amount, window=window, by=actor))
    state._check()
    return state


def test_a_window_totals_all_actors() -> None:
    """Concurrent counts of one window add up, each once."""
    one, two = recorded((5, ALICE, 2), (5, ALICE, 1)), recorded((5, BOB, 4))
    joined = one | two | one
    assert 7 == joined.total(5)
    assert {ALICE: 3, BOB: 4} == joined.by_actor(5)
    assert 0 == joined.total(6)


def test_old_windows_vanish_by_themselves() -> None:
    """A window that is `windows_kept` older than the newest is dropped, at every replica."""
    state = recorded((1, ALICE, 5), (2, BOB, 6))
    later = recorded((9, BOB, 1))
    assert {2: 6, 9: 1} == (state | later).value == (later | state).value


def test_counting_in_an_expired_window_changes_nothing() -> None:
    """A late count or refund of a dropped window is the bottom."""
    state = recorded((20, ALICE, 1))
    assert state.record(3, window=12, by=BOB).is_bottom()
    assert state.refund(3, window=12, by=BOB).is_bottom()
    assert not state.record(3, window=13, by=BOB).is_bottom()


def test_a_refund_lowers_the_total_but_not_below_zero() -> None:
    """What was added can be given back once, by the same actor."""
    state = recorded((5, ALICE, 3), (5, BOB, 1))
    state.absorb(state.refund(2, window=5, by=ALICE))
    assert 2 == state.total(5)
    with pytest.raises(InvalidValueError):
        state.refund(2, window=5, by=ALICE)
    state._check()


def test_a_refund_without_its_count_reads_zero() -> None:
    """A part that arrives alone never shows a negative count."""
    state = recorded((5, ALICE, 3))
    refund = list((state | state.refund(2, window=5, by=ALICE)).decompose())[1]
    assert 0 == refund.total(5)
    assert 1 == (state | refund).total(5)


def test_a_window_ahead_is_split_off() -> None:
    """What is beyond the local window plus one is held by its absorber, not joined."""
    state = recorded((5, ALICE, 1))
    near, ahead = (state | recorded((6, BOB, 2))).clamp(5)
    assert {5: 1} == near.value
    assert {6: 2} == ahead.value
    ahead.absorb(ahead.record(1, window=6, by=ALICE))
    assert {5: 1, 6: 2} == (state | recorded((6, BOB, 2))).value


def test_another_number_of_windows_is_another_type() -> None:
    """It has a tag of its own, is the same class each time, and joins only with itself."""
    two = WindowCounter.of(2)
    assert two is WindowCounter.of(2)
    assert WindowCounter is WindowCounter.of(8)
    assert "window_counter(2)" == type_tag(two)
    state = two()
    for window in (1, 2, 3):
        state.absorb(state.record(window=window, by=ALICE))
    assert [2, 3] == state.windows()
    assert state == decode(encode(state))
    assert type(bottom("window_counter(7)")) is WindowCounter.of(7)
    with pytest.raises(InvalidTypeError):
        WindowCounter().absorb(state)
    with pytest.raises(InvalidValueError):
        WindowCounter.of(0)


@pytest.mark.parametrize("tag", ["window_counter(0)", "window_counter(x)", "window_counter(08)"])
def test_a_size_that_is_not_one_is_refused(tag: str) -> None:
    """A peer cannot name a type that does not exist."""
    with pytest.raises(DecodeError):
        bottom(tag)


@pytest.mark.parametrize("window", [-1, 1 << 63])
def test_a_window_out_of_range_is_refused(window: int) -> None:
    """Windows are numbered from 0."""
    with pytest.raises(InvalidValueError):
        WindowCounter().record(window=window, by=ALICE)


@pytest.mark.parametrize(
    "wire",
    [
        (),
        (5, ()),
        (0, ((ALICE, ()),)),
        (0, ((ALICE, (0, 1)),)),
        (0, ((ALICE, (1, 1, 0)),)),
        (9, ((ALICE, (1, 1, 0)),)),
        (9, ((ALICE, (0, 0, 0)),)),
        (9, ((ALICE, (0, 1, 0, 0, 1, 0)),)),
        (9, ((ALICE, (0, 1, 0, 8, 1, 0)),)),
        (9, ((HIGH, (0, 1, 0)), (LOW, (0, 1, 0)))),
    ],
)
def test_a_malformed_counter_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        WindowCounter.from_wire(wire)


slots = st.tuples(st.integers(0, 12), st.sampled_from([ALICE, BOB]), st.integers(1, 3))


def deltas(program: list[tuple[int, ActorId, int]]) -> list[WindowCounter]:
    """Return the deltas of counts and refunds at one replica, and the states between."""
    state, made = WindowCounter(), [WindowCounter()]
    for window, actor, amount in program:
        delta = state.record(amount, window=window, by=actor)
        state.absorb(delta)
        if amount == 3 and state.by_actor(window).get(actor, 0):
            refund = state.refund(window=window, by=actor)
            state.absorb(refund)
            made.append(refund)
        made += (delta, state.copy())
    return made


@given(st.lists(slots, max_size=10), st.data())
def test_window_counters_obey_the_laws(
    program: list[tuple[int, ActorId, int]], data: st.DataObject
) -> None:
    """Join, order, new parts, decomposition and wire form agree with each other."""
    states = st.sampled_from(deltas(program))
    a, b, c = data.draw(states), data.draw(states), data.draw(states)
    assert (a | b) | c == a | (b | c)
    assert a | b == b | a
    assert a | a == a
    assert (a <= b) == (a | b == b)
    copy = a.copy()
    new = copy.absorb(b)
    copy._check()
    assert a | b == copy
    expected = WindowCounter()
    for part in b.decompose():
        if not part <= a:
            expected.absorb(part)
    assert expected == new
    assert a == WindowCounter.from_wire(a.to_wire())
