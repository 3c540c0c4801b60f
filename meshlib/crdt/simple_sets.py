"""Sets that need no dots: elements that only come, or that come once and go once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Self, TypeVar

from meshlib.codec import canonical_order, check_key
from meshlib.crdt.registry import register
from meshlib.crdt.wire import cannot_join, wire_digest
from meshlib.errors import StateError, UnknownKeyError
from meshlib.reading import read_key_set, read_rows, require

__all__ = ["GSet", "TwoPhaseSet"]

E = TypeVar("E")


class GSet(Generic[E]):
    """A set that only grows. A container."""

    __slots__ = ("_elements",)

    def __init__(self) -> None:
        self._elements: set[E] = set()

    @classmethod
    def _of(cls, elements: set[E]) -> Self:
        made = cls()
        made._elements = elements
        return made

    def add(self, element: E) -> Self:
        """Return the delta that adds an element. O(1).

        Raises:
            InvalidTypeError: the element cannot be a key.
            InvalidValueError: the element cannot be a key.
            LimitError: the element is over 1 KiB.
        """
        check_key(element)
        return self._of({element})

    def __contains__(self, element: object) -> bool:
        return element in self._elements

    def __len__(self) -> int:
        return len(self._elements)

    def __iter__(self) -> Iterator[E]:
        """Yield the elements in canonical order. O(n log n)."""
        return iter(canonical_order(self._elements))

    @property
    def value(self) -> frozenset[E]:
        """The elements. O(n)."""
        return frozenset(self._elements)

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new. O(delta).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise cannot_join(self, delta)
        new = delta._elements - self._elements
        self._elements |= new
        return self._of(new)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._of(self._elements | other._elements)

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._elements <= other._elements

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GSet):
            return NotImplemented
        return self._elements == other._elements

    def is_bottom(self) -> bool:
        """Tell whether the set is empty."""
        return not self._elements

    def decompose(self) -> Iterator[Self]:
        """Yield one set for each element."""
        for element in self:
            yield self._of({element})

    def copy(self) -> Self:
        """Return an independent copy. O(n)."""
        return self._of(self._elements.copy())

    def digest(self) -> int:
        """Hash the state to 64 bits. O(n log n)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the elements in canonical order. O(n log n)."""
        return tuple(self)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a set that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
        """
        elements: Any = read_key_set(wire, "the elements of a set")
        return cls._of(elements)

    def __repr__(self) -> str:
        return f"GSet({{{', '.join(map(repr, self))}}})"


class TwoPhaseSet(Generic[E]):
    """A set whose elements come once and go once: a removed one never returns. A container.

    Each element goes from unseen to added to removed, so there is nothing to decide between
    concurrent writes. Removed elements are kept for ever.
    Source: Shapiro et al., INRIA RR-7506, 2011, specification 12.
    """

    __slots__ = ("_added", "_removed")

    def __init__(self) -> None:
        # Disjoint: an element that was removed is no longer among the added.
        self._added: set[E] = set()
        self._removed: set[E] = set()

    @classmethod
    def _of(cls, added: set[E], removed: set[E]) -> Self:
        made = cls()
        made._added = added
        made._removed = removed
        return made

    def add(self, element: E) -> Self:
        """Return the delta that adds an element. O(1).

        Raises:
            StateError: the element was removed and cannot return.
            InvalidTypeError: the element cannot be a key.
            InvalidValueError: the element cannot be a key.
            LimitError: the element is over 1 KiB.
        """
        check_key(element)
        if element in self._removed:
            raise StateError(f"{element!r} was removed and cannot return")
        return self._of({element}, set())

    def remove(self, element: E) -> Self:
        """Return the delta that removes an element for ever. O(1).

        Raises:
            UnknownKeyError: the element is not in the set.
        """
        if element not in self._added:
            raise UnknownKeyError("element", element)
        return self._of(set(), {element})

    def discard(self, element: E) -> Self:
        """Return the delta that removes an element, the bottom when it is not there. O(1)."""
        return self._of(set(), {element} & self._added)

    def __contains__(self, element: object) -> bool:
        return element in self._added

    def __len__(self) -> int:
        return len(self._added)

    def __iter__(self) -> Iterator[E]:
        """Yield the elements in canonical order. O(n log n)."""
        return iter(canonical_order(self._added))

    @property
    def value(self) -> frozenset[E]:
        """The elements. O(n)."""
        return frozenset(self._added)

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new. O(delta).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise cannot_join(self, delta)
        removed = delta._removed - self._removed
        added = delta._added - self._added - self._removed
        self._removed |= removed
        self._added |= added
        self._added -= removed
        return self._of(added, removed)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        removed = self._removed | other._removed
        return self._of((self._added | other._added) - removed, removed)

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._removed <= other._removed and all(
            element in other._added or element in other._removed for element in self._added
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TwoPhaseSet):
            return NotImplemented
        return self._added == other._added and self._removed == other._removed

    def is_bottom(self) -> bool:
        """Tell whether no element was ever added."""
        return not self._added and not self._removed

    def decompose(self) -> Iterator[Self]:
        """Yield one state for each element, added or removed."""
        for element in self:
            yield self._of({element}, set())
        for element in canonical_order(self._removed):
            yield self._of(set(), {element})

    def copy(self) -> Self:
        """Return an independent copy. O(n)."""
        return self._of(self._added.copy(), self._removed.copy())

    def digest(self) -> int:
        """Hash the state to 64 bits. O(n log n)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return the elements, then the removed ones, each in canonical order. O(n log n)."""
        return (tuple(self), tuple(canonical_order(self._removed)))

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a set that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
        """
        added_wire, removed_wire = read_rows(wire, "a two-phase set", count=2)
        added: Any = read_key_set(added_wire, "the elements of a set")
        removed: Any = read_key_set(removed_wire, "the removed elements of a set")
        require(added.isdisjoint(removed), "an element both added and removed")
        return cls._of(added, removed)

    def __repr__(self) -> str:
        return f"TwoPhaseSet({{{', '.join(map(repr, self))}}}, removed={len(self._removed)})"

    def _check(self) -> None:
        """Assert every invariant."""
        assert self._added.isdisjoint(self._removed), self


register("g_set", GSet)
register("two_phase_set", TwoPhaseSet)
