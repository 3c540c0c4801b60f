"""Sets of keys.

Elements are what `codec.check_key` allows: text, bytes, integers and tuples of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

from meshlib.codec import check_key
from meshlib.crdt.causal import CausalContext, Dot
from meshlib.crdt.dotted import DottedState
from meshlib.crdt.registry import register
from meshlib.crdt.wire import canonical_order, read_key
from meshlib.errors import UnknownKeyError

__all__ = ["ORSet"]

E = TypeVar("E")

Dots = Dot | frozenset[Dot]
"""The dots that hold one element: nearly always one, which then stands alone."""


def _each(dots: Dots) -> Iterable[Dot]:
    return (dots,) if isinstance(dots, Dot) else dots


class ORSet(DottedState, Generic[E]):
    """An observed-remove set in which an addition wins over a concurrent removal.

    Each addition hangs on a dot of its own; a removal names the dots it has seen, so it leaves
    no tombstone and cannot remove what it has not seen.
    Source: Bieniusa et al., "An optimized conflict-free replicated set", 2012.
    """

    __slots__ = ("_entries", "_owners")

    def __init__(self) -> None:
        # _context is None for the commonest delta: one element on the only dot ever seen.
        # _owners (dot -> element) is made when the first dot has to be looked up.
        self._context: CausalContext | None = CausalContext()  # type: ignore[assignment]
        self._entries: dict[E, Dots] = {}
        self._owners: dict[Dot, E] | None = None

    @property
    def context(self) -> CausalContext:
        """The dots that this state has seen. Read it and do not change it."""
        context = self._context
        if context is None:
            [(dot, _)] = self._leaves()
            context = self._context = CausalContext.of_dot(dot)
        return context

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
        self._fresh_dot(dot)
        delta: Self = _new(self.__class__)
        delta._entries = {element: dot}
        delta._owners = None
        delta._context = None
        held = self._entries.get(element)
        if held is not None:
            context = delta.context
            for earlier in _each(held):
                context.add(earlier)
        return delta

    def remove(self, element: E) -> Self:
        """Return the delta that removes an element as far as it was seen here. O(1).

        Raises:
            UnknownKeyError: the element is not in the set.
        """
        held = self._entries.get(element)
        if held is None:
            raise UnknownKeyError("element", element)
        return self._superseding(_each(held))

    def discard(self, element: E) -> Self:
        """Return the delta that removes an element, the bottom when it is not there. O(1)."""
        held = self._entries.get(element)
        return self._superseding(() if held is None else _each(held))

    def clear(self) -> Self:
        """Return the delta that removes every element seen here. O(n)."""
        return self._superseding(dot for dot, _ in self._leaves())

    def __contains__(self, element: object) -> bool:
        return element in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        """Yield the elements in canonical order. O(n log n)."""
        return iter(canonical_order(self._entries))

    @property
    def value(self) -> frozenset[E]:
        """The elements. O(n)."""
        return frozenset(self._entries)

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new.

        O(delta) for a delta that is small against the state, else O(both).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        self._require_same(delta)
        if delta._context is not None:
            return super().absorb(delta)
        [(dot, element)] = delta._leaves()
        context = self.context
        if dot in context:
            return type(self)()
        context.add(dot)
        self._insert(dot, element)
        return delta

    def _leaves(self) -> Iterator[tuple[Dot, E]]:
        for element, dots in self._entries.items():
            for dot in _each(dots):
                yield dot, element

    def _live_count(self) -> int:
        return len(self._entries)

    def _index(self) -> dict[Dot, E]:
        if self._owners is None:
            self._owners = dict(self._leaves())
        return self._owners

    def _leaf_at(self, dot: Dot) -> tuple[E] | None:
        index = self._index()
        return (index[dot],) if dot in index else None

    def _is_live(self, dot: Dot, leaf: E) -> bool:
        held = self._entries.get(leaf)
        return held is not None and dot in _each(held)

    def _insert(self, dot: Dot, leaf: E) -> None:
        held = self._entries.get(leaf)
        self._entries[leaf] = dot if held is None else frozenset((*_each(held), dot))
        if self._owners is not None:
            self._owners[dot] = leaf

    def _discard(self, dot: Dot, leaf: E) -> None:
        remaining = [other for other in _each(self._entries[leaf]) if other != dot]
        if not remaining:
            del self._entries[leaf]
        else:
            self._entries[leaf] = remaining[0] if len(remaining) == 1 else frozenset(remaining)
        if self._owners is not None:
            del self._owners[dot]

    def _copy_leaves_to(self, other: Self) -> None:
        other._entries = self._entries.copy()

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> Any:
        return read_key(wire)

    def __repr__(self) -> str:
        return f"ORSet({{{', '.join(map(repr, self))}}})"


_new = object.__new__

register("or_set", ORSet)
