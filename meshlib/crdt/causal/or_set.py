"""Sets of keys.

Elements are what `codec.check_key` allows: text, bytes, integers and tuples of these.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, Generic, Self, TypeVar

from meshlib.codec import canonical_order, check_key
from meshlib.crdt.causal.context import CausalContext, Dot, DotLike
from meshlib.crdt.causal.dotted import DottedState, LeafRow
from meshlib.crdt.registry import register
from meshlib.errors import InvalidValueError, UnknownKeyError
from meshlib.identity import ActorId
from meshlib.reading import (
    COUNT_MAX,
    are_integers,
    are_rows,
    is_row,
    read_actor,
    read_key,
    read_key_batch,
)

__all__ = ["ORSet"]

E = TypeVar("E")

_new = object.__new__

SMALL_DELTA: Final = 8
"""A delta is looked up dot by dot when the set has this many times more elements."""

ROWS_PAY: Final = 64
"""A state read from bytes with this many live dots stays in rows until it is asked."""

Dots = DotLike | frozenset[DotLike]
"""The dots that hold one element: nearly always one, which then stands alone."""


def _each(dots: Dots) -> Iterable[DotLike]:
    return dots if isinstance(dots, frozenset) else (dots,)


def _dot_count(rows: Sequence[LeafRow]) -> int:
    return sum(len(sequences) for _, sequences, _ in rows)


def _within(context: CausalContext, row: LeafRow) -> Iterator[LeafRow]:
    """Yield the parts of a row that a context has seen. O(ranges log row + their dots)."""
    actor, sequences, leaves = row
    bounds = context._bounds(actor)
    for low, high in zip(bounds[::2], bounds[1::2], strict=True):
        start, stop = bisect_left(sequences, low), bisect_left(sequences, high)
        if start < stop:
            yield actor, sequences[start:stop], leaves[start:stop]


class ORSet(DottedState, Generic[E]):
    """An observed-remove set in which an addition wins over a concurrent removal.

    Each addition hangs on a dot of its own; a removal names the dots it has seen, so it leaves
    no tombstone and cannot remove what it has not seen.
    Source: Bieniusa et al., "An optimized conflict-free replicated set", 2012.
    """

    __slots__ = ("_entries", "_owners", "_rows")

    def __init__(self) -> None:
        super().__init__()
        # _context is None for the commonest delta: one element on the only dot ever seen.
        # _owners (dot -> element) is made when the first dot has to be looked up.
        # _rows is how a large state came from bytes; while it is there, _entries is not, and
        # `_opened` makes it. Most of what is read is joined and never asked.
        self._entries: dict[E, Dots] = {}
        self._owners: dict[DotLike, E] | None = None
        self._rows: Sequence[LeafRow] | None = None

    def _opened(self) -> dict[E, Dots]:
        """Return `_entries`, made of the rows first where there are some."""
        if self._rows is not None:
            rows, self._rows = self._rows, None
            self._entries = {}
            for row in rows:
                self._insert_all(*row)
        return self._entries

    def add(self, element: E, *, dot: Dot) -> Self:
        """Return the delta that adds an element, and takes the place of its earlier additions.

        O(1).

        Args:
            element: a key.
            dot: a new dot of the writer.

        Raises:
            InvalidTypeError: the element cannot be a key.
            InvalidValueError: the element cannot be a key, or the dot was used before.
            LimitError: the element is over 1 KiB.
        """
        check_key(element)
        # A dot right after those of a known actor needs no other check: the common case.
        context = self.context if self._context is None else self._context
        top = context._vector.get(dot[0])
        if top is None or dot[1] != top + 1 or context._cloud or type(dot) is not Dot:
            self._fresh_dot(dot)
        delta: Self = _new(self.__class__)
        delta._entries = {element: dot}
        delta._owners = delta._rows = None
        delta._context = None
        held = (self._entries if self._rows is None else self._opened()).get(element)
        if held is not None:
            for earlier in _each(held):
                delta.context.add(earlier)
        return delta

    def add_all(self, elements: Iterable[E], *, first: Dot) -> Self:
        """Return the delta that adds many elements at once. O(elements).

        For loading a set: one delta with one range of dots is far less work than one for each
        element, here and at every peer.

        Args:
            elements: keys; one that comes twice is added once.
            first: a new dot of the writer; the following ones are used too, one for each
                different element, and must be as new.

        Raises:
            InvalidTypeError: an element cannot be a key.
            InvalidValueError: an element cannot be a key, or one of the dots was used before.
            LimitError: an element is over 1 KiB.
        """
        different = list(dict.fromkeys(elements))
        for element in different:
            check_key(element)
        delta = type(self)()
        if not different:
            return delta
        self._fresh_dot(first)
        actor, low = first
        high = low + len(different)
        added = CausalContext()
        added.add_range(actor, low, high - 1)
        if high > COUNT_MAX or len(added.minus(self.context)) != len(different):
            raise InvalidValueError(f"{len(different)} dots from {first} are not all new")
        delta._context = added
        delta._entries = dict(zip(different, zip(repeat(actor), range(low, high)), strict=False))
        mine = self._opened()
        for element in mine.keys() & delta._entries.keys():
            for earlier in _each(mine[element]):
                added.add(earlier)
        return delta

    def remove(self, element: E) -> Self:
        """Return the delta that removes an element as far as it was seen here. O(1).

        Raises:
            UnknownKeyError: the element is not in the set.
        """
        held = self._opened().get(element)
        if held is None:
            raise UnknownKeyError("element", element)
        return self._superseding(_each(held))

    def discard(self, element: E) -> Self:
        """Return the delta that removes an element, the bottom when it is not there. O(1)."""
        held = self._opened().get(element)
        return self._superseding(() if held is None else _each(held))

    def discard_all(self, elements: Iterable[E]) -> Self:
        """Return the delta that removes many elements, those that are there. O(elements)."""
        opened = self._opened()
        held = (opened.get(element) for element in dict.fromkeys(elements))
        return self._superseding(dot for dots in held if dots is not None for dot in _each(dots))

    def additions(self) -> Iterator[tuple[DotLike, E]]:
        """Yield each addition that is in force, its dot and its element, in no order. O(n).

        For who follows a set by its deltas: a removal names dots, and only who has seen their
        additions knows of what.
        """
        return self._leaves()

    def clear(self) -> Self:
        """Return the delta that removes every element seen here. O(n)."""
        return self._superseding(dot for dot, _ in self._leaves())

    def __contains__(self, element: object) -> bool:
        return element in self._opened()

    def __len__(self) -> int:
        return len(self._opened())

    def __iter__(self) -> Iterator[E]:
        """Yield the elements in canonical order. O(n log n)."""
        return iter(canonical_order(self._opened()))

    @property
    def value(self) -> frozenset[E]:
        """The elements. O(n)."""
        return frozenset(self._opened())

    def _absorb(self, delta: Any) -> Self:
        if delta._context is not None:
            if delta._rows is not None:
                new = self._absorb_rows(delta, delta._rows)
                if new is not None:
                    return new
            if len(delta.context) * SMALL_DELTA < len(self._opened()):
                return super()._absorb(delta)
            return self._absorb_large(delta)
        [(element, dot)] = delta._entries.items()
        context = self.context if self._context is None else self._context
        if not context.add(dot):
            return type(self)()
        entries = self._entries if self._rows is None else self._opened()
        if element in entries:
            self._insert(dot, element)
        else:
            entries[element] = dot
            if self._owners is not None:
                self._owners[dot] = element
        added: Self = delta
        return added

    def _absorb_rows(self, delta: Any, rows: Sequence[LeafRow]) -> Self | None:
        """Absorb a state that is still in rows, unless it removes something. O(its new dots).

        When every dot that both have seen is live there, nothing is removed here, and what is
        unseen here is all there is to take: no element needs to be looked up. None otherwise,
        with nothing changed.
        """
        context, other = self.context, delta.context
        unseen = other.minus(context)
        fresh = [row for each in rows for row in _within(unseen, each)]
        seen_count = len(other) - len(unseen)
        if seen_count != _dot_count(rows) - _dot_count(fresh):
            return None
        new = type(self)()
        new._context = unseen
        new._take_rows(fresh)
        context.update(unseen)
        for row in fresh:
            self._insert_all(*row)
        return new

    def _absorb_large(self, delta: Any) -> Self:
        """Absorb a state by walking both, without an index of dots. O(both)."""
        mine, theirs = self._opened(), delta._opened()
        context, other = self.context, delta.context
        unseen = other.minus(context)
        get = mine.get
        different = {e: dots for e, dots in theirs.items() if get(e) != dots}
        new = type(self)()
        new._context = unseen
        # When as many entries are the same as there are dots that both have seen, each of these
        # dots is live on both sides: nothing was removed, and every other dot here is unseen.
        if len(other) - len(unseen) == len(theirs) - len(different):
            killed = []
            fresh = different
        else:
            killed = self._killed_by(delta, different)
            fresh = self._unseen_entries(different)
        new._entries = fresh
        context.update(other)
        for dot, element in killed:
            self._discard(dot, element)
            unseen.add(dot)
        if self._owners is None and mine.keys().isdisjoint(fresh):
            mine.update(fresh)
        else:
            for dot, element in new._leaves():
                self._insert(dot, element)
        return new

    def _unseen_entries(self, entries: dict[E, Dots]) -> dict[E, Dots]:
        """Return what of some entries hangs on dots that this set has not seen."""
        context = self.context
        top, has_gaps = context.vector.get, context.gap_count > 0
        unseen: dict[E, Dots] = {}
        for element, dots in entries.items():
            if isinstance(dots, frozenset):
                new = [dot for dot in dots if dot not in context]
                if new:
                    unseen[element] = new[0] if len(new) == 1 else frozenset(new)
            elif dots[1] > top(dots[0], 0) and not (has_gaps and dots in context):
                unseen[element] = dots
        return unseen

    def _killed_by(self, delta: Any, different: dict[E, Dots]) -> list[tuple[DotLike, E]]:
        """Return the live dots here that a state has seen and does not have."""
        mine, theirs, context = self._entries, delta._entries, delta.context
        gone = [(e, dots) for e, dots in mine.items() if e not in theirs]
        gone += [(e, mine[e]) for e in different if e in mine]
        return [
            (dot, element)
            for element, dots in gone
            for dot in _each(dots)
            if dot in context and not delta._is_live(dot, element)
        ]

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a set that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        if is_row(wire, 1):
            state = cls._read_addition(wire[0])
            if state is not None:
                return state
        return super().from_wire(wire)

    @classmethod
    def _read_addition(cls, row: Any) -> Self | None:
        """Read the row of a set that is one addition and nothing else; None for another row."""
        if not is_row(row, 4):
            return None
        actor, ranges, steps, leaves = row
        if not are_rows((ranges, steps, leaves)):
            return None
        if len(ranges) != 3 or not len(steps) == len(leaves) == 1:
            return None
        first, gap, length = ranges
        (sequence,) = steps
        # By type as well: 1.0 and True equal 1, and are not what is written.
        if not are_integers((first, gap, length, sequence)):
            return None
        if first or length != 1 or gap != sequence - 1 or not 1 < sequence <= COUNT_MAX:
            return None
        state: Self = _new(cls)
        element: Any = read_key(leaves[0])
        state._entries = {element: (read_actor(actor), sequence)}
        state._owners = state._rows = None
        state._context = None
        return state

    def _take_rows(self, rows: Sequence[LeafRow]) -> None:
        if _dot_count(rows) < ROWS_PAY:
            super()._take_rows(rows)
        else:
            self._rows = rows
            del self._entries

    def to_wire(self) -> Any:
        """Return one row for each actor: itself, its ranges, its live dots and their elements.

        O(n log n).
        """
        if self._context is not None:
            return super().to_wire()
        [((actor, sequence), element)] = self._leaves()
        ranges = (0, sequence - 1, 1) if sequence > 1 else (1,)
        return ((actor, ranges, (sequence,), (element,)),)

    def _leaves(self) -> Iterator[tuple[DotLike, E]]:
        if self._rows is not None:
            for actor, sequences, leaves in self._rows:
                yield from zip(zip(repeat(actor), sequences), leaves, strict=False)
            return
        for element, dots in self._entries.items():
            for dot in _each(dots):
                yield dot, element

    def _live_count(self) -> int:
        return len(self._opened())

    def _index(self) -> dict[DotLike, E]:
        if self._owners is None:
            self._owners = dict(self._leaves())
        return self._owners

    def _leaf_at(self, dot: DotLike) -> tuple[E] | None:
        index = self._index()
        return (index[dot],) if dot in index else None

    def _is_live(self, dot: DotLike, leaf: E) -> bool:
        held = self._opened().get(leaf)
        return held is not None and dot in _each(held)

    def _insert(self, dot: DotLike, leaf: E) -> None:
        entries = self._opened()
        held = entries.get(leaf)
        entries[leaf] = dot if held is None else frozenset((*_each(held), dot))
        if self._owners is not None:
            self._owners[dot] = leaf

    def _discard(self, dot: DotLike, leaf: E) -> None:
        remaining = [other for other in _each(self._opened()[leaf]) if other != dot]
        if not remaining:
            del self._entries[leaf]
        else:
            self._entries[leaf] = remaining[0] if len(remaining) == 1 else frozenset(remaining)
        if self._owners is not None:
            del self._owners[dot]

    def _copy_leaves_to(self, other: Any) -> None:
        other._entries = self._opened().copy()

    def _live_by_actor(self) -> Mapping[ActorId, Mapping[int, E]]:
        live: defaultdict[ActorId, dict[int, E]] = defaultdict(dict)
        if self._rows is not None:
            for actor, sequences, leaves in self._rows:
                live[actor].update(zip(sequences, leaves, strict=True))
            return live
        for element, dots in self._entries.items():
            if isinstance(dots, frozenset):
                for actor, sequence in dots:
                    live[actor][sequence] = element
            else:
                actor, sequence = dots
                live[actor][sequence] = element
        return live

    def _insert_all(self, actor: ActorId, sequences: Sequence[int], leaves: Sequence[E]) -> None:
        entries = self._opened()
        row: dict[E, DotLike] = dict(zip(leaves, zip(repeat(actor), sequences), strict=True))
        if len(row) == len(leaves) and entries.keys().isdisjoint(row):
            entries.update(row)
            if self._owners is not None:
                self._owners.update((dot, element) for element, dot in row.items())
        else:
            super()._insert_all(actor, sequences, leaves)

    @classmethod
    def _leaves_to_wire(cls, leaves: Iterable[E]) -> tuple[Any, ...]:
        return tuple(leaves)

    @classmethod
    def _leaves_from_wire(cls, wires: Sequence[Any]) -> Sequence[Any]:
        return read_key_batch(wires)

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> Any:
        return read_key(wire)

    def _check(self) -> None:
        """Assert every invariant."""
        if self._rows is not None:
            assert _dot_count(self._rows) >= ROWS_PAY, self
        super()._check()
        assert self._owners is None or self._owners == dict(self._leaves()), self

    def __repr__(self) -> str:
        return f"ORSet({{{', '.join(map(repr, self))}}})"


register("or_set", ORSet)
