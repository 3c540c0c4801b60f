"""The observed-remove set."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.crdt import CausalContext, Dot, ORSet
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    UnknownKeyError,
)
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)


def test_an_addition_wins_over_a_concurrent_removal() -> None:
    """A removal takes away only the additions it has seen."""
    first = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    removal = first.remove("x")
    again = first.add("x", dot=Dot(BOB, 1))
    assert {"x"} == (first | removal | again).value
    assert set() == (first | removal).value


def test_many_elements_are_added_by_one_delta() -> None:
    """It takes one dot for each different element, and the place of earlier additions."""
    state = ORSet[str]().add("b", dot=Dot(BOB, 1))
    delta = state.add_all(["a", "b", "a", "c"], first=Dot(ALICE, 5))
    assert (
        CausalContext([Dot(BOB, 1), Dot(ALICE, 5), Dot(ALICE, 6), Dot(ALICE, 7)]) == delta.context
    )
    state.absorb(delta)
    state._check()
    assert {"a", "b", "c"} == state.value
    assert (ALICE, (0, 4, 3), (5, 1, 1), ("a", "b", "c")) in state.to_wire()
    assert state.add_all([], first=Dot(ALICE, 1)).is_bottom()


def test_many_elements_are_removed_by_one_delta() -> None:
    """Those that are there, with all the additions that were seen of them."""
    state = ORSet[str]().add_all(["a", "b", "c"], first=Dot(ALICE, 1))
    state.absorb(ORSet[str]().add("b", dot=Dot(BOB, 1)))
    delta = state.discard_all(["b", "x", "c", "b"])
    assert CausalContext([Dot(ALICE, 2), Dot(ALICE, 3), Dot(BOB, 1)]) == delta.context
    state.absorb(delta)
    state._check()
    assert {"a"} == state.value
    assert [((ALICE, 1), "a")] == list(state.additions())
    assert state.discard_all([]).is_bottom()


def test_none_of_many_dots_may_be_used() -> None:
    """A range that meets a dot seen before is refused, wherever it meets it."""
    state = ORSet[str]().add("x", dot=Dot(ALICE, 3))
    for first in (1, 2, 3):
        with pytest.raises(InvalidValueError):
            state.add_all(["a", "b", "c"], first=Dot(ALICE, first))
    with pytest.raises(InvalidValueError):
        state.add_all(["a", "b"], first=Dot(ALICE, (1 << 63) - 1))
    with pytest.raises(InvalidTypeError):
        state.add_all(["a", None], first=Dot(ALICE, 9))  # type: ignore[list-item]


def test_a_removed_element_does_not_come_back_with_its_old_delta() -> None:
    """A repeated delta of the removed addition changes nothing."""
    added = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    state = added.copy()
    state.absorb(added.remove("x"))
    assert state.absorb(added).is_bottom()
    assert "x" not in state


def test_a_removal_that_arrives_first_still_removes() -> None:
    """Order does not matter: the addition that comes late is dead."""
    added = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    state: ORSet[str] = ORSet()
    state.absorb(added.remove("x"))
    state.absorb(added)
    assert 0 == len(state)


def test_deltas_that_skip_a_dot_keep_the_gap() -> None:
    """A later dot does not make an earlier one of the same writer dead."""
    one = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    three = ORSet[str]().add("y", dot=Dot(ALICE, 3))
    assert {"x", "y"} == (three | one).value


def test_absorbing_returns_exactly_what_was_new() -> None:
    """Additions and removals that were known are left out of what comes back."""
    x = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    y = ORSet[str]().add("y", dot=Dot(ALICE, 2))
    state = x.copy()
    new = state.absorb(x | y | x.remove("x"))
    assert y | x.remove("x") == new
    assert {"y"} == state.value
    assert state.absorb(x | y).is_bottom()


def test_a_second_addition_takes_the_place_of_the_first() -> None:
    """One element that is added again and again holds one dot."""
    state: ORSet[str] = ORSet()
    for sequence in range(1, 6):
        state.absorb(state.add("x", dot=Dot(ALICE, sequence)))
    assert (((ALICE, (5,), (5,), ("x",))),) == state.to_wire()


def test_concurrent_additions_keep_both_dots() -> None:
    """Until one writer has seen both, removing one addition leaves the other."""
    one = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    two = ORSet[str]().add("x", dot=Dot(BOB, 1))
    both = one | two
    both._check()
    assert {"x"} == (both | one.remove("x")).value
    assert set() == (both | both.remove("x")).value


def test_clearing_removes_what_was_seen() -> None:
    """An addition that the clearing replica had not seen stays."""
    state = ORSet[str]().add("x", dot=Dot(ALICE, 1)) | ORSet[str]().add("y", dot=Dot(ALICE, 2))
    unseen = ORSet[str]().add("z", dot=Dot(BOB, 1))
    assert {"z"} == (state | state.clear() | unseen).value


def test_the_index_of_dots_follows_every_change() -> None:
    """It is made when the first dot is looked up, and kept up from then on."""
    state = ORSet[str]().add_all([f"e{n}" for n in range(100)], first=Dot(ALICE, 1))
    state.absorb(state.remove("e7"))
    state._check()
    state.absorb(state.add("e7", dot=Dot(ALICE, 101)))
    state.absorb(state.add("e8", dot=Dot(BOB, 1)))
    state.absorb(state.remove("e9") | state.remove("e10"))
    state.absorb(ORSet[str]().add_all(["x", "e11"], first=Dot(BOB, 2)))
    state._check()
    assert 99 == len(state)


def test_removing_what_is_not_there() -> None:
    """`remove` is an error then, `discard` changes nothing."""
    with pytest.raises(UnknownKeyError):
        ORSet[str]().remove("x")
    assert ORSet[str]().discard("x").is_bottom()
    added = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    assert added.discard("x") == added.remove("x")


def test_a_dot_is_not_taken_twice() -> None:
    """The dot of a second addition must be new, even one above a gap."""
    state = ORSet[str]().add("x", dot=Dot(ALICE, 2))
    with pytest.raises(InvalidValueError):
        state.add("y", dot=Dot(ALICE, 2))
    assert Dot(ALICE, 3) == state.context.next_dot(ALICE)


@pytest.mark.parametrize("element", [True, 1.0, None, {}, ("a", None)])
def test_an_element_of_another_type_is_refused(element: object) -> None:
    """Elements are what can be a key."""
    with pytest.raises(InvalidTypeError):
        ORSet[object]().add(element, dot=Dot(ALICE, 1))


def test_an_element_over_the_limit_is_refused() -> None:
    """An element is at most 1 KiB."""
    with pytest.raises(LimitError):
        ORSet[str]().add("x" * 2000, dot=Dot(ALICE, 1))


def test_elements_are_listed_in_canonical_order() -> None:
    """Iteration does not depend on the order of additions."""
    state: ORSet[object] = ORSet()
    for sequence, element in enumerate(["b", "a", 3, b"c", ("t", 1)], 1):
        state.absorb(state.add(element, dot=Dot(ALICE, sequence)))
    again: ORSet[Any] = ORSet.from_wire(state.to_wire())
    assert list(state) == list(again)
    assert ["a", "b"] == [element for element in state if isinstance(element, str)]


def test_a_copy_is_independent() -> None:
    """Neither of the two follows the other."""
    state = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    copy = state.copy()
    copy.absorb(copy.remove("x"))
    assert {"x"} == state.value
    assert CausalContext([Dot(ALICE, 1)]) == state.context


def test_sets_are_not_hashable() -> None:
    """A container changes in place and so cannot be a key."""
    with pytest.raises(TypeError):
        hash(ORSet())


@pytest.mark.parametrize(
    "wire",
    [
        3,
        ((ALICE, (1,), (1,)),),
        ((ALICE, (1,), (1,), ()),),
        ((ALICE, (1,), (2,), ("x",)),),
        ((ALICE, (2,), (1, 0), ("x", "y")),),
        ((ALICE, (1,), (1,), (None,)),),
        ((ALICE, (1,), (1,), (True,)),),
        ((ALICE, (1,), (1,), (["x"],)),),
        ((ALICE, (0,), (), ()),),
        ((ALICE, (1,), (), ()), (ALICE, (1,), (), ())),
        ((ALICE, (0.0, 4, 1), (5,), ("x",)),),
        ((ALICE, (0, 4, True), (5,), ("x",)),),
        ((ALICE, (0, 4, 1), (5,), (None,)),),
        ((b"short", (0, 4, 1), (5,), ("x",)),),
        ((ALICE, (0, 4, 1), (5.0,), ("x",)),),
    ],
)
def test_a_malformed_set_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        ORSet.from_wire(wire)


def test_a_huge_claimed_context_is_absorbed_by_walking_what_is_live() -> None:
    """A delta that claims 2**62 dead dots costs no more than this set's own elements."""
    state = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    state.absorb(ORSet.from_wire(((ALICE, (1 << 62,), (), ()),)))
    assert set() == state.value


def test_sets_that_hold_an_element_by_other_dots_are_not_equal() -> None:
    """Neither way round: what the first addition would survive differs."""
    first = ORSet[str]().add("x", dot=Dot(ALICE, 1))
    second = first | first.add("x", dot=Dot(ALICE, 2))
    third = second.add("x", dot=Dot(ALICE, 3))
    by_two, by_one = first | third, second | third
    assert by_two != by_one
    assert by_one != by_two
