"""The join that every causal type shares.

A causal state is a set of live dots, each with a leaf (an element, a value, a place in a map),
and the context of all dots seen. For one dot there are three states in a chain: unseen, live,
dead (seen and not live); the join takes the later for each dot. All of the lattice follows from
that, whatever the leaves are, so it is written once, here.

Rule: a dot has one leaf in all states, for ever. That holds as long as no dot is used twice.
Source: dot stores of Almeida, Shoker, Baquero, "Delta state replicated data types", section 7;
kept flat here, with the path through nested maps in the leaf, so nesting needs no second join.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from operator import sub
from typing import Any, Self

from meshlib.crdt.causal.context import CausalContext, Dot, DotLike, check_dot
from meshlib.crdt.wire import cannot_join, wire_digest
from meshlib.errors import DecodeError, InvalidValueError
from meshlib.identity import ActorId
from meshlib.reading import are_integers, read_actor, read_rows, require

__all__ = ["DottedState", "LeafRow", "PlainDottedState"]

LeafRow = tuple[ActorId, Sequence[int], Sequence[Any]]
"""Live dots of one actor: their rising sequences, and the leaf of each."""

_INDEX_PAYS = 8
"""Walking a context pays when it has this many times fewer dots than the state has live ones."""


class DottedState(ABC):
    """Base of the causal types: containers whose leaves hang on dots.

    Subclasses keep the leaves as they like and provide the few methods that are abstract here.
    """

    __slots__ = ("_context",)

    def __init__(self) -> None:
        # None where the live dots imply it; see `_implied_context`.
        self._context: CausalContext | None = CausalContext()

    # What a subclass provides.

    @abstractmethod
    def _leaves(self) -> Iterable[tuple[DotLike, Any]]:
        """Return the live dots with their leaves."""

    @abstractmethod
    def _live_count(self) -> int:
        """Return about how many dots are live. O(1)."""

    @abstractmethod
    def _leaf_at(self, dot: DotLike) -> tuple[Any] | None:
        """Return the leaf of a dot in a tuple of one, None when it is not live. O(1)."""

    @abstractmethod
    def _is_live(self, dot: DotLike, leaf: Any) -> bool:
        """Tell whether a dot, whose leaf can only be this one, is live. O(1)."""

    @abstractmethod
    def _insert(self, dot: DotLike, leaf: Any) -> None:
        """Make a dot live that is not."""

    @abstractmethod
    def _discard(self, dot: DotLike, leaf: Any) -> None:
        """Make a dot not live that is."""

    @abstractmethod
    def _copy_leaves_to(self, other: Any) -> None:
        """Give another state, which has none, the leaves of this one."""

    # What a subclass with many leaves does better in bulk.

    def _live_by_actor(self) -> Mapping[ActorId, Mapping[int, Any]]:
        """Return the sequences and leaves of the live dots, by actor."""
        live: defaultdict[ActorId, dict[int, Any]] = defaultdict(dict)
        for (actor, sequence), leaf in self._leaves():
            live[actor][sequence] = leaf
        return live

    def _insert_all(self, actor: ActorId, sequences: Sequence[int], leaves: Sequence[Any]) -> None:
        """Make dots of one actor live that are not."""
        for sequence, leaf in zip(sequences, leaves, strict=True):
            self._insert(Dot(actor, sequence), leaf)

    def _take_rows(self, rows: Sequence[LeafRow]) -> None:
        """Make the dots of these rows live in a state that has none."""
        for row in rows:
            self._insert_all(*row)

    @classmethod
    def _leaves_to_wire(cls, leaves: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(map(cls._leaf_to_wire, leaves))

    @classmethod
    def _leaves_from_wire(cls, wires: Sequence[Any]) -> Sequence[Any]:
        return [cls._leaf_from_wire(wire) for wire in wires]

    @classmethod
    def _leaf_to_wire(cls, leaf: Any) -> Any:
        return leaf

    @classmethod
    @abstractmethod
    def _leaf_from_wire(cls, wire: Any) -> Any:
        """Read a leaf strictly."""

    # What all of them share.

    @property
    def context(self) -> CausalContext:
        """The dots that this state has seen. Read it and do not change it."""
        context = self._context
        if context is None:
            context = self._context = self._implied_context()
        return context

    def _implied_context(self) -> CausalContext:
        """Return the context of a state that was made without one."""
        return CausalContext(dot for dot, _ in self._leaves())

    def _fresh_dot(self, dot: Dot) -> None:
        """Check the dot of a write: well formed, and not used before as far as is known here."""
        check_dot(dot)
        if dot in self.context:
            raise InvalidValueError(f"{dot} was used before; dots are never used twice")

    def _superseding(self, dots: Iterable[DotLike]) -> Self:
        """Return the delta that kills these dots and adds nothing."""
        delta = type(self)()
        for dot in dots:
            delta.context.add(dot)
        return delta

    def _leaves_within(self, context: CausalContext) -> Iterator[tuple[DotLike, Any]]:
        """Yield the live dots that a context has seen: O(the smaller of the two)."""
        if len(context) * _INDEX_PAYS < self._live_count():
            for seen in context:
                found = self._leaf_at(seen)
                if found is not None:
                    yield seen, found[0]
        else:
            for dot, leaf in self._leaves():
                if dot in context:
                    yield dot, leaf

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new.

        O(delta) for a delta that is small against the state, else O(both).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise cannot_join(self, delta)
        return self._absorb(delta)

    def _absorb(self, delta: Any) -> Self:
        """Absorb a state of this very class."""
        mine, theirs = self.context, delta.context
        new = type(self)()
        for dot, leaf in delta._leaves():
            if dot not in mine:
                new._insert(dot, leaf)
        killed = [
            (dot, leaf)
            for dot, leaf in self._leaves_within(theirs)
            if not delta._is_live(dot, leaf)
        ]
        new._context = theirs.minus(mine)
        mine.update(theirs)
        for dot, leaf in killed:
            self._discard(dot, leaf)
            new.context.add(dot)
        for dot, leaf in new._leaves():
            self._insert(dot, leaf)
        return new

    def __or__(self, other: Self, /) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        joined = self.copy()
        joined.absorb(other)
        return joined

    def __le__(self, other: Self, /) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.context <= other.context and all(
            self._is_live(dot, leaf) for dot, leaf in other._leaves_within(self.context)
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (
            self._live_count() == other._live_count()
            and self.context == other.context
            # Both ways: the count is of elements where several dots hold one.
            and all(self._is_live(dot, leaf) for dot, leaf in other._leaves())
            and all(other._is_live(dot, leaf) for dot, leaf in self._leaves())
        )

    def is_bottom(self) -> bool:
        """Tell whether no dot was seen. O(1)."""
        return self.context.is_bottom()

    def decompose(self) -> Iterator[Self]:
        """Yield one state for each dot seen: live with its leaf, or dead. O(dots seen)."""
        for dot in self.context:
            part = type(self)()
            part._context = CausalContext.of_dot(dot)
            found = self._leaf_at(dot)
            if found is not None:
                part._insert(dot, found[0])
            yield part

    def copy(self) -> Self:
        """Return an independent copy. O(size)."""
        other = type(self)()
        other._context = self.context.copy()
        self._copy_leaves_to(other)
        return other

    def digest(self) -> int:
        """Hash the state, its context included, to 64 bits. O(size)."""
        return wire_digest(self.to_wire())

    def to_wire(self) -> Any:
        """Return one row for each actor: itself, its ranges, its live dots and their leaves.

        Live dots stand in rising order, each as the difference to the one before: mostly one
        byte. O(n log n).
        """
        live = self._live_by_actor()
        context = self.context
        rows = []
        for actor in context.actors():
            leaf_at = live.get(actor, {})
            sequences = sorted(leaf_at)
            steps = tuple(map(sub, sequences, chain((0,), sequences)))
            leaves = self._leaves_to_wire(map(leaf_at.__getitem__, sequences))
            rows.append((actor, context.ranges_to_wire(actor), steps, leaves))
        return tuple(rows)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a state that a peer sent.

        Raises:
            DecodeError: malformed, or not canonical.
            LimitExceeded: over a limit.
        """
        context = CausalContext()
        previous = b""
        rows: list[LeafRow] = []
        for row in read_rows(wire, "a causal state"):
            actor_wire, ranges, steps, leaves = read_rows(row, "an actor's row", count=4)
            actor = read_actor(actor_wire)
            if actor <= previous:
                raise DecodeError("the actors of a state must be sorted, each once")
            previous = actor
            context.ranges_from_wire(actor, ranges)
            sequences = _read_steps(steps)
            leaves = cls._leaves_from_wire(read_rows(leaves, "leaves", count=len(sequences)))
            if sequences and sequences[-1] > context.vector.get(actor, 0):
                for sequence in sequences:
                    require(Dot(actor, sequence) in context, "a live dot that was not seen")
            rows.append((actor, sequences, leaves))
        context.check_limits()
        state = cls()
        state._context = context
        state._take_rows(rows)
        return state

    def _check(self) -> None:
        """Assert every invariant."""
        self.context._check()
        for dot, leaf in self._leaves():
            assert dot in self.context, (dot, self)
            assert self._leaf_at(dot) == (leaf,), (dot, self)
            assert self._is_live(dot, leaf), (dot, self)


