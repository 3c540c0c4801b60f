"""The simplest way in: simulate a cluster, and get plain data back.

outcome = simulate(seed=17)
assert outcome.failure is None, outcome

outcome = simulate(scripted_scenario(seed=1, node_count=32, loss=0.25))
outcome.to_json()   # the same bytes on every run
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.testing.simulation.outcome import Outcome
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.simulation.spread import Spread
from meshlib.testing.world.drawing import draw_scenario
from meshlib.testing.world.scenario import Scenario

__all__ = ["simulate"]


def simulate(
    scenario: Scenario | None = None,
    *,
    seed: int = 0,
    node_count: int | None = None,
    duration_s: float = 60.0,
    trace: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Simulate a cluster under faults, then calm, with all checkers on.

    Args:
        scenario: what happens; without one it is drawn from the next three arguments.
        seed: any integer: the same one gives the same outcome, byte for byte.
        node_count: machines at the start; drawn without one.
        duration_s: simulated seconds with faults.
        trace: is given one line for each thing that happens.
        progress: is given the share of the time with faults that has passed.

    Returns:
        What came of it; `failure` is None when every checker was content.

    Raises:
        ConfigError: names what cannot hold.
    """
    if scenario is None:
        scenario = draw_scenario(seed, node_count=node_count, duration_s=duration_s)
    return Simulation(scenario, trace=trace, spread=Spread()).run(progress=progress)
