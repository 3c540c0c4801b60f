"""How much one node is asked for of one key."""

from __future__ import annotations

from typing import Final

__all__ = ["DemandMeter"]

SLOT_S: Final = 0.1
COST_WEIGHT: Final = 1 / 8


class DemandMeter:
    """Units a second, by the busier of this slot of a tenth of a second and the one before it."""

    __slots__ = ("_before", "_current", "_ends_at", "cost")

    def __init__(self) -> None:
        self.cost = 1.0
        """What a request costs, on a moving average."""
        self._current = self._before = 0
        self._ends_at = 0.0

    def note(self, cost: int, now: float) -> None:
        """Count a request's units. O(1)."""
        if now >= self._ends_at:
            self._before = self._current if now < self._ends_at + SLOT_S else 0
            self._current = 0
            self._ends_at = now + SLOT_S
        self._current += cost
        self.cost += (cost - self.cost) * COST_WEIGHT

    def is_busy(self) -> bool:
        """Tell whether there were two requests within a slot, so that a third may follow soon."""
        return max(self._current, self._before) >= 2 * self.cost

    def rate(self) -> float:
        """Return the units a second, as of the last request."""
        return max(self._current, self._before) / SLOT_S
