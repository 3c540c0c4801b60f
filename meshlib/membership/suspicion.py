"""How long a suspected member may refute before it is declared Down.

The wait starts long and shortens with each independent confirmation, so that one slow observer
cannot kill a healthy member while a real crash is confirmed quickly by many.
Source: Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure
Detection", 2017, section IV-B; HashiCorp memberlist's constants for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from meshlib.invariants import require

__all__ = ["Lateness", "Suspicion", "suspicion_bounds_s"]

SIZE_SHARE = 0.25
"""What each factor of ten in the cluster's size adds to the shortest wait, as a share of it. News
spreads eagerly here, from hand to hand at once and again each gossip interval: a refutation is
with a thousand nodes within 0.2 s, and within a second when half of all packets are lost, so the
full log10 of memberlist, whose news waits for its rounds, would be waiting for nothing."""

TIMEOUT_RATIO_MAX = 6
"""The unconfirmed wait over the fully confirmed one, as in memberlist."""

LATE_FACTOR = 4.0
"""A confirmed suspicion lasts this many times as long as the slowest recent refutation took."""

LATE_RATIO_MAX = 4.0
"""The longest confirmed wait over the shortest: under `TIMEOUT_RATIO_MAX`, so that on no network
anybody is Down later than an unconfirmed suspicion ends."""

LATE_HALF_LIFE_S = 120.0
"""After this time half of what was seen counts."""


def suspicion_bounds_s(
    member_count: int, *, multiplier: float, probe_interval_s: float
) -> tuple[float, float]:
    """Return the shortest and the longest wait for a cluster's size, in seconds.

    Args:
        member_count: members that take part, this node included; at least 1.
        multiplier: probe intervals in the shortest wait of a cluster of ten or fewer.
        probe_interval_s: seconds between two probes of one node.
    """
    scale = 1.0 + SIZE_SHARE * math.log10(max(10, member_count) / 10)
    shortest_s = multiplier * scale * probe_interval_s
    return shortest_s, TIMEOUT_RATIO_MAX * shortest_s


class Lateness:
    """How slow recent refutations were, of all members together.

    A network that loses many packets loses those of everybody: over TCP a frame then waits for
    retransmissions, each of which waits for longer than the one before. All observers see that,
    so each confirms the suspicions of the others, and what they agree on is not true. Where
    refutations come in no time, or nobody is suspected who lives, nothing is different.
    Two numbers, whatever happens.
    """

    __slots__ = ("_at", "_late_s")

    def __init__(self) -> None:
        self._late_s = 0.0
        self._at = 0.0

    def seen_s(self, now: float) -> float:
        """Return how long the slowest recent refutation took, in seconds. O(1).

        Half of it is forgotten every `LATE_HALF_LIFE_S`.

        Args:
            now: monotonic seconds.
        """
        return self._late_s * math.exp2(-max(0.0, now - self._at) / LATE_HALF_LIFE_S)

    def observe(self, late_s: float, now: float) -> None:
        """Take note that a member refuted `late_s` seconds after it was suspected here. O(1)."""
        if late_s > self.seen_s(now):
            self._late_s, self._at = late_s, now

    def stretch(self, bounds_s: tuple[float, float], now: float) -> tuple[float, float]:
        """Return the bounds of a suspicion that begins now: the shortest wait may be longer. O(1).

        Args:
            bounds_s: the shortest and the longest wait where refutations come in no time.
            now: monotonic seconds.

        Returns:
            A shortest wait of up to `LATE_RATIO_MAX` times the given one, and the same longest.
        """
        shortest_s, longest_s = bounds_s
        wanted_s = min(LATE_RATIO_MAX * shortest_s, LATE_FACTOR * self.seen_s(now))
        return min(longest_s, max(shortest_s, wanted_s)), longest_s

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how long the slowest took, and when it came."""
        return {"late_s": self._late_s, "at": self._at}

    def _check(self) -> None:
        """Assert that nobody refuted before it was suspected."""
        require(self, 0 <= self._late_s < math.inf, "a refutation came before the suspicion")


class Suspicion:
    """One suspicion of one incarnation of one member, and who shares it.

    Args:
        incarnation: the incarnation that is suspected.
        suspector: the name of the first node that suspects it.
        started: monotonic seconds.
        bounds_s: the shortest and the longest wait.
        confirmations_wanted: independent confirmations after which the wait is the shortest;
            0 when the cluster is too small to have any.
        token: names this suspicion to its timer; a later one has another.

    Attributes:
        ends_at: when the member is to be declared Down at the latest, because there is evidence
            that its process has ended; None while there is none.
        heard_at: when a frame of the member came last since it is suspected; None if none did.
    """

    __slots__ = (
        "_suspectors",
        "bounds_s",
        "confirmations_wanted",
        "ends_at",
        "heard_at",
        "incarnation",
        "started",
        "token",
    )

    def __init__(
        self,
        *,
        incarnation: int,
        suspector: str,
        started: float,
        bounds_s: tuple[float, float],
        confirmations_wanted: int,
        token: int,
    ) -> None:
        self.incarnation = incarnation
        self.started = started
        self.bounds_s = bounds_s
        self.confirmations_wanted = confirmations_wanted
        self.token = token
        self.ends_at: float | None = None
        self.heard_at: float | None = None
        self._suspectors = {suspector}

    def is_heard(self, now: float) -> bool:
        """Tell whether a frame of the member came within the shortest wait before now. O(1)."""
        return self.heard_at is not None and now - self.heard_at < self.bounds_s[0]

    @property
    def confirmation_count(self) -> int:
        """Independent confirmations so far, the first suspector not counted."""
        return len(self._suspectors) - 1

    def confirm(self, suspector: str) -> bool:
        """Count another node's suspicion. O(1).

        Returns:
            Whether it was news that shortens the wait, and so is worth telling others.
        """
        if self.confirmation_count >= self.confirmations_wanted or suspector in self._suspectors:
            return False
        self._suspectors.add(suspector)
        return True

    def lengthen(self, bounds_s: tuple[float, float]) -> bool:
        """Take longer bounds, by what was learnt since it began; shorter ones are left. O(1).

        Returns:
            Whether the shortest wait is longer now.
        """
        if bounds_s[0] <= self.bounds_s[0]:
            return False
        self.bounds_s = bounds_s
        return True

    def timeout_s(self) -> float:
        """Return the wait from the start, in seconds, with the confirmations so far."""
        shortest_s, longest_s = self.bounds_s
        if self.confirmations_wanted <= 0:
            return shortest_s
        share = math.log(self.confirmation_count + 1) / math.log(self.confirmations_wanted + 1)
        return max(shortest_s, longest_s - share * (longest_s - shortest_s))

    def deadline(self) -> float:
        """Return when the member is to be declared Down, in monotonic seconds.

        One that is heard has the shortest wait anew, up to the longest in all: its process lives,
        and answers late. One that hears nobody, and cannot answer, is Down after that.
        """
        shortest_s, longest_s = self.bounds_s
        deadline = self.started + self.timeout_s()
        if self.heard_at is not None:
            return max(deadline, min(self.heard_at + shortest_s, self.started + longest_s))
        return deadline if self.ends_at is None else min(deadline, self.ends_at)
