"""What one node admits of a key: from what it holds, on credit, or alone.

Rule: whatever is admitted on credit is counted here, and nowhere else.
"""

from __future__ import annotations

import math
from typing import Final

from meshlib.errors import InvalidFieldError, InvalidTypeError, LocalError
from meshlib.ratelimit.config import PartitionMode
from meshlib.ratelimit.leases.asking import LeaseAsker, refused_key
from meshlib.ratelimit.leases.holder import HeldKey
from meshlib.ratelimit.leases.owned import OwnedKey
from meshlib.ratelimit.leases.windows import PERIOD_S, window_of
from meshlib.ratelimit.records import Decision

__all__ = ["LeaseDecider"]


RARE_S: Final = 1.0
"""Of a key that nobody has asked for so long, credit is told later, with that of others."""


class LeaseDecider(LeaseAsker):
    """The decisions of one node; see `LeaseAsker` for what it is made with."""

    def _plan_for(self, key: str, cost: int, now: float) -> tuple[HeldKey, ...]:
        """Return the limits that a key is under; a cost that cannot be is told before all else."""
        if type(cost) is not int or cost < 1:
            raise _refused_cost(cost)
        return self._plan(key, now)

    def _plan(self, key: str, now: float) -> tuple[HeldKey, ...]:
        """Return the limits that a key is under, each as it is kept here. O(1) mostly."""
        if now >= self._settings_look_at:
            self._look_at_settings(now)
        try:
            plan = self._plans.get(key)
        except TypeError:
            raise refused_key(key) from None
        return self._make_plan(key, now) if plan is None else plan

    def _make_plan(self, key: str, now: float) -> tuple[HeldKey, ...]:
        if type(key) is not str:
            raise refused_key(key)
        slots = self._limits.slots(key)
        plan = tuple(self._track(slot.key, now) for slot in slots)
        for tracked, slot in zip(plan, slots, strict=True):
            self._set_terms(tracked, slot.limit, now)
        if len(self._plans) >= self.config.keys_max:
            self._plans = {}
        self._plans[key] = plan
        return plan

    def _open(self, tracked: HeldKey, cost: int, now: float) -> None:
        """Look up a limit, and note the demand; raises for what cannot be decided."""
        is_known = now < tracked.look_at and tracked.view_id == self._view.view_id
        if is_known and type(cost) is int and 0 < cost <= tracked.limit:
            self._now = now
        else:
            self._look_up(tracked, cost, now)
        if tracked.limit:
            tracked.meter.note(cost, now)
            tracked.is_rare = now - tracked.last_at > RARE_S
            tracked.last_at = now

    def _look_up(self, tracked: HeldKey, cost: int, now: float) -> None:
        """Look up a limit; raises for what cannot be decided."""
        if type(cost) is not int or cost < 1:
            raise _refused_cost(cost)
        self._now = now
        if now >= tracked.look_at or tracked.view_id != self._view.view_id:
            self._look(tracked, now)
        if tracked.limit and cost > tracked.limit:
            policy = tracked.policy
            raise InvalidFieldError("cost", f"{cost} can never pass a limit of {policy}")

    def _decide_here(self, tracked: HeldKey, cost: int, now: float) -> Decision | None:
        """Decide from what is held, from what the owner said, or because it says nothing."""
        if tracked.owner == self._name:
            owned = tracked.owned
            if owned is None or now >= owned.open_until or now >= self._owner.open_until:
                owned = self._open_owned(tracked, now)
            if owned is not None and owned.used + cost <= min(tracked.limit, owned.ceiling):
                return self._use(tracked, owned, cost, now)
        if not tracked.queue and tracked.take(cost, now):
            if tracked.held <= tracked.low and tracked.under_way is None:
                self._question(tracked, now)
            return tracked.granted(tracked.held_number, now)
        if now < tracked.spent_until:
            return tracked.refused(now, cost)
        since = tracked.unanswered_since
        if since is not None and now - since > self._silent_s and not self._is_patient(now):
            self._question(tracked, now)
            return self._decide_alone(tracked, cost, now)
        return None

    def _open_owned(self, tracked: HeldKey, now: float) -> OwnedKey | None:
        """Return a key of this node's own that is to be used without a question; None: ask.

        The owner's side is asked first while it has to be told something, or others wait.
        """
        terms = tracked.terms
        is_told = (
            tracked.under_way is None
            and tracked.credit_total == tracked.credit_answered
            and not (tracked.queue or tracked.lookers or tracked.refunds or tracked.held)
            and (now >= tracked.static_until or tracked.static_used == tracked.static_told)
        )
        owned = self._owner.open(tracked.key, terms, now) if is_told and terms else None
        tracked.owned = owned
        if owned is not None and terms is not None:
            tracked.used_number = window_of(owned.number, terms)
            tracked.used_until = now + self._windows.left_of(terms, now)
            self._tracked.move_to_end(tracked.key)
        return owned

    def _go_on(self, tracked: HeldKey, owned: OwnedKey, now: float) -> bool:
        """Go on to the running second with a key of this node's own; tell whether it may."""
        if not self._owner.go_on(owned, tracked.key, now):
            return False
        tracked.used_number, tracked.used_until = owned.number, owned.open_until
        self._tracked.move_to_end(tracked.key)
        return True

    def _use(self, tracked: HeldKey, owned: OwnedKey, cost: int, now: float) -> Decision:
        """Admit from what this node may use as the owner."""
        owned.used = tracked.used = used = owned.used + cost
        tracked.left = tracked.limit - used
        tracked.heard_at = now
        tracked.admitted_count += cost
        if owned.demand is not None and tracked.terms is not None:
            self._owner.note_use(owned, tracked.key, tracked.terms, cost, now)
        return tracked.granted(tracked.used_number, now)

    def _decide_on_credit(self, tracked: HeldKey, cost: int, now: float) -> Decision:
        if self._is_waiting:
            # Nobody was met yet whom credit could be told.
            return self._decide_alone(tracked, cost, now)
        is_admitted = self._has_credit(tracked, cost, now)
        if is_admitted:
            spared = min(cost, tracked.credit_spare)
            tracked.credit_spare -= spared
            tracked.credit_total += cost - spared
            tracked.credit_used += cost
            tracked.admitted_count += cost
        self._question(tracked, now, is_waiting_call=False)
        return self._unconfirmed(tracked, is_admitted, tracked.remaining(now), now)

    def _has_credit(self, tracked: HeldKey, cost: int, now: float) -> bool:
        """Tell whether so much may be admitted on credit."""
        limit = tracked.limit
        taken = unheard = tracked.credit_total - tracked.credit_answered
        if now >= tracked.credit_until:
            tracked.credit_used, tracked.credit_until = 0, now + self._left_s(tracked, now)
            tracked.credit_spare = 0
        is_room_known = now < tracked.used_until
        if not is_room_known:
            taken = max(unheard, tracked.credit_used)
        is_admitted = not taken or taken + cost <= limit // self._view.member_count
        if is_room_known and unheard + cost > tracked.left:
            return False  # the owner's last word leaves no room for so much
        return is_admitted

    def _left_s(self, tracked: HeldKey, now: float) -> float:
        """Return how long the window of a key lasts by this node's clock, or what is like it."""
        terms = tracked.terms
        if terms is None or terms.is_window:
            return self._windows.left_s(now) if terms is None else self._windows.left_of(terms, now)
        return terms.period_s

    def _unconfirmed(
        self, tracked: HeldKey, is_admitted: bool, remaining: int, now: float
    ) -> Decision:
        left_s = self._left_s(tracked, now)
        if not is_admitted:
            tracked.refused_count += 1
        return Decision(
            is_admitted,
            tracked.limit,
            remaining,
            0.0 if is_admitted else left_s,
            left_s,
            tracked.policy,
        )

    def _decide_alone(self, tracked: HeldKey, cost: int, now: float) -> Decision:
        """Decide without any owner's word, as the partition mode says.

        Parts begin with the first window in which an owner that stands on the other side of a
        cut can no longer decide: until then it may be granting the whole limit. A node that has met
        nobody since it started was on no side: it has its part at once, which is what a minority of
        one may admit beside the others.
        """
        limit = tracked.limit
        left_s = self._left_s(tracked, now)
        mode = self.config.partition_mode
        if mode is PartitionMode.CLOSED:
            return self._unconfirmed(tracked, False, 0, now)
        part = limit if mode is PartitionMode.OPEN else self._static_part(tracked, now)
        if now >= tracked.static_until:
            tracked.static_used = tracked.static_told = 0
            tracked.static_until = now + left_s
        is_safe = self._is_silence_over(tracked, left_s, now) or self._is_waiting
        if tracked.static_used + cost > part or not (is_safe or mode is PartitionMode.OPEN):
            return self._unconfirmed(tracked, False, 0, now)
        tracked.static_used += cost
        tracked.admitted_count += cost
        return self._unconfirmed(tracked, True, part - tracked.static_used, now)

    def _static_part(self, tracked: HeldKey, now: float) -> int:
        """Return the part of this node: of what was left of the window, where that is known."""
        is_known = now < tracked.used_until and tracked.terms is not None
        is_long = is_known and tracked.terms is not None and tracked.terms.per != 1
        return (tracked.left if is_long else tracked.limit) // self._view.member_count

    def _is_silence_over(self, tracked: HeldKey, left_s: float, now: float) -> bool:
        """Tell whether no owner on the other side of a cut grants any more of this window.

        A window of a second is waited for whole; of a longer one the rest is shared.
        """
        since = tracked.unanswered_since
        if since is None:
            return False
        terms = tracked.terms
        begun_at = now + left_s - PERIOD_S if terms is None or terms.per == 1 else now
        return begun_at >= since + self._silent_s


def _refused_cost(cost: object) -> LocalError:
    if isinstance(cost, float) and not math.isfinite(cost):
        return InvalidFieldError("cost", f"must be a whole number, got {cost}")
    if type(cost) is not int:
        return InvalidTypeError(f"cost must be an integer, not {type(cost).__name__}")
    return InvalidFieldError("cost", f"must be at least 1, got {cost}")
