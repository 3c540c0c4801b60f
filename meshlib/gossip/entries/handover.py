"""Leaving without taking along what nobody else has.

Rule this file owns: a node that leaves waits until ready members that stay have confirmed, since
it said so, everything that it held then and all that it has written itself since, or until nobody
is left in reach who could take it. Two that leave at once do not count on each other. How long it
waits at most is for the driver to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meshlib.gossip.entries.anti_entropy import AntiEntropy
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.events import LeaveDelayed
from meshlib.gossip.reports import EventQueue
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.replication import Replica, StabilityTracker

__all__ = ["Handover"]

TOLD_AFTER_S = 0.5
"""A leave that takes longer than this is told."""

ASK_S = 0.25
"""How often the others are asked again what they have."""


class Handover:
    """Watches over what a leaving node leaves behind.

    Args:
        replica: what is to be left behind.
        tracker: knows what others have confirmed.
        view: knows who is left.
        beginning: knows who is ready.
        anti_entropy: asks the others what they have.
        timers: let it ask again.
        events: hears of a leave that takes long.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        tracker: StabilityTracker,
        view: MembershipView,
        beginning: Beginning,
        anti_entropy: AntiEntropy,
        timers: TimerQueue,
        events: EventQueue,
    ) -> None:
        self._replica = replica
        self._tracker = tracker
        self._view = view
        self._beginning = beginning
        self._anti_entropy = anti_entropy
        self._timers = timers
        self._events = events
        self._owed: dict[ActorId, int] = {}
        self._own_sequence = 0
        self._since = 0.0
        self._is_told = False
        self._is_noted = False

    def start(self, now: float) -> None:
        """Take note of what this node holds at this moment, and ask who has it. O(actors)."""
        self._since = now
        self._note_owed()
        self._timers.set(now + ASK_S, Timer(TimerKind.HANDOVER))
        view = self._view
        for name in view.peer_names() if view.is_full_mesh() else view.neighbours():
            self._anti_entropy.begin(name, now)

    def _note_owed(self) -> None:
        """Take note of what is to be left behind, once a node that comes back has come back."""
        replica = self._replica
        self._is_noted = not replica.is_rejoining
        self._owed = dict(replica.version_vector)
        self._own_sequence = self._owed.get(replica.actor, 0)

    def _note_own_writes(self) -> None:
        """Take note of what this node has written since, such as what it mends. O(1)."""
        replica = self._replica
        sequence = replica.version_vector.get(replica.actor, 0)
        if sequence > self._own_sequence:
            self._own_sequence = self._owed[replica.actor] = sequence

    def is_done(self) -> bool:
        """Tell whether this node may go. O(members * what is not confirmed yet)."""
        waiting = self._settle()
        return not waiting or self._is_confirmed

    @property
    def _is_confirmed(self) -> bool:
        return self._is_noted and not self._owed and not self._replica.has_open_writes

    def on_handover_timer(self, _timer: Timer, now: float) -> None:
        """Ask again who has what is to be left behind; tell once that the leave takes long."""
        if self._view.is_leaving:
            return
        waiting = self._settle()
        if not waiting or self._is_confirmed:
            return
        if not self._is_told and now - self._since >= TOLD_AFTER_S:
            self._is_told = True
            self._events.emit(LeaveDelayed(peers=tuple(waiting)))
        self._timers.set(now + ASK_S, Timer(TimerKind.HANDOVER))
        for name in waiting:
            self._anti_entropy.begin(name, now)

    def _settle(self) -> list[str]:
        """Cross out what others have confirmed; return those who may still take the rest."""
        beginning = self._beginning
        if not self._is_noted:
            self._note_owed()
        self._note_own_writes()
        waiting: list[str] = []
        for member in self._view.peers():
            heard = beginning.heard_since(member.name, self._since)
            if heard is None:
                waiting.append(member.name)
                continue
            is_ready, is_leaving = heard
            if is_leaving:
                continue
            waiting.append(member.name)
            if is_ready or not beginning.is_ready:
                vector = self._tracker.vector(member.name) or {}
                self._owed = {a: n for a, n in self._owed.items() if vector.get(a, 0) < n}
        return waiting

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what is to be left behind, and since when."""
        return {
            "owed": MappingProxyType(self._owed),
            "since": self._since,
            "is_noted": self._is_noted,
            "is_told": self._is_told,
        }

    def _check(self) -> None:
        """Assert that only who leaves has something to leave behind."""
        view = self._view
        is_going = view.is_draining or view.is_leaving
        require(self, is_going or not self._owed, "a node that stays has something to leave behind")
        require(self, all(n > 0 for n in self._owed.values()), "nothing is to be left behind")
