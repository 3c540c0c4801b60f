"""What a caller of the rate limit service is told, and the shorter ways to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envoys import plugged, rate_limit_request

from meshlib import Decision
from meshlib_server.adapters.envoy.answering import AS_SET, Form, Matched, answered
from meshlib_server.adapters.envoy.bounds import Calls
from meshlib_server.adapters.envoy.counting import Counting, Question, told
from meshlib_server.adapters.envoy.picker import Picker
from meshlib_server.adapters.envoy.protocol import (
    HealthCheckRequest,
    HealthCheckResponse,
    RateLimitResponse,
)
from meshlib_server.adapters.envoy.rules import Rule

RULES = """
domain: llm
descriptors:
  - key: api_key
    rate_limit: {unit: second, requests_per_unit: 1000, name: each}
"""
ANN = rate_limit_request("llm", {"api_key": "ann"})


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return the file of the rules above."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def still() -> float:
    """Return a wall clock that stands, so that no window ends within a test."""
    return 1_800_000_000.25


def run(what: Coroutine[Any, Any, None]) -> None:
    """Run a test that awaits."""
    asyncio.run(what)


decisions = st.builds(
    Decision,
    allowed=st.booleans(),
    limit=st.just(2**40),
    remaining=st.integers(-5, 2**40),
    retry_after_s=st.one_of(st.just(0.0), st.floats(0, 3e6)),
    reset_after_s=st.floats(0, 3e6),
)


@given(
    decided=st.lists(decisions, min_size=1, max_size=4),
    has_headers=st.booleans(),
    rule=st.sampled_from([Rule(per_unit=2**40, unit="hour", name="each"), AS_SET]),
)
def test_a_form_says_what_an_answer_says(
    decided: list[Decision], has_headers: bool, rule: Rule
) -> None:
    """To the byte, whatever it was filled with before."""
    matched = Matched.of(rule, "llm/api_key=ann", 1)
    form = Form("llm", matched, limit=2**40, has_headers=has_headers)
    for decision in decided:
        plain = answered("llm", [matched], [told(decision)], has_headers=has_headers)
        assert plain == RateLimitResponse.FromString(form.filled(decision))
        assert plain.SerializeToString(deterministic=True) == form.filled(decision)


def test_a_limit_that_is_set_meanwhile_is_in_force_at_once(rules: Path) -> None:
    """For a request that came again and again before; and when it is changed and removed."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            limits = []
            for change in (
                lambda: None,
                lambda: node.mesh.limits.set("llm/api_key=ann", 7),
                lambda: node.mesh.limits.set("llm/api_key=ann", 5),
                lambda: node.mesh.limits.remove("llm/api_key=ann"),
            ):
                change()
                for _ in range(3):
                    answer = await node.caller.ask(ANN)
                    limits.append(answer.statuses[0].current_limit.requests_per_unit)
            assert [1000] * 3 + [7] * 3 + [5] * 3 + [1000] * 3 == limits

    run(case())


def test_each_request_is_counted_once_however_it_is_answered(rules: Path) -> None:
    """What is left goes down by one, the first time as the tenth."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            answers = [await node.caller.ask(ANN) for _ in range(10)]
            left = [answer.statuses[0].limit_remaining for answer in answers]
            assert list(range(999, 989, -1)) == left
            told_left = [answer.response_headers_to_add[1].value for answer in answers]
            assert [str(one) for one in left] == told_left

    run(case())


def test_a_known_request_is_not_answered_by_a_node_that_leaves(rules: Path) -> None:
    """It defers, as it does with any other."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            assert ["OK"] * 3 == await node.caller.codes(ANN, 3)
            node.service.is_leaving = True
            with pytest.raises(Exception, match="the node is leaving the mesh"):
                await node.caller.ask(ANN)

    run(case())


def test_of_a_known_request_nothing_is_looked_up(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is only decided: what it is counted under was found the first two times."""
    found = []

    def counted_under(self: Counting, question: Question) -> str:
        found.append(question.key)
        return plainly(self, question)

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            await node.caller.codes(ANN, 2)
            found.clear()
            assert ["OK"] * 5 == await node.caller.codes(ANN, 5)
            assert [] == found

    plainly = Counting.counted_under
    monkeypatch.setattr(Counting, "counted_under", counted_under)
    run(case())


def test_calls_beyond_the_bound_are_told_to_come_again(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of health that are watched count too; where one has ended there is room again."""
    calls = Calls(count_max=1)
    monkeypatch.setattr("meshlib_server.adapters.envoy.serving.Calls", lambda: calls)

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            watch = node.channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=HealthCheckRequest.SerializeToString,
                response_deserializer=HealthCheckResponse.FromString,
            )(HealthCheckRequest(), timeout=30)
            await watch.read()
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError, match="too many calls") as caught:
                    await node.caller.ask(ANN)
                assert grpc.StatusCode.RESOURCE_EXHAUSTED == caught.value.code()
            picker = node.channel.stream_stream(f"/{Picker.NAME}/Process")(timeout=30)
            assert grpc.StatusCode.RESOURCE_EXHAUSTED == await picker.code()
            watch.cancel()
            deadline = asyncio.get_running_loop().time() + 20
            while calls.count:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
            assert ["OK"] * 4 == await node.caller.codes(ANN, 4)
            assert 0 == calls.count

    run(case())
