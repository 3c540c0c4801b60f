"""The tools around the simulator: draws, the minimiser, the spread, the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from meshlib.errors import ConfigError, InvalidValueError
from meshlib.identity import ActorId
from meshlib.testing.__main__ import main, request_of
from meshlib.testing.checkers.sometimes import SOMETIMES, Sometimes
from meshlib.testing.simulation.minimiser import minimise
from meshlib.testing.simulation.outcome import Failure
from meshlib.testing.simulation.requests import ScenarioRequest, replay_arguments, without_faults
from meshlib.testing.simulation.scripted import scripted_scenario
from meshlib.testing.simulation.spread import Spread
from meshlib.testing.world.drawing import draw_scenario
from meshlib.testing.world.scenario import IncidentKind, Scenario

ACTOR = ActorId(bytes(16))


def test_every_kind_of_incident_is_drawn() -> None:
    """A few hundred seeds have each kind, and each fault of the network on and off."""
    scenarios = [draw_scenario(seed) for seed in range(300)]
    kinds = {incident.kind for scenario in scenarios for incident in scenario.incidents}

    assert kinds == set(IncidentKind)
    assert {scenario.network.loss for scenario in scenarios} >= {0.0, 0.5}
    assert {scenario.node_count for scenario in scenarios} == set(range(3, 10))


def test_two_nodes_and_a_seed_never_stop_for_good() -> None:
    """A cluster that nobody could find again is no test of the engine."""
    for seed in range(300):
        scenario = draw_scenario(seed)
        stopped = {
            incident.names[0]
            for incident in scenario.incidents
            if incident.is_final and incident.kind in (IncidentKind.CRASH, IncidentKind.LEAVE)
        }

        assert "n0" not in stopped
        assert len(stopped) <= scenario.node_count - 2


@pytest.mark.parametrize("change", [{"node_count": 0}, {"duration_s": 0.0}])
def test_a_scenario_that_cannot_be_run_is_refused(change: dict[str, Any]) -> None:
    """The setting is named."""
    with pytest.raises(ConfigError, match=next(iter(change))):
        evolve(draw_scenario(1), **change)


def large_scenario() -> Scenario:
    """Return a scenario with ten incidents or more, on a network that loses packets."""
    scenarios = (draw_scenario(seed) for seed in range(100))
    return next(s for s in scenarios if len(s.incidents) >= 10 and s.network.loss)


def test_the_minimiser_keeps_only_what_the_failure_needs() -> None:
    """Incidents and network faults that do not matter are left out."""
    scenario, runs = large_scenario(), list[Scenario]()

    def run(candidate: Scenario) -> Failure | None:
        runs.append(candidate)
        numbers = {incident.number for incident in candidate.incidents}
        is_broken = {2, 7} <= numbers and candidate.network.loss > 0
        return Failure(rule="R1", detail="", at_s=50.0) if is_broken else None

    smallest = minimise(scenario, run)

    assert {incident.number for incident in smallest.scenario.incidents} == {2, 7}
    assert smallest.scenario.network == without_faults(scenario, smallest.left_out).network
    assert "loss" not in smallest.left_out
    assert smallest.runs == len(runs)
    assert "--keep" in smallest.replay_command


def test_the_minimiser_does_not_take_another_failure_for_the_same() -> None:
    """A smaller scenario must break the same rule."""
    scenario = large_scenario()

    def run(candidate: Scenario) -> Failure | None:
        rule = "R1" if candidate == scenario else "another"
        return Failure(rule=rule, detail="", at_s=59.9)

    assert minimise(scenario, run).scenario == scenario


def test_a_scenario_that_does_not_fail_is_not_minimised() -> None:
    """There is nothing to look for."""
    with pytest.raises(InvalidValueError, match="does not fail"):
        minimise(draw_scenario(1), lambda _scenario: None)


def test_an_unknown_fault_is_refused() -> None:
    """The message names the faults there are."""
    with pytest.raises(InvalidValueError, match="loss"):
        without_faults(draw_scenario(1), ["rain"])


def test_the_spread_follows_a_write_to_the_last_node() -> None:
    """A write is complete once every node that ran when it was made has it."""
    spread = Spread()
    spread.written(ACTOR, 3, others=["b", "c"], now=10.0)
    spread.reached("b", {ACTOR: 3}, 10.5)
    spread.reached("c", {ACTOR: 2}, 10.6)
    before = spread.report()
    spread.reached("c", {ACTOR: 4}, 12.0)

    assert before.complete == 0
    assert spread.report().arrivals_s == (0.5, 2.0)
    assert spread.report().completions_s == (2.0,)


def test_states_that_no_run_reached_are_named() -> None:
    """A campaign whose faults are too weak says so."""
    reached = Sometimes()
    reached.count("name_conflict")

    never = Sometimes.never([reached.counts()])

    assert set(never) == set(SOMETIMES) - {"name_conflict"}


def test_a_state_without_a_meaning_cannot_be_counted() -> None:
    """Each name is explained in one place."""
    with pytest.raises(KeyError):
        Sometimes().count("something")


def test_the_command_line_prints_the_outcome_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One command replays a seed."""
    status = main(["--seed", "2", "--nodes", "3", "--seconds", "5", "--keep", "none", "--json"])
    outcome = json.loads(capsys.readouterr().out)

    assert status == 0
    assert outcome["seed"] == 2
    assert outcome["failure"] is None


