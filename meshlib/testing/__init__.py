"""Test tools for everyone who uses meshlib: the law kit for CRDTs, the simulator for clusters.

    TestVotes = laws(VOTES)                        # one test for each law
    TestVotesMachine = machine(VOTES).TestCase     # replicas on a bad network
    for mutant in mutants(VOTES): ...              # does the specification have teeth?

    outcome = simulate(seed=17)                    # a whole cluster under drawn faults
    assert outcome.failure is None, outcome

`CRDTSpec` says what a type is, `Scenario` what happens to a cluster. The law kit needs hypothesis:
`pip install 'meshlib-crdt[testing]'`. The simulator needs nothing beside the library; its names
are imported on first use, so that laws do not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.testing.campaign import Campaign, run_campaign
    from meshlib.testing.faults import (
        Incident,
        IncidentKind,
        NetworkFaults,
        Scenario,
        Tuning,
        draw_scenario,
        machine_names,
    )
    from meshlib.testing.minimiser import Minimised, minimise
    from meshlib.testing.outcome import Failure, Outcome
    from meshlib.testing.requests import ScenarioRequest, parse_keep, parse_seeds
    from meshlib.testing.scripted import scripted_scenario
    from meshlib.testing.simulation_runs import simulate
    from meshlib.testing.simulator import Simulation
    from meshlib.testing.sometimes import SOMETIMES
    from meshlib.testing.spread import SpreadReport

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
    "SOMETIMES",
    "CRDTSpec",
    "Campaign",
    "Codec",
    "Event",
    "Failure",
    "Incident",
    "IncidentKind",
    "LawViolation",
    "Minimised",
    "Mutant",
    "NetworkFaults",
    "Operation",
    "OperationContext",
    "Outcome",
    "Scenario",
    "ScenarioRequest",
    "Simulation",
    "SpreadReport",
    "Tuning",
    "check_law",
    "check_machine",
    "deltas",
    "draw_scenario",
    "first_violation",
    "histories",
    "law_names",
    "laws",
    "machine",
    "machine_names",
    "minimise",
    "mutants",
    "parse_keep",
    "parse_seeds",
    "run_campaign",
    "scripted_scenario",
    "simulate",
    "states",
]

_SIMULATOR = {
    "Campaign": "campaign",
    "Failure": "outcome",
    "Incident": "faults",
    "IncidentKind": "faults",
    "Minimised": "minimiser",
    "NetworkFaults": "faults",
    "Outcome": "outcome",
    "SOMETIMES": "sometimes",
    "Scenario": "faults",
    "ScenarioRequest": "requests",
    "Simulation": "simulator",
    "SpreadReport": "spread",
    "Tuning": "faults",
    "draw_scenario": "faults",
    "machine_names": "faults",
    "minimise": "minimiser",
    "parse_keep": "requests",
    "parse_seeds": "requests",
    "run_campaign": "campaign",
    "scripted_scenario": "scripted",
    "simulate": "simulation_runs",
}


def __getattr__(name: str) -> Any:
    home = _SIMULATOR.get(name)
    if home is not None:
        import importlib

        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value
    # Reached only for names that the import above did not bring.
    if name in _NEEDS_HYPOTHESIS:
        raise ImportError(
            f"meshlib.testing.{name} needs hypothesis: pip install 'meshlib-crdt[testing]'"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
