"""How a write spreads: when which share of the nodes had it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

from attrs import define, frozen

from meshlib.identity import ActorId

__all__ = ["Spread", "SpreadReport"]

_Key = tuple[ActorId, int]

OUTSTANDING_MAX: Final = 4_096
"""Writes followed at a time; the oldest is given up beyond it."""


@frozen(slots=True, kw_only=True)
class SpreadReport:
    """What became of the writes that were followed.

    Args:
        followed: how many.
        expected: arrivals to come: one for each write and each other node that ran when it was
            made, but for nodes that ended first.
        complete: how many of them reached every node that ran when they were made, and still did.
        arrivals_s: for each arrival of a write at another node, how long it took; sorted.
        completions_s: for each complete write, how long until the last node had it; sorted.
    """

    followed: int
    expected: int
    complete: int
    arrivals_s: tuple[float, ...]
    completions_s: tuple[float, ...]

    def curve(self, *, points: int = 50) -> list[tuple[float, float]]:
        """Return (seconds, share of the nodes reached by then), from 0 on. O(points).

        The share is of all nodes that were to be reached: it ends under 1 if some never were.
        """
        count = len(self.arrivals_s)
        steps = sorted(
            {(count - 1) * step // points for step in range(points + 1)} if count else ()
        )
        return [
            (0.0, 0.0),
            *((self.arrivals_s[step], (step + 1) / self.expected) for step in steps),
        ]

    def share_by(self, seconds: float) -> float:
        """Return the share of the nodes that were reached within some seconds. O(log n)."""
        return bisect_right(self.arrivals_s, seconds) / self.expected if self.expected else 0.0

    def quantile(self, share: float) -> float | None:
        """Return within how many seconds a share of the complete writes was everywhere."""
        count = len(self.completions_s)
        return self.completions_s[min(count - 1, int(share * count))] if count else None


@define(slots=True)
class _Followed:
    """One write under way, and how many nodes it has not reached."""

    at_s: float
    missing: int


class Spread:
    """Follows writes from the vector of their writer to the vectors of all others."""

    def __init__(self) -> None:
        self._under_way: dict[_Key, _Followed] = {}
        self._missing_at: dict[str, dict[_Key, _Followed]] = {}
        self._followed = 0
        self._expected = 0
        self._arrivals: list[float] = []
        self._completions: list[float] = []

    def written(self, actor: ActorId, sequence: int, *, others: list[str], now: float) -> None:
        """Follow a write from the moment it counts at its writer. O(nodes)."""
        key = (actor, sequence)
        if not others or key in self._under_way:
            return
        self._followed += 1
        self._expected += len(others)
        followed = self._under_way[key] = _Followed(now, len(others))
        for label in others:
            self._missing_at.setdefault(label, {})[key] = followed
        if len(self._under_way) > OUTSTANDING_MAX:
            self._give_up(next(iter(self._under_way)))

    def reached(self, label: str, vector: Mapping[ActorId, int], now: float) -> None:
        """Take note of a node's vector. O(writes that this node lacked)."""
        missing = self._missing_at.get(label)
        if not missing:
            return
        for key in [key for key in missing if vector.get(key[0], 0) >= key[1]]:
            followed = missing.pop(key)
            followed.missing -= 1
            self._arrivals.append(now - followed.at_s)
            if not followed.missing:
                self._completions.append(now - followed.at_s)
                del self._under_way[key]

    def ended(self, label: str) -> None:
        """Wait no more for a node whose process has ended. O(writes that it lacked)."""
        for key, followed in self._missing_at.pop(label, {}).items():
            self._expected -= 1
            followed.missing -= 1
            if not followed.missing:
                # The last of the others had it, whenever that was: it is not timed.
                del self._under_way[key]

    def _give_up(self, key: _Key) -> None:
        followed = self._under_way.pop(key)
        self._expected -= followed.missing
        for missing in self._missing_at.values():
            missing.pop(key, None)

    def report(self) -> SpreadReport:
        """Return what was seen so far. O(n log n)."""
        return SpreadReport(
            followed=self._followed,
            expected=self._expected,
            complete=len(self._completions),
            arrivals_s=tuple(sorted(self._arrivals)),
            completions_s=tuple(sorted(self._completions)),
        )
