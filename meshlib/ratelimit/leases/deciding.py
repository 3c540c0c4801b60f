"""What one node admits of a key: from what it holds, on credit, or alone.

Rule: whatever is admitted on credit is counted here, and nowhere else.
"""

from __future__ import annotations

from meshlib.errors import InvalidTypeError, InvalidValueError, LocalError
from meshlib.ratelimit.config import PartitionMode
from meshlib.ratelimit.leases.asking import LeaseAsker, refused_key
from meshlib.ratelimit.leases.holder import HeldKey
from meshlib.ratelimit.leases.windows import PERIOD_S
from meshlib.ratelimit.records import Decision

__all__ = ["LeaseDecider"]


class LeaseDecider(LeaseAsker):
    """The decisions of one node; see `LeaseAsker` for what it is made with."""

    def _open(self, key: str, cost: int, now: float) -> HeldKey:
        """Return a key's state, looked up and noted; raises for what cannot be decided."""
        if type(cost) is not int or cost < 1:
            raise _refused_cost(cost)
        self._now = now
        try:
            tracked = self._tracked.get(key)
        except TypeError:
            raise refused_key(key) from None
        if tracked is None:
            tracked = self._track(key, now)
        if now >= tracked.look_at or tracked.view_id != self._view.view_id:
            self._look(tracked, now)
        limit = tracked.limit
        if limit:
            if cost > limit:
                raise InvalidValueError(f"cost {cost} can never pass a limit of {limit} a second")
            tracked.meter.note(cost, now)
            tracked.last_at = now
        return tracked

    def _decide_here(self, tracked: HeldKey, cost: int, now: float) -> Decision | None:
        """Decide from what is held, from what the owner said, or because it says nothing."""
        if not tracked.queue and tracked.take(cost, now):
            if tracked.held <= tracked.low and tracked.under_way is None:
                self._question(tracked, now)
            return tracked.granted(tracked.held_number, now)
        if now < tracked.spent_until:
            return tracked.refused(now)
        since = tracked.unanswered_since
        if since is not None and now - since > self._silent_s and not self._is_patient(now):
            self._question(tracked, now)
            return self._decide_alone(tracked, cost, now)
        return None

    def _decide_on_credit(self, tracked: HeldKey, cost: int, now: float) -> Decision:
        limit = tracked.limit
        if self._is_waiting:
            # Nobody was met yet whom credit could be told.
            return self._decide_alone(tracked, cost, now)
        taken = unheard = tracked.credit_total - tracked.credit_answered
        if now >= tracked.credit_until:
            tracked.credit_used, tracked.credit_until = 0, now + self._windows.left_s(now)
        is_room_known = now < tracked.used_until
        if not is_room_known:
            taken = max(unheard, tracked.credit_used)
        is_admitted = not taken or taken + cost <= limit // self._view.member_count
        if is_room_known and unheard + cost > tracked.left:
            is_admitted = False  # the owner's last word leaves no room for so much
        if is_admitted:
            tracked.credit_total += cost
            tracked.credit_used += cost
        self._question(tracked, now, is_waiting_call=False)
        if is_admitted:
            return Decision(True, limit, tracked.remaining(now), 0.0)
        return Decision(False, limit, tracked.remaining(now), self._windows.left_s(now))

    def _decide_alone(self, tracked: HeldKey, cost: int, now: float) -> Decision:
        """Decide without any owner's word, as the partition mode says.

        Parts begin with the first window in which an owner that stands on the other side of a
        cut can no longer decide: until then it may be granting the whole limit. A node that has met
        nobody since it started was on no side: it has its part at once, which is what a minority of
        one may admit beside the others.
        """
        limit = tracked.limit
        left_s = self._windows.left_s(now)
        refused = Decision(False, limit, 0, left_s)
        mode = self.config.partition_mode
        if mode is PartitionMode.CLOSED:
            return refused
        since = tracked.unanswered_since
        part = limit if mode is PartitionMode.OPEN else limit // self._view.member_count
        if now >= tracked.static_until:
            tracked.static_used = tracked.static_told = 0
            tracked.static_until = now + left_s
        is_over = since is not None and now + left_s - PERIOD_S >= since + self._silent_s
        is_safe = is_over or self._is_waiting
        if tracked.static_used + cost > part or not (is_safe or mode is PartitionMode.OPEN):
            return refused
        tracked.static_used += cost
        return Decision(True, limit, part - tracked.static_used, 0.0)


def _refused_cost(cost: object) -> LocalError:
    if type(cost) is not int:
        return InvalidTypeError(f"cost must be an integer, not {type(cost).__name__}")
    return InvalidValueError(f"cost must be at least 1, got {cost}")
