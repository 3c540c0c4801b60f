"""The set in which a removal wins."""

from __future__ import annotations

import pytest

from meshlib.crdt import Dot, RemoveWinsSet
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, UnknownKeyError
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
Strings = RemoveWinsSet[str]


def test_a_removal_wins_over_a_concurrent_addition() -> None:
    """The element is out until somebody adds it who has seen the removal."""
    added = Strings().add("x", dot=Dot(ALICE, 1))
    again = added.add("x", dot=Dot(ALICE, 2))
    removed = added.remove("x", dot=Dot(BOB, 1))
    both = again | removed
    assert "x" not in both
    assert 0 == len(both)
    assert {"x"} == (both | both.add("x", dot=Dot(BOB, 2))).value


def test_a_removal_of_what_is_absent_wins_too() -> None:
    """`discard` rules an element out before its concurrent addition arrives."""
    with pytest.raises(UnknownKeyError):
        Strings().remove("x", dot=Dot(BOB, 1))
    ruled_out = Strings().discard("x", dot=Dot(BOB, 1))
    assert [] == list(ruled_out | Strings().add("x", dot=Dot(ALICE, 1)))


def test_other_elements_are_left_alone() -> None:
    """A removal concerns its element only."""
    state = Strings().add("x", dot=Dot(ALICE, 1)) | Strings().add("y", dot=Dot(ALICE, 2))
    state.absorb(state.remove("x", dot=Dot(BOB, 1)))
    assert ["y"] == list(state)
    state._check()


def test_an_element_holds_one_dot_after_each_write() -> None:
    """Switching an element on and off does not grow the state."""
    state = Strings()
    for sequence in range(1, 10, 2):
        state.absorb(state.add("x", dot=Dot(ALICE, sequence)))
        state.absorb(state.remove("x", dot=Dot(ALICE, sequence + 1)))
    assert ((ALICE, (10,), (10,), (("x", False),)),) == state.to_wire()


def test_input_is_checked() -> None:
    """Elements are keys, and dots are new."""
    state = Strings().add("x", dot=Dot(ALICE, 1))
    with pytest.raises(InvalidValueError):
        state.add("y", dot=Dot(ALICE, 1))
    with pytest.raises(InvalidTypeError):
        state.add(1.5, dot=Dot(ALICE, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("leaf", ["x", ("x",), ("x", 1), (None, True), ("x", True, True)])
def test_a_malformed_leaf_is_refused(leaf: object) -> None:
    """A leaf is an element and whether it was added."""
    with pytest.raises(DecodeError):
        Strings.from_wire(((ALICE, (1,), (1,), (leaf,)),))
