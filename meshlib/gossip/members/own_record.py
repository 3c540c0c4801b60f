"""What this node says of itself, and what it does about what others say of it.

Rules this file owns:
- News about this node itself is never applied: an accusation is refuted by a higher
  incarnation, and a foreign claim to this node's name is verified before anyone gives way.
- It says `Alive` of itself until it says goodbye.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from meshlib.gossip.events import NameConflict, Refuted
from meshlib.gossip.members.claims import NameClaims
from meshlib.gossip.members.news import NewsSpreader
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import ConflictNotice, MemberNews, MemberUpdates
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.tables import TableComparison
from meshlib.gossip.view import MembershipView
from meshlib.identity import is_start_of
from meshlib.invariants import require
from meshlib.membership import LocalHealth, MemberRecord, MemberStatus

__all__ = ["OwnRecord"]


class OwnRecord:
    """Refutes, counts on, says goodbye, and knows when this node's name is another's.

    Args:
        view: has the record.
        claims: asks others who claim this node's name.
        news: spreads what changed.
        tables: hears of changes.
        health: suffers from accusations.
        outbox: takes goodbyes.
        events: hears of refutations and of the loss of the name.
        counters: counts refutations.
    """

    __slots__ = (
        "_claims", "_counters", "_events", "_health", "_news", "_outbox", "_tables", "_view",
        "has_conflict",
    )  # fmt: skip

    def __init__(
        self,
        *,
        view: MembershipView,
        claims: NameClaims,
        news: NewsSpreader,
        tables: TableComparison,
        health: LocalHealth,
        outbox: Outbox,
        events: EventQueue,
        counters: Counters,
    ) -> None:
        self._view = view
        self._claims = claims
        self._news = news
        self._tables = tables
        self._health = health
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self.has_conflict = False

    def hear(self, record: MemberRecord, now: float) -> None:
        """Take what another says of this node."""
        own = self._view.record
        if self._view.is_leaving or record.precedence() <= own.precedence():
            if record.version > own.version:
                self._take_version(record, now)
            return
        if record.actor == own.actor or record.address == own.address:
            self.refute(record, now)
        elif record.status is MemberStatus.ALIVE:
            # Old news of an earlier start with a faster clock, or another live node? Ask it.
            self._claims.open(own, record, now)
        else:
            self.refute(record, now)

    def _take_version(self, record: MemberRecord, now: float) -> None:
        """Count on from what an earlier start of this node had reached: this start is a change."""
        own = self._view.change_own_record(now, seen_version=record.version)
        self._news.spread(MemberNews(own), now)

    def refute(self, accusation: MemberRecord, now: float) -> None:
        """Rise above an accusation. Source: SWIM section 4.2."""
        incarnation = max(self._view.record.incarnation, accusation.incarnation) + 1
        record = self._view.change_own_record(
            now, seen_version=accusation.version, incarnation=incarnation
        )
        self._counters.refutations += 1
        self._health.adjust(1)
        self._tables.note_change(now)
        self._events.emit(Refuted(incarnation=incarnation))
        self._news.spread(MemberNews(record), now)

    def on_conflict_notice(self, message: ConflictNotice, _header: FrameHeader, now: float) -> None:
        """Ask whom a notice says to have this node's name, if it means this start.

        Nobody gives way to a notice: it may be damaged, old or wrong. This node ends only when
        another process answers under its name, from another address.
        """
        record = self._view.record
        is_meant = message.name == record.name and message.incarnation == record.incarnation
        if is_meant and message.address != record.address and not self._view.is_leaving:
            holder = evolve(record, address=message.address)
            self._claims.open(record, holder, now, is_notice=True)

    def lose_name(self, holder: MemberRecord) -> None:
        """Tell, once, that the name is another process's."""
        if not self.has_conflict:
            self.has_conflict = True
            self._events.emit(NameConflict(name=holder.name, address=holder.address))

    def leave(self, now: float) -> None:
        """Say goodbye to every peer at once."""
        record = self._view.change_own_record(now, status=MemberStatus.LEAVING)
        self._view.is_leaving = True
        for member in self._view.peers():
            self._outbox.send(member.address, MemberUpdates((MemberNews(record),)))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what this node says of itself, and whether its name is another's."""
        return {"record": self._view.record, "has_conflict": self.has_conflict}

    def _check(self) -> None:
        """Assert that the goodbye and what the record says agree."""
        is_left = self._view.record.status is MemberStatus.LEAVING
        require(self, is_left == self._view.is_leaving, "the record and the goodbye differ")
        own = self._view.record
        is_readable = is_start_of(own.actor, name=own.name, incarnation=own.incarnation)
        require(self, is_readable, "no peer would read this node's record")
