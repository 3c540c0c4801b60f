"""Envoy's rate limit service, asked over gRPC as an Envoy asks it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from support.envoys import Caller, plugged, rate_limit_request

from meshlib import Decision, MemoryNetwork, MeshRuntime
from meshlib.errors import ConfigError
from meshlib_server.adapters.envoy.counting import Counting, Question
from meshlib_server.adapters.envoy.protocol import RateLimitResponse
from meshlib_server.plugs import EnvoySettings, OnFailure, load_plugs

RULES = """
domain: llm
descriptors:
  - key: api_key
    rate_limit: {unit: hour, requests_per_unit: 3, name: each}
  - key: api_key
    value: banned
    rate_limit: {unit: second, requests_per_unit: 0}
  - key: api_key
    value: staff
    rate_limit: {unlimited: true}
  - key: team
    rate_limit: {unit: hour, requests_per_unit: 2}
  - key: vip
    rate_limit: {unit: hour, requests_per_unit: 5, replaces: [{name: each}]}
  - key: trial
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 1}
  - key: slow
    rate_limit: {unit: hour, requests_per_unit: 4}
  - key: tick
    rate_limit: {unit: second, requests_per_unit: 5}
  - key: soft
    quota_mode: true
    rate_limit: {unit: hour, requests_per_unit: 1}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Return the file of the rules above."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def still() -> float:
    """Return a wall clock that stands, at the begin of an hour.

    A window of a second ends all the same, by the monotonic clock; one of an hour lasts.
    """
    return 1_800_000_000.25


def run(what: Coroutine[Any, Any, None]) -> None:
    """Run a test that awaits."""
    asyncio.run(what)


def names(answer: Any) -> list[str]:
    """Return the code of each status."""
    return [RateLimitResponse.Code.Name(status.code) for status in answer.statuses]


def test_each_value_has_its_own_limit(rules: Path) -> None:
    """Three pass of each key, and a refusal says the limit, what is left, and until when."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            ann = rate_limit_request("llm", {"api_key": "ann"})
            bob = rate_limit_request("llm", {"api_key": "bob"})
            assert ["OK"] * 3 + ["OVER_LIMIT"] * 2 == await node.caller.codes(ann, 5)
            assert ["OK"] * 3 + ["OVER_LIMIT"] == await node.caller.codes(bob, 4)
            refused = await node.caller.ask(ann)
            status = refused.statuses[0]
            assert ("each", 3) == (
                status.current_limit.name,
                status.current_limit.requests_per_unit,
            )
            assert status.current_limit.unit == RateLimitResponse.RateLimit.HOUR
            assert 0 == status.limit_remaining
            assert 0 < status.duration_until_reset.ToNanoseconds() <= 3600e9
            headers = {one.key: one.value for one in refused.response_headers_to_add}
            waits = [int(headers.pop(name)) for name in ("ratelimit-reset", "retry-after")]
            assert all(0 < wait_s <= 3600 for wait_s in waits)
            assert {"ratelimit-limit": "3", "ratelimit-remaining": "0"} == headers

    run(case())


def test_zero_lets_none_pass_and_unlimited_lets_all(rules: Path) -> None:
    """A limit of nothing is no missing limit; without one the largest number is left."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            banned = rate_limit_request("llm", {"api_key": "banned"})
            staff = rate_limit_request("llm", {"api_key": "staff"})
            assert ["OVER_LIMIT"] == await node.caller.codes(banned, 1)
            answer = await node.caller.ask(staff)
            assert ["OK"] == names(answer)
            assert 2**32 - 1 == answer.statuses[0].limit_remaining
            unknown = rate_limit_request("llm", {"colour": "red"})
            assert ["OK"] * 9 == await node.caller.codes(unknown, 9)

    run(case())


