"""Counters: one total for each actor, joined by the larger.

Frozen. A mutator returns the delta with the actor's new total, never the increment, so a delta
that arrives twice counts once.

Rule: the total of a single actor, which every delta is, stands in the counter itself; only more
than one take a dict. A delta costs one object then, and the join of two such makes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self

from meshlib.crdt.registry import register
from meshlib.crdt.wire import check_actor, check_amount, wire_digest
from meshlib.errors import DecodeError, LimitError, LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX
from meshlib.reading import COUNT_MAX, read_actor, read_integer, read_rows

__all__ = ["GCounter", "PNCounter"]

_new = object.__new__
_NO_ACTOR = ActorId(b"")
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

    __slots__ = ("_actor", "_several", "_total")

    def __init__(self) -> None:
        # The one actor and its total, or the totals of none or several; the other is empty.
        self._actor = _NO_ACTOR
        self._total = 0
        self._several: dict[ActorId, int] | None = None

    @classmethod
    def _of(cls, totals: dict[ActorId, int]) -> Self:
        made = cls()
        if len(totals) == 1:
            [(made._actor, made._total)] = totals.items()
        elif totals:
            made._several = totals
        return made

    def _totals(self) -> dict[ActorId, int]:
        """Return the totals as a dict, which the caller must not change."""
        if self._several is not None:
            return self._several
        return {self._actor: self._total} if self._actor else {}

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
        if by is self._actor and by:
            total = self._total + amount
        else:
            check_actor(by)
            total = self._totals().get(by, 0) + amount
        if total > COUNT_MAX:
            raise LimitError("a counter's total", size=total, limit=COUNT_MAX)
        delta = _new(type(self))
        delta._actor = by
        delta._total = total
        delta._several = None
        return delta

    @property
    def value(self) -> int:
        """The count. O(actors)."""
        return self._total if self._several is None else sum(self._several.values())

    @property
    def totals(self) -> Mapping[ActorId, int]:
        """Actor -> what it counted; a read-only view."""
        return MappingProxyType(self._totals())

    def __or__(self, other: Self, /) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        if self._actor and self._actor == other._actor:
            return other if other._total >= self._total else self
        mine, theirs = self._totals(), other._totals()
        totals = mine | theirs
        for actor, total in theirs.items():
            if mine.get(actor, 0) > total:
                totals[actor] = mine[actor]
        return self._of(totals)

    def __le__(self, other: Self, /) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        if self._actor and self._actor == other._actor:
            return self._total <= other._total
        theirs = other._totals()
        return all(total <= theirs.get(actor, 0) for actor, total in self._totals().items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GCounter):
            return NotImplemented
        return self._totals() == other._totals()

    def __hash__(self) -> int:
        return hash(frozenset(self._totals().items()))

    def is_bottom(self) -> bool:
        """Tell whether nothing was counted."""
        return not self._actor and self._several is None

    def decompose(self) -> Iterator[Self]:
        """Yield one counter for each actor."""
        if self._several is None:
            if self._actor:
                yield self
            return
        for actor, total in sorted(self._totals().items()):
            yield self._of({actor: total})

    def digest(self) -> int:
        """Hash the state to 64 bits. O(actors)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the rows `(actor, total)`, sorted by actor."""
        return tuple(sorted(self._totals().items()))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a counter that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: more than `ACTORS_MAX` actors.
        """
        rows = _read_totals(wire, "a counter", 1)
        return cls._of({actor: total for actor, (total,) in rows})

    def __repr__(self) -> str:
        return f"GCounter({self.value})"


