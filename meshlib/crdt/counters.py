"""Counters: one total for each actor, joined by the larger.

Frozen. A mutator returns the delta with the actor's new total, never the increment, so a delta
that arrives twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self

from meshlib.crdt.registry import register
from meshlib.crdt.wire import (
    COUNT_MAX,
    check_actor,
    check_amount,
    read_actor,
    read_integer,
    read_rows,
    wire_digest,
)
from meshlib.errors import DecodeError, LimitError, LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX

__all__ = ["GCounter", "PNCounter"]

_new = object.__new__
_NOTHING = (0, 0)


def _read_totals(wire: Any, what: str, count: int) -> Iterator[tuple[ActorId, tuple[int, ...]]]:
    """Read rows of an actor and its numbers: sorted, each once, not all zero."""
    rows = read_rows(wire, what)
    if len(rows) > ACTORS_MAX:
        raise LimitExceeded(f"actors of {what}", size=len(rows), limit=ACTORS_MAX)
    previous = b""
    for row in rows:
        actor_wire, *numbers = read_rows(row, f"a row of {what}", count=count + 1)
        actor = read_actor(actor_wire)
        if actor <= previous:
            raise DecodeError(f"the actors of {what} must be sorted, each once")
        previous = actor
        totals = tuple(read_integer(number, "a total") for number in numbers)
        if not any(totals):
            raise DecodeError(f"{what} holds an actor without a count")
        yield actor, totals


class GCounter:
    """A counter that only grows.

    Source: Shapiro et al., "A comprehensive study of convergent and commutative replicated data
    types", INRIA RR-7506, 2011, specification 6.
    """

    __slots__ = ("_totals",)

    def __init__(self) -> None:
        self._totals: dict[ActorId, int] = {}

    def increment(self, amount: int = 1, *, by: ActorId) -> Self:
        """Return the delta that counts up. O(1).

        Args:
            amount: how much; 1 or more.
            by: the writer, which must be the only one to use this id.

        Raises:
            InvalidTypeError: the amount is no int, or the actor no bytes.
            InvalidValueError: the amount is under 1, or the actor is not 16 bytes.
            LimitError: the actor's total would be over 63 bits.
        """
        if type(amount) is not int or amount < 1:
            check_amount(amount)
        held = self._totals.get(by)
        if held is None:
            check_actor(by)
            held = 0
        total = held + amount
        if total > COUNT_MAX:
            raise LimitError("a counter's total", size=total, limit=COUNT_MAX)
        delta: Self = _new(self.__class__)
        delta._totals = {by: total}
        return delta

    @property
    def value(self) -> int:
        """The count. O(actors)."""
        return sum(self._totals.values())

    @property
    def totals(self) -> Mapping[ActorId, int]:
        """Actor -> what it counted; a read-only view."""
        return MappingProxyType(self._totals)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        mine, theirs = self._totals, other._totals
        totals = mine | theirs
        for actor, total in theirs.items():
            if mine.get(actor, 0) > total:
                totals[actor] = mine[actor]
        joined: Self = _new(self.__class__)
        joined._totals = totals
        return joined

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        theirs = other._totals
        return all(total <= theirs.get(actor, 0) for actor, total in self._totals.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GCounter):
            return NotImplemented
        return self._totals == other._totals

    def __hash__(self) -> int:
        return hash(frozenset(self._totals.items()))

    def is_bottom(self) -> bool:
        """Tell whether nothing was counted."""
        return not self._totals

    def decompose(self) -> Iterator[Self]:
        """Yield one counter for each actor."""
        for actor in sorted(self._totals):
            part: Self = _new(self.__class__)
            part._totals = {actor: self._totals[actor]}
            yield part

    def digest(self) -> int:
        """Hash the state to 64 bits. O(actors)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the rows `(actor, total)`, sorted by actor."""
        return tuple(sorted(self._totals.items()))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a counter that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: more than `ACTORS_MAX` actors.
        """
        counter = cls()
        for actor, (total,) in _read_totals(wire, "a counter", 1):
            counter._totals[actor] = total
        return counter

    def __repr__(self) -> str:
        return f"GCounter({self.value})"


