"""Whom to probe, how long to wait, and how healthy this node is itself.

Source: SWIM section 4.3 (round robin bounds the time until every member is probed), Lifeguard
section IV-A (local health), and RFC 6298 (smoothed round trips) for the timeout.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, field

from meshlib.invariants import require

__all__ = ["LocalHealth", "Probe", "ProbeOrder", "RoundTrips"]


class LocalHealth:
    """How far this node trusts its own accusations: 0 is healthy, each point slows its probes.

    Args:
        score_max: the highest score plus one; memberlist's default is 8.
    """

    __slots__ = ("_score_max", "score")

    def __init__(self, *, score_max: int = 8) -> None:
        self._score_max = score_max
        self.score = 0

    def adjust(self, points: int) -> None:
        """Add points (negative: good news); the score stays within 0 and its maximum."""
        self.score = min(self._score_max - 1, max(0, self.score + points))

    @property
    def multiplier(self) -> int:
        """What this node's intervals and timeouts are multiplied by; 1 when healthy."""
        return self.score + 1

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the score, and the highest that it takes."""
        return {"score": self.score, "score_max": self._score_max - 1}

    def _check(self) -> None:
        """Assert that the score stays within its bounds."""
        require(self, 0 <= self.score < self._score_max, "the score is out of its bounds")


class RoundTrips:
    """The timeout of a direct probe, from measured round trips.

    Args:
        timeout_min_s: never wait less; a floor for a local network's jitter.
        timeout_max_s: the wait before anything was measured, and never wait more.
    """

    __slots__ = ("_smoothed_s", "_timeout_max_s", "_timeout_min_s", "_variation_s")

    def __init__(self, *, timeout_min_s: float, timeout_max_s: float) -> None:
        self._timeout_min_s = timeout_min_s
        self._timeout_max_s = timeout_max_s
        self._smoothed_s: float | None = None
        self._variation_s = 0.0

    def observe(self, round_trip_s: float) -> None:
        """Take a measured round trip into account. O(1)."""
        if self._smoothed_s is None:
            self._smoothed_s = round_trip_s
            self._variation_s = round_trip_s / 2
            return
        self._variation_s += (abs(self._smoothed_s - round_trip_s) - self._variation_s) / 4
        self._smoothed_s += (round_trip_s - self._smoothed_s) / 8

    def timeout_s(self) -> float:
        """Return how long to wait for a direct answer, in seconds."""
        if self._smoothed_s is None:
            return self._timeout_max_s
        wait_s = self._smoothed_s + 4 * self._variation_s
        return min(self._timeout_max_s, max(self._timeout_min_s, wait_s))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what was measured; None before anything was."""
        return {"smoothed_s": self._smoothed_s, "variation_s": self._variation_s}

    def _check(self) -> None:
        """Assert that nothing took less than no time."""
        is_possible = self._variation_s >= 0 and (self._smoothed_s is None or self._smoothed_s >= 0)
        require(self, is_possible, "a round trip took less than no time")


class ProbeOrder:
    """Members in the order in which they are probed: shuffled, all before any again.

    A new name enters at a random place, so that a member is probed at the latest after two
    rounds. O(n) for each round and for each change of the names, O(1) amortised for each pick.

    Args:
        rng: shuffles.
    """

    __slots__ = ("_next", "_order", "_rng", "_seen", "_wanted")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._order: list[str] = []
        self._next = 0
        self._seen: tuple[str, ...] | None = None
        self._wanted: dict[str, None] = {}

    def pick(self, names: Iterable[str]) -> str | None:
        """Return the next of `names` to probe, or None when there are none.

        Args:
            names: all members that may be probed now, in an order that is the same for the
                same membership. The very same tuple as before is not looked through again.
        """
        if names is not self._seen:
            self._wanted = dict.fromkeys(names)
            self._seen = names if isinstance(names, tuple) else None
            known = set(self._order)
            for name in [name for name in self._wanted if name not in known]:
                self._order.insert(self._rng.randint(self._next, len(self._order)), name)
        wanted = self._wanted
        if not wanted:
            return None
        while True:
            if self._next >= len(self._order):
                self._begin_round()
            name = self._order[self._next]
            self._next += 1
            if name in wanted:
                return name

    def _begin_round(self) -> None:
        self._order = [name for name in self._order if name in self._wanted]
        self._rng.shuffle(self._order)
        self._next = 0

    def take(self, name: str) -> bool:
        """Take one out of its turn, if its turn in this round is still to come.

        It has no other turn in this round then, so that nobody is left out for longer. Where a
        round has just ended the next one begins. O(n).

        Args:
            name: one of those that were wanted last.
        """
        if name not in self._wanted:
            return False
        if self._next >= len(self._order):
            self._begin_round()
        try:
            place = self._order.index(name, self._next)
        except ValueError:
            return False
        del self._order[place]
        self._order.insert(self._next, name)
        self._next += 1
        return True

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the order, and how many of it were probed in this round."""
        return {"order": tuple(self._order), "next": self._next}

    def _check(self) -> None:
        """Assert that everybody who is wanted has one place."""
        require(self, len(set(self._order)) == len(self._order), "a member has two places")
        require(self, 0 <= self._next <= len(self._order), "the next one is past the end")
        require(self, self._wanted.keys() <= set(self._order), "a member is never probed")


@define(slots=True, kw_only=True)
class Probe:
    """One probe that waits for an answer.

    Args:
        sequence: names it on the wire.
        target: the member's name.
        incarnation: the member's incarnation when the probe began.
        sent: monotonic seconds.
        helpers: the names that were asked to probe for us.
        refusals: those of them that answered that they had no answer either.
        is_indirect: whether helpers were asked.
        is_refused: whether the link to the member broke meanwhile, or a dial was refused.
    """

    sequence: int
    target: str
    incarnation: int
    sent: float
    helpers: tuple[str, ...] = ()
    refusals: set[str] = field(factory=set)
    is_indirect: bool = False
    is_refused: bool = False

    @property
    def is_denied_by_all(self) -> bool:
        """Whether every helper said that it had no answer either."""
        return len(self.refusals) == len(self.helpers)
