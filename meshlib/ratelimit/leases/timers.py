"""What is due for the keys of a limiter. Nothing is cancelled: what means nothing is skipped."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

__all__ = ["Due", "KeyTimers"]

COMPACT_AT: Final = 8_192
"""Timers above which those that mean nothing any more are taken out, once they are half of all."""


class Due(IntEnum):
    """Why to look at a key."""

    TICKET = 1
    """A request that waits has waited long enough."""
    RETRY = 2
    """A question was not answered."""
    IDLE = 3
    """What is held has perhaps not been asked for."""
    WATCH = 4
    """Statistics are to be brought up to date."""

    LINE = 5
    """The first of those who wait in a line may come again."""

    DEADLINE = 6
    """One of them has waited long enough."""


class KeyTimers:
    """Deadlines in order; each carries what it was set for. Push and pop O(log n).

    Args:
        is_live: tells whether a timer still means something.
    """

    __slots__ = ("_heap", "_is_live", "_limit", "_order")

    def __init__(self, is_live: Callable[[Due, Any, Any], bool]) -> None:
        self._heap: list[tuple[float, int, Due, Any, Any]] = []
        self._order = 0
        self._is_live = is_live
        self._limit = COMPACT_AT

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due_at: float, due: Due, key: Any, token: Any) -> None:
        """Let a key be looked at, unless the token means nothing any more by then."""
        self._order += 1
        heapq.heappush(self._heap, (due_at, self._order, due, key, token))
        if len(self._heap) > self._limit:
            self._heap = [item for item in self._heap if self._is_live(*item[2:])]
            heapq.heapify(self._heap)
            self._limit = max(COMPACT_AT, 2 * len(self._heap))

    def next_deadline(self) -> float:
        """Return when something is due; infinity when nothing is."""
        heap = self._heap
        while heap and not self._is_live(*heap[0][2:]):
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def pop(self, now: float) -> tuple[Due, Any, Any] | None:
        """Return the next that is due and means something; None when there is none."""
        if self.next_deadline() > now:
            return None
        return heapq.heappop(self._heap)[2:]
