"""What is asked of the node's limits: several counters at once, for one request.

Rule: this file alone knows by which verbs of the library a rule is kept. For each limit that rules
have, such as `300/second`, one rule of the library is written, whose pattern is all keys that begin
with it: so no key is written, however many there are, and every node knows the limit of any.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from typing import Final

from attrs import define, field, frozen

from meshlib import Decision, MeshRuntime, UnknownKeyError
from meshlib.errors import InvalidValueError

__all__ = ["RULE_NAME_PREFIX", "UNLIMITED", "Counting", "Question", "Verdict", "told"]

RULE_NAME_PREFIX: Final = "envoy "
"""What comes before a limit in the name of its rule."""


LOOK_S: Final = 0.1
"""How long it may go unnoticed that the file of another node says another limit."""

UNLIMITED: Final = 2**32 - 1
"""What envoyproxy/ratelimit says is left of a limit that is none."""


@frozen(kw_only=True)
class Question:
    """One counter of a request.

    Args:
        key: the rate-limit key.
        cost: units, 0 or more; 0 looks and counts nothing.
        policy: the rule's limit, such as `300/minute`; empty: whatever is set for the key.
        per_unit: units of it; 0 lets none pass.
        is_enforced: whether its refusal refuses the request.
    """

    key: str
    cost: int
    policy: str = ""
    per_unit: int = 0
    is_enforced: bool = True

    @property
    def is_never(self) -> bool:
        """Whether it could not pass, whoever asks."""
        return bool(self.policy) and self.cost > self.per_unit

    @property
    def is_plain(self) -> bool:
        """Whether its answer is the decision about it, and nothing else."""
        return self.is_enforced and self.cost > 0 and not self.is_never


@frozen(kw_only=True)
class Verdict:
    """What became of one counter.

    Args:
        is_allowed: whether it has room for the request.
        limit: units in each period.
        remaining: units left, as far as is known here.
        reset_after_s: seconds until the period ends, or until the request would pass.
    """

    is_allowed: bool
    limit: int
    remaining: int
    reset_after_s: float


@define
class Counting:
    """Asks the limits of a node.

    Args:
        mesh: the node.
    """

    mesh: MeshRuntime
    _written: set[str] = field(factory=set)
    _revision: int | None = None
    _look_at: float = -math.inf

    def revision(self) -> int:
        """Return a number that is another one once any limit may be different. O(1).

        A limit that is written is noticed at once, and what the files of other nodes say within
        `LOOK_S`.

        Raises:
            StateError: the node has not started, or has ended.
        """
        now = time.monotonic()
        if self._revision is None or now >= self._look_at:
            limits = self.mesh.limits
            if self._revision is None:
                limits.watch(self._note_change)
            self._revision, self._look_at = limits.tag(), now + LOOK_S
        return self._revision

    def _note_change(self, _key: str) -> None:
        self._look_at = -math.inf

    async def decide(
        self, questions: Sequence[Question], *, deadline: float | None = None
    ) -> list[Verdict]:
        """Ask for all counters of a request: all that are enforced have room, or none is used.

        Those that are not enforced are counted once the others have room. What is held here costs
        nothing, else a round trip to the owners.

        Args:
            questions: the counters.
            deadline: when the answer must be there, on `time.monotonic`; None: as configured.

        Returns:
            a verdict for each, in their order.

        Raises:
            MeshError: a limit cannot be asked now: the node has ended, or is not ready.
        """
        keys = [self.counted_under(question) for question in questions]
        if len(questions) == 1 and questions[0].is_plain:  # as most requests are
            plain = await self._acquire({keys[0]: questions[0].cost}, questions, deadline)
            if plain is not None:
                return [told(plain)]
        costs: dict[str, int] = {}
        for question, key in zip(questions, keys, strict=True):
            if question.is_enforced and question.cost:
                costs[key] = costs.get(key, 0) + question.cost
        is_refused = any(one.is_never and one.is_enforced for one in questions)
        decision: Decision | None = None
        if costs and not is_refused:
            decision = await self._acquire(costs, questions, deadline)
            is_refused = decision is None or not decision.allowed
        verdicts = []
        for question, key in zip(questions, keys, strict=True):
            if len(costs) == 1 and key in costs and decision is not None:
                verdicts.append(told(decision))
            elif question.is_enforced or is_refused or question.is_never:
                verdicts.append(self._seen(question, key, is_refused=is_refused))
            else:
                one = await self._acquire({key: question.cost}, questions, deadline)
                found = self._seen(question, key, is_refused=True) if one is None else told(one)
                verdicts.append(found)
        return _with_one_refused(questions, verdicts) if is_refused else verdicts

    def retire(self, policies: Collection[str]) -> None:
        """Take back the rules of limits that no rule has any more; whoever has one writes it.

        Args:
            policies: the limits that stay.
        """
        for policy in self._written.difference(policies):
            self._written.discard(policy)
            if self.mesh.limits.rule(RULE_NAME_PREFIX + policy) is not None:
                self.mesh.limits.remove_rule(RULE_NAME_PREFIX + policy)

    def counted_under(self, question: Question) -> str:
        """Return the key that is asked for: what is set for a key goes before a file's rule."""
        if not question.policy or not question.per_unit or self.mesh.limits.is_set(question.key):
            return question.key
        if question.policy not in self._written:
            self._write(question.policy)
            self._written.add(question.policy)
        return f"{question.policy}:{question.key}"

    def _write(self, policy: str) -> None:
        """Have a limit in force everywhere for the keys that begin with it."""
        if self.mesh.limits.rule(RULE_NAME_PREFIX + policy) is None:
            self.mesh.limits.set_rule(
                RULE_NAME_PREFIX + policy, pattern=f"{policy}:*", limits=policy
            )

    async def _acquire(
        self, costs: dict[str, int], questions: Sequence[Question], deadline: float | None
    ) -> Decision | None:
        """Count a request; None when it costs more than a limit that is set, and never passes."""
        timeout_s = None if deadline is None else max(0.001, deadline - time.monotonic())
        try:
            return await self._ask(costs, timeout_s)
        except InvalidValueError:
            return None
        except UnknownKeyError:
            # Another node, whose file has it no more, has taken the rule back.
            for policy in {one.policy for one in questions if one.policy and one.per_unit}:
                self._write(policy)
            return await self._ask(costs, timeout_s)

    async def _ask(self, costs: dict[str, int], timeout_s: float | None) -> Decision:
        if len(costs) > 1:
            return await self.mesh.acquire_many_confirmed(costs, timeout_s=timeout_s)
        ((key, cost),) = costs.items()
        return await self.mesh.acquire_confirmed(key, cost=cost, timeout_s=timeout_s)

    def _seen(self, question: Question, key: str, *, is_refused: bool) -> Verdict:
        """Say what is known of a counter without using it."""
        if question.policy and not question.per_unit:
            return Verdict(is_allowed=False, limit=0, remaining=0, reset_after_s=0.0)
        cost = 1 if question.is_never or not is_refused else max(1, question.cost)
        try:
            seen = self.mesh.peek(key, cost=cost)
        except InvalidValueError:
            seen = self.mesh.peek(key)
            return Verdict(
                is_allowed=False,
                limit=seen.limit,
                remaining=seen.remaining,
                reset_after_s=seen.reset_after_s,
            )
        is_allowed = not question.is_never and (seen.allowed or not is_refused)
        return Verdict(
            is_allowed=is_allowed,
            limit=seen.limit,
            remaining=max(0, seen.remaining) if seen.limit else UNLIMITED,
            reset_after_s=seen.retry_after_s or seen.reset_after_s,
        )


def told(decision: Decision) -> Verdict:
    """Return what a decision says of its counter."""
    is_unlimited = not decision.limit
    return Verdict(
        is_allowed=decision.allowed,
        limit=decision.limit,
        remaining=UNLIMITED if is_unlimited else max(0, decision.remaining),
        reset_after_s=decision.retry_after_s or decision.reset_after_s,
    )


def _with_one_refused(questions: Sequence[Question], verdicts: list[Verdict]) -> list[Verdict]:
    """Say of the tightest that it has refused, where the owners' refusal is not known of here."""
    enforced = [at for at, question in enumerate(questions) if question.is_enforced]
    if any(not verdicts[at].is_allowed for at in enforced):
        return verdicts
    at = min(enforced, key=lambda at: verdicts[at].remaining - questions[at].cost)
    known = verdicts[at]
    verdicts[at] = Verdict(
        is_allowed=False,
        limit=known.limit,
        remaining=known.remaining,
        reset_after_s=known.reset_after_s,
    )
    return verdicts
