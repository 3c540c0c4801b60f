"""Specs of the counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import sub
from typing import Any, Final

from attrs import evolve
from hypothesis import strategies as st

from meshlib.crdt import BoundedCounter, GCounter, PNCounter, WindowCounter
from meshlib.errors import InsufficientRights, InvalidValueError
from meshlib.identity import actor_id
from meshlib.testing.laws.spec import CRDTSpec, Event, Operation
from meshlib.testing.mutants.changes import with_deltas, with_join, with_operations
from meshlib.testing.specs.common import (
    AMOUNTS,
    CODEC,
    absorb,
    by_same_writer,
    join_by_wire,
    remembered,
)

__all__ = ["BOUNDED_COUNTER", "G_COUNTER", "PN_COUNTER", "WINDOW_COUNTER"]

WINDOWS: Final = st.integers(0, 4)


def _rows_combined(
    combine: Callable[[int, int], int],
) -> Callable[[Any, Any], tuple[tuple[Any, ...], ...]]:
    """Return a join of rows `(actor, number, ...)` that combines the numbers of one actor."""

    def join(mine: Any, theirs: Any) -> tuple[tuple[Any, ...], ...]:
        rows = {actor: tuple(numbers) for actor, *numbers in mine}
        for actor, *numbers in theirs:
            held = rows.get(actor, (0,) * len(numbers))
            rows[actor] = tuple(map(combine, held, numbers))
        return tuple((actor, *rows[actor]) for actor in sorted(rows) if any(rows[actor]))

    return join


def _join_by_adding(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The totals of one actor are added, so what arrives twice counts twice."""
    return join_by_wire(spec, _rows_combined(lambda mine, theirs: mine + theirs))


