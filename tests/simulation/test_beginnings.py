"""Rolls and joint starts of simulated clusters: nothing is lost, and who is ready may be so."""

from __future__ import annotations

import pytest
from support.mutations import (
    begin_all_at_once,
    begin_out_of_turn,
    believe_a_newcomer,
    say_ready_too_soon,
    take_it_along,
)

from meshlib.testing.simulation.outcome import Outcome
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.scenario import (
    Incident,
    IncidentKind,
    NetworkFaults,
    Scenario,
    Tuning,
    machine_names,
)

SLOW = NetworkFaults(link_bytes_per_s=50_000)
"""So that a state takes a while to arrive."""

SEEDS = [0, pytest.param(1, marks=pytest.mark.slow)]


def run(kind: IncidentKind, seed: int, *, count: int, size: int, seed_count: int = 0) -> Outcome:
    """Restart the machines of a cluster that has written for some seconds."""
    names = machine_names(count)
    restart = Incident(
        number=0,
        kind=kind,
        at_s=10.0,
        duration_s=0.2,
        names=names[:size] if kind is IncidentKind.JOINT_START else names,
        amount=float(size),
    )
    scenario = Scenario(
        seed=seed,
        node_count=count,
        duration_s=30.0,
        network=SLOW,
        incidents=(restart,),
        tuning=Tuning(
            writes_per_s=20.0, key_count=60, value_bytes_max=400, seed_count=seed_count or count
        ),
    )
    return Simulation(scenario).run()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("count", "size"),
    [
        pytest.param(3, 1, marks=pytest.mark.slow),
        (3, 2),
        pytest.param(5, 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "kind", [pytest.param(IncidentKind.ROLL, marks=pytest.mark.slow), IncidentKind.HASTY_ROLL]
)
def test_a_roll_loses_nothing(kind: IncidentKind, count: int, size: int, seed: int) -> None:
    """One, two or all but one at a time, by readiness or in haste."""
    outcome = run(kind, seed, count=count, size=size)

    assert outcome.failure is None, str(outcome)
    assert outcome.sometimes["rolled"] + outcome.sometimes["rolled_in_haste"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "size"), [(3, 1), (3, 2), (5, 2), (5, 4)])
def test_a_roll_of_a_cluster_whose_first_node_knows_nobody_loses_nothing(
    count: int, size: int, seed: int
) -> None:
    """All others know it alone: it begins with nothing as it comes back, and they find it."""
    outcome = run(IncidentKind.ROLL, seed, count=count, size=size, seed_count=1)

    assert outcome.failure is None, str(outcome)
    assert outcome.sometimes["rolled"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [6, 7])
def test_a_roll_of_all_but_one_that_is_no_seed_loses_nothing(seed: int) -> None:
    """Who alone has the state knows the others by name, and they know nobody but each other.

    In a mesh that is not full it speaks to a few of them now and then: to be asked by those that
    hear it is its chance, and they begin without it after two seconds.
    """
    names = machine_names(7)
    roll = Incident(
        number=0, kind=IncidentKind.ROLL, at_s=10.0, duration_s=0.8, names=names, amount=6.0
    )
    scenario = Scenario(
        seed=seed,
        node_count=len(names),
        duration_s=16.0,
        network=NetworkFaults(delay_min_s=0.006, delay_mean_s=0.03, link_bytes_per_s=200_000),
        incidents=(roll,),
        tuning=Tuning(
            full_mesh_threshold=6, bootstrap_after_s=2.0, writes_per_s=20.0, key_count=20,
            value_bytes_max=64, seed_count=2,
        ),
    )  # fmt: skip
    outcome = Simulation(scenario).run()

    assert outcome.failure is None, str(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3])
def test_nodes_that_start_together_beside_others_take_their_state(size: int, seed: int) -> None:
    """Nobody of them begins; of all at once one does."""
    outcome = run(IncidentKind.JOINT_START, seed, count=3, size=size)

    assert outcome.failure is None, str(outcome)
    assert (outcome.sometimes["began_after_waiting"] > 1) is (size == 3)


@pytest.mark.parametrize("seed", [7, 13])
def test_a_survivor_that_comes_back_to_a_first_node_without_anything_goes_on(seed: int) -> None:
    """It may: the one frame by which it is a new writer says that the other has nothing."""
    crash = Incident(
        number=0, kind=IncidentKind.CRASH, at_s=10.0, duration_s=6.0, names=("n0",), amount=0.0
    )
    scenario = Scenario(
        seed=seed,
        node_count=2,
        duration_s=20.0,
        network=NetworkFaults(),
        incidents=(crash,),
        tuning=Tuning(
            writes_per_s=20.0, key_count=60, seed_count=1, forget_after_s=8.0, bootstrap_after_s=2.0
        ),
    )
    outcome = Simulation(scenario).run()

    assert outcome.failure is None, str(outcome)


@pytest.mark.parametrize(
    ("mutation", "kind", "rule"),
    [
        (believe_a_newcomer, IncidentKind.JOINT_START, "beginning"),
        (begin_all_at_once, IncidentKind.ROLL, "beginning"),
        pytest.param(begin_out_of_turn, IncidentKind.ROLL, "beginning", marks=pytest.mark.slow),
        pytest.param(say_ready_too_soon, IncidentKind.ROLL, "beginning", marks=pytest.mark.slow),
        pytest.param(take_it_along, IncidentKind.HASTY_ROLL, "roll", marks=pytest.mark.slow),
    ],
)
def test_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, mutation: object, kind: IncidentKind, rule: str
) -> None:
    """Each by the rule that it breaks."""
    assert callable(mutation)
    mutation(monkeypatch.setattr)
    failures = [run(kind, seed, count=3, size=2).failure for seed in range(2)]

    assert {failure.rule for failure in failures if failure is not None} == {rule}
