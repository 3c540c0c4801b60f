"""Numbers of windows: the seconds of the owner's wall clock, made to grow only.

Longer windows follow from the second: whatever is agreed on between nodes is said in seconds.

Rule: a number that was used is never used again, whatever the wall clock does; and after a jump
of the clock no window is shorter than half a period.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from meshlib.state import Limit

__all__ = ["PERIOD_S", "WindowClock", "window_end", "window_of", "window_start"]

PERIOD_S: Final = 1.0
"""Length of a window: the specification's second."""

SLACK_S: Final = 1e-6

_DAY_S: Final = 86_400
_MONTH_S_MIN: Final = 28 * _DAY_S


def window_of(number: int, limit: Limit) -> int:
    """Return the number of the window that a second is in; 0 for what counts in no windows. O(1).

    Args:
        number: whole seconds since 1970.
        limit: whose windows.
    """
    if not limit.is_window:
        return 0
    return _month_of(number) if isinstance(limit.per, str) else number // limit.per


def window_end(number: int, limit: Limit) -> int:
    """Return the second in which the next window begins. O(1)."""
    if isinstance(limit.per, str):
        return _month_start(_month_of(number) + 1)
    return (number // limit.per + 1) * limit.per


def window_start(window: int, limit: Limit) -> int:
    """Return the first second of a window by its number; 0 for what counts in no windows. O(1)."""
    if not limit.is_window:
        return 0
    return _month_start(window) if isinstance(limit.per, str) else window * limit.per


def _month_of(number: int) -> int:
    """Return the months since 1970 that are over in a second."""
    # A month that begins so many seconds before is this one or the one before it.
    month = number // _MONTH_S_MIN
    while _month_start(month) > number:
        month -= 1 + (_month_start(month) - number) // (32 * _DAY_S)
    return month


def _month_start(month: int) -> int:
    """Return the second in which a month since 1970 begins, in the Gregorian calendar.

    Source: days of the civil calendar with years that begin in March, as in Howard Hinnant,
    chrono-Compatible Low-Level Date Algorithms.
    """
    year, ordinal = 1970 + month // 12, month % 12
    if ordinal < 2:
        year -= 1
    cycle, in_cycle = divmod(year, 400)
    in_year = (153 * ((ordinal + 10) % 12) + 2) // 5
    days = cycle * 146_097 + in_cycle * 365 + in_cycle // 4 - in_cycle // 100 + in_year - 719_468
    return days * _DAY_S


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

    def left_of(self, limit: Limit, now: float) -> float:
        """Return how long a limit's window lasts, in seconds; over 0. O(1)."""
        left_s = self.left_s(now)
        if limit.per == 1:
            return left_s
        return window_end(self._number, limit) - self._number - PERIOD_S + left_s

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
