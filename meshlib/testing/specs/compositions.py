"""Specs of what is composed from other types: pairs, lexicographic pairs and records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import field
from hypothesis import strategies as st

from meshlib.crdt import (
    GCounter,
    GSet,
    Lexicographic,
    LWWRegister,
    MaxRegister,
    ORSet,
    Pair,
    Record,
    lattice,
)
from meshlib.errors import UnknownKeyError
from meshlib.testing.laws.spec import CRDTSpec, Event, Operation
from meshlib.testing.mutants.changes import with_join
from meshlib.testing.specs.common import (
    AMOUNTS,
    CODEC,
    ELEMENTS,
    DotOracle,
    absorb,
    by_same_writer,
    latest,
    remembered,
)

__all__ = ["LEXICOGRAPHIC", "LEXICOGRAPHIC_COUNTED", "PAIR", "RECORD", "WorkerRecord"]

COUNTED_SET: Final = Pair.of(GCounter, ORSet)

_ADDED: Final = DotOracle(
    writes=lambda event: event.operation == "add",
    replaces=lambda event, earlier: (
        event.operation in ("add", "remove") and event["element"] == earlier["element"]
    ),
)


def _second_forgotten(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The join takes the second side of the left pair as it is."""
    kind: Any = spec.bottom

    def join(mine: Any, theirs: Any) -> Any:
        return kind(mine.first | theirs.first, mine.second)

    return with_join(spec, join)


PAIR: Final = CRDTSpec(
    name="pair(g_counter,or_set)",
    bottom=COUNTED_SET,
    operations={
        "count": Operation(
            apply=lambda state, context, amount: COUNTED_SET(
                first=state.first.increment(amount, by=context.actor)
            ),
            arguments={"amount": AMOUNTS},
            ensures=lambda before, after, amount: (
                after.value == (before.value[0] + amount, before.value[1])
            ),
        ),
        "add": Operation(
            apply=lambda state, context, element: COUNTED_SET(
                second=state.second.add(element, dot=context.dot())
            ),
            arguments={"element": ELEMENTS},
            ensures=lambda _before, after, element: element in after.second,
        ),
        "remove": Operation(
            apply=lambda state, _context, element: COUNTED_SET(second=state.second.remove(element)),
            arguments={"element": ELEMENTS},
            ensures=lambda _before, after, element: element not in after.second,
        ),
    },
    value=lambda state: state.value,
    oracle=lambda events: (
        sum(event["amount"] for event in events if event.operation == "count"),
        frozenset(event["element"] for event in _ADDED(events)),
    ),
    carries=lambda later, earlier: (
        later.operation == earlier.operation == "count" and by_same_writer(later, earlier)
    ),
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults={"second side forgotten": _second_forgotten},
)
"""Two types side by side, each as if it were alone."""


EPOCH_SET: Final = Lexicographic.of(MaxRegister, GSet)


@remembered
def _epoch(event: Event) -> int:
    """Return the epoch after a write: one more than it saw if it advanced, else what it saw."""
    seen = max(map(_epoch, event.seen), default=0)
    return seen + 1 if event.operation == "advance" else seen


def _set_of_the_epoch(events: Sequence[Event]) -> tuple[int | None, frozenset[Any]]:
    newest = max(map(_epoch, events), default=0)
    return newest or None, frozenset(
        event["element"] for event in events if event.operation == "add" and _epoch(event) == newest
    )


def _advance(state: Any, _context: Any) -> Any:
    return EPOCH_SET(first=state.first.set((state.first.value or 0) + 1))


