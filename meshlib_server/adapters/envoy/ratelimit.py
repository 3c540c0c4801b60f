"""`envoy.service.ratelimit.v3.RateLimitService`: a request in, a status for each descriptor out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import grpc
from attrs import define

from meshlib import MeshError, StateError
from meshlib_server.adapters.envoy.answering import AS_SET, Form, Matched, answered
from meshlib_server.adapters.envoy.bounds import Calls
from meshlib_server.adapters.envoy.counting import Counting, Verdict, told
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

SHORTEST_S: Final = 0.001
"""A moment for the cluster, where that time is over."""

_Unit: Final = RateLimitResponse.RateLimit.Unit
_OK: Final = RateLimitResponse.OK
_OVER: Final = RateLimitResponse.OVER_LIMIT


REMEMBERED_MAX: Final = 4096
"""Requests whose rules are remembered: callers send the same bytes again and again."""

REMEMBERED_BYTES_MAX: Final = 1024
"""Of a request that is remembered."""


@define(kw_only=True)
class _Shortcut:
    """A request that asks one counter only, and what becomes of it: nothing is to be looked up.

    Args:
        domain: of the request.
        matched: the rule of its one descriptor.
        key: what is asked for.
        cost: units.
        form: the answers.
        revision: of the limits that this was found by.
    """

    domain: str
    matched: Matched
    key: str
    cost: int
    form: Form
    revision: int


@define
class _Asked:
    """A request as it came.

    Args:
        request: the message.
        matched: the rules that a file has for it, once they were found; None before.
        is_known: whether the same came before.
        shortcut: to its answer, where there is one, once it came again.
    """

    request: Any
    is_known: bool = False
    matched: list[Matched | None] | None = None
    shortcut: _Shortcut | None = None


class RateLimitService:
    """Answers `ShouldRateLimit` from the limits of the cluster.

    Args:
        service: the node.
        rules: what the rule file says.
        settings: what is answered when nothing can be decided, and whether headers are sent.
        calls: those that are under way.
    """

    NAME: Final = "envoy.service.ratelimit.v3.RateLimitService"

    def __init__(
        self, service: Service, rules: RuleBook, settings: EnvoySettings, *, calls: Calls
    ) -> None:
        self.rules = rules
        self._calls = calls
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
            response_serializer=None,  # it returns bytes
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
        else:
            asked.is_known = True
        return asked

    async def should_rate_limit(self, asked: _Asked, context: Any) -> bytes:
        """Decide a request: all of its descriptors have room, or it is over the limit.

        It takes at most four fifths of the time that the caller still waits; then the node's
        `partition_mode` decides.
        """
        if self._calls.is_full:
            await self._calls.refuse(context)
        with self._calls:
            if asked.shortcut is not None:
                answer = await self._take(asked.shortcut, context)
                if answer is not None:
                    return answer
            return await self._look_up(asked, context)

    async def _look_up(self, asked: _Asked, context: Any) -> bytes:
        """Answer a request that is not known, or is not what it was."""
        request = asked.request
        if asked.matched is None:
            await self._check(request, context)
        left_s = context.time_remaining()
        deadline = None if left_s is None else time.monotonic() + left_s * ANSWER_PART
        try:
            matched = asked.matched or self._match(asked)
            verdicts = await self._decide(matched, deadline)
            asked.shortcut = self._shortcut(asked, matched, verdicts) if asked.is_known else None
        except (MeshError, Unavailable) as error:
            return await self._undecided(request, context, error)
        return self._written(request.domain, matched, verdicts)

    async def _take(self, shortcut: _Shortcut, context: Any) -> bytes | None:
        """Answer a request that is known; None when it is to be looked at as a new one is."""
        counting = self._counting
        if counting is None or self._service.is_leaving:
            return None
        mesh = counting.mesh
        left_s = context.time_remaining()
        timeout_s = None if left_s is None else max(SHORTEST_S, left_s * ANSWER_PART)
        try:
            if shortcut.revision != counting.revision() or not mesh.is_ready:
                return None
            decision = await mesh.acquire_confirmed(
                shortcut.key, cost=shortcut.cost, timeout_s=timeout_s
            )
        except MeshError:
            return None  # nothing was counted: the long way tells of it
        if decision.limit == shortcut.form.limit:
            return shortcut.form.filled(decision)
        # It is another limit by now.
        return self._written(shortcut.domain, [shortcut.matched], [told(decision)])

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

    def _match(self, asked: _Asked) -> list[Matched | None]:
        """Find the rule of each descriptor, those left out that another one replaces.

        What the file says of all of them is remembered; what is set for a key may be another
        thing the next time.
        """
        request = asked.request
        matched = [self._find(request, one) for one in request.descriptors]
        is_lasting = all(one is not None and one.rule is not AS_SET for one in matched)
        replaced = {name for one in matched if one is not None for name in one.rule.replaces}
        left = [
            None if one is not None and one.rule.name and one.rule.name in replaced else one
            for one in matched
        ]
        if is_lasting:
            asked.matched = left
        return left

    def _find(self, request: Any, descriptor: Any) -> Matched | None:
        entries = [(entry.key, entry.value) for entry in descriptor.entries]
        cost = request.hits_addend or 1
        if descriptor.HasField("hits_addend"):
            cost = descriptor.hits_addend.value
        if descriptor.HasField("limit"):
            return self._overridden(request.domain, entries, descriptor.limit, cost)
        found = self.rules.find(request.domain, entries)
        if found is not None:
            return Matched.of(*found, cost)
        key = counter_key(request.domain, entries)
        return Matched.of(AS_SET, key, cost) if self._service.mesh.limits.is_set(key) else None

    @staticmethod
    def _overridden(
        domain: str, entries: Sequence[tuple[str, str]], limit: Any, cost: int
    ) -> Matched:
        """Take the limit that Envoy itself says, which has a counter of its own.

        Envoy's value with a unit that is not kept here fails the request as what cannot be
        decided does: nothing else could be told from it.
        """
        unit = _Unit.Name(limit.unit).lower()
        if unit not in UNITS:
            raise Unavailable(f"a limit for each {unit} is not kept here")
        key = f"{counter_key(domain, entries)}@override"
        return Matched.of(Rule(per_unit=limit.requests_per_unit, unit=unit), key, cost)

    async def _decide(
        self, matched: Sequence[Matched | None], deadline: float | None
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

    def _shortcut(
        self, asked: _Asked, matched: Sequence[Matched | None], verdicts: Sequence[Verdict | None]
    ) -> _Shortcut | None:
        """Return how a request that was just answered is answered the next time, if it is plain."""
        one, verdict, counting = matched[0], verdicts[0], self._counting
        if len(matched) != 1 or one is None or one.question is None or counting is None:
            return None
        if verdict is None or not verdict.limit or not one.question.is_plain:
            return None
        domain, before = asked.request.domain, asked.shortcut
        if before is not None and before.matched == one and before.form.limit == verdict.limit:
            form = before.form
        else:
            form = Form(domain, one, limit=verdict.limit, has_headers=self._settings.headers)
        return _Shortcut(
            domain=domain,
            matched=one,
            key=counting.counted_under(one.question),
            cost=one.question.cost,
            form=form,
            revision=counting.revision(),
        )

    def _written(
        self, domain: str, matched: Sequence[Matched | None], verdicts: Sequence[Verdict | None]
    ) -> bytes:
        answer = answered(domain, matched, verdicts, has_headers=self._settings.headers)
        serialized: bytes = answer.SerializeToString()
        return serialized

    async def _undecided(self, request: Any, context: Any, error: Exception) -> bytes:
        """Answer as the setting says what cannot be decided."""
        if self._settings.on_failure is OnFailure.DEFER:
            await self._refuse(context, str(error))
        code = _OK if self._settings.on_failure is OnFailure.OPEN else _OVER
        answer = RateLimitResponse(overall_code=code)
        for _ in request.descriptors:
            answer.statuses.add(code=code)
        serialized: bytes = answer.SerializeToString()
        return serialized

    @staticmethod
    async def _refuse(context: Any, reason: str) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAVAILABLE, reason)
        raise AssertionError("unreachable")
