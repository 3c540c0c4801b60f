"""The two clocks of a node: hybrid logical time and monotonic time.

The first orders writes and never decides who is alive; the second decides everything else, and
comes in as `now`.

Rule: everything that turns wall time into a stamp must live in this file, and so does the check
of a `now`. The wall clock comes in as a callable, so a simulator can skew it.
Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks", OPODIS 2014.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from meshlib.errors import (
    ClockSkewError,
    ConfigError,
    ForeignClockError,
    InvalidTypeError,
    InvalidValueError,
)

__all__ = ["HybridClock", "MonotonicTime", "Stamp"]

LOGICAL_MAX = (1 << 16) - 1

DAY_S: Final = 86_400.0

JUMP_MAX_S: Final = 366 * DAY_S
"""How far a monotonic clock may jump ahead between two readings: a process may be stopped for
months, and a caller of a limiter may be idle for as long. A wall clock is decades ahead of any
machine's uptime, and so are nanoseconds."""

AHEAD_MAX_S: Final = 1 * DAY_S
"""How far a caller's reading may be ahead of the driver's. A driver reads its clock several times
a second; only in a process that was stopped for as long can a caller come first, and the next
step of the driver makes that good."""

BEHIND_MAX_S: Final = 60.0
"""How far a reading may be behind one that was given before: it was taken earlier and came later.
It counts as the later one. What is further behind, such as a clock of CPU time, is another one."""


class Stamp(NamedTuple):
    """A point in the total order of writes; tuples compare as the order does.

    Args:
        wall_ms: milliseconds since 1970, as the writer believed.
        logical: orders the writes within one millisecond; 0 to 65,535.
        actor: the writer (an `ActorId`), which breaks the remaining ties.
    """

    wall_ms: int
    logical: int
    actor: bytes


class HybridClock:
    """Mints stamps that are later than everything this node has minted or observed.

    Args:
        actor: the writer that the stamps are of.
        wall_clock: returns seconds since 1970; may jump.
        skew_max_s: how far ahead of the wall clock an observed stamp may be; over 0.
    """

    __slots__ = ("_last_logical", "_last_ms", "_wall_clock", "actor", "skew_max_s")

    def __init__(
        self, actor: bytes, *, wall_clock: Callable[[], float], skew_max_s: float = 60.0
    ) -> None:
        if not skew_max_s > 0:
            raise ConfigError(f"skew_max_s must be over 0, got {skew_max_s}")
        self.actor = actor
        self.skew_max_s = skew_max_s
        self._wall_clock = wall_clock
        self._last_ms = 0
        self._last_logical = 0

    def wall_s(self) -> float:
        """Return the wall clock's reading, in seconds since 1970."""
        return self._wall_clock()

    def tick(self) -> Stamp:
        """Mint the next stamp. O(1).

        When the wall clock stands still or goes back, the logical part counts on; when that is
        full, the millisecond is counted on, so stamps never repeat.
        """
        wall_ms = int(self._wall_clock() * 1000)
        if wall_ms > self._last_ms:
            self._last_ms = wall_ms
            self._last_logical = 0
        elif self._last_logical < LOGICAL_MAX:
            self._last_logical += 1
        else:
            self._last_ms += 1
            self._last_logical = 0
        return Stamp(self._last_ms, self._last_logical, self.actor)

    @property
    def latest(self) -> tuple[int, int]:
        """The latest time that was minted or observed: milliseconds and logical part."""
        return self._last_ms, self._last_logical

    def begin_again(self, actor: bytes, *, latest: tuple[int, int]) -> None:
        """Mint stamps of another writer from now on, all after a given time. O(1).

        The time may be before the latest stamp of the former writer. Only for a caller that has
        put all later stamps of that writer back, or a stamp would be given twice.

        Args:
            actor: the new writer, never used before.
            latest: milliseconds since 1970 and logical part; the next stamp is later.
        """
        self.actor = actor
        self._last_ms, self._last_logical = latest

    def leap_s(self) -> float:
        """Return how far the next stamp is ahead of the wall clock, in seconds; 0 or more. O(1).

        It is after the wall clock was set back, or stamps were seen that are ahead of it.
        """
        return max(0.0, self._last_ms / 1000 - self._wall_clock())

    def ahead_s(self, stamp: Stamp) -> float:
        """Return how far a stamp is ahead of the wall clock, in seconds; negative when behind."""
        return stamp.wall_ms / 1000 - self._wall_clock()

    def observe(self, stamp: Stamp) -> None:
        """Take note of a peer's stamp: the next own one will be later. O(1).

        Raises:
            ClockSkewError: further ahead than `skew_max_s`. State unchanged.
        """
        ahead_s = self.ahead_s(stamp)
        if ahead_s > self.skew_max_s:
            raise ClockSkewError(ahead_s=ahead_s, skew_max_s=self.skew_max_s)
        if (stamp.wall_ms, stamp.logical) > (self._last_ms, self._last_logical):
            self._last_ms = stamp.wall_ms
            self._last_logical = stamp.logical