def test_hits_are_counted_as_many_as_they_are(rules: Path) -> None:
    """`hits_addend` is the cost; more than the limit never passes, and burns nothing."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            two = rate_limit_request("llm", {"api_key": "x"}, hits_addend=2)
            four = rate_limit_request("llm", {"api_key": "x"}, hits_addend=4)
            one = rate_limit_request("llm", {"api_key": "x"})
            assert ["OVER_LIMIT"] == await node.caller.codes(four, 1)
            assert ["OK", "OVER_LIMIT"] == await node.caller.codes(two, 2)
            assert ["OK", "OVER_LIMIT"] == await node.caller.codes(one, 2)
            of_one = rate_limit_request("llm", {"api_key": "y"})
            of_one.descriptors[0].hits_addend.value = 3
            assert ["OK", "OVER_LIMIT"] == await node.caller.codes(of_one, 2)

    run(case())


@pytest.mark.parametrize("is_known", [True, False])
def test_one_spent_limit_refuses_the_request_and_burns_nothing_of_the_others(
    rules: Path, is_known: bool
) -> None:
    """All descriptors have room or none is counted, whether or not that was to be expected."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            team = rate_limit_request("llm", {"team": "t"})
            assert ["OK", "OK"] == await node.caller.codes(team, 2)
            if is_known:
                assert ["OVER_LIMIT"] == await node.caller.codes(team, 1)
            both = rate_limit_request("llm", {"api_key": "z"}, {"team": "t"})
            for _ in range(5):
                assert ["OK", "OVER_LIMIT"] == names(await node.caller.ask(both))
            alone = rate_limit_request("llm", {"api_key": "z"})
            assert ["OK"] * 3 + ["OVER_LIMIT"] == await node.caller.codes(alone, 4)

    run(case())


def test_a_rule_that_is_replaced_does_not_count(rules: Path) -> None:
    """Beside the one that replaces it, the named rule is neither asked nor burnt."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            both = rate_limit_request("llm", {"api_key": "r"}, {"vip": "r"})
            assert ["OK"] * 5 + ["OVER_LIMIT"] == await node.caller.codes(both, 6)
            alone = rate_limit_request("llm", {"api_key": "r"})
            assert ["OK"] * 3 + ["OVER_LIMIT"] == await node.caller.codes(alone, 4)

    run(case())


def test_shadow_and_quota_refuse_nothing(rules: Path) -> None:
    """What is over such a rule passes; of a quota the metadata says so."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            trial = rate_limit_request("llm", {"trial": "a"})
            assert ["OK"] * 4 == await node.caller.codes(trial, 4)
            assert 0 == (await node.caller.ask(trial)).statuses[0].limit_remaining
            soft = rate_limit_request("llm", {"soft": "a"})
            first, second = [await node.caller.ask(soft) for _ in range(2)]
            assert ["OK"] == names(second)
            assert [] == list(first.dynamic_metadata["quotaModeViolations"])
            assert [0] == list(second.dynamic_metadata["quotaModeViolations"])

    run(case())


def test_an_override_has_a_count_of_its_own(rules: Path) -> None:
    """The limit that Envoy says goes before the file's, and is counted apart from it."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            request = rate_limit_request("llm", {"api_key": "o"})
            request.descriptors[0].limit.requests_per_unit = 1
            request.descriptors[0].limit.unit = RateLimitResponse.RateLimit.HOUR
            assert ["OK", "OVER_LIMIT"] == await node.caller.codes(request, 2)
            plain = rate_limit_request("llm", {"api_key": "o"})
            assert ["OK"] * 3 + ["OVER_LIMIT"] == await node.caller.codes(plain, 4)

    run(case())


def test_a_limit_that_was_set_counts_without_a_rule() -> None:
    """`llm/api_key=alice` is the key of a descriptor, for the API as for Envoy."""

    async def case() -> None:
        async with plugged(wall_clock=still) as node:
            request = rate_limit_request("llm", {"api_key": "alice"})
            assert ["OK"] * 3 == await node.caller.codes(request, 3)
            node.mesh.limits.set("llm/api_key=alice", 2)
            two = rate_limit_request("llm", {"api_key": "alice"}, hits_addend=2)
            three = rate_limit_request("llm", {"api_key": "alice"}, hits_addend=3)
            assert ["OVER_LIMIT"] == await node.caller.codes(three, 1)
            assert ["OK"] == await node.caller.codes(two, 1)

    run(case())


def test_a_changed_file_is_in_force_and_a_broken_one_is_not(rules: Path) -> None:
    """What is read again goes for the next request; a mistake leaves all as it was."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            request = rate_limit_request("llm", {"team": "u"})
            assert ["OK", "OK", "OVER_LIMIT"] == await node.caller.codes(request, 3)
            await asyncio.to_thread(
                rules.write_text, RULES.replace("requests_per_unit: 2}", "requests_per_unit: 4}")
            )
            node.plug.reload()
            assert ["OK"] * 4 + ["OVER_LIMIT"] == await node.caller.codes(request, 5)
            assert ["envoy 4/hour"] == [rule.name for rule in node.mesh.limits.rules()]
            await asyncio.to_thread(rules.write_text, "domain: llm\ndescriptors: [{}]")
            with pytest.raises(ConfigError):
                node.plug.reload()
            other = rate_limit_request("llm", {"team": "v"})
            assert ["OK"] * 4 + ["OVER_LIMIT"] == await node.caller.codes(other, 5)

    run(case())