def test_a_scripted_run_has_just_what_was_asked_for() -> None:
    """One partition, the loss given, and nothing else."""
    scenario = scripted_scenario(seed=1, node_count=4, loss=0.2, partitions=[(10, 20)])

    assert [incident.kind for incident in scenario.incidents] == [IncidentKind.PARTITION]
    assert scenario.incidents[0].names == ("n0", "n1")
    assert scenario.network.loss == 0.2
    assert scenario.network.replay == 0.0


def test_a_node_that_ended_is_waited_for_no_more() -> None:
    """The share that is reached is of the nodes that could be."""
    spread = Spread()
    spread.written(ACTOR, 1, others=["b", "c", "d", "e"], now=0.0)
    spread.reached("b", {ACTOR: 1}, 1.0)
    spread.ended("c")
    spread.reached("d", {ACTOR: 1}, 3.0)

    assert spread.report().expected == 3
    assert spread.report().curve() == [(0.0, 0.0), (1.0, 1 / 3), (3.0, 2 / 3)]


REQUESTS = [
    ScenarioRequest(seed=3),
    ScenarioRequest(seed=4, node_count=6, duration_s=12.5),
    ScenarioRequest(seed=5, until_s=20.25, keep=(1, 2), without=("loss", "replay")),
    ScenarioRequest(seed=6, keep=()),
    ScenarioRequest(seed=7, is_drawn=False),
    ScenarioRequest(seed=8, loss=0.25, node_count=9),
    ScenarioRequest(seed=9, partitions=("middle",), duration_s=25.0),
    ScenarioRequest(seed=9, partitions=("10.1-20.3", "3-4"), partition_side=1),
    ScenarioRequest(seed=9, partitions=("10-20",), writes_per_s=0.5, until_s=15.0),
    ScenarioRequest(seed=9, loss=0.1, partitions=("10-20", "3-4"), keep=(1,)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.arguments())
def test_a_command_line_makes_the_same_scenario_again(
    request_: ScenarioRequest,
) -> None:
    """What is printed to replay a run is taken by the command, and asks for just that run."""
    scenario = request_.scenario()
    arguments = replay_arguments(scenario)
    assert arguments is not None

    made = request_of(arguments.split()).scenario()

    numbers = [evolve(incident, number=0) for incident in made.incidents]
    assert numbers == [evolve(incident, number=0) for incident in scenario.incidents]
    assert evolve(made, incidents=()) == evolve(scenario, incidents=())


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.arguments())
def test_a_request_is_written_as_it_is_read(request_: ScenarioRequest) -> None:
    """`arguments()` and the command line are each other's inverse."""
    assert request_of(request_.arguments().split()).scenario() == request_.scenario()


def test_a_scenario_that_no_command_line_makes_has_no_replay_command() -> None:
    """A command that would make another run is worse than none."""
    scenario = evolve(draw_scenario(1), seed=2)

    assert replay_arguments(scenario) is None


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ScenarioRequest(is_drawn=True, loss=0.1), "drawn faults the seed decides on loss"),
        (ScenarioRequest(loss=1.0), "loss must be 0 to below 1"),
        (ScenarioRequest(partitions=("20-10",)), "begin before it ends"),
        (ScenarioRequest(partitions=("50-70",)), "within the 60 seconds"),
        (ScenarioRequest(partitions=("soon",)), "written as 10-20"),
        (ScenarioRequest(partitions=("nan-20",)), "begin before it ends"),
        (ScenarioRequest(partitions=("1-2",), partition_side=5), "less than the 5 nodes"),
        (ScenarioRequest(partitions=("1-2",), node_count=1), "less than the 1 nodes"),
        (ScenarioRequest(partition_side=2), "there is no partition"),
        (ScenarioRequest(writes_per_s=0), "writes_per_s must be over 0"),
        (ScenarioRequest(node_count=0), "node_count must be at least 1"),
        (ScenarioRequest(node_count=0, loss=0.1), "node_count must be at least 1"),
        (ScenarioRequest(duration_s=float("nan")), "duration_s must be"),
        (ScenarioRequest(duration_s=2, loss=0.1), "duration_s must be at least 6"),
    ],
)
def test_a_request_that_cannot_hold_is_refused(request_: ScenarioRequest, message: str) -> None:
    """The message says what is wrong, in one line."""
    with pytest.raises(ConfigError, match=message) as caught:
        request_.scenario()

    assert "\n" not in str(caught.value)
