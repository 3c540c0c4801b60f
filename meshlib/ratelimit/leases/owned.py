"""One key at its owner: what was granted of it in its window, and what nodes were answered.

Rule: every grant is counted before it is told, and a question that comes again is answered alike.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.ratelimit.leases.demand import DemandMeter
from meshlib.ratelimit.leases.meters import Meter, meter_for
from meshlib.ratelimit.leases.questions import AnswerPart, QuestionPart
from meshlib.ratelimit.leases.votes import HeldCount
from meshlib.ratelimit.leases.windows import window_of
from meshlib.reading import COUNT_MAX
from meshlib.state import Algorithm, Limit

__all__ = ["Asker", "OwnedKey"]

ASKER_KEPT_S: Final = 3.0
"""How long an answer is kept for being asked again: longer than any question is repeated."""

SPENT_WINDOWS_MAX: Final = 60
"""For how many windows a node is told not to ask again; then it hears what is owed still."""

RESET_UNITS: Final = 1 << 62
"""So many units given back are all that was used and is owed: a reset."""


@define(slots=True)
class Asker:
    """What one node asked of one key last, and was answered."""

    actor: ActorId
    number: int
    answer: AnswerPart
    credit_total: int
    asked_at: float


@define(slots=True)
class OwnedKey:
    """One key: what was granted of it in the window of its last second.

    Args:
        number: the second in which it decided last.
        used: units granted in its window, what is leased and what is repaid of credit included.
        debt: units admitted on credit for which no window had room yet.
        askers: by node.
        meter: what is used where the limit does not count in windows.
        demand: what is asked for, where others keep how much may be granted; else None.
        ceiling: up to so many units may be used before a majority keeps a higher ceiling.
        debt_ceiling: the same of the debt.
        ceiling_number: of which window that is.
        open_until: until when its owner itself may use it without a question, in monotonic seconds,
            while that one's mandate lasts.
    """

    number: int
    used: int = 0
    debt: int = 0
    askers: dict[str, Asker] = field(factory=dict)
    meter: Meter | None = None
    demand: DemandMeter | None = None
    ceiling: int = COUNT_MAX
    debt_ceiling: int = COUNT_MAX
    ceiling_number: int = -1
    open_until: float = -math.inf

    @property
    def is_kept(self) -> bool:
        """Whether others keep up to what may be granted of it."""
        return self.demand is not None

    def enter(self, number: int, *, limit: Limit, now: float) -> None:
        """Go on to a second: a window begins with what it has to repay. Never goes back."""
        if not limit.is_window:
            self._read_meter(limit, now)
        if number <= self.number:
            return
        passed = window_of(number, limit) - window_of(self.number, limit)
        self.number = number
        if passed > 0:
            debt = max(0, self.debt - (passed - 1) * limit.capacity)
            self.used = min(limit.capacity, debt)
            self.debt = debt - self.used
            if self.is_kept:
                # Whoever knows the window before knows this of the new one too.
                self.ceiling, self.debt_ceiling = self.used, self.debt
                self.ceiling_number = window_of(number, limit)
        old = [name for name, a in self.askers.items() if now - a.asked_at > ASKER_KEPT_S]
        for name in old:
            del self.askers[name]

    def needed(
        self, name: str, *, actor: ActorId, part: QuestionPart, limit: Limit, node_count: int
    ) -> tuple[int, int]:
        """Return what would be used and owed by the answer to a question, without a lease.

        O(costs). The arguments are those of `decide`.
        """
        known = self.askers.get(name)
        counted, costs, used, debt = part.credit_answered, part.costs, self.used, self.debt
        is_known = known is not None and known.actor == actor
        if known is not None and is_known:
            counted = max(counted, known.credit_total)
        credit = max(0, part.credit_total - counted)
        most = _most_debt(limit, node_count)
        room = max(0, limit.capacity - used)
        if self.meter is not None:
            used += max(0, min(credit, limit.capacity + most - used))
        else:
            used += min(room, credit)
            debt = max(debt, min(most, debt + max(0, credit - room)))
        if known is not None and is_known and part.number <= known.number:
            costs = ()
        elif part.returned_units and part.returned_number == window_of(self.number, limit):
            used -= min(used, part.returned_units)
        left = max(0, limit.capacity - used)
        for cost in costs:
            if cost <= left:
                left -= cost
                used += cost
        return used, debt

    def decide(
        self,
        name: str,
        *,
        actor: ActorId,
        part: QuestionPart,
        limit: Limit,
        node_count: int,
        window_left_s: float,
        now: float,
    ) -> AnswerPart | None:
        """Answer a question, and count what it is granted. O(costs).

        Args:
            name: who asks.
            actor: who asks, in its start.
            part: the question.
            limit: of the key.
            node_count: how many nodes share them.
            window_left_s: seconds until the window ends.
            now: monotonic seconds.

        Returns:
            The answer; the same as before to a question that was answered. None to an old one.
        """
        known = self.askers.get(name)
        counted = part.credit_answered
        if known is not None and known.actor == actor:
            if part.number < known.number:
                return None
            counted = max(counted, known.credit_total)
            if part.number == known.number:
                # But for the credit that was taken since it was asked.
                self._charge(max(0, part.credit_total - counted), limit, node_count, now)
                known.credit_total = max(counted, part.credit_total)
                return known.answer
        self._charge(max(0, part.credit_total - counted), limit, node_count, now)
        self._take_back(part, limit, now)
        before = self.used
        answer = self._grant(part, limit, node_count, window_left_s, now)
        if self.meter is not None:
            self.meter.add(self.used - before, limit, now)
        total = max(counted, part.credit_total)
        self.askers[name] = Asker(actor, part.number, answer, total, now)
        return answer

    def count(self, view_id: int, key: str) -> HeldCount:
        """Return what the next owner of the key is to go on from."""
        return HeldCount(view_id, key, self.number, self.used, self.debt)

    def _read_meter(self, limit: Limit, now: float) -> None:
        if self.meter is None:
            self.meter = meter_for(limit)
            self.meter.read(limit, now)
            self.meter.add(self.used + self.debt, limit, now)  # handed on by the last owner
            self.debt = 0
        self.used = self.meter.read(limit, now)

    def _take_back(self, part: QuestionPart, limit: Limit, now: float) -> None:
        if part.returned_units and part.returned_number == window_of(self.number, limit):
            returned = min(self.used, part.returned_units)
            self.used -= returned
            if self.meter is not None:
                self.meter.add(-returned, limit, now)
            if part.returned_units >= RESET_UNITS:
                self.debt = 0

    def _charge(self, credit: int, limit: Limit, node_count: int, now: float) -> None:
        """Take credit out of the window as far as there is room, and leave the rest to others."""
        most = _most_debt(limit, node_count)
        if self.meter is not None:
            # It comes back by time, what there is no room for with the rest.
            taken = max(0, min(credit, limit.capacity + most - self.used))
            self.used += taken
            self.meter.add(taken, limit, now)
            return
        taken = min(max(0, limit.capacity - self.used), credit)
        self.used += taken
        self.debt = max(self.debt, min(most, self.debt + credit - taken))

    def _grant(
        self,
        part: QuestionPart,
        limit: Limit,
        node_count: int,
        window_left_s: float,
        now: float,
    ) -> AnswerPart:
        left = max(0, limit.capacity - self.used)
        fits = []
        for cost in part.costs:
            fits.append(cost <= left)
            left -= cost * fits[-1]
        if not limit.is_window:
            lease = 0  # what is used elsewhere, and later, would not be used as the limit says
        elif node_count == 1:
            lease = left if part.ahead else 0
        else:
            # When as much is about to be asked for everywhere, a lease would be missed there.
            granted = limit.capacity - self.used - left
            is_ample = granted * (node_count - 1) <= left
            lease = min(part.ahead, left // (2 * node_count)) if is_ample else 0
            if not lease and part.ahead and left and not part.costs:
                lease = 1  # for a call that does not wait: it asks for what it may need next
        lease = max(0, min(lease, self.ceiling - (limit.capacity - left)))
        left -= lease
        self.used = max(self.used, limit.capacity - left)
        if limit.is_window:
            later = min(self.debt // limit.capacity, SPENT_WINDOWS_MAX)
            spent_s = 0.0 if left or lease else window_left_s + later * limit.period_s
        else:
            spent_s = self._metered_wait_s(part, tuple(fits), limit, now)
            if self.meter is not None and limit.algorithm is Algorithm.GCRA:
                window_left_s = self.meter.wait_s(1, limit, now)  # then there is one more
        return AnswerPart(
            part.number,
            part.attempt,
            window_of(self.number, limit),
            window_left_s,
            tuple(fits),
            lease,
            spent_s,
            left,
            self.used,
        )

    def _metered_wait_s(
        self, part: QuestionPart, fits: tuple[bool, ...], limit: Limit, now: float
    ) -> float:
        """Return when a refused request passes, the dearest of them; 0 while there is room."""
        assert self.meter is not None
        if limit.algorithm is Algorithm.GCRA:
            wanted = 0 if self.used < limit.capacity else 1
        else:
            wanted = max((c for c, f in zip(part.costs, fits, strict=True) if not f), default=0)
        missing = self.used + wanted - limit.capacity
        return self.meter.wait_s(missing, limit, now) if wanted and missing > 0 else 0.0


def _most_debt(limit: Limit, node_count: int) -> int:
    """Return the most that may be owed.

    Nodes owe a credit each at most; what is settled beyond a limit may be as much again.
    """
    return 2 * limit.capacity + node_count
