"""What is used of a limit that does not count in windows: by monotonic time, at the owner.

Rule: a unit counts from when it was granted, and no shorter than the limit says.
Source: the generic cell rate algorithm, ITU-T I.371, as the bucket that leaks; a log of a sliding
window in steps.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Protocol

from attrs import define

from meshlib.state import Algorithm, Limit

__all__ = ["Meter", "held_s", "meter_for"]

STEPS: Final = 60
"""Steps of a sliding window: a unit counts for up to one of them longer than the period."""

SLACK: Final = 1e-6
"""Units, and seconds, too few to tell: times are floating-point numbers."""


@define(slots=True)
class _Entry:
    first_at: float
    last_at: float = 0.0
    units: int = 0


class Meter(Protocol):
    """What is used of one key."""

    def read(self, limit: Limit, now: float) -> int:
        """Return the units that are used now, rounded up."""
        ...

    def add(self, units: int, limit: Limit, now: float) -> None:
        """Use units, or give them back when they are negative. After `read` at the same time."""

    def wait_s(self, units: int, limit: Limit, now: float) -> float:
        """Return in how many seconds so many units will have come back, if nobody else comes."""
        ...


class _Bucket:
    """What leaks away at the limit's rate."""

    __slots__ = ("_at", "_level")

    def __init__(self) -> None:
        self._level = 0.0
        self._at = -math.inf

    def read(self, limit: Limit, now: float) -> int:
        """Return the units that are used now, rounded up."""
        if now > self._at:
            leaked = (now - self._at) * limit.rate / limit.period_s
            self._level, self._at = max(0.0, self._level - leaked), now
        return math.ceil(self._level - SLACK)

    def add(self, units: int, limit: Limit, now: float) -> None:  # noqa: ARG002 - as a meter does
        """Use units, or give them back."""
        self._level = max(0.0, self._level + units)

    def wait_s(self, units: int, limit: Limit, now: float) -> float:  # noqa: ARG002 - likewise
        """Return in how many seconds so many units will have leaked away."""
        # Until so many fewer are used than `read` tells, which rounds up.
        excess = self._level - (math.ceil(self._level - SLACK) - units)
        return max(0.0, excess) * limit.period_s / limit.rate


class _Log:
    """What was used, with its time; of each sixtieth of the period together, with the last time."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()

    def read(self, limit: Limit, now: float) -> int:
        """Return the units that are used now, rounded up."""
        before = now - limit.period_s + SLACK
        while self._entries and self._entries[0].last_at <= before:
            self._entries.popleft()
        return sum(entry.units for entry in self._entries)

    def add(self, units: int, limit: Limit, now: float) -> None:
        """Use units, or give them back."""
        entries = self._entries
        if units > 0:
            if not entries or now - entries[-1].first_at >= limit.period_s / STEPS:
                entries.append(_Entry(now))
            entries[-1].last_at = now
            entries[-1].units += units
        while units < 0 and entries:
            taken = min(-units, entries[-1].units)
            entries[-1].units -= taken
            units += taken
            if not entries[-1].units:
                entries.pop()

    def wait_s(self, units: int, limit: Limit, now: float) -> float:
        """Return in how many seconds so many units will count no more."""
        for entry in self._entries:
            units -= entry.units
            if units <= 0:
                return max(0.0, entry.last_at + limit.period_s - now)
        return limit.period_s


def meter_for(limit: Limit) -> Meter:
    """Return an empty meter for a limit that does not count in windows."""
    return _Bucket() if limit.algorithm is Algorithm.GCRA else _Log()


def held_s(limit: Limit) -> float:
    """Return for how long a unit that was granted, and not needed then, may still be used."""
    return min(1.0, limit.period_s / STEPS)
