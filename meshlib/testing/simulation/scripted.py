"""Scenarios with just the faults that somebody asks for, on an otherwise fast network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshlib.errors import ConfigError
from meshlib.testing.world.scenario import (
    BOOT_S,
    Incident,
    IncidentKind,
    NetworkFaults,
    Scenario,
    Tuning,
    machine_names,
)

__all__ = ["WRITES_PER_S", "scripted_scenario"]

LAN_DELAY_S: Final = (0.0005, 0.001)

WRITES_PER_S: Final = 5.0
"""What a scripted cluster writes, unless it is told."""

LOG_BYTES_MAX: Final = 1 << 20


def scripted_scenario(
    *,
    seed: int = 0,
    node_count: int = 5,
    duration_s: float = 30.0,
    loss: float = 0.0,
    partitions: Sequence[tuple[float, float]] = (),
    partition_side: int | None = None,
    writes_per_s: float = WRITES_PER_S,
) -> Scenario:
    """Return a run with just the faults that are asked for, on a fast network.

    Args:
        seed: what chance is drawn from.
        node_count: machines; at least 1.
        duration_s: simulated seconds before the calm; at least 6.
        loss: the share of packets that are lost, 0 to below 1.
        partitions: from when until when the machines are cut in two, in simulated seconds.
        partition_side: machines on one side of a cut, 1 to below `node_count`; half of them
            without it.
        writes_per_s: of the whole cluster; over 0.

    Raises:
        ConfigError: names what cannot hold.
    """
    if not duration_s >= 2 * BOOT_S:
        raise ConfigError(f"duration_s must be at least {2 * BOOT_S:g}, got {duration_s}")
    if not 0 < writes_per_s < float("inf"):
        raise ConfigError(f"writes_per_s must be over 0 and finite, got {writes_per_s}")
    delay_min_s, delay_mean_s = LAN_DELAY_S
    return Scenario(
        seed=seed,
        node_count=node_count,
        duration_s=duration_s,
        network=NetworkFaults(loss=loss, delay_min_s=delay_min_s, delay_mean_s=delay_mean_s),
        incidents=_cuts(partitions, partition_side, node_count, duration_s),
        tuning=Tuning(writes_per_s=writes_per_s, log_bytes_max=LOG_BYTES_MAX),
    )


def _cuts(
    partitions: Sequence[tuple[float, float]],
    partition_side: int | None,
    node_count: int,
    duration_s: float,
) -> tuple[Incident, ...]:
    side = node_count // 2 if partition_side is None else partition_side
    if partition_side is not None and not partitions:
        raise ConfigError("partition_side says where to cut, and there is no partition")
    if partitions and not 1 <= side < node_count:
        raise ConfigError(
            f"partition_side must be at least 1 and less than the {node_count} nodes, got {side}"
        )
    for start_s, end_s in partitions:
        if not 0 <= start_s < end_s <= duration_s:
            raise ConfigError(
                f"a partition must begin before it ends, within the {duration_s:g} seconds, "
                f"got {start_s:g}-{end_s:g}"
            )
    return tuple(
        Incident(
            number=number,
            kind=IncidentKind.PARTITION,
            at_s=start_s,
            duration_s=round(end_s - start_s, 6),
            names=machine_names(node_count)[:side],
        )
        for number, (start_s, end_s) in enumerate(sorted(partitions))
    )
