"""How a simulated machine starts a node: the production node, with small limits."""

from __future__ import annotations

import random
from typing import Final

from meshlib.errors import RejectReason, RemoteError
from meshlib.gossip import GossipConfig
from meshlib.limits import FORMATS
from meshlib.node import MeshConfig, MeshNode
from meshlib.replication import ReplicationConfig
from meshlib.startup import StartupConfig, StartupMode
from meshlib.state import ConfiguredDefaults
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.next_format import NEXT_FORMATS
from meshlib.testing.world.scenario import Scenario

__all__ = ["CLUSTER_NAME", "configured_file", "make_node", "restore"]

CLUSTER_NAME: Final = "mesh"
REGIONS: Final = 2
ZONES: Final = 3
LEAVE_FORGET_S: Final = 10.0
VECTOR_ENTRIES_MAX: Final = 3
FILES_SHARE: Final = 1 / 3
STARTUP_OPEN: Final = StartupConfig(acquire=StartupMode.OPEN, route=StartupMode.OPEN)


def make_node(host: Host, scenario: Scenario, *, now: float) -> MeshNode:
    """Return a fresh node for a start of a machine's process.

    Args:
        host: the machine; its start was counted already.
        scenario: gives the settings and the seed.
        now: simulated seconds.
    """
    tuning = scenario.tuning
    is_sparse = tuning.full_mesh_threshold < 10
    config = MeshConfig(
        name=host.name,
        address=host.address,
        cluster_name=CLUSTER_NAME,
        region=f"r{host.index % REGIONS}" if is_sparse else "",
        zone=f"z{host.index % ZONES}" if is_sparse else "",
        full_mesh_threshold=tuning.full_mesh_threshold,
        clock_skew_max_s=tuning.skew_max_s,
        formats=_formats(host, scenario),
        gossip=GossipConfig(
            packet_bytes_max=tuning.packet_bytes_max,
            forget_after_s=tuning.forget_after_s,
            leave_forget_s=min(LEAVE_FORGET_S, tuning.forget_after_s),
            content_check_period=tuning.content_check_period,
            bootstrap_after_s=tuning.bootstrap_after_s,
            leave_handover_s=tuning.leave_handover_s,
            # As if there were more writers than a vector names, as in a cluster of a thousand.
            vector_entries_max=VECTOR_ENTRIES_MAX
            if is_sparse
            else GossipConfig().vector_entries_max,
        ),
        replication=ReplicationConfig(
            log_bytes_max=tuning.log_bytes_max,
            gap_buffer_bytes_max=tuning.gap_buffer_bytes_max,
            tombstone_grace_s=tuning.tombstone_grace_s,
            known_bytes_min=4,  # the texts are short here
        ),
        startup=STARTUP_OPEN if tuning.is_startup_open else StartupConfig(),
        defaults=configured_file(host, scenario),
        prefix_sync=tuning.prefix_sync,
    )
    node = MeshNode(
        config,
        rng=host.rng(scenario.seed),
        wall_clock=host.wall_clock,
        now=host.monotonic(now),
    )
    node.sync.policy_types.register("test")
    return node


def _formats(host: Host, scenario: Scenario) -> tuple[int, int]:
    """Draw which release runs: one start of a machine may be of this one and the next not."""
    chance = random.Random(f"{scenario.seed}/formats/{host.label}/{host.start_count}")
    return NEXT_FORMATS if chance.random() < scenario.next_share else FORMATS


def configured_file(host: Host, scenario: Scenario) -> ConfiguredDefaults:
    """Return what the file of a machine says at this start; of one scenario in three.

    Drawn for itself, so that all else is drawn as it is without files.
    """
    seed = scenario.seed
    if random.Random(f"{seed}/files").random() >= FILES_SHARE:
        return ConfiguredDefaults()
    rng = random.Random(f"{seed}/file/{host.label}/{host.start_count}")
    keys = [f"k{index}" for index in range(scenario.tuning.key_count) if rng.random() < FILES_SHARE]
    edition = rng.randrange(3)
    return ConfiguredDefaults(
        policies=dict.fromkeys(keys, ("test", f"edition {edition}")),
        limits={"filed": 100 + edition},
    )


def restore(host: Host, now: float) -> bool:
    """Give a fresh node the state that an earlier start left on the machine's disk, if any.

    One that a later release wrote is refused, as in production, and moved away. So is one that is
    from further in the future than the machine's clock allows: in production the start fails
    until an operator mends the clock or moves the file away.
    """
    if host.snapshot is None:
        return False
    kept_at, page_version, state, members = host.snapshot
    host.snapshot = None
    if page_version > host.node.page_newest:
        return False
    try:
        at = host.monotonic(now)
        host.node.restore(state, age_s=now - kept_at, now=at, members=members)
    except RemoteError as error:
        if error.reason is not RejectReason.CLOCK:
            raise
        return False
    return True
