"""How far the wall clocks of members are from this node's, and how sure that is.

Rules this file owns:
- An offset is measured by the probes that are made anyway: the answer tells the wall time of who
  answered, which was its time somewhere between question and answer. So the error is half the
  round trip, whatever the way took in each direction.
- Of the measurements of late the surest counts; one that contradicts it shows that a clock was
  set, and counts from then on.
- With each measurement it is kept where this node's wall clock stood beside its monotonic one. So a
  large step of its own wall clock is seen with the next look, before anybody was asked again.
- A node that begins asks everybody whom it meets, and until enough have answered to be a majority
  it is awaited how its own clock stands. Who does not answer is awaited no longer than `ASK_S`.
- Wall clocks never decide who is alive: nothing here does anything but tell.

Source: the clock filter of NTP (RFC 5905, "Network Time Protocol Version 4", 2010), in small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from attrs import frozen

from meshlib.clock import HybridClock
from meshlib.errors import LocalError
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.membership import Electorate
from meshlib.reading import STAMP_MS_MAX

__all__ = ["ClockOffset", "ClockOffsets"]

TRIPS_SMOOTHED: Final = 8
"""A round trip counts for so small a part of their mean, as in TCP (RFC 6298)."""

DRIFT: Final = 0.001
"""How much surer a new measurement is than an old one, in seconds for each second between them. Far
over what quartz drifts (0.0001), so that a measurement is replaced within minutes."""

STEP_MIN_S: Final = 2.0
"""A smaller step of this node's own clock is seen when the next measurement is made: the monotonic
time that it is compared with may be of the last timer, up to a second ago."""

ASK_S: Final = 2.0
"""How long a member's answer is awaited that was asked as it was met, in seconds: a few round trips
of the slowest network. The probes of later measure whoever did not answer."""

NOT_ASKED: Final = -1
"""In the place of a question's number."""

KEPT_S: Final = 0.05
"""How long what is known of the peers is told again as it was, in seconds: each write asks for it.
Within that time an error grows by a twentieth of a millisecond."""

RESOLUTION_S: Final = 0.001
"""What is told is told in milliseconds."""


@frozen(slots=True)
class ClockOffset:
    """What is known of one member's wall clock.

    Args:
        name: the member.
        offset_s: how far its clock is ahead of this node's, in seconds; negative when behind.
        error_s: how far that may be off either way.
    """

    name: str
    offset_s: float
    error_s: float

    @property
    def surely_s(self) -> float:
        """How far the two clocks are apart at least, in seconds; negative when it is behind."""
        surely_s = max(0.0, abs(self.offset_s) - self.error_s)
        return math.copysign(surely_s, self.offset_s)


@frozen(slots=True)
class _Measured:
    """One measurement.

    Args:
        offset_s: how far the member's clock was ahead of this node's.
        own_base_s: this node's wall time then, less its monotonic time.
        error_s: how far that may be off.
        at: when it was made, in monotonic seconds.
    """

    offset_s: float
    own_base_s: float
    error_s: float
    at: float

    def error_at(self, now: float) -> float:
        """Return the error that it has by now: clocks drift."""
        return self.error_s + DRIFT * max(0.0, now - self.at)


