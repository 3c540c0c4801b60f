"""The law of rate limits: of no key is more granted in a window than its limit.

Whatever is lost, repeated, late, killed, partitioned, restarted or skewed. What was admitted
without an owner's word (on credit, or as the partition mode has it) stands apart. The law is that
of one cluster: see `meetings.py` for processes that cannot know of each other.
"""

from __future__ import annotations

from typing import Final

from meshlib.ratelimit import Decision, Ticket
from meshlib.testing.checkers.meetings import Meetings, Process
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host

__all__ = ["LimitLedger"]

RULE: Final = "rate limit"


class LimitLedger:
    """Adds up what all nodes were granted, by key and window."""

    def __init__(self) -> None:
        self.granted_count = 0
        """Units that owners granted and nodes used."""
        self.unconfirmed_count = 0
        """Units that were admitted without an owner's word."""
        self.strange_count = 0
        """How often two clusters that had not met were granted more than one of them may be."""
        self.meetings = Meetings()
        self._limits: dict[str, int] = {}
        self._granted: dict[tuple[str, int], int] = {}
        self._holders: dict[tuple[str, int], list[tuple[Process, int]]] = {}

    def set_limit(self, key: str, limit: int) -> None:
        """Take note of a limit that is written; of several the highest counts: any may be known."""
        self._limits[key] = max(limit, self._limits.get(key, 0))

    def settled(self, host: Host, tickets: list[Ticket]) -> None:
        """Take note of what a node's owners have answered.

        Raises:
            Broken: as `decided`.
        """
        for ticket in tickets:
            if ticket.decision is not None:
                self.decided(host, ticket.key, ticket.cost, ticket.decision)

    def decided(self, host: Host, key: str, cost: int, decision: Decision) -> None:
        """Take note of a node's decision. O(1).

        Raises:
            Broken: this was more than the window's limit.
        """
        if not decision.allowed or not decision.limit:
            return
        if decision.window < 0:
            self.unconfirmed_count += cost
            return
        self.granted_count += cost
        place = key, decision.window
        total = self._granted[place] = self._granted.get(place, 0) + cost
        self._holders.setdefault(place, []).append((self.meetings.follow(host), cost))
        if total > self._limits.get(key, 0):
            self._judge(place, host.simulated_now)

    def _judge(self, place: tuple[str, int], now: float) -> None:
        """Add up by cluster what was granted of a key in a window."""
        key, window = place
        limit, holders = self._limits.get(key, 0), self._holders[place]
        self.strange_count += 1
        for cluster in self.meetings.clusters((process for process, _ in holders), now):
            own = [(process.label, cost) for process, cost in holders if process in cluster]
            total = sum(cost for _, cost in own)
            if total > limit:
                by = ", ".join(label for label, _ in own[-12:])
                raise Broken(RULE, f"{total} of {limit} granted of {key!r} in {window} to {by}")
