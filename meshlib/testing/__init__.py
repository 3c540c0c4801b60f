"""Test tools for everyone who uses meshlib: the law kit for CRDTs, the simulator for clusters.

    TestVotes = laws(VOTES)                        # one test for each law
    TestVotesMachine = machine(VOTES).TestCase     # replicas on a bad network
    for mutant in mutants(VOTES): ...              # does the specification have teeth?

    outcome = simulate(seed=17)                    # a whole cluster under drawn faults
    assert outcome.failure is None, outcome

    laws/        what a type must obey, tried on drawn histories
    mutants/     broken variants of a type
    specs/       the specs of the types of `meshlib.crdt`
    world/       simulated machines and links
    checkers/    what must hold of a simulated cluster
    simulation/  whole clusters in one thread under a virtual clock
    routing/     routing policies on a trace of prompts, under the same clock
    __main__.py  `python -m meshlib.testing`

`CRDTSpec` says what a type is, `Scenario` what happens to a cluster. The law kit needs hypothesis:
`pip install 'meshlib-crdt[testing]'`. The simulator needs nothing beside the library; its names
are imported on first use, so that laws do not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.testing.checkers.sometimes import SOMETIMES
    from meshlib.testing.routing.replay import RoutingScenario, Told, replay
    from meshlib.testing.routing.report import RoutingReport
    from meshlib.testing.routing.trace import TraceRequest, read_trace
    from meshlib.testing.simulation.campaign import Campaign, run_campaign
    from meshlib.testing.simulation.minimiser import Minimised, minimise
    from meshlib.testing.simulation.outcome import Failure, Outcome
    from meshlib.testing.simulation.requests import ScenarioRequest, parse_keep, parse_seeds
    from meshlib.testing.simulation.runs import simulate
    from meshlib.testing.simulation.scripted import scripted_scenario
    from meshlib.testing.simulation.simulation import Simulation
    from meshlib.testing.simulation.spread import SpreadReport
    from meshlib.testing.world.drawing import draw_scenario
    from meshlib.testing.world.scenario import (
        Incident,
        IncidentKind,
        NetworkFaults,
        Scenario,
        Tuning,
        machine_names,
    )

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
    from meshlib.testing.laws.machine import check_machine, machine
    from meshlib.testing.laws.spec import Codec, CRDTSpec, Event, Operation, OperationContext
    from meshlib.testing.laws.strategies import deltas, histories, states
    from meshlib.testing.laws.suite import check_law, first_violation, law_names, laws
    from meshlib.testing.laws.trial import LawViolation
    from meshlib.testing.mutants.variants import Mutant, mutants
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    # The sub-rooms of these names are no stand-ins for the functions that could not be had.
    for _name in ("laws", "mutants"):
        globals().pop(_name, None)

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
    "RoutingReport",
    "RoutingScenario",
    "Scenario",
    "ScenarioRequest",
    "Simulation",
    "SpreadReport",
    "Told",
    "TraceRequest",
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
    "read_trace",
    "replay",
    "run_campaign",
    "scripted_scenario",
    "simulate",
    "states",
]

_SIMULATOR = {
    "Campaign": "simulation.campaign",
    "Failure": "simulation.outcome",
    "Incident": "world.scenario",
    "IncidentKind": "world.scenario",
    "Minimised": "simulation.minimiser",
    "NetworkFaults": "world.scenario",
    "Outcome": "simulation.outcome",
    "RoutingReport": "routing.report",
    "RoutingScenario": "routing.replay",
    "SOMETIMES": "checkers.sometimes",
    "Scenario": "world.scenario",
    "ScenarioRequest": "simulation.requests",
    "Simulation": "simulation.simulation",
    "SpreadReport": "simulation.spread",
    "Told": "routing.replay",
    "TraceRequest": "routing.trace",
    "Tuning": "world.scenario",
    "draw_scenario": "world.drawing",
    "machine_names": "world.scenario",
    "minimise": "simulation.minimiser",
    "parse_keep": "simulation.requests",
    "parse_seeds": "simulation.requests",
    "read_trace": "routing.trace",
    "replay": "routing.replay",
    "run_campaign": "simulation.campaign",
    "scripted_scenario": "simulation.scripted",
    "simulate": "simulation.runs",
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
