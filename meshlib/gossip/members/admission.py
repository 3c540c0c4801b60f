"""Who is let in, and how this node gets in.

Rule this file owns: a newcomer is let in unless its name is held by a live node elsewhere, and
that one is asked before anybody is refused or suspected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import evolve

from meshlib.gossip.members.claims import NameClaims
from meshlib.gossip.members.dialler import Dialler
from meshlib.gossip.members.news import NEWS_PER_MESSAGE_MAX, NewsSpreader
from meshlib.gossip.members.own_record import OwnRecord
from meshlib.gossip.members.roster import Roster
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    JoinRequest,
    JoinResponse,
    MemberNews,
    MemberUpdates,
    PingResponse,
)
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.tables import TableComparison
from meshlib.gossip.timers import Timer
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import MemberRecord, MemberStatus

__all__ = ["Admission", "is_older"]

ENTRY_S: Final = 10.0
"""How long a table may take to arrive, in seconds, from whoever lets this node in.

When its last page was lost, what that peer tells later is news like any other's.
"""


def is_older(one: MemberRecord, other: MemberRecord) -> bool:
    """Tell which of two starts of one name began earlier, the same on every node."""
    return one.actor < other.actor


class Admission:
    """Lets newcomers in, and takes over the table of whoever lets this node in.

    Args:
        view: this node among its members.
        roster: applies what is learnt.
        own: gives way, or refutes, when this node's own name is claimed.
        claims: asks who has a name.
        dialler: asks to be let in.
        news: says again what nobody could hear before.
        tables: sends the table.
        outbox: takes answers.
    """

    def __init__(
        self,
        *,
        view: MembershipView,
        roster: Roster,
        own: OwnRecord,
        claims: NameClaims,
        dialler: Dialler,
        news: NewsSpreader,
        tables: TableComparison,
        outbox: Outbox,
    ) -> None:
        self._view = view
        self._roster = roster
        self._own = own
        self._claims = claims
        self._dialler = dialler
        self._news = news
        self._tables = tables
        self._outbox = outbox
        self._entry_peer = ""
        self._entry_ends_at = 0.0

    def join(self, seeds: Iterable[str], now: float) -> None:
        """Ask the seeds to let this node in, again and again until one does."""
        self._dialler.join(seeds, now)
        if not self._dialler.seeds:
            self._roster.has_joined = True

    def on_join_request(self, message: JoinRequest, _header: FrameHeader, now: float) -> None:
        """Let a node in, unless its name is held by a live node elsewhere."""
        claimant = message.sender
        if claimant.name == self._view.name:
            if claimant.actor == self._view.actor:
                return
            if is_older(claimant, self._view.record) and not self._view.peers():
                # Two that begin at once and know only each other: one of them has to give way,
                # once the other has answered.
                self._claims.open(self._view.record, claimant, now)
            else:
                self._send_conflict(claimant, self._view.record)
            return
        holder = self._view.members.get(claimant.name)
        if holder is None or holder.actor == claimant.actor or not holder.is_reachable:
            self._admit(claimant, now)
        elif holder.address == claimant.address:
            # The same address: the one before it is gone, or it could not listen there.
            self._admit(claimant, now)
        else:
            self._claims.open(claimant, holder, now)

    def on_ping_response(self, message: PingResponse, header: FrameHeader, now: float) -> None:
        """Refuse a claim: the holder of the name may be who has just answered."""
        claim = self._claims.answered(message.sequence, header)
        if claim is None:
            return
        holder = claim.holder
        if header.name != self._view.name:
            self._send_conflict(claim.claimant, holder)
        elif header.address == self._view.record.address:
            # An earlier start that was reached where this one is now: it is on its way out.
            self._own.refute(holder, now)
        elif is_older(holder, self._view.record) or (claim.is_notice and not self._view.peers()):
            self._own.lose_name(holder)
        else:
            # The older one keeps the name: the other hears of this one, asks it, and gives way.
            self._own.refute(holder, now)

    def on_claim_timer(self, timer: Timer, now: float) -> None:
        """Suspect a holder that did not answer: the claimant is let in once it is Down."""
        name = timer.key
        claim = self._claims.expired(name, timer.token)
        if claim is None or claim.is_notice:
            return
        if name == self._view.name:
            self._own.refute(claim.holder, now)
            return
        holder = self._view.members.get(name)
        if holder is not None and holder.actor == claim.holder.actor and holder.is_reachable:
            self._roster.suspect(holder, now)

    def _send_conflict(self, claimant: MemberRecord, holder: MemberRecord) -> None:
        notice = ConflictNotice(claimant.name, holder.address, claimant.incarnation)
        self._outbox.send(claimant.address, notice)

    def _admit(self, claimant: MemberRecord, now: float) -> None:
        self._roster.apply(MemberNews(claimant), now)
        known = self._view.members.get(claimant.name)
        if known is None or known.precedence() != claimant.precedence():
            # Older than what is known of the name: it learns so and moves above it.
            stale = known
            if stale is None and (gone := self._view.members.forgotten(claimant.name)) is not None:
                incarnation = max(claimant.incarnation, gone.incarnation)
                stale = evolve(claimant, status=MemberStatus.DOWN, incarnation=incarnation)
            if stale is not None:
                self._outbox.send(claimant.address, MemberUpdates((MemberNews(stale),)))
            return
        self._tables.send(claimant.address)

    def on_join_response(self, message: JoinResponse, header: FrameHeader, now: float) -> None:
        """Take over a page of a peer's table, and tell it what is newer here.

        What a node learns before it knows anybody needs no spreading: it has nobody to tell who
        does not know already.
        """
        self._roster.has_joined = True
        if not self._view.peers():
            self._entry_peer, self._entry_ends_at = header.name, now + ENTRY_S
        is_entering = self._entry_peer == header.name and now < self._entry_ends_at
        # News of this node itself last: an answer to it then reaches all that were just met.
        for record in sorted(message.members, key=lambda record: record.name == self._view.name):
            self._roster.apply(MemberNews(record, header.name), now, is_spread=not is_entering)
        if is_entering and message.until is None:
            self._entry_peer = ""
            # What this node had to say of itself before reached nobody whom it meets only now.
            self._news.spread_again(self._view.name, now)
        theirs = {r.name: (r.precedence(), r.version) for r in message.members}
        newer = [
            MemberNews(record, self._view.name)
            for record in self._view.members
            if message.speaks_of(record.name)
            and (record.precedence(), record.version) > theirs.get(record.name, ((-1, 0), 0))
        ]
        for start in range(0, len(newer), NEWS_PER_MESSAGE_MAX):
            batch = tuple(newer[start : start + NEWS_PER_MESSAGE_MAX])
            self._outbox.send(header.address, MemberUpdates(batch))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who lets this node in just now; empty when nobody does."""
        return {"entry_peer": self._entry_peer, "entry_ends_at": self._entry_ends_at}

    def _check(self) -> None:
        """Assert that this node is not let in by itself."""
        require(self, self._entry_peer != self._view.name, "this node is let in by itself")
