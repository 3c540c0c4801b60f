"""Settings of the gossip engine, with profiles for three kinds of network."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from attrs import evolve, frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError
from meshlib.limits import FRAME_BYTES_MAX

__all__ = ["GossipConfig", "GossipProfile"]


class GossipProfile(StrEnum):
    """A kind of network, by which the gossip is timed."""

    LAN = "lan"
    """One data centre: the defaults."""

    WAN = "wan"
    """Several data centres: slower to accuse, and fewer messages."""

    LOCAL = "local"
    """One machine: for tests and demonstrations."""

    @classmethod
    def named(cls, name: str) -> GossipProfile:
        """Return the profile of a name.

        Raises:
            ConfigError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(cls)
            raise ConfigError(f"gossip_profile must be one of {known}, got {name!r}") from None


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class GossipConfig:
    """How often a node probes, gossips and repairs. Durations are seconds.

    Args:
        probe_interval_s: between two probes; detection takes about 1.6 of these. LAN 0.5.
        probe_timeout_s: longest wait for a direct answer before others are asked; must be
            below `probe_interval_s`. The measured round trips shorten it.
        probe_timeout_min_s: shortest wait, however fast the network is.
        indirect_probe_count: members asked to probe in our stead. 3 in SWIM and memberlist.
        suspicion_multiplier: probe intervals that a suspicion lasts at the shortest.
        local_health_max: most that a sick node slows its own probes, plus one.
        pause_threshold_s: a timer that fires this much too late means that this process was
            stopped: it then accuses nobody.
        gossip_interval_s: between two rounds of membership news.
        gossip_fanout: peers that a node pushes news to at once, in a sparse topology.
        retransmit_multiplier: times `ln(n + 1)`: how often one piece of membership news is sent.
        exchange_interval_s: between two anti-entropy exchanges.
        vector_entries_max: writers named in one vector while both sides know more of them and
            differ in these alone; a whole vector follows when they differ in others too.
        content_check_period: every how many exchanges the true content digest is compared.
        join_retry_s: between two tries to reach a seed before anyone is known.
        heal_interval_s: between two dials of a seed or Down member, for ever; cluster-wide the
            rate stays constant because each node dials with probability 1/n for each target.
            Who has gone within the last minute, and one or two who have for longer, are dialled a
            dozen times as often.
        forget_after_s: how long a Down member is kept before it is forgotten. A node away for
            longer than half of this comes back as a new writer.
            Only where a majority is in reach, or where it does not count: see `Electorate`.
        is_silence_an_end: whether of two nodes the one that hears nothing of the other takes it
            for ended, and itself for the whole cluster. False: it has no majority until the
            other one is forgotten, leaves, or refuses a dial because its process is gone. True
            risks that both do so when only the network between them is broken: each then admits
            the whole limit, twice as much in all. More nodes than two need a majority anyway.
        leave_forget_s: how long a member that left is still shown as Leaving.
        transfer_timeout_s: how long a page of a state transfer may be awaited before it is
            asked for again; after some tries the transfer is given up.
        bootstrap_after_s: after how long without a ready peer one of the nodes that are not ready
            begins; the others take its state. 0: never, but for a node that has no seeds.
        bootstrap_expect: how many nodes must be in reach for one of them to begin, itself
            included. A majority keeps a node that cannot reach its cluster, because of a wrong
            token for one, from beginning beside it; 1 lets a node begin alone.
        bootstrap_listen_s: how long a node that was told of nobody, and so begins at once, goes on
            to listen for members that know it, before those who roll a cluster are told to go on;
            see `MeshNode.is_listening`. 0: not at all.
        leave_handover_s: how long a leaving node waits, at most, while what it has is not
            confirmed by ready nodes that stay. 0: not at all.
        packet_bytes_max: a frame is closed at this size, unless one message needs more; one of
            several messages at 8 KiB at the latest. Pages of a state are no larger either, but for
            a single text or value that is.
    """

    probe_interval_s: float = 0.5
    probe_timeout_s: float = 0.25
    probe_timeout_min_s: float = 0.1
    indirect_probe_count: int = 3
    suspicion_multiplier: float = 3.0
    local_health_max: int = 8
    pause_threshold_s: float = 1.0
    gossip_interval_s: float = 0.2
    gossip_fanout: int = 3
    retransmit_multiplier: float = 3.0
    exchange_interval_s: float = 1.0
    vector_entries_max: int = 64
    content_check_period: int = 16
    join_retry_s: float = 0.5
    heal_interval_s: float = 2.0
    forget_after_s: float = 14_400.0
    is_silence_an_end: bool = False
    leave_forget_s: float = 30.0
    transfer_timeout_s: float = 2.0
    bootstrap_after_s: float = 10.0
    bootstrap_expect: int = 1
    bootstrap_listen_s: float = 1.0
    leave_handover_s: float = 20.0
    packet_bytes_max: int = 262_144

    def __attrs_post_init__(self) -> None:
        """Check that the settings can hold together.

        Raises:
            ConfigError: names the setting and what it must be.
            InvalidTypeError: a setting of another type, before any of these checks.
        """
        for name in (
            "probe_interval_s", "probe_timeout_s", "probe_timeout_min_s", "suspicion_multiplier",
            "pause_threshold_s", "gossip_interval_s", "retransmit_multiplier",
            "exchange_interval_s", "join_retry_s", "heal_interval_s", "forget_after_s",
            "leave_forget_s", "transfer_timeout_s",
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} must be over 0 and finite, got {value}")
        for name in ("bootstrap_after_s", "bootstrap_listen_s", "leave_handover_s"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be 0 or more and finite, got {value}")
        for name in ("indirect_probe_count", "gossip_fanout", "local_health_max",
                     "vector_entries_max", "content_check_period", "bootstrap_expect"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.probe_timeout_s >= self.probe_interval_s:
            raise ConfigError("probe_timeout_s must be below probe_interval_s")
        if self.probe_timeout_min_s > self.probe_timeout_s:
            raise ConfigError("probe_timeout_min_s must not be over probe_timeout_s")
        if not 1024 <= self.packet_bytes_max <= FRAME_BYTES_MAX:
            raise ConfigError(f"packet_bytes_max must be 1,024 to {FRAME_BYTES_MAX:,}")

    @classmethod
    def of(cls, profile: str) -> Self:
        """Return the settings of a profile: `lan`, `wan` or `local`.

        Raises:
            ConfigError: there is no such profile.
        """
        make = {"lan": cls.lan, "wan": cls.wan, "local": cls.local}
        return make[GossipProfile.named(profile)]()

    @classmethod
    def lan(cls) -> Self:
        """One data centre: the defaults."""
        return cls()

    @classmethod
    def wan(cls) -> Self:
        """Several data centres: slower to accuse, and fewer messages."""
        return cls(
            probe_interval_s=2.0,
            probe_timeout_s=1.5,
            probe_timeout_min_s=0.3,
            suspicion_multiplier=4.0,
            pause_threshold_s=2.0,
            gossip_interval_s=0.5,
            gossip_fanout=4,
            exchange_interval_s=3.0,
            heal_interval_s=10.0,
            transfer_timeout_s=10.0,
            bootstrap_listen_s=5.0,
        )

    @classmethod
    def local(cls) -> Self:
        """One machine: for tests and demonstrations."""
        return evolve(
            cls(),
            probe_interval_s=0.3,
            probe_timeout_s=0.2,
            gossip_interval_s=0.1,
            exchange_interval_s=0.5,
            heal_interval_s=1.0,
            bootstrap_after_s=1.5,
            bootstrap_listen_s=0.5,
        )
