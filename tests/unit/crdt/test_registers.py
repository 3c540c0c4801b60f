"""Registers."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.clock import Stamp
from meshlib.codec import encode_value
from meshlib.crdt import Dot, LWWRegister, MaxRegister, MinRegister, MVRegister
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)


def stamp(wall_ms: int, actor: bytes = ALICE) -> Stamp:
    return Stamp(wall_ms, 0, actor)


def test_the_later_write_stays() -> None:
    """Whatever order two writes arrive in, the later stamp wins."""
    early: LWWRegister[str] = LWWRegister[str]().set("old", stamp=stamp(1))
    late: LWWRegister[str] = LWWRegister[str]().set("new", stamp=stamp(2))
    assert "new" == (early | late).value == (late | early).value
    assert early <= late
    assert stamp(2) == (early | late).latest_stamp()


def test_equal_stamps_are_decided_by_the_value() -> None:
    """Even a stamp that was used twice leaves all replicas with one value."""
    one: LWWRegister[int] = LWWRegister[int]().set(1, stamp=stamp(1))
    two: LWWRegister[int] = LWWRegister[int]().set(2, stamp=stamp(1))
    assert one | two == two | one
    assert 2 == (one | two).value


def test_a_write_that_would_lose_is_refused() -> None:
    """A stamp that is not later than the value's is an error, not a silent loss."""
    state: LWWRegister[str] = LWWRegister[str]().set("kept", stamp=stamp(5))
    for late in (stamp(4), stamp(5)):
        with pytest.raises(InvalidValueError):
            state.set("lost", stamp=late)


def test_values_are_frozen_at_the_boundary() -> None:
    """A later change of what was put, or of what was read, does not reach the register."""
    put = {"tags": ["a"]}
    state: LWWRegister[Any] = LWWRegister[Any]().set(put, stamp=stamp(1))
    put["tags"].append("b")
    read = state.value
    assert read is not None
    read["more"] = []
    assert {"tags": ("a",)} == state.value


@pytest.mark.parametrize("value", [float("nan"), 1 << 64, "\ud800"])
def test_a_value_without_canonical_form_is_refused(value: object) -> None:
    """NaN, large integers and lone surrogates cannot be kept."""
    with pytest.raises(InvalidValueError):
        LWWRegister[object]().set(value, stamp=stamp(1))


@pytest.mark.parametrize("value", [{1, 2}, object(), {1.0: 2}])
def test_a_value_of_another_type_is_refused(value: object) -> None:
    """Sets, objects and float keys cannot be kept."""
    with pytest.raises(InvalidTypeError):
        LWWRegister[object]().set(value, stamp=stamp(1))


def test_an_empty_register_has_no_value() -> None:
    """The bottom reads None, and so does a register that was set to None."""
    assert LWWRegister().value is None
    assert LWWRegister().is_bottom()
    assert not LWWRegister[None]().set(None, stamp=stamp(1)).is_bottom()


def test_what_is_no_stamp_is_refused() -> None:
    """A stamp is a Stamp with parts that fit the wire."""
    with pytest.raises(InvalidTypeError):
        LWWRegister().set(1, stamp=(1, 2, ALICE))  # type: ignore[arg-type]
    for wrong in (Stamp(-1, 0, ALICE), Stamp(1, 1 << 16, ALICE), Stamp(1, 0, b"x")):
        with pytest.raises(InvalidValueError):
            LWWRegister[int]().set(1, stamp=wrong)


@pytest.mark.parametrize(
    "wire",
    [
        (),
        (1, 0, ALICE),
        (1, 0, ALICE, "text"),
        (1, 0, ALICE, b""),
        (1, 0, ALICE, b"\x01\x02"),
        (1, 0, ALICE, b"\xd9\x01a"),
        (1, 0, ALICE, b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
        (1 << 48, 0, ALICE, encode_value(1)),
        (1, 1 << 16, ALICE, encode_value(1)),
        (1, 0, b"", encode_value(1)),
        (1, True, ALICE, encode_value(1)),
    ],
)
def test_a_malformed_register_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read, values in canonical form included."""
    with pytest.raises(DecodeError):
        LWWRegister.from_wire(wire)


def test_the_largest_and_the_smallest_value_stay() -> None:
    """Each register keeps its end of the order, in whatever order values come."""
    for first, second in ((1, 7), (7, 1)):
        assert 7 == (MaxRegister[int]().set(first) | MaxRegister[int]().set(second)).value
        assert 1 == (MinRegister[int]().set(first) | MinRegister[int]().set(second)).value


ASCENDING = [
    float("-inf"),
    -1,
    -0.0,
    0,
    0.0,
    1,
    1.0,
    (1 << 53) + 1,
    float((1 << 53) + 2),
    float("inf"),
    b"",
    b"\xff",
    "",
    "a",
    "é",
    (),
    (1,),
    (1, 0),
    (1.0,),
    ("a",),
]


@pytest.mark.parametrize("position", range(1, len(ASCENDING)))
def test_values_are_ordered_totally(position: int) -> None:
    """Of any two different values one is larger, also where Python calls them equal."""
    low, high = MaxRegister[object]().set(ASCENDING[position - 1]), MaxRegister[object]()
    high = high.set(ASCENDING[position])
    assert low <= high
    assert not high <= low
    assert low | high == high == high | low
    assert low.digest() != high.digest()
    assert high == MaxRegister.from_wire(high.to_wire())


@pytest.mark.parametrize("value", [True, None, [1], {}, (1, None)])
def test_a_value_without_a_place_in_the_order_is_refused(value: object) -> None:
    """A bool is no number here, and a list could change."""
    with pytest.raises(InvalidTypeError):
        MinRegister[object]().set(value)


def test_nan_is_refused() -> None:
    """A maximum with NaN would depend on the order of arrival."""
    with pytest.raises(InvalidValueError):
        MaxRegister[float]().set(float("nan"))
    with pytest.raises(DecodeError):
        MaxRegister.from_wire(float("nan"))


def test_registers_of_the_two_ends_do_not_join() -> None:
    """A join needs two states of one class."""
    with pytest.raises(TypeError):
        MaxRegister[int]().set(1) | MinRegister[int]().set(1)  # type: ignore[operator]


def test_concurrent_writes_are_all_kept() -> None:
    """A reader sees every concurrent value once, in an order that all replicas share."""
    one = MVRegister[str]().set("b", dot=Dot(ALICE, 1))
    two = MVRegister[str]().set("a", dot=Dot(BOB, 1))
    assert ("a", "b") == (one | two).values == (two | one).values
    same = MVRegister[str]().set("b", dot=Dot(BOB, 1))
    assert ("b",) == (one | same).values


def test_a_write_replaces_the_values_it_has_seen() -> None:
    """Resolving a conflict is a write like any other."""
    both = MVRegister[str]().set("a", dot=Dot(ALICE, 1)) | MVRegister[str]().set(
        "b", dot=Dot(BOB, 1)
    )
    resolved = both | both.set("c", dot=Dot(ALICE, 2))
    assert ("c",) == resolved.values
    assert () == (both | both.clear()).values


def test_the_values_of_a_register_are_frozen() -> None:
    """A later change of what was put, or of what was read, does not reach the register."""
    put = {"tags": ["a"]}
    state: MVRegister[Any] = MVRegister[Any]().set(put, dot=Dot(ALICE, 1))
    put["tags"].append("b")
    state.values[0]["more"] = []
    assert ({"tags": ("a",)},) == state.value
