"""What a node does for itself now and then: trimming, collecting, and renewing its identity.

Rules this file owns:
- A node that was out of contact for longer than half the time after which others forget it comes
  back as a new writer, without being told.
- Removals are collected only by a node that has run for longer than that time: before, somebody
  it has never met may still hold an older write.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meshlib.gossip.config import GossipConfig
from meshlib.gossip.entries.anti_entropy import AntiEntropy
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.entries.dissemination import Dissemination
from meshlib.gossip.entries.state_transfer import StateTransfer
from meshlib.gossip.events import IdentityRenewed
from meshlib.gossip.members.news import NewsSpreader
from meshlib.gossip.messages.kinds import MemberNews
from meshlib.gossip.reports import EventQueue
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.membership import MemberStatus
from meshlib.replication import (
    ActorForgotten,
    IdentityStolen,
    Replica,
    ReplicaEvent,
    StabilityTracker,
)

__all__ = ["Upkeep"]

MAINTENANCE_S = 1.0
"""Between two rounds of trimming and collecting."""


class Upkeep:
    """Keep the replica small and the node's identity its own.

    Args:
        config: the settings.
        rng: how far a new identity is from the old one.
        replica: what is kept small.
        tracker: knows what the peers have.
        view: has this node's record.
        dissemination: is told what released entries did.
        anti_entropy: begins anew after the identity was renewed.
        transfer: breaks off what goes on then.
        beginning: is told that this node is not ready any more then.
        news: spreads the renewed record.
        timers: let it look again.
        events: hears what became of this node's identity.
        now: monotonic seconds.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        replica: Replica,
        tracker: StabilityTracker,
        view: MembershipView,
        dissemination: Dissemination,
        anti_entropy: AntiEntropy,
        transfer: StateTransfer,
        beginning: Beginning,
        news: NewsSpreader,
        timers: TimerQueue,
        events: EventQueue,
        now: float,
    ) -> None:
        self._config = config
        self._rng = rng
        self._replica = replica
        self._tracker = tracker
        self._view = view
        self._dissemination = dissemination
        self._anti_entropy = anti_entropy
        self._transfer = transfer
        self._beginning = beginning
        self._news = news
        self._timers = timers
        self._events = events
        self._started = now
        self._heard_at: float | None = None
        self._orphans: dict[ActorId, float] = {}
        self._timers.set(now + MAINTENANCE_S, Timer(TimerKind.MAINTENANCE))

    def note_contact(self, now: float) -> None:
        """Come back as a new writer when the others may have forgotten what this one has.

        Half of their time, because they count from when they lost this node and it counts from
        when it heard them last.
        """
        heard_at, self._heard_at = self._heard_at, now
        if heard_at is not None and now - heard_at > self._config.forget_after_s / 2:
            self.rejoin(now, contact_at=heard_at)

    def rejoin(self, now: float, *, contact_at: float, was_present: bool = False) -> None:
        """Become a new writer: adopt a peer's state, and write again what only this node has.

        Args:
            now: monotonic seconds.
            contact_at: when this node was last in contact with the others; may be before 0.
            was_present: whether it was never out of contact: see `Replica.begin_rejoin`.
        """
        old = self._view.actor
        incarnation, new = self._view.next_identity(self._rng)
        self._replica.begin_rejoin(new, was_present=was_present)
        record = self._view.change_own_record(now, actor=new, incarnation=incarnation)
        self._transfer.restart()
        self._anti_entropy.restart()
        self._beginning.restart(now, contact_at=contact_at)
        self._news.spread(MemberNews(record), now)
        self._events.emit(IdentityRenewed(old=old, new=new))

    def on_replica_event(self, event: ReplicaEvent, now: float) -> None:
        """Take a new identity when the present one is no longer this node's alone."""
        self._events.emit(event)
        if (
            isinstance(event, IdentityStolen | ActorForgotten)
            and event.actor == self._view.actor
            and not self._replica.is_rejoining
        ):
            # A stolen number tells nothing of an absence; having been forgotten does.
            was_present = isinstance(event, IdentityStolen)
            self.rejoin(now, contact_at=now, was_present=was_present)

    def _forget_writers(self, now: float) -> None:
        """Take writers out of the vector whose starts have long been over. O(actors)."""
        current = {member.actor for member in self._view.members}
        vector = self._replica.version_vector
        self._orphans = {
            actor: self._orphans.get(actor, now)
            for actor in vector
            if actor not in current and actor != self._view.actor
        }
        old = now - self._config.forget_after_s
        reachable = [member.name for member in self._view.peers()]
        due = [actor for actor, since in self._orphans.items() if since <= old]
        if due:
            stable = self._tracker.stable(reachable, our_vector=vector)
            for actor in due:
                if stable.get(actor, 0) >= vector.get(actor, 0):
                    self._replica.forget(actor)

    def on_maintenance_timer(self, _timer: Timer, now: float) -> None:
        """Release what waited, trim the log, collect removals, forget writers, and more."""
        self._dissemination.report(self._replica.release())
        replica, tracker = self._replica, self._tracker
        ours = replica.version_vector
        # A member that is Down counts until it is forgotten: it may still come back.
        everyone = [
            member.name
            for member in self._view.members
            if member.name != self._view.name and member.status is not MemberStatus.LEAVING
        ]
        if everyone:
            # What only this node has is kept for those it meets; the log's limit bounds it.
            replica.trim(tracker.stable(everyone, our_vector=ours))
        if now - self._started >= self._config.forget_after_s:
            # Before that somebody whom this start never met may still hold an older write.
            replica.collect_tombstones(tracker.settled(everyone, our_vector=ours), now=now)
        replica.write_late()
        self._forget_writers(now)
        self._timers.set(now + MAINTENANCE_S, Timer(TimerKind.MAINTENANCE))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show since when this node runs, whom it heard when, and whose writers are gone."""
        return {
            "started": self._started,
            "heard_at": self._heard_at,
            "orphans": MappingProxyType(self._orphans),
        }

    def _check(self) -> None:
        """Assert that maintenance goes on, once, and that this node is not among the gone."""
        rounds = self._timers.of(TimerKind.MAINTENANCE)
        require(self, len(rounds) == 1, "maintenance is not due once")
        require(self, self._view.actor not in self._orphans, "this node's writer counts as gone")
