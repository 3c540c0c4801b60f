"""What can go wrong in a simulated cluster.

Rule: a `Scenario` is plain data and says everything about a run. Whoever changes one (the
minimiser, a command line) changes what will happen and nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attrs import field, frozen

from meshlib.errors import ConfigError
from meshlib.routing import PrefixSync

__all__ = [
    "Incident",
    "IncidentKind",
    "NetworkFaults",
    "Scenario",
    "Tuning",
    "machine_names",
]

BOOT_S: Final = 3.0
"""Nodes start within this time; incidents begin after it."""


class IncidentKind(StrEnum):
    """One thing that happens to machines or links, for a while."""

    PARTITION = "partition"
    ONE_WAY = "one_way"
    ISOLATE = "isolate"
    CUT_LINKS = "cut_links"
    FLAP = "flap"
    CLOG = "clog"
    SQUEEZE = "squeeze"
    CRASH = "crash"
    ROLLBACK = "rollback"
    RESTART_ALL = "restart_all"
    SEEDS_DOWN = "seeds_down"
    PAUSE = "pause"
    TWIN = "twin"
    CLOCK_SKEW = "clock_skew"
    CLOCK_JUMP = "clock_jump"
    CLOCK_DRIFT = "clock_drift"
    JOIN_STORM = "join_storm"
    LEAVE = "leave"
    JOIN_AND_LEAVE = "join_and_leave"
    ROLL = "roll"
    HASTY_ROLL = "hasty_roll"
    JOINT_START = "joint_start"


@frozen(slots=True, kw_only=True)
class Incident:
    """One incident of a run.

    Args:
        number: its place in the schedule as drawn; names it in a replay, and seeds what it
            draws while it happens.
        kind: what happens.
        at_s: when it begins, in simulated seconds.
        duration_s: how long it lasts.
        names: the machines it concerns; for a partition one of its sides.
        amount: seconds of skew, bytes a second, a rate of drift: what the kind makes of it.
        is_final: whether a machine that stops never comes back.
    """

    number: int
    kind: IncidentKind
    at_s: float
    duration_s: float
    names: tuple[str, ...]
    amount: float = 0.0
    is_final: bool = False

    def __str__(self) -> str:
        end = "for good" if self.is_final else f"for {self.duration_s:.2f} s"
        amount = f" ({self.amount:g})" if self.amount else ""
        names = " ".join(self.names)
        return f"[{self.number}] {self.at_s:6.2f} s  {self.kind} {names}{amount} {end}"


@frozen(slots=True, kw_only=True)
class NetworkFaults:
    """What happens to single packets. Probabilities are 0 to 1.

    Args:
        loss: of being dropped.
        delay_min_s: the shortest way.
        delay_mean_s: the mean of what comes on top, drawn from an exponential distribution.
        is_ordered: whether a link keeps the order of its packets, as TCP does.
        repeat: of arriving twice.
        replay: of arriving once more, many seconds later.
        truncate: of arriving without its end.
        flip: of arriving with one bit changed.
        misdeliver: of arriving at another machine as well.
        link_bytes_per_s: what a link carries; 0 for any number.
        tells_refusals: whether a sender hears that nothing listens at an address.
    """

    loss: float = 0.0
    delay_min_s: float = 0.0005
    delay_mean_s: float = 0.001
    is_ordered: bool = True
    repeat: float = 0.0
    replay: float = 0.0
    truncate: float = 0.0
    flip: float = 0.0
    misdeliver: float = 0.0
    link_bytes_per_s: int = 0
    tells_refusals: bool = True


@frozen(slots=True, kw_only=True)
class Tuning:
    """Settings of the nodes of a run: small limits, so that rare paths are walked often.

    Args:
        full_mesh_threshold: see `TopologyManager`.
        log_bytes_max: see `ReplicationConfig`.
        gap_buffer_bytes_max: likewise.
        packet_bytes_max: see `GossipConfig`.
        tombstone_grace_s: see `ReplicationConfig`.
        forget_after_s: see `GossipConfig`.
        skew_max_s: see `HybridClock`.
        content_check_period: see `GossipConfig`.
        bootstrap_after_s: likewise.
        leave_handover_s: likewise.
        is_startup_open: whether nodes decide before they are ready; see `StartupConfig`.
        writes_per_s: of the whole cluster.
        key_count: keys that are written to, for each kind of data.
        value_bytes_max: of one value.
        seed_count: machines that others are told of at their start.
        clock_rate_spread: by how much the machines' monotonic clocks run too fast or too slow,
            at most, as a share; that of a wall clock is an incident.
        slot_requests_per_s: requests that want slots, of the whole cluster; 0: none.
        prompts_per_s: prompts that are placed in a tree that is full, likewise.
        prefix_sync: what is replicated of prompts.
    """

    full_mesh_threshold: int = 10
    log_bytes_max: int = 64 * 1024
    gap_buffer_bytes_max: int = 64 * 1024
    packet_bytes_max: int = 65_536
    tombstone_grace_s: float = 2.0
    forget_after_s: float = 3_600.0
    skew_max_s: float = 5.0
    content_check_period: int = 4
    bootstrap_after_s: float = 2.0
    leave_handover_s: float = 6.0
    is_startup_open: bool = False
    writes_per_s: float = 5.0
    key_count: int = 12
    value_bytes_max: int = 64
    seed_count: int = 2
    clock_rate_spread: float = 0.0
    slot_requests_per_s: float = 0.0
    prompts_per_s: float = 0.0
    prefix_sync: PrefixSync = PrefixSync.TEXT


@frozen(slots=True, kw_only=True)
class Scenario:
    """All of one run: who takes part, what goes wrong, for how long.

    Args:
        seed: what chance is drawn from during the run.
        node_count: machines at the start.
        duration_s: simulated seconds with faults; a calm phase follows.
        until_s: when the faults end, if sooner than they were drawn for.
        network: what happens to single packets.
        incidents: what else happens, by time.
        tuning: the nodes' settings and the workload.
        next_share: the share of starts that are of the next release: see `next_format.py`.
    """

    seed: int
    node_count: int
    duration_s: float = 60.0
    network: NetworkFaults = field(factory=NetworkFaults)
    incidents: tuple[Incident, ...] = ()
    tuning: Tuning = field(factory=Tuning)
    until_s: float | None = None
    next_share: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Check that the run can be made.

        Raises:
            ConfigError: names what cannot hold.
        """
        if self.node_count < 1:
            raise ConfigError(f"node_count must be at least 1, got {self.node_count}")
        if not 0 < self.duration_s < float("inf"):
            raise ConfigError(f"duration_s must be over 0 and finite, got {self.duration_s}")
        if self.until_s is not None and not 0 < self.until_s <= self.duration_s:
            raise ConfigError(
                f"until_s must be over 0 and at most {self.duration_s:g}, got {self.until_s}"
            )
        if not 0 <= self.next_share <= 1:
            raise ConfigError(f"next_share must be 0 to 1, got {self.next_share}")
        if not 0 <= self.network.loss < 1:
            raise ConfigError(f"loss must be 0 to below 1, got {self.network.loss}")

    @property
    def faults_end_s(self) -> float:
        """When the faults end and the calm begins."""
        return self.duration_s if self.until_s is None else self.until_s


def machine_names(count: int) -> tuple[str, ...]:
    """Return the names of the first machines: `n0`, `n1`, ..."""
    return tuple(f"n{index}" for index in range(count))