class ClockOffsets:
    """Measures the members' wall clocks.

    Args:
        view: knows the members.
        electorate: knows how many a majority is.
        clock: reads this node's wall clock; it may raise a `LocalError`.
    """

    __slots__ = ("_asked", "_clock", "_electorate", "_kept", "_measured", "_trips", "_view")

    def __init__(self, *, view: MembershipView, electorate: Electorate, clock: HybridClock) -> None:
        self._view = view
        self._electorate = electorate
        self._clock = clock
        self._measured: dict[str, _Measured] = {}
        self._kept: tuple[float, float, int, tuple[ClockOffset, ...]] | None = None
        """What was told of the peers last: at what time, by which own clock, of which members."""
        self._trips: dict[str, float] = {}
        self._asked: dict[str, tuple[int, float]] = {}
        """The question's number and time, by the name of who has not answered it yet."""

    def told_ms(self) -> int:
        """Return what this node tells of its wall clock: milliseconds, or 0 for nothing. O(1)."""
        try:
            told_ms = int(self._clock.wall_s() * 1000)
        except LocalError:
            return 0  # the clock is broken, which every write says; there is nothing to tell
        return told_ms if 0 < told_ms <= STAMP_MS_MAX else 0

    def meet(self, name: str, now: float) -> None:
        """Await the answer of a member that is about to be asked, if too few are measured. O(1)."""
        if 2 * len(self._measured) <= len(self._view.members):
            self._asked[name] = (NOT_ASKED, now)

    def to_ask(self, name: str) -> bool:
        """Tell whether a member is to be asked. O(1)."""
        return self._asked.get(name, (0, 0.0))[0] == NOT_ASKED

    def ask(self, name: str, sequence: int, now: float) -> None:
        """Take note that such a member is asked under a number that no other question has. O(1)."""
        self._asked[name] = (sequence, now)

    def answer(self, name: str, sequence: int, told_ms: int, *, now: float) -> None:
        """Take a member's answer, if it is one to such a question. O(1)."""
        asked = self._asked.get(name)
        if asked is not None and asked[0] == sequence:
            del self._asked[name]
            self.observe(name, told_ms, sent=asked[1], now=now)

    def is_awaited(self, now: float) -> bool:
        """Tell whether answers that are awaited may show how a majority's clocks stand.

        O(members) while somebody was asked and has not answered, else O(1).
        """
        if not self._asked:
            return False
        measured_count, needed = self._measured_count(), self._majority()
        return measured_count < needed <= measured_count + self._awaited_count(now)

    def is_undecided(self, now: float) -> bool:
        """Tell whether an answer is awaited still, and no majority has answered. O(members)."""
        if not self._asked or self._measured_count() >= self._majority():
            return False
        return self._awaited_count(now) > 0

    def ahead_s(self, now: float) -> tuple[float, float]:
        """Return by how much this node's clock is ahead of the members' in reach. O(members).

        Their median counts. Of two in the middle it is the value nearest to zero: where one of two
        peers says that this clock is right, two clocks agree against one.

        Returns:
            the seconds, negative when it is behind, 0 where nobody was measured; and how far that
            may be off.
        """
        peers = self.of_peers(now)
        if not peers:
            return 0.0, 0.0
        ahead_s = sorted(-known.offset_s for known in peers)
        low, high = ahead_s[(len(peers) - 1) // 2], ahead_s[len(peers) // 2]
        return min(max(0.0, low), high), max(known.error_s for known in peers)

    def _measured_count(self) -> int:
        return sum(peer.name in self._measured for peer in self._view.peers())

    def _awaited_count(self, now: float) -> int:
        return sum(
            peer.name in self._asked
            and peer.name not in self._measured
            and now - self._asked[peer.name][1] < ASK_S
            for peer in self._view.peers()
        )

    def _majority(self) -> int:
        return self._electorate.judge().known_count // 2 + 1

    def observe(
        self, name: str, told_ms: int, *, sent: float, now: float, is_direct: bool = True
    ) -> None:
        """Take a member's answer to a probe. O(1).

        Args:
            name: who answered.
            told_ms: what its wall clock showed, in milliseconds; 0 when it told nothing.
            sent: when it was asked, in monotonic seconds.
            now: when the answer came.
            is_direct: whether no other member was asked to ask.
        """
        if name not in self._view.members:
            return
        trip_s = max(0.0, now - sent)
        if is_direct:
            before_s = self._trips.get(name, trip_s)
            self._trips[name] = before_s + (trip_s - before_s) / TRIPS_SMOOTHED
        if not told_ms:
            return
        half_s = trip_s / 2
        try:
            own_s = self._clock.wall_s()
        except LocalError:
            return  # nothing can be compared with a clock that is broken
        offset_s = told_ms / 1000 - (own_s - half_s)
        new = _Measured(offset_s, own_s - now, half_s + RESOLUTION_S, now)
        known = self._measured.get(name)
        if known is not None:
            known_error_s = known.error_at(now)
            is_set = abs(new.offset_s - known.offset_s) > known_error_s + new.error_s
            if not is_set and new.error_s > known_error_s:
                return
        self._measured[name] = new
        self._kept = None

    def of_peers(self, now: float) -> Sequence[ClockOffset]:
        """Return what is known of the members in reach, sorted by name.

        Empty when this node's own clock cannot be read. O(members), and O(1) where it was asked
        less than `KEPT_S` ago and neither members nor this node's clock have changed since.

        Args:
            now: monotonic seconds, of a moment ago at most.
        """
        try:
            own_base_s = self._clock.wall_s() - now
        except LocalError:
            return ()
        revision = self._view.members.revision
        if self._kept is not None:
            kept_at, kept_base_s, kept_revision, kept = self._kept
            is_fresh = abs(now - kept_at) < KEPT_S and abs(own_base_s - kept_base_s) < KEPT_S
            if is_fresh and kept_revision == revision:
                return kept
        found: list[ClockOffset] = []
        for peer in self._view.peers():
            known = self._measured.get(peer.name)
            if known is not None:
                step_s, error_s = own_base_s - known.own_base_s, known.error_at(now)
                if abs(step_s) > STEP_MIN_S:
                    error_s += STEP_MIN_S / 2
                else:
                    step_s = 0.0
                found.append(ClockOffset(peer.name, known.offset_s - step_s, error_s))
        self._kept = now, own_base_s, revision, (kept := tuple(found))
        return kept

    def round_trips_s(self) -> Mapping[str, float]:
        """Return how long members take to answer a probe, in seconds, by name: a moving mean."""
        return MappingProxyType(self._trips)

    def forget(self, name: str) -> None:
        """Drop what is kept about a start of a member that is over. O(1)."""
        self._measured.pop(name, None)
        self._kept = None
        self._trips.pop(name, None)
        self._asked.pop(name, None)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what was measured, and who was asked and has not answered."""
        return {
            "measured": MappingProxyType(self._measured),
            "round_trips_s": MappingProxyType(self._trips),
            "asked": MappingProxyType(self._asked),
        }

    def _check(self) -> None:
        """Assert that only members are kept, each with an error that is none below zero."""
        members = self._view.members
        require(self, all(name in members for name in self._measured), "who is gone is measured")
        require(self, all(name in members for name in self._trips), "who is gone is measured")
        require(self, all(name in members for name in self._asked), "who is gone is asked")
        is_right = all(known.error_s >= RESOLUTION_S for known in self._measured.values())
        require(self, is_right, "a measurement is surer than it can be")
