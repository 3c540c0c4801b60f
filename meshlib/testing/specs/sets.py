"""Specs of the sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve

from meshlib.codec import canonical_order
from meshlib.crdt import GSet, ORSet, RemoveWinsSet, TwoPhaseSet
from meshlib.errors import StateError, UnknownKeyError
from meshlib.testing.laws.spec import CRDTSpec, Event, Operation
from meshlib.testing.specs.common import (
    CAUSAL_FAULTS,
    CODEC,
    ELEMENTS,
    DotOracle,
    absorb,
    join_by_wire,
)

__all__ = ["G_SET", "OR_SET", "REMOVE_WINS_SET", "TWO_PHASE_SET"]


def _only_this_came(before: Any, after: Any, element: Any) -> bool:
    return bool(after.value == before.value | {element})


def _only_this_went(before: Any, after: Any, element: Any) -> bool:
    return bool(after.value == before.value - {element})


G_SET: Final = CRDTSpec(
    name="g_set",
    bottom=GSet,
    operations={
        "add": Operation(
            apply=lambda state, _context, element: state.add(element),
            arguments={"element": ELEMENTS},
            ensures=_only_this_came,
        )
    },
    value=lambda state: state.value,
    oracle=lambda events: frozenset(event["element"] for event in events),
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    harmless={"delta from an empty state": "an addition does not depend on the set"},
)
"""A set holds every element that was visibly added."""


def _once_each(events: Sequence[Event]) -> frozenset[Any]:
    added = {event["element"] for event in events if event.operation == "add"}
    return frozenset(added - {e["element"] for e in events if e.operation == "remove"})


def _order_by_either_side(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """One set is below another if its added or its removed elements are: "or" for "and"."""

    def order(low: Any, high: Any) -> bool:
        (low_added, low_removed), (high_added, high_removed) = low.to_wire(), high.to_wire()
        return set(low_added) <= {*high_added, *high_removed} or set(low_removed) <= {*high_removed}

    return evolve(spec, order=order)


def _removed_elements_return(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """An element that one side has added counts as added, though the other removed it."""

    def join(mine: Any, theirs: Any) -> Any:
        added = {*mine[0], *theirs[0]}
        removed = {*mine[1], *theirs[1]} - added
        return (tuple(canonical_order(added)), tuple(canonical_order(removed)))

    return join_by_wire(spec, join)


TWO_PHASE_SET: Final = CRDTSpec(
    name="two_phase_set",
    bottom=TwoPhaseSet,
    operations={
        "add": Operation(
            apply=lambda state, _context, element: state.add(element),
            arguments={"element": ELEMENTS},
            ensures=_only_this_came,
        ),
        "remove": Operation(
            apply=lambda state, _context, element: state.remove(element),
            arguments={"element": ELEMENTS},
            ensures=_only_this_went,
        ),
    },
    value=lambda state: state.value,
    oracle=_once_each,
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError, StateError),
    faults={
        "order by either side": _order_by_either_side,
        "tombstones dropped early": _removed_elements_return,
    },
)
"""A set holds what was visibly added and never visibly removed."""


_ADDED: Final = DotOracle(
    writes=lambda event: event.operation == "add",
    replaces=lambda event, earlier: (
        event.operation == "clear" or event["element"] == earlier["element"]
    ),
)


OR_SET: Final = CRDTSpec(
    name="or_set",
    bottom=ORSet,
    operations={
        "add": Operation(
            apply=lambda state, context, element: state.add(element, dot=context.dot()),
            arguments={"element": ELEMENTS},
            ensures=_only_this_came,
        ),
        "remove": Operation(
            apply=lambda state, _context, element: state.remove(element),
            arguments={"element": ELEMENTS},
            ensures=_only_this_went,
        ),
        "clear": Operation(
            apply=lambda state, _context: state.clear(),
            ensures=lambda _before, after: len(after) == 0,
        ),
    },
    value=lambda state: state.value,
    oracle=lambda events: frozenset(event["element"] for event in _ADDED(events)),
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults=CAUSAL_FAULTS,
)
"""An element is in the set while a visible addition of it is one that no removal has seen."""


_TOKENS: Final = DotOracle(
    writes=lambda _event: True,
    replaces=lambda event, earlier: event["element"] == earlier["element"],
)


def _removals_win(events: Sequence[Event]) -> frozenset[Any]:
    live = _TOKENS(events)
    removed = {event["element"] for event in live if event.operation != "add"}
    return frozenset({event["element"] for event in live} - removed)


def _additions_win(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The set is read as if an addition won."""

    def value(state: Any) -> frozenset[Any]:
        leaves = [leaf for _, _, _, leaves in state.to_wire() for leaf in leaves]
        return frozenset(element for element, is_added in leaves if is_added)

    return evolve(spec, value=value)


REMOVE_WINS_SET: Final = CRDTSpec(
    name="remove_wins_set",
    bottom=RemoveWinsSet,
    operations={
        "add": Operation(
            apply=lambda state, context, element: state.add(element, dot=context.dot()),
            arguments={"element": ELEMENTS},
            ensures=_only_this_came,
        ),
        "remove": Operation(
            apply=lambda state, context, element: state.remove(element, dot=context.dot()),
            arguments={"element": ELEMENTS},
            ensures=_only_this_went,
        ),
        "discard": Operation(
            apply=lambda state, context, element: state.discard(element, dot=context.dot()),
            arguments={"element": ELEMENTS},
            ensures=_only_this_went,
        ),
    },
    value=lambda state: state.value,
    oracle=_removals_win,
    codec=CODEC,
    absorb=absorb,
    refusals=(UnknownKeyError,),
    faults={**CAUSAL_FAULTS, "additions win": _additions_win},
)
"""An element is in the set while every visible write of it that none has seen adds it."""
