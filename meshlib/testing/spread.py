"""How a write spreads: when which share of the nodes had it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import define, frozen

from meshlib.identity import ActorId

__all__ = ["Spread", "SpreadReport"]

OUTSTANDING_MAX: Final = 4_096
"""Writes followed at a time; the oldest is given up beyond it."""


@frozen(slots=True, kw_only=True)
class SpreadReport:
    """What became of the writes that were followed.

    Args:
        followed: how many.
        complete: how many of them reached every node that ran when they were made.
        arrivals_s: for each arrival of a write at another node, how long it took; sorted.
        completions_s: for each complete write, how long until the last node had it; sorted.
    """

    followed: int
    complete: int
    arrivals_s: tuple[float, ...]
    completions_s: tuple[float, ...]

    def curve(self, *, points: int = 50) -> list[tuple[float, float]]:
        """Return (seconds, share of the arrivals by then), at equal shares. O(points)."""
        count = len(self.arrivals_s)
        return [
            (self.arrivals_s[min(count - 1, count * step // points)], step / points)
            for step in range(points + 1)
            if count
        ]

    def quantile(self, share: float) -> float | None:
        """Return within how many seconds a share of the complete writes was everywhere."""
        count = len(self.completions_s)
        return self.completions_s[min(count - 1, int(share * count))] if count else None


@define(slots=True)
class _Followed:
    """One write under way."""

    at_s: float
    missing: dict[str, None]


class Spread:
    """Follows writes from the clock of their writer to the clocks of all others."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[ActorId, int], _Followed] = {}
        self._followed = 0
        self._arrivals: list[float] = []
        self._completions: list[float] = []

    def written(self, actor: ActorId, sequence: int, *, others: list[str], now: float) -> None:
        """Follow a write from the moment it counts at its writer."""
        if not others:
            return
        self._followed += 1
        self._under_way[actor, sequence] = _Followed(now, dict.fromkeys(others))
        if len(self._under_way) > OUTSTANDING_MAX:
            del self._under_way[next(iter(self._under_way))]

    def reached(self, label: str, clock: Mapping[ActorId, int], now: float) -> None:
        """Take note of a node's clock. O(writes under way)."""
        done = []
        for key, followed in self._under_way.items():
            if label in followed.missing and clock.get(key[0], 0) >= key[1]:
                del followed.missing[label]
                self._arrivals.append(now - followed.at_s)
                if not followed.missing:
                    self._completions.append(now - followed.at_s)
                    done.append(key)
        for key in done:
            del self._under_way[key]

    def report(self) -> SpreadReport:
        """Return what was seen so far. O(n log n)."""
        return SpreadReport(
            followed=self._followed,
            complete=len(self._completions),
            arrivals_s=tuple(sorted(self._arrivals)),
            completions_s=tuple(sorted(self._completions)),
        )