class PNCounter:
    """A counter that goes up and down: the totals of both directions for each actor.

    Source: Shapiro et al., INRIA RR-7506, 2011, specification 7.
    """

    __slots__ = ("_totals",)

    def __init__(self) -> None:
        self._totals: dict[ActorId, tuple[int, int]] = {}

    def increment(self, amount: int = 1, *, by: ActorId) -> Self:
        """Return the delta that counts up. O(1).

        Args:
            amount: how much; 1 or more.
            by: the writer, which must be the only one to use this id.

        Raises:
            InvalidTypeError: the amount is no int, or the actor no bytes.
            InvalidValueError: the amount is under 1, or the actor is not 16 bytes.
            LimitError: the actor's total would be over 63 bits.
        """
        if type(amount) is not int or amount < 1:
            check_amount(amount)
        held = self._totals.get(by)
        if held is None:
            check_actor(by)
            held = _NOTHING
        total = held[0] + amount
        if total > COUNT_MAX:
            raise LimitError("a counter's total", size=total, limit=COUNT_MAX)
        delta: Self = _new(self.__class__)
        delta._totals = {by: (total, held[1])}
        return delta

    def decrement(self, amount: int = 1, *, by: ActorId) -> Self:
        """Return the delta that counts down; arguments and errors as `increment`. O(1)."""
        if type(amount) is not int or amount < 1:
            check_amount(amount)
        held = self._totals.get(by)
        if held is None:
            check_actor(by)
            held = _NOTHING
        total = held[1] + amount
        if total > COUNT_MAX:
            raise LimitError("a counter's total", size=total, limit=COUNT_MAX)
        delta: Self = _new(self.__class__)
        delta._totals = {by: (held[0], total)}
        return delta

    @property
    def value(self) -> int:
        """The count. O(actors)."""
        return sum(up - down for up, down in self._totals.values())

    @property
    def totals(self) -> Mapping[ActorId, tuple[int, int]]:
        """Actor -> what it counted up and down; a read-only view."""
        return MappingProxyType(self._totals)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        mine, theirs = self._totals, other._totals
        totals = mine | theirs
        for actor, (up, down) in theirs.items():
            held_up, held_down = mine.get(actor, _NOTHING)
            if held_up > up or held_down > down:
                totals[actor] = (
                    up if up > held_up else held_up,
                    down if down > held_down else held_down,
                )
        joined: Self = _new(self.__class__)
        joined._totals = totals
        return joined

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        for actor, (up, down) in self._totals.items():
            theirs = other._totals.get(actor, _NOTHING)
            if up > theirs[0] or down > theirs[1]:
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PNCounter):
            return NotImplemented
        return self._totals == other._totals

    def __hash__(self) -> int:
        return hash(frozenset(self._totals.items()))

    def is_bottom(self) -> bool:
        """Tell whether nothing was counted."""
        return not self._totals

    def decompose(self) -> Iterator[Self]:
        """Yield one counter for each actor and direction."""
        for actor in sorted(self._totals):
            up, down = self._totals[actor]
            for totals in ((up, 0), (0, down)):
                if totals != _NOTHING:
                    part: Self = _new(self.__class__)
                    part._totals = {actor: totals}
                    yield part

    def digest(self) -> int:
        """Hash the state to 64 bits. O(actors)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the rows `(actor, up, down)`, sorted by actor."""
        return tuple((actor, up, down) for actor, (up, down) in sorted(self._totals.items()))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a counter that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: more than `ACTORS_MAX` actors.
        """
        counter = cls()
        for actor, (up, down) in _read_totals(wire, "a counter", 2):
            counter._totals[actor] = (up, down)
        return counter

    def __repr__(self) -> str:
        return f"PNCounter({self.value})"


register("g_counter", GCounter)
register("pn_counter", PNCounter)
