"""Hybrid logical clocks: they order writes, and never decide who is alive.

Rule: everything that turns wall time into a stamp must live in this file. The wall clock comes
in as a callable, so a simulator can skew it.
Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks", OPODIS 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from meshlib.errors import ClockSkewError, ConfigError

__all__ = ["HybridClock", "Stamp"]

LOGICAL_MAX = (1 << 16) - 1


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

    def ahead_s(self, stamp: Stamp) -> float:
        """Return how far a stamp is ahead of the wall clock, in seconds; negative when behind."""
        return stamp.wall_ms / 1000 - self._wall_clock()

    def is_plausible(self, stamp: Stamp) -> bool:
        """Tell whether a stamp is at most `skew_max_s` ahead of the wall clock."""
        return self.ahead_s(stamp) <= self.skew_max_s

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
