"""Who fills in what is lacking: one peer at a time, and those who asked meanwhile after it.

Rules this file owns:
- A node that learns that it lacks entries tells its vector to one peer, which sends them. Whoever
  else would send the same is asked once that has come, or did not come for a while; and then with
  a hash, which is mostly all that it takes.
- Much that was filled in is told on as a hash: each neighbour that lacks it asks, one peer again.
Source: two halves of a hundred nodes that meet: each node had eight senders of all that it lacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require

__all__ = ["TOLD_ON_BYTES_MIN", "Filling"]

ANSWER_S: Final = 0.1
"""How long the peer that is asked may take to begin, beside two round trips to it."""

QUIET_S: Final = 0.02
QUIET_S_MAX: Final = 1.0
"""After so long without more of it a peer has sent what it was asked for; longer where the last
piece of it took longer."""

TOLD_ON_BYTES_MIN: Final = 4096
"""Less than this that is new is pushed on at once: a hash and a vector would take as much."""


class Filling:
    """Keeps whom this node has asked, who waits for it, and whether it has something to tell on.

    Args:
        view: knows the members.
        timers: end the waiting.
    """

    __slots__ = (
        "_answer_s", "_is_armed", "_later", "_moved_at", "_owes", "_timers", "_until", "_view",
        "asked",
    )  # fmt: skip

    def __init__(self, *, view: MembershipView, timers: TimerQueue) -> None:
        self._view = view
        self._timers = timers
        self.asked = ""
        """Who sends just now what this node lacks; empty for nobody."""
        self._until = self._moved_at = 0.0
        self._answer_s = ANSWER_S
        self._later: dict[str, None] = {}
        self._owes = False
        self._is_armed = False

    def ask(self, name: str, now: float, *, round_trip_s: float) -> bool:
        """Tell whether a peer may be asked now; otherwise it will be, after the one that is. O(1).

        Args:
            name: the peer.
            now: monotonic seconds.
            round_trip_s: to the peer and back.
        """
        if self.asked not in ("", name) and now < self._until:
            if name in self._view.members:
                self._later[name] = None
            return False
        self.asked, self._moved_at = name, now
        self._answer_s = ANSWER_S + 2 * round_trip_s
        self._until = now + self._answer_s
        self._arm()
        return True

    def note_given(self, name: str, now: float, *, is_much: bool, goes_on: bool = False) -> None:
        """Take note that a peer sent what this node lacked. O(1).

        Args:
            name: the peer.
            now: monotonic seconds.
            is_much: whether it is to be told on.
            goes_on: whether the peer sends more once it hears that this has come.
        """
        if name == self.asked:
            took_s = now - self._moved_at
            self._moved_at = now
            self._until = now + min(QUIET_S_MAX, max(QUIET_S, 2 * took_s))
            if goes_on:
                self._until = max(self._until, now + self._answer_s)
        if is_much:
            self._owes = True
        if is_much or name == self.asked:
            self._arm()

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            self._timers.set(self._timers.now + QUIET_S, Timer(TimerKind.FILLED))

    def take_over(self, now: float) -> tuple[str, ...]:
        """Return with whom to compare now: who waited, and who is told on. O(neighbours)."""
        self._is_armed = False
        if self.asked and now < self._until:
            self._arm()
            return ()
        names = dict(self._later)
        if self._owes:
            names |= dict.fromkeys(self._view.push_targets())
        names.pop(self.asked, None)
        self.restart()
        return tuple(names)

    def restart(self) -> None:
        """Ask and tell nobody that was to be."""
        self.asked = ""
        self._later.clear()
        self._owes = False

    def forget(self, name: str) -> None:
        """Drop what is kept about a member. O(1)."""
        self._later.pop(name, None)
        if name == self.asked:
            self._until = 0.0

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who is asked, and who will be."""
        return {
            "asked": self.asked,
            "until": self._until,
            "later": MappingProxyType(self._later),
            "owes": self._owes,
            "is_armed": self._is_armed,
        }

    def _check(self) -> None:
        """Assert that whoever waits is asked some time."""
        is_due = len(self._timers.of(TimerKind.FILLED))
        require(self, is_due == self._is_armed, "it is not looked once whether all came")
        is_waiting = self.asked or self._owes or self._later
        require(self, self._is_armed or not is_waiting, "somebody is never asked")
