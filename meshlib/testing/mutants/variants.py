"""`mutants(spec)`: broken variants of a type, by which a specification shows that it has teeth.

    for mutant in mutants(VOTES):
        assert first_violation(mutant.spec) is not None, mutant.name

A mutant that no law catches is a hole in the specification (too few operations, an oracle that
reads too little, arguments that never meet), or no bug for this type: then name it in the
spec's `harmless`, with the reason. Each is a bug that a published library has shipped, or the
shape of one; where a type has none of what a mutant breaks (dots, stamps, parts, states that
neither is above the other), it is left out.

Source: the defects found in python3-crdt, `crdts`, xotl.crdt, crdt-merge, js-delta-crdts and
delta_crdt_ex, and in the delta-enabled-crdts issue list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from attrs import evolve, frozen
from hypothesis import given

from meshlib.testing.laws.history import History
from meshlib.testing.laws.profile import DEFAULT_WORLD, QUICK
from meshlib.testing.laws.references import find_reference
from meshlib.testing.laws.spec import CRDTSpec
from meshlib.testing.laws.strategies import programs
from meshlib.testing.mutants.general import GENERAL, Features

__all__ = ["Mutant", "mutants"]

S = TypeVar("S")

SAMPLES: Final = 80


@frozen(slots=True, kw_only=True)
class Mutant:
    """One broken variant of a type.

    Args:
        name: what is broken, in a few words.
        what: the bug in one sentence.
        spec: the spec of the broken type.
    """

    name: str
    what: str
    spec: CRDTSpec[Any]


def mutants(spec: CRDTSpec[S]) -> Iterator[Mutant]:
    """Yield the broken variants of a type: the general ones that apply, and its own `faults`.

    Args:
        spec: the type, in working order.
    """
    features = _features(spec)
    for fault in GENERAL:
        if fault.name not in spec.harmless and fault.applies(spec, features):
            yield _mutant(spec, fault.name, fault.breaks)
    for name, breaks in spec.faults.items():
        yield _mutant(spec, name, breaks)


def _mutant(spec: CRDTSpec[S], name: str, breaks: Callable[[CRDTSpec[S]], CRDTSpec[S]]) -> Mutant:
    broken = breaks(spec)
    reference = f"{find_reference(spec)}#{name}"
    return Mutant(
        name=name,
        what=(breaks.__doc__ or name).splitlines()[0],
        spec=evolve(broken, name=f"{spec.name} ({name})", reference=reference),
    )


def _features(spec: CRDTSpec[S]) -> Features:
    """Look at a few histories of a type, always the same ones."""
    features = Features()

    def look(program: Any) -> None:
        history = History(spec, replica_count=DEFAULT_WORLD.replica_count)
        history.run(program)
        features.uses_actor |= history.is_actor_used
        features.uses_dots |= bool(history.dots)
        features.uses_stamps |= history.is_stamp_used
        for left, right in itertools.combinations(history.states(), 2):
            features.has_concurrent |= not (spec.order(left, right) or spec.order(right, left))
        if spec.absorb is not None and history.events:
            state = spec.bottom()
            joined, new = spec.absorb(state, history.events[0].delta)
            features.is_container |= joined is state and not spec.equal(new, spec.bottom())
        if spec.decompose is not None:
            features.has_parts |= any(
                len(list(spec.decompose(state))) > 1 for state in history.states()
            )

    QUICK.settings(SAMPLES)(given(program=programs(spec, world=DEFAULT_WORLD))(look))()
    return features
