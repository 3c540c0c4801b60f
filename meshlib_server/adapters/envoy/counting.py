"""What is asked of the node's limits: several counters at once, for one request.

Rule: this file alone knows by which verbs of the library a rule is kept. A rule's limit is written
for a key when the key is first met, so that every node knows it and any may own it; who writes
another one by the API has the last word until the rule changes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field, frozen

from meshlib import Decision, MeshRuntime, UnknownKeyError
from meshlib.errors import InvalidValueError

__all__ = ["KEYS_MAX", "Counting", "Question", "Verdict"]

KEYS_MAX: Final = 10_000
"""Keys of rules that are kept by each node: beyond them, the limit of the one that was unused for
longest is taken back, and written again when it is met again."""


@frozen(kw_only=True)
class Question:
    """One counter of a request.

    Args:
        key: the rate-limit key.
        cost: units, 0 or more; 0 looks and counts nothing.
        limit: units a second by the rule, 0 lets none pass; None: whatever is set for the key.
        is_enforced: whether its refusal refuses the request.
    """

    key: str
    cost: int
    limit: int | None
    is_enforced: bool = True


@frozen(kw_only=True)
class Verdict:
    """What became of one counter.

    Args:
        is_allowed: whether it has room for the request.
        limit: units a second; 0 without any.
        remaining: units left in the window, as far as is known here.
        reset_after_s: seconds until the window ends.
    """

    is_allowed: bool
    limit: int
    remaining: int
    reset_after_s: float


@define
class _Known:
    """What was last heard of a key.

    Args:
        said: the limit that this node wrote for it; None: none.
        limit: the one in force.
        remaining: what was left of it.
        window: the second in which that was so.
    """

    said: int | None = None
    limit: int = 0
    remaining: int = 0
    window: int = -1


@define
class Counting:
    """Asks the limits of a node.

    Args:
        mesh: the node.
        wall_clock: seconds since 1970: only to tell when a window ends.
    """

    mesh: MeshRuntime
    wall_clock: Callable[[], float] = time.time
    _known: OrderedDict[str, _Known] = field(factory=OrderedDict)

    async def decide(
        self, questions: Sequence[Question], *, deadline: float | None = None
    ) -> list[Verdict]:
        """Ask for all counters of a request. One round trip for each that is not held here.

        Those that are enforced are asked one after the other, those first that are known to be
        spent, and none once one has refused. So a request that a spent limit refuses burns
        nothing of the others; one that is refused by the second question has used the first.

        Args:
            questions: the counters.
            deadline: when the answer must be there, on `time.monotonic`; None: as configured.

        Returns:
            a verdict for each, in their order.

        Raises:
            MeshError: a limit cannot be asked now: the node has ended, or is not ready.
        """
        verdicts: list[Verdict | None] = [None] * len(questions)
        order = sorted(
            range(len(questions)),
            key=lambda at: (not questions[at].is_enforced, not self._is_spent(questions[at])),
        )
        is_refused = False
        for at in order:
            question = questions[at]
            if is_refused:
                verdict = self._seen(question)
            else:
                verdict = await self._ask(question, deadline)
            verdicts[at] = verdict
            is_refused |= question.is_enforced and not verdict.is_allowed
        return [verdict for verdict in verdicts if verdict is not None]

    async def _ask(self, question: Question, deadline: float | None) -> Verdict:
        if question.limit == 0 or question.cost == 0:
            return self._seen(question)
        known = self._keep(question)
        timeout_s = None if deadline is None else max(0.001, deadline - time.monotonic())
        try:
            decision = await self._acquire(question, timeout_s)
        except InvalidValueError:  # more than the limit: it could never pass
            return self._seen(question, is_allowed=False)
        known.limit, known.remaining = decision.limit, decision.remaining
        known.window = int(self.wall_clock())
        return self._told(known, decision)

    async def _acquire(self, question: Question, timeout_s: float | None) -> Decision:
        key, cost = question.key, question.cost
        try:
            return await self.mesh.acquire_confirmed(key, cost=cost, timeout_s=timeout_s)
        except UnknownKeyError:
            if question.limit is None:
                raise
            # Another node, which had not met the key for longer, has taken its limit back.
            self.mesh.limits.set(key, question.limit)
            return await self.mesh.acquire_confirmed(key, cost=cost, timeout_s=timeout_s)

    def _keep(self, question: Question) -> _Known:
        """Have the rule's limit in force for the key."""
        key, limit = question.key, question.limit
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            while len(self._known) > KEYS_MAX:
                self._forget(*self._known.popitem(last=False))
        else:
            self._known.move_to_end(key)
        if limit is not None and known.said != limit:
            if self.mesh.limits.configured(key) != limit:
                self.mesh.limits.set(key, limit)
            known.said = limit
        return known

    def _forget(self, key: str, known: _Known) -> None:
        if known.said is not None and self.mesh.limits.configured(key) == known.said:
            self.mesh.limits.remove(key)

    def _is_spent(self, question: Question) -> bool:
        if question.limit == 0:
            return True
        known = self._known.get(question.key)
        is_now = known is not None and known.window == int(self.wall_clock())
        return known is not None and is_now and known.remaining < max(1, question.cost)

    def _seen(self, question: Question, *, is_allowed: bool | None = None) -> Verdict:
        """Say what is known of a counter without asking for it."""
        known = self._known.get(question.key)
        limit = question.limit
        if limit is None:
            limit = known.limit if known is not None else 0
        now = self.wall_clock()
        is_now = known is not None and known.window == int(now)
        return Verdict(
            is_allowed=not self._is_spent(question) if is_allowed is None else is_allowed,
            limit=limit,
            remaining=known.remaining if known is not None and is_now else limit,
            reset_after_s=1 - now % 1,
        )

    def _told(self, known: _Known, decision: Decision) -> Verdict:
        reset_after_s = decision.retry_after_s or 1 - self.wall_clock() % 1
        return Verdict(
            is_allowed=decision.allowed,
            limit=known.limit,
            remaining=max(0, known.remaining),
            reset_after_s=reset_after_s,
        )
