"""One seed is one history, in whatever process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from attrs import evolve

from meshlib.testing import Simulation, draw_scenario, scripted_scenario, simulate
from meshlib.testing.simulation.requests import keep_incidents


def outcome_in_a_new_process(seed: int, hash_seed: int) -> str:
    """Return what a process of its own says of a seed, as JSON."""
    command = [sys.executable, "-m", "meshlib.testing", "--json", "--seed", str(seed)]
    result = subprocess.run(
        [*command, "--seconds", "12"],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 11])
def test_the_same_seed_is_the_same_history_under_another_hash_seed(seed: int) -> None:
    """Neither the trace digest nor anything else depends on PYTHONHASHSEED."""
    assert outcome_in_a_new_process(seed, 1) == outcome_in_a_new_process(seed, 77)


def test_the_same_scenario_is_the_same_history_within_a_process() -> None:
    """Nothing is carried over from one run to the next."""
    scenario = draw_scenario(5, duration_s=8.0)

    assert Simulation(scenario).run() == Simulation(scenario).run()


def test_reading_along_changes_nothing() -> None:
    """A run with a trace has the digest of one without."""
    scenario = draw_scenario(6, duration_s=8.0)
    lines: list[str] = []
    traced = Simulation(scenario, trace=lines.append).run()

    assert Simulation(scenario).run().trace_digest == traced.trace_digest
    assert lines != []


@pytest.mark.slow
def test_another_seed_is_another_history() -> None:
    """The digest tells histories apart."""
    scenario = draw_scenario(5, duration_s=5.0)
    other = evolve(scenario, seed=6)

    assert Simulation(scenario).run().trace_digest != Simulation(other).run().trace_digest


def test_leaving_an_incident_out_leaves_the_others_as_they_were() -> None:
    """What is drawn for a seed does not shift when the minimiser takes something away."""
    scenario = draw_scenario(8)
    kept = [incident.number for incident in scenario.incidents][1:]

    assert keep_incidents(scenario, kept).incidents == tuple(
        incident for incident in scenario.incidents if incident.number in kept
    )


def test_simulate_prints_the_same_bytes() -> None:
    """`simulate` is as repeatable as its parts."""
    scenario = scripted_scenario(seed=2, node_count=4, duration_s=6.0, loss=0.2)

    assert simulate(scenario).to_json() == simulate(scenario).to_json()