class PNCounter:
    """A counter that goes up and down: the totals of both directions for each actor.

    Source: Shapiro et al., INRIA RR-7506, 2011, specification 7.
    """

    __slots__ = ("_actor", "_down", "_several", "_up")

    def __init__(self) -> None:
        # The one actor and its totals, or the totals of none or several; the other is empty.
        self._actor = _NO_ACTOR
        self._up = 0
        self._down = 0
        self._several: dict[ActorId, tuple[int, int]] | None = None

    @classmethod
    def _of(cls, totals: dict[ActorId, tuple[int, int]]) -> Self:
        made = cls()
        if len(totals) == 1:
            [(made._actor, (made._up, made._down))] = totals.items()
        elif totals:
            made._several = totals
        return made

    def _totals(self) -> dict[ActorId, tuple[int, int]]:
        """Return the totals as a dict, which the caller must not change."""
        if self._several is not None:
            return self._several
        return {self._actor: (self._up, self._down)} if self._actor else {}

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
        if by is self._actor and by:
            up, down = self._up + amount, self._down
        else:
            check_actor(by)
            up, down = self._totals().get(by, _NOTHING)
            up += amount
        if up > COUNT_MAX:
            raise LimitError("a counter's total", size=up, limit=COUNT_MAX)
        delta = _new(type(self))
        delta._actor = by
        delta._up = up
        delta._down = down
        delta._several = None
        return delta

    def decrement(self, amount: int = 1, *, by: ActorId) -> Self:
        """Return the delta that counts down; arguments and errors as `increment`. O(1)."""
        if type(amount) is not int or amount < 1:
            check_amount(amount)
        if by is self._actor and by:
            up, down = self._up, self._down + amount
        else:
            check_actor(by)
            up, down = self._totals().get(by, _NOTHING)
            down += amount
        if down > COUNT_MAX:
            raise LimitError("a counter's total", size=down, limit=COUNT_MAX)
        delta = _new(type(self))
        delta._actor = by
        delta._up = up
        delta._down = down
        delta._several = None
        return delta

    @property
    def value(self) -> int:
        """The count. O(actors)."""
        if self._several is None:
            return self._up - self._down
        return sum(up - down for up, down in self._several.values())

    @property
    def totals(self) -> Mapping[ActorId, tuple[int, int]]:
        """Actor -> what it counted up and down; a read-only view."""
        return MappingProxyType(self._totals())

    def __or__(self, other: Self, /) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        if self._actor and self._actor == other._actor:
            if other._up >= self._up and other._down >= self._down:
                return other
            if self._up >= other._up and self._down >= other._down:
                return self
        mine, theirs = self._totals(), other._totals()
        totals = mine | theirs
        for actor, (up, down) in theirs.items():
            held_up, held_down = mine.get(actor, _NOTHING)
            if held_up > up or held_down > down:
                totals[actor] = (
                    up if up > held_up else held_up,
                    down if down > held_down else held_down,
                )
        return self._of(totals)

    def __le__(self, other: Self, /) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        theirs = other._totals()
        for actor, (up, down) in self._totals().items():
            held_up, held_down = theirs.get(actor, _NOTHING)
            if up > held_up or down > held_down:
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PNCounter):
            return NotImplemented
        return self._totals() == other._totals()

    def __hash__(self) -> int:
        return hash(frozenset(self._totals().items()))

    def is_bottom(self) -> bool:
        """Tell whether nothing was counted."""
        return not self._actor and self._several is None

    def decompose(self) -> Iterator[Self]:
        """Yield one counter for each actor and direction."""
        for actor, (up, down) in sorted(self._totals().items()):
            for totals in ((up, 0), (0, down)):
                if totals != _NOTHING:
                    yield self._of({actor: totals})

    def digest(self) -> int:
        """Hash the state to 64 bits. O(actors)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the rows `(actor, up, down)`, sorted by actor."""
        return tuple((actor, up, down) for actor, (up, down) in sorted(self._totals().items()))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a counter that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: more than `ACTORS_MAX` actors.
        """
        rows = _read_totals(wire, "a counter", 2)
        return cls._of({actor: (up, down) for actor, (up, down) in rows})

    def __repr__(self) -> str:
        return f"PNCounter({self.value})"


register("g_counter", GCounter)
register("pn_counter", PNCounter)
