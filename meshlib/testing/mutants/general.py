"""The bugs that many types can have, as changes of a spec.

Each is a function from a working spec to a broken one; its docstring is the bug in a sentence.
What is needed to write more of them, for one type in particular, is in
`meshlib.testing.mutants.changes`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import define, evolve, frozen

from meshlib.clock import Stamp
from meshlib.crdt import Dot
from meshlib.identity import actor_id
from meshlib.testing.laws.spec import Codec, CRDTSpec, OperationContext
from meshlib.testing.mutants.changes import with_context, with_deltas, with_join, with_operations

__all__ = ["GENERAL", "Fault", "Features"]

S = TypeVar("S")

ONE_NAME: Final = actor_id("everyone", 1)
DECODED_MAX: Final = 64


@define(slots=True, kw_only=True)
class Features:
    """What a type has that can be broken, as seen in a few histories.

    Args:
        uses_actor: an operation read the writer's name.
        uses_dots: an operation took a dot.
        uses_stamps: an operation read its stamp.
        has_parts: some state has several parts.
        has_concurrent: of some two states neither is below the other.
        is_container: absorbing changes the state in place.
    """

    uses_actor: bool = False
    uses_dots: bool = False
    uses_stamps: bool = False
    has_parts: bool = False
    has_concurrent: bool = False
    is_container: bool = False


@frozen(slots=True, kw_only=True)
class Fault:
    """A bug that many types can have.

    Args:
        name: in a few words.
        breaks: returns the broken spec; its docstring is the bug in a sentence.
        applies: whether the type has what it breaks.
    """

    name: str
    breaks: Callable[[CRDTSpec[Any]], CRDTSpec[Any]]
    applies: Callable[[CRDTSpec[Any], Features], bool]


_faults: list[Fault] = []

Breaks = Callable[[CRDTSpec[Any]], CRDTSpec[Any]]


def _fault(
    name: str, *, applies: Callable[[CRDTSpec[Any], Features], bool] = lambda _spec, _has: True
) -> Callable[[Breaks], Breaks]:
    def note(breaks: Breaks) -> Breaks:
        _faults.append(Fault(name=name, breaks=breaks, applies=applies))
        return breaks

    return note


# ---- join -------------------------------------------------------------------------------------


@_fault("join keeps the left")
def _join_keeps_the_left(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The state that was there first stays."""
    bottom = spec.bottom()
    return with_join(spec, lambda a, b: b if spec.equal(a, bottom) else a)


