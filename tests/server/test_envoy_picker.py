"""The endpoint picker, told of requests as an Envoy tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.envoys import Plugged, plugged
from support.pickers import (
    BUFFERED,
    BUFFERED_PARTIAL,
    Call,
    answer_body,
    answered,
    asked,
    body,
    endpoints,
    prompt,
)
from support.transports import poll_until

from meshlib_server.adapters.envoy import picker as picker_module
from meshlib_server.adapters.envoy.choosing import endpoint_of
from meshlib_server.adapters.envoy.protocol import ProcessingRequest
from meshlib_server.adapters.openai import BODY_BYTES_MAX
from meshlib_server.plugs import OnFailure

TEXT = "a prompt that is long enough to be worth a place in a cache. " * 20
ADDRESSES = [f"10.0.0.{number}:8000" for number in (1, 2, 3, 4)]


def run(what: Coroutine[Any, Any, None]) -> None:
    """Run a test that awaits."""
    asyncio.run(what)


def add_workers(node: Plugged, count: int = 4, *, model: str = "m") -> None:
    """Give the node workers w1, w2 and so on of a model."""
    for number in range(1, count + 1):
        node.mesh.sync.sync_worker_state(
            f"w{number}" if model == "m" else f"{model}{number}",
            model_id=model,
            url=f"http://10.0.0.{number}:8000",
            health=True,
            load=0.0,
        )


def in_flight(node: Plugged) -> dict[str, int]:
    """Return how many requests count at each worker."""
    return dict(node.mesh.sync.load.counts)


def test_a_request_is_held_until_its_body_is_in_and_then_goes_on_in_its_parts() -> None:
    """Headers are answered once, with the endpoint; each part of the body follows as it came."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            whole = prompt(TEXT).request_body.body
            parts = [body(whole[:100], is_end=False), body(whole[100:])]
            headers, first, second = await call.tell(asked(), *parts, answers=3)
            found = endpoints(headers)
            assert len(found) == 3
            assert set(found) <= set(ADDRESSES)
            passed = [
                answer.request_body.response.body_mutation.streamed_response
                for answer in (first, second)
            ]
            assert whole == passed[0].body + passed[1].body
            assert [False, True] == [part.end_of_stream for part in passed]
            await call.end()

    run(case())


def test_a_prompt_follows_what_was_served() -> None:
    """The worker that has answered has the prompt from then on, and not the one that was meant."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            first, *others = await call.pick(TEXT)
            await call.tell(answered(served=others[0], is_end=True), answers=1)
            await call.end()
            again = Call(node.channel)
            assert others[0] == (await again.pick(TEXT + "and more"))[0]
            assert first != others[0]
            await again.end()

    run(case())


@pytest.mark.parametrize("status", ["503", "429"])
def test_a_worker_that_refuses_has_nothing(status: str) -> None:
    """A placement is told once it has come true."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            await call.pick(TEXT)
            await call.tell(answered(status, is_end=True), answers=1)
            await call.end()
            assert node.mesh.sync.get_tree_version("m") is None

    run(case())


def test_a_request_counts_where_it_is_until_its_answer_is_through() -> None:
    """At the one that was picked, then at the one that serves, and at nobody after the end."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            found = await call.pick(TEXT)
            named = {endpoint_of(one.url): one.worker_id for one in node.mesh.sync.workers.all()}
            assert {named[found[0]]: 1} == in_flight(node)
            await call.tell(answered(served=found[1]), answers=1)
            assert {named[found[1]]: 1} == in_flight(node)
            (passed,) = await call.tell(answer_body(b"data: 1\n\n", is_end=False), answers=1)
            streamed = passed.response_body.response.body_mutation.streamed_response
            assert (b"data: 1\n\n", False) == (streamed.body, streamed.end_of_stream)
            assert {named[found[1]]: 1} == in_flight(node)
            used = b'{"usage":{"prompt_tokens":5,"completion_tokens":2}}'
            await call.tell(answer_body(used), answers=1)
            assert {} == in_flight(node)
            assert {("m", "prompt"): 5, ("m", "completion"): 2} == node.service.sources.tokens
            await call.end()

    run(case())


def test_a_call_that_breaks_off_counts_no_more() -> None:
    """The caller went, or the Envoy did."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            await call.pick(TEXT)
            assert sum(in_flight(node).values()) == 1
            call.stream.cancel()
            await poll_until(lambda: not in_flight(node))

    run(case())


