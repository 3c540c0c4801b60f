"""Rights that are never overspent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.crdt import BoundedCounter
from meshlib.errors import (
    DecodeError,
    InsufficientRights,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    LimitExceeded,
)
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
LOW, HIGH = sorted([ALICE, BOB])


def test_rights_are_granted_moved_and_spent() -> None:
    """What is left is what was granted and not spent, whoever holds it."""
    state = BoundedCounter().grant(10, by=ALICE)
    state |= state.transfer(4, by=ALICE, to=BOB)
    state |= state.spend(3, by=BOB)
    assert 6 == state.rights(ALICE)
    assert 1 == state.rights(BOB)
    assert 7 == state.value
    assert (10, 3) == (state.granted, state.spent)


def test_what_is_not_held_cannot_be_spent_or_given() -> None:
    """The error tells what was wanted and what is held; nothing changes."""
    state = BoundedCounter().grant(2, by=ALICE)
    with pytest.raises(InsufficientRights) as caught:
        state.spend(3, by=ALICE)
    assert (3, 2) == (caught.value.wanted, caught.value.held)
    with pytest.raises(InsufficientRights):
        state.spend(1, by=BOB)
    with pytest.raises(InsufficientRights):
        state.transfer(3, by=ALICE, to=BOB)


def test_a_transfer_that_has_not_arrived_cannot_be_spent() -> None:
    """The receiver holds rights once it has seen them."""
    granted = BoundedCounter().grant(5, by=ALICE)
    transfer = granted.transfer(5, by=ALICE, to=BOB)
    with pytest.raises(InsufficientRights):
        granted.spend(1, by=BOB)
    assert not (granted | transfer).spend(5, by=BOB).is_bottom()


def test_a_spending_that_arrives_before_its_grant_reads_zero() -> None:
    """A part that arrives alone never shows a negative count."""
    granted = BoundedCounter().grant(5, by=ALICE)
    spending = granted.spend(2, by=ALICE)
    assert 0 == spending.value
    assert 0 == spending.rights(ALICE)
    assert 3 == (spending | granted).value


def test_input_is_checked() -> None:
    """Amounts are positive, actors are 16 bytes, totals fit 63 bits."""
    state = BoundedCounter().grant(5, by=ALICE)
    for amount in (0, -1):
        with pytest.raises(InvalidValueError):
            state.spend(amount, by=ALICE)
    with pytest.raises(InvalidTypeError):
        state.grant(True, by=ALICE)
    with pytest.raises(InvalidValueError):
        state.transfer(1, by=ALICE, to=ALICE)
    with pytest.raises(LimitError):
        state.grant((1 << 63) - 1, by=ALICE)


steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "spend", "transfer", "exchange"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(1, 4),
    ),
    max_size=40,
)


@given(steps)
def test_the_sum_spent_never_exceeds_the_sum_granted(
    program: list[tuple[str, int, int, int]],
) -> None:
    """Whatever three replicas do with stale knowledge of each other."""
    actors = [actor_id(name, 1) for name in ("alice", "bob", "carol")]
    replicas = [BoundedCounter() for _ in actors]
    for verb, index, other, amount in program:
        state, by = replicas[index], actors[index]
        if verb == "exchange":
            replicas[index] = state | replicas[other]
            continue
        try:
            if verb == "grant":
                delta = state.grant(amount, by=by)
            elif verb == "spend":
                delta = state.spend(amount, by=by)
            else:
                delta = state.transfer(amount, by=by, to=actors[other])
        except (InsufficientRights, InvalidValueError):
            continue
        replicas[index] = state | delta
    total = replicas[0] | replicas[1] | replicas[2]
    assert total.spent <= total.granted
    assert total.value == sum(total.rights(actor) for actor in actors)


@pytest.mark.parametrize(
    "wire",
    [
        (),
        ((), (), ()),
        (((ALICE, 1),), ()),
        (((ALICE, ALICE, 0),), ()),
        (((LOW, LOW, 1), (LOW, LOW, 1)), ()),
        (((HIGH, HIGH, 1), (LOW, LOW, 1)), ()),
        ((), ((ALICE, 0),)),
        ((), ((HIGH, 1), (LOW, 1))),
        ((), ((b"x", 1),)),
    ],
)
def test_a_malformed_counter_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        BoundedCounter.from_wire(wire)


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer cannot make this node hold routes without end."""
    monkeypatch.setattr("meshlib.crdt.bounded.ACTORS_MAX", 1)
    with pytest.raises(LimitExceeded):
        BoundedCounter.from_wire(((), ((LOW, 1), (HIGH, 1))))
