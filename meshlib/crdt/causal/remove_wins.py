"""`RemoveWinsSet`: a removal wins over a concurrent addition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar, cast

from meshlib.codec import canonical_order, check_key
from meshlib.crdt.causal.context import Dot, DotLike
from meshlib.crdt.causal.dotted import DottedState
from meshlib.crdt.registry import register
from meshlib.errors import UnknownKeyError
from meshlib.reading import read_bool, read_key, read_rows

__all__ = ["RemoveWinsSet"]

E = TypeVar("E")

Leaf = tuple[Any, bool]
"""An element, and whether the dot added it."""


class RemoveWinsSet(DottedState, Generic[E]):
    """A set in which a removal wins over a concurrent addition. A container.

    Each write of an element, addition or removal, leaves a dot in place of those it has seen;
    an element is in the set when every dot it has is an addition. So a removed element keeps
    one dot until it is added again: use `ORSet` unless a removal must win.
    Source: Almeida, Shoker, Baquero, "Delta state replicated data types", 2018 (RWSet).
    """

    __slots__ = ("_live", "_tokens")

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[DotLike, Leaf] = {}
        # Element -> its live dots, each with whether it added.
        self._tokens: dict[E, dict[DotLike, bool]] = {}

    def add(self, element: E, *, dot: Dot) -> Self:
        """Return the delta that adds an element. O(concurrent writers).

        It takes the place of the removals seen here, so the element returns.

        Args:
            element: a key.
            dot: a new dot of the writer.

        Raises:
            InvalidTypeError: the element cannot be a key, or no dot.
            InvalidValueError: the element cannot be a key, or the dot was used before.
            LimitError: the element is over 1 KiB.
        """
        return self._write(element, dot, is_added=True)

    def remove(self, element: E, *, dot: Dot) -> Self:
        """Return the delta that removes an element; arguments and errors as `add`.

        Raises:
            UnknownKeyError: the element is not in the set.
        """
        if element not in self:
            raise UnknownKeyError("element", element)
        return self._write(element, dot, is_added=False)

    def discard(self, element: E, *, dot: Dot) -> Self:
        """Return the delta that removes an element, there or not; as `remove`.

        Also an element that is not there is removed: concurrent additions of it lose.
        """
        return self._write(element, dot, is_added=False)

    def _write(self, element: E, dot: Dot, *, is_added: bool) -> Self:
        check_key(element)
        self._fresh_dot(dot)
        delta = self._superseding((dot, *self._tokens.get(element, ())))
        delta._insert(dot, (element, is_added))
        return delta

    def __contains__(self, element: object) -> bool:
        tokens = self._tokens.get(cast(E, element))
        return tokens is not None and all(tokens.values())

    def __len__(self) -> int:
        """Return the number of elements. O(n, removed ones included)."""
        return sum(all(tokens.values()) for tokens in self._tokens.values())

    def __iter__(self) -> Iterator[E]:
        """Yield the elements in canonical order. O(n log n)."""
        return iter(canonical_order(self.value))

    @property
    def value(self) -> frozenset[E]:
        """The elements. O(n, removed ones included)."""
        return frozenset(
            element for element, tokens in self._tokens.items() if all(tokens.values())
        )

    def _leaves(self) -> Iterable[tuple[DotLike, Leaf]]:
        return self._live.items()

    def _live_count(self) -> int:
        return len(self._live)

    def _leaf_at(self, dot: DotLike) -> tuple[Leaf] | None:
        return (self._live[dot],) if dot in self._live else None

    def _is_live(self, dot: DotLike, leaf: Leaf) -> bool:  # noqa: ARG002 - the dot alone decides
        return dot in self._live

    def _insert(self, dot: DotLike, leaf: Leaf) -> None:
        self._live[dot] = leaf
        self._tokens.setdefault(leaf[0], {})[dot] = leaf[1]

    def _discard(self, dot: DotLike, leaf: Leaf) -> None:
        del self._live[dot]
        tokens = self._tokens[leaf[0]]
        del tokens[dot]
        if not tokens:
            del self._tokens[leaf[0]]

    def _copy_leaves_to(self, other: Any) -> None:
        other._live = self._live.copy()
        other._tokens = {element: tokens.copy() for element, tokens in self._tokens.items()}

    @classmethod
    def _leaf_from_wire(cls, wire: Any) -> Leaf:
        element, is_added = read_rows(wire, "a leaf of a remove-wins set", count=2)
        return (read_key(element), read_bool(is_added, "whether an element was added"))

    def __repr__(self) -> str:
        return f"RemoveWinsSet({{{', '.join(map(repr, self))}}})"


register("remove_wins_set", RemoveWinsSet)
