"""Who a node is, and its settings: checked when they are given, and before a node is made."""

from __future__ import annotations

import math

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError, InvalidTypeError, LocalError
from meshlib.gossip import DIALECTS, GossipConfig
from meshlib.identity import check_address, check_name
from meshlib.limits import CLUSTER_NAME_BYTES_MAX, FORMATS
from meshlib.ratelimit import RateLimitConfig
from meshlib.replication import ReplicationConfig
from meshlib.routing import PrefixSync
from meshlib.startup import StartupConfig
from meshlib.state import ConfiguredDefaults

__all__ = ["MeshConfig", "check_own_address"]


def _gossip(settings: GossipConfig | str) -> GossipConfig:
    return GossipConfig.of(settings) if isinstance(settings, str) else settings


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class MeshConfig:
    """Who a node is, and its settings.

    Args:
        name: unique in the cluster; 1 to 255 bytes of UTF-8.
        address: where peers reach it: `host:port` as `identity.check_address` has it, and never
            an unspecified one; peers refuse frames of any other. A runtime takes its
            transport's, and None says no more than that.
        cluster_name: frames of another cluster are refused, so that two never merge.
        region: for the sparse topology; may be empty.
        zone: availability zone inside the region; may be empty.
        full_mesh_threshold: up to this many nodes all talk to all.
        gossip: the engine's settings, or the name of a profile: `lan`, `wan` or `local`.
        replication: the replica's settings.
        rate_limit: the limiter's settings.
        startup: what is decided before this node is ready.
        defaults: what is in force on all nodes for what nobody has written.
        prefix_sync: what is replicated of prompts, on all nodes the same: their `text`, or a `hash`
            of each 256 characters and what is before them, so that no prompt leaves this node.
        clock_skew_max_s: how far ahead of this node's wall clock a write may be stamped; over 0.
        formats: the oldest and the newest format of frames and pages that it speaks, of those
            that this process knows. Leave it: it is for trying how two releases live together.

    Raises:
        InvalidTypeError: a setting of another type.
        ConfigError: one that cannot hold.
        LocalError: a name that cannot travel.
    """

    name: str
    address: str | None = None
    cluster_name: str = "mesh"
    region: str = ""
    zone: str = ""
    full_mesh_threshold: int = 10
    gossip: GossipConfig = field(factory=GossipConfig, converter=_gossip)
    replication: ReplicationConfig = field(factory=ReplicationConfig)
    rate_limit: RateLimitConfig = field(factory=RateLimitConfig)
    startup: StartupConfig = field(factory=StartupConfig)
    defaults: ConfiguredDefaults = field(factory=ConfiguredDefaults)
    prefix_sync: str = "text"
    clock_skew_max_s: float = 60.0
    formats: tuple[int, int] = FORMATS

    def __attrs_post_init__(self) -> None:
        """Check what will travel.

        Raises:
            LocalError: names what is wrong.
        """
        if self.full_mesh_threshold < 0:
            raise ConfigError(
                f"full_mesh_threshold must be 0 or more, got {self.full_mesh_threshold}"
            )
        if not 0 < self.clock_skew_max_s < math.inf:
            raise ConfigError(
                f"clock_skew_max_s must be over 0 and finite, got {self.clock_skew_max_s}"
            )
        check_name("the node's name", self.name)
        check_name("the cluster's name", self.cluster_name, bytes_max=CLUSTER_NAME_BYTES_MAX)
        for what, label in (("region", self.region), ("zone", self.zone)):
            if label:
                check_name(f"the {what}", label)
        if self.address is not None:
            # A port of 0 stands for the one that a transport finds, before the node is made.
            check_own_address(self.address, port_min=0)
        if not isinstance(self.formats, tuple) or [type(n) for n in self.formats] != [int, int]:
            raise InvalidTypeError("formats must be a tuple of two integers")
        PrefixSync.named(self.prefix_sync)
        oldest, newest = self.formats
        if not newest - 1 <= oldest <= newest or not {oldest, newest} <= DIALECTS.keys():
            raise ConfigError(
                f"formats {oldest} to {newest}: known are {sorted(DIALECTS)}, and a node speaks "
                "one of them or two neighbours"
            )


def check_own_address(address: object, *, port_min: int) -> None:
    """Check where peers are to reach this node.

    Raises:
        ConfigError: they could not, by an address like this or a port under `port_min`.
    """
    try:
        check_address("the node's address", address, port_min=port_min)
    except LocalError as error:
        raise ConfigError(str(error)) from error
