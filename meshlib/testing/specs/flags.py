"""Specs of the flags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve

from meshlib.crdt import DisableWinsFlag, EnableWinsFlag
from meshlib.testing.laws.spec import CRDTSpec, Event, Operation
from meshlib.testing.specs.common import CAUSAL_FAULTS, CODEC, DotOracle, absorb

__all__ = ["DISABLE_WINS_FLAG", "ENABLE_WINS_FLAG"]


_ENABLED: Final = DotOracle(
    writes=lambda event: event.operation == "enable",
    replaces=lambda _event, _earlier: True,
)

_SWITCHED: Final = DotOracle(
    writes=lambda _event: True,
    replaces=lambda _event, _earlier: True,
)


def _all_enable(events: Sequence[Event]) -> bool:
    live = _SWITCHED(events)
    return bool(live) and all(event.operation == "enable" for event in live)


def _newest_writer_decides(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Of concurrent writes the one with the largest actor decides, so neither side wins."""

    def value(state: Any) -> bool:
        leaves = [leaf for _, _, _, leaves in state.to_wire() for leaf in leaves]
        return bool(leaves) and leaves[-1] is True

    return evolve(spec, value=value)


def _one_enabling_is_enough(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The flag is read as if enabling won."""

    def value(state: Any) -> bool:
        return any(leaf for _, _, _, leaves in state.to_wire() for leaf in leaves)

    return evolve(spec, value=value)


def _disabling_wins(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """The flag is off as soon as any enabling was undone."""

    def value(state: Any) -> bool:
        dots_seen = len(state.context)
        live = sum(len(steps) for _, _, steps, _ in state.to_wire())
        return bool(live == dots_seen > 0)

    return evolve(spec, value=value)


ENABLE_WINS_FLAG: Final = CRDTSpec(
    name="enable_wins_flag",
    bottom=EnableWinsFlag,
    operations={
        "enable": Operation(
            apply=lambda state, context: state.enable(dot=context.dot()),
            ensures=lambda _before, after: after.value,
        ),
        "disable": Operation(
            apply=lambda state, _context: state.disable(),
            ensures=lambda _before, after: not after.value,
        ),
    },
    value=lambda state: state.value,
    oracle=lambda events: bool(_ENABLED(events)),
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={**CAUSAL_FAULTS, "disabling wins": _disabling_wins},
)
"""The flag is on while some visible enabling has been seen by no later write."""


DISABLE_WINS_FLAG: Final = CRDTSpec(
    name="disable_wins_flag",
    bottom=DisableWinsFlag,
    operations={
        "enable": Operation(
            apply=lambda state, context: state.enable(dot=context.dot()),
            ensures=lambda _before, after: after.value,
        ),
        "disable": Operation(
            apply=lambda state, context: state.disable(dot=context.dot()),
            ensures=lambda _before, after: not after.value,
        ),
    },
    value=lambda state: state.value,
    oracle=_all_enable,
    codec=CODEC,
    absorb=absorb,
    refusals=(),
    faults={
        **CAUSAL_FAULTS,
        "newest writer decides": _newest_writer_decides,
        "one enabling is enough": _one_enabling_is_enough,
    },
)
"""The flag is on while every visible write that no later one has seen enables it."""
