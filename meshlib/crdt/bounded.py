"""`BoundedCounter`: rights that are spent without asking, and never more than there are.

Rule: an actor spends only what it holds, and only it writes what it spent and gave away. So
the total spent never exceeds the total granted, however little the replicas know of each other.
Source: Balegas et al., "Extending eventually consistent cloud databases for enforcing numeric
invariants", SRDS 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self, TypeVar

from meshlib.crdt.registry import register
from meshlib.crdt.wire import check_actor, check_amount, wire_digest
from meshlib.errors import InsufficientRights, InvalidValueError, LimitError, LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX
from meshlib.reading import COUNT_MAX, read_actor, read_integer, read_rows, require

__all__ = ["BoundedCounter"]

_new = object.__new__

KeyT = TypeVar("KeyT")
Route = tuple[ActorId, ActorId]


def _join(mine: dict[KeyT, int], theirs: dict[KeyT, int]) -> dict[KeyT, int]:
    joined = mine.copy()
    for key, total in theirs.items():
        if total > joined.get(key, 0):
            joined[key] = total
    return joined


def _is_under(mine: dict[KeyT, int], theirs: dict[KeyT, int]) -> bool:
    return all(total <= theirs.get(key, 0) for key, total in mine.items())


class BoundedCounter:
    """A counter that is spent down to zero and not below. Frozen.

    Rights are granted to an actor, move by `transfer`, and are used up by `spend`. What an
    actor holds, nobody else can use: the rights of one that never comes back are lost, which is
    the safe side.
    """

    __slots__ = ("_moved", "_spent")

    def __init__(self) -> None:
        # (from, to) -> total moved; (actor, actor) is what was granted to it.
        self._moved: dict[Route, int] = {}
        self._spent: dict[ActorId, int] = {}

    @classmethod
    def _of(cls, moved: dict[Route, int], spent: dict[ActorId, int]) -> Self:
        made: Self = _new(cls)
        made._moved = moved
        made._spent = spent
        return made

    def grant(self, amount: int = 1, *, by: ActorId) -> Self:
        """Return the delta that makes new rights, held by their maker. O(1).

        Args:
            amount: how many; 1 or more.
            by: the writer, which must be the only one to use this id.

        Raises:
            InvalidTypeError: the amount is no int, or the actor no bytes.
            InvalidValueError: the amount is under 1, or the actor is not 16 bytes.
            LimitError: the total would be over 63 bits.
        """
        check_amount(amount)
        check_actor(by)
        return self._of({(by, by): self._raised(self._moved.get((by, by), 0), amount)}, {})

    def spend(self, amount: int = 1, *, by: ActorId) -> Self:
        """Return the delta that uses up rights; arguments and errors as `grant`. O(actors).

        Raises:
            InsufficientRights: more than the actor holds.
        """
        self._check_held(amount, by)
        return self._of({}, {by: self._raised(self._spent.get(by, 0), amount)})

    def transfer(self, amount: int = 1, *, by: ActorId, to: ActorId) -> Self:
        """Return the delta that gives rights to another actor; as `spend`. O(actors).

        Raises:
            InsufficientRights: more than the giver holds.
            InvalidValueError: giver and receiver are the same.
        """
        check_actor(to)
        if by == to:
            raise InvalidValueError("rights are transferred to another actor")
        self._check_held(amount, by)
        return self._of({(by, to): self._raised(self._moved.get((by, to), 0), amount)}, {})

    def _check_held(self, amount: int, by: ActorId) -> None:
        check_amount(amount)
        check_actor(by)
        held = self.rights(by)
        if amount > held:
            raise InsufficientRights(wanted=amount, held=held)

    @staticmethod
    def _raised(total: int, amount: int) -> int:
        if total + amount > COUNT_MAX:
            raise LimitError("a total of rights", size=total + amount, limit=COUNT_MAX)
        return total + amount

    def rights(self, actor: ActorId) -> int:
        """Return what an actor holds, as far as is known here. O(routes).

        For the actor itself that is never more than it really holds. Of others, a part that has
        not arrived can make it less, but never less than 0.
        """
        held = -self._spent.get(actor, 0)
        for (giver, receiver), total in self._moved.items():
            if receiver == actor:
                held += total
            elif giver == actor:
                held -= total
        return max(0, held)

    @property
    def granted(self) -> int:
        """All rights ever made. O(routes)."""
        return sum(total for (giver, receiver), total in self._moved.items() if giver == receiver)

    @property
    def spent(self) -> int:
        """All rights used up. O(actors)."""
        return sum(self._spent.values())

    @property
    def value(self) -> int:
        """All rights that are left; 0 while spending arrived and its grant has not."""
        return max(0, self.granted - self.spent)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._of(_join(self._moved, other._moved), _join(self._spent, other._spent))

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _is_under(self._moved, other._moved) and _is_under(self._spent, other._spent)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundedCounter):
            return NotImplemented
        return self._moved == other._moved and self._spent == other._spent

    def __hash__(self) -> int:
        return hash((frozenset(self._moved.items()), frozenset(self._spent.items())))

    def is_bottom(self) -> bool:
        """Tell whether no right was ever made or used."""
        return not self._moved and not self._spent

    def decompose(self) -> Iterator[Self]:
        """Yield one state for each grant, route and actor that spent."""
        for route, total in sorted(self._moved.items()):
            yield self._of({route: total}, {})
        for actor, total in sorted(self._spent.items()):
            yield self._of({}, {actor: total})

    def digest(self) -> int:
        """Hash the state to 64 bits. O(routes)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the rows `(from, to, total)` and `(actor, spent)`, sorted."""
        moved = tuple((*route, total) for route, total in sorted(self._moved.items()))
        return (moved, tuple(sorted(self._spent.items())))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a counter that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: more than `ACTORS_MAX` rows of a kind.
        """
        moved_rows, spent_rows = read_rows(wire, "a bounded counter", count=2)
        moved: dict[Route, int] = {}
        for row in _bounded_rows(moved_rows):
            giver, receiver, total = read_rows(row, "a route", count=3)
            route = (read_actor(giver), read_actor(receiver))
            moved[route] = read_integer(total, "a total", minimum=1)
        spent: dict[ActorId, int] = {}
        for row in _bounded_rows(spent_rows):
            actor, total = read_rows(row, "a row of what was spent", count=2)
            spent[read_actor(actor)] = read_integer(total, "a total", minimum=1)
        for read, rows in ((list(moved), moved_rows), (list(spent), spent_rows)):
            is_sorted = len(read) == len(rows) and read == sorted(read)
            require(is_sorted, "the rows of a bounded counter must be sorted, each once")
        return cls._of(moved, spent)

    def __repr__(self) -> str:
        return f"BoundedCounter({self.value} of {self.granted})"


def _bounded_rows(wire: Any) -> Any:
    rows = read_rows(wire, "rows of a bounded counter")
    if len(rows) > ACTORS_MAX:
        raise LimitExceeded("rows of a bounded counter", size=len(rows), limit=ACTORS_MAX)
    return rows


register("bounded_counter", BoundedCounter)
