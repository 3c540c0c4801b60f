"""Whom a node dials without knowing whether anybody is there: seeds, and members out of reach.

Rule this file owns: Down members and seeds are dialled for ever, at a rate that does not grow with
the cluster. Those who went a moment ago, in whatever way, far more often: they may have been
restarted, know nobody, and listen for no longer than half an interval. As often those who have been
gone for longer, while they are few, for that may be when they come back. Who looks for somebody
that is ready asks whoever shows by a frame that it is: that one knew this node's earlier start, and
may be the only one that has the state, and be no seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from meshlib.errors import check_several
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import JoinRequest, SeedAnswer, SeedQuestion
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue, jittered
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import MemberStatus, ToldAddresses

__all__ = ["Dialler"]

LATELY_S = 60.0
"""How long a member counts as gone of late, in seconds: as long as a restart may take."""

LOOKS = 4
"""How often in each interval those are dialled who are gone of late."""

DIALS_PER_LOOK = 3
"""How often each of them is dialled then, by all together, about: of two, as in a restart. Of more
each less often, for they are elsewhere, and need one dial to be found."""

FEW = 2
"""So many who have been gone for longer, or seeds at which nobody is, are dialled as often. More of
them are another side of the cluster, to meet at one place, or names that nobody has any more."""


GREETED_MAX = 16
"""Strangers that are remembered, so that each is asked once in a while and not for each frame."""

GREETED_S = 0.5
"""When a stranger is asked again, in seconds."""


class Dialler:
    """Asks to be let in where others may be: at first, and whenever an island may have formed.

    Args:
        config: the settings.
        rng: when it dials, and whom.
        view: knows who is in reach.
        told: knows under which addresses nobody was met yet.
        timers: let it dial again.
        outbox: takes what it asks.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        view: MembershipView,
        told: ToldAddresses,
        timers: TimerQueue,
        outbox: Outbox,
    ) -> None:
        self._config = config
        self._rng = rng
        self._view = view
        self._told = told
        self._timers = timers
        self._outbox = outbox
        self._is_join_armed = False
        self._looks = 0
        self._greeted: dict[str, float] = {}
        self.seeds: tuple[str, ...] = ()

    def start(self, now: float) -> None:
        """Begin to heal, at a random time."""
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        wait_s = jittered(self._config.heal_interval_s / LOOKS, self._rng)
        self._timers.set(now + wait_s, Timer(TimerKind.HEAL))

    def join(self, seeds: Iterable[str], now: float) -> None:
        """Ask the seeds to let this node in, again and again until one does.

        Args:
            seeds: addresses; this node's own is left out.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: one text in place of the seeds. State unchanged.
        """
        check_several("the seeds", seeds)
        own = self._view.record.address
        self.seeds = tuple(dict.fromkeys(seed for seed in seeds if seed != own))
        self._begin_to_join(now)

    def _begin_to_join(self, now: float) -> None:
        """Dial the seeds now and again, unless that is under way: one chain of timers."""
        if not self._is_join_armed:
            self._dial_seeds(now)

    def on_join_timer(self, _timer: Timer, now: float) -> None:
        """Dial every seed again."""
        self._dial_seeds(now)

    def _dial_seeds(self, now: float) -> None:
        """Dial every seed while nobody is known."""
        self._is_join_armed = False
        if self._view.peers() or self._view.is_leaving or not self.seeds:
            return
        self._is_join_armed = True
        for seed in self.seeds:
            self._dial(seed)
        wait_s = jittered(self._config.join_retry_s, self._rng)
        self._timers.set(now + wait_s, Timer(TimerKind.JOIN))

    def on_heal_timer(self, _timer: Timer, now: float) -> None:
        """Dial some of the seeds and members out of reach: an island finds the others."""
        self._set_timer(now)
        if self._view.is_leaving:
            return
        self._looks = (self._looks + 1) % LOOKS
        members, peers = self._view.members, self._view.peers()
        gone = [member for member in members if not member.is_reachable]
        lately = [m.address for m in gone if now - members.since(m.name) < LATELY_S]
        targets: dict[str, float] = {}
        ever = dict.fromkeys(self.seeds)
        ever |= {m.address: None for m in gone if m.status is MemberStatus.DOWN}
        reached = {self._view.record.address, *(member.address for member in peers)}
        ever = {address: None for address in ever if address not in reached}
        if not self._looks:
            if not peers:
                self._begin_to_join(now)
            targets |= dict.fromkeys(ever, 1.0)
        for several in (dict.fromkeys(lately), ever if len(ever) <= FEW else ()):
            for address in several:
                dials = DIALS_PER_LOOK / max(1, len(several) - 1)
                targets[address] = targets.get(address, 0.0) + dials
        for address, dials in targets.items():
            # Each of n nodes with probability 1/n: one dial for a target in each interval.
            if address not in reached and self._rng.random() * (len(peers) + 1) < dials:
                self._dial(address)

    def greet(self, address: str, now: float) -> None:
        """Ask somebody unknown who was heard, and is ready, to let this node in. O(1)."""
        if address == self._view.record.address or self._view.is_leaving:
            return
        greeted = self._greeted
        if now - greeted.get(address, -math.inf) < GREETED_S:
            return
        greeted.pop(address, None)
        if len(greeted) >= GREETED_MAX:
            del greeted[next(iter(greeted))]
        greeted[address] = now
        self._dial(address)

    def _dial(self, address: str) -> None:
        """Ask whoever is there to let this node in, and at a seed to say so.

        A member may advertise another address than the one under which it is a seed: a name
        beside an IP address, or that of a service.
        """
        self._outbox.send(address, JoinRequest(self._view.record))
        if self._told.is_unmet(address):
            self._outbox.send(address, SeedQuestion(address))

    def on_seed_question(self, message: SeedQuestion, header: FrameHeader, _now: float) -> None:
        """Answer to an address; it may be another name of this node, dialled by itself."""
        if header.actor == self._view.actor:
            self._told.meet(message.address)
        else:
            self._outbox.send(header.address, SeedAnswer(message.address))

    def on_seed_answer(self, message: SeedAnswer, _header: FrameHeader, _now: float) -> None:
        """Take note that somebody is reached at the address of a seed."""
        self._told.meet(message.address)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the seeds, and whether they are being asked to let this node in."""
        return {
            "seeds": self.seeds,
            "is_join_armed": self._is_join_armed,
            "greeted": MappingProxyType(self._greeted),
        }

    def _check(self) -> None:
        """Assert that each chain of dials goes on, and goes on once."""
        timers = self._timers
        require(self, len(timers.of(TimerKind.HEAL)) == 1, "no healing dial is due, or two")
        joins = len(timers.of(TimerKind.JOIN))
        require(self, joins == self._is_join_armed, "asking to be let in is not due once")
        require(self, len(set(self.seeds)) == len(self.seeds), "a seed is dialled twice")
        require(self, self._view.record.address not in self.seeds, "this node dials itself")
        require(self, len(self._greeted) <= GREETED_MAX, "too many strangers are remembered")