@pytest.mark.parametrize(
    ("on_failure", "code"), [(OnFailure.OPEN, "OK"), (OnFailure.CLOSED, "OVER_LIMIT")]
)
def test_what_cannot_be_decided_is_answered_as_set(
    rules: Path, on_failure: OnFailure, code: str
) -> None:
    """A node that is not ready admits, or refuses, or says that it cannot tell."""

    async def case() -> None:
        async with plugged(rules, on_failure=on_failure, is_started=False) as node:
            request = rate_limit_request("llm", {"api_key": "a"})
            assert [code] == await node.caller.codes(request, 1)

    run(case())


def test_a_node_that_is_not_ready_defers_and_says_so(rules: Path) -> None:
    """By default the call fails, for Envoy to do as it is set; health keeps callers away."""

    async def case() -> None:
        async with plugged(rules, is_started=False) as node:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await node.caller.ask(rate_limit_request("llm", {"api_key": "a"}))
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "NOT_SERVING" == await node.caller.health("")
            assert "SERVING" == await node.caller.health("liveness")

    run(case())


def test_health_is_told_by_name(rules: Path) -> None:
    """A ready node serves each name, a draining one none but `liveness`; others are unknown."""
    service = "envoy.service.ratelimit.v3.RateLimitService"

    async def case() -> None:
        async with plugged(rules) as node:
            for name in ("", "readiness", "liveness", service):
                assert "SERVING" == await node.caller.health(name)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await node.caller.health("nobody")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            node.service.shut_down()
            assert "NOT_SERVING" == await node.caller.health(service)
            assert "SERVING" == await node.caller.health("liveness")

    run(case())


@pytest.mark.parametrize(
    "request_",
    [
        rate_limit_request("", {"a": "b"}),
        rate_limit_request("llm"),
        rate_limit_request("llm", *[{"a": "b"}] * 65),
        rate_limit_request("llm", {str(at): "" for at in range(65)}),
    ],
    ids=["no domain", "no descriptor", "too many", "too deep"],
)
def test_a_malformed_request_is_refused(rules: Path, request_: Any) -> None:
    """It is the caller's fault, and is no decision."""

    async def case() -> None:
        async with plugged(rules) as node:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await node.caller.ask(request_)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    run(case())


@pytest.mark.slow
def test_two_nodes_keep_one_limit(rules: Path) -> None:
    """Asked at once by both, a limit of three admits three; no key was told to either."""

    async def burst(callers: list[Caller], key: str) -> list[str]:
        request = rate_limit_request("llm", {"api_key": key})
        answers = await asyncio.gather(*(caller.codes(request, 3) for caller in callers))
        return sorted(code for codes in answers for code in codes)

    async def case() -> None:
        network = MemoryNetwork()
        settings: dict[str, Any] = {"network": network, "wall_clock": still}
        async with (
            plugged(rules, name="n1", seeds=("n2:1",), **settings) as one,
            plugged(rules, name="n2", seeds=("n1:1",), **settings) as two,
        ):
            for key in ("a", "b", "c", "d"):
                found = await burst([one.caller, two.caller], key)
                assert ["OK"] * 3 + ["OVER_LIMIT"] * 3 == found

    run(case())


