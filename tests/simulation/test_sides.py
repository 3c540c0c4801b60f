"""Who has a majority, and what becomes of workers: the checkers find what they are there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from support.mutations import (
    compare_with_the_peak,
    forget_without_a_majority,
    leave_the_trees_alone,
    remove_only_what_is_there,
    take_half_for_a_majority,
    take_silence_for_an_end,
)

from meshlib.testing import Outcome, Scenario, scripted_scenario
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_scenario
from meshlib.testing.world.scenario import Incident, IncidentKind

Plant = Callable[[Callable[[object, str, Any], None]], None]


def run(scenario: Scenario) -> Outcome:
    return Simulation(scenario).run()


def in_halves() -> Scenario:
    """Four nodes are cut in two halves, for longer than a member is remembered that is Down."""
    scenario = scripted_scenario(seed=1, node_count=4, duration_s=40.0, partitions=[(6, 38)])
    return evolve(scenario, tuning=evolve(scenario.tuning, forget_after_s=8.0))


def two_apart() -> Scenario:
    """Two nodes do not hear each other for a while."""
    return scripted_scenario(seed=1, node_count=2, duration_s=25.0, partitions=[(6, 20)])


def one_of_two_ends() -> Scenario:
    """One of two nodes crashes and comes back."""
    return with_incidents(2, (IncidentKind.CRASH, 6.0, 10.0, ("n1",)))


def with_incidents(
    node_count: int, *given: tuple[IncidentKind, float, float, tuple[str, ...]]
) -> Scenario:
    """Return a quiet cluster to which these happen: kind, when, for how long, to whom."""
    scenario = scripted_scenario(seed=1, node_count=node_count, duration_s=45.0)
    incidents = tuple(
        Incident(number=number, kind=kind, at_s=at_s, duration_s=duration_s, names=names)
        for number, (kind, at_s, duration_s, names) in enumerate(given)
    )
    return evolve(scenario, incidents=incidents)


def back_on_one_side() -> Scenario:
    """A newcomer takes the place of one that is gone, which comes back to one half of the rest."""
    return with_incidents(
        3,
        (IncidentKind.CRASH, 5.0, 30.0, ("n2",)),
        (IncidentKind.JOIN_STORM, 12.0, 0.1, ("n3",)),
        (IncidentKind.PARTITION, 15.0, 29.0, ("n0", "n2")),
    )


def much_placed() -> Scenario:
    """Workers come and go, and prompts are placed with them, on both sides of a cut."""
    return scripted_scenario(
        seed=3, node_count=2, duration_s=14.0, writes_per_s=25.0, partitions=[(5, 12)]
    )


@pytest.mark.parametrize(
    ("scenario", "plant"),
    [
        (in_halves, forget_without_a_majority),
        pytest.param(in_halves, take_half_for_a_majority, marks=pytest.mark.slow),
        pytest.param(back_on_one_side, compare_with_the_peak, marks=pytest.mark.slow),
        (two_apart, take_silence_for_an_end),
    ],
)
def test_a_majority_that_is_none_is_found(
    scenario: Callable[[], Scenario], plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a cluster without the bug passes, and comes to where it would have been."""
    sound = run(scenario())
    plant(monkeypatch.setattr)
    broken = run(scenario())

    assert sound.failure is None, sound
    assert sound.sometimes["majority_out_of_reach"] > 0
    assert broken.failure is not None
    assert "majority" == broken.failure.rule


def test_the_survivor_of_two_is_whole_and_passes() -> None:
    """Its process has ended, which the network tells."""
    outcome = run(one_of_two_ends())

    assert outcome.failure is None, outcome
    assert outcome.sometimes["survivor_of_two"] > 0
    assert outcome.sometimes["majority_out_of_reach"] == 0


def test_where_nothing_is_refused_the_survivor_of_two_is_not_whole() -> None:
    """A network that swallows what it cannot deliver tells nothing of an end."""
    scenario = one_of_two_ends()
    outcome = run(evolve(scenario, network=evolve(scenario.network, tells_refusals=False)))

    assert outcome.failure is None, outcome
    assert outcome.sometimes["survivor_of_two"] == 0
    assert outcome.sometimes["majority_out_of_reach"] > 0


@pytest.mark.parametrize("plant", [leave_the_trees_alone, remove_only_what_is_there])
def test_a_removed_worker_that_is_still_in_a_tree_is_found(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one node removes another may be giving its first prompt."""
    sound = run(much_placed())
    plant(monkeypatch.setattr)
    broken = run(much_placed())

    assert sound.failure is None, sound
    assert sound.sometimes["tenant_left_nothing"] > 0
    assert broken.failure is not None
    assert "removed worker" == broken.failure.rule


SLOW_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in (22, 55)]


@pytest.mark.parametrize("seed", [*range(4), *SLOW_SEEDS])
def test_two_nodes_under_drawn_faults_break_no_rule(seed: int) -> None:
    """The commonest cluster, which no seed draws by itself.

    In 55 one comes back after long, and the other leaves just then: nobody is awaited any more.
    """
    outcome = run(draw_scenario(seed, node_count=2, duration_s=20.0))

    assert outcome.failure is None, outcome


def test_who_decides_openly_before_it_is_ready_breaks_no_rule() -> None:
    """It admits what it knows no limit of, and keeps those that it knows."""
    scenario = much_placed()
    outcome = run(evolve(scenario, tuning=evolve(scenario.tuning, is_startup_open=True)))

    assert outcome.failure is None, outcome
    assert outcome.sometimes["decided_openly"] > 0
    assert outcome.sometimes["refused_before_ready"] == 0


@pytest.mark.slow
def test_who_was_replaced_and_is_forgotten_later_makes_no_minority_whole() -> None:
    """Seed 3010: it was counted out of the size of the cluster twice, and the next was left out."""
    outcome = run(draw_scenario(3010))

    assert outcome.failure is None, outcome
