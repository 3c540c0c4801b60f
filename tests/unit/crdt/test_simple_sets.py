"""Sets that need no dots."""

from __future__ import annotations

import pytest

from meshlib.crdt import GSet, TwoPhaseSet
from meshlib.errors import DecodeError, InvalidTypeError, StateError, UnknownKeyError


def test_a_g_set_is_the_union() -> None:
    """Whatever was added anywhere is in it."""
    state = GSet[str]().add("x") | GSet[str]().add("y")
    assert {"x", "y"} == state.value
    assert ["x", "y"] == list(state)
    assert 2 == len(state)
    assert "x" in state


def test_a_g_set_tells_what_was_new() -> None:
    """Absorbing returns the elements that were not there."""
    state = GSet[str]().add("x")
    assert GSet[str]().add("y") == state.absorb(GSet[str]().add("y") | GSet[str]().add("x"))


def test_a_removed_element_never_returns() -> None:
    """Whatever the order, a removal is the last word."""
    added = TwoPhaseSet[str]().add("x")
    removed = added.remove("x")
    assert set() == (added | removed).value == (removed | added).value
    assert (removed | added) == removed
    with pytest.raises(StateError):
        removed.add("x")


def test_removing_needs_an_element() -> None:
    """`remove` is an error without it, `discard` changes nothing."""
    with pytest.raises(UnknownKeyError):
        TwoPhaseSet[str]().remove("x")
    assert TwoPhaseSet[str]().discard("x").is_bottom()
    assert not TwoPhaseSet[str]().add("x").discard("x").is_bottom()


def test_elements_and_deltas_are_checked() -> None:
    """A bool is no element, and another type no delta."""
    with pytest.raises(InvalidTypeError):
        GSet[object]().add(True)
    with pytest.raises(InvalidTypeError):
        TwoPhaseSet[object]().add(None)
    with pytest.raises(InvalidTypeError):
        GSet[str]().absorb({"x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        TwoPhaseSet[str]().absorb(GSet[str]())  # type: ignore[arg-type]


def test_copies_are_independent() -> None:
    """Neither follows the other."""
    state = TwoPhaseSet[str]().add("x")
    copy = state.copy()
    copy.absorb(copy.remove("x"))
    assert {"x"} == state.value
    grown = GSet[str]().add("x")
    grown.copy().absorb(GSet[str]().add("y"))
    assert {"x"} == grown.value


@pytest.mark.parametrize("wire", [None, ("b", "a"), ("a", "a"), (True,), (1.0,), ({},)])
def test_a_malformed_g_set_is_refused(wire: object) -> None:
    """Elements come in canonical order, each once."""
    with pytest.raises(DecodeError):
        GSet.from_wire(wire)


@pytest.mark.parametrize("wire", [(), ((),), (("a",), ("a",)), (("b", "a"), ()), ((), (None,))])
def test_a_malformed_two_phase_set_is_refused(wire: object) -> None:
    """An element is either added or removed."""
    with pytest.raises(DecodeError):
        TwoPhaseSet.from_wire(wire)
