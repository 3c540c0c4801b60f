"""Requests that wait for their units: in a line for each key, first come first served.

Rule: whoever waits is answered: with an admission, or at its deadline. The first of a line alone
asks, when the last refusal said that there would be room; nothing is looked at in between.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from attrs import define, field

from meshlib.errors import InvalidFieldError, MeshError
from meshlib.limits import RATE_WAITING_MAX
from meshlib.ratelimit.leases.holder import Ticket, TicketGroup
from meshlib.ratelimit.leases.timers import Due
from meshlib.ratelimit.records import Decision
from meshlib.ratelimit.verbs import LimitVerbs

__all__ = ["LimitLines", "Line"]

PAUSE_S: Final = 0.005
"""The shortest pause between two questions of a line."""

WAIT_S_MAX: Final = 31 * 86_400.0


@define(slots=True, eq=False)
class Line:
    """Who waits for one key.

    Args:
        key: the rate-limit key.
        waiting: tickets that are not decided, the first first.
        asked: the question of the first; None while none is under way.
        refusal: the last refusal.
        again_at: when the first may ask again, by that.
        token: of the timer that lets the first ask again.
    """

    key: str
    waiting: deque[Ticket] = field(factory=deque)
    asked: TicketGroup | None = None
    refusal: Decision | None = None
    again_at: float = 0.0
    token: object = None


class LimitLines(LimitVerbs):
    """The waiting verbs of a limiter; see `LeaseAsker` for what it is made with."""

    def _begin_lines(self) -> None:
        self._lines: dict[str, Line] = {}
        self._waiting_count = 0

    def wait(self, key: str, *, cost: int = 1, timeout_s: float, now: float) -> Ticket:
        """Ask for units until they are there, after all who waited here for this key before.

        Nodes do not wait for each other: of two lines on two nodes the units go to who asks first.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            timeout_s: seconds to wait at most, over 0 to 31 days; then it is refused.
            now: monotonic seconds.

        Returns:
            A ticket. Its `decision` is there at once, or once `decided` has returned it.

        Raises:
            LocalError, DecodeError: as `ask`. Nothing is counted.
        """
        now = self._enter(now)
        if not 0 < timeout_s <= WAIT_S_MAX:
            raise InvalidFieldError("timeout_s", f"must be over 0 and finite, got {timeout_s}")
        plan = self._plan_for(key, cost, now)
        for tracked in plan:
            self._look_up(tracked, cost, now)
        ticket = Ticket(key, cost, now + timeout_s)
        if self._waiting_count >= RATE_WAITING_MAX:
            ticket.decision = self._unconfirmed(plan[0], is_admitted=False, remaining=0, now=now)
            return ticket
        line = self._lines.setdefault(key, Line(key))
        line.waiting.append(ticket)
        self._waiting_count += 1
        if len(line.waiting) == 1:
            self._advance(line, now)
        if ticket.decision is None:
            ticket.is_awaited = True
            self._timers.set(ticket.expires_at, Due.DEADLINE, line, ticket)
            self._hurry()
        return ticket

    def withdraw(self, ticket: Ticket, *, now: float) -> None:
        """Let somebody go who does not wait any more; nothing is counted for it.

        Args:
            ticket: as `wait` returned it; one that was decided stays as it is.
            now: monotonic seconds.
        """
        now = self._enter(now)
        line = self._lines.get(ticket.key)
        if ticket.decision is None and line is not None:
            self._refuse_late(line, ticket, now)

    def _refuse_late(self, line: Line, ticket: Ticket, now: float) -> None:
        """Refuse a request whose time is over."""
        is_first = line.waiting[0] is ticket
        line.waiting.remove(ticket)
        self._waiting_count -= 1
        if line.refusal is None:
            ticket.decision = Decision(False, 0, 0, 0.0)
        else:
            ticket.decision = line.refusal.with_retry(max(0.0, line.again_at - now))
        self._tell([ticket])
        if is_first:
            if line.asked is not None:
                line.asked.ticket.decision = ticket.decision  # what is granted is given back
                line.asked = None
            self._advance(line, now)

    def _settle_group(self, group: TicketGroup) -> None:
        line = self._lines.get(group.ticket.key)
        if line is not None and line.asked is group:
            line.asked = None
            if self._answer_first(line, group, self._now):
                self._advance(line, self._now)

    def _advance(self, line: Line, now: float) -> None:
        """Ask for the first of a line, and for all behind it that are answered at once."""
        line.token = None
        while line.waiting:
            ticket = line.waiting[0]
            try:
                plan = dict.fromkeys(self._plan(line.key, now), ticket.cost)
                group = self._ask_all(line.key, plan, self._wait_s(None, now), now)
            except MeshError:
                # The limit is gone, or it is too small by now: nothing will ever pass under it.
                line.refusal = None
                self._refuse_late(line, ticket, now)
                return
            if not group.is_done:
                line.asked = group
                group.ticket.is_awaited = False  # nobody but the line hears of it
                return
            if not self._answer_first(line, group, now):
                return
        self._lines.pop(line.key, None)

    def _answer_first(self, line: Line, group: TicketGroup, now: float) -> bool:
        """Let the first of a line go, or come again later; tell which."""
        decision = group.ticket.decision
        assert decision is not None
        if decision:
            ticket = line.waiting.popleft()
            self._waiting_count -= 1
            ticket.decision = decision
            self._tell([ticket])
            return True
        line.refusal = decision
        line.token = object()
        line.again_at = now + max(PAUSE_S, decision.retry_after_s)
        self._timers.set(line.again_at, Due.LINE, line, line.token)
        self._hurry()
        return False

    def _check_lines(self) -> None:
        """Assert what must hold between two calls."""
        assert self._waiting_count == sum(len(line.waiting) for line in self._lines.values())
        for line in self._lines.values():
            assert line.waiting
            assert (line.asked is not None) != (line.token is not None)
