"""What is due, and when.

Rule: timers are values. A part sets one with a key and a token; when it fires the part looks
whether the token still means something. Nothing is ever cancelled.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import frozen

from meshlib.invariants import require

__all__ = ["Timer", "TimerKind", "TimerQueue", "jittered"]


class TimerKind(StrEnum):
    """What is due: the engine's table of handlers is keyed by it."""

    PROBE = "probe"
    PROBE_DIRECT = "probe_direct"
    PROBE_FINAL = "probe_final"
    RELAY = "relay"
    SUSPICION = "suspicion"
    JOIN = "join"
    HEAL = "heal"
    CLAIM = "claim"
    GOSSIP = "gossip"
    FORGET = "forget"
    GAP = "gap"
    PUSH = "push"
    ACKNOWLEDGE = "acknowledge"
    BEGIN = "begin"
    HANDOVER = "handover"
    TELL_READY = "tell_ready"
    EXCHANGE = "exchange"
    TRANSFER_IN = "transfer_in"
    TRANSFER_OUT = "transfer_out"
    TRANSFER_PAGE = "transfer_page"
    TRANSFER_TAKE = "transfer_take"
    FILLED = "filled"
    MAINTENANCE = "maintenance"


@frozen(slots=True)
class Timer:
    """One deadline.

    Args:
        kind: what is due.
        key: what it is due for: a name, an address; empty when there is only one.
        token: what it was set for; a stale one is ignored by its handler.
    """

    kind: TimerKind
    key: str = ""
    token: int = 0


class TimerQueue:
    """Deadlines in order, and the time by which they are judged. Push and pop O(log n).

    Args:
        now: monotonic seconds. The attribute is the time of the driver's last call.
    """

    __slots__ = ("_heap", "_order", "now")

    def __init__(self, now: float) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due: float, timer: Timer) -> None:
        """Let a timer fire at `due` (monotonic seconds)."""
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, timer))

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, or None."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Timer | None:
        """Return the next timer that is due, or None."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    def of(self, kind: TimerKind) -> list[Timer]:
        """Return the timers of a kind that are set, in no order. O(timers)."""
        return [timer for _, _, timer in self._heap if timer.kind is kind]

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what is due, and when."""
        return {"now": self.now, "count": len(self._heap), "set": tuple(self._heap)}

    def _check(self) -> None:
        """Assert that the earliest deadline is found first, and that each has one place."""
        heap = self._heap
        is_in_order = all(heap[(n - 1) // 2] <= heap[n] for n in range(1, len(heap)))
        require(self, is_in_order, "the earliest is not first")
        orders = {order for _, order, _ in heap}
        require(self, len(orders) == len(heap), "two timers have one place")
        require(self, not heap or max(orders) <= self._order, "a timer is from the future")


def jittered(duration_s: float, rng: random.Random) -> float:
    """Return a time around `duration_s`, a quarter more or less, so that nodes fall apart."""
    return duration_s * (0.75 + 0.5 * rng.random())
