"""Specs of the maps: last writer wins, and maps of sets, of maps of sets, and of counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from meshlib.codec import encode_value
from meshlib.crdt import GCounter, LWWMap, ORMap, ORSet
from meshlib.errors import UnknownKeyError
from meshlib.testing.laws.spec import CRDTSpec, Event, Operation
from meshlib.testing.mutants.changes import with_states
from meshlib.testing.specs.common import (
    AMOUNTS,
    CAUSAL_FAULTS,
    CODEC,
    ELEMENTS,
    KEYS,
    VALUES,
    DotOracle,
    absorb,
    frozen_bytes,
    latest,
    remembered,
)

__all__ = ["LWW_MAP", "OR_MAP_OF_COUNTERS", "OR_MAP_OF_MAPS", "OR_MAP_OF_SETS"]


@remembered
def _count(event: Event) -> int:
    """Return how many changes of its key the writer's name had made after this event."""
    return 1 + max((_count(seen) for seen in event.seen if _is_same_count(seen, event)), default=0)


def _is_same_count(one: Event, other: Event) -> bool:
    return one["key"] == other["key"] and one.actor[:8] == other.actor[:8]


def _version(events: Sequence[Event]) -> int:
    counts: dict[bytes, int] = {}
    for event in events:
        counts[event.actor[:8]] = max(counts.get(event.actor[:8], 0), _count(event))
    return sum(counts.values())


def _latest_of_each_key(events: Sequence[Event]) -> dict[str, tuple[bytes | None, int]]:
    """Return, for each key that was ever written, its value (None when removed) and version."""
    shown: dict[str, tuple[bytes | None, int]] = {}
    for key in {event["key"] for event in events}:
        writes = [event for event in events if event["key"] == key]
        last = latest(writes)
        assert last is not None
        payload = frozen_bytes(last["value"]) if last.operation == "set" else None
        shown[key] = (payload, _version(writes))
    return shown


def _shown(state: Any) -> dict[str, tuple[bytes | None, int]]:
    return {
        key: (encode_value(state[key]) if key in state else None, state.version(key))
        for key, _ in state.entries()
    }


def _set(state: Any, context: Any, key: str, value: Any) -> Any:
    return state.set(key, value, stamp=context.stamp(), sequence=context.sequence)


def _set_one(before: Any, after: Any, key: str, value: Any) -> bool:
    others = [other for other in before if other != key]
    return (
        encode_value(after[key]) == frozen_bytes(value)
        and after.version(key) == before.version(key) + 1
        and all(after.entry(other) == before.entry(other) for other in others)
    )


def _removed_one(before: Any, after: Any, key: str) -> bool:
    return (
        key not in after
        and after.version(key) == before.version(key) + 1
        and len(after) == len(before) - 1
    )


