"""The law of slots: of no key are more in use at once than its limit, as far as owners vouch.

A slot counts while it is in use under an owner's lease that has not ended, on the clock of its
own node: what was cut off, or stopped, is vouched for no more. The law is that of one cluster: see
`meetings.py` for processes that cannot know of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from meshlib.ratelimit import ConcurrencySlot, SlotTicket
from meshlib.testing.checkers.meetings import Meetings, Process
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host

__all__ = ["SlotLedger"]

RULE: Final = "slots"


class SlotLedger:
    """Counts the slots that are in use on all nodes, by key.

    Args:
        meetings: who has met whom.
    """

    def __init__(self, meetings: Meetings) -> None:
        self.granted_count = 0
        """Slots that an owner granted."""
        self.refused_count = 0
        """Requests that got none."""
        self.most: dict[str, int] = defaultdict(int)
        """Slots that were in use at once at most, by key."""
        self._meetings = meetings
        self._used: dict[str, list[ConcurrencySlot]] = defaultdict(list)

    def decided(self, host: Host, ticket: SlotTicket) -> None:
        """Take note of what was decided on a request.

        Args:
            host: where it was asked.
            ticket: as the node has decided it.
        """
        slot = ticket.slot
        if slot is None:
            self.refused_count += 1
            return
        self._used[_place(host)].append(slot)
        self.granted_count += ticket.decision is not None and ticket.decision.confirmed

    def ended(self, host: Host, slot: ConcurrencySlot) -> None:
        """Take note that a request is over, just before its slot is given back."""
        self._used[_place(host)].remove(slot)

    def look(self, hosts: Iterable[Host], *, key: str, limit: int, now: float) -> None:
        """Compare what is in use with the limit. O(slots).

        Args:
            hosts: all machines on which a process runs.
            key: the slots' key.
            limit: how many there are.
            now: simulated seconds.

        Raises:
            Broken: more are in use in one cluster.
        """
        vouched: list[tuple[Process, int]] = []
        for host in hosts:
            count = self._vouched(host, key, now)
            if count:
                vouched.append((self._meetings.follow(host), count))
        total = sum(count for _, count in vouched)
        self.most[key] = max(self.most[key], total)
        if total <= limit:
            return
        for cluster in self._meetings.clusters((process for process, _ in vouched), now):
            own = [(process.label, count) for process, count in vouched if process in cluster]
            used = sum(count for _, count in own)
            if used > limit:
                by = ", ".join(f"{count} at {label}" for label, count in own)
                raise Broken(RULE, f"{used} of {limit} slots of {key!r} are in use: {by}")

    def _vouched(self, host: Host, key: str, now: float) -> int:
        held = host.node.limiter.held_slots(key)
        if held is None or host.monotonic(now) >= held.lease_until:
            return 0
        return sum(
            slot.key == key and slot.lapse == held.lapse for slot in self._used[_place(host)]
        )


def _place(host: Host) -> str:
    return f"{host.label}/{host.start_count}"
