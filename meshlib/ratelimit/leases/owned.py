"""One key at its owner: what was granted of it in its window, and what nodes were answered.

Rule: every grant is counted before it is told, and a question that comes again is answered alike.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.ratelimit.leases.questions import AnswerPart, QuestionPart
from meshlib.ratelimit.leases.votes import HeldCount
from meshlib.ratelimit.leases.windows import PERIOD_S
from meshlib.reading import COUNT_MAX

__all__ = ["Asker", "OwnedKey"]

ASKER_KEPT_S: Final = 3.0
"""How long an answer is kept for being asked again: longer than any question is repeated."""

SPENT_WINDOWS_MAX: Final = 60
"""For how many windows a node is told not to ask again; then it hears what is owed still."""


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
    """One key: what was granted of it in the window of that number.

    Args:
        number: the window.
        used: units granted in it, what is leased and what is repaid of credit included.
        debt: units admitted on credit for which no window had room yet.
        askers: by node.
    """

    number: int
    used: int = 0
    debt: int = 0
    askers: dict[str, Asker] = field(factory=dict)

    def enter(self, number: int, *, limit: int, now: float) -> None:
        """Go on to a window: it begins with what it has to repay. Never goes back."""
        passed = number - self.number
        if passed <= 0:
            return
        debt = max(0, self.debt - (passed - 1) * limit)
        self.number = number
        self.used = min(limit, debt)
        self.debt = debt - self.used
        old = [name for name, a in self.askers.items() if now - a.asked_at > ASKER_KEPT_S]
        for name in old:
            del self.askers[name]

    def decide(
        self,
        name: str,
        *,
        actor: ActorId,
        part: QuestionPart,
        limit: int,
        node_count: int,
        window_left_s: float,
        now: float,
    ) -> AnswerPart | None:
        """Answer a question, and count what it is granted. O(costs).

        Args:
            name: who asks.
            actor: who asks, in its start.
            part: the question.
            limit: units that the window may be granted.
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
                self._charge(max(0, part.credit_total - counted), limit)
                known.credit_total = max(counted, part.credit_total)
                return known.answer
        self._take_back(part)
        self._charge(max(0, part.credit_total - counted), limit)
        answer = self._grant(part, limit, node_count, window_left_s)
        total = max(counted, part.credit_total)
        self.askers[name] = Asker(actor, part.number, answer, total, now)
        return answer

    def count(self, view_id: int, key: str) -> HeldCount:
        """Return what the next owner of the key is to go on from."""
        return HeldCount(view_id, key, self.number, self.used, self.debt)

    def _take_back(self, part: QuestionPart) -> None:
        if part.returned_units and part.returned_number == self.number:
            self.used -= min(self.used, part.returned_units)

    def _charge(self, credit: int, limit: int) -> None:
        """Take credit out of the window as far as there is room, and leave the rest to others."""
        taken = min(max(0, limit - self.used), credit)
        self.used += taken
        self.debt = min(COUNT_MAX, self.debt + credit - taken)

    def _grant(
        self, part: QuestionPart, limit: int, node_count: int, window_left_s: float
    ) -> AnswerPart:
        left = max(0, limit - self.used)
        fits = []
        for cost in part.costs:
            fits.append(cost <= left)
            left -= cost * fits[-1]
        if node_count == 1:
            lease = left if part.ahead else 0
        else:
            lease = min(part.ahead, left // (2 * node_count))
            if not lease and part.ahead and left and not part.costs:
                lease = 1  # for a call that does not wait: it asks for what it may need next
        left -= lease
        self.used = max(self.used, limit - left)
        later = min(self.debt // limit, SPENT_WINDOWS_MAX)
        spent_s = 0.0 if left or lease else window_left_s + later * PERIOD_S
        return AnswerPart(
            part.key,
            part.number,
            part.attempt,
            self.number,
            window_left_s,
            tuple(fits),
            lease,
            spent_s,
            left,
            self.used,
        )
