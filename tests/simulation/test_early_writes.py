"""Clusters whose processes begin with wrong clocks, and write before they meet anybody."""

from __future__ import annotations

import random

import pytest

from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_scenario
from meshlib.testing.world.hosts import Host

WRONG_S = (0.0, 0.0, 3.0, 8.0, -3.0, 30.0)
"""By how much a clock is wrong when a process begins, in seconds: ahead of most, as a rule."""

RIGHT_AFTER_S = (0.5, 5.0, 20.0)
"""When it is set right."""

SEEDS = [
    pytest.param(n, marks=[] if n in {5, 105, 188} else [pytest.mark.slow])
    for n in (1, 4, 5, 7, 12, 13, 14, 105, 164, 188)
]


class WronglyTimed(Simulation):
    """A run in which each process begins with a clock of its own: drawn apart from all else."""

    def start(self, now: float, host: Host) -> None:
        """Start a process with a wrong clock, and have it set right later."""
        rng = random.Random(f"{self.scenario.seed}/clock/{host.label}/{host.start_count}")
        host.wall_offset_s += rng.choice(WRONG_S)
        self.schedule(now + rng.choice(RIGHT_AFTER_S), self._set_right, host)
        super().start(now, host)

    def _set_right(self, _now: float, host: Host) -> None:
        if not self.is_calm:
            host.correct_clock()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_with_wrong_clocks_at_the_start_breaks_no_rule(seed: int) -> None:
    """What is stamped again is known to all as it is then, and nothing of it is lost."""
    outcome = WronglyTimed(draw_scenario(seed, duration_s=20.0)).run()

    assert outcome.failure is None, str(outcome)


def test_early_writes_are_stamped_again_in_such_a_run() -> None:
    """Else nothing was looked at."""
    outcome = WronglyTimed(draw_scenario(5, duration_s=20.0)).run()

    assert outcome.sometimes["stamped_again"] > 0
