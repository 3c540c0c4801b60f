"""`/mesh/rate-limit`, as the specification writes it, and the decision beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from support.servers import Agree, Eventually, Launcher, Node

UNLIMITED = {"limit_per_second": 0, "current_count": 0, "remaining": -1}


@pytest.fixture
def fresh(own_launcher: Launcher) -> Node:
    """Return a node of its own, in whose cluster no limit was ever set."""
    node = own_launcher.node("fresh")
    node.start()
    return node


@pytest.fixture
def limited(cluster: list[Node], agree: Agree) -> Iterator[list[Node]]:
    """Lend the shared cluster, and take the limit away again in the end."""
    yield cluster
    cluster[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 0})
    agree(cluster, "/mesh/rate-limit", {"limit_per_second": 0})


def test_before_a_limit_is_configured_there_is_none_to_get(fresh: Node) -> None:
    """404, and the statistics report 0, 0 and -1."""
    assert "not configured" in fresh.get("/mesh/rate-limit", status=404)["error"]
    assert UNLIMITED == fresh.get("/mesh/rate-limit/stats")


def test_before_a_limit_is_configured_everything_is_admitted(fresh: Node) -> None:
    """No limit refuses nothing."""
    answers = [
        fresh.request("POST", "/mesh/rate-limit/acquire", {"key": "global", "cost": 1000})
        for _ in range(20)
    ]

    admitted = {
        "allowed": True, "limit": 0, "remaining": -1, "retry_after_s": 0, "reset_after_s": 0,
        "policy": "", "confirmed": True,
    }  # fmt: skip
    assert [admitted] * 20 == answers


def test_setting_a_limit_answers_with_exactly_the_documented_fields(limited: list[Node]) -> None:
    """A status and the limit."""
    answer = limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 1000})

    assert {"status": "updated", "limit_per_second": 1000} == answer


def test_a_limit_is_the_same_on_every_node(limited: list[Node], agree: Agree) -> None:
    """Whichever node is told; the last one wins."""
    for writer, limit in zip(limited, (500, 1000, 2000), strict=True):
        writer.request("POST", "/mesh/rate-limit", {"limit_per_second": limit})
        agree(limited, "/mesh/rate-limit", {"limit_per_second": limit})


def test_statistics_have_exactly_the_documented_fields(limited: list[Node]) -> None:
    """The limit, what is used of it, and what is left."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 1000})

    stats = limited[0].get("/mesh/rate-limit/stats")

    assert ["limit_per_second", "current_count", "remaining"] == list(stats)
    assert 1000 == stats["limit_per_second"]
    assert max(0, 1000 - stats["current_count"]) == stats["remaining"]


def test_what_is_admitted_is_counted_on_every_node(
    limited: list[Node], eventually: Eventually
) -> None:
    """`current_count` is what all nodes admitted in the current second."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 1000})

    def counts_everywhere() -> bool:
        limited[0].client.post("/mesh/rate-limit/acquire", json={"key": "global", "cost": 7})
        ends_at = time.monotonic() + 0.5
        while time.monotonic() < ends_at:
            stats = [node.get("/mesh/rate-limit/stats") for node in limited]
            if all(s["current_count"] >= 7 for s in stats):
                return all(s["remaining"] == 1000 - s["current_count"] for s in stats)
        return False

    eventually(counts_everywhere, "every node counts what one admitted")


def test_the_count_is_reset_each_second(limited: list[Node], eventually: Eventually) -> None:
    """Without anybody doing anything."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 1000})
    limited[0].request("POST", "/mesh/rate-limit/acquire", {"key": "global", "cost": 7})

    for node in limited:
        eventually(
            partial(lambda n: n.get("/mesh/rate-limit/stats")["current_count"] == 0, node),
            "it is reset",
            deadline_s=3.0,
        )


def test_zero_disables_and_answers_with_both_documented_forms(
    limited: list[Node], agree: Agree
) -> None:
    """The status, and what the statistics now say."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 100})

    answer = limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 0})

    assert {"status": "updated", **UNLIMITED} == answer
    agree(limited, "/mesh/rate-limit", {"limit_per_second": 0})
    for node in limited:
        stats = node.get("/mesh/rate-limit/stats")
        assert (0, -1) == (stats["limit_per_second"], stats["remaining"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limit_per_second": -1},
        {"limit_per_second": 1.5},
        {"limit_per_second": 10.0},
        {"limit_per_second": True},
        {"limit_per_second": "10"},
        {"limit_per_second": None},
        {"limit_per_second": 2**64},
        {"limit_per_second": 10, "burst": 5},
        {"limit": 10},
        [],
        10,
    ],
)
def test_a_limit_that_cannot_be_one_is_400_and_changes_nothing(
    limited: list[Node], body: Any
) -> None:
    """Negative, no integer (a boolean is none), missing, unknown."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 77})

    assert limited[0].request("POST", "/mesh/rate-limit", body, status=400)["error"]

    assert {"limit_per_second": 77} == limited[0].get("/mesh/rate-limit")


