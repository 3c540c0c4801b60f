"""Deliberate bugs that hurt nobody at once: each is found by the check of the part that has it.

A count that drifts, a timer that is not set, something kept of who is gone: the other parts make
up for these, and no checker that watches from outside sees them before a node has run for weeks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from meshlib.gossip.entries.anti_entropy import AntiEntropy
from meshlib.gossip.entries.dissemination import Dissemination
from meshlib.gossip.entries.state_transfer import StateTransfer
from meshlib.gossip.members.dialler import Dialler
from meshlib.gossip.members.news import NewsSpreader
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.tables import TableComparison
from meshlib.gossip.timers import Timer, TimerKind
from meshlib.gossip.upkeep import Upkeep
from meshlib.gossip.view import MembershipView
from meshlib.ratelimit import RateLimiter
from meshlib.replication import StabilityTracker
from meshlib.replication.entries.gap_buffer import GapBuffer
from meshlib.replication.intake import Intake
from meshlib.replication.transfers.arrivals import Arrivals, _Gathered

__all__ = ["PLANTED", "Planted"]

Patch = Callable[[object, str, Any], None]
"""`monkeypatch.setattr`."""


@frozen(slots=True)
class Planted:
    """One bug.

    Args:
        part: the class that has it, and whose check finds it.
        plant: puts it in.
    """

    part: type
    plant: Callable[[Patch], None]


def after(patch: Patch, owner: Any, name: str, spoil: Callable[..., None]) -> None:
    """Let `spoil` happen after each call of a method, with the same arguments."""
    method = getattr(owner, name)

    def broken(self: Any, *arguments: Any, **named: Any) -> Any:
        result = method(self, *arguments, **named)
        spoil(self, *arguments)
        return result

    patch(owner, name, broken)


def look_again_once(patch: Patch) -> None:
    """What was pushed and not acknowledged is looked at once, and never again."""

    def broken(self: Any, timer: Any, now: float) -> None:
        arm, self._arm_push = self._arm_push, lambda: None
        on_push_timer(self, timer, now)
        self._arm_push = arm

    on_push_timer = Dissemination.on_push_timer
    patch(Dissemination, "on_push_timer", broken)


def compare_with_the_gone(patch: Patch) -> None:
    """When vectors were compared last is kept of members that are forgotten."""

    def broken(self: Any, name: str) -> None:
        self._catching_up.pop(name, None)
        self._told.pop(name, None)
        self.diverged_from.pop(name, None)

    patch(AntiEntropy, "forget", broken)


def send_for_ever(patch: Patch) -> None:
    """A transfer is never given up whose receiver falls silent."""

    def broken(self: Any, timer: Any, now: float) -> None:
        pass

    patch(StateTransfer, "on_transfer_out_timer", broken)


def miscount_what_waits(patch: Patch) -> None:
    """What is taken out of the gap buffer still counts for its size."""

    def broken(self: Any, waiting: Any, index: int) -> None:
        waiting.entries.pop(index)

    patch(GapBuffer, "_remove", broken)


def never_count_down(patch: Patch) -> None:
    """What was sent still counts against a destination's queue, until that is full for ever."""

    def broken(self: Any, header: Any, *, bytes_max: int) -> Any:
        counted = dict(self._bytes)
        packets = drain(self, header, bytes_max=bytes_max)
        self._bytes = counted
        return packets

    drain = Outbox.drain
    patch(Outbox, "drain", broken)


def wait_for_what_was_reached(patch: Patch) -> None:
    """A vector that was reached is waited for all the same, and keeps newer ones out."""

    def spoil(peer: Any, our_vector: Any) -> None:
        settle(peer, our_vector)
        if peer.newest is peer.reached:
            peer.waiting = peer.reached

    settle = StabilityTracker._settle
    patch(StabilityTracker, "_settle", staticmethod(spoil))


