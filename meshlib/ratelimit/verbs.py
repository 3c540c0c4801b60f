"""What a program asks of the limiter of one node: one key or several, at once or confirmed.

Rule: a request passes all limits that it is under, or none of them: what was granted of some is
held again, and nothing is burnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from meshlib.errors import InvalidFieldError, InvalidTypeError, InvalidValueError
from meshlib.limits import RATE_KEYS_AT_ONCE_MAX, RATE_WAITING_MAX
from meshlib.ratelimit.leases.asking import UNLIMITED
from meshlib.ratelimit.leases.deciding import LeaseDecider
from meshlib.ratelimit.leases.holder import HeldKey, Ticket, TicketGroup
from meshlib.ratelimit.leases.owned import RESET_UNITS
from meshlib.ratelimit.leases.timers import Due
from meshlib.ratelimit.records import Decision

__all__ = ["LimitVerbs", "combined"]

_new = tuple.__new__
"""Makes a decision of its fields in half the time."""

Wanted = dict[HeldKey, int]
"""Units by limit."""


class LimitVerbs(LeaseDecider):
    """The verbs of a limiter; see `LeaseAsker` for what it is made with."""

    guard: Callable[[], None] | None
    """Called before a caller's verb does anything, and may refuse it by raising."""
    read_time: Callable[[float], float]
    """Judges each `now`."""

    def _enter(self, now: float) -> float:
        if self.guard is not None:
            self.guard()
        return self.read_time(now)

    # Decisions

    def acquire(self, key: str, *, cost: int = 1, now: float) -> Decision:
        """Decide at once whether a request may pass, and count it when it may. O(1), and local.

        Admits from units that this node holds, else on credit: up to an equal part of the limit,
        or one request, that no owner has heard of yet. The owner takes credit out of the running
        window as far as there is room, and off the next ones beyond that.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: a key that is not text, or a cost that is no integer.
            InvalidFieldError: a cost under 1, or over the limit: it could never pass; or a key that
                no limit can be for. It is a ValueError.
            UnknownKeyError: no limit is set for the key. The global one is then unlimited.
            DecodeError: what is stored as the limit is none.
            ForeignClockError: `now` is no reading of the clock that was given before. Nothing is
                counted in any case.
        """
        if self.guard is not None:
            self.guard()
        now = self.read_time(now)
        decision = self._decide_own(key, cost, now)
        if decision is not None:
            return decision
        plan = self._plan_for(key, cost, now)
        if len(plan) != 1:
            return self._acquire_all(dict.fromkeys(plan, cost), now)[0]
        tracked = plan[0]
        self._open(tracked, cost, now)
        if not tracked.limit:
            return UNLIMITED
        decision = self._decide_here(tracked, cost, now)
        if decision is not None:
            return decision
        decision = self._decide_as_owner(tracked, cost, now)
        return self._decide_on_credit(tracked, cost, now) if decision is None else decision

    def acquire_many(self, costs: Mapping[str, int], *, now: float) -> Decision:
        """Decide at once whether a request may pass the limits of several keys: all or nothing.

        As `acquire`; what is refused counts nowhere.

        Args:
            costs: units by rate-limit key, 1 to 100 keys.
            now: monotonic seconds.

        Returns:
            the decision of the limit that refuses for longest, or of which the least is left.

        Raises:
            LocalError, DecodeError: as `acquire`, for any of the keys. Nothing is counted.
        """
        now = self._enter(now)
        return self._acquire_all(self._wanted(costs, now), now)[0]

    def ask(self, key: str, *, cost: int = 1, timeout_s: float | None = None, now: float) -> Ticket:
        """Ask the cluster whether a request may pass; the answer may take a round trip.

        What this node holds, and a window that the owner has called spent, answer at once.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            timeout_s: seconds to wait for the owner; then `partition_mode` answers, with
                `confirmed` False. None: as configured, and longer right after the start, until
                owners that began with this node can have their first votes.
            now: monotonic seconds.

        Returns:
            A ticket. Its `decision` is there at once, or once `decided` has returned it.

        Raises:
            LocalError, DecodeError: as `acquire`, and InvalidValueError for a timeout that is not
                over 0 and finite. Nothing is counted.
        """
        now = self._enter(now)
        wait_s = self._wait_s(timeout_s, now)
        decision = self._decide_own(key, cost, now)
        if decision is not None:
            return Ticket(key, cost, now, decision)
        plan = self._plan_for(key, cost, now)
        if len(plan) != 1:
            return self._ask_all(key, dict.fromkeys(plan, cost), wait_s, now).ticket
        self._open(plan[0], cost, now)
        return self._ask_one(plan[0], cost, wait_s, now)

    def ask_many(
        self, costs: Mapping[str, int], *, timeout_s: float | None = None, now: float
    ) -> Ticket:
        """Ask the cluster whether a request may pass the limits of several keys: all or nothing.

        As `ask`; what is refused burns nothing anywhere: what was granted of the other keys is
        held on this node, and given back when nobody asks for it.

        Args:
            costs: units by rate-limit key, 1 to 100 keys.
            timeout_s: as for `ask`.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `ask`, for any of the keys. Nothing is counted.
        """
        now = self._enter(now)
        wait_s = self._wait_s(timeout_s, now)
        return self._ask_all("", self._wanted(costs, now), wait_s, now).ticket

    def decided(self) -> list[Ticket]:
        """Return the tickets that were decided since the last call, after `ask` had returned."""
        if not self._decided:
            return []
        tickets = list(self._decided)
        self._decided.clear()
        return tickets

    # Looking, and giving back

    def peek(self, key: str, *, cost: int = 1, now: float) -> Decision:
        """Tell what `acquire` would decide by what this node knows, and count nothing. O(limits).

        It asks the owners, so that the next call knows more; where this node owns the key, its
        word is the owner's.

        Args:
            key: the rate-limit key.
            cost: the request's units, 1 to the limit.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `acquire`.
        """
        now = self._enter(now)
        seen = []
        for tracked in self._plan_for(key, cost, now):
            self._look_up(tracked, cost, now)
            tracked.last_at = now
            if tracked.limit:
                self._question(tracked, now, is_for_statistics=True)
                seen.append(self._seen_here(tracked, cost, now))
        return combined(seen)

    def ask_peek(
        self, key: str, *, cost: int = 1, timeout_s: float | None = None, now: float
    ) -> Ticket:
        """Ask the owners what `ask` would decide, and count nothing.

        Args:
            key: the rate-limit key.
            cost: the request's units, 1 to the limit.
            timeout_s: as for `ask`; then it is what this node knows, with `confirmed` False.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `ask`.
        """
        now = self._enter(now)
        expires_at = now + self._wait_s(timeout_s, now)
        group = TicketGroup(Ticket(key, cost, expires_at))
        for tracked in self._plan_for(key, cost, now):
            self._look_up(tracked, cost, now)
            tracked.last_at = now
            part = Ticket(key, cost, expires_at, group=group, is_look=True)
            group.parts.append((tracked, part))
            if not tracked.limit:
                part.decision = UNLIMITED
        for tracked, part in group.parts:
            if part.decision is None:
                tracked.lookers.append(part)
                self._timers.set(expires_at, Due.TICKET, tracked, part)
                self._question(tracked, now, is_for_statistics=True)
        return self._finish_asking(group)

    def refund(self, key: str, *, cost: int = 1, now: float) -> None:
        """Give units back that were admitted and not used, in the running windows.

        What was not used of an earlier window is void. Never more is given back than was used.

        Args:
            key: the rate-limit key.
            cost: how many units, 1 to the limit.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `acquire`. Nothing is given back.
        """
        now = self._enter(now)
        plan = self._plan_for(key, cost, now)
        for tracked in plan:
            self._look_up(tracked, cost, now)
        for tracked in plan:
            tracked.last_at = now
            if tracked.limit:
                self._give_units_back(tracked, cost, None, now)

    def reset(self, key: str, *, now: float) -> None:
        """Begin anew: nothing of the key's limits is used or owed any more.

        What nodes hold of it at this moment they may still admit, beside the whole limit.

        Args:
            key: the rate-limit key.
            now: monotonic seconds.

        Raises:
            LocalError, DecodeError: as `acquire`, but for a cost.
        """
        now = self._enter(now)
        for tracked in self._plan(key, now):
            self._look(tracked, now)
            if tracked.limit:
                tracked.forget_admitted()
                tracked.last_at = now
                tracked.spent_until = -math.inf
                tracked.owe(RESET_UNITS, tracked.window_now(now))
                self._question(tracked, now, is_for_statistics=True)

    # One limit

    def _decide_own(self, key: str, cost: int, now: float) -> Decision | None:
        """Decide on a key of one limit that this node owns and uses without a question. O(1).

        What is nearly always so of such a key, in one place and without a call: this is done for
        each request. None: whatever else is so.
        """
        if now >= self._settings_look_at:
            self._look_at_settings(now)
        plan = self._plans.get(key) if type(key) is str else None
        if plan is None or type(cost) is not int or cost < 1 or len(plan) != 1:
            return None
        tracked = plan[0]
        owned = tracked.owned
        if owned is None or now >= self._owner.open_until or owned.demand is not None:
            return None
        if now >= owned.open_until and not self._go_on(tracked, owned, now):
            return None
        limit = tracked.limit
        if (used := owned.used + cost) <= limit:  # as `_use`
            owned.used = tracked.used = used
            tracked.left = left = limit - used
            tracked.admitted_count += cost
            reset_s, number = tracked.used_until - now, tracked.used_number
            return _new(Decision, (True, limit, left, 0.0, reset_s, tracked.policy, True, number))
        if cost > limit or owned.debt:
            return None  # it can never pass, or later windows are spent as well
        tracked.left, tracked.used = limit - owned.used, owned.used
        tracked.retry_at = tracked.used_until
        return tracked.refused(now, cost)

    def _decide_now(self, tracked: HeldKey, cost: int, now: float) -> Decision | None:
        """Decide by what is known or owned here; None where only credit is left."""
        decision = self._decide_here(tracked, cost, now)
        return self._decide_as_owner(tracked, cost, now) if decision is None else decision

    def _decide_as_owner(self, tracked: HeldKey, cost: int, now: float) -> Decision | None:
        """Ask this node itself, where it may decide on the key at once."""
        is_alone = len(self._view.names) == 1
        if tracked.owner == self._name and (is_alone or self._owner.mandate.is_valid(now)):
            ticket = self._enqueue(tracked, cost, now)
            if ticket.decision is not None:
                return ticket.decision
            self._withdraw(tracked, ticket)
        return None

    def _ask_one(self, tracked: HeldKey, cost: int, wait_s: float, now: float) -> Ticket:
        key = tracked.key
        if not tracked.limit:
            return Ticket(key, cost, now, UNLIMITED)
        decision = self._decide_here(tracked, cost, now)
        if decision is None and (tracked.is_cut_off or len(tracked.queue) >= RATE_WAITING_MAX):
            self._question(tracked, now)
            decision = self._decide_alone(tracked, cost, now)
        if decision is not None:
            return Ticket(key, cost, now, decision)
        ticket = self._enqueue(tracked, cost, now, expires_at=now + wait_s)
        if ticket.decision is None:
            ticket.is_awaited = True
            self._timers.set(ticket.expires_at, Due.TICKET, tracked, ticket)
            self._hurry()
        return ticket

    def _wait_s(self, timeout_s: float | None, now: float) -> float:
        wait_s = self.config.confirm_timeout_s if timeout_s is None else timeout_s
        if timeout_s is None and self._is_patient(now):
            assert self._patient_until is not None
            wait_s = max(wait_s, self._patient_until - now)
        if not 0 < wait_s < math.inf:
            raise InvalidValueError(f"timeout_s must be over 0 and finite, got {timeout_s}")
        return wait_s

    def _seen_here(self, tracked: HeldKey, cost: int, now: float) -> Decision:
        is_owner = tracked.owner == self._name and tracked.heard_at == now
        if now < tracked.used_until or is_owner:
            seen = tracked.seen(cost, now)
            return seen if is_owner else seen.with_confirmed(False)
        left_s = self._left_s(tracked, now)
        return Decision(True, tracked.limit, tracked.limit, 0.0, left_s, tracked.policy)

    # Several limits

    def _wanted(self, costs: Mapping[str, int], now: float) -> Wanted:
        if not isinstance(costs, Mapping):
            raise InvalidTypeError(f"costs must be a mapping, not {type(costs).__name__}")
        if not 1 <= len(costs) <= RATE_KEYS_AT_ONCE_MAX:
            most = RATE_KEYS_AT_ONCE_MAX
            raise InvalidFieldError("costs", f"must be of 1 to {most} keys, got {len(costs)}")
        wanted: Wanted = {}
        for key, cost in costs.items():
            for tracked in self._plan(key, now):
                wanted[tracked] = cost
        return wanted

    def _acquire_all(
        self, wanted: Wanted, now: float
    ) -> tuple[Decision, list[tuple[HeldKey, Decision]]]:
        """Decide on all of it at once; return the decision, and those of each limit."""
        for tracked, cost in wanted.items():
            self._open(tracked, cost, now)
        decisions: list[tuple[HeldKey, Decision]] = []
        on_credit: Wanted = {}
        for tracked, cost in wanted.items():
            decision = self._decide_now(tracked, cost, now) if tracked.limit else UNLIMITED
            if decision is None and not self._is_waiting and self._has_credit(tracked, cost, now):
                on_credit[tracked] = cost
                continue
            if decision is None:
                decision = self._decide_on_credit(tracked, cost, now)
            if not decision:
                for other, admitted in decisions:
                    self._undo(other, wanted[other], admitted, now)
                return decision, []
            decisions.append((tracked, decision))
        for tracked, cost in on_credit.items():
            decisions.append((tracked, self._decide_on_credit(tracked, cost, now)))
        return combined(decision for _, decision in decisions), decisions

    def _ask_all(
        self, key: str, wanted: Wanted, wait_s: float, now: float, *, lease_s: float | None = None
    ) -> TicketGroup:
        """Ask for all of it, each limit's owner at the same time."""
        for tracked, cost in wanted.items():
            self._open(tracked, cost, now)
        cost = next(iter(wanted.values()))
        group = TicketGroup(Ticket(key, cost, now + wait_s), lease_s=lease_s)
        for tracked, units in wanted.items():
            part = self._ask_one(tracked, units, wait_s, now)
            part.group = group
            group.parts.append((tracked, part))
        self._finish_asking(group)
        return group

    def _finish_asking(self, group: TicketGroup) -> Ticket:
        self._join(group)
        if not group.is_done:
            group.ticket.is_awaited = True
            self._hurry()
        return group.ticket

    def _join(self, group: TicketGroup) -> None:
        """Decide on a request once each of its limits has been decided on."""
        decisions = [part.decision for _, part in group.parts]
        if group.is_done or None in decisions:
            return
        group.is_done = True
        ticket = group.ticket
        decision = combined(decision for decision in decisions if decision is not None)
        is_look = any(part.is_look for _, part in group.parts)
        if not is_look and not (decision.allowed and ticket.decision is None):
            for tracked, part in group.parts:
                if part.decision:
                    self._undo(tracked, part.cost, part.decision, self._now)
        if ticket.decision is None:
            ticket.decision = decision
            self._settle_group(group)
            self._tell([ticket])

    def _settle_group(self, group: TicketGroup) -> None:
        """Do what is to be done with a decision before it is told."""

    # Taking back

    def _undo(self, tracked: HeldKey, cost: int, decision: Decision, now: float) -> None:
        """Take an admission back that nobody was told of."""
        if not decision.limit:
            return
        if decision.window >= 0:
            self._give_units_back(tracked, cost, decision.window, now)
        elif now < tracked.static_until and tracked.static_used >= cost:
            # What was told as credit stays counted.
            tracked.static_used = max(tracked.static_told, tracked.static_used - cost)
        elif now < tracked.credit_until:
            tracked.credit_spare += cost
            tracked.credit_used = max(0, tracked.credit_used - cost)

    def _give_units_back(self, tracked: HeldKey, cost: int, window: int | None, now: float) -> None:
        """Hold units again that were granted here, or else tell the owner that they are free."""
        number = tracked.window_now(now) if window is None else window
        if number is not None and tracked.put_back(cost, number, now):
            if self._is_to_give_back(tracked):
                idle_at = now + self.config.idle_return_s
                self._timers.set(idle_at, Due.IDLE, tracked, tracked.number)
                self._hurry()
            return
        tracked.owe(cost, number)
        self._question(tracked, now, is_for_statistics=True)


def combined(decisions: Iterable[Decision]) -> Decision:
    """Return the decision that stands for those of several limits."""
    told = list(decisions)
    refused = [decision for decision in told if not decision]
    if refused:
        return max(refused, key=lambda decision: decision.retry_after_s)
    limited = [decision for decision in told if decision.limit]
    if not limited:
        return UNLIMITED
    least = min(limited, key=lambda decision: decision.remaining)
    is_confirmed = all(decision.confirmed for decision in limited)
    return least if is_confirmed == least.confirmed else least.with_confirmed(is_confirmed)