class PlainDottedState(DottedState):
    """Base of the causal types that are small: a dict of the live dots is enough for them."""

    __slots__ = ("_live",)

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[DotLike, Any] = {}

    def _writing(self, dot: Dot, leaf: Any) -> Self:
        """Return the delta that puts a leaf in the place of every leaf seen here."""
        self._fresh_dot(dot)
        delta = self._superseding((dot, *self._live))
        delta._live[dot] = leaf
        return delta

    def _leaves(self) -> Iterable[tuple[DotLike, Any]]:
        return self._live.items()

    def _live_count(self) -> int:
        return len(self._live)

    def _leaf_at(self, dot: DotLike) -> tuple[Any] | None:
        return (self._live[dot],) if dot in self._live else None

    def _is_live(self, dot: DotLike, leaf: Any) -> bool:  # noqa: ARG002 - the dot alone decides
        return dot in self._live

    def _insert(self, dot: DotLike, leaf: Any) -> None:
        self._live[dot] = leaf

    def _discard(self, dot: DotLike, leaf: Any) -> None:  # noqa: ARG002 - the dot alone decides
        del self._live[dot]

    def _copy_leaves_to(self, other: Any) -> None:
        other._live = self._live.copy()


def _read_steps(wire: Any) -> Sequence[int]:
    """Read the differences of rising sequences, and return the sequences."""
    steps = read_rows(wire, "live dots")
    if not steps:
        return ()
    if are_integers(steps):
        if steps.count(1) == len(steps):
            return range(1, len(steps) + 1)  # nothing was removed, which is told in one go
        if min(steps) > 0:
            return list(accumulate(steps))
    raise DecodeError("the steps between live dots must be integers over 0")
