"""A node that joins over a slow link, while the large part of the state is still on its way."""

from __future__ import annotations

import http.client
import random
from functools import partial
from typing import Any

import pytest
from support.namespaces import MODEL, Cluster

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]

TEXT_COUNT, TEXT_CHARACTERS = 240, 150_000
"""More than the 32 MiB of a log, all by one writer: a newcomer gets them as a state transfer."""

LIMIT = 5


def texts(rng: random.Random) -> list[str]:
    """Return long texts that have no beginning in common."""
    return [f"{rng.getrandbits(64):016x}" * (TEXT_CHARACTERS // 16) for _ in range(TEXT_COUNT)]


def status(node: Any, method: str, path: str, body: Any = None) -> int:
    """Make a request and return what it was answered with; 0 when it was not."""
    try:
        answered: int = node.call(method, path, body)[0]
    except (OSError, http.client.HTTPException):
        return 0
    return answered


def acquired(node: Any) -> list[int]:
    """Return the statuses of requests for one unit of the global limit, as fast as they go."""
    return [
        status(node, "POST", "/mesh/rate-limit/acquire", {"key": "global"})
        for _ in range(8 * LIMIT)
    ]


def test_a_node_that_fills_over_a_slow_link_decides_rightly(
    cluster: Cluster, rng: random.Random
) -> None:
    """It knows limits, policies and workers long before the tree, and says how far it is."""
    *others, newcomer = cluster.nodes
    cluster.start(*others)
    cluster.await_all_alive(others)
    for node in others:
        cluster.wait_until(
            partial(lambda node: status(node, "GET", "/readyz") == 200, node),
            f"{node.name} is ready",
        )
    first = others[0]
    first.do("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT})
    first.do(
        "PUT",
        f"/mesh/policies/{MODEL}",
        {"policy_type": "cache_aware", "config": '{"max_tree_size": 67108864}'},
    )
    worker = {"model_id": MODEL, "url": "http://w", "health": True, "load": 0.0}
    first.do("PUT", "/mesh/workers/w", worker)
    kept = texts(rng)
    for text in kept:
        operation = {"insert": {"text": text, "tenant": "w"}}
        first.do("POST", f"/mesh/trees/{MODEL}/operations", {"operations": [operation]})

    cluster.lab.slow(4, kbytes_per_s=2000)
    cluster.start(newcomer)
    cluster.wait_until(
        lambda: status(newcomer, "GET", "/mesh/rate-limit") == 200,
        "the limit is known",
        limit_s=5.0,
    )
    health = newcomer.get("/mesh/health")
    assert health["state"] == "syncing"
    assert health["progress"]["done"] < health["progress"]["total"]
    statuses = acquired(newcomer)
    assert newcomer.get(f"/mesh/policies/{MODEL}")["policy_type"] == "cache_aware"
    assert newcomer.get("/mesh/workers/w")["health"] is True
    assert status(newcomer, "POST", f"/mesh/route/{MODEL}", {"text": kept[-1]}) == 503
    assert status(newcomer, "GET", "/readyz") == 503
    assert set(statuses) <= {200, 429}
    assert statuses.count(429) > 0
    assert newcomer.get("/mesh/health")["state"] == "syncing"

    cluster.wait_until(
        lambda: status(newcomer, "GET", "/readyz") == 200, "it is ready", limit_s=120.0
    )
    routed = newcomer.do("POST", f"/mesh/route/{MODEL}", {"text": kept[-1]})
    assert routed["reason"] == "prefix_match"
    for node in cluster.nodes:
        assert cluster.events(node, "MemberDown") == []
