"""How membership news is applied and told: one way into the table of members.

Rules this file owns:
- Every change of another's record passes through `Roster.apply`, which tells the driver, starts
  or ends suspicions, and spreads what was new.
- The roster calls the detector, the spreader and this node's own record, and none of them calls
  it: what they find out they return.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import evolve

from meshlib.gossip.acquaintances import Acquaintances
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.events import (
    MemberDown,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    MemberSuspected,
)
from meshlib.gossip.members.claims import NameClaims
from meshlib.gossip.members.failure_detector import FailureDetector
from meshlib.gossip.members.links import Refusals
from meshlib.gossip.members.news import NewsSpreader
from meshlib.gossip.members.own_record import OwnRecord
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    IndirectPingFailed,
    IndirectPingRequest,
    JoinRequest,
    MemberNews,
    MemberUpdates,
    PingRequest,
)
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import EventQueue
from meshlib.gossip.speech import Speech
from meshlib.gossip.tables import TableComparison
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import Electorate, MemberRecord, MemberStatus, next_version

__all__ = ["Roster"]

FORGET_RETRY_S = 60.0
"""How often it is looked whether a majority is there by now to forget somebody."""


class Roster:
    """Apply and spread membership news.

    Args:
        config: the settings.
        view: this node among its members.
        electorate: knows who may be forgotten; learns whose process has ended.
        refusals: knows what a refused dial shows.
        speech: learns what a member speaks.
        detector: finds out who is alive.
        news: spreads what was new.
        claims: knows whose name is asked about.
        own: hears what is said of this node.
        tables: hears of changes.
        acquaintances: begins anew with members, or forgets them.
        timers: let a member be forgotten.
        outbox: takes answers.
        events: hears of every change.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        view: MembershipView,
        electorate: Electorate,
        refusals: Refusals,
        speech: Speech,
        detector: FailureDetector,
        news: NewsSpreader,
        claims: NameClaims,
        own: OwnRecord,
        tables: TableComparison,
        acquaintances: Acquaintances,
        timers: TimerQueue,
        outbox: Outbox,
        events: EventQueue,
    ) -> None:
        self._config = config
        self._view = view
        self._electorate = electorate
        self._refusals = refusals
        self._speech = speech
        self._detector = detector
        self._news = news
        self._claims = claims
        self._own = own
        self._tables = tables
        self._acquaintances = acquaintances
        self._timers = timers
        self._outbox = outbox
        self._events = events
        self._doubted: dict[str, int] = {}
        self.has_joined = False

    # News

    def apply(self, news: MemberNews, now: float, *, is_spread: bool = True) -> None:
        """Apply one piece of news: the one way into the table. Spread it if it was news."""
        record = news.record
        if record.name == self._view.name:
            self._own.hear(record, now)
            return
        if not self._speech.shares(record.formats):
            # No word of it could be read here, and none from here there.
            self._speech.refuse(record.name, record.formats, now)
            return
        before = self._view.members.get(record.name)
        if (
            record.status is MemberStatus.DOWN
            and before is not None
            and before.incarnation == record.incarnation
            and news.suspector
            and (
                before.status is MemberStatus.ALIVE
                or self._doubted.get(record.name) == record.incarnation
                or self._detector.is_heard(record.name, now)
            )
        ):
            # Others gave up a member that answers here, or is heard: it is to have its chance to
            # refute, however many of them say so, or two halves that meet again would declare
            # each other's members Down.
            self._doubted[record.name] = record.incarnation
            record = evolve(record, status=MemberStatus.SUSPECTED)
        if (
            record.status is MemberStatus.SUSPECTED
            and before is not None
            and before.precedence() == record.precedence()
        ):
            found = self._detector.suspect(before, news.suspector)
            if found is not None:  # it counts, and the table stays as it is
                self._news.spread(MemberNews(before, news.suspector), now)
        if before is None and record.is_reachable and self._view.members.is_full:
            self._make_room()
        applied = self._view.members.apply(record, now=now)
        if applied is None:
            return
        self._tables.note_change(now)
        if before is None or before.precedence() != applied.precedence():
            self._tell(before, applied, news.suspector, now)
            if is_spread:
                self._news.spread(MemberNews(applied, news.suspector), now)
            self.has_joined = self.has_joined or applied.is_reachable

    # What the detector finds out

    def _take(self, found: MemberNews | None, now: float) -> None:
        """Apply and spread what the failure detector found out, if anything."""
        if found is None:
            return
        known = self._view.members.get(found.record.name)
        if known is not None and known.precedence() == found.record.precedence():
            self._news.spread(MemberNews(known, found.suspector), now)
        else:
            self.apply(found, now)

    def suspect(self, member: MemberRecord, now: float) -> None:
        """Suspect a member that does not answer."""
        self._take(self._detector.suspect(member, self._view.name), now)

    def on_final_timer(self, timer: Timer, now: float) -> None:
        """Suspect a member that answered nobody."""
        self._take(self._detector.on_final_timer(timer, now), now)

    def on_suspicion_timer(self, timer: Timer, now: float) -> None:
        """Declare a member Down whose suspicion ran out."""
        self._take(self._detector.on_suspicion_timer(timer, now), now)

    def on_indirect_request(
        self, message: IndirectPingRequest, header: FrameHeader, now: float
    ) -> None:
        """Probe a member for another node, unless its address has just refused a dial."""
        member = self._view.members.get(message.target)
        if member is not None and self._refusals.is_fresh(member, now):
            self._outbox.send(header.address, IndirectPingFailed(message.sequence))
        else:
            self._detector.on_indirect_request(message, header, now)

    def on_indirect_failed(
        self, message: IndirectPingFailed, header: FrameHeader, now: float
    ) -> None:
        """Suspect a member whom no helper could reach either."""
        self._take(self._detector.on_indirect_failed(message, header, now), now)

    def on_connection_lost(self, address: str, now: float, *, is_refused: bool) -> None:
        """Probe those at an address at once, or suspect them if everything was refused.

        Of two nodes, the one whose own address refused a dial that was made to ask it has ended:
        there is nobody else who could reach it, and nobody to wait for.
        """
        self._detector.give_up_relays(address)
        for member in self._view.peers():
            if member.address == address:
                # Who is suspected was asked before, and the link may have broken on the question.
                is_suspected = member.status is MemberStatus.SUSPECTED
                is_asked = is_suspected or self._detector.is_asking(member)
                has_ended = is_refused and is_asked and self._refusals.note(member, now)
                found = self._detector.on_lost(member, now, is_refused=is_refused)
                if has_ended and self._electorate.is_pair:
                    self._electorate.note_ended(member)
                    version = next_version(member.version)
                    down = evolve(member, status=MemberStatus.DOWN, version=version)
                    found = MemberNews(down)
                self._take(found, now)
        if is_refused:
            for member in self._view.members:
                is_down = member.address == address and member.status is MemberStatus.DOWN
                if is_down and self._refusals.note(member, now):
                    self._electorate.note_ended(member)

    def on_pause(self, late_s: float, now: float) -> None:
        """Accuse nobody after this process was stopped."""
        self._claims.clear()
        self._detector.on_pause(late_s, now)

    def excuse_all(self, now: float) -> None:
        """Accuse nobody of a silence that is not theirs."""
        self._detector.excuse_all(now)

    # What a change means

    def _tell(
        self, before: MemberRecord | None, member: MemberRecord, suspector: str, now: float
    ) -> None:
        """Tell the driver of a change, and start or end what depends on it."""
        status = member.status
        if status is MemberStatus.SUSPECTED:
            if before is None or not before.is_reachable:
                self._events.emit(MemberJoined(member=member))
            self._events.emit(MemberSuspected(member=member, suspector=suspector))
            self._detector.on_suspected(member, suspector or self._view.name, now)
            return
        if (
            status is MemberStatus.ALIVE
            and before is not None
            and before.status is MemberStatus.SUSPECTED
            and before.actor == member.actor
        ):
            self._detector.on_refuted(member.name, now)
        self._detector.on_settled(member.name)
        self._doubted.pop(member.name, None)
        if status is MemberStatus.ALIVE:
            if before is not None and before.status is MemberStatus.SUSPECTED:
                self._events.emit(MemberRecovered(member=member))
            elif before is None or not before.is_reachable:
                self._events.emit(MemberJoined(member=member))
            if before is None or not before.is_reachable or before.actor != member.actor:
                self._speech.learn(member)
                self._acquaintances.meet(member.name)
                self._detector.offsets.meet(member.name, now)
            return
        if status is MemberStatus.DOWN:
            self._events.emit(MemberDown(member=member))
            wait_s = self._config.forget_after_s
        else:
            self._events.emit(MemberLeft(member=member))
            wait_s = self._config.leave_forget_s
        self._set_forget_timer(member, now + wait_s)

    def recall(self, members: Iterable[MemberRecord], now: float) -> None:
        """Take in those who counted before this node began again: they are Down until heard of."""
        for member in self._view.members.recall(members, now=now):
            self._set_forget_timer(member, now + self._config.forget_after_s)
        self._tables.note_change(now)

    def _set_forget_timer(self, member: MemberRecord, at: float) -> None:
        self._timers.set(at, Timer(TimerKind.FORGET, member.name, member.incarnation))

    def on_forget_timer(self, timer: Timer, now: float) -> None:
        """Forget a member that has been gone for long, unless it counts and no majority is here.

        With a common timer both halves of a broken network would otherwise call themselves whole
        after it.
        """
        member = self._view.members.get(timer.key)
        if member is None or member.incarnation != timer.token or member.is_reachable:
            return
        if self._electorate.may_forget(member):
            self._forget(member)
        else:
            wait_s = min(FORGET_RETRY_S, self._config.forget_after_s)
            self._timers.set(now + wait_s, timer)

    def _make_room(self) -> None:
        """Let the member that is gone for longest give its place to one that is there."""
        gone = self._electorate.longest_gone()
        if gone is not None:
            self._forget(gone)

    def _forget(self, member: MemberRecord) -> None:
        self._acquaintances.forget(member.name)
        self._events.emit(MemberForgotten(member=member))

    def on_updates(self, message: MemberUpdates, header: FrameHeader, now: float) -> None:
        """Apply membership news from a peer; answer one that held this node for lost."""
        before = self._view.record
        for piece in message.news:
            self.apply(MemberNews(piece.record, piece.suspector or header.name), now)
            gone = self._view.members.forgotten(piece.record.name)
            if gone is not None and gone.precedence() > piece.record.precedence():
                # It missed how this one went: it holds for Down what has left.
                self._outbox.send(header.address, MemberUpdates((MemberNews(gone),)))
        own = self._view.record
        if own.incarnation != before.incarnation:
            self._outbox.send(header.address, JoinRequest(own))
        elif own.version != before.version:
            self._outbox.send(header.address, MemberUpdates((MemberNews(own),)))

    # Evidence in frames

    def on_header(self, header: FrameHeader, now: float) -> bool:
        """Take the evidence of a frame's header.

        Returns:
            Whether the frame's messages are to be read; only join requests are otherwise.
        """
        if header.name == self._view.name:
            # Another start of this node, or its own packet come back; a claim's answer is both.
            return header.actor != self._view.actor and header.name in self._claims
        if self._refusals.hear(header.name, header.actor, now):
            self._electorate.take_back(header.name)
        known = self._view.members.get(header.name)
        if known is not None and known.actor == header.actor:
            self._detector.hear(header.name, now)
        if known is None or header.incarnation == known.incarnation:
            return True
        if header.actor != known.actor:
            return header.incarnation > known.incarnation
        if header.incarnation > known.incarnation and known.status is not MemberStatus.LEAVING:
            record = evolve(
                known,
                incarnation=header.incarnation,
                status=MemberStatus.ALIVE,
                address=header.address,
                version=next_version(known.version),
            )
            self.apply(MemberNews(record), now)
        return True

    def on_past_header(self, header: FrameHeader) -> None:
        """Tell a node that speaks in an incarnation that is over what is known of its name.

        It is one of two that have one name, or had: it would go on as a ghost that nobody
        answers. If the other lives it asks that one, and one of them gives way.
        """
        known = self._view.members.get(header.name)
        if known is not None and header.name != self._view.name:
            self._outbox.send(header.address, MemberUpdates((MemberNews(known, self._view.name),)))

    def on_ping(self, message: PingRequest, header: FrameHeader, now: float) -> None:
        """Learn of a node by its probe, and have it answered."""
        if message.sender.name == header.name != self._view.name:
            self._learn_of_sender(message.sender, header.address, now)
        self._detector.on_ping(message, header, now)

    def _learn_of_sender(self, sender: MemberRecord, address: str, now: float) -> None:
        """Learn of a node by its probe; tell one that is accused here, so that it refutes."""
        known = self._view.members.get(sender.name)
        if known is None or sender.precedence() > known.precedence():
            if known is None or known.actor == sender.actor or not known.is_reachable:
                self.apply(MemberNews(sender), now)
        elif known.precedence() > sender.precedence():
            self._outbox.send(address, MemberUpdates((MemberNews(known, self._view.name),)))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who was given up by others and may refute it."""
        return {"doubted": MappingProxyType(self._doubted), "has_joined": self.has_joined}

    def _check(self) -> None:
        """Assert that who is gone is forgotten some time, and who is doubted is suspected."""
        view = self._view
        ends = self._timers.of(TimerKind.FORGET)
        for member in view.members:
            if member.name != view.name and not member.is_reachable:
                timer = Timer(TimerKind.FORGET, member.name, member.incarnation)
                require(self, timer in ends, "a member that is gone is never forgotten")
        for name in self._doubted:
            known = view.members.get(name)
            is_suspected = known is not None and known.status is MemberStatus.SUSPECTED
            require(self, is_suspected, "a member is doubted and not suspected")