@_fault("join has no tie-break", applies=lambda _spec, has: has.has_concurrent)
def _join_has_no_tie_break(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Of two concurrent states, each side keeps its own."""
    return with_join(spec, lambda a, b: b if spec.order(a, b) else a)


@_fault(
    "join keeps the larger", applies=lambda spec, has: has.has_concurrent and spec.codec is not None
)
def _join_keeps_the_larger(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Of two concurrent states one wins whole, and what the other holds is lost."""
    assert spec.codec is not None
    encode = spec.codec.encode

    def join(a: S, b: S) -> S:
        if spec.order(a, b) or spec.order(b, a):
            return spec.join(a, b)
        return max(a, b, key=encode)

    return with_join(spec, join)


@_fault("join forgets a part", applies=lambda _spec, has: has.has_concurrent and has.has_parts)
def _join_forgets_a_part(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Joining two concurrent states drops one part of the result."""
    assert spec.decompose is not None
    decompose = spec.decompose

    def join(a: S, b: S) -> S:
        joined = spec.join(a, b)
        if spec.order(a, b) or spec.order(b, a):
            return joined
        return spec.fold(list(decompose(joined))[:-1])

    return with_join(spec, join)


@_fault("join keeps what both have", applies=lambda spec, _has: spec.decompose is not None)
def _join_keeps_what_both_have(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The greatest lower bound is taken for the least upper bound."""
    assert spec.decompose is not None
    decompose, bottom = spec.decompose, spec.bottom()

    def join(a: S, b: S) -> S:
        if spec.equal(a, bottom) or spec.equal(b, bottom):
            return spec.join(a, b)
        return spec.fold(part for part in decompose(a) if spec.order(part, b))

    return with_join(spec, join)


@_fault("join changes its left side", applies=lambda _spec, has: has.is_container)
def _join_changes_its_left_side(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The join is made in place, under the hands of whoever holds the left state."""
    absorb = spec.absorb
    assert absorb is not None
    return evolve(spec, join=lambda a, b: absorb(a, b)[0])


# ---- what operations return -------------------------------------------------------------------


@_fault("delta from an empty state")
def _delta_from_an_empty_state(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """A delta ignores the state: an increment for a total, a removal without its dots."""

    def changed(apply: Callable[..., S]) -> Callable[..., S]:
        def broken(_state: S, context: OperationContext, **arguments: Any) -> S:
            try:
                return apply(spec.bottom(), context, **arguments)
            except spec.refusals:
                return spec.bottom()

        return broken

    return with_operations(spec, changed)


@_fault("delta is lost")
def _delta_is_lost(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Operations return nothing to replicate."""
    return with_deltas(spec, lambda _state, _context, _delta: spec.bottom())


@_fault("operation changes its state", applies=lambda _spec, has: has.is_container)
def _operation_changes_its_state(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """A mutator that should be pure changes the state it is called on."""
    absorb = spec.absorb
    assert absorb is not None

    def change(state: S, _context: OperationContext, delta: S) -> S:
        absorb(state, delta)
        return delta

    return with_deltas(spec, change)


def _replaced(
    context: OperationContext, *, actor: Any = None, stamp: Stamp | None = None
) -> OperationContext:
    return OperationContext(
        actor=context.actor if actor is None else actor,
        sequence=context.sequence,
        stamp=context.stamp() if stamp is None else stamp,
        next_dot=context.next_dot,
    )


class _RepeatingContext(OperationContext):
    def dot(self) -> Dot:
        """Mint the same dot each time: that is the fault."""
        self.dots.append(Dot(self.actor, 1))
        return self.dots[-1]


def _repeating(context: OperationContext) -> OperationContext:
    return _RepeatingContext(
        actor=context.actor, sequence=context.sequence, stamp=context.stamp(), next_dot=1
    )


@_fault("every writer has one name", applies=lambda _spec, has: has.uses_actor or has.uses_dots)
def _every_writer_has_one_name(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Two replicas write under one actor: concurrent writes overwrite each other."""
    return with_context(spec, lambda context: _replaced(context, actor=ONE_NAME))


@_fault("dots are used twice", applies=lambda _spec, has: has.uses_dots)
def _dots_are_used_twice(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """A writer gives two of its writes the same dot."""
    return with_context(spec, _repeating)


@_fault("restart under the old name", applies=lambda _spec, has: has.uses_actor or has.uses_dots)
def _restart_under_the_old_name(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """A replica that lost its disk counts from 1 again, as the same writer."""
    return evolve(spec, is_reincarnated=False)


@_fault("stamps stand still", applies=lambda _spec, has: has.uses_stamps)
def _stamps_stand_still(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """A writer's clock does not advance, so its writes do not order."""
    return with_context(spec, lambda context: _replaced(context, stamp=Stamp(1, 0, context.actor)))


@_fault("stamps have no writer", applies=lambda _spec, has: has.uses_stamps)
def _stamps_have_no_writer(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Equal times of two writers are not told apart."""
    return with_context(
        spec,
        lambda context: _replaced(context, stamp=Stamp(context.stamp().wall_ms, 0, ONE_NAME)),
    )


# ---- parts, novelty, bytes, digests -----------------------------------------------------------


@_fault("decomposition loses a part", applies=lambda spec, _has: spec.decompose is not None)
def _decomposition_loses_a_part(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """One part is left out."""
    assert spec.decompose is not None
    decompose = spec.decompose
    return evolve(spec, decompose=lambda state: list(decompose(state))[1:])


@_fault("decomposition repeats the whole", applies=lambda spec, _has: spec.decompose is not None)
def _decomposition_repeats_the_whole(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The state itself is yielded after its parts."""
    assert spec.decompose is not None
    decompose = spec.decompose
    return evolve(spec, decompose=lambda state: [*decompose(state), state])


@_fault("decomposition in one piece", applies=lambda _spec, has: has.has_parts)
def _decomposition_in_one_piece(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The state is yielded as its only part, so deltas are whole states."""
    bottom = spec.bottom()
    return evolve(spec, decompose=lambda state: [] if spec.equal(state, bottom) else [state])


@_fault("absorb says all was new", applies=lambda spec, _has: spec.absorb is not None)
def _absorb_says_all_was_new(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """What was known already is reported as new, and forwarded for ever."""
    absorb = spec.absorb
    assert absorb is not None
    return evolve(spec, absorb=lambda state, delta: (absorb(state, delta)[0], delta))


@_fault("absorb says nothing was new", applies=lambda spec, _has: spec.absorb is not None)
def _absorb_says_nothing_was_new(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """What was new is not reported, and not forwarded."""
    absorb = spec.absorb
    assert absorb is not None
    return evolve(spec, absorb=lambda state, delta: (absorb(state, delta)[0], spec.bottom()))


@_fault("absorb forgets to join", applies=lambda spec, _has: spec.absorb is not None)
def _absorb_forgets_to_join(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The state stays as it was."""
    absorb = spec.absorb
    assert absorb is not None
    return evolve(spec, absorb=lambda state, delta: (state, absorb(spec.copy(state), delta)[1]))


def _with_codec(spec: CRDTSpec[S], **changes: Any) -> CRDTSpec[S]:
    assert spec.codec is not None
    codec: Codec[S] = evolve(spec.codec, **changes)
    return evolve(spec, codec=codec)


@_fault("bytes follow hash()", applies=lambda spec, _has: spec.codec is not None)
def _bytes_follow_hash(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The encoding depends on the hash seed of the process."""
    assert spec.codec is not None
    encode, decode = spec.codec.encode, spec.codec.decode

    def salted(state: S) -> bytes:
        data = encode(state)
        return bytes([hash(data) & 1]) + data

    return _with_codec(spec, encode=salted, decode=lambda data: decode(data[1:]))


@_fault(
    "bytes lose a part",
    applies=lambda spec, _has: spec.codec is not None and spec.decompose is not None,
)
def _bytes_lose_a_part(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The encoding leaves something out."""
    assert spec.codec is not None
    assert spec.decompose is not None
    encode, decompose = spec.codec.encode, spec.decompose
    return _with_codec(spec, encode=lambda state: encode(spec.fold(list(decompose(state))[:-1])))


@_fault(
    "bytes join in part",
    applies=lambda spec, has: spec.codec is not None and has.has_parts,
)
def _bytes_join_in_part(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """What was just decoded is joined by a short cut, which leaves something out."""
    assert spec.codec is not None
    assert spec.decompose is not None
    decode, decompose = spec.codec.decode, spec.decompose
    decoded: deque[S] = deque(maxlen=DECODED_MAX)

    def remembered(data: bytes) -> S:
        state = decode(data)
        decoded.append(state)
        return state

    def join(a: S, b: S) -> S:
        if any(b is state for state in decoded):
            return spec.join(a, spec.fold(list(decompose(b))[1:]))
        return spec.join(a, b)

    return with_join(_with_codec(spec, decode=remembered), join)


@_fault("decoder raises anything", applies=lambda spec, _has: spec.codec is not None)
def _decoder_raises_anything(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Malformed bytes raise an error that nobody expects."""
    assert spec.codec is not None
    decode, errors = spec.codec.decode, spec.codec.errors

    def careless(data: bytes) -> S:
        try:
            return decode(data)
        except errors as error:
            raise IndexError(str(error)) from error

    return _with_codec(spec, decode=careless)


@_fault("digest says nothing", applies=lambda spec, _has: spec.digest is not None)
def _digest_says_nothing(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Different states have one digest."""
    return evolve(spec, digest=lambda _state: 0)


@_fault("digest tells objects apart", applies=lambda spec, _has: spec.digest is not None)
def _digest_tells_objects_apart(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Equal states have different digests."""
    numbers = itertools.count()
    return evolve(spec, digest=lambda _state: next(numbers))


@_fault("order always holds")
def _order_always_holds(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """Every state is said to be below every other."""
    return evolve(spec, order=lambda _low, _high: True)


@_fault("order is strict")
def _order_is_strict(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """A state is said not to be below itself."""
    return evolve(spec, order=lambda low, high: spec.order(low, high) and not spec.equal(low, high))


@_fault("order compares sizes", applies=lambda spec, _has: spec.codec is not None)
def _order_compares_sizes(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """The smaller encoding is said to be below the larger."""
    assert spec.codec is not None
    encode = spec.codec.encode
    return evolve(spec, order=lambda low, high: len(encode(low)) <= len(encode(high)))


@_fault("bottom is never told", applies=lambda spec, _has: spec.is_bottom is not None)
def _bottom_is_never_told(spec: CRDTSpec[S]) -> CRDTSpec[S]:
    """is_bottom is false of the bottom."""
    return evolve(spec, is_bottom=lambda _state: False)


GENERAL: Final = tuple(_faults)
"""The bugs that fit every type that has what they break."""
