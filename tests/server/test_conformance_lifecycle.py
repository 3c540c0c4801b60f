"""Kills, restarts, shutdown: what the others see, and how a process ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from support.servers import Agree, Eventually, Launcher

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime, SnapshotFile

OPERATION = {"insert": {"text": "Hello world", "tenant": "w1"}}


def test_shutdown_is_accepted_and_the_process_ends_well(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """202 and the documented answer; the peers are told; exit code 0 in under 5 s."""
    stays, leaves = own_launcher.cluster("stays", "leaves")

    started_at = time.monotonic()
    answer = leaves.request("POST", "/mesh/shutdown", status=202)
    exit_code = leaves.started.wait(10)

    assert {"status": "shutdown initiated"} == answer
    assert 0 == exit_code
    assert time.monotonic() - started_at < 5
    eventually(lambda: stays.statuses().get("leaves") == "Leaving", "it is Leaving")
    assert "healthy" == stays.get("/mesh/health")["status"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_does_the_same(
    own_launcher: Launcher, eventually: Eventually, number: int
) -> None:
    """As a supervisor sends it."""
    stays, leaves = own_launcher.cluster("stays", "leaves")

    started_at = time.monotonic()
    leaves.started.send_signal(number)
    exit_code = leaves.started.wait(10)

    assert 0 == exit_code
    assert time.monotonic() - started_at < 5
    eventually(lambda: stays.statuses().get("leaves") == "Leaving", "it is Leaving")


@pytest.mark.slow
def test_a_write_just_before_the_shutdown_reaches_the_others(
    own_launcher: Launcher, agree: Agree
) -> None:
    """What was acknowledged is flushed before the process ends."""
    stays, leaves = own_launcher.cluster("stays", "leaves")

    for number in range(50):
        leaves.request("POST", "/mesh/config", {"key": f"k{number}", "value": "01"})
    leaves.request("POST", "/mesh/shutdown", status=202)
    leaves.started.wait(10)

    agree([stays], "/mesh/config", {"keys": sorted(f"k{number}" for number in range(50))})


@pytest.mark.slow
def test_a_lone_node_shuts_down_too(own_launcher: Launcher) -> None:
    """There is nobody to tell."""
    node = own_launcher.node("lone")
    node.start()

    node.request("POST", "/mesh/shutdown", status=202)

    assert 0 == node.started.wait(5)


@pytest.mark.slow
def test_an_open_connection_does_not_hold_the_shutdown_up(own_launcher: Launcher) -> None:
    """Nor does a request that never ends, which is answered 503 without a traceback in the log."""
    node = own_launcher.node("held")
    node.start()
    with socket.create_connection(("127.0.0.1", node.port)) as sock:
        sock.sendall(
            b"POST /mesh/config HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer operator-token-1\r\n\r\n{"
        )
        node.request("POST", "/mesh/shutdown", status=202)
        answer = all_that_comes(sock)

        assert 0 == node.started.wait(5)
    assert answer.startswith(b"HTTP/1.1 503")
    assert ["error", "code"] == list(json.loads(answer.partition(b"\r\n\r\n")[2]))
    assert [] == [line for line in node.log_lines() if "exception" in line]


BODIES_WHILE_LEAVING = [
    ("PUT", "/workers/w", {"model_id": "m", "url": "u", "health": True, "load": 0}),
    ("PUT", "/policies/m", {"policy_type": "cache_aware", "config": ""}),
    ("POST", "/config", {"key": "k", "value": "00"}),
    ("POST", "/rate-limit", {"limit_per_second": 1}),
    ("POST", "/rate-limit/acquire", {"key": "global"}),
    ("POST", "/rate-limit/reserve", {"key": "global", "estimate": 1}),
    ("PUT", "/limits/r", {"limits": ["5/minute"]}),
    ("POST", "/trees/m/operations", {"operations": [OPERATION]}),
    ("POST", "/trees/m/match", {"text": "a"}),
    ("POST", "/route/m", {"text": "a"}),
]


def test_a_body_that_ends_after_the_shutdown_began_is_not_acknowledged(
    own_launcher: Launcher,
) -> None:
    """A request begun before it, too: 503 or no answer, for the node has told all it will."""
    node = own_launcher.node("slow")
    node.start()
    node.request("PUT", "/mesh/workers/w0", BODIES_WHILE_LEAVING[0][2])
    with contextlib.ExitStack() as stack:
        begun = []
        for method, path, tree in BODIES_WHILE_LEAVING:
            body = json.dumps(tree).encode()
            head = (
                f"{method} /mesh{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
                "Authorization: Bearer operator-token-1\r\n\r\n"
            )
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", node.port)))
            sock.sendall(head.encode() + body[:-1])
            begun.append((sock, path, body[-1:]))
        node.get("/mesh/health")  # those before it have been taken up
        node.request("POST", "/mesh/shutdown", status=202)

        for sock, _, rest in begun:
            with contextlib.suppress(ConnectionError):
                sock.sendall(rest)
        answers = {path: all_that_comes(sock) for sock, path, _ in begun}

    assert {b"", b"HTTP/1.1 503"} >= {answer[:12] for answer in answers.values()}, answers
    assert 0 == node.started.wait(5)


def all_that_comes(sock: socket.socket) -> bytes:
    """Return what is received until the connection ends."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65_536):
            answer += chunk
    return answer


