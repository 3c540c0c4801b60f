"""Slots in whole simulated clusters, under the faults that a seed draws."""

from __future__ import annotations

import pytest
from attrs import evolve

from meshlib.ratelimit.slots import owning
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.simulation.slot_use import SLOTS
from meshlib.testing.world.drawing import draw_scenario


def simulation_of(seed: int, *, duration_s: float = 20.0) -> Simulation:
    """Return a run with the faults of a seed, and requests that want slots."""
    scenario = draw_scenario(seed, duration_s=duration_s)
    tuning = evolve(scenario.tuning, slot_requests_per_s=12.0)
    return Simulation(evolve(scenario, tuning=tuning))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_more_slots_are_in_use_than_there_are(seed: int) -> None:
    """Whatever is lost, killed, cut off or stopped; and slots are granted all the same."""
    simulation = simulation_of(seed)

    outcome = simulation.run()

    assert outcome.failure is None, outcome.failure
    assert simulation.slot_use.ledger.granted_count
    assert all(count <= SLOTS[key] for key, count in simulation.slot_use.ledger.most.items())


@pytest.mark.slow
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that grants one too many."""
    limit = owning._OwnedSlots.limit
    monkeypatch.setattr(owning._OwnedSlots, "limit", lambda self: limit(self) + 1)

    failures = (simulation_of(seed).run().failure for seed in range(10))
    failure = next(found for found in failures if found is not None)

    assert "slots" == failure.rule
