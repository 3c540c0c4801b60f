"""`envoy.service.ratelimit.v3.RateLimitService`: a request in, a status for each descriptor out."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import grpc
from attrs import define, frozen

from meshlib import MeshError, StateError
from meshlib_server.adapters.envoy.counting import UNLIMITED, Counting, Question, Verdict
from meshlib_server.adapters.envoy.protocol import RateLimitRequest, RateLimitResponse
from meshlib_server.adapters.envoy.rules import UNITS, Rule, RuleBook, counter_key
from meshlib_server.plugs import EnvoySettings, OnFailure
from meshlib_server.problems import Unavailable
from meshlib_server.service import Service

__all__ = ["RateLimitService"]

DESCRIPTORS_MAX: Final = 64
"""In one request: Envoy sends one for each rate limit of a route."""

ENTRIES_MAX: Final = 64
"""In one descriptor."""

ANSWER_PART: Final = 0.8
"""Of the time that the caller still waits: what the cluster has to decide in."""

_Unit: Final = RateLimitResponse.RateLimit.Unit
_OK: Final = RateLimitResponse.OK
_OVER: Final = RateLimitResponse.OVER_LIMIT


@frozen
class _Matched:
    """What one descriptor of a request has to do with."""

    rule: Rule
    key: str
    question: Question | None
    """What is asked of the limits; None when the rule has none."""

    @classmethod
    def of(cls, rule: Rule, key: str, cost: int) -> _Matched:
        """Return what a rule makes of a descriptor that is counted under a key."""
        question = Question(
            key=key,
            cost=cost,
            policy=rule.policy,
            per_unit=rule.per_unit or 0,
            is_enforced=rule.is_enforced,
        )
        return cls(rule, key, question if rule.per_unit is not None or rule is _AS_SET else None)


_AS_SET: Final = Rule(per_unit=None)
"""Stands for a rule where the limit is what is set for the key."""

REMEMBERED_MAX: Final = 4096
"""Requests whose rules are remembered: callers send the same bytes again and again."""

REMEMBERED_BYTES_MAX: Final = 1024
"""Of a request that is remembered."""


@define
class _Asked:
    """A request as it came.

    Args:
        request: the message.
        matched: the rules that a file has for it, once they were found; None before.
    """

    request: Any
    matched: list[_Matched | None] | None = None


class RateLimitService:
    """Answers `ShouldRateLimit` from the limits of the cluster.

    Args:
        service: the node.
        rules: what the rule file says.
        settings: what is answered when nothing can be decided, and whether headers are sent.
    """

    NAME: Final = "envoy.service.ratelimit.v3.RateLimitService"

    def __init__(self, service: Service, rules: RuleBook, settings: EnvoySettings) -> None:
        self.rules = rules
        self._service = service
        self._settings = settings
        self._counting = None if service.running is None else Counting(service.running)
        self._remembered: dict[bytes, _Asked] = {}

    def replace_rules(self, rules: RuleBook) -> None:
        """Have other rules in force."""
        self.rules = rules
        self._remembered = {}
        if self._counting is not None:
            with contextlib.suppress(StateError):  # the node has not started, or has ended
                self._counting.retire(rules.policies())

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return what a gRPC server is given."""
        method = grpc.unary_unary_rpc_method_handler(
            self.should_rate_limit,
            request_deserializer=self._read,
            response_serializer=RateLimitResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(self.NAME, {"ShouldRateLimit": method})

    def _read(self, data: bytes) -> _Asked:
        """Return a request, with its rules when it came before. O(size), and O(1) the next time."""
        asked = self._remembered.get(data)
        if asked is None:
            asked = _Asked(RateLimitRequest.FromString(data))
            if len(data) <= REMEMBERED_BYTES_MAX:
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered = {}
                self._remembered[data] = asked
        return asked

    async def should_rate_limit(self, asked: _Asked, context: Any) -> Any:
        """Decide a request: all of its descriptors have room, or it is over the limit.

        It takes at most four fifths of the time that the caller still waits; then the node's
        `partition_mode` decides.
        """
        request = asked.request
        if asked.matched is None:
            await self._check(request, context)
        left_s = context.time_remaining()
        deadline = None if left_s is None else time.monotonic() + left_s * ANSWER_PART
        try:
            matched = asked.matched or self._match(asked)
            verdicts = await self._decide(matched, deadline)
        except (MeshError, Unavailable) as error:
            return await self._undecided(request, context, error)
        return self._answer(request, matched, verdicts)

    @staticmethod
    async def _check(request: Any, context: Any) -> None:
        """Refuse a request that is out of bounds."""
        if not request.domain:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "domain: must not be empty")
        if not 0 < len(request.descriptors) <= DESCRIPTORS_MAX:
            message = f"descriptors: must be 1 to {DESCRIPTORS_MAX}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        if any(len(one.entries) > ENTRIES_MAX for one in request.descriptors):
            message = f"entries: must be at most {ENTRIES_MAX}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)

    def _match(self, asked: _Asked) -> list[_Matched | None]:
        """Find the rule of each descriptor, those left out that another one replaces.

        What the file says of all of them is remembered; what is set for a key may be another
        thing the next time.
        """
        request = asked.request
        matched = [self._find(request, one) for one in request.descriptors]
        is_lasting = all(one is not None and one.rule is not _AS_SET for one in matched)
        replaced = {name for one in matched if one is not None for name in one.rule.replaces}
        left = [
            None if one is not None and one.rule.name and one.rule.name in replaced else one
            for one in matched
        ]
        if is_lasting:
            asked.matched = left
        return left

    def _find(self, request: Any, descriptor: Any) -> _Matched | None:
        entries = [(entry.key, entry.value) for entry in descriptor.entries]
        cost = request.hits_addend or 1
        if descriptor.HasField("hits_addend"):
            cost = descriptor.hits_addend.value
        if descriptor.HasField("limit"):
            return self._overridden(request.domain, entries, descriptor.limit, cost)
        found = self.rules.find(request.domain, entries)
        if found is not None:
            return _Matched.of(*found, cost)
        key = counter_key(request.domain, entries)
        return _Matched.of(_AS_SET, key, cost) if self._service.mesh.limits.is_set(key) else None

    @staticmethod
    def _overridden(
        domain: str, entries: Sequence[tuple[str, str]], limit: Any, cost: int
    ) -> _Matched:
        """Take the limit that Envoy itself says, which has a counter of its own.

        Envoy's value with a unit that is not kept here fails the request as what cannot be
        decided does: nothing else could be told from it.
        """
        unit = _Unit.Name(limit.unit).lower()
        if unit not in UNITS:
            raise Unavailable(f"a limit for each {unit} is not kept here")
        key = f"{counter_key(domain, entries)}@override"
        return _Matched.of(Rule(per_unit=limit.requests_per_unit, unit=unit), key, cost)

    async def _decide(
        self, matched: Sequence[_Matched | None], deadline: float | None
    ) -> list[Verdict | None]:
        questions = [one.question for one in matched if one is not None and one.question]
        if not questions:
            return [None] * len(matched)
        mesh = self._service.mesh
        if not mesh.is_ready:
            raise Unavailable("the node is not ready")
        assert self._counting is not None
        decided = iter(await self._counting.decide(questions, deadline=deadline))
        return [
            next(decided) if one is not None and one.question is not None else None
            for one in matched
        ]

    async def _undecided(self, request: Any, context: Any, error: Exception) -> Any:
        """Answer as the setting says what cannot be decided."""
        if self._settings.on_failure is OnFailure.DEFER:
            await self._refuse(context, str(error))
        code = _OK if self._settings.on_failure is OnFailure.OPEN else _OVER
        answer = RateLimitResponse(overall_code=code)
        for _ in request.descriptors:
            answer.statuses.add(code=code)
        return answer

    @staticmethod
    async def _refuse(context: Any, reason: str) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, reason)
        raise AssertionError("unreachable")

    def _answer(
        self, request: Any, matched: Sequence[_Matched | None], verdicts: Sequence[Verdict | None]
    ) -> Any:
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
            if one.rule is not _AS_SET:  # of a limit that is set, no unit is told
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
                {
                    "domain": request.domain,
                    "quotaModeEnabled": True,
                    "quotaModeViolations": violated,
                }
            )
        if self._settings.headers and tightest is not None:
            self._add_headers(answer, tightest)
        return answer

    @staticmethod
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
