"""Two replicas, the commonest cluster: what the one that is left takes itself for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from support.servers import Launcher, Node, eventually


def pair(launcher: Launcher, *, environment: dict[str, str] | None = None) -> tuple[Node, Node]:
    """Start two nodes that know each other."""
    first, second = launcher.free_ports(2)
    one = launcher.node("one", port=first, peers=[second], environment=environment)
    two = launcher.node("two", port=second, peers=[first], environment=environment)
    one.spawn()
    two.spawn()
    for node in (one, two):
        node.await_answer()
        eventually(node.is_ready, "it is ready")
        eventually(partial(lambda node: len(node.statuses()) == 2, node), "they have met")
    return one, two


def status(node: Node) -> str:
    return str(node.get("/mesh/health")["status"])


def problems(node: Node) -> list[str]:
    """Return the problems, without since when they are there."""
    return [line.partition(" (since")[0] for line in node.get("/mesh/health")["problems"]]


@contextmanager
def stopped(node: Node) -> Iterator[None]:
    """Let a process stand still."""
    node.started.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.started.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_the_survivor_of_a_kill_is_whole(own_launcher: Launcher) -> None:
    """It was never without a majority: nothing listens where the other was."""
    one, two = pair(own_launcher)
    seen: list[str] = []
    two.kill()

    def is_told() -> bool:
        seen.append(status(one))
        return one.statuses()["two"] == "Down"

    eventually(is_told, "the death is seen")

    assert {"degraded", "healthy"} >= set(seen)
    assert (status(one), problems(one)) == ("degraded", ["two is down"])
    two.start()
    eventually(lambda: status(one) == status(two) == "healthy", "they are two again")


@pytest.mark.slow
def test_silence_leaves_the_other_without_a_majority(own_launcher: Launcher) -> None:
    """Until an operator says that it does not come back; whoever comes back counts again."""
    one, two = pair(own_launcher)
    with stopped(two):
        eventually(lambda: status(one) == "partitioned", "the silence is noticed")
        assert one.statuses()["two"] == "Down"
        answer = one.request("DELETE", "/mesh/members/two")
        assert {"status": "forgotten", "name": "two"} == answer
        assert "healthy" == status(one)
        assert {"one": "Alive"} == one.statuses()
        one.request("DELETE", "/mesh/members/two", status=404)

    eventually(lambda: len(one.statuses()) == 2, "it is back")
    eventually(lambda: status(one) == status(two) == "healthy", "they are two again")
    one.request("DELETE", "/mesh/members/two", status=409)


@pytest.mark.slow
def test_an_end_after_silence_makes_the_other_whole(own_launcher: Launcher) -> None:
    """It stood still, was given up, and is killed then: its address refuses."""
    one, two = pair(own_launcher)
    with stopped(two):
        eventually(lambda: status(one) == "partitioned", "the silence is noticed")
        two.kill()

        eventually(lambda: status(one) == "degraded", "the end is noticed")


@pytest.mark.slow
def test_whoever_stays_is_whole_when_the_other_leaves(own_launcher: Launcher) -> None:
    """It said goodbye."""
    one, two = pair(own_launcher)
    two.started.send_signal(signal.SIGTERM)
    assert 0 == two.started.wait(30)

    eventually(lambda: one.statuses().get("two") in {"Leaving", None}, "the goodbye is heard")
    assert "healthy" == status(one)


@pytest.mark.slow
def test_a_setting_takes_silence_for_an_end(own_launcher: Launcher) -> None:
    """Whoever sets it knows what it risks."""
    one, two = pair(own_launcher, environment={"MESH_GOSSIP_IS_SILENCE_AN_END": "true"})
    with stopped(two):
        eventually(lambda: one.statuses()["two"] == "Down", "the silence is noticed")

        assert "degraded" == status(one)