def test_only_the_subset_is_chosen_from() -> None:
    """Nobody of it eligible, or nobody in it, is 503, and no other endpoint is named."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            assert ["10.0.0.3:8000"] == await call.pick(TEXT, subset=["10.0.0.3:8000", "x:1"])
            await call.end()
            for subset in ([], ["10.9.9.9:8000"]):
                call = Call(node.channel)
                (answer,) = await call.tell(asked(subset=subset), prompt(TEXT), answers=1)
                assert 503 == answer.immediate_response.status.code
                await call.end()

    run(case())


@pytest.mark.parametrize(
    "data", [b"no json", b"x" * (BODY_BYTES_MAX + 1)], ids=["no json", "too large"]
)
def test_what_cannot_be_read_goes_by_load(data: bytes) -> None:
    """Two in a row go to two workers, and the body goes on whole."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node, 2)
            found = []
            for _ in range(2):
                call = Call(node.channel)
                headers, passed = await call.tell(asked(), body(data), answers=2)
                found.append(endpoints(headers)[0])
                streamed = passed.request_body.response.body_mutation.streamed_response
                assert data == streamed.body
            assert {"10.0.0.1:8000", "10.0.0.2:8000"} == set(found)

    run(case())


def test_no_more_is_held_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it a request goes by load at once, and what it held is given back."""
    monkeypatch.setattr(picker_module, "HELD_BYTES_MAX", 10)

    async def case() -> None:
        async with plugged() as node:
            add_workers(node, 1)
            call = Call(node.channel)
            part = body(b'{"prompt": "' + b"x" * 50, is_end=False)
            headers, _ = await call.tell(asked(), part, answers=2)
            assert ["10.0.0.1:8000"] == endpoints(headers)
            (last,) = await call.tell(body(b'"}'), answers=1)
            assert last.request_body.response.body_mutation.streamed_response.end_of_stream
            await call.end()
            small = Call(node.channel)
            await small.tell(asked(), body(b"{}"), answers=2)

    run(case())


@pytest.mark.parametrize("message", [asked(has_body=False), asked(body_mode=0)])
def test_what_has_no_body_to_wait_for_is_answered_at_once(message: Any) -> None:
    """A GET, and an Envoy that does not send bodies."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node, 1)
            (headers,) = await Call(node.channel).tell(message, answers=1)
            assert ["10.0.0.1:8000"] == endpoints(headers)

    run(case())


@pytest.mark.parametrize("mode", [BUFFERED, BUFFERED_PARTIAL])
def test_where_envoy_keeps_the_body_it_is_chosen_when_that_comes(mode: int) -> None:
    """The headers go on at once, without what the caller named; the body is not sent back."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            (headers,) = await call.tell(asked(body_mode=mode), answers=1)
            removed = headers.request_headers.response.header_mutation.remove_headers
            assert ["x-gateway-destination-endpoint"] == list(removed)
            (answer,) = await call.tell(prompt(TEXT), answers=1)
            first = endpoints(answer)[0]
            assert not answer.request_body.response.HasField("body_mutation")
            await call.tell(answered(served=first, is_end=True), answers=1)
            await call.end()
            again = Call(node.channel)
            assert first == (await again.pick(TEXT + "and more"))[0]
            await again.end()

    run(case())


def test_of_a_body_that_envoy_kept_in_part_nothing_is_read() -> None:
    """It goes by load, at once: the rest of it does not come by here."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node, 2)
            found = []
            for _ in range(2):
                call = Call(node.channel)
                part = body(b'{"model": "m", "prompt": "' + b"x" * 500, is_end=False)
                _, answer = await call.tell(asked(body_mode=BUFFERED_PARTIAL), part, answers=2)
                found += endpoints(answer)[:1]
            assert {"10.0.0.1:8000", "10.0.0.2:8000"} == set(found)

    run(case())


