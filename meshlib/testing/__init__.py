"""Test tools for everyone who uses meshlib: the law kit for CRDTs.

    TestVotes = laws(VOTES)                        # one test for each law
    TestVotesMachine = machine(VOTES).TestCase     # replicas on a bad network
    for mutant in mutants(VOTES): ...              # does the specification have teeth?

`CRDTSpec` says what a type is. The law kit needs hypothesis: `pip install
'meshlib-crdt[testing]'`.
"""

from __future__ import annotations

from typing import Any

_NEEDS_HYPOTHESIS = frozenset(
    (
        "CRDTSpec",
        "Codec",
        "Event",
        "LawViolation",
        "Mutant",
        "Operation",
        "OperationContext",
        "check_law",
        "check_machine",
        "deltas",
        "first_violation",
        "histories",
        "law_names",
        "laws",
        "machine",
        "mutants",
        "states",
    )
)

try:
    from meshlib.testing.laws import check_law, first_violation, law_names, laws
    from meshlib.testing.machine import check_machine, machine
    from meshlib.testing.mutants import Mutant, mutants
    from meshlib.testing.spec import Codec, CRDTSpec, Event, Operation, OperationContext
    from meshlib.testing.strategies import deltas, histories, states
    from meshlib.testing.trial import LawViolation
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise

__all__ = [
    "CRDTSpec",
    "Codec",
    "Event",
    "LawViolation",
    "Mutant",
    "Operation",
    "OperationContext",
    "check_law",
    "check_machine",
    "deltas",
    "first_violation",
    "histories",
    "law_names",
    "laws",
    "machine",
    "mutants",
    "states",
]


def __getattr__(name: str) -> Any:
    # Reached only for names that the import above did not bring.
    if name in _NEEDS_HYPOTHESIS:
        raise ImportError(
            f"meshlib.testing.{name} needs hypothesis: pip install 'meshlib-crdt[testing]'"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