def _join_keeps_the_smaller(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The smaller total of one actor stays."""
    return join_by_wire(spec, _rows_combined(min))


def _delta_as_increment(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """A delta tells what was added and not the new total, so the next one hides it."""
    kind: Any = type(spec.bottom())

    def increment(state: Any, _context: Any, delta: Any) -> Any:
        held = {actor: numbers for actor, *numbers in state.to_wire()}
        rows = [
            (actor, *map(sub, totals, held.get(actor, (0,) * len(totals))))
            for actor, *totals in delta.to_wire()
        ]
        return kind.from_wire(tuple(rows))

    return with_deltas(spec, increment)


G_COUNTER: Final = CRDTSpec(
    name="g_counter",
    bottom=GCounter,
    operations={
        "increment": Operation(
            apply=lambda state, context, amount: state.increment(amount, by=context.actor),
            arguments={"amount": AMOUNTS},
            ensures=lambda before, after, amount: after.value == before.value + amount,
        )
    },
    value=lambda state: state.value,
    oracle=lambda events: sum(event["amount"] for event in events),
    carries=by_same_writer,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={
        "join by adding": _join_by_adding,
        "join keeps the smaller": _join_keeps_the_smaller,
        "delta as increment": _delta_as_increment,
    },
)
"""A counter is the sum of the visible increments."""


def _signed(event: Event) -> int:
    amount: int = event["amount"]
    return amount if event.operation == "increment" else -amount


def _join_by_net(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Of an actor's two pairs of totals the one with the larger difference stays."""

    def join(mine: Any, theirs: Any) -> Any:
        rows = {actor: (up, down) for actor, up, down in mine}
        for actor, up, down in theirs:
            rows[actor] = max(rows.get(actor, (0, 0)), (up, down), key=lambda row: row[0] - row[1])
        return tuple((actor, *rows[actor]) for actor in sorted(rows) if any(rows[actor]))

    return join_by_wire(spec, join)


PN_COUNTER: Final = CRDTSpec(
    name="pn_counter",
    bottom=PNCounter,
    operations={
        "increment": Operation(
            apply=lambda state, context, amount: state.increment(amount, by=context.actor),
            arguments={"amount": AMOUNTS},
            ensures=lambda before, after, amount: after.value == before.value + amount,
        ),
        "decrement": Operation(
            apply=lambda state, context, amount: state.decrement(amount, by=context.actor),
            arguments={"amount": AMOUNTS},
            ensures=lambda before, after, amount: after.value == before.value - amount,
        ),
    },
    value=lambda state: state.value,
    oracle=lambda events: sum(map(_signed, events)),
    carries=by_same_writer,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={
        "join by adding": _join_by_adding,
        "join keeps the smaller": _join_keeps_the_smaller,
        "join by net": _join_by_net,
        "delta as increment": _delta_as_increment,
    },
)
"""A counter is the sum of the visible increments less that of the visible decrements."""


THREE_WINDOWS: Final = WindowCounter.of(3)
"""Few windows, so that histories push old ones out."""


@remembered
def _expired(event: Event) -> bool:
    """Tell whether the window of a write was already pushed out where it was made."""
    windows = [seen["window"] for seen in event.seen if not _expired(seen)]
    return bool(windows) and event["window"] <= max(windows) - THREE_WINDOWS.windows_kept


def _window_totals(events: Sequence[Event]) -> dict[int, int]:
    counted = [event for event in events if not _expired(event)]
    newest = max((event["window"] for event in counted), default=0)
    totals: dict[int, int] = {}
    for event in counted:
        if event["window"] > newest - THREE_WINDOWS.windows_kept:
            amount = event["amount"] if event.operation == "record" else -event["amount"]
            totals[event["window"]] = totals.get(event["window"], 0) + amount
    return totals


def _window_carries(later: Event, earlier: Event) -> bool:
    return (
        later.actor == earlier.actor
        and later["window"] == earlier["window"]
        and not _expired(later)
    )


def _only_the_newest_window(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The newest window that anyone has seen is the only one counted: the clock ahead wins."""

    def join(mine: Any, theirs: Any) -> Any:
        joined = spec.join(mine, theirs)
        return joined if joined.newest is None else joined.clamp(joined.newest - 1)[1]

    return with_join(spec, join)


def _windows_added(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The counts of one actor and window are added, so what arrives twice counts twice."""

    def join(mine: Any, theirs: Any) -> Any:
        joined = spec.join(mine, theirs)
        newest, rows = joined.to_wire()
        added = []
        for actor, numbers in rows:
            doubled = [
                n if place % 3 == 0 or mine.is_bottom() or theirs.is_bottom() else n * 2
                for place, n in enumerate(numbers)
            ]
            added.append((actor, tuple(doubled)))
        return THREE_WINDOWS.from_wire((newest, tuple(added)))

    return with_join(spec, join)


WINDOW_COUNTER: Final = CRDTSpec(
    name="window_counter(3)",
    bottom=THREE_WINDOWS,
    operations={
        "record": Operation(
            apply=lambda state, context, amount, window: state.record(
                amount, window=window, by=context.actor
            ),
            arguments={"amount": AMOUNTS, "window": WINDOWS},
            ensures=lambda before, after, amount, window: (
                after.total(window) in (0, before.total(window) + amount)
            ),
        ),
        "refund": Operation(
            apply=lambda state, context, amount, window: state.refund(
                amount, window=window, by=context.actor
            ),
            arguments={"amount": st.just(1), "window": WINDOWS},
            ensures=lambda before, after, amount, window: (
                after.total(window) in (0, before.total(window) - amount)
            ),
        ),
    },
    value=lambda state: state.value,
    oracle=_window_totals,
    carries=_window_carries,
    codec=CODEC,
    absorb=absorb,
    refusals=(InvalidValueError,),
    faults={"only the newest window": _only_the_newest_window, "join by adding": _windows_added},
)
"""The newest windows that are visible each show what was recorded less what was given back."""


RECEIVERS: Final = [actor_id(f"replica {number}", 1) for number in range(3)]
"""The first writers of the replicas of a history."""


def _transfer(state: BoundedCounter, context: Any, amount: int, to: int) -> BoundedCounter:
    return state.transfer(amount, by=context.actor, to=RECEIVERS[to])


def _rights(state: BoundedCounter) -> tuple[int, ...]:
    return (state.value, *(state.rights(actor) for actor in RECEIVERS))


def _escrow(events: Sequence[Event]) -> tuple[int, ...]:
    granted = sum(event["amount"] for event in events if event.operation == "grant")
    spent = sum(event["amount"] for event in events if event.operation == "spend")
    held = dict.fromkeys(RECEIVERS, 0)
    for event in events:
        amount = event["amount"]
        if event.operation == "grant":
            held[event.actor] = held.get(event.actor, 0) + amount
        else:
            held[event.actor] = held.get(event.actor, 0) - amount
        if event.operation == "transfer":
            held[RECEIVERS[event["to"]]] += amount
    return (max(0, granted - spent), *(max(0, held[actor]) for actor in RECEIVERS))


def _same_total(later: Event, earlier: Event) -> bool:
    return (
        later.actor == earlier.actor
        and later.operation == earlier.operation
        and later.arguments.get("to") == earlier.arguments.get("to")
    )


def _transfer_makes_rights(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The receiver gets what the giver keeps."""
    transfer = spec.operations["transfer"]

    def grant(state: BoundedCounter, _context: Any, amount: int, to: int) -> BoundedCounter:
        return state.grant(amount, by=RECEIVERS[to])

    return evolve(spec, operations={**spec.operations, "transfer": evolve(transfer, apply=grant)})


def _rows_of_rights_added(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Totals are added, so what arrives twice counts twice."""

    def join(mine: Any, theirs: Any) -> Any:
        tables = []
        for rows, others in zip(mine, theirs, strict=True):
            totals = {tuple(row): total for *row, total in rows}
            for *row, total in others:
                totals[tuple(row)] = totals.get(tuple(row), 0) + total
            tables.append(tuple((*row, totals[row]) for row in sorted(totals)))
        return tuple(tables)

    return join_by_wire(spec, join)


def _spending_is_not_seen_by_others(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """What was spent stays where it was spent, so others see rights that are gone."""

    def unseen(apply: Callable[..., Any]) -> Callable[..., Any]:
        def broken(state: Any, context: Any, **arguments: Any) -> Any:
            moved, _ = apply(state, context, **arguments).to_wire()
            return BoundedCounter.from_wire((moved, ()))

        return broken

    return with_operations(spec, unseen)


BOUNDED_COUNTER: Final = CRDTSpec(
    name="bounded_counter",
    bottom=BoundedCounter,
    operations={
        "grant": Operation(
            apply=lambda state, context, amount: state.grant(amount, by=context.actor),
            arguments={"amount": AMOUNTS},
            ensures=lambda before, after, amount: after.granted == before.granted + amount,
        ),
        "spend": Operation(
            apply=lambda state, context, amount: state.spend(amount, by=context.actor),
            arguments={"amount": AMOUNTS},
            ensures=lambda before, after, amount: after.spent == before.spent + amount,
        ),
        "transfer": Operation(
            apply=_transfer,
            arguments={"amount": AMOUNTS, "to": st.integers(0, 2)},
            ensures=lambda before, after, amount, to: (
                after.value == before.value
                and 0 <= after.rights(RECEIVERS[to]) - before.rights(RECEIVERS[to]) <= amount
            ),
        ),
    },
    value=_rights,
    oracle=_escrow,
    carries=_same_total,
    codec=CODEC,
    absorb=absorb,
    refusals=(InsufficientRights, InvalidValueError),
    faults={
        "join by adding": _rows_of_rights_added,
        "transfer makes rights": _transfer_makes_rights,
        "spending is not told": _spending_is_not_seen_by_others,
    },
)
"""What is left is what was granted less what was spent; rights move and are never made twice."""