def _without_tombstones(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Removed keys are forgotten at once, so what was removed comes back from a peer."""

    def collected(state: Any) -> Any:
        kept = state.copy()
        kept.collect(lambda _entry: True)
        return kept

    return with_states(spec, collected)


LWW_MAP: Final = CRDTSpec(
    name="lww_map",
    bottom=LWWMap,
    operations={
        "set": Operation(apply=_set, arguments={"key": KEYS, "value": VALUES}, ensures=_set_one),
        "remove": Operation(
            apply=lambda state, context, key: state.remove(
                key, stamp=context.stamp(), sequence=context.sequence
            ),
            arguments={"key": KEYS},
            ensures=_removed_one,
        ),
    },
    value=_shown,
    oracle=_latest_of_each_key,
    digested=lambda state: {key: encode_value(value) for key, value in state.items()},
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults={"tombstones dropped early": _without_tombstones},
)
"""A key shows its visible write with the latest stamp, and counts the visible changes."""


def _nested(state: Any, keys: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """Return the delta that changes what is under a path of keys."""
    if not keys:
        return change(state)
    return state.update(keys[0], lambda inside: _nested(inside, keys[1:], change))


def _replaces_below(event: Event, earlier: Event) -> bool:
    """Tell whether an event takes the place of a write at or below the place it names."""
    names = [name for name in ("key", "inner_key", "element") if name in event.arguments]
    return all(event[name] == earlier[name] for name in names)


_PLACED: Final = DotOracle(
    writes=lambda event: event.operation == "add",
    replaces=_replaces_below,
)


def _sets_of_keys(events: Sequence[Event]) -> dict[str, frozenset[Any]]:
    live = _PLACED(events)
    return {
        key: frozenset(event["element"] for event in live if event["key"] == key)
        for key in {event["key"] for event in live}
    }


def _is_gone(_before: Any, after: Any, key: str) -> bool:
    return key not in after


OR_MAP_OF_SETS: Final = CRDTSpec(
    name="or_map(or_set)",
    bottom=ORMap.of(ORSet),
    operations={
        "add": Operation(
            apply=lambda state, context, key, element: _nested(
                state, [key], lambda inside: inside.add(element, dot=context.dot())
            ),
            arguments={"key": KEYS, "element": ELEMENTS},
            ensures=lambda before, after, key, element: (
                after.value == {**before.value, key: before.value.get(key, frozenset()) | {element}}
            ),
        ),
        "remove": Operation(
            apply=lambda state, _context, key, element: _nested(
                state, [key], lambda inside: inside.remove(element)
            ),
            arguments={"key": KEYS, "element": ELEMENTS},
            ensures=lambda _before, after, key, element: (
                element not in after.value.get(key, frozenset())
            ),
        ),
        "remove_key": Operation(
            apply=lambda state, _context, key: state.remove(key),
            arguments={"key": KEYS},
            ensures=_is_gone,
        ),
        "clear": Operation(
            apply=lambda state, _context: state.clear(),
            ensures=lambda _before, after: len(after) == 0,
        ),
    },
    value=lambda state: state.value,
    oracle=_sets_of_keys,
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults=CAUSAL_FAULTS,
)
"""Each key holds the elements of its live additions; a removed key loses those it had."""


def _maps_of_keys(events: Sequence[Event]) -> dict[str, dict[str, frozenset[Any]]]:
    shown: dict[str, dict[str, frozenset[Any]]] = {}
    for event in _PLACED(events):
        inner = shown.setdefault(event["key"], {})
        inner[event["inner_key"]] = inner.get(event["inner_key"], frozenset()) | {event["element"]}
    return shown


_PLACE: Final = {"key": KEYS, "inner_key": KEYS}


OR_MAP_OF_MAPS: Final = CRDTSpec(
    name="or_map(or_map(or_set))",
    bottom=ORMap.of(ORMap.of(ORSet)),
    operations={
        "add": Operation(
            apply=lambda state, context, key, inner_key, element: _nested(
                state, [key, inner_key], lambda inside: inside.add(element, dot=context.dot())
            ),
            arguments={**_PLACE, "element": ELEMENTS},
            ensures=lambda _before, after, key, inner_key, element: (
                element in after.value[key][inner_key]
            ),
        ),
        "remove": Operation(
            apply=lambda state, _context, key, inner_key, element: _nested(
                state, [key, inner_key], lambda inside: inside.remove(element)
            ),
            arguments={**_PLACE, "element": ELEMENTS},
            ensures=lambda _before, after, key, inner_key, element: (
                element not in after.value.get(key, {}).get(inner_key, frozenset())
            ),
        ),
        "remove_inner_key": Operation(
            apply=lambda state, _context, key, inner_key: _nested(
                state, [key], lambda inside: inside.remove(inner_key)
            ),
            arguments=_PLACE,
            ensures=lambda _before, after, key, inner_key: (
                inner_key not in after.value.get(key, {})
            ),
        ),
        "remove_key": Operation(
            apply=lambda state, _context, key: state.remove(key),
            arguments={"key": KEYS},
            ensures=_is_gone,
        ),
    },
    value=lambda state: state.value,
    oracle=_maps_of_keys,
    codec=CODEC,
    absorb=absorb,
    pinned=("key", "inner_key", "element"),
    refusals=(UnknownKeyError,),
    faults=CAUSAL_FAULTS,
)
"""As a map of sets, a level deeper: removing a key removes the maps under it as they were seen."""


_COUNTED: Final = DotOracle(
    writes=lambda event: event.operation == "increment",
    replaces=lambda event, earlier: (
        event["key"] == earlier["key"]
        and (event.operation != "increment" or event.actor == earlier.actor)
    ),
)


@remembered
def _contribution(event: Event) -> int:
    """Return what a writer had counted after an increment, since a removal it knew of."""
    amount: int = event["amount"]
    return amount + sum(
        _contribution(earlier)
        for earlier in _COUNTED(event.seen)
        if _is_same_writer(event, earlier)
    )


def _is_same_writer(event: Event, earlier: Event) -> bool:
    return event["key"] == earlier["key"] and event.actor == earlier.actor


def _counters_of_keys(events: Sequence[Event]) -> dict[str, int]:
    """Add up what the writers contributed to each key.

    A contribution is a total and holds the writer's earlier ones; where a write between two is
    not visible, both may be there, and count once.
    """
    totals: dict[str, dict[bytes, int]] = {}
    for event in _COUNTED(events):
        of_key = totals.setdefault(event["key"], {})
        of_key[event.actor] = max(of_key.get(event.actor, 0), _contribution(event))
    return {key: sum(of_key.values()) for key, of_key in totals.items()}


OR_MAP_OF_COUNTERS: Final = CRDTSpec(
    name="or_map(g_counter)",
    bottom=ORMap.of(GCounter),
    operations={
        "increment": Operation(
            apply=lambda state, context, key, amount: state.update(
                key,
                lambda inside: inside.increment(amount, by=context.actor),
                dot=context.dot(),
            ),
            arguments={"key": KEYS, "amount": AMOUNTS},
            ensures=lambda before, after, key, amount: (
                after.value == {**before.value, key: before.value.get(key, 0) + amount}
            ),
        ),
        "remove_key": Operation(
            apply=lambda state, _context, key: state.remove(key),
            arguments={"key": KEYS},
            ensures=_is_gone,
        ),
    },
    value=lambda state: state.value,
    oracle=_counters_of_keys,
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults=CAUSAL_FAULTS,
)
"""Each key sums what its writers counted; what a removal had not seen survives, with all that
its writer had counted before (`meshlib.crdt.causal.embedded`)."""