@pytest.mark.slow
def test_a_killed_node_is_suspected_then_down_and_then_restored(
    own_launcher: Launcher, eventually: Eventually, agree: Agree
) -> None:
    """The words of the specification; and the restarted node has everything again."""
    first, second, victim = own_launcher.cluster("a", "b", "c")
    victim.kill()
    seen: list[str] = []

    def is_down() -> bool:
        status = first.statuses()["c"]
        if status not in seen:
            seen.append(status)
        return status == "Down" and second.statuses()["c"] == "Down"

    eventually(is_down, "it is Down")
    assert ["Alive", "Suspected", "Down"][-len(seen) :] == seen
    assert "Suspected" in seen
    assert "degraded" == first.get("/mesh/health")["status"]
    assert 3 == first.get("/mesh/status")["node_count"]

    worker = {"model_id": "m", "url": "http://w", "health": True, "load": 0.5}
    first.request("POST", "/mesh/config", {"key": "k", "value": "01"})
    first.request("PUT", "/mesh/workers/w1", worker)
    second.request("POST", "/mesh/trees/m/operations", {"operations": [OPERATION]})
    victim.start()

    agree([victim], "/mesh/config/k", {"key": "k", "value": "01", "format": "hex"})
    agree([victim], "/mesh/workers/w1", {"worker_id": "w1", **worker, "version": 1})
    agree([victim], "/mesh/trees/m", {"model_id": "m", "operations": [OPERATION], "version": 1})
    alive = dict.fromkeys("abc", "Alive")
    for node in (first, second, victim):
        eventually(partial(lambda n: n.statuses() == alive, node), "all are Alive again")
    assert "healthy" == first.get("/mesh/health")["status"]


@pytest.mark.slow
def test_a_node_that_lost_most_of_the_others_is_partitioned(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """Without a quorum it says so, and still answers."""
    quick = "mesh: {gossip: {probe_interval_s: 0.2, probe_timeout_s: 0.1}}"
    first, *others = own_launcher.cluster("a", "b", "c", config=quick)
    for node in others:
        node.kill()

    eventually(lambda: first.get("/mesh/health")["status"] == "partitioned", "it is partitioned")

    assert 1 == first.get("/mesh/health")["cluster_size"]
    first.request("POST", "/mesh/config", {"key": "k", "value": "01"})


async def keep_what_is_no_limit(path: Path) -> None:
    """Leave the file of a node that stored something unreadable before doors looked at it."""
    runtime = MeshRuntime(
        MeshConfig(name="sick"),
        transport=MemoryNetwork().transport("sick:1"),
        snapshots=SnapshotFile(path),
    )
    async with runtime:
        runtime.sync.app.set("global_rate_limit", b"\xff")


def test_stores_healthy_can_be_false(own_launcher: Launcher, tmp_path: Path) -> None:
    """Something unreadable in a store makes it so, and the whole node degraded."""
    asyncio.run(keep_what_is_no_limit(tmp_path / "sick.db"))
    node = own_launcher.node("sick", arguments=["--storage-path", str(tmp_path / "sick.db")])
    node.start()

    sick = node.get("/mesh/health")
    node.request("POST", "/mesh/rate-limit", {"limit_per_second": 5})
    well = node.get("/mesh/health")

    assert ("degraded", False) == (sick["status"], sick["stores_healthy"])
    assert ("healthy", True) == (well["status"], well["stores_healthy"])