def test_a_refusal_of_a_body_that_envoy_kept_is_the_answer() -> None:
    """As in full duplex."""

    async def case() -> None:
        async with plugged() as node:
            call = Call(node.channel)
            _, answer = await call.tell(asked(body_mode=BUFFERED), prompt(TEXT), answers=2)
            assert 503 == answer.immediate_response.status.code

    run(case())


def test_trailers_without_a_body_go_on() -> None:
    """The headers have gone on, to where Envoy's fallback says."""
    trailers = ProcessingRequest()
    trailers.request_trailers.SetInParent()

    async def case() -> None:
        async with plugged() as node:
            add_workers(node)
            call = Call(node.channel)
            _, answer = await call.tell(asked(body_mode=BUFFERED), trailers, answers=2)
            assert "request_trailers" == answer.WhichOneof("response")
            await call.end()

    run(case())


def test_an_adapter_of_the_only_model_has_prefixes_of_its_own() -> None:
    """Its name is no model that a worker has; where there are several models it is nobody's."""

    async def case() -> None:
        async with plugged() as node:
            add_workers(node, 2)
            call = Call(node.channel)
            headers, _ = await call.tell(asked(), prompt(TEXT, model="lora"), answers=2)
            assert len(endpoints(headers)) == 2
            await call.end()
            add_workers(node, 1, model="other")
            call = Call(node.channel)
            (answer,) = await call.tell(asked(), prompt(TEXT, model="lora"), answers=1)
            assert 503 == answer.immediate_response.status.code

    run(case())


def test_a_model_over_its_limit_is_429(tmp_path: Path) -> None:
    """By a rule of the domain `picker`, or by one that was set for its key."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "domain: picker\ndescriptors: [{key: model, value: m, "
        "rate_limit: {unit: hour, requests_per_unit: 1}}]"
    )

    async def case() -> None:
        async with plugged(rules, wall_clock=lambda: 1_800_000_000.25) as node:
            add_workers(node)
            add_workers(node, model="other")
            node.mesh.limits.set_rule("other", pattern="picker/model=other", limits=["1/hour"])
            for model in ("m", "other"):
                call = Call(node.channel)
                await call.tell(asked(), prompt(TEXT, model=model), answers=2)
                call = Call(node.channel)
                (answer,) = await call.tell(asked(), prompt(TEXT, model=model), answers=1)
                given = answer.immediate_response.headers.set_headers
                assert 429 == answer.immediate_response.status.code
                assert "retry-after" in {one.header.key for one in given}

    run(case())


@pytest.mark.parametrize("on_failure", list(OnFailure))
def test_a_node_that_cannot_choose_answers_as_set(on_failure: OnFailure) -> None:
    """Open takes away an endpoint that the caller named; nobody chooses for the cluster."""

    async def case() -> None:
        async with plugged(on_failure=on_failure, is_started=False) as node:
            call = Call(node.channel)
            if on_failure is OnFailure.DEFER:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.tell(asked(has_body=False), answers=1)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                return
            (answer,) = await call.tell(asked(has_body=False), answers=1)
            if on_failure is OnFailure.CLOSED:
                assert 503 == answer.immediate_response.status.code
            else:
                mutation = answer.request_headers.response.header_mutation
                assert ["x-gateway-destination-endpoint"] == list(mutation.remove_headers)
                assert [] == list(mutation.set_headers)

    run(case())


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://10.0.0.1:8000", "10.0.0.1:8000"),
        ("http://10.0.0.1", "10.0.0.1:80"),
        ("https://w/v1", "w:443"),
        ("10.0.0.1:8000", "10.0.0.1:8000"),
        ("http://[fe80::1]:8000/", "[fe80::1]:8000"),
        ("http://10.0.0.1:99999", ""),
        ("nowhere", ""),
        ("", ""),
    ],
)
def test_the_endpoint_of_a_worker_is_in_its_url(url: str, endpoint: str) -> None:
    """A worker whose URL has none is never picked."""
    assert endpoint == endpoint_of(url)
