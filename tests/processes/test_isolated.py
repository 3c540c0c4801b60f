"""Real processes that meet nobody: their health and their log say of each seed why."""

from __future__ import annotations

import collections

import pytest
from support.servers import Launcher, Node, eventually


def troubles(node: Node) -> list[str]:
    """Return what the health says of seeds, without since when."""
    lines = node.get("/mesh/health")["problems"]
    return [line.partition(" (since")[0] for line in lines if line.startswith("seed ")]


def unresolvable(_launcher: Launcher) -> tuple[str, Node | None]:
    """A name that nobody knows."""
    return "no-such-host.invalid:7946", None


def wrong_port(launcher: Launcher) -> tuple[str, Node | None]:
    """A port on which nothing listens."""
    return f"127.0.0.1:{launcher.free_ports(1)[0]}", None


def other_cluster(launcher: Launcher) -> tuple[str, Node | None]:
    """A node of a cluster of another name."""
    node = launcher.node("alien", environment={"MESH_CLUSTER_NAME": "aliens"})
    node.start()
    return node.address, node


def wrong_token(launcher: Launcher) -> tuple[str, Node | None]:
    """A node that asks for another peer token."""
    node = launcher.node("locked", environment={"MESH_PEER_TOKEN": "another-peer-token"})
    node.start()
    return node.address, node


def warnings(node: Node) -> collections.Counter[str]:
    """Return how often each line was logged that an operator must see."""
    return collections.Counter(
        str(line.get("problem") or line["message"])
        for line in node.log_lines()
        if line["level"] in {"warning", "error", "critical"}
    )


@pytest.mark.parametrize(
    ("make", "why", "told_there"),
    [
        pytest.param(
            unresolvable,
            "the name is not known here (unresolvable: ",
            "",
            marks=pytest.mark.slow,
        ),
        (wrong_port, "nothing listens there (refused: ", ""),
        pytest.param(
            other_cluster,
            "it is of a cluster of another name (wrong cluster)",
            "the frame is of cluster 'mesh', this is 'aliens'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_node_that_meets_nobody_says_of_its_seed_why(
    own_launcher: Launcher, make: object, why: str, told_there: str
) -> None:
    """In its health, `degraded` and `isolated`; in its log once; and the other side's log too."""
    assert callable(make)
    address, other = make(own_launcher)
    lone = own_launcher.node("lone", arguments=["--peer", address])
    lone.start()
    eventually(lambda: len(troubles(lone)) == 1, "the seed is told of")
    eventually(lone.is_ready, "it has begun")
    eventually(lambda: lone.get("/mesh/health")["state"] == "isolated", "it says so")
    (trouble,) = troubles(lone)

    assert trouble.startswith(f"seed {address}: {why}")
    assert "degraded" == lone.get("/mesh/health")["status"]
    eventually(lambda: warnings(lone)[trouble] > 0, "it is logged")
    assert 1 == warnings(lone)[trouble]
    if other is not None:
        lines = [line for line in warnings(other).elements() if told_there in line]
        assert 1 == len(lines), warnings(other)
        assert "healthy" == other.get("/mesh/health")["status"]


@pytest.mark.slow
def test_a_node_with_another_token_begins_nothing_beside_those_it_reaches(
    own_launcher: Launcher,
) -> None:
    """It is not ready, and says why; the other side says it too, once, and goes on."""
    address, other = wrong_token(own_launcher)
    lone = own_launcher.node("lone", arguments=["--peer", address])
    lone.start()
    eventually(lambda: len(troubles(lone)) == 1, "the seed is told of")
    health, (trouble,) = lone.get("/mesh/health"), troubles(lone)
    unready = lone.request("GET", "/readyz", status=503)

    assert trouble.startswith(f"seed {address}: it asks for another peer token (wrong token: ")
    assert ("degraded", "joining") == (health["status"], health["state"])
    assert "not ready: a peer was reached that does not let this node in" == unready["error"]
    eventually(lambda: warnings(lone)[trouble] > 0, "it is logged")
    assert 1 == warnings(lone)[trouble]
    assert other is not None
    told_there = "unauthenticated websocket request: from 127.0.0.1"
    eventually(lambda: any(told_there in line for line in warnings(other)), "it is logged there")
    assert 1 == len([line for line in warnings(other).elements() if told_there in line])
    assert "healthy" == other.get("/mesh/health")["status"]


@pytest.mark.slow
def test_whoever_meets_somebody_says_no_more_of_its_seeds(own_launcher: Launcher) -> None:
    """Those that are still not there are no problem."""
    there, missing = own_launcher.free_ports(2)
    lone = own_launcher.node("lone", peers=[there, missing])
    lone.start()
    eventually(lambda: len(troubles(lone)) == 2, "both are told of")
    other = own_launcher.node("other", port=there, peers=[lone.port])
    other.start()

    eventually(lambda: lone.get("/mesh/health")["status"] == "healthy", "it is well")
    assert [] == lone.get("/mesh/health")["problems"]
