"""One key on one node: the units it holds, who waits, and what it has asked of the owner.

Rule: what is admitted is taken from what is held, or granted by name, or told as credit; this
file alone does it. Times that an answer gives count from when the question was sent.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.invariants import require
from meshlib.limits import RATE_COSTS_MAX
from meshlib.ratelimit.leases.demand import DemandMeter
from meshlib.ratelimit.leases.owned import OwnedKey
from meshlib.ratelimit.leases.questions import AnswerPart, QuestionPart
from meshlib.ratelimit.records import Decision, Reservation
from meshlib.reading import COUNT_MAX
from meshlib.state import Algorithm, Limit

__all__ = ["HeldKey", "Ticket", "TicketGroup"]

AHEAD_S: Final = 0.02
"""For how long a lease is to last at least; two requests within it are answered on the spot."""

AHEAD_PER_NODE_S: Final = 0.001
"""How much longer it is to last for each node, so that an owner can answer them all."""

AHEAD_ROUND_TRIPS: Final = 4
"""How many round trips it is to last at least: the next one is asked for in time."""

SPENT_S: Final = 0.1
"""For how long at least a long window that is spent is not asked for again."""

_new = tuple.__new__
"""Makes a decision of its fields in half the time."""

ATTEMPTS_KEPT: Final = 16
NUMBERS_KEPT: Final = 8


@define(slots=True, eq=False)
class Ticket:
    """A request that waits for the owner's word, or has it.

    Args:
        key: the rate-limit key.
        cost: its units.
        expires_at: when it is answered without the owner, in monotonic seconds.
        decision: the answer; None while it waits.
        is_awaited: whether `ask` returned without a decision.
        group: the request that this is a part of; None when it is one by itself.
        is_look: whether it asks what is left, and counts nothing.
        reservation: what was reserved, where that was asked for and decided.
    """

    key: str
    cost: int
    expires_at: float
    decision: Decision | None = None
    is_awaited: bool = False
    group: TicketGroup | None = None
    is_look: bool = False
    reservation: Reservation | None = None


@define(slots=True, eq=False)
class TicketGroup:
    """A request for several limits at once, all or nothing.

    Args:
        ticket: what the caller waits for.
        parts: one for each limit.
        is_done: whether what came of it was told.
        lease_s: for how long it is to be reserved; None when it is not.
    """

    ticket: Ticket
    parts: list[tuple[HeldKey, Ticket]] = field(factory=list)
    is_done: bool = False
    lease_s: float | None = None


@define(slots=True, eq=False)
class _UnderWay:
    """The question that was sent and not answered yet.

    Args:
        part: what it says; the same each time but for the attempt and the credit so far.
        owner: whom it was sent to.
        tickets: who waits for it, one for each cost.
        first: when it was first sent, and the credit that this told of.
        sent: the same of each attempt that is kept, the newest last.
        lookers: who waits to hear what is left.
        first_attempt: the number of the first of them.
        pause_s: until it is sent again.
        is_sent: whether it has left this node, or its owner is here.
    """

    part: QuestionPart
    owner: str
    tickets: tuple[Ticket, ...]
    first: tuple[float, int]
    sent: deque[tuple[float, int]]
    lookers: tuple[Ticket, ...]
    first_attempt: int = 0
    pause_s: float = 0.0
    is_sent: bool = False

    def attempt(self, number: int) -> tuple[float, int]:
        """Return when an attempt was sent, and the credit that it told of.

        Of one that is not kept any more: of the very first, so that nothing lasts too long.
        """
        place = number - self.first_attempt
        return self.first if place < 0 else self.sent[min(place, len(self.sent) - 1)]

    def send(self, now: float, *, credit_total: int) -> None:
        """Take note that the first attempt is sent only now, and tells of the credit until now."""
        self.is_sent = True
        if self.part.attempt == 0:
            if credit_total != self.part.credit_total:
                self.part = self.part.telling(credit_total, attempt=0)
            self.first = (now, credit_total)
            self.sent[0] = self.first

    def again(self, now: float, *, credit_total: int) -> QuestionPart:
        """Make the next attempt: it asks for the same, and tells of the credit so far."""
        part = self.part.telling(credit_total, attempt=self.part.attempt + 1)
        if len(self.sent) == self.sent.maxlen:
            self.first_attempt += 1
        self.sent.append((now, credit_total))
        self.part = part
        return part


@define(slots=True, eq=False)
class HeldKey:
    """The holder's side of one key on one node; see the attributes.

    Args:
        key: the rate-limit key.
    """

    key: str
    limit: int = 0
    """Units for the whole cluster in a window, or at once; 0 while the key is unlimited."""
    terms: Limit | None = None
    """The limit itself; None while the key is unlimited."""
    is_window: bool = True
    longest_s: float = math.inf
    policy: str = ""
    """Of the limit: whether it counts in windows, the longest wait, and its text."""
    limits_tag: object = None
    """The state of the settings when the limit was read; None before."""
    look_at: float = -math.inf
    """When the settings are to be looked at again."""
    owned: OwnedKey | None = None
    """The key at its owner, where that is this node and it may use it without a question."""
    owner: str = ""
    view_id: int = -1
    held: int = 0
    held_number: int = -1
    """The window whose units are held."""
    held_until: float = -math.inf
    low: int = 0
    """At so many held units more are asked for."""
    left: int = 0
    """What the owner said that nobody had been granted."""
    used: int = 0
    used_number: int = -1
    used_until: float = -math.inf
    """What the owner said was granted in its window, and until when that is the current one."""
    heard_at: float = -math.inf
    spent_until: float = -math.inf
    """Until when this node need not ask, for there is nothing left."""
    retry_at: float = -math.inf
    """When a request that is refused now passes, if nobody else comes."""
    epoch: int = 0
    number: int = 0
    credit_total: int = 0
    credit_answered: int = 0
    credit_until: float = -math.inf
    credit_spare: int = 0
    """What was admitted on credit in this window and taken back: it may be admitted again."""
    credit_used: int = 0
    """What was admitted on credit in this node's own window."""
    static_until: float = -math.inf
    static_used: int = 0
    """What was admitted in this node's own window without any owner's word."""
    static_told: int = 0
    """How much of it was told as credit, for an owner that is reached again."""
    unanswered_since: float | None = None
    is_cut_off: bool = False
    """Whether a request waited in vain, and no answer has come since."""
    last_at: float = -math.inf
    is_rare: bool = True
    """Whether nobody had asked for a while before the last request."""
    watched_until: float = -math.inf
    refunds: int = 0
    """Units to give back to the owner, as far as its window is still that of `refunds_number`."""
    refunds_number: int | None = None
    """None: that of the next answer."""
    lookers: list[Ticket] = field(factory=list)
    """Who waits to be told by the owner what is left, without counting anything."""
    admitted_count: int = 0
    refused_count: int = 0
    """Units that were admitted here, and requests that were refused, since the key is tracked."""
    queue: deque[Ticket] = field(factory=deque)
    under_way: _UnderWay | None = None
    meter: DemandMeter = field(factory=DemandMeter)
    admitted: dict[int, int] = field(factory=dict)
    """Window number to units that were admitted here by grants of that window; the newest few."""

    def admit(self, cost: int, number: int) -> None:
        """Count what is admitted on a grant, under the grant's own number."""
        if number not in self.admitted and len(self.admitted) >= NUMBERS_KEPT:
            del self.admitted[min(self.admitted)]
        self.admitted[number] = self.admitted.get(number, 0) + cost
        self.admitted_count += cost

    def take(self, cost: int, now: float) -> bool:
        """Admit from what is held, if it is enough. O(1)."""
        if cost > self.held or now >= self.held_until:
            return False
        self.held -= cost
        self.admit(cost, self.held_number)
        return True

    def put_back(self, cost: int, number: int, now: float) -> bool:
        """Hold units again that were admitted here in a window; tell whether that can be."""
        admitted = self.admitted.get(number, 0)
        if not self.is_window or admitted < cost:
            if admitted:
                self.admitted[number] = max(0, admitted - cost)  # no more is taken back twice
            return False
        if number != self.held_number or now >= self.held_until:
            if number != self.used_number or now >= self.used_until or number < self.held_number:
                return False
            self.held, self.held_number, self.held_until = 0, number, self.used_until
        self.admitted[number] -= cost
        self.admitted_count -= cost
        self.held += cost
        return True

    def forget_admitted(self) -> None:
        """Hold nothing, and take nothing back that was admitted before."""
        self.held = self.refunds = 0
        self.admitted.clear()

    def window_now(self, now: float) -> int | None:
        """Return the number of the running window, as far as the owner has told it; else None."""
        if not self.is_window:
            return 0
        if now < self.used_until:
            return self.used_number
        return self.held_number if now < self.held_until else None

    def owe(self, units: int, number: int | None) -> None:
        """Let the owner be told that units of a window are given back."""
        if self.refunds_number != number:
            self.refunds, self.refunds_number = 0, number
        self.refunds = min(COUNT_MAX, self.refunds + units)

    def remaining(self, now: float) -> int:
        """Return what the cluster would still admit, as far as this node knows."""
        return self.left + self.held if now < self.held_until else self.left

    def ahead(self, node_count: int, round_trip_s: float) -> int:
        """Return how many units to hold for requests to come; 0 when they come seldom."""
        seconds = max(AHEAD_S, node_count * AHEAD_PER_NODE_S, AHEAD_ROUND_TRIPS * round_trip_s)
        units = int(self.meter.rate() * seconds)
        # Too little to admit anything would only be missing elsewhere.
        return units if units >= 2 * self.meter.cost else 0

    def begin(
        self,
        now: float,
        *,
        number: int,
        node_count: int,
        is_own: bool,
        is_waiting_call: bool,
        is_for_statistics: bool,
        returned: int,
        pause_s: float,
        round_trip_s: float,
    ) -> _UnderWay:
        """Make the next question, under a number that this start of the node has not used yet.

        One may be under way at a time.
        """
        assert self.under_way is None
        self.owned = None  # whatever it is about, the owner's side has its say first
        # Requests are asked for together once an answer is missing, so that none overtakes.
        tickets: list[Ticket] = []
        while self.queue and len(tickets) < RATE_COSTS_MAX:
            ticket = self.queue.popleft()
            if ticket.decision is None:
                tickets.append(ticket)
        self.number = number
        if now < self.static_until:
            self.credit_total += self.static_used - self.static_told
            self.static_told = self.static_used
        ahead = 0
        is_giving_back = returned > 0
        returned_number = max(0, self.held_number)
        is_held = self.held > 0 and now < self.held_until
        if not is_giving_back and self.refunds and self.refunds_number is not None:
            returned, returned_number, self.refunds = self.refunds, self.refunds_number, 0
            is_held = is_held and returned_number == self.held_number
        if not is_giving_back and is_held and (tickets or returned):
            # Part of a request may be held here and the rest not: the owner decides on the whole.
            # It does not give more than there is either, when more is refunded than was used.
            returned, self.held = returned + self.held, 0
        is_to_hold = self.is_window and not is_own and not is_giving_back
        if is_to_hold and not (is_for_statistics and not tickets):
            ahead = self.ahead(node_count, round_trip_s)
            if not ahead and not is_waiting_call and self.meter.is_busy():
                ahead = 1  # asked for seldom, it would only be given back
        part = QuestionPart(
            self.key,
            self.number,
            0,
            tuple(ticket.cost for ticket in tickets),
            ahead,
            self.credit_total,
            self.credit_answered,
            returned_number if returned else 0,
            returned,
        )
        lookers, self.lookers = tuple(self.lookers), []
        self.under_way = _UnderWay(
            part,
            self.owner,
            tuple(tickets),
            (now, self.credit_total),
            deque([(now, self.credit_total)], maxlen=ATTEMPTS_KEPT),
            lookers,
            0,
            pause_s,
        )
        return self.under_way

    def learn(self, answer: AnswerPart, now: float, *, node_count: int = 1) -> list[Ticket]:
        """Take an answer to the question under way; return the tickets that it decides."""
        under_way = self.under_way
        assert under_way is not None
        self.under_way = None
        self.unanswered_since = None
        sent_at, credit_told = under_way.attempt(answer.attempt)
        ends_at = sent_at + answer.window_left_s
        self.heard_at = now
        self.left, self.used = answer.remaining, answer.used
        self.used_number, self.used_until = answer.window, ends_at
        self.is_cut_off = False
        self.credit_answered = max(self.credit_answered, credit_told)
        self.retry_at = now + (answer.spent_s or answer.window_left_s)
        if self.refunds and self.refunds_number is None:
            self.refunds_number = answer.window
        if not answer.spent_s:
            self.spent_until = -math.inf  # something was given back
        elif not self._is_sliding:
            # Between the earliest and the latest that it can be over: a little early is asked.
            spent_until = (sent_at + now) / 2 + answer.spent_s
            if self.terms is not None and self.terms.per != 1:
                # What others give back, or an operator resets, is heard of before it ends.
                spent_until = min(spent_until, now + SPENT_S + node_count * AHEAD_PER_NODE_S)
            self.spent_until = max(self.spent_until, spent_until)
        asked = list(zip(under_way.tickets, answer.fits, strict=False))
        # What was granted to those who were told meanwhile that nobody answered is held.
        surplus = sum(t.cost * fits for t, fits in asked if t.decision is not None)
        self._hold(answer, surplus, ends_at)
        decided = []
        for ticket, fits in asked:
            if ticket.decision is not None:
                continue
            if fits:
                self.admit(ticket.cost, answer.window)
                ticket.decision = self.granted(answer.window, now)
            else:
                ticket.decision = self.refused(now, ticket.cost)
            decided.append(ticket)
        for ticket in under_way.lookers:
            if ticket.decision is None:
                ticket.decision = self.seen(ticket.cost, now)
                decided.append(ticket)
        return decided

    @property
    def _is_sliding(self) -> bool:
        return self.terms is not None and self.terms.algorithm is Algorithm.SLIDING

    def _hold(self, answer: AnswerPart, surplus: int, ends_at: float) -> None:
        units = answer.lease + surplus
        if not self.is_window:
            if units:
                self.owe(units, answer.window)
            self.held_number = answer.window
        elif answer.window == self.held_number:
            self.held += units
            self.held_until = max(self.held_until, ends_at)
        elif answer.window > self.held_number:
            self.held, self.held_number, self.held_until = units, answer.window, ends_at
        self.low = (answer.lease + 1) // 2

    def granted(self, number: int, now: float) -> Decision:
        """Return the decision on a request that passes by an owner's grant. O(1), often made."""
        left = self.left + self.held if now < self.held_until else self.left
        reset_s = self.reset_s(now)
        return _new(Decision, (True, self.limit, left, 0.0, reset_s, self.policy, True, number))

    def refused(self, now: float, cost: int) -> Decision:
        """Return the decision on a request that an owner has no room for. O(1), likewise."""
        self.refused_count += 1
        return self._no(cost, now)

    def seen(self, cost: int, now: float) -> Decision:
        """Return what the decision on a request would be, by what the owner has just said."""
        if self.remaining(now) >= cost:
            return self.granted(self.used_number, now)
        return self._no(cost, now)

    def _no(self, cost: int, now: float) -> Decision:
        left = self.left + self.held if now < self.held_until else self.left
        retry_s, reset_s = self.retry_s(cost, now), self.reset_s(now)
        return _new(Decision, (False, self.limit, left, retry_s, reset_s, self.policy, True, -1))

    def retry_s(self, cost: int, now: float) -> float:
        """Return in how many seconds a request passes, by what the owner has said last."""
        at = self.retry_at
        terms = self.terms
        if not self.is_window and terms is not None and terms.algorithm is Algorithm.GCRA:
            at += (max(1, cost - self.left) - 1) * terms.period_s / terms.rate
        wait_s = at - now if at > now else 0.0
        return wait_s if wait_s < self.longest_s else self.longest_s  # noqa: FURB136 - faster

    def reset_s(self, now: float) -> float:
        """Return in how many seconds nothing of the limit is used any more, if nobody comes."""
        if self.is_window:
            until = self.used_until
            if self.held_until > until:
                until = self.held_until
            return until - now if until > now else 0.0
        terms = self.terms
        assert terms is not None
        used = self.limit - self.left
        if terms.algorithm is Algorithm.GCRA:
            return used * terms.period_s / terms.rate
        return terms.period_s if used else 0.0

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps. O(1)."""
        return {
            "key": self.key,
            "held": self.held,
            "held_number": self.held_number,
            "credit": (self.credit_answered, self.credit_total),
            "admitted": self.admitted,
            "number": self.number,
            "under_way": self.under_way,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(1)."""
        require(self, self.held >= 0, "less than nothing is held")
        is_credit = 0 <= self.credit_answered <= self.credit_total
        require(self, is_credit, "more credit was answered than was taken")
        require(self, len(self.admitted) <= NUMBERS_KEPT, "more windows than are kept")
        if self.under_way is not None:
            is_last = self.under_way.part.number == self.number
            require(self, is_last, "what is under way is not the last question")
