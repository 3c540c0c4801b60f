"""What one node may admit of a limit for the whole cluster: shares, demand, and the bucket.

Rule: every number that decides an admission is computed in this file, from what the node itself
counted and the last view that the owners of the key gave. Nothing here waits or sends.

Two gates stand in a row. A token bucket is filled at the node's share of the limit, which makes
admissions smooth. A ceiling for the window of a second holds the node to its part of what the
cluster had left of this window when the node last heard of it, which makes a sum of bursts safe:
what was admitted and all parts of what was left add up to the limit.
Source: the demand-proportional form of Raghavan et al., "Cloud control with distributed rate
limiting", SIGCOMM 2007 (there by gossip; here by the owners of the key).
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["BURST_UNITS_MIN", "DemandMeter", "ShareBucket", "fair_share"]

BURST_UNITS_MIN: Final = 4
"""Units that a bucket can hold however small its share: a whole request must fit, and a few
requests in a row should pass before the owners have answered the first report."""

_CONTENDED_BURST_S: Final = 0.1
"""Seconds of its share that a bucket carries from one window into the next while the cluster
wants more than the limit: what it saved before would be spent at the start of each window."""

_PART_TOLERANCE: Final = 1.05
"""How far a node may go beyond its part of a window while the window has room: its share moves
a little all the time, and what it had when the share was larger must not hold it up."""

_SLOTS_MAX: Final = 3
_SIGNIFICANT_PART: Final = 1 / 50
_MOVED_PART: Final = 1 / 5


def fair_share(limit: float, *, own: float, others: float, active_count: int) -> float:
    """Compute a node's share of a limit, in units a second. O(1).

    When the cluster wants more than the limit, the share is proportional to the demand;
    otherwise it is the demand and an equal part of the slack. Shares computed from equal views
    add up to the limit in both cases.

    Args:
        limit: units a second for the whole cluster; over 0.
        own: what this node is asked for, in units a second; 0 or more.
        others: what the other nodes are asked for together; 0 or more.
        active_count: nodes that are asked for anything, this one included; at least 1.
    """
    total = own + others
    if total > limit:
        return limit * own / total
    return own + (limit - total) / active_count


class DemandMeter:
    """How many units a second are asked for, over the last five slots of time.

    A young meter divides by its age (at least one slot), so a demand that begins is seen in full
    after one slot. All methods are O(1).

    Args:
        slot_s: seconds of one slot; over 0.
        now: monotonic seconds.
    """

    __slots__ = ("_complete", "current", "slot_s", "slot_started_at")

    def __init__(self, *, slot_s: float, now: float) -> None:
        self.slot_s = slot_s
        self.slot_started_at = now
        self.current = 0
        """Units asked for in the running slot; whoever asks adds to it."""
        self._complete: list[int] = []

    def advance(self, now: float) -> None:
        """Close the slots that have ended by `now`."""
        ended = int((now - self.slot_started_at) / self.slot_s)
        if ended <= 0:
            return
        self.slot_started_at += ended * self.slot_s
        self._complete.append(self.current)
        self.current = 0
        self._complete.extend([0] * min(ended - 1, _SLOTS_MAX))
        del self._complete[:-_SLOTS_MAX]

    def rate(self, now: float) -> float:
        """Return the demand, in units a second."""
        units = sum(self._complete) + self.current
        age_s = len(self._complete) * self.slot_s + now - self.slot_started_at
        return units / max(age_s, self.slot_s)

    def current_at(self, rate: float) -> float:
        """Return how many units in the running slot would make the demand surpass `rate`."""
        age_s = (len(self._complete) + 1) * self.slot_s
        return rate * age_s - sum(self._complete)

    @property
    def slot_ends_at(self) -> float:
        """When the running slot ends."""
        return self.slot_started_at + self.slot_s

    @property
    def is_idle(self) -> bool:
        """Whether nothing was asked for in any slot that counts."""
        return self.current == 0 and not any(self._complete)


class ShareBucket:
    """The local state of one limit on one node: demand, tokens, and the window's ceiling.

    The attributes are read and written by the limiter's decision, which is the hot path.

    Args:
        limit: units a second for the whole cluster; over 0.
        fraction: the share to begin with, as a part of the limit; over 0, at most 1.
        window: the number of the current window.
        admitted: what this node has admitted in that window.
        slot_s: seconds of one slot of the demand meter.
        now: monotonic seconds.
    """

    __slots__ = (
        "_admitted_at_view",
        "_room",
        "admitted",
        "admitted_before",
        "capacity",
        "ceiling",
        "filled_at",
        "fraction",
        "is_contended",
        "is_isolated",
        "limit",
        "meter",
        "others_admitted",
        "rate",
        "tokens",
        "urgent_above",
        "window",
    )

    def __init__(
        self,
        limit: int,
        *,
        fraction: float,
        window: int,
        admitted: int,
        slot_s: float,
        now: float,
    ) -> None:
        self.limit = limit
        self.meter = DemandMeter(slot_s=slot_s, now=now)
        self.window = window
        self.admitted = admitted
        self.admitted_before = 0
        """What this node admitted in the window before the current one."""
        self.others_admitted = 0
        self.is_isolated = False
        """Whether nothing is known of what the others admit now."""
        self.is_contended = False
        """Whether the cluster wants more than the limit."""
        self.fraction = fraction
        self.rate = 0.0
        self.capacity = 0.0
        self.ceiling = 0.0
        self._room = 0
        self._admitted_at_view = admitted
        self.filled_at = now
        self.tokens = 0.0
        self.urgent_above = 0.0
        self._set_fraction(fraction)
        self.tokens = self.capacity
        self.set_ceiling()

    def _set_fraction(self, fraction: float) -> None:
        self.fraction = fraction
        self.rate = self.limit * fraction
        self.capacity = max(self.rate, min(self.limit, BURST_UNITS_MIN))

    def fill(self, now: float) -> None:
        """Add the tokens since the last filling."""
        elapsed_s = now - self.filled_at
        if elapsed_s > 0:
            self.tokens = min(self.capacity, self.tokens + elapsed_s * self.rate)
            self.filled_at = now

    def set_share(
        self, fraction: float, *, is_growth_free: bool, is_contended: bool, now: float
    ) -> None:
        """Change the share.

        Args:
            fraction: the new share, as a part of the limit; 0 to 1.
            is_growth_free: whether nobody else wants what this share grows by, so that the
                bucket's room for it comes filled. Otherwise it comes empty: a share that goes
                up and down must not make tokens.
            is_contended: whether the cluster wants more than the limit.
            now: monotonic seconds.
        """
        self.fill(now)
        self.is_isolated = False
        self.is_contended = is_contended
        before = self.capacity
        self._set_fraction(fraction)
        if is_growth_free and self.capacity > before:
            self.tokens += self.capacity - before
        self.tokens = min(self.tokens, self.capacity)
        self.set_ceiling()

    def set_isolated(self, fraction: float, *, now: float) -> None:
        """Keep to a part of each window by this node's own count; 0 admits nothing."""
        self.fill(now)
        self.is_isolated = True
        self._set_fraction(fraction)
        self.tokens = min(self.tokens, self.capacity)
        self.set_ceiling()

    def set_limit(self, limit: int, *, now: float) -> None:
        """Change the limit; what was used of the old one stays used."""
        self.fill(now)
        used = self.capacity - self.tokens
        self.limit = limit
        self._set_fraction(self.fraction)
        self.tokens = self.capacity - min(used, self.capacity)
        self.set_ceiling()

    def set_window(self, window: int, *, admitted: int) -> None:
        """Go to another window.

        Args:
            window: its number; lower than the current one when the wall clock went back.
            admitted: what this node has admitted in it before; more than 0 only then.
        """
        if self.is_contended:
            self.tokens = min(self.tokens, max(self.rate * _CONTENDED_BURST_S, 1.0))
        self.admitted_before = self.admitted if window == self.window + 1 else 0
        self.window = window
        self.admitted = admitted
        self.others_admitted = 0
        self.set_ceiling()

    def set_others_admitted(self, count: int) -> None:
        """Take note of what the other nodes have admitted in the current window."""
        if count > self.others_admitted:
            self.others_admitted = count
        self.set_ceiling()

    def set_ceiling(self) -> None:
        """Part what is left of the window: this node's part, and a few units at least."""
        self._admitted_at_view = self.admitted
        if self.is_isolated:
            self._room = self.limit if self.fraction > 0 and self.admitted == 0 else 0
            self.ceiling = math.ceil(self.limit * self.fraction)
            return
        room = max(0, self.limit - self.others_admitted - self.admitted)
        self._room = room
        # What the others admitted is known late, so the room looks larger than it is: never
        # more than this node's part of the whole window.
        part = min(self.admitted + room * self.fraction, self.rate * _PART_TOLERANCE)
        self.ceiling = max(part, min(self.limit - self.others_admitted, BURST_UNITS_MIN))

    def admit(self, cost: int, now: float) -> int:
        """Decide one request and count it when it passes. The hot path: O(1).

        A request larger than the bucket passes when the bucket is full, and leaves it in debt;
        one larger than the node's part of a whole window passes as the first since the last
        view, when the window has room for it.

        Returns:
            the units that would pass after it, or -1 when it is refused.
        """
        tokens = self.tokens
        elapsed_s = now - self.filled_at
        if elapsed_s > 0:
            tokens += elapsed_s * self.rate
            if tokens > self.capacity:
                tokens = self.capacity
            self.tokens = tokens
            self.filled_at = now
        if tokens < cost and tokens < self.capacity:
            return -1
        admitted = self.admitted + cost
        left = self.ceiling - admitted
        if left < 0 and not (
            self.rate < cost <= self._room and self.admitted == self._admitted_at_view
        ):
            return -1
        self.admitted = admitted
        self.tokens = tokens = tokens - cost
        if tokens < left:
            left = tokens
        return int(left) if left > 0 else 0

    def remaining(self) -> int:
        """Return how many units would pass now, as of the last decision; 0 or more."""
        return max(0, int(min(self.tokens, self.ceiling - self.admitted)))

    def wait_s(self, cost: int, *, window_left_s: float) -> float:
        """Return when a refused request could pass, in seconds: the later of the two gates.

        Args:
            cost: its units.
            window_left_s: seconds until the next window begins.
        """
        missing = min(float(cost), self.capacity) - self.tokens
        wait_s = 0.0
        if missing > 0:
            wait_s = missing / self.rate if self.rate > 0 else window_left_s
        if self.admitted + cost > self.ceiling:
            wait_s = max(wait_s, window_left_s)
        return wait_s

    def set_urgency(self, reported: float) -> None:
        """Compute from which number of units in this slot the demand has moved by a fifth.

        Args:
            reported: the demand that the owners were last told, in units a second.
        """
        moved = max(reported * _MOVED_PART, self.limit * _SIGNIFICANT_PART)
        self.urgent_above = self.meter.current_at(reported + moved)

    @property
    def is_full(self) -> bool:
        """Whether the bucket is as a new one would be, as of the last filling."""
        return self.tokens >= self.capacity
