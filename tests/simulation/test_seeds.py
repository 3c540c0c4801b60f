"""Whole clusters under drawn faults: every checker content, every interesting state reached."""

from __future__ import annotations

import sys

import pytest

from meshlib.testing.simulation.campaign import run_campaign
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_scenario

REACHED_ON_PURPOSE = {"difference_repaired", "stamped_again", "survivor_of_two"}
"""Too rare for 300 seeds, since pages of a transfer count together, few clocks are wrong before
their nodes have met anybody, and three nodes are the fewest that are drawn: they have tests of
their own, `unit/gossip/test_divergence.py`, `test_early_writes.py` and `test_sides.py`."""

QUICK = {0, 2, 6, 8, 9}
"""Seeds whose clusters are small."""

SEEDS = [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in range(24)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_breaks_no_rule(seed: int) -> None:
    """A cluster keeps every rule under the seed's faults, and agrees after them."""
    outcome = Simulation(draw_scenario(seed, duration_s=20.0)).run()

    assert outcome.failure is None, str(outcome)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_campaign_breaks_no_rule_and_reaches_every_interesting_state() -> None:
    """300 seeds of 3 to 9 nodes and 60 simulated seconds find nothing, having looked everywhere."""
    campaign = run_campaign(range(1000, 1300))
    reached = ", ".join(f"{name} {count:,}" for name, count in campaign.sometimes.items())
    sys.stdout.write(f"\n{campaign}\nreached: {reached}\n")

    assert campaign.failures == (), str(campaign)
    assert set(campaign.never) <= REACHED_ON_PURPOSE, str(campaign)
