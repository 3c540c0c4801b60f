"""What a user says about a type, so that its laws can be checked.

A `CRDTSpec` names everything the kit may do with a type: where it starts, what can be done to
it, what it then shows, what it ought to show, and how it joins, orders, encodes and decomposes.
The kit reaches a state through its spec and in no other way, so a type needs no base class, a
foreign one can be checked by naming its methods, and a broken variant is a spec with one field
replaced (`meshlib.testing.mutants.variants`).

Source: the shape follows the PropEr suite of antidote_crdt (an oracle over the visible
operations) and lasp's `prop_join_decompositions`.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import Factory, field, frozen

from meshlib.clock import Stamp
from meshlib.codec import pack, unpack
from meshlib.crdt import Dot
from meshlib.errors import LocalError, RemoteError
from meshlib.identity import ActorId

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["CRDTSpec", "Codec", "Event", "Operation", "OperationContext"]

S = TypeVar("S")


@frozen(eq=False, slots=True, kw_only=True)
class Event:
    """One operation that was performed: what an oracle reads.

    Args:
        index: its place in the history, from 0.
        operation: the name it has in `CRDTSpec.operations`.
        arguments: what it was called with, by name.
        actor: the writer.
        sequence: the number of this write of that writer, from 1.
        stamp: the stamp that the write could use.
        dots: the dots it used, in order; empty for most types.
        seen: the events that were visible to the writer before it, by index.
        delta: what it returned. An oracle that reads this checks nothing.
        seen_indices: the indices of `seen`.
    """

    index: int
    operation: str
    arguments: Mapping[str, Any]
    actor: ActorId
    sequence: int
    stamp: Stamp
    dots: tuple[Dot, ...]
    seen: tuple[Event, ...] = field(repr=False)
    delta: Any = field(repr=False)
    seen_indices: frozenset[int] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        """Return one argument by its name."""
        return self.arguments[name]

    def saw(self, other: Event) -> bool:
        """Tell whether `other` was visible to the writer of this event. O(1)."""
        return other.index in self.seen_indices


class OperationContext:
    """What a write may use of its replica: the writer's name, its dots and its clock.

    Args:
        actor: the writer of this incarnation.
        sequence: the number of this write, from 1.
        stamp: later than every stamp this replica has used or seen.
        next_dot: the first number of the writer that no dot has used.
    """

    __slots__ = (
        "_actor",
        "_stamp",
        "dots",
        "is_actor_used",
        "is_stamp_used",
        "next_dot",
        "sequence",
    )

    def __init__(self, *, actor: ActorId, sequence: int, stamp: Stamp, next_dot: int) -> None:
        self.sequence = sequence
        self.next_dot = next_dot
        self.dots: list[Dot] = []
        self.is_actor_used = False
        self.is_stamp_used = False
        self._actor = actor
        self._stamp = stamp

    @property
    def actor(self) -> ActorId:
        """The writer of this incarnation."""
        self.is_actor_used = True
        return self._actor

    def dot(self) -> Dot:
        """Return a dot that nobody has used and nobody will use again."""
        dot = Dot(self._actor, self.next_dot)
        self.next_dot += 1
        self.dots.append(dot)
        return dot

    def stamp(self) -> Stamp:
        """Return the stamp of this write. Writers that have not met often share its time."""
        self.is_stamp_used = True
        return self._stamp


@frozen(slots=True, kw_only=True)
class Operation(Generic[S]):
    """One thing that can be done to a type.

    Args:
        apply: `apply(state, context, **arguments)` returns the delta and leaves `state` alone.
            It may raise one of the spec's `refusals`, and then nothing has happened.
        arguments: a hypothesis strategy for each argument, by name. Few distinct values find
            more than many: two writers must often meet on one element.
        ensures: the local post-condition, `ensures(before, after, **arguments)` over the states
            before and after; false where the operation did not do what it is called.
        full: for a type that also has an operation which returns the whole new state:
            `full(state, context, **arguments)`, which must equal `state` joined with the delta.
    """

    apply: Callable[..., S]
    arguments: Mapping[str, SearchStrategy[Any]] = Factory(dict)
    ensures: Callable[..., bool] | None = None
    full: Callable[..., S] | None = None


@frozen(slots=True, kw_only=True)
class Codec(Generic[S]):
    """How a state becomes bytes and comes back.

    Args:
        encode: returns the canonical bytes of a state.
        decode: returns the state of these bytes, or raises one of `errors`.
        errors: what `decode` may raise on bytes that are not a state.
        is_strict: `decode` takes only bytes that `encode` would have made. Rarely so: msgpack
            and JSON both have several ways to write one number.
    """

    encode: Callable[[S], bytes]
    decode: Callable[[bytes], S]
    errors: tuple[type[Exception], ...] = (RemoteError,)
    is_strict: bool = False


def _carries_nothing(_later: Event, _earlier: Event) -> bool:
    return False


def _codec_of_wire_tree(spec: CRDTSpec[S]) -> Codec[S] | None:
    kind: Any = type(spec.bottom())
    if not (hasattr(kind, "to_wire") and hasattr(kind, "from_wire")):
        return None
    return Codec(
        encode=lambda state: pack(kind.to_wire(state)),
        decode=lambda data: kind.from_wire(unpack(data)),
    )


def _own_method(spec: CRDTSpec[S], name: str) -> Any:
    """Return the type's own method of that name, or None where it has none."""
    return getattr(type(spec.bottom()), name, None)


