"""What the shipped specs share: the codec, arguments, and ways to break causal states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from hypothesis import strategies as st

from meshlib.codec import decode_value, encode_value
from meshlib.crdt import CausalContext, absorb, decode, encode
from meshlib.testing.laws.spec import Codec, CRDTSpec, Event
from meshlib.testing.mutants.changes import with_deltas, with_join, with_states

__all__ = [
    "AMOUNTS",
    "CAUSAL_FAULTS",
    "CODEC",
    "ELEMENTS",
    "KEYS",
    "VALUES",
    "DotOracle",
    "absorb",
    "by_same_writer",
    "frozen_bytes",
    "join_by_wire",
    "latest",
    "remembered",
]

S = TypeVar("S")
T = TypeVar("T")

CODEC: Final = Codec[Any](encode=encode, decode=decode)
"""The registry's encoding. A peer may write an integer in more bytes than it needs, which decodes
to the same state; so not every byte string that decodes is canonical."""

AMOUNTS: Final = st.integers(1, 3)
ELEMENTS: Final = st.sampled_from(["a", "é", 1, b"a", ("a", 1)])
KEYS: Final = st.sampled_from(["a", "b", "c"])
VALUES: Final = st.sampled_from([None, True, 1, 1.0, "v", [1, [2]], {"k": [1]}])
"""Values that Python calls equal and the codec does not, and ones that can be changed after."""


def frozen_bytes(value: Any) -> bytes:
    """Return what a value is kept as: equal for what users would call the same value."""
    return encode_value(decode_value(encode_value(value)))


def by_same_writer(later: Event, earlier: Event) -> bool:
    """Tell whether two writes are of one writer: its counts are totals."""
    return later.actor == earlier.actor


def latest(events: Iterable[Event]) -> Event | None:
    """Return the event with the latest stamp, None without one."""
    return max(events, key=lambda event: event.stamp, default=None)


def remembered(function: Callable[[Event], T]) -> Callable[[Event], T]:
    """Keep what a function of an event returns: oracles look back at the same events often."""
    known: WeakKeyDictionary[Event, T] = WeakKeyDictionary()

    def looked_up(event: Event) -> T:
        if event not in known:
            known[event] = function(event)
        return known[event]

    return looked_up


class DotOracle:
    """Which writes are live, by the rule that all types with dots share.

    A write leaves a dot, or none; and it kills the dots that were live where it was made and
    that it takes the place of. Calling it with visible events returns the writes among them
    that left a dot which none of them has killed. O(n²) at first, what was found is kept.

    Args:
        writes: whether an event leaves a dot.
        replaces: `replaces(event, earlier)`: whether an event takes the place of an earlier write,
            if that is live where the event is made.
    """

    def __init__(
        self,
        *,
        writes: Callable[[Event], bool],
        replaces: Callable[[Event, Event], bool],
    ) -> None:
        self._writes = writes
        self._replaces = replaces
        self._killed_by = remembered(self._kills)

    def __call__(self, events: Sequence[Event]) -> list[Event]:
        """Return the writes among some events that none of the events has killed."""
        dead = {index for event in events for index in self._killed_by(event)}
        return [event for event in events if self._writes(event) and event.index not in dead]

    def _kills(self, event: Event) -> frozenset[int]:
        live = self(event.seen)
        return frozenset(write.index for write in live if self._replaces(event, write))


def join_by_wire(spec: CRDTSpec[Any], join: Callable[[Any, Any], Any]) -> CRDTSpec[Any]:
    """Return a spec whose join is `join` of the two wire trees, each a row for each actor."""
    kind: Any = type(spec.bottom())
    return with_join(spec, lambda a, b: kind.from_wire(join(a.to_wire(), b.to_wire())))


def _compacted(state: Any) -> Any:
    """Return a causal state that claims to have seen all below each actor's newest dot."""
    rows = []
    for actor, _, steps, leaves in state.to_wire():
        context = CausalContext()
        context.add_range(actor, 1, state.context.next_dot(actor).sequence - 1)
        rows.append((actor, context.ranges_to_wire(actor), steps, leaves))
    return type(state).from_wire(tuple(rows))


def _is_live(part: Any) -> bool:
    return any(steps for _, _, steps, _ in part.to_wire())


def _forgetful(state: Any) -> Any:
    """Return a causal state that has forgotten what it has seen removed."""
    kept = type(state)()
    for part in state.decompose():
        if _is_live(part):
            kept = kept | part
    return kept


def _context_compacted_to_a_maximum(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """A context keeps each actor's newest dot only, and so claims dots it has not seen."""
    return with_states(spec, _compacted)


def _tombstones_dropped_early(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Removed dots are forgotten at once, so what was removed comes back from a peer."""
    return with_states(spec, _forgetful)


def _removal_without_dots(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """A delta does not name the dots it removes, so what is removed here stays at every peer."""
    return with_deltas(spec, lambda _state, _context, delta: _forgetful(delta))


def _concurrent_dots_dropped(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Of the dots that hold one leaf only the largest is kept, so a removal of it takes all."""
    return with_states(spec, _one_dot_a_leaf)


def _one_dot_a_leaf(state: Any) -> Any:
    largest: dict[bytes, Any] = {}
    for part in state.decompose():
        for actor, _, steps, leaves in part.to_wire():
            if steps:
                leaf = encode_value(leaves[0])
                largest[leaf] = max(largest.get(leaf, (b"", 0)), (actor, steps[0]))
    kept = type(state)()
    for part in state.decompose():
        [(actor, ranges, steps, leaves)] = part.to_wire()
        if steps and largest[encode_value(leaves[0])] != (actor, steps[0]):
            part = type(state).from_wire(((actor, ranges, (), ()),))
        kept = kept | part
    return kept


CAUSAL_FAULTS: Final[Mapping[str, Callable[[CRDTSpec[Any]], CRDTSpec[Any]]]] = {
    "context compacted to a maximum": _context_compacted_to_a_maximum,
    "removal without dots": _removal_without_dots,
    "tombstones dropped early": _tombstones_dropped_early,
    "element to maximum dot": _concurrent_dots_dropped,
}
"""The bugs of types with dots."""
