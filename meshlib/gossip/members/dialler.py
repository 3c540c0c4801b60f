"""Whom a node dials without knowing whether anybody is there: seeds, and members out of reach.

Rule this file owns: Down members and seeds are dialled for ever, at a rate that does not grow with
the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.errors import check_several
from meshlib.gossip.context import Context, Timer
from meshlib.gossip.messages.kinds import JoinRequest
from meshlib.membership import MemberStatus

__all__ = ["Dialler"]


class Dialler:
    """Asks to be let in where others may be: at first, and whenever an island may have formed.

    Args:
        context: the engine's shared state.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._is_join_armed = False
        self.seeds: tuple[str, ...] = ()

    def start(self, now: float) -> None:
        """Begin to heal, at a random time."""
        context = self._context
        context.timers.set(now + context.jittered(context.config.heal_interval_s), Timer("heal"))

    def join(self, seeds: Iterable[str], now: float) -> None:
        """Ask the seeds to let this node in, again and again until one does.

        Args:
            seeds: addresses; this node's own is left out.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: one text in place of the seeds. State unchanged.
        """
        check_several("the seeds", seeds)
        own = self._context.record.address
        self.seeds = tuple(dict.fromkeys(seed for seed in seeds if seed != own))
        self._begin_to_join(now)

    def _begin_to_join(self, now: float) -> None:
        """Dial the seeds now and again, unless that is under way: one chain of timers."""
        if not self._is_join_armed:
            self.on_join_timer(now)

    def on_join_timer(self, now: float) -> None:
        """Dial every seed while nobody is known."""
        self._is_join_armed = False
        if self._context.peers() or self._context.is_leaving or not self.seeds:
            return
        self._is_join_armed = True
        for seed in self.seeds:
            self._context.send(seed, JoinRequest(self._context.record))
        wait_s = self._context.jittered(self._context.config.join_retry_s)
        self._context.timers.set(now + wait_s, Timer("join"))

    def on_heal_timer(self, now: float) -> None:
        """Dial some of the seeds and members out of reach: an island finds the others."""
        context = self._context
        wait_s = context.jittered(context.config.heal_interval_s)
        context.timers.set(now + wait_s, Timer("heal"))
        if context.is_leaving:
            return
        peers = context.peers()
        if not peers:
            self._begin_to_join(now)
        reached = {member.address for member in peers}
        reached.add(context.record.address)
        lost = [m.address for m in context.members if m.status is MemberStatus.DOWN]
        targets = dict.fromkeys(
            address for address in (*self.seeds, *lost) if address not in reached
        )
        for address in targets:
            # Each of n nodes with probability 1/n: one dial for a target in each interval.
            if context.rng.random() * (len(peers) + 1) < 1:
                context.send(address, JoinRequest(context.record))