def _second_joined_under_any_first(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The seconds are joined whatever the firsts are, so a reset resets nothing."""
    kind: Any = spec.bottom

    def join(mine: Any, theirs: Any) -> Any:
        return kind(mine.first | theirs.first, mine.second | theirs.second)

    return with_join(spec, join)


def _left_second_stays(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Of two states with equal firsts the second of the left stays."""

    def join(mine: Any, theirs: Any) -> Any:
        return mine if mine.first == theirs.first else spec.join(mine, theirs)

    return with_join(spec, join)


LEXICOGRAPHIC: Final = CRDTSpec(
    name="lexicographic(max_register,g_set)",
    bottom=EPOCH_SET,
    operations={
        "advance": Operation(
            apply=_advance,
            ensures=lambda before, after: (
                after.value == ((before.first.value or 0) + 1, frozenset())
            ),
        ),
        "add": Operation(
            apply=lambda state, _context, element: EPOCH_SET(
                state.first, state.second.add(element)
            ),
            arguments={"element": ELEMENTS},
            ensures=lambda before, after, element: (
                after.value == (before.value[0], before.value[1] | {element})
            ),
        ),
    },
    value=lambda state: state.value,
    oracle=_set_of_the_epoch,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={
        "second joined under any first": _second_joined_under_any_first,
        "left second stays": _left_second_stays,
    },
)
"""The set holds the additions of the newest visible epoch."""


RESETTABLE_SET: Final = Lexicographic.of(GCounter, GSet)


def _resets(events: Sequence[Event]) -> frozenset[int]:
    """Return the resets that these writes are or knew of."""
    return frozenset().union(*map(_resets_known, events))


@remembered
def _resets_known(event: Event) -> frozenset[int]:
    known = _resets(event.seen)
    return known | {event.index} if event.operation == "reset" else known


def _set_since_every_reset(events: Sequence[Event]) -> tuple[int, frozenset[Any]]:
    resets = _resets(events)
    return len(resets), frozenset(
        event["element"]
        for event in events
        if event.operation == "add" and _resets_known(event) == resets
    )


LEXICOGRAPHIC_COUNTED: Final = CRDTSpec(
    name="lexicographic(g_counter,g_set)",
    bottom=RESETTABLE_SET,
    operations={
        "reset": Operation(
            apply=lambda state, context: RESETTABLE_SET(
                first=state.first | state.first.increment(by=context.actor)
            ),
            ensures=lambda _before, after: len(after.second) == 0,
        ),
        "add": Operation(
            apply=lambda state, _context, element: RESETTABLE_SET(
                state.first, state.second.add(element)
            ),
            arguments={"element": ELEMENTS},
            ensures=lambda _before, after, element: element in after.second,
        ),
    },
    value=lambda state: state.value,
    oracle=_set_since_every_reset,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    is_distributive=False,
    faults={"second joined under any first": _second_joined_under_any_first},
)
"""A set that several writers reset: it holds the additions that knew of every visible reset."""


@lattice(name="testing.worker")
class WorkerRecord(Record):
    """A record as an application declares it."""

    health: LWWRegister[bool] = field(factory=LWWRegister)
    load: MaxRegister[float] = field(factory=MaxRegister)
    tags: ORSet[str] = field(factory=ORSet)


def _worker(events: Sequence[Event]) -> dict[str, Any]:
    health = latest(event for event in events if event.operation == "set_health")
    loads = [event["load"] for event in events if event.operation == "raise_load"]
    return {
        "health": None if health is None else health["is_healthy"],
        "load": max(loads, default=None),
        "tags": frozenset(event["element"] for event in _ADDED(events)),
    }


def _one_field_forgotten(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The join takes the tags of the left record as they are."""

    def join(mine: Any, theirs: Any) -> Any:
        joined = spec.join(mine, theirs)
        return WorkerRecord(health=joined.health, load=joined.load, tags=mine.tags.copy())

    return with_join(spec, join)


RECORD: Final = CRDTSpec(
    name="record:testing.worker",
    bottom=WorkerRecord,
    operations={
        "set_health": Operation(
            apply=lambda state, context, is_healthy: WorkerRecord(
                health=state.health.set(is_healthy, stamp=context.stamp())
            ),
            arguments={"is_healthy": st.booleans()},
            ensures=lambda _before, after, is_healthy: after.health.value is is_healthy,
        ),
        "raise_load": Operation(
            apply=lambda state, _context, load: WorkerRecord(load=state.load.set(load)),
            arguments={"load": st.sampled_from([0.0, 0.5, 1.0])},
            ensures=lambda _before, after, load: (after.load.value or 0.0) >= load,
        ),
        "add": Operation(
            apply=lambda state, context, element: WorkerRecord(
                tags=state.tags.add(element, dot=context.dot())
            ),
            arguments={"element": ELEMENTS},
            ensures=lambda _before, after, element: element in after.tags,
        ),
        "remove": Operation(
            apply=lambda state, _context, element: WorkerRecord(tags=state.tags.remove(element)),
            arguments={"element": ELEMENTS},
            ensures=lambda _before, after, element: element not in after.tags,
        ),
    },
    value=lambda state: state.value,
    oracle=_worker,
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults={"one field forgotten": _one_field_forgotten},
)
"""A record whose fields are each as if they were alone."""
