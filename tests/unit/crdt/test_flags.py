"""Flags."""

from __future__ import annotations

import pytest

from meshlib.crdt import DisableWinsFlag, Dot, EnableWinsFlag
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)


def test_flags_start_off() -> None:
    """Neither kind is on before it was enabled."""
    assert not EnableWinsFlag()
    assert not DisableWinsFlag()


def test_enabling_wins_over_a_concurrent_disabling() -> None:
    """The disabling removes only what it has seen."""
    on = EnableWinsFlag().enable(dot=Dot(ALICE, 1))
    again = on.enable(dot=Dot(BOB, 1))
    off = on.disable()
    assert (on | again | off).value
    assert not (on | off).value
    assert not (on | again | (on | again).disable()).value


def test_disabling_wins_over_a_concurrent_enabling() -> None:
    """The flag is off until somebody enables it who has seen the disabling."""
    on = DisableWinsFlag().enable(dot=Dot(ALICE, 1))
    again = on.enable(dot=Dot(ALICE, 2))
    off = on.disable(dot=Dot(BOB, 1))
    both = on | again | off
    assert on.value
    assert not both.value
    assert (both | both.enable(dot=Dot(ALICE, 3))).value


def test_a_write_takes_the_place_of_all_it_has_seen() -> None:
    """A flag that is switched again and again holds one dot."""
    flag = DisableWinsFlag()
    for sequence in range(1, 6):
        flag.absorb(flag.enable(dot=Dot(ALICE, sequence)))
    assert ((ALICE, (5,), (5,), (True,)),) == flag.to_wire()


@pytest.mark.parametrize("kind", [EnableWinsFlag, DisableWinsFlag])
def test_a_dot_is_checked(kind: type[EnableWinsFlag | DisableWinsFlag]) -> None:
    """A dot that was used, or is none, is refused."""
    flag = kind().enable(dot=Dot(ALICE, 1))
    with pytest.raises(InvalidValueError):
        flag.enable(dot=Dot(ALICE, 1))
    with pytest.raises(InvalidTypeError):
        flag.enable(dot=(ALICE, 2))  # type: ignore[arg-type]


def test_a_flag_does_not_join_the_other_kind() -> None:
    """A join needs two states of one class."""
    with pytest.raises(InvalidTypeError):
        EnableWinsFlag().absorb(DisableWinsFlag())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "leaf"),
    [(EnableWinsFlag, True), (EnableWinsFlag, 0), (DisableWinsFlag, None), (DisableWinsFlag, 1)],
)
def test_a_malformed_leaf_is_refused(
    kind: type[EnableWinsFlag | DisableWinsFlag], leaf: object
) -> None:
    """An enable-wins dot carries nothing, a disable-wins dot a truth value."""
    with pytest.raises(DecodeError):
        kind.from_wire(((ALICE, (1,), (1,), (leaf,)),))