class MonotonicTime:
    """What is known of the monotonic clock whose readings come in as `now`.

    Time never goes backwards behind this, and a reading of another clock is refused: one of them
    would move every deadline to where the true clock never comes.

    Args:
        now: the first reading, in seconds; None: the first one that comes is taken as it is.

    Raises:
        InvalidTypeError: the first reading is no number.
        InvalidValueError: it is not finite.
    """

    __slots__ = ("_driven_s", "_latest_s")

    def __init__(self, now: float | None = None) -> None:
        self._latest_s = self._driven_s = -math.inf
        if now is not None:
            self.advance(now)

    @property
    def latest_s(self) -> float:
        """The latest time that was given; minus infinity before the first."""
        return self._latest_s

    def advance(self, now: float) -> float:
        """Take a reading of whoever owns the clock, and return the time that it is. O(1).

        Args:
            now: monotonic seconds.

        Returns:
            `now`, or the latest of this owner's readings when that is later.

        Raises:
            InvalidTypeError: no number; a bool is none.
            InvalidValueError: not finite.
            ForeignClockError: over a year ahead of the reading before, or over a minute behind.
                Nothing was changed by any of these.
        """
        driven_s = self._driven_s
        if type(now) is not float or not driven_s <= now <= driven_s + JUMP_MAX_S:
            now = _judge(now, floor_s=driven_s, driven_s=driven_s, ahead_max_s=JUMP_MAX_S)
        self._driven_s = now
        if now > self._latest_s:
            self._latest_s = now
        return now

    def follow(self, now: float) -> float:
        """Take a reading of a caller beside the owner, and return the time that it is. O(1).

        The owner's time is not moved by it: a caller's mistake stays with the callers.

        Args:
            now: monotonic seconds.

        Returns:
            `now`, or the latest time of all when that is later.

        Raises:
            InvalidTypeError: no number; a bool is none.
            InvalidValueError: not finite.
            ForeignClockError: over a day ahead of the owner's reading, or over a minute behind
                the latest. Nothing was changed by any of these.
        """
        latest_s, driven_s = self._latest_s, self._driven_s
        if type(now) is not float or not latest_s <= now <= driven_s + AHEAD_MAX_S:
            now = _judge(now, floor_s=latest_s, driven_s=driven_s, ahead_max_s=AHEAD_MAX_S)
        self._latest_s = now
        return now


def _judge(now: float, *, floor_s: float, driven_s: float, ahead_max_s: float) -> float:
    """Return the time of a reading that is not simply the next one; see `MonotonicTime`."""
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise InvalidTypeError(f"now must be a number of seconds, not {type(now).__name__}")
    if not math.isfinite(now):
        raise InvalidValueError(f"now must be finite, got {now}")
    if driven_s > -math.inf and now > driven_s + ahead_max_s:
        hint = ", such as time.monotonic() (this looks like time.time())"
        raise ForeignClockError(now, clock_s=driven_s, hint=hint if 1e9 < now < 1e10 else "")
    if now < floor_s - BEHIND_MAX_S:
        raise ForeignClockError(now, clock_s=floor_s)
    return max(float(now), floor_s)
