"""Slots of the keys that a node owns: to whom they are granted.

Rule: an owner that begins grants nothing for `OPENS_AFTER_S`. By then each slot that a former
owner has granted was reported to it, or its lease has ended at its holder.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import RATE_KEYS_MAX
from meshlib.ratelimit.slots.wire import SlotGrant, SlotReport

__all__ = ["OPENS_AFTER_S", "SLOT_LEASE_S", "Granted", "SlotOwner"]

SLOT_LEASE_S: Final = 2.0
"""How long a node may use what it was granted, from when it reported last: about as long as it
takes until a death is noticed."""

RATE_MARGIN: Final = 1.1
"""Clocks that differ in rate by less than this tell the end of a lease in the right order."""

OPENS_AFTER_S: Final = SLOT_LEASE_S * RATE_MARGIN

Granted = tuple[str, ActorId, SlotGrant]
"""Whom a grant is for, in which start, and what it says."""


@define(slots=True)
class _Holder:
    """One node, in one start, and what it may use of one key."""

    name: str
    number: int
    total: int
    wanted: int
    limit: int
    until: float


@define(slots=True, eq=False)
class _OwnedSlots:
    """One key: who has its slots, and who waits for some."""

    since: float
    holders: dict[ActorId, _Holder] = field(factory=dict)
    line: OrderedDict[ActorId, None] = field(factory=OrderedDict)
    due_at: float = math.inf

    def drop_ended(self, now: float) -> None:
        """Forget the holders that were not heard for longer than their leases."""
        for actor in [actor for actor, holder in self.holders.items() if holder.until <= now]:
            del self.holders[actor]
            self.line.pop(actor, None)

    def used(self) -> int:
        """Return how many slots are granted. O(nodes)."""
        return sum(holder.total for holder in self.holders.values())

    def limit(self) -> int:
        """Return how many there are; the lowest, while nodes say different ones. O(nodes)."""
        return min(holder.limit for holder in self.holders.values())

    def serve(self) -> set[ActorId]:
        """Give what is free to those who wait, one slot at a time; return to whom."""
        served: set[ActorId] = set()
        free = self.limit() - self.used() if self.line else 0
        while free > 0 and self.line:
            actor, _ = self.line.popitem(last=False)
            holder = self.holders[actor]
            holder.total += 1
            holder.wanted -= 1
            free -= 1
            served.add(actor)
            if holder.wanted:
                self.line[actor] = None
        return served


class SlotOwner:
    """The owner's side of the slots of one node.

    Args:
        decides_since: tells since when this node alone decides on a key, and whether it is a
            cluster of its own; None while it may not decide.
    """

    def __init__(self, decides_since: Callable[[str, float], tuple[float, bool] | None]) -> None:
        self._decides_since = decides_since
        self._keys: dict[str, _OwnedSlots] = {}
        self._dues: list[tuple[float, int, str]] = []
        self._order = itertools.count()

    def report(self, name: str, actor: ActorId, part: SlotReport, now: float) -> list[Granted]:
        """Take what a node uses and wants; return what to answer, to it and to others.

        O(nodes). Nothing is returned while this node may not decide; it is asked again then.

        Args:
            name: who reports.
            actor: who reports, in its start.
            part: what it says.
            now: monotonic seconds.
        """
        slots = self._entered(part.key, now)
        if slots is None:
            return []
        known = slots.holders.get(actor)
        if known is not None and part.number < known.number:
            return []  # an old one
        if known is None or part.number > known.number:
            until = now + OPENS_AFTER_S
            slots.holders[actor] = _Holder(
                name, part.number, part.used, part.wanted, part.limit, until
            )
            if part.wanted:
                slots.line.setdefault(actor)
            else:
                slots.line.pop(actor, None)
            self._due(until, part.key, slots)
        told = {actor} | self._serve(part.key, slots, now)
        return self._grants(part.key, slots, told, now)

    def _entered(self, key: str, now: float) -> _OwnedSlots | None:
        """Return the slots of a key, with nobody in them whose lease has ended."""
        decides = self._decides_since(key, now)
        if decides is None:
            return None
        since = decides[0]
        slots = self._keys.get(key)
        if slots is None or slots.since != since:
            if slots is None and len(self._keys) >= RATE_KEYS_MAX:
                return None
            # What was known is of no use once somebody else may have granted in between.
            slots = self._keys[key] = _OwnedSlots(since)
        slots.drop_ended(now)
        return slots

    def _opens_at(self, key: str, now: float) -> float:
        decides = self._decides_since(key, now)
        if decides is None:
            return math.inf
        since, is_alone = decides
        return -math.inf if is_alone else since + OPENS_AFTER_S

    def _serve(self, key: str, slots: _OwnedSlots, now: float) -> set[ActorId]:
        if not slots.line:
            return set()
        opens_at = self._opens_at(key, now)
        if now >= opens_at:
            return slots.serve()
        if opens_at < math.inf:
            self._due(opens_at, key, slots)
        return set()

    def _grants(
        self, key: str, slots: _OwnedSlots, told: set[ActorId], now: float
    ) -> list[Granted]:
        used, closed_s = slots.used(), max(0.0, self._opens_at(key, now) - now)
        closed_s = min(closed_s, OPENS_AFTER_S)
        granted = []
        for actor in sorted(told):
            holder = slots.holders[actor]
            is_contended = len(slots.line) > (actor in slots.line)
            part = SlotGrant(key, holder.number, holder.total, used, closed_s, is_contended)
            granted.append((holder.name, actor, part))
        return granted

    def _due(self, at: float, key: str, slots: _OwnedSlots) -> None:
        if at < slots.due_at:
            slots.due_at = at
            heapq.heappush(self._dues, (at, next(self._order), key))

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        return self._dues[0][0] if self._dues else math.inf

    def tick(self, now: float) -> list[Granted]:
        """Free what nobody vouches for any more; return what that gives to others."""
        granted: list[Granted] = []
        while self._dues and self._dues[0][0] <= now:
            at, _, key = heapq.heappop(self._dues)
            known = self._keys.get(key)
            if known is None or known.due_at != at:
                continue
            known.due_at = math.inf
            slots = self._entered(key, now)
            if slots is None:
                known.drop_ended(now)  # who waits reports again
                slots = known
            else:
                granted += self._grants(key, slots, self._serve(key, slots, now), now)
            if slots.holders:
                self._due(min(holder.until for holder in slots.holders.values()), key, slots)
            else:
                del self._keys[key]
        return granted

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {"keys": self._keys}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(keys)."""
        require(self, len(self._keys) <= RATE_KEYS_MAX, "more keys than an owner keeps")
        for key, slots in self._keys.items():
            for actor in slots.line:
                is_waiting = actor in slots.holders and slots.holders[actor].wanted > 0
                require(self, is_waiting, f"somebody waits for {key!r} who wants none")
