"""How much the way to a peer carries, and so how much is put on it at once.

Rule this file owns: as much is on its way to a peer as the way holds without making what comes
behind it wait for long, for probes and new entries take the same way. On one of which nothing is
known yet that is little.

Source: a window that follows what was delivered, as of BBR (Cardwell, Cheng, Gunn, Yeganeh,
Jacobson, 2016), in small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import define

from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.limits import TRANSFER_WINDOW_BYTES_MAX

__all__ = ["FIRST_BYTES", "RESEND_S", "Way", "Ways"]

RESEND_S = 0.2
"""How long nothing is sent again, in seconds, beside what it takes on a slow link, when it was sent
once: who asks again may only have a slower one."""

SLOW_BYTES_PER_S = 50_000
"""The slowest link on which nothing is sent twice that was not lost; and as fast is one of which
nothing is known yet."""

QUEUED_S_MAX = 0.2
"""How much longer than the quickest something may take, in seconds: well under what a probe may."""

FIRST_BYTES = 4 * 1024
"""What is put on a way of which nothing is known yet: 0.08 s of 50 kB/s."""

WINDOW_BYTES_MIN = 2 * FIRST_BYTES
"""What is on its way at least, once something has come: while one part is read another travels."""

_TOOK_S_MIN = 0.0001
"""What something takes at least, in seconds: clocks have steps."""


@define(slots=True)
class Way:
    """The way to one peer, as far as it is known from what has come there.

    Args:
        window_bytes: how much may be on it.
        quickest_s: the shortest time after which something was known to have come.
        carried_per_s: how many bytes it carried in a second, by what came last and filled it.
    """

    window_bytes: int = FIRST_BYTES
    quickest_s: float = math.inf
    carried_per_s: float = 0.0

    def wait_s(self, way_bytes: int) -> float:
        """Return how long what is on the way may take before it counts as lost, in seconds."""
        return RESEND_S + way_bytes / max(SLOW_BYTES_PER_S, self.carried_per_s)

    def note_come(self, ahead_bytes: int, took_s: float) -> None:
        """Take note that something has come, and learn how much the way holds. O(1).

        What was on the way before it had come, by the time that took, is what the way carries in a
        second, or less where it was not full. So much is put on it as it carries in the time that
        the quickest took, and in `QUEUED_S_MAX` more.

        Args:
            ahead_bytes: what was on its way until then, itself included.
            took_s: how long it took, in seconds.
        """
        took_s = max(took_s, _TOOK_S_MIN)
        self.quickest_s = min(self.quickest_s, took_s)
        carried_per_s = ahead_bytes / took_s
        if carried_per_s < self.carried_per_s and ahead_bytes < self.window_bytes // 2:
            return  # it was not full, and says nothing of how much it carries
        self.carried_per_s = carried_per_s
        window_bytes = int(carried_per_s * (self.quickest_s + QUEUED_S_MAX))
        self.window_bytes = min(TRANSFER_WINDOW_BYTES_MAX, max(WINDOW_BYTES_MIN, window_bytes))

    def note_lost(self) -> None:
        """Let half as much be on it: something has not come in its time. O(1)."""
        self.window_bytes = max(WINDOW_BYTES_MIN, self.window_bytes // 2)


class Ways:
    """The ways to members, by their names; what a newcomer's carries is found out anew.

    Args:
        view: knows who is a member.
    """

    __slots__ = ("_known", "_view")

    def __init__(self, view: MembershipView) -> None:
        self._view = view
        self._known: dict[str, Way] = {}

    def to(self, name: str) -> Way:
        """Return the way to a member, the same until it is forgotten. O(1).

        To whoever is none it is one of which nothing is known, each time.
        """
        way = self._known.get(name)
        if way is None:
            way = Way()
            if name in self._view.members:
                self._known[name] = way
        return way

    def forget(self, name: str) -> None:
        """Drop what is known of the way to a member that is gone."""
        self._known.pop(name, None)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how much each of them holds, and carries."""
        return {name: (way.window_bytes, way.carried_per_s) for name, way in self._known.items()}

    def _check(self) -> None:
        """Assert that each leads to a member, and holds what may be on it."""
        is_known = all(name in self._view.members for name in self._known)
        require(self, is_known, "a way leads to who is gone")
        for way in self._known.values():
            is_within = FIRST_BYTES <= way.window_bytes <= TRANSFER_WINDOW_BYTES_MAX
            require(self, is_within, "a way holds nothing, or too much")