def say_news_once(patch: Patch) -> None:
    """News goes out at once, and the rounds that repeat it are never begun."""

    def spoil(self: Any, *_: Any) -> None:
        self._is_gossip_armed = False

    after(patch, NewsSpreader, "spread", spoil)


def dial_once_more_each_time(patch: Patch) -> None:
    """Each healing dial begins a second chain of dials."""

    def spoil(self: Any, _timer: Any, now: float) -> None:
        self._timers.set(now + self._config.heal_interval_s, Timer(TimerKind.HEAL))

    after(patch, Dialler, "on_heal_timer", spoil)


def hash_those_in_reach(patch: Patch) -> None:
    """The table's hash is kept while the same members are in reach, whatever is new of them."""
    hashed_at: dict[int, tuple[Any, int]] = {}

    def broken(self: Any, now: float) -> int:
        members = self._view.members
        if hashed_at.get(id(self)) == (self, members.reachable_revision):
            self._revision = members.revision
        result = int(hashed(self, now))
        if result:
            hashed_at[id(self)] = self, members.reachable_revision
        return result

    hashed = TableComparison.hash
    patch(TableComparison, "hash", broken)


def maintain_twice_after_a_rejoin(patch: Patch) -> None:
    """Coming back sets a second chain of maintenance going."""

    def spoil(self: Any, now: float) -> None:
        self._timers.set(now + 1.0, Timer(TimerKind.MAINTENANCE))

    after(patch, Upkeep, "rejoin", spoil)


def remember_peers_by_reach(patch: Patch) -> None:
    """The peers' records are looked up anew only when somebody comes or goes."""

    def broken(self: Any) -> Any:
        if self._names_revision == self.members.reachable_revision:
            self._peers_revision = self.members.revision
        return peers(self)

    peers = MembershipView.peers
    patch(MembershipView, "peers", broken)


def hold_for_nothing(patch: Patch) -> None:
    """A writer counts as held up for ever, though nothing of it waits any more."""
    hold = Intake._hold

    def broken(self: Any, entry: Any, error: Any) -> None:
        hold(self, entry, error)
        self._parts.gaps.drop(entry.actor)

    def finish_without_pruning(self: Any, received: Any, actors: Any) -> Any:
        held, self._held = self._held, set()
        result = finish(self, received, actors)
        self._held = held
        return result

    finish = Intake._finish
    patch(Intake, "_hold", broken)
    patch(Intake, "_finish", finish_without_pruning)


def gather_into_what_is_held(patch: Patch) -> None:
    """The pages of a transfer are joined as they come, without the vector that counts them."""

    def broken(self: Any, name: str, content: Any, arrival: Any) -> Any:
        held = self._parts.documents.find(name)
        if held is not None and name not in arrival.documents:
            arrival.documents[name] = _Gathered(held)
        return gather(self, name, content, arrival)

    gather = Arrivals._gather
    patch(Arrivals, "_gather", broken)


def go_on_asking(patch: Patch) -> None:
    """A question that was answered still counts as one that is under way."""

    def spoil(self: Any, tracked: Any, *_arguments: Any) -> None:
        self._asking[tracked.number] = tracked

    after(patch, RateLimiter, "_learn", spoil)


PLANTED = tuple(
    Planted(part, plant)
    for part, plant in (
        (Dissemination, look_again_once),
        (AntiEntropy, compare_with_the_gone),
        (StateTransfer, send_for_ever),
        (GapBuffer, miscount_what_waits),
        (Outbox, never_count_down),
        (StabilityTracker, wait_for_what_was_reached),
        (NewsSpreader, say_news_once),
        (Dialler, dial_once_more_each_time),
        (MembershipView, remember_peers_by_reach),
        (Upkeep, maintain_twice_after_a_rejoin),
        (Intake, hold_for_nothing),
        (Arrivals, gather_into_what_is_held),
        (TableComparison, hash_those_in_reach),
        (RateLimiter, go_on_asking),
    )
)
