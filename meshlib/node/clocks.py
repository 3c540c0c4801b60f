"""What a node says and does about wall clocks that differ.

Rules this file owns:
- Members whose clocks are over a second apart say so, each of the two.
- A node whose clock is further ahead of those of a majority than a write may be stamped takes no
  writes: the others would not see them for so long, and then they would replace newer ones. A
  majority is more than half of all members, those out of reach included: of two nodes neither
  refuses, for nobody knows which of them is wrong.
- A node that joins takes none while its peers' first answers are on their way, which is a round
  trip: it does not know yet whether its clock is right.
- One that is so far behind says it: what others write waits here until it is plausible, and a node
  that joins waits with it.
- A node's own stamps go on from the latest it has made or seen, so what counts for "ahead" is the
  later of those and its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from meshlib.clock import HybridClock
from meshlib.errors import ClockAheadError, NotReadyError
from meshlib.gossip import ClockOffset
from meshlib.membership import PartitionView

__all__ = ["ClockJudge"]

TOLD_S: Final = 1.0
"""How far two clocks may be apart before it is told, in seconds. Time services keep far below."""

RETRY_AFTER_S: Final = 1.0
"""When a caller should write again who was refused for want of a comparison, in seconds."""

NAMED_MAX: Final = 5
"""Members whose clocks differ that are named; of the others it is said how many there are."""


class ClockJudge:
    """Judges this node's clock by those of its peers.

    Args:
        clock: stamps this node's writes.
        offsets: returns what is known of the peers in reach, at a time.
        partition: returns whom there is.
        is_comparing: tells whether peers are about to say how this node's clock stands, at a time.
        now: returns the latest monotonic time that is known.
    """

    __slots__ = ("_clock", "_is_comparing", "_now", "_offsets", "_partition", "_told")

    def __init__(
        self,
        clock: HybridClock,
        *,
        offsets: Callable[[float], Sequence[ClockOffset]],
        partition: Callable[[], PartitionView],
        is_comparing: Callable[[float], bool],
        now: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._offsets = offsets
        self._partition = partition
        self._is_comparing = is_comparing
        self._now = now
        self._told: dict[str, float] = {}

    def check_write(self) -> None:
        """Refuse a write that a majority would not believe yet, or may not. O(members).

        Raises:
            ClockAheadError: this node's clock is too far ahead of a majority's.
            NotReadyError: the peers' first answers are on their way. State unchanged by either.
        """
        if self._is_comparing(self._now()):
            what, story = "how this node's clock stands", "the peers it has just met are asked"
            raise NotReadyError(what=what, story=(story,), retry_after_s=RETRY_AFTER_S)
        if self.is_ahead():
            raise ClockAheadError(ahead_s=self.ahead_s(), skew_max_s=self._clock.skew_max_s)

    def is_ahead(self) -> bool:
        """Tell whether what is written here would be believed too late. O(members)."""
        distances_s, limit_s = self._ahead_of_each_s(), self._clock.skew_max_s
        # Asked at every write: who counts is only looked at where it can matter.
        if max(distances_s, default=0.0) <= limit_s:
            return False
        return self._of_majority(distances_s) > limit_s

    def ahead_s(self) -> float:
        """Return by how much this node's next stamp is surely ahead of a majority's clocks.

        In seconds; 0 when it is not, or where too few have been measured. O(members).
        """
        return self._of_majority(self._ahead_of_each_s())

    def _ahead_of_each_s(self) -> list[float]:
        leap_s = self._clock.leap_s()
        return [leap_s - known.surely_s for known in self._offsets(self._now())]

    def behind_s(self) -> float:
        """Return by how much a majority's clocks are surely ahead of this node's. O(members)."""
        return self._of_majority([known.surely_s for known in self._offsets(self._now())])

    def _of_majority(self, distances_s: Sequence[float]) -> float:
        """Return what so many distances reach that they are more than half of all members."""
        needed = self._partition().known_count // 2 + 1
        if len(distances_s) < needed:
            return 0.0
        return max(0.0, sorted(distances_s, reverse=True)[needed - 1])

    def lag_problem(self) -> str:
        """Say that this node cannot join because its clock is behind; empty when it is not."""
        skew_max_s = self._clock.skew_max_s
        ahead = [known.name for known in self._offsets(self._now()) if known.surely_s > skew_max_s]
        if not ahead:
            return ""
        return (
            f"this node's clock is over {skew_max_s:g} s behind that of {_some(ahead)}: what they "
            "send waits until it is right"
        )

    def problems(self) -> list[str]:
        """Say which clocks differ, one line each, alike while they stay alike. O(members)."""
        lines: list[str] = []
        skew_max_s = self._clock.skew_max_s
        if self.is_ahead():
            lines.append(
                f"this node's clock is over {skew_max_s:g} s ahead of most others: it takes no "
                "writes until that is over"
            )
        elif self.behind_s() > skew_max_s:
            lines.append(
                f"this node's clock is over {skew_max_s:g} s behind most others: what they write "
                "waits until it is right"
            )
        apart = [known for known in self._offsets(self._now()) if abs(known.surely_s) > TOLD_S]
        before, self._told = self._told, {}
        for known in sorted(apart, key=lambda each: (-abs(each.surely_s), each.name))[:NAMED_MAX]:
            # The same figure while it holds about: a line that changes is a new problem.
            told_s = before.get(known.name, known.offset_s)
            if abs(told_s - known.offset_s) > max(TOLD_S, abs(told_s) / 10):
                told_s = known.offset_s
            self._told[known.name] = told_s
            side = "ahead of" if told_s > 0 else "behind"
            lines.append(f"the clock of {known.name} is {abs(told_s):.1f} s {side} this node's")
        if len(apart) > NAMED_MAX:
            lines.append("the clocks of other members differ too")
        return lines


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
