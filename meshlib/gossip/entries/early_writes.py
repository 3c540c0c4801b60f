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
- A clock that was set back between the writes and the meeting counts as ahead: where it stood
  beside the monotonic clock is looked at with every timer.
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
from meshlib.replication import Replica

__all__ = ["EarlyWrites"]

AHEAD_S: Final = 1.0
"""How far ahead a clock must be for its writes to be stamped again, in seconds: as far as is told
as a problem. Time services keep far below."""


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
        "_base_max_s",
        "_beginning",
        "_events",
        "_has_held",
        "_offsets",
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
        self._base_max_s = -math.inf
        self._has_held = False
        self.is_over = False
        """Whether nothing is held back any more, until the end."""

    def note_time(self, now: float) -> None:
        """Take note of where the wall clock stands beside the monotonic one. O(1).

        From the first write on: what it was before does not matter.
        """
        if self._replica.has_own_writes:
            self._base_max_s = max(self._base_max_s, self._base_now_s(now))

    def _base_now_s(self, now: float) -> float:
        try:
            return self._replica.clock.wall_s() - now
        except LocalError:
            return -math.inf  # the clock is broken, which every write says

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
        self.is_over = True
        is_followed = self._beginning.is_ready or not self._beginning.has_others
        if is_followed or not self._is_concerned:
            return
        ahead_s, error_s = self._offsets.ahead_s(now)
        step_s = self._base_max_s - self._base_now_s(now)
        if STEP_MIN_S < step_s < math.inf:
            ahead_s += step_s
        if ahead_s - error_s <= AHEAD_S:
            return
        view, old = self._view, self._replica.actor
        incarnation, new = view.next_identity(self._rng)
        # Rather too early than too late: what others wrote at about the same time stays.
        back_ms = self._replica.stamp_again(new, back_ms=math.ceil((ahead_s + error_s) * 1000))
        if back_ms:
            record = view.change_own_record(now, actor=new, incarnation=incarnation)
            self._renewed = MemberNews(record)
            self._events.emit(WritesRestamped(old=old, new=new, back_s=back_ms / 1000))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show whether entries are held back, and how the clock stood at the writes."""
        return {"is_over": self.is_over, "has_held": self._has_held, "base_max_s": self._base_max_s}

    def _check(self) -> None:
        """Assert that a node which has met nobody has nothing to let go."""
        has_met = self._beginning.has_met
        require(self, has_met or not self._has_held, "entries are held back from nobody")
