"""Dots, and exact causal contexts.

Rule: a context is never compacted to a maximum. It is a version vector, and above each actor's
contiguous part the ranges that arrived ahead of a gap; a context that forgets its gaps deletes
what it has not seen.
Source: Almeida, Shoker, Baquero, "Delta state replicated data types", JPDC 2018, section 7.2.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from meshlib.crdt.wire import check_actor, wire_digest
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX, CLOUD_DOTS_MAX
from meshlib.reading import COUNT_MAX, read_actor, read_integer, read_rows, require

__all__ = ["CausalContext", "Dot", "check_dot"]


class Dot(NamedTuple):
    """One event: the `sequence`-th of its actor, counted from 1. Never used twice."""

    actor: ActorId
    sequence: int


DotLike = tuple[ActorId, int]
"""A dot, or the plain tuple that equals it: cheaper to make, and of no work to the collector."""


def check_dot(dot: Any) -> None:
    """Check that something is a dot.

    Raises:
        InvalidTypeError: not a `Dot`.
        InvalidValueError: a sequence under 1 or over 63 bits, or an actor that is not 16 bytes.
    """
    if type(dot) is not Dot:
        raise InvalidTypeError(f"a dot is a Dot, not {type(dot).__name__}")
    check_actor(dot.actor)
    if type(dot.sequence) is not int or not 1 <= dot.sequence <= COUNT_MAX:
        raise InvalidValueError(f"a dot's sequence is 1 to {COUNT_MAX:,}, not {dot.sequence!r}")


def _insert(bounds: list[int], low: int, high: int) -> None:
    """Join the half-open range `low..high` into sorted bounds `[low, high, low, high, ...]`.

    A position with an odd index is an end, so the parity of where a number would go tells
    whether it is inside; touching ranges become one.
    """
    left = bisect_left(bounds, low)
    right = bisect_right(bounds, high)
    inserted = []
    if not left & 1:
        inserted.append(low)
    if not right & 1:
        inserted.append(high)
    bounds[left:right] = inserted


def _subtract(bounds: list[int], other: list[int]) -> list[int]:
    """Return the half-open ranges of `bounds` that `other` does not cover. O(both)."""
    remaining: list[int] = []
    position = 0
    for index in range(0, len(bounds), 2):
        low, high = bounds[index], bounds[index + 1]
        while position < len(other) and other[position + 1] <= low:
            position += 2
        scan = position
        while low < high and scan < len(other) and other[scan] < high:
            if other[scan] > low:
                remaining += (low, other[scan])
            low = max(low, other[scan + 1])
            scan += 2
        if low < high:
            remaining += (low, high)
    return remaining


class CausalContext:
    """The set of dots that a state has seen, exactly. A mutable container; a lattice itself.

    A state without gaps costs one integer for each actor; each gap costs two more.
    """

    __slots__ = ("_cloud", "_vector")

    def __init__(self, dots: Iterable[DotLike] = ()) -> None:
        # _vector: actor -> n, all of 1..n are seen; n >= 1.
        # _cloud: actor -> half-open bounds of further ranges, each above a gap.
        self._vector: dict[ActorId, int] = {}
        self._cloud: dict[ActorId, list[int]] = {}
        for dot in dots:
            self.add(dot)

    @classmethod
    def of_dot(cls, dot: DotLike) -> Self:
        """Return the context of one dot: that of most deltas. O(1)."""
        context = cls.__new__(cls)
        actor, sequence = dot
        if sequence == 1:
            context._vector = {actor: 1}
            context._cloud = {}
        else:
            context._vector = {}
            context._cloud = {actor: [sequence, sequence + 1]}
        return context

    @property
    def vector(self) -> Mapping[ActorId, int]:
        """Actor -> highest sequence without a gap below it; a read-only view."""
        return MappingProxyType(self._vector)

    @property
    def gap_count(self) -> int:
        """How many ranges stand above a gap. O(actors with gaps)."""
        return sum(len(bounds) for bounds in self._cloud.values()) // 2

    def __contains__(self, dot: DotLike) -> bool:
        actor, sequence = dot
        if sequence <= self._vector.get(actor, 0):
            return True
        bounds = self._cloud.get(actor)
        return bounds is not None and bool(bisect_right(bounds, sequence) & 1)

    def contains(self, dot: DotLike) -> bool:
        """Tell whether a dot was seen. O(log gaps)."""
        return dot in self

    def next_dot(self, actor: ActorId) -> Dot:
        """Return the dot after every dot of an actor that was seen. O(1).

        Only the actor itself may ask for its own: a dot that two writers use breaks every type.
        """
        bounds = self._cloud.get(actor)
        if bounds is not None:
            return Dot(actor, bounds[-1])
        return Dot(actor, self._vector.get(actor, 0) + 1)

    def add(self, dot: DotLike) -> bool:
        """Note one dot as seen, and tell whether it is new.

        O(1) in order, O(gaps) ahead of a gap.
        """
        actor, sequence = dot
        top = self._vector.get(actor, 0)
        if sequence <= top:
            return False
        bounds = self._cloud.get(actor)
        if bounds is None:
            if sequence == top + 1:
                self._vector[actor] = sequence
            else:
                self._cloud[actor] = [sequence, sequence + 1]
            return True
        position = bisect_right(bounds, sequence)
        if position & 1:
            return False
        joins_left = position > 0 and bounds[position - 1] == sequence
        joins_right = position < len(bounds) and bounds[position] == sequence + 1
        if joins_left and joins_right:
            del bounds[position - 1 : position + 1]
        elif joins_left:
            bounds[position - 1] = sequence + 1
        elif joins_right:
            bounds[position] = sequence
        else:
            bounds[position:position] = (sequence, sequence + 1)
        if bounds[0] == top + 1:
            self._close_gap(actor, bounds)
        return True

    def _close_gap(self, actor: ActorId, bounds: list[int]) -> None:
        """Move the first range of an actor, which no gap divides any more, to the vector."""
        self._vector[actor] = bounds[1] - 1
        del bounds[:2]
        if not bounds:
            del self._cloud[actor]

    def add_range(self, actor: ActorId, first: int, last: int) -> None:
        """Note the dots `first..last`, both included, as seen."""
        top = self._vector.get(actor, 0)
        if last <= top:
            return
        bounds = self._cloud.get(actor)
        if bounds is None:
            if first <= top + 1:
                self._vector[actor] = last
            else:
                self._cloud[actor] = [first, last + 1]
            return
        _insert(bounds, max(first, top + 1), last + 1)
        if bounds[0] == top + 1:
            self._close_gap(actor, bounds)

    def update(self, other: CausalContext) -> None:
        """Join another context into this one. O(other)."""
        vector = self._vector
        for actor, top in other._vector.items():
            if top > vector.get(actor, 0):
                if actor in self._cloud:
                    self.add_range(actor, 1, top)
                else:
                    vector[actor] = top
        for actor, bounds in other._cloud.items():
            for index in range(0, len(bounds), 2):
                self.add_range(actor, bounds[index], bounds[index + 1] - 1)

    def absorb(self, delta: Self, /) -> Self:
        """Join a context in place, and return the dots that were new. O(delta)."""
        new = delta.minus(self)
        self.update(new)
        return new

    def minus(self, other: CausalContext) -> Self:
        """Return the dots of this context that the other has not seen. O(ranges of both)."""
        rest = type(self)()
        for actor in (*self._vector, *(a for a in self._cloud if a not in self._vector)):
            bounds = _subtract(self._bounds(actor), other._bounds(actor))
            for index in range(0, len(bounds), 2):
                rest.add_range(actor, bounds[index], bounds[index + 1] - 1)
        return rest

    def _bounds(self, actor: ActorId) -> list[int]:
        """Return all of an actor's ranges, half-open, as one list."""
        bounds = self._cloud.get(actor, [])
        top = self._vector.get(actor, 0)
        return [1, top + 1, *bounds] if top else bounds

    def __len__(self) -> int:
        """Return the number of dots. O(actors + gaps)."""
        in_cloud = sum(sum(bounds[1::2]) - sum(bounds[::2]) for bounds in self._cloud.values())
        return sum(self._vector.values()) + in_cloud

    def __iter__(self) -> Iterator[Dot]:
        """Yield every dot, by actor and sequence. O(dots): far more than the context's size."""
        for actor in sorted({*self._vector, *self._cloud}):
            bounds = self._bounds(actor)
            for index in range(0, len(bounds), 2):
                for sequence in range(bounds[index], bounds[index + 1]):
                    yield Dot(actor, sequence)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalContext):
            return NotImplemented
        return self._vector == other._vector and self._cloud == other._cloud

    def __or__(self, other: Self, /) -> Self:
        joined = self.copy()
        joined.update(other)
        return joined

    def __le__(self, other: Self, /) -> bool:
        theirs = other._vector
        for actor, top in self._vector.items():
            if top > theirs.get(actor, 0):
                return False
        return not self._cloud or self.minus(other).is_bottom()

    def is_bottom(self) -> bool:
        """Tell whether no dot was seen."""
        return not self._vector and not self._cloud

    def decompose(self) -> Iterator[Self]:
        """Yield one context for each dot. O(dots)."""
        for dot in self:
            yield self.of_dot(dot)

    def digest(self) -> int:
        """Hash the context to 64 bits. O(actors + gaps)."""
        return wire_digest(self.to_wire())

    def copy(self) -> Self:
        """Return an independent copy. O(actors + gaps)."""
        context = type(self).__new__(type(self))
        context._vector = self._vector.copy()
        context._cloud = {actor: bounds.copy() for actor, bounds in self._cloud.items()}
        return context

    def actors(self) -> list[ActorId]:
        """Return the actors with a dot, sorted."""
        if not self._cloud:
            return sorted(self._vector)
        return sorted({*self._vector, *self._cloud})

    def ranges_to_wire(self, actor: ActorId) -> tuple[int, ...]:
        """Return an actor's row: the contiguous part, then each gap and the length after it."""
        row = [self._vector.get(actor, 0)]
        end = row[0] + 1
        bounds = self._cloud.get(actor, [])
        for index in range(0, len(bounds), 2):
            row += (bounds[index] - end, bounds[index + 1] - bounds[index])
            end = bounds[index + 1]
        return tuple(row)

    def ranges_from_wire(self, actor: ActorId, wire: Any) -> None:
        """Read an actor's row into this context, which has no dots of that actor yet."""
        row = read_rows(wire, "an actor's ranges")
        require(len(row) % 2 == 1, "an actor's ranges must come in pairs behind the first")
        for number in row:
            read_integer(number, "a range of an actor")
        top = row[0]
        require(top > 0 or len(row) > 1, "an actor without a dot")
        require(0 not in row[1:], "an empty range or gap")
        if top:
            self._vector[actor] = top
        if len(row) > 1:
            bounds: list[int] = []
            end = top + 1
            for index in range(1, len(row), 2):
                bounds += (end + row[index], end + row[index] + row[index + 1])
                end = bounds[-1]
            require(end <= COUNT_MAX + 1, "a range over 63 bits")
            self._cloud[actor] = bounds

    def check_limits(self) -> None:
        """Check a decoded context against the limits.

        Raises:
            LimitExceeded: more than `ACTORS_MAX` actors or `CLOUD_DOTS_MAX` ranges above a gap.
        """
        actor_count = len(self._vector.keys() | self._cloud.keys())
        if actor_count > ACTORS_MAX:
            raise LimitExceeded("actors of a context", size=actor_count, limit=ACTORS_MAX)
        if self.gap_count > CLOUD_DOTS_MAX:
            raise LimitExceeded("gaps of a context", size=self.gap_count, limit=CLOUD_DOTS_MAX)

    def to_wire(self) -> Any:
        """Return one row for each actor, sorted: the actor and its ranges."""
        return tuple((actor, self.ranges_to_wire(actor)) for actor in self.actors())

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a context that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        context = cls()
        previous = b""
        for row in read_rows(wire, "a context"):
            actor_wire, ranges = read_rows(row, "an actor's row", count=2)
            actor = read_actor(actor_wire)
            if actor <= previous:
                raise DecodeError("the actors of a context must be sorted, each once")
            context.ranges_from_wire(actor, ranges)
            previous = actor
        context.check_limits()
        return context

    def __repr__(self) -> str:
        rows = ", ".join(f"{a.hex()[-6:]}: {self._bounds(a)}" for a in self.actors())
        return f"CausalContext({{{rows}}})"

    def _check(self) -> None:
        """Assert every invariant."""
        for actor, top in self._vector.items():
            assert top >= 1, self
            assert len(actor) == 16, self
        for actor, bounds in self._cloud.items():
            assert bounds, self
            assert len(bounds) % 2 == 0, self
            assert bounds[0] > self._vector.get(actor, 0) + 1, self
            assert all(a < b for a, b in itertools.pairwise(bounds)), self
