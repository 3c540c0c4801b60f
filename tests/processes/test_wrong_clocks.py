"""Real processes whose wall clocks are wrong: they say so, and nothing newer is replaced."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from support.servers import Launcher, Node, agree, eventually

CLOCK = str(Path(__file__).with_name("wrong_clock.py"))


class Clock:
    """The clock of one process: seconds ahead of the right time."""

    def __init__(self, path: Path, ahead_s: float) -> None:
        self.path = path
        self.set(ahead_s)

    def set(self, ahead_s: float) -> None:
        """Set it, at once."""
        new = self.path.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(self.path)


def node_with_clock(
    launcher: Launcher, others: list[Node], ahead_s: float, *, name: str = "odd"
) -> tuple[Node, Clock]:
    """Make a node that is told of others, not started, and its clock."""
    node = launcher.node(name, peers=[other.port for other in others])
    clock = Clock(launcher.directory / f"{name}.clock", ahead_s)
    node.launcher = (sys.executable, CLOCK, str(clock.path))
    return node, clock


def lines(node: Node) -> list[str]:
    """Return what a node says of clocks."""
    return [line for line in node.get("/mesh/health")["problems"] if "clock" in line]


def write(node: Node, value: str) -> tuple[int, str]:
    """Write the key `k`, and return the status with its code."""
    answer = node.client.post("/mesh/config", json={"key": "k", "value": value})
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.slow
def test_a_node_that_starts_with_a_clock_far_ahead_writes_nothing(own_launcher: Launcher) -> None:
    """From the first moment in which it answers; both sides say why."""
    others = own_launcher.cluster("a", "b")
    others[0].request("POST", "/mesh/config", {"key": "k", "value": "01"})
    node, clock = node_with_clock(own_launcher, others, 90.0)
    node.start()
    outcomes = [write(node, "02") for _ in range(300)]
    eventually(node.is_ready, "it is ready")
    others[0].request("DELETE", "/mesh/config/k")
    told = lines(node)
    eventually(lambda: bool(lines(others[0])), "the others say so too")
    clock.set(0.0)
    eventually(lambda: not lines(node), "its clock is right")

    assert {(503, "clock_ahead")} == set(outcomes)
    assert any("it takes no writes" in line for line in told)
    for each in (*others, node):
        each.request("GET", "/mesh/config/k", status=404)
    assert (200, "") == write(node, "03")
    agree([*others, node], "/mesh/config/k", {"key": "k", "value": "03", "format": "hex"})


@pytest.mark.slow
def test_what_is_deleted_while_a_clock_is_wrong_stays_deleted(own_launcher: Launcher) -> None:
    """A clock that is set ahead while the node runs: its writer has the error at once."""
    others = own_launcher.cluster("a", "b")
    node, clock = node_with_clock(own_launcher, others, 0.0)
    node.start()
    eventually(node.is_ready, "it is ready")
    assert (200, "") == write(node, "01")
    agree([*others, node], "/mesh/config/k", {"key": "k", "value": "01", "format": "hex"})
    clock.set(90.0)
    outcome = write(node, "02")
    others[0].request("DELETE", "/mesh/config/k")
    eventually(lambda: node.client.get("/mesh/config/k").status_code == 404, "it is deleted there")
    clock.set(0.0)
    eventually(lambda: not lines(node), "its clock is right")

    assert (503, "clock_ahead") == outcome
    for each in (*others, node):
        each.request("GET", "/mesh/config/k", status=404)


@pytest.mark.slow
def test_a_node_far_behind_says_why_it_is_not_ready(own_launcher: Launcher) -> None:
    """What the others wrote waits; with its clock right it is ready."""
    others = own_launcher.cluster("a", "b")
    others[0].request("POST", "/mesh/config", {"key": "k", "value": "01"})
    node, clock = node_with_clock(own_launcher, others, -120.0)
    node.start()
    eventually(lambda: "clock" in node.client.get("/readyz").text, "it says why")
    reason = node.client.get("/readyz").json()["error"]
    clock.set(0.0)
    eventually(node.is_ready, "it is ready")

    assert "over 60 s behind that of a, b" in reason
    assert "01" == node.get("/mesh/config/k")["value"]


@pytest.mark.slow
def test_of_two_both_say_that_their_clocks_differ_and_neither_refuses(
    own_launcher: Launcher,
) -> None:
    """Nobody knows which of them is wrong."""
    (other,) = own_launcher.cluster("a")
    node, _ = node_with_clock(own_launcher, [other], 90.0)
    node.start()
    eventually(node.is_ready, "it is ready")

    for each in (node, other):
        eventually(lambda each=each: len(lines(each)) == 1, "each says so")  # type: ignore[misc]
        assert (200, "") == write(each, "01")


@pytest.mark.slow
def test_what_a_node_writes_that_began_alone_far_ahead_replaces_nothing_newer(
    own_launcher: Launcher,
) -> None:
    """The others are silent while it begins and writes; what they delete then stays deleted."""
    others = own_launcher.cluster("a", "b")
    for key in ("k", "other"):
        others[0].request("POST", "/mesh/config", {"key": key, "value": "01"})
    node, clock = node_with_clock(own_launcher, others, 90.0)
    for each in others:
        each.started.send_signal(signal.SIGSTOP)
    try:
        node.start()
        eventually(node.is_ready, "it has begun alone")
        outcomes = [write(node, "02")]
        answer = node.client.post("/mesh/config", json={"key": "other", "value": "02"})
        outcomes.append((answer.status_code, ""))
    finally:
        for each in others:
            each.started.send_signal(signal.SIGCONT)
    others[0].request("DELETE", "/mesh/config/k")
    all_nodes = [*others, node]
    agree(all_nodes, "/mesh/config/other", {"key": "other", "value": "02", "format": "hex"})
    eventually(lambda: bool(lines(others[0])), "the others say whose clock is wrong")
    clock.set(0.0)
    eventually(lambda: not lines(node), "its clock is right")

    assert [(200, "")] * 2 == outcomes
    for each in all_nodes:
        each.request("GET", "/mesh/config/k", status=404)
    assert (200, "") == write(node, "03")
    agree(all_nodes, "/mesh/config/k", {"key": "k", "value": "03", "format": "hex"})
