"""Sets that came as bytes: they stay in rows until they are asked, and join as others do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.crdt import Dot, ORSet, decode, encode
from meshlib.crdt.causal import or_set as sets
from meshlib.errors import DecodeError
from meshlib.identity import actor_id
from meshlib.testing import first_violation
from meshlib.testing.specs import SPECS

ALICE, BOB, CAROL = (actor_id(name, 1) for name in ("alice", "bob", "carol"))
MANY = 3 * sets.ROWS_PAY

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, MANY), st.integers(1, 90)),
        st.tuples(st.just("remove"), st.integers(0, 2), st.integers(0, MANY), st.integers(1, 90)),
        st.tuples(st.just("join"), st.integers(0, 2), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(0, 2), st.integers(0, 99), st.just(0)),
    ),
    max_size=14,
)


def names(start: int, count: int) -> list[str]:
    return [f"element {number}" for number in range(start, start + count)]


def loaded(start: int, count: int, *, by: Any, first: int = 1) -> ORSet[str]:
    """Return a set with many elements of one writer."""
    return ORSet[str]().add_all(names(start, count), first=Dot(by, first))


def arrived(state: ORSet[str]) -> Any:
    """Return a set as a peer gets it."""
    return decode(encode(state))


def has_rows(state: ORSet[str]) -> bool:
    return state._rows is not None


def check_all_pairs(states: list[ORSet[str]]) -> None:
    """Assert that each set joins and tells what was new the same, decoded or not."""
    for here in states:
        for there in states:
            due = here.copy()
            due_new = due.absorb(there)
            for receiver in (here.copy(), arrived(here)):
                new = receiver.absorb(arrived(there))
                new._check()
                receiver._check()
                assert due == receiver
                assert encode(due) == encode(receiver)
                assert due_new == new
                assert encode(due_new) == encode(new)
            assert due == here | arrived(there)


@pytest.mark.slow
@given(steps=STEPS)
def test_a_decoded_set_joins_as_the_set_it_came_from(
    steps: list[tuple[str, int, int, int]],
) -> None:
    """Whatever three replicas added, removed and got of each other, with gaps and without."""
    replicas = [ORSet[str]() for _ in range(3)]
    deltas: list[ORSet[str]] = []
    for kind, replica, number, count in steps:
        state = replicas[replica]
        if kind == "add":
            first = state.context.next_dot((ALICE, BOB, CAROL)[replica])
            deltas.append(state.add_all(names(number, count), first=first))
            state.absorb(deltas[-1])
        elif kind == "remove":
            for element in names(number, count):
                delta = state.discard(element)
                state.absorb(delta)
            deltas.append(delta)
        elif kind == "join":
            state.absorb(arrived(replicas[number]))
        elif deltas:
            state.absorb(arrived(deltas[number % len(deltas)]))
    check_all_pairs([*replicas, *deltas[:3]])


@pytest.mark.slow
def test_every_law_holds_for_sets_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With rows for the smallest sets too, in which the laws meet each case."""
    monkeypatch.setattr(sets, "ROWS_PAY", 1)
    violation = first_violation(SPECS["or_set"])
    assert violation is None, violation


def test_what_is_new_goes_on_in_rows() -> None:
    """A set that is passed on as bytes is never made into a dict of elements on the way."""
    here = loaded(0, MANY, by=ALICE)
    new = here.absorb(arrived(here | loaded(MANY, MANY, by=BOB)))
    assert has_rows(new)
    assert encode(new) == encode(loaded(MANY, MANY, by=BOB))
    assert has_rows(new)
    assert set(names(MANY, MANY)) == new.value
    assert not has_rows(new)
    assert set(names(0, 2 * MANY)) == here.value


def test_a_removal_among_many_is_seen() -> None:
    """An element that is missing there, and was seen there, goes here as well."""
    here = loaded(0, MANY, by=ALICE)
    there = here.copy()
    there.absorb(there.remove("element 7"))
    there.absorb(there.add_all(names(MANY, 80), first=Dot(BOB, 1)))
    new = here.absorb(arrived(there))
    new._check()
    assert set(names(0, MANY + 80)) - {"element 7"} == here.value
    assert Dot(ALICE, 8) in new.context


def test_what_was_removed_here_does_not_come_back() -> None:
    """A state from before the removal brings only what was never seen here."""
    there = loaded(0, MANY, by=ALICE) | loaded(MANY, MANY, by=BOB)
    here = loaded(0, MANY, by=ALICE)
    for element in names(0, 9):
        here.absorb(here.remove(element))
    here.absorb(arrived(there))
    assert set(names(9, 2 * MANY - 9)) == here.value


def test_the_index_of_dots_follows() -> None:
    """A set that has looked a dot up once keeps its index right when rows come in."""
    here = loaded(0, MANY, by=ALICE)
    here.absorb(here.remove("element 0"))
    assert here.absorb(arrived(loaded(MANY, MANY, by=BOB))).context
    here._check()
    here.absorb(here.remove(f"element {MANY}"))
    here._check()
    assert set(names(1, 2 * MANY - 1)) - {f"element {MANY}"} == here.value


def test_one_element_by_many_dots_survives_the_rows() -> None:
    """Concurrent additions of the same elements hang on the dots of both."""
    both = loaded(0, MANY, by=ALICE)
    both.absorb(arrived(loaded(0, MANY, by=BOB)))
    both._check()
    assert both == loaded(0, MANY, by=ALICE) | loaded(0, MANY, by=BOB)
    came = arrived(both)
    assert encode(came) == encode(both)
    came.absorb(loaded(0, MANY, by=ALICE).clear())
    assert set(names(0, MANY)) == came.value


def test_one_element_by_two_dots_of_one_writer_survives_the_rows() -> None:
    """A writer whose second addition had not seen its first: both dots hold the element."""
    first = loaded(0, MANY, by=ALICE)
    both = first | ORSet[str]().add("element 1", dot=Dot(ALICE, MANY + 1))
    came = arrived(both)
    here: ORSet[str] = ORSet()
    here.absorb(arrived(both))
    for state in (came, here):
        assert both == state
        state.absorb(first.clear())
        assert {"element 1"} == state.value


@pytest.mark.parametrize(
    "ask",
    [
        len,
        set,
        repr,
        copy.copy,
        copy.deepcopy,
        ORSet.copy,
        ORSet.digest,
        lambda state: "element 1" in state,
        lambda state: state <= state,
        lambda state: list(state.decompose()),
        lambda state: state.add("x", dot=Dot(BOB, 1)),
        lambda state: state.remove("element 1"),
        lambda state: state.clear(),
    ],
)
def test_it_answers_as_the_set_it_came_from(ask: Callable[[Any], Any]) -> None:
    """Whichever question comes first."""
    state = loaded(0, MANY, by=ALICE)
    came = arrived(state)
    assert ask(state) == ask(came)
    came._check()
    assert state == came
    assert came == state


def test_a_malformed_large_set_is_refused_when_it_is_read() -> None:
    """Not later, when somebody asks for its elements."""
    [(actor, ranges, steps, leaves)] = loaded(0, MANY, by=ALICE).to_wire()
    for row in (
        (actor, ranges, steps, (*leaves[:-1], None)),
        (actor, ranges, steps, leaves[:-1]),
        (actor, ranges, (*steps[:-1], 0), leaves),
        (actor, ranges, (*steps[:-1], True), leaves),
        (actor, ranges, (*steps[:-1], 2), leaves),
        (actor, (MANY - 1,), steps, leaves),
    ):
        with pytest.raises(DecodeError):
            ORSet.from_wire((row,))
