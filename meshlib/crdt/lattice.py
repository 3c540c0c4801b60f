"""What every type of this package is: a join-semilattice whose deltas are ordinary states.

The protocols are structural: a type written elsewhere needs these methods and no base class.
Rules that hold for every type here and that the law kit checks for others:

- the class called without arguments is its bottom;
- `|` changes neither side and is commutative, associative and idempotent;
- `a <= b` exactly when `a | b == b`; it is a partial order, never one for `sorted` or `max`;
- mutators are pure and return a delta, which is a small state of the same class;
- frozen types are hashable; containers change in place by `absorb` and are not.

Source: Almeida, Shoker, Baquero, "Delta state replicated data types", JPDC 2018; Enes, Almeida,
Baquero, Leitão, "Efficient synchronization of state-based CRDTs", ICDE 2019 (decompositions).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, cast, runtime_checkable

from meshlib.clock import Stamp
from meshlib.identity import ActorId

if TYPE_CHECKING:
    from meshlib.crdt.causal.context import CausalContext

__all__ = [
    "NOBODY",
    "Causal",
    "Container",
    "Lattice",
    "Numbered",
    "Paged",
    "Restampable",
    "Stamped",
    "absorb",
    "difference",
    "join_all",
]

NOBODY: Final = b""
"""The writer of a stamp that is kept without one."""


@runtime_checkable
class Lattice(Protocol):
    """A state that can be joined with any other state of its class."""

    def __or__(self, other: Self, /) -> Self:
        """Return the join of both and change neither."""
        ...

    def __le__(self, other: Self, /) -> bool:
        """Tell whether the other state holds everything this one does."""
        ...

    def is_bottom(self) -> bool:
        """Tell whether this state holds nothing."""
        ...

    def decompose(self) -> Iterator[Self]:
        """Yield join-irreducible states whose join this is, none of which can be left out."""
        ...

    def digest(self) -> int:
        """Return 64 bits that are equal for equal states."""
        ...

    def to_wire(self) -> Any:
        """Return the canonical tree of this state, ready for `codec.pack`."""
        ...

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a state from a tree that a peer sent.

        Raises:
            DecodeError: the tree is not what `to_wire` of this class makes.
            LimitExceeded: it holds more than a limit allows.
        """
        ...


@runtime_checkable
class Container(Lattice, Protocol):
    """A state that is large enough to be joined in place. Not hashable."""

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new.

        What comes back may be `delta` itself when all of it was new.
        """
        ...

    def copy(self) -> Self:
        """Return an independent copy."""
        ...


@runtime_checkable
class Paged(Protocol):
    """A state that can be compared and sent in parts."""

    def bucket_digests(self) -> tuple[int, ...]:
        """Return one digest for each bucket, what was removed included; a fixed number."""
        ...

    def part(self, buckets: Collection[int]) -> Self:
        """Return the state of these buckets. The join of all parts is the state."""
        ...


@runtime_checkable
class Stamped(Protocol):
    """A state with hybrid-clock stamps inside."""

    def latest_stamp(self) -> Stamp | None:
        """Return the latest stamp inside, None without one."""
        ...


@runtime_checkable
class Restampable(Protocol):
    """A state whose writes may be put under other stamps while nobody else has them.

    States that tell writes apart by dots are none: a dot never gets a second content.
    """

    def restamp(self, change: Callable[[Stamp], Stamp]) -> Self:
        """Put every write under the stamp that `change` returns; return the state. O(size).

        A container is changed in place, a register is returned anew.

        Args:
            change: takes a stamp, returns the one to use instead; must keep their order. What
                keeps a time without its writer comes as a stamp of `NOBODY`.
        """
        ...


@runtime_checkable
class Numbered(Protocol):
    """A state whose entries carry the number of the write that made them."""

    def absorb_transfer(self, part: Self, *, covers: Callable[[ActorId, int], bool]) -> Self:
        """Join a part of a peer's whole state, without what the receiver knows to be dead."""
        ...

    def collect(self, is_stable: Callable[[Any], bool]) -> int:
        """Drop the tombstones that `is_stable` tells, and return how many."""
        ...


@runtime_checkable
class Causal(Protocol):
    """A state with an exact causal context."""

    @property
    def context(self) -> CausalContext:
        """The dots that this state has seen. Read it and do not change it."""
        ...


LatticeT = TypeVar("LatticeT", bound=Lattice)


def absorb(state: LatticeT, delta: LatticeT) -> tuple[LatticeT, LatticeT]:
    """Join a delta into a state; return the joined state and the part that was new.

    Containers are changed in place and come back themselves; frozen states come back joined.
    The new part is the join of the delta's irreducible parts that the state did not hold:
    forwarding only it is what keeps gossip from repeating itself.
    """
    # The attribute and not the protocol: checking that is a quarter of a small absorption.
    absorb_in_place = getattr(state, "absorb", None)
    if absorb_in_place is not None:
        return state, absorb_in_place(delta)
    new = difference(delta, state)
    return (state if new.is_bottom() else state | new), new


def difference(state: LatticeT, other: LatticeT) -> LatticeT:
    """Return the least state whose join with `other` is the join of both. O(size of state)."""
    missing = [part for part in state.decompose() if not part <= other]
    if not missing:
        return type(state)()
    return join_all(missing)


def join_all(states: Iterable[LatticeT]) -> LatticeT:
    """Join one or more states, and change none of them.

    Raises:
        ValueError: no states: their class, and so their bottom, would be unknown.
    """
    iterator = iter(states)
    try:
        joined: Any = next(iterator)
    except StopIteration:
        raise ValueError("nothing to join") from None
    is_own = False
    for state in iterator:
        if is_own and hasattr(joined, "absorb"):
            joined.absorb(state)
        else:
            joined = joined | state
            is_own = True
    return cast(LatticeT, joined)
