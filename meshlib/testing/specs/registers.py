"""Specs of the registers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import evolve, frozen
from hypothesis import strategies as st

from meshlib.codec import encode_value, unpack
from meshlib.crdt import LWWRegister, MaxRegister, MinRegister, MVRegister
from meshlib.testing.laws.spec import Codec, CRDTSpec, Event, Operation
from meshlib.testing.mutants.changes import with_join
from meshlib.testing.specs.common import (
    CAUSAL_FAULTS,
    CODEC,
    VALUES,
    DotOracle,
    absorb,
    frozen_bytes,
    latest,
)

__all__ = ["LWW_REGISTER", "MAX_REGISTER", "MIN_REGISTER", "MV_REGISTER"]


def _latest_value(events: Sequence[Event]) -> bytes:
    event = latest(events)
    return frozen_bytes(None if event is None else event["value"])


def _equal_times_keep_the_left(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Writes are ordered by time alone; of two at the same time each replica keeps its own."""

    def join(mine: Any, theirs: Any) -> Any:
        if mine.stamp is None or theirs.stamp is None:
            return spec.join(mine, theirs)
        return theirs if theirs.stamp[:2] > mine.stamp[:2] else mine

    return with_join(spec, join)


LWW_REGISTER: Final = CRDTSpec(
    name="lww_register",
    bottom=LWWRegister,
    operations={
        "set": Operation(
            apply=lambda state, context, value: state.set(value, stamp=context.stamp()),
            arguments={"value": VALUES},
            ensures=lambda _before, after, value: after.payload == frozen_bytes(value),
        )
    },
    value=lambda state: encode_value(state.value),
    oracle=_latest_value,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={"no tie-break": _equal_times_keep_the_left},
    harmless={"delta from an empty state": "a write does not depend on what it replaces"},
)
"""A register holds the visible write with the latest stamp."""


_WRITTEN: Final = DotOracle(
    writes=lambda event: event.operation == "set",
    replaces=lambda _event, _earlier: True,
)


def _concurrent_values(events: Sequence[Event]) -> tuple[bytes, ...]:
    return tuple(sorted({frozen_bytes(event["value"]) for event in _WRITTEN(events)}))


def _one_value_stays(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Of concurrent values a reader sees one."""
    return evolve(spec, value=lambda state: tuple(map(encode_value, state.values))[:1])


MV_REGISTER: Final = CRDTSpec(
    name="mv_register",
    bottom=MVRegister,
    operations={
        "set": Operation(
            apply=lambda state, context, value: state.set(value, dot=context.dot()),
            arguments={"value": VALUES},
            ensures=lambda _before, after, value: (
                tuple(map(encode_value, after.values)) == (frozen_bytes(value),)
            ),
        ),
        "clear": Operation(
            apply=lambda state, _context: state.clear(),
            ensures=lambda _before, after: after.values == (),
        ),
    },
    value=lambda state: tuple(map(encode_value, state.values)),
    oracle=_concurrent_values,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={**CAUSAL_FAULTS, "one value stays": _one_value_stays},
)
"""A register holds the values of the visible writes that no visible write has replaced."""


ORDERED_VALUES: Final = st.sampled_from([-1, -0.0, 0, 0.0, 1, 1.5, b"x", "a", "b", ("a", 1)])


def _place(value: Any) -> tuple[Any, ...]:
    """Return where a value stands: numbers, bytes, text, tuples; -0.0 below 0 below 0.0."""
    if isinstance(value, float):
        return (0, value, math.copysign(1, value) if value == 0 else 1)
    if isinstance(value, int):
        return (0, value, 0)
    if isinstance(value, tuple):
        return (3, [_place(item) for item in value])
    return (1 if isinstance(value, bytes) else 2, value)


def _extreme(choose: Callable[..., Any]) -> Callable[[Sequence[Event]], bytes]:
    def oracle(events: Sequence[Event]) -> bytes:
        return encode_value(choose((e["value"] for e in events), key=_place, default=None))

    return oracle


def _extreme_spec(name: str, kind: type[Any], choose: Callable[..., Any]) -> CRDTSpec[Any]:
    return CRDTSpec(
        name=name,
        bottom=kind,
        operations={
            "set": Operation(
                apply=lambda state, _context, value: state.set(value),
                arguments={"value": ORDERED_VALUES},
                ensures=lambda before, after, value: (
                    encode_value(after.value) == encode_value(value) or after == before
                ),
            )
        },
        value=lambda state: encode_value(state.value),
        oracle=_extreme(choose),
        codec=CODEC,
        absorb=absorb,
        refusals=(),
        faults={
            "NaN in a maximum": _nan_in_a_maximum,
            "zeros are one value": _zeros_are_one_value,
            "the latest value stays": _the_latest_value_stays,
        },
        harmless={"delta from an empty state": "an offer does not depend on what it is offered to"},
    )


@frozen(slots=True)
class _CarelessMaximum:
    """A maximum as Python's `max` has it: NaN is neither above nor below anything."""

    value: float = -math.inf

    def __or__(self, other: _CarelessMaximum) -> _CarelessMaximum:
        return _CarelessMaximum(max(self.value, other.value))

    def __le__(self, other: _CarelessMaximum) -> bool:
        return self.value <= other.value


def _nan_in_a_maximum(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Values are compared as Python compares floats, so NaN stays or goes by chance."""
    careless = Operation(
        apply=lambda _state, _context, value: _CarelessMaximum(value),
        arguments={"value": st.sampled_from([0.0, 1.0, math.nan])},
    )
    return CRDTSpec(
        name=spec.name,
        bottom=_CarelessMaximum,
        operations={"set": careless},
        value=lambda state: state.value,
        codec=Codec(
            encode=lambda state: encode_value(repr(state.value)),
            decode=lambda data: _CarelessMaximum(float(unpack(data))),
        ),
    )


def _zeros_are_one_value(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """-0.0, 0 and 0.0 are taken for equal, and which one stays depends on the order."""

    def join(mine: Any, theirs: Any) -> Any:
        return mine if mine.value == theirs.value else spec.join(mine, theirs)

    return with_join(spec, join)


def _the_latest_value_stays(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """What arrives last replaces what is there."""
    return with_join(spec, lambda mine, theirs: mine if theirs.is_bottom() else theirs)


MAX_REGISTER: Final = _extreme_spec("max_register", MaxRegister, max)
"""A register holds the largest value that was offered."""

MIN_REGISTER: Final = _extreme_spec("min_register", MinRegister, min)
"""A register holds the smallest value that was offered."""
