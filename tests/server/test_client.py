"""The client of the API, against a real server: every call, both ways, and what can go wrong."""

from __future__ import annotations

import inspect
import json
from typing import Any

import anyio
import pytest
from support.servers import TOKEN, Node

from meshlib_server.app import http_routes
from meshlib_server.client import (
    ApiError,
    AsyncMeshClient,
    MeshClient,
    UnreachableError,
    WorkerView,
    sending,
)
from meshlib_server.client.calls import Call, Calls, read_events
from meshlib_server.resources import operations_of


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    """What is learnt of one holds for the other."""

    def public(kind: type) -> dict[str, Any]:
        return {
            name: inspect.signature(member)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    blocking, other = public(MeshClient), public(AsyncMeshClient)

    assert set(blocking) == set(other)
    for name in set(blocking) - {"events"}:
        assert blocking[name] == other[name], name


def test_every_call_is_an_operation_of_the_server() -> None:
    """With a method and a path that the routes have."""
    served = {
        (method, path)
        for path, methods in operations_of(http_routes()).items()
        for method in methods
    }
    values: dict[str, Any] = {
        "name": "n", "worker_id": "n", "model_id": "n", "key": "n", "value": b"", "text": "",
        "cost": 1, "limit_per_second": 1, "has_overviews": False, "request_id": "r",
        "put": {}, "delete": (), "costs": {}, "limits": (), "reservation_id": "r",
    }  # fmt: skip
    for name, make in inspect.getmembers(Calls(), inspect.ismethod):
        parameters = inspect.signature(make).parameters
        call: Call[Any] = make(**{each: values.get(each) for each in parameters})
        parts = call.path.partition("?")[0].split("/")
        assert any(
            method == call.method.lower()
            and len(parts) == len(path.split("/"))
            and all(a == b or b[0:1] == "{" for a, b in zip(parts, path.split("/"), strict=True))
            for method, path in served
        ), name


def test_what_is_written_is_read_back(node: Node, name: str) -> None:
    """By the client that waits."""
    with MeshClient(node.address, token=TOKEN) as client:
        written = client.put_worker(name, model_id=name, url="http://w", health=True, load=0.5)
        client.put_policy(name, policy_type="cache_aware")
        client.set_config(name, b"\x00value")
        client.set_limit(name, 7)

        assert written == WorkerView(
            worker_id=name, model_id=name, url="http://w", health=True, load=0.5, version=1
        )
        assert written in client.workers()
        assert name in [policy.model_id for policy in client.policies()]
        assert b"\x00value" == client.get_config(name)
        assert name in client.config_keys()
        assert 7 == client.limit_usage(name).limit_per_second
        assert client.acquire(name).allowed
        routed = client.route(name, "a prompt")
        assert name == routed.worker_id
        client.first_token(name, routed.request_id)
        client.renew_request(name, routed.request_id, decoded_tokens=12)
        client.complete(name, routed.request_id)
        assert "ready" == client.health().state
        assert 3 == len(client.status().nodes)
        client.delete_worker(name)
        client.change_workers(put=[written])
        assert written.url == {view.worker_id: view.url for view in client.workers()}[name]
        client.change_workers(delete=[name])
        client.delete_config(name)
        client.change_config(put={f"{name}/a": b"1", f"{name}/b": b"2"})
        assert b"2" == client.get_config(f"{name}/b")
        client.change_config(delete=[f"{name}/a", f"{name}/b"])
        with pytest.raises(ApiError) as caught:
            client.get_config(name)
    assert (404, "not_found") == (caught.value.status, caught.value.code)


def test_the_asynchronous_client_does_the_same(node: Node, name: str) -> None:
    """On an event loop."""

    async def run() -> None:
        async with AsyncMeshClient(f"http://{node.address}/", token=TOKEN) as client:
            await client.set_config(name, b"1")
            assert b"1" == await client.get_config(name)
            await client.delete_config(name)
            await client.change_config(put={name: b"2"})
            await client.change_config(delete=[name])
            await client.change_workers()
            assert "ready" == (await client.health()).state

    anyio.run(run)


def test_a_refusal_is_an_answer_and_no_error(node: Node, name: str) -> None:
    """It says when to come back."""
    with MeshClient(node.address, token=TOKEN) as client:
        client.set_limit(name, 1)
        decisions = [client.acquire(name) for _ in range(20)]

    refused = [decision for decision in decisions if not decision.allowed]
    assert refused
    assert all(decision.retry_after_s > 0 for decision in refused)


def test_tokens_are_limited_reserved_and_settled(node: Node, name: str) -> None:
    """By a rule for each key of a pattern."""
    key = f"{name}:a"
    with MeshClient(node.address, token=TOKEN) as client:
        rule = client.put_limit_rule(name, pattern=f"{name}:*", limits=["1000/31d"])
        reserved = client.reserve(key, estimate=600)
        client.settle(reserved.reservation_id, actual=100)
        refused = client.acquire_many({key: 901})
        client.refund(key, cost=50)
        left = client.peek(key).remaining
        used = client.limit_usage(key).limits
        client.reset_limit(key)
        whole = client.peek(key).remaining
        rules = client.limit_rules()
        client.delete_limit_rule(name)

    assert rule in rules
    assert ("1000/31d",) == rule.limits
    assert (True, False, 950, 1000) == (reserved.allowed, refused.allowed, left, whole)
    assert [("1000/31d", 50)] == [(limit.policy, limit.used_count) for limit in used]


def test_requests_at_once_are_limited_by_slots(node: Node, name: str) -> None:
    """Taken, renewed and given back; a refusal is an answer, and an unknown slot an error."""
    with MeshClient(node.address, token=TOKEN) as client:
        slot = client.acquire_slot(name, limit=1, wait_s=8, lease_s=600)
        refused = client.acquire_slot(name, limit=1)
        client.renew_slot(slot.slot_id)
        client.renew_slot(slot.slot_id, lease_s=60)
        client.release_slot(slot.slot_id)
        again = client.acquire_slot(name, limit=1, wait_s=8)
        with pytest.raises(ApiError) as caught:
            client.renew_slot(slot.slot_id)

    assert (True, 600.0, False, "") == (
        slot.allowed,
        slot.lease_s,
        refused.allowed,
        refused.slot_id,
    )
    assert again.allowed
    assert 404 == caught.value.status


def test_events_begin_with_an_overview(node: Node) -> None:
    """And another follows each second, if that is asked for."""
    with MeshClient(node.address, token=TOKEN) as client:
        stream = client.events(has_overviews=True)
        first, second = next(stream), next(stream)
        stream.close()  # type: ignore[attr-defined]

    assert ("overview", "overview") == (first.kind, second.kind)
    assert 3 == len(first.data["members"])


def test_events_without_a_token_are_refused(node: Node) -> None:
    """As every call is."""
    with MeshClient(node.address) as client, pytest.raises(ApiError) as caught:
        next(client.events())

    assert "unauthenticated" == caught.value.code


def test_nobody_there_is_told_with_the_address() -> None:
    """In one line."""
    with (
        MeshClient("127.0.0.1:9") as client,
        pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9.* cannot be reached"),
    ):
        client.health()


@pytest.mark.parametrize(
    ("status", "content"), [(200, b"<html>"), (200, b"[]"), (404, b"{}"), (502, b"bad gateway")]
)
def test_what_is_no_server_of_this_kind_is_unreachable(status: int, content: bytes) -> None:
    """And no error of Python's."""
    with pytest.raises(UnreachableError, match="no server of this kind"):
        Calls().status().answer(status, content, retry_after=None)


def test_an_answer_of_a_newer_server_is_read() -> None:
    """What is not known is passed over."""
    content = json.dumps({"limit_per_second": 1, "period": "week"}).encode()

    assert 1 == Calls().global_limit().answer(200, content, retry_after=None).limit_per_second


def test_an_error_says_when_to_come_back() -> None:
    """Where the server does."""
    content = b'{"error": "not ready", "code": "not_ready"}'

    with pytest.raises(ApiError) as caught:
        Calls().status().answer(503, content, retry_after="3")

    assert (503, "not_ready", 3.0) == (
        caught.value.status,
        caught.value.code,
        caught.value.retry_after_s,
    )


def test_comments_between_events_are_passed_over() -> None:
    """They tell that the other side is there."""
    lines = [": nothing", "", "event: MemberDown", 'data: {"member": "b"}', ""]

    [event] = read_events(lines)

    assert ("MemberDown", {"member": "b"}) == (event.kind, event.data)


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_certificate_is_verified_however_the_scheme_is_spelt(scheme: str) -> None:
    """Nobody is talked to in confidence who has not shown who it is."""
    assert sending._options(f"{scheme}://host:1", None, 1.0, None)["verify"] is True
    assert sending._options("host:1", None, 1.0, None)["verify"] is False
