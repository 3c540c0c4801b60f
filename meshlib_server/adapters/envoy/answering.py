"""What a caller of the rate limit service is told: a status for each descriptor, and headers.

Rule: an answer is put together in this file alone. Callers send the same request again and again,
so that most of an answer is the same each time: a `Form` has that ready and fills in the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from meshlib import Decision
from meshlib_server.adapters.envoy.counting import UNLIMITED, Question, Verdict
from meshlib_server.adapters.envoy.protocol import RateLimitResponse
from meshlib_server.adapters.envoy.rules import Rule

__all__ = ["AS_SET", "Form", "Matched", "answered"]

_Unit: Final = RateLimitResponse.RateLimit.Unit
_OK: Final = RateLimitResponse.OK
_OVER: Final = RateLimitResponse.OVER_LIMIT

AS_SET: Final = Rule(per_unit=None)
"""Stands for a rule where the limit is what is set for the key."""


@frozen
class Matched:
    """What one descriptor of a request has to do with.

    Args:
        rule: its rule, or `AS_SET`.
        key: what it is counted under.
        question: what is asked of the limits; None when the rule has none.
    """

    rule: Rule
    key: str
    question: Question | None

    @classmethod
    def of(cls, rule: Rule, key: str, cost: int) -> Matched:
        """Return what a rule makes of a descriptor that is counted under a key."""
        question = Question(
            key=key,
            cost=cost,
            policy=rule.policy,
            per_unit=rule.per_unit or 0,
            is_enforced=rule.is_enforced,
        )
        return cls(rule, key, question if rule.per_unit is not None or rule is AS_SET else None)


def answered(
    domain: str,
    matched: Sequence[Matched | None],
    verdicts: Sequence[Verdict | None],
    *,
    has_headers: bool,
) -> Any:
    """Return the answer to a request. O(descriptors).

    Args:
        domain: of the request.
        matched: the rule of each of its descriptors; None for one that has none.
        verdicts: what became of each; None where nothing was asked.
        has_headers: whether the RateLimit headers are told, of the tightest limit.
    """
    answer = RateLimitResponse(overall_code=_OK)
    tightest: Verdict | None = None
    violated = []
    for at, (one, verdict) in enumerate(zip(matched, verdicts, strict=True)):
        status = answer.statuses.add(code=_OK)
        if one is None:
            continue
        if verdict is None:
            status.limit_remaining = UNLIMITED
            continue
        status.current_limit.requests_per_unit = min(verdict.limit, UNLIMITED)
        if one.rule is not AS_SET:  # of a limit that is set, no unit is told
            status.current_limit.unit = _Unit.Value(one.rule.unit.upper())
        status.current_limit.name = one.rule.name
        status.limit_remaining = min(max(0, verdict.remaining), UNLIMITED)
        reset_s = int(verdict.reset_after_s)
        status.duration_until_reset.seconds = reset_s
        status.duration_until_reset.nanos = int((verdict.reset_after_s - reset_s) * 1e9)
        if tightest is None or verdict.remaining < tightest.remaining:
            tightest = verdict
        if verdict.is_allowed:
            continue
        if one.rule.is_enforced:
            status.code = answer.overall_code = _OVER
        elif one.rule.is_quota:
            violated.append(at)
    if any(one is not None and one.rule.is_quota for one in matched):
        answer.dynamic_metadata.update(
            {"domain": domain, "quotaModeEnabled": True, "quotaModeViolations": violated}
        )
    if has_headers and tightest is not None:
        _add_headers(answer, tightest)
    return answer


def _add_headers(answer: Any, tightest: Verdict) -> None:
    reset = str(math.ceil(tightest.reset_after_s))
    headers = {
        "ratelimit-limit": str(tightest.limit),
        "ratelimit-remaining": str(max(0, tightest.remaining)),
        "ratelimit-reset": reset,
    }
    if answer.overall_code == _OVER:
        headers["retry-after"] = reset
    for key, value in headers.items():
        answer.response_headers_to_add.add(key=key, value=value)


class _Blank:
    """One answer with one status, and where what changes is written into it.

    Args:
        answer: as `answered` has made it.
    """

    __slots__ = ("_left", "_reset", "_serialize", "_soon", "_status")

    def __init__(self, answer: Any) -> None:
        (self._status,) = answer.statuses
        self._reset = self._status.duration_until_reset
        by_name = {header.key: header for header in answer.response_headers_to_add}
        self._left = by_name.pop("ratelimit-remaining", None)
        by_name.pop("ratelimit-limit", None)
        self._soon = tuple(by_name.values())
        self._serialize = answer.SerializeToString

    def filled(self, remaining: int, reset_after_s: float) -> bytes:
        """Return the answer with what is left, and until when, in bytes. O(1)."""
        remaining = max(0, remaining)
        self._status.limit_remaining = min(remaining, UNLIMITED)
        reset = self._reset
        reset.seconds = reset_s = int(reset_after_s)
        reset.nanos = int((reset_after_s - reset_s) * 1e9)
        if self._left is not None:
            self._left.value = str(remaining)
            soon = str(math.ceil(reset_after_s))
            for header in self._soon:
                header.value = soon
        serialized: bytes = self._serialize()
        return serialized


class Form:
    """The answers to a request of one descriptor, but for what is left and until when.

    It says what `answered` would, byte for byte, for a quarter of the time.

    Args:
        domain: of the request.
        matched: the rule of its descriptor: one that is enforced, and has a question.
        limit: units in each period, 1 or more.
        has_headers: whether the RateLimit headers are told.
    """

    __slots__ = ("_admitted", "_refused", "limit")

    def __init__(self, domain: str, matched: Matched, *, limit: int, has_headers: bool) -> None:
        def blank(*, is_allowed: bool) -> _Blank:
            verdict = Verdict(is_allowed=is_allowed, limit=limit, remaining=0, reset_after_s=1.0)
            return _Blank(answered(domain, [matched], [verdict], has_headers=has_headers))

        self.limit = limit
        self._admitted = blank(is_allowed=True)
        self._refused = blank(is_allowed=False)

    def filled(self, decision: Decision) -> bytes:
        """Return the answer that tells a decision, in bytes. O(1).

        Args:
            decision: under a limit of as many units as the form's.
        """
        blank = self._admitted if decision.allowed else self._refused
        return blank.filled(decision.remaining, decision.retry_after_s or decision.reset_after_s)