@pytest.mark.parametrize("value", ["ff00", "", b'{"limit_per_second": "x"}'.hex()])
def test_raw_configuration_that_is_no_limit_is_400(fresh: Node, value: str) -> None:
    """Under the key of a limit; decisions go on as before."""
    body = {"key": "global_rate_limit", "value": value}
    assert fresh.request("POST", "/mesh/config", body, status=400)["error"]

    fresh.get("/mesh/rate-limit", status=404)
    fresh.request("POST", "/mesh/rate-limit/acquire", {"key": "global"})
    assert "healthy" == fresh.get("/mesh/health")["status"]


def test_the_statistics_of_a_key_are_those_of_the_key(fresh: Node) -> None:
    """And not the global ones; a key without a limit is a 404."""
    value = b'{"limit_per_second": 7}'.hex()
    fresh.request("POST", "/mesh/config", {"key": "rate_limit:alice", "value": value})

    assert 7 == fresh.get("/mesh/rate-limit/stats?key=alice")["limit_per_second"]
    assert 0 == fresh.get("/mesh/rate-limit/stats?key=global")["limit_per_second"]
    assert "bob" in fresh.get("/mesh/rate-limit/stats?key=bob", status=404)["error"]
    fresh.get("/mesh/rate-limit/stats?key=", status=400)
    fresh.get("/mesh/rate-limit/stats?key=alice&key=bob", status=400)


def test_the_limit_is_kept_in_the_application_store(fresh: Node) -> None:
    """Under `global_rate_limit`, so that deleting the key takes the limit away."""
    fresh.request("POST", "/mesh/rate-limit", {"limit_per_second": 5})

    assert ["global_rate_limit"] == fresh.get("/mesh/config")["keys"]
    fresh.request("DELETE", "/mesh/config/global_rate_limit")
    fresh.get("/mesh/rate-limit", status=404)


def test_acquiring_answers_with_the_decision(limited: list[Node]) -> None:
    """Allowed or not, the limit, what is left, when to come back, and who said so."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 1000})

    answer = limited[0].request("POST", "/mesh/rate-limit/acquire", {"key": "global", "cost": 1})

    fields = ["allowed", "limit", "remaining", "retry_after_s", "reset_after_s", "policy"]
    assert [*fields, "confirmed"] == list(answer)
    assert (True, 1000, 0) == (answer["allowed"], answer["limit"], answer["retry_after_s"])
    assert 0 <= answer["remaining"] < 1000


def test_over_the_limit_is_429_and_says_when_to_come_back(
    limited: list[Node], eventually: Eventually
) -> None:
    """In the body to the millisecond, in `Retry-After` to the second."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 20})
    refused: list[Any] = []

    def is_refused() -> bool:
        response = limited[0].client.post("/mesh/rate-limit/acquire", json={"key": "global"})
        if response.status_code == 429:
            refused.append(response)
        return bool(refused)

    eventually(is_refused, "a request is refused")

    answer = refused[0].json()
    assert (False, 20) == (answer["allowed"], answer["limit"])
    assert 0 < answer["retry_after_s"]
    assert str(math.ceil(answer["retry_after_s"])) == refused[0].headers["retry-after"]


def test_what_is_refused_is_not_counted_as_used(limited: list[Node]) -> None:
    """The count stays at or under the limit."""
    limited[0].request("POST", "/mesh/rate-limit", {"limit_per_second": 20})
    for _ in range(60):
        limited[0].client.post("/mesh/rate-limit/acquire", json={"key": "global"})

    assert limited[0].get("/mesh/rate-limit/stats")["current_count"] <= 40


def test_a_key_without_a_limit_is_404(node: Node, name: str) -> None:
    """Only the global one is unlimited until it is set."""
    answer = node.request("POST", "/mesh/rate-limit/acquire", {"key": name}, status=404)

    assert name in answer["error"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": ""},
        {"key": 1},
        {"key": "global", "cost": -1},
        {"key": "global", "cost": 1.0},
        {"key": "global", "cost": True},
        {"key": "global", "cost": "1"},
        {"key": "k" * 1025},
        {"key": "global", "burst": 1},
    ],
)
def test_a_body_that_asks_for_nothing_is_400(node: Node, body: dict[str, Any]) -> None:
    """Missing and unknown fields, wrong types, empty and oversized keys."""
    assert node.request("POST", "/mesh/rate-limit/acquire", body, status=400)["error"]
