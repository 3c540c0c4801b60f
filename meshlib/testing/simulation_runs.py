"""The simplest way in: simulate a cluster, and get plain data back.

outcome = simulate(seed=17)
assert outcome.failure is None, outcome

outcome = simulate(scripted_scenario(seed=1, node_count=32, loss=0.25))
outcome.to_json()   # the same bytes on every run
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshlib.errors import ConfigError
from meshlib.testing.faults import (
    BOOT_S,
    Incident,
    IncidentKind,
    NetworkFaults,
    Scenario,
    Tuning,
    draw_scenario,
    machine_names,
)
from meshlib.testing.outcome import Outcome
from meshlib.testing.simulator import Simulation
from meshlib.testing.spread import Spread

__all__ = ["scripted_scenario", "simulate"]

LAN_DELAY_S: Final = (0.0005, 0.001)


def scripted_scenario(
    *,
    seed: int = 0,
    node_count: int = 5,
    duration_s: float = 30.0,
    loss: float = 0.0,
    has_partition: bool = False,
    writes_per_s: float = 5.0,
) -> Scenario:
    """Return a run with just the faults that are asked for, on a fast network.

    Args:
        seed: what chance is drawn from.
        node_count: machines; at least 1.
        duration_s: simulated seconds before the calm; at least 6.
        loss: the share of packets that are lost, 0 to below 1.
        has_partition: whether the machines are cut in two halves for the middle third.
        writes_per_s: of the whole cluster; over 0.

    Raises:
        ConfigError: names what cannot hold.
    """
    if not duration_s >= 2 * BOOT_S:
        raise ConfigError(f"duration_s must be at least {2 * BOOT_S:g}, got {duration_s}")
    if not 0 < writes_per_s < float("inf"):
        raise ConfigError(f"writes_per_s must be over 0 and finite, got {writes_per_s}")
    names = machine_names(node_count)
    cut = Incident(
        number=0,
        kind=IncidentKind.PARTITION,
        at_s=duration_s / 3,
        duration_s=duration_s / 3,
        names=names[: node_count // 2],
    )
    delay_min_s, delay_mean_s = LAN_DELAY_S
    return Scenario(
        seed=seed,
        node_count=node_count,
        duration_s=duration_s,
        network=NetworkFaults(loss=loss, delay_min_s=delay_min_s, delay_mean_s=delay_mean_s),
        incidents=(cut,) if has_partition and node_count > 1 else (),
        tuning=Tuning(writes_per_s=writes_per_s, log_bytes_max=1 << 20),
    )


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
    """
    if scenario is None:
        scenario = draw_scenario(seed, node_count=node_count, duration_s=duration_s)
    return Simulation(scenario, trace=trace, spread=Spread()).run(progress=progress)
