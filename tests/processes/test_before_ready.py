"""Real processes that do not know yet what their cluster holds: they say so, and decide nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.servers import Launcher, Node, eventually

NEVER_ALONE = {"MESH_GOSSIP_BOOTSTRAP_AFTER_S": "0"}
"""Such a node waits for its peers for as long as it takes."""

REASON = "not ready: no peer was met yet"
LIMIT = 5


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """Stop a process inside the block: it is there, takes connections, and says nothing."""
    node.started.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.started.send_signal(signal.SIGCONT)


def holder_of_everything(launcher: Launcher) -> Node:
    """Start a node with a limit, a worker, a policy and a key."""
    node = launcher.node("holder")
    node.start()
    eventually(node.is_ready, "it is ready")
    worker = {"model_id": "m", "url": "http://w", "health": True, "load": 0.0}
    node.request("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT})
    node.request("PUT", "/mesh/workers/w", worker)
    node.request("PUT", "/mesh/policies/m", {"policy_type": "cache_aware", "config": "{}"})
    node.request("POST", "/mesh/config", {"key": "k", "value": "01"})
    return node


def newcomer_to(launcher: Launcher, node: Node, **environment: str) -> Node:
    """Start a node that is to join another one, and answers before it has."""
    made = launcher.node("newcomer", peers=[node.port], environment=NEVER_ALONE | environment)
    made.start()
    return made


ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/mesh/rate-limit", None),
    ("GET", "/mesh/rate-limit/stats", None),
    ("POST", "/mesh/rate-limit/acquire", {"key": "global"}),
    ("POST", "/mesh/route/m", {"text": "a prompt"}),
    ("GET", "/mesh/workers/w", None),
    ("DELETE", "/mesh/workers/w", None),
    ("GET", "/mesh/policies/m", None),
    ("GET", "/mesh/config/k", None),
]


@pytest.mark.slow
def test_what_a_node_does_not_know_yet_it_neither_denies_nor_decides(
    own_launcher: Launcher,
) -> None:
    """Its peer holds all of it; once that has come, everything is answered as there."""
    holder = holder_of_everything(own_launcher)
    with stopped(holder):
        newcomer = newcomer_to(own_launcher, holder)
        health = newcomer.get("/mesh/health")["status"]
        early = [newcomer.client.request(how, path, json=body) for how, path, body in ASKED]
        listed = newcomer.get("/mesh/workers")
    eventually(newcomer.is_ready, "it is ready")
    late = newcomer.client.post("/mesh/rate-limit/acquire", json={"key": "global"})

    assert "degraded" == health
    assert [503] * len(ASKED) == [answer.status_code for answer in early]
    assert all(answer.headers["retry-after"] == "1" for answer in early)
    assert all(answer.json()["error"].endswith(REASON) for answer in early)
    assert [] == listed
    assert LIMIT == late.json()["limit"]
    assert {"limit_per_second": LIMIT} == newcomer.get("/mesh/rate-limit")
    assert "w" == newcomer.request("POST", "/mesh/route/m", {"text": "a prompt"})["worker_id"]


@pytest.mark.slow
def test_who_wants_it_decides_without_knowing(own_launcher: Launcher) -> None:
    """`startup.acquire: open` admits; what is not here is still not denied."""
    holder = holder_of_everything(own_launcher)
    with stopped(holder):
        newcomer = newcomer_to(own_launcher, holder, MESH_STARTUP_ACQUIRE="open")
        decision = newcomer.request("POST", "/mesh/rate-limit/acquire", {"key": "global"})
        newcomer.request("GET", "/mesh/rate-limit", status=503)

    assert (True, 0, -1) == (decision["allowed"], decision["limit"], decision["remaining"])


@pytest.mark.slow
def test_what_is_written_before_it_is_ready_is_taken(own_launcher: Launcher) -> None:
    """A limit that was just written is in force at once, and everywhere once they have met."""
    holder = holder_of_everything(own_launcher)
    with stopped(holder):
        newcomer = newcomer_to(own_launcher, holder)
        newcomer.request("POST", "/mesh/rate-limit", {"limit_per_second": 7})
        newcomer.request("POST", "/mesh/config", {"key": "mine", "value": "02"})
        decision = newcomer.request("POST", "/mesh/rate-limit/acquire", {"key": "global"})
        mine = newcomer.get("/mesh/config/mine")["value"]

    assert (7, "02") == (decision["limit"], mine)
    eventually(lambda: holder.get("/mesh/rate-limit") == {"limit_per_second": 7}, "it is taken")


@pytest.mark.slow
def test_the_last_known_limit_is_in_force_from_the_first_request(own_launcher: Launcher) -> None:
    """It was on the disk: a node that waits for its peers follows it."""
    peer = own_launcher.free_ports(1)[0]
    path = str(own_launcher.directory / "node.db")
    node = own_launcher.node("n", environment={"MESH_STORAGE_PATH": path})
    node.start()
    node.request("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT})
    node.started.terminate()
    assert 0 == node.started.wait(30)
    node.arguments += ["--peer", f"127.0.0.1:{peer}"]
    node.environment |= NEVER_ALONE
    node.start()
    node.request("GET", "/readyz", status=503)
    asked = [node.client.post("/mesh/rate-limit/acquire", json={"key": "global"}) for _ in range(9)]

    assert {"limit_per_second": LIMIT} == node.get("/mesh/rate-limit")
    assert {LIMIT} == {answer.json()["limit"] for answer in asked}


@pytest.mark.slow
def test_the_walk_through_with_a_peer_that_is_not_there_works_in_time(
    own_launcher: Launcher,
) -> None:
    """It has begun alone after `bootstrap_after_s`, and answers everything from then on.

    Of the limit it has its part, as one of two that it was told of.
    """
    node = own_launcher.node("n", peers=own_launcher.free_ports(1))
    node.start()
    eventually(node.is_ready, "it has begun")
    node.request("GET", "/mesh/rate-limit", status=404)
    node.request("POST", "/mesh/rate-limit", {"limit_per_second": 1000})
    decision = node.request("POST", "/mesh/rate-limit/acquire", {"key": "global", "cost": 1})

    assert (True, 1000, 499) == (decision["allowed"], decision["limit"], decision["remaining"])
    assert "isolated" == node.get("/mesh/health")["state"]


FILE = """
models: [{model_id: m, policy: {type: cache_aware, config: {cache_threshold: 0.9}}}]
limits: [{limit_per_second: 50}]
"""


@pytest.mark.slow
def test_a_file_does_not_beat_an_operator_while_its_nodes_peers_are_away(
    own_launcher: Launcher,
) -> None:
    """It begins alone and says what its file says, later than all that was written elsewhere."""
    holder = holder_of_everything(own_launcher)
    with stopped(holder):
        newcomer = own_launcher.node("newcomer", peers=[holder.port], config=FILE)
        newcomer.start()
        eventually(newcomer.is_ready, "it has begun alone")
        eventually(lambda: newcomer.client.get("/mesh/policies/m").is_success, "it has a policy")
    eventually(lambda: len(holder.statuses()) == 2, "they have met")
    eventually(lambda: newcomer.client.get("/mesh/config/k").is_success, "it has what was written")

    written = {"model_id": "m", "policy_type": "cache_aware", "config": "{}", "version": 1}
    for node in (holder, newcomer):
        assert written == node.get("/mesh/policies/m")
        assert {"limit_per_second": LIMIT} == node.get("/mesh/rate-limit")


def test_a_limit_of_the_file_is_in_force_before_anybody_was_met(own_launcher: Launcher) -> None:
    """By this node's part: one seed and itself are two nodes, which may both start now."""
    peer = own_launcher.free_ports(1)[0]
    config = "limits: [{limit_per_second: 50}]"
    node = own_launcher.node("n", peers=[peer], config=config, environment=NEVER_ALONE)
    node.start()
    node.request("GET", "/readyz", status=503)
    asked = [node.client.post("/mesh/rate-limit/acquire", json={"key": "global"}) for _ in range(9)]

    assert {(200, 50)} == {(answer.status_code, answer.json()["limit"]) for answer in asked}
    assert 24 == asked[0].json()["remaining"]
