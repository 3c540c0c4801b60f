"""Numbers of windows: the seconds of the owner's wall clock, made to grow only.

Rule: a number that was used is never used again, whatever the wall clock does; and after a jump
of the clock no window is shorter than half a period.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

__all__ = ["PERIOD_S", "WindowClock"]

PERIOD_S: Final = 1.0
"""Length of a window: the specification's second."""

SLACK_S: Final = 1e-6


class WindowClock:
    """Tells which window it is, aligned to the Unix epoch while the wall clock runs evenly.

    The wall clock is read when a window ends, and only then. One that went back does not bring
    old numbers back: they go on by one a period. One that went ahead takes them along, once.

    Args:
        wall_clock: seconds since 1970; it may jump.
    """

    __slots__ = ("_ahead", "_ends_at", "_number", "_wall_clock")

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._number = -1
        self._ends_at = -math.inf
        self._ahead = 0

    def read(self, now: float) -> int:
        """Return the number of the current window; never less than before. O(1)."""
        if now >= self._ends_at:
            self._advance(now)
        return self._number

    def left_s(self, now: float) -> float:
        """Return how long the current window lasts, in seconds; over 0. O(1)."""
        self.read(now)
        return self._ends_at - now

    def skip_to(self, number: int, *, now: float) -> None:
        """Go on from a number that another node's clock, far ahead of this one, has given out."""
        behind = number - self.read(now)
        if behind > 0:
            self._ahead += behind
            self._number = number

    def _advance(self, now: float) -> None:
        wall = self._wall_clock()
        whole = math.floor(wall / PERIOD_S)
        into_s = wall - whole * PERIOD_S
        number = max(0, whole + self._ahead)
        if self._number >= 0:
            number = max(self._number + 1, number)
        left_s = PERIOD_S - into_s
        if now - into_s < self._ends_at - SLACK_S and left_s < PERIOD_S / 2:
            left_s += PERIOD_S  # the clock was set: the last window reaches into this second
        self._number = number
        self._ends_at = now + left_s
