"""Joining, leaving, refuting: how membership news is applied and spread.

Rules this file owns:
- Every change of the member table passes through `Roster.apply`, which tells the driver, starts
  or ends suspicions, and spreads what was new.
- News about this node itself is never applied: an accusation is refuted by a higher
  incarnation, and a foreign claim to this node's name is verified before anyone gives way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from attrs import evolve

from meshlib.codec import pack
from meshlib.gossip.context import Context, Timer
from meshlib.gossip.events import (
    MemberDown,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    MemberSuspected,
    NameConflict,
    Refuted,
)
from meshlib.gossip.members.claims import NameClaims
from meshlib.gossip.members.dialler import Dialler
from meshlib.gossip.members.failure_detector import FailureDetector
from meshlib.gossip.members.news import NEWS_PER_MESSAGE_MAX, NewsSpreader
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    JoinRequest,
    JoinResponse,
    MemberNews,
    MemberUpdates,
    table_pages,
)
from meshlib.hashing import hash64
from meshlib.membership import MemberRecord, MemberStatus, next_version

__all__ = ["Roster", "is_older"]

QUIET_S = 3.0
"""Tables are compared only when they have been still for this long: news is not yet everywhere."""


def is_older(one: MemberRecord, other: MemberRecord) -> bool:
    """Tell which of two starts of one name began earlier, the same on every node."""
    return one.actor < other.actor


class Roster:
    """Apply and spread membership news.

    Args:
        context: the engine's shared state.
        on_member_met: called with the name of a member that has just come into reach, so that
            state is exchanged with it.
    """

    def __init__(self, context: Context, *, on_member_met: Callable[[str, float], None]) -> None:
        self._context = context
        self._on_member_met = on_member_met
        self.detector = FailureDetector(context, announce=self._announce)
        self.news = NewsSpreader(context)
        self.dialler = Dialler(context)
        self._claims = NameClaims(context)
        self._changed_at = -math.inf
        self._doubted: dict[str, int] = {}
        self._entry_peer = ""
        self._table_hash = 0
        self._table_revision = -1
        self.has_joined = False
        self.has_conflict = False

    def start(self, now: float) -> None:
        """Enter this node's own record and begin to probe and to heal."""
        context = self._context
        context.members.apply(context.record, now=now)
        self.detector.start(now)
        self.dialler.start(now)

    # Joining

    def join(self, seeds: Iterable[str], now: float) -> None:
        """Ask the seeds to let this node in, again and again until one does."""
        self.dialler.join(seeds, now)
        self.has_joined = self.has_joined or not self.dialler.seeds

    def on_join_request(self, message: JoinRequest, now: float) -> None:
        """Let a node in, unless its name is held by a live node elsewhere."""
        context = self._context
        claimant = message.sender
        if claimant.name == context.name:
            if claimant.actor == context.actor:
                return
            if is_older(claimant, context.record) and not context.peers():
                # Two that begin at once and know only each other: one of them has to give way,
                # once the other has answered.
                self._claims.open(context.record, claimant, now)
            else:
                self._send_conflict(claimant, context.record)
            return
        holder = context.members.get(claimant.name)
        if holder is None or holder.actor == claimant.actor or not holder.is_reachable:
            self._admit(claimant, now)
        elif holder.address == claimant.address:
            # The same address: the one before it is gone, or it could not listen there.
            self._admit(claimant, now)
        else:
            self._claims.open(claimant, holder, now)

    def on_claim_answered(self, sequence: int, header: FrameHeader, now: float) -> None:
        """Refuse a claim: the holder of the name has just answered."""
        claim = self._claims.answered(sequence, header)
        if claim is None:
            return
        context = self._context
        holder = claim.holder
        if header.name != context.name:
            self._send_conflict(claim.claimant, holder)
        elif header.address == context.record.address:
            # An earlier start that was reached where this one is now: it is on its way out.
            self._refute(holder, now)
        elif is_older(holder, context.record) or (claim.is_notice and not context.peers()):
            self._lose_name(holder)
        else:
            # The older one keeps the name: the other hears of this one, asks it, and gives way.
            self._refute(holder, now)

    def on_claim_timer(self, name: str, sequence: int, now: float) -> None:
        """Suspect a holder that did not answer: the claimant is let in once it is Down."""
        claim = self._claims.expired(name, sequence)
        if claim is None or claim.is_notice:
            return
        if name == self._context.name:
            self._refute(claim.holder, now)
            return
        holder = self._context.members.get(name)
        if holder is not None and holder.actor == claim.holder.actor and holder.is_reachable:
            self.detector.suspect(holder, self._context.name, now)

    def on_pause(self, late_s: float, now: float) -> None:
        """Accuse nobody after this process was stopped."""
        self._claims.clear()
        self.detector.on_pause(late_s, now)

    def _send_conflict(self, claimant: MemberRecord, holder: MemberRecord) -> None:
        notice = ConflictNotice(claimant.name, holder.address, claimant.incarnation)
        self._context.send(claimant.address, notice)

    def on_conflict_notice(self, message: ConflictNotice, now: float) -> None:
        """Ask whom a notice says to have this node's name, if it means this start.

        Nobody gives way to a notice: it may be damaged, old or wrong. This node ends only when
        another process answers under its name, from another address.
        """
        record = self._context.record
        is_meant = message.name == record.name and message.incarnation == record.incarnation
        if is_meant and message.address != record.address and not self._context.is_leaving:
            holder = evolve(record, address=message.address)
            self._claims.open(record, holder, now, is_notice=True)

    def _lose_name(self, holder: MemberRecord) -> None:
        if not self.has_conflict:
            self.has_conflict = True
            self._context.emit(NameConflict(name=holder.name, address=holder.address))

    def _admit(self, claimant: MemberRecord, now: float) -> None:
        context = self._context
        self.apply(MemberNews(claimant), now)
        known = context.members.get(claimant.name)
        if known is None or known.precedence() != claimant.precedence():
            # Older than what is known of the name: it learns so and moves above it.
            stale = known
            if stale is None and (gone := context.members.forgotten(claimant.name)) is not None:
                incarnation = max(claimant.incarnation, gone.incarnation)
                stale = evolve(claimant, status=MemberStatus.DOWN, incarnation=incarnation)
            if stale is not None:
                context.send(claimant.address, MemberUpdates((MemberNews(stale),)))
            return
        self._send_table(claimant.address)

    def _send_table(self, address: str) -> None:
        """Send all that is known of the members, in as many messages as it takes."""
        context = self._context
        for page in table_pages(context.members, bytes_max=context.config.packet_bytes_max):
            context.send(address, page)

    def on_join_response(self, message: JoinResponse, header: FrameHeader, now: float) -> None:
        """Take over a page of a peer's table, and tell it what is newer here.

        What a node learns before it knows anybody needs no spreading: it has nobody to tell who
        does not know already.
        """
        context = self._context
        self.has_joined = True
        if not context.peers():
            self._entry_peer = header.name
        is_entering = self._entry_peer == header.name
        # News of this node itself last: an answer to it then reaches all that were just met.
        for record in sorted(message.members, key=lambda record: record.name == context.name):
            self.apply(MemberNews(record, header.name), now, is_spread=not is_entering)
        if is_entering and message.until is None:
            self._entry_peer = ""
            # What this node had to say of itself before reached nobody whom it meets only now.
            self.news.spread_again(context.name, now)
        theirs = {r.name: (r.precedence(), r.version) for r in message.members}
        newer = [
            MemberNews(record, context.name)
            for record in context.members
            if message.speaks_of(record.name)
            and (record.precedence(), record.version) > theirs.get(record.name, ((-1, 0), 0))
        ]
        for start in range(0, len(newer), NEWS_PER_MESSAGE_MAX):
            batch = tuple(newer[start : start + NEWS_PER_MESSAGE_MAX])
            context.send(header.address, MemberUpdates(batch))

    def leave(self, now: float) -> None:
        """Say goodbye to every peer at once."""
        context = self._context
        record = context.update_own_record(status=MemberStatus.LEAVING)
        context.members.apply(record, now=now)
        context.is_leaving = True
        for member in context.peers():
            context.send(member.address, MemberUpdates((MemberNews(record),)))

    # News

    def apply(self, news: MemberNews, now: float, *, is_spread: bool = True) -> None:
        """Apply one piece of news: the one way into the table. Spread it if it was news."""
        record = news.record
        context = self._context
        if record.name == context.name:
            self._hear_of_self(record, now)
            return
        before = context.members.get(record.name)
        if (
            record.status is MemberStatus.DOWN
            and before is not None
            and before.incarnation == record.incarnation
            and news.suspector
            and (
                before.status is MemberStatus.ALIVE
                or self._doubted.get(record.name) == record.incarnation
            )
        ):
            # Others gave up a member that answers here: it is to have its chance to refute,
            # however many of them say so, or two halves that meet again would declare each
            # other's members Down.
            self._doubted[record.name] = record.incarnation
            record = evolve(record, status=MemberStatus.SUSPECTED)
        if (
            record.status is MemberStatus.SUSPECTED
            and before is not None
            and before.precedence() == record.precedence()
        ):
            self.detector.suspect(before, news.suspector, now)
        applied = context.members.apply(record, now=now)
        if applied is None:
            return
        self._changed_at = now
        if before is None or before.precedence() != applied.precedence():
            self._tell(before, applied, news.suspector, now)
            if is_spread:
                self.news.spread(MemberNews(applied, news.suspector), now)
            self.has_joined = self.has_joined or applied.is_reachable

    def _announce(self, record: MemberRecord, suspector: str, now: float) -> None:
        """Apply and spread what the failure detector found."""
        known = self._context.members.get(record.name)
        if known is not None and known.precedence() == record.precedence():
            self.news.spread(MemberNews(known, suspector), now)
        else:
            self.apply(MemberNews(record, suspector), now)

    def _tell(
        self, before: MemberRecord | None, member: MemberRecord, suspector: str, now: float
    ) -> None:
        """Tell the driver of a change, and start or end what depends on it."""
        context = self._context
        status = member.status
        if status is MemberStatus.SUSPECTED:
            if before is None or not before.is_reachable:
                context.emit(MemberJoined(member=member))
            context.emit(MemberSuspected(member=member, suspector=suspector))
            self.detector.on_suspected(member, suspector or context.name, now)
            return
        self.detector.on_settled(member.name)
        self._doubted.pop(member.name, None)
        if status is MemberStatus.ALIVE:
            if before is not None and before.status is MemberStatus.SUSPECTED:
                context.emit(MemberRecovered(member=member))
            elif before is None or not before.is_reachable:
                context.emit(MemberJoined(member=member))
            if before is None or not before.is_reachable or before.actor != member.actor:
                context.tracker.forget(member.name)
                self._on_member_met(member.name, now)
            return
        if status is MemberStatus.DOWN:
            context.emit(MemberDown(member=member))
            wait_s = context.config.forget_after_s
        else:
            context.emit(MemberLeft(member=member))
            wait_s = context.config.leave_forget_s
        context.timers.set(now + wait_s, Timer("forget", member.name, member.incarnation))

    def on_forget_timer(self, name: str, incarnation: int) -> None:
        """Forget a member that has been gone for long."""
        member = self._context.members.get(name)
        if member is None or member.incarnation != incarnation or member.is_reachable:
            return
        self._context.members.forget(name)
        self._context.tracker.forget(name)
        self._context.emit(MemberForgotten(member=member))

    def _hear_of_self(self, record: MemberRecord, now: float) -> None:
        context = self._context
        own = context.record
        if context.is_leaving or record.precedence() <= own.precedence():
            if record.version > own.version:
                self._take_version(record, now)
            return
        if record.actor == own.actor or record.address == own.address:
            self._refute(record, now)
        elif record.status is MemberStatus.ALIVE:
            # Old news of an earlier start with a faster clock, or another live node? Ask it.
            self._claims.open(own, record, now)
        else:
            self._refute(record, now)

    def _take_version(self, record: MemberRecord, now: float) -> None:
        """Count on from what an earlier start of this node had reached: this start is a change."""
        context = self._context
        context.record = evolve(context.record, version=record.version)
        context.update_own_record()
        context.members.apply(context.record, now=now)
        self.news.spread(MemberNews(context.record), now)

    def _refute(self, accusation: MemberRecord, now: float) -> None:
        """Rise above an accusation. Source: SWIM section 4.2."""
        context = self._context
        own = context.record
        incarnation = max(own.incarnation, accusation.incarnation) + 1
        context.record = evolve(own, version=max(own.version, accusation.version))
        record = context.update_own_record(incarnation=incarnation)
        context.members.apply(record, now=now)
        context.counters.refutations += 1
        self.detector.health.adjust(1)
        self._changed_at = now
        context.emit(Refuted(incarnation=incarnation))
        self.news.spread(MemberNews(record), now)

    def on_updates(self, message: MemberUpdates, header: FrameHeader, now: float) -> None:
        """Apply membership news from a peer; answer one that held this node for lost."""
        context = self._context
        before = context.record
        for piece in message.news:
            self.apply(MemberNews(piece.record, piece.suspector or header.name), now)
            gone = context.members.forgotten(piece.record.name)
            if gone is not None and gone.precedence() > piece.record.precedence():
                # It missed how this one went: it holds for Down what has left.
                context.send(header.address, MemberUpdates((MemberNews(gone),)))
        own = self._context.record
        if own.incarnation != before.incarnation:
            self._context.send(header.address, JoinRequest(own))
        elif own.version != before.version:
            self._context.send(header.address, MemberUpdates((MemberNews(own),)))

    # Evidence in frames

    def on_header(self, header: FrameHeader, now: float) -> bool:
        """Take the evidence of a frame's header.

        Returns:
            Whether the frame's messages are to be read; only join requests are otherwise.
        """
        context = self._context
        if header.name == context.name:
            # Another start of this node, or its own packet come back; a claim's answer is both.
            return header.actor != context.actor and header.name in self._claims
        known = context.members.get(header.name)
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
        context = self._context
        known = context.members.get(header.name)
        if known is not None and header.name != context.name:
            context.send(header.address, MemberUpdates((MemberNews(known, context.name),)))

    def on_ping_from(self, sender: MemberRecord, address: str, now: float) -> None:
        """Learn of a node by its probe; tell one that is accused here, so that it refutes."""
        context = self._context
        known = context.members.get(sender.name)
        if known is None or sender.precedence() > known.precedence():
            if known is None or known.actor == sender.actor or not known.is_reachable:
                self.apply(MemberNews(sender), now)
        elif known.precedence() > sender.precedence():
            context.send(address, MemberUpdates((MemberNews(known, context.name),)))

    # Comparison of tables

    def table_hash(self, now: float) -> int:
        """Hash the members in reach; 0 while news may still be on its way. O(n) after a change."""
        if now - self._changed_at < QUIET_S:
            return 0
        members = self._context.members
        if self._table_revision != members.revision:
            rows = [
                (member.name, member.incarnation, member.status.value, member.version)
                for member in members.reachable()
            ]
            self._table_hash = hash64(pack(rows)) or 1
            self._table_revision = members.revision
        return self._table_hash

    def compare_table(self, their_hash: int, address: str, now: float) -> None:
        """Send the whole table to a peer whose quiet table differs from this quiet one."""
        own_hash = self.table_hash(now)
        if their_hash and own_hash and their_hash != own_hash:
            self._send_table(address)

    def _check(self) -> None:
        """Assert the invariants of the roster."""
        context = self._context
        own = context.members.get(context.name)
        assert own is not None
        assert own == context.record, (own, context.record)
        assert context.is_leaving or own.status is MemberStatus.ALIVE, own
        self._claims._check()  # noqa: SLF001 - invariants reach inside on purpose
        context.members._check()  # noqa: SLF001 - invariants reach inside on purpose
        self.detector._check()  # noqa: SLF001 - likewise