def _own_absorb(spec: CRDTSpec[S]) -> Callable[[S, S], tuple[S, S]] | None:
    if getattr(type(spec.bottom()), "absorb", None) is None:
        return None

    def absorb_in_place(state: Any, delta: S) -> tuple[Any, Any]:
        return state, state.absorb(delta)

    return absorb_in_place


def _below(low: Any, high: Any) -> bool:
    return bool(low <= high)


@frozen(slots=True, kw_only=True)
class CRDTSpec(Generic[S]):
    """Everything the kit needs to know about a type, and the type's definition for a reader.

    Only the first four are needed. The rest has defaults that fit the `Lattice` protocol of
    `meshlib.crdt`: `|`, `<=`, `==`, and, where the type has them, `is_bottom`, `decompose`,
    `absorb`, `digest`, `copy`, `to_wire` and `from_wire`. None in place of one means that the
    type has none, and the laws about it are left out.

    Args:
        name: what messages call the type.
        bottom: makes a state nobody has written to.
        operations: what can be done, by name.
        value: what a reader sees of a state; compared by `==`.
        oracle: what a reader ought to see, `oracle(events)` over the visible operations in the
            order of their index. It is the definition of the type, so write it as plainly as
            possible and from the events alone.
        carries: `carries(later, earlier)` is true if the delta of `later` brings `earlier`, which
            its writer had seen, along: a counter's delta is a total. Default: never.
        codec: default: canonical bytes of `to_wire` and `from_wire`.
        join: the lattice join; changes neither argument.
        order: the lattice order.
        equal: equality of states.
        is_bottom: tells whether a state is the bottom.
        decompose: yields irredundant join-irreducible parts.
        absorb: `absorb(state, delta)` returns the joined state, which may be `state` itself
            changed, and the part that was new.
        digest: a number, equal for equal states.
        digested: what two states must differ in for their digests to differ; default: `value`.
        copy: returns an independent copy.
        pinned: the names of arguments that are one value throughout a small world. Concurrency
            on one element is where most types break.
        refusals: what `apply` may raise to say that the operation does not fit the state.
        is_distributive: whether a part below `a | b` is below one of them. True of every type
            made of maxima, sets, maps and dots.
        is_reincarnated: whether a restarted replica writes under a new actor, as a node does.
            False is the mistake that every type with dots or totals answers with lost data.
        faults: broken variants of this type in particular, by name: a function from this spec
            to the broken one. `mutants` adds those that fit every type.
        harmless: the names of general mutants that are no bug for this type, with the reason.
        reference: `module:NAME` or `path.py:NAME`, where another process finds this spec;
            looked up among the loaded modules by default.
    """

    name: str
    bottom: Callable[[], S]
    operations: Mapping[str, Operation[S]]
    value: Callable[[S], object]
    oracle: Callable[[Sequence[Event]], object] | None = None
    carries: Callable[[Event, Event], bool] = _carries_nothing
    codec: Codec[S] | None = Factory(_codec_of_wire_tree, takes_self=True)
    join: Callable[[S, S], S] = operator.or_
    order: Callable[[S, S], bool] = _below
    equal: Callable[[S, S], bool] = operator.eq
    is_bottom: Callable[[S], bool] | None = Factory(
        lambda spec: _own_method(spec, "is_bottom"), takes_self=True
    )
    decompose: Callable[[S], Iterable[S]] | None = Factory(
        lambda spec: _own_method(spec, "decompose"), takes_self=True
    )
    absorb: Callable[[S, S], tuple[S, S]] | None = Factory(_own_absorb, takes_self=True)
    digest: Callable[[S], int] | None = Factory(
        lambda spec: _own_method(spec, "digest"), takes_self=True
    )
    digested: Callable[[S], object] = Factory(lambda spec: spec.value, takes_self=True)
    copy: Callable[[S], S] = Factory(
        lambda spec: _own_method(spec, "copy") or copy.deepcopy, takes_self=True
    )
    pinned: tuple[str, ...] = ("element", "key", "tenant")
    refusals: tuple[type[Exception], ...] = (LocalError,)
    is_distributive: bool = True
    is_reincarnated: bool = True
    faults: Mapping[str, Callable[[CRDTSpec[S]], CRDTSpec[S]]] = Factory(dict)
    harmless: Mapping[str, str] = Factory(dict)
    reference: str | None = None

    def fold(self, states: Iterable[S]) -> S:
        """Join states one after the other, from the bottom. O(their joins)."""
        joined = self.bottom()
        for state in states:
            joined = self.join(joined, state)
        return joined
