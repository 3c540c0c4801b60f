"""What was written before this node met anybody, by a clock that may be wrong.

Rules this file owns:
- A node that was told of others, has written before it met one of them, and meets one now, first
  learns how its clock stands: until then, a round trip or `ASK_S`, it neither tells nor takes
  entries. They are treated as lost on the way, and the exchanges that follow bring them.
- So nobody has any of those writes when it is known that the clock is ahead, and they are put under
  the time at which they were made by the clocks of those that were met. What others wrote later
  stays; a time of now would replace it where it is still on its way.
- Clocks less than `AHEAD_S` apart are left alone. Who is behind too: its writes replace nothing,
  and stamps ahead of the own clock would make a state that this node could not begin with again.
- A node that is ready by then is left alone: those it meets are to follow it.
- A clock that is set back before anybody was met was wrong: what it has stamped is put back at
  once by as much, so that all that was written here stands beside the clock as it is. Where it
  stands beside the monotonic clock is looked at with every timer.
- One that is set forward after a write, or whose stamps are ahead of it for another reason, leaves
  writes of which nobody can tell how wrong they are: then all stamps stay as they are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any, Final

from meshlib.errors import LocalError
from meshlib.gossip.clock_offsets import STEP_MIN_S, ClockOffsets
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.events import WritesRestamped
from meshlib.gossip.messages.kinds import MemberNews
from meshlib.gossip.reports import EventQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.replication import Replica, SetBack

__all__ = ["EarlyWrites"]

AHEAD_S: Final = 1.0
"""How far ahead a clock must be for its writes to be stamped again, in seconds: as far as is told
as a problem. Time services keep far below."""

PUT_BACK_MAX: Final = 8
"""How often writes are put back, at most: a clock that is set more often than that knows no time,
and each time makes a new writer."""


class EarlyWrites:
    """Holds entries back until the first clocks were compared.

    Args:
        rng: how far a new identity is from the old one.
        replica: has the writes.
        view: knows who is there.
        beginning: knows whether this node is ready, and was told of others.
        offsets: know how this node's clock stands.
        events: hears of writes that were stamped again.
    """

    __slots__ = (
        "_beginning",
        "_events",
        "_has_held",
        "_is_mixed",
        "_looked",
        "_offsets",
        "_put_back_count",
        "_renewed",
        "_replica",
        "_rng",
        "_view",
        "is_over",
    )

    def __init__(
        self,
        *,
        rng: random.Random,
        replica: Replica,
        view: MembershipView,
        beginning: Beginning,
        offsets: ClockOffsets,
        events: EventQueue,
    ) -> None:
        self._rng = rng
        self._replica = replica
        self._view = view
        self._beginning = beginning
        self._offsets = offsets
        self._renewed: MemberNews | None = None
        self._events = events
        self._looked: tuple[float, float, tuple[int, int]] | None = None
        """When the wall clock was looked at, its time then less that one, and the latest stamp."""
        self._has_held = False
        self._is_mixed = False
        """Whether the stamps of this start are wrong by unlike amounts, or may be."""
        self._put_back_count = 0
        self.is_over = False
        """Whether nothing is held back any more, until the end."""

    def note_time(self, now: float) -> None:
        """Take note of where the wall clock stands beside the monotonic one, and of its steps.

        O(1), and O(content) where it was set back.
        """
        base_s, before = self._read_base_s(now), self._looked
        if base_s is None:
            return
        if before is not None:
            at, before_s, latest = before
            if base_s > before_s + STEP_MIN_S:
                self._is_mixed = self._is_mixed or self._replica.has_own_writes
            elif base_s < before_s - STEP_MIN_S:
                wrong_ms, right_ms = (int((at + each_s) * 1000) for each_s in (before_s, base_s))
                set_back = SetBack(latest, wrong_ms, right_ms)
                self._put_back(before_s - base_s, now, set_back=set_back)
        self._looked = now, base_s, self._replica.clock.latest

    def _read_base_s(self, now: float) -> float | None:
        try:
            return self._replica.clock.wall_s() - now
        except LocalError:
            return None  # the clock is broken, which every write says

    def settle(self, now: float) -> bool:
        """Hold nothing back any more if that may be; return whether entries still are.

        Where the clock is ahead this stamps early writes again: see `release`. O(1) once it is
        over, and while nobody was met; else O(members), and O(content) at its end.
        """
        if self.is_over:
            return False
        if not self._beginning.has_others:
            self.is_over = True  # it is its own cluster: who comes is to follow it
            return False
        if not self._view.peers():
            return True  # from who is no member here yet, or no longer there: it comes again
        if self._is_concerned and self._offsets.is_undecided(now):
            self._has_held = True
            return True
        self.release(now)
        return False

    @property
    def _is_concerned(self) -> bool:
        replica = self._replica
        return replica.has_own_writes and not replica.is_rejoining

    def take_released(self) -> bool:
        """Tell whether something was held back and is not any more, once."""
        is_released = self._has_held and self.is_over
        if is_released:
            self._has_held = False
        return is_released

    def take_renewed(self) -> MemberNews | None:
        """Return the news that this node is a new writer, once, to be spread."""
        renewed, self._renewed = self._renewed, None
        return renewed

    def release(self, now: float) -> None:
        """Hold nothing back from now on, and stamp again what was written by a clock ahead."""
        if self.is_over:
            return
        self.note_time(now)
        self.is_over = True
        is_followed = self._beginning.is_ready or not self._beginning.has_others
        if is_followed or not self._is_concerned:
            return
        ahead_s, error_s = self._offsets.ahead_s(now)
        if ahead_s - error_s > AHEAD_S and not self._is_ahead_of_itself:
            # Rather too early than too late: what others wrote at about the same time stays.
            self._put_back(ahead_s + error_s, now)

    @property
    def _is_ahead_of_itself(self) -> bool:
        """Whether stamps are ahead of this very clock: then some are more wrong than it is."""
        try:
            return self._replica.clock.leap_s() > AHEAD_S
        except LocalError:
            return True

    def _put_back(self, by_s: float, now: float, *, set_back: SetBack | None = None) -> None:
        """Put back all that was written here, as another writer; or nothing, from now on.

        Args:
            by_s: by how much, in seconds; over 0.
            now: monotonic seconds.
            set_back: how the clock was set back, if it was.
        """
        view, replica = self._view, self._replica
        is_possible = not (self._is_mixed or replica.is_rejoining or replica.has_early)
        if not is_possible or self._put_back_count >= PUT_BACK_MAX:
            self._is_mixed = True
            return
        old, (incarnation, new) = replica.actor, view.next_identity(self._rng)
        by_ms = math.ceil(by_s * 1000)
        back_ms = replica.stamp_again(new, back_ms=by_ms, set_back=set_back)
        if back_ms:
            self._put_back_count += 1
            record = view.change_own_record(now, actor=new, incarnation=incarnation)
            self._renewed = MemberNews(record)
            self._events.emit(WritesRestamped(old=old, new=new, back_s=back_ms / 1000))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show whether entries are held back, and what became of the clock."""
        return {
            "is_over": self.is_over,
            "has_held": self._has_held,
            "looked": self._looked,
            "is_mixed": self._is_mixed,
            "put_back_count": self._put_back_count,
        }

    def _check(self) -> None:
        """Assert that a node which has met nobody has nothing to let go."""
        has_met = self._beginning.has_met
        require(self, has_met or not self._has_held, "entries are held back from nobody")
