"""What an engine is made of: every part, each with what it uses and nothing else.

The order in which they are made is the direction of all calls: a part is given those before it,
and none of those after it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from meshlib.gossip.acquaintances import Acquaintances
from meshlib.gossip.clock_offsets import ClockOffsets
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.entries.anti_entropy import AntiEntropy
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.entries.dissemination import Dissemination
from meshlib.gossip.entries.early_writes import EarlyWrites
from meshlib.gossip.entries.filling import Filling
from meshlib.gossip.entries.handover import Handover
from meshlib.gossip.entries.state_transfer import StateTransfer
from meshlib.gossip.entries.ways import Ways
from meshlib.gossip.members.admission import Admission
from meshlib.gossip.members.claims import NameClaims
from meshlib.gossip.members.dialler import Dialler
from meshlib.gossip.members.failure_detector import FailureDetector
from meshlib.gossip.members.links import LostAddresses, Refusals
from meshlib.gossip.members.news import NewsSpreader
from meshlib.gossip.members.own_record import OwnRecord
from meshlib.gossip.members.roster import Roster
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.speech import Speech
from meshlib.gossip.tables import TableComparison
from meshlib.gossip.timers import TimerQueue
from meshlib.gossip.upkeep import Upkeep
from meshlib.gossip.view import MembershipView
from meshlib.invariants import Inspectable
from meshlib.membership import Electorate, MemberRecord, MemberSet, ToldAddresses, TopologyManager
from meshlib.replication import Replica, StabilityTracker

__all__ = ["Parts"]


class Parts:
    """The parts of one engine, wired.

    Args:
        cluster: the cluster's name.
        record: this node's own record.
        config: the settings.
        replica: the documents.
        tracker: keeps the peers' vectors.
        topology: who talks to whom.
        written_off: of whom an operator has said that they do not come back.
        rng: all chance of this engine.
        now: monotonic seconds.
    """

    def __init__(
        self,
        *,
        cluster: str,
        record: MemberRecord,
        config: GossipConfig,
        replica: Replica,
        tracker: StabilityTracker,
        topology: TopologyManager,
        written_off: MemberSet,
        rng: random.Random,
        now: float,
    ) -> None:
        self.replica = replica
        self.tracker = tracker
        self._make_base(record, config, topology, written_off, now)
        self._make_finders(config, rng)
        self._make_entries(cluster, config, rng, now)
        self._make_membership(config)
        self.handover = Handover(
            replica=replica, tracker=tracker, view=self.view, beginning=self.beginning,
            anti_entropy=self.anti_entropy, timers=self.timers, events=self.events,
        )  # fmt: skip
        self.upkeep = Upkeep(
            config, rng=rng, replica=replica, tracker=tracker, view=self.view,
            dissemination=self.dissemination, anti_entropy=self.anti_entropy,
            transfer=self.transfer, beginning=self.beginning, news=self.news, timers=self.timers,
            events=self.events, now=now,
        )  # fmt: skip
        self._start(now)

    def _make_base(
        self,
        record: MemberRecord,
        config: GossipConfig,
        topology: TopologyManager,
        written_off: MemberSet,
        now: float,
    ) -> None:
        """Make what everything stands on: who is there, when, what is sent and what is told."""
        self.view = MembershipView(record, topology=topology, fanout=config.gossip_fanout)
        self.told = ToldAddresses(self.view.members)
        self.electorate = Electorate(
            self.view.members,
            told=self.told,
            expected_count=config.bootstrap_expect,
            written_off=written_off,
            is_silence_an_end=config.is_silence_an_end,
        )
        self.timers = TimerQueue(now)
        self.counters = Counters()
        self.events = EventQueue(self.counters)
        self.speech = Speech(record.formats)
        self.outbox = Outbox(
            view=self.view, speech=self.speech, events=self.events, counters=self.counters
        )
        self.lost = LostAddresses()
        self.refusals = Refusals()
        self.tables = TableComparison(config, view=self.view, outbox=self.outbox)

    def _make_finders(self, config: GossipConfig, rng: random.Random) -> None:
        """Make those who look for others, ask about them, and spread news of them."""
        view, timers, outbox = self.view, self.timers, self.outbox
        self.offsets = ClockOffsets(view=view, electorate=self.electorate, clock=self.replica.clock)
        self.detector = FailureDetector(
            config, rng=rng, view=view, timers=timers, outbox=outbox, events=self.events,
            counters=self.counters, offsets=self.offsets,
        )  # fmt: skip
        self.news = NewsSpreader(config, rng=rng, view=view, timers=timers, outbox=outbox)
        self.dialler = Dialler(
            config, rng=rng, view=view, told=self.told, timers=timers, outbox=outbox
        )
        self.claims = NameClaims(config, rng=rng, view=view, timers=timers, outbox=outbox)

    def _make_entries(
        self, cluster: str, config: GossipConfig, rng: random.Random, now: float
    ) -> None:
        """Make those by which entries and states travel."""
        replica, tracker = self.replica, self.tracker
        view, timers, outbox = self.view, self.timers, self.outbox
        events, counters = self.events, self.counters
        self.dissemination = Dissemination(
            config, replica=replica, tracker=tracker, view=view, timers=timers, outbox=outbox,
            events=events, counters=counters,
        )  # fmt: skip
        self.beginning = Beginning(
            config, cluster=cluster, replica=replica, view=view, offsets=self.offsets,
            timers=timers, events=events, now=now,
        )  # fmt: skip
        self.early = EarlyWrites(
            rng=rng, replica=replica, view=view, beginning=self.beginning, offsets=self.offsets,
            events=events,
        )  # fmt: skip
        self.ways = Ways(view)
        self.transfer = StateTransfer(
            config, rng=rng, replica=replica, dissemination=self.dissemination, view=view,
            speech=self.speech, beginning=self.beginning, timers=timers, ways=self.ways,
            outbox=outbox, events=events, counters=counters,
        )  # fmt: skip
        self.filling = Filling(view=view, timers=timers)
        self.anti_entropy = AntiEntropy(
            config, rng=rng, replica=replica, tracker=tracker, dissemination=self.dissemination,
            transfer=self.transfer, beginning=self.beginning, early=self.early,
            filling=self.filling,
            offsets=self.offsets, tables=self.tables, view=view,
            timers=timers, ways=self.ways, outbox=outbox, events=events, counters=counters,
        )  # fmt: skip

    def _make_membership(self, config: GossipConfig) -> None:
        """Make those who decide what becomes of the table of members."""
        self.acquaintances = Acquaintances(
            beginning=self.beginning,
            of_starts=(
                self.tracker,
                self.dissemination,
                self.transfer,
                self.anti_entropy,
                self.filling,
                self.ways,
                self.offsets,
            ),
            of_members=(
                self.view.members,
                self.electorate,
                self.refusals,
                self.detector,
                self.news,
            ),
        )
        self.own = OwnRecord(
            view=self.view, claims=self.claims, news=self.news, tables=self.tables,
            health=self.detector.health, outbox=self.outbox, events=self.events,
            counters=self.counters,
        )  # fmt: skip
        self.roster = Roster(
            config, view=self.view, electorate=self.electorate, refusals=self.refusals,
            speech=self.speech,
            detector=self.detector, news=self.news, claims=self.claims, own=self.own,
            tables=self.tables, acquaintances=self.acquaintances, timers=self.timers,
            outbox=self.outbox, events=self.events,
        )  # fmt: skip
        self.admission = Admission(
            view=self.view, roster=self.roster, own=self.own, claims=self.claims,
            dialler=self.dialler, news=self.news, tables=self.tables, outbox=self.outbox,
        )  # fmt: skip

    def _start(self, now: float) -> None:
        """Enter this node's own record; begin to probe, to heal and to exchange."""
        self.view.members.apply(self.view.record, now=now)
        self.detector.start(now)
        self.dialler.start(now)
        self.anti_entropy.start(now)

    def inspectable(self) -> Mapping[str, Inspectable]:
        """Return every part that keeps something, the replica's included, by name."""
        return {
            "members": self.view.members, "view": self.view, "electorate": self.electorate,
            "timers": self.timers,
            "events": self.events, "outbox": self.outbox, "lost_addresses": self.lost,
            "refusals": self.refusals,
            "tables": self.tables, "speech": self.speech, "failure_detector": self.detector,
            "local_health": self.detector.health, "lateness": self.detector.lateness,
            "round_trips": self.detector.round_trips,
            "probe_order": self.detector.order, "clock_offsets": self.offsets, "news": self.news,
            "told": self.told,
            "dialler": self.dialler, "claims": self.claims,
            "dissemination": self.dissemination, "beginning": self.beginning,
            "early_writes": self.early,
            "state_transfer": self.transfer, "anti_entropy": self.anti_entropy,
            "filling": self.filling, "ways": self.ways,
            "acquaintances": self.acquaintances, "own_record": self.own, "roster": self.roster,
            "admission": self.admission, "handover": self.handover, "upkeep": self.upkeep,
            "stability": self.tracker, **self.replica.inspectable(),
        }  # fmt: skip