class NothingSet:
    """Limits of which none is set."""

    def is_set(self, key: str) -> bool:
        """Tell that it is not."""
        return False


class Timed:
    """Stands for a node, and notes how long each question may take."""

    limits = NothingSet()

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    async def acquire_confirmed(self, key: str, *, cost: int, timeout_s: float | None) -> Decision:
        """Note the timeout, and admit."""
        self.timeouts.append(timeout_s)
        return Decision(True, 3, 2, 0.0, confirmed=True)


def test_each_question_has_what_is_left_of_the_caller_s_time() -> None:
    """Who waits 20 ms is not answered after 500; a deadline that has passed leaves a moment."""

    async def case() -> None:
        mesh = Timed()
        counting = Counting(cast("MeshRuntime", mesh))
        questions = [Question(key="k", cost=1)]
        await counting.decide(questions)
        await counting.decide(questions, deadline=time.monotonic() + 7)
        await counting.decide(questions, deadline=time.monotonic() - 7)
        unset, ahead, past = mesh.timeouts
        assert unset is None
        assert ahead is not None
        assert 0 < ahead <= 7
        assert past == 0.001

    run(case())


def test_no_key_is_written_however_many_there_are(rules: Path) -> None:
    """A flood of values leaves one rule behind, for the limit that they have in common."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            for at in range(50):
                request = rate_limit_request("llm", {"api_key": f"k{at}"})
                assert ["OK"] == await node.caller.codes(request, 1)
            assert [] == node.mesh.limits.keys()
            assert ["envoy 3/hour"] == [rule.name for rule in node.mesh.limits.rules()]

    run(case())


def test_a_rule_that_another_node_took_back_is_written_again(rules: Path) -> None:
    """Its own file has it no more; this node's has, and keeps it."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            request = rate_limit_request("llm", {"api_key": "a"})
            assert ["OK"] == await node.caller.codes(request, 1)
            node.mesh.limits.remove_rule("envoy 3/hour")
            assert ["OK"] == await node.caller.codes(request, 1)
            assert node.mesh.limits.rule("envoy 3/hour") is not None

    run(case())


def test_a_second_is_over_within_a_second(rules: Path) -> None:
    """The status and the header say so."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            answer = await node.caller.ask(rate_limit_request("llm", {"tick": "a"}))
            status = answer.statuses[0]
            assert RateLimitResponse.RateLimit.SECOND == status.current_limit.unit
            assert 0 < status.duration_until_reset.ToNanoseconds() <= 1e9
            headers = {one.key: one.value for one in answer.response_headers_to_add}
            assert "1" == headers["ratelimit-reset"]

    run(case())


def test_longer_units_are_limits_of_that_long(rules: Path) -> None:
    """The status says the unit, and when it is over."""

    async def case() -> None:
        async with plugged(rules, wall_clock=still) as node:
            slow = rate_limit_request("llm", {"slow": "a"})
            assert ["OK"] * 4 + ["OVER_LIMIT"] == await node.caller.codes(slow, 5)
            status = (await node.caller.ask(slow)).statuses[0]
            assert RateLimitResponse.RateLimit.HOUR == status.current_limit.unit
            assert 4 == status.current_limit.requests_per_unit
            assert 1 < status.duration_until_reset.seconds <= 3600

    run(case())


def test_no_port_and_no_adapter_without_the_setting() -> None:
    """Nothing of gRPC is loaded for a node that no Envoy is to ask."""
    assert load_plugs(EnvoySettings()) == ()


def test_a_port_that_is_taken_is_told(rules: Path) -> None:
    """The start fails with the name of the setting, and nothing is left running."""

    async def case() -> None:
        async with plugged(rules) as node:
            settings = EnvoySettings(listen=f"127.0.0.1:{node.plug.port}")
            (second,) = load_plugs(settings)
            with pytest.raises(ConfigError, match=r"mesh\.envoy\.listen"):
                async with second.serve(node.service):
                    pass

    run(case())
