"""Who begins a cluster of real processes, and what becomes of those that began apart.

Of three that start empty at once, of two beside one that is silent, and of one whose seeds never
answer there are tests in `test_rolls.py`.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from support.rolls import PATIENT, Kept, await_all, end, is_healthy, nodes_of, start_ready
from support.servers import Launcher, Node, eventually

pytestmark = pytest.mark.slow


def who_began(nodes: list[Node]) -> list[str]:
    """End the nodes, and return which of them have logged that they began."""
    logs = {node.name: node.log_of_its_life() for node in nodes}
    return [name for name, log in logs.items() for line in log if line["message"] == "Began"]


def test_one_that_is_told_of_nobody_begins_at_once(own_launcher: Launcher) -> None:
    """It awaits nobody, however long others would be awaited, and all is well."""
    node = own_launcher.node("alone", environment={"MESH_GOSSIP_BOOTSTRAP_AFTER_S": "600"})
    start_ready([node])
    health = node.get("/mesh/health")

    assert ("healthy", "ready", []) == (health["status"], health["state"], health["problems"])


def test_of_three_with_stored_states_the_newest_begins(
    own_launcher: Launcher, tmp_path: Path
) -> None:
    """All start at once; nobody says that it is ready before it has what the newest kept."""
    nodes = nodes_of(own_launcher, 3)
    for node in nodes:
        path = tmp_path / f"{node.name}.db"
        node.arguments += ["--storage-path", str(path), "--storage-interval", "0.5"]
    start_ready(nodes)
    kept = Kept(random.Random(0))
    kept.write(nodes, 10, 1_000)
    kept.await_at(nodes)
    end(nodes[:1], signal.SIGTERM)
    kept.write(nodes[1:], 10, 1_000)
    kept.await_at(nodes[1:])
    end(nodes[1:2], signal.SIGTERM)
    kept.write(nodes[2:], 10, 1_000)
    end(nodes[2:], signal.SIGTERM)
    for node in nodes:
        node.log.unlink()
        node.environment |= PATIENT
    start_ready(nodes)

    kept.check(nodes, "at ready")
    assert ["n2"] == who_began(nodes)


def test_two_halves_that_both_began_have_everything_once_they_meet(
    own_launcher: Launcher,
) -> None:
    """The first is silent while the second begins; both have written meanwhile."""
    nodes = nodes_of(own_launcher, 4)
    first, second = nodes[:2], nodes[2:]
    start_ready(first)
    kept = Kept(random.Random(0))
    kept.write(first, 10, 1_000)
    await_all(first, set(kept.values))
    for node in first:
        node.started.send_signal(signal.SIGSTOP)
    try:
        start_ready(second)
        kept.write(second, 10, 1_000)
    finally:
        for node in first:
            node.started.send_signal(signal.SIGCONT)

    kept.await_at(nodes)
    for node in nodes:
        eventually(lambda node=node: is_healthy(node), f"{node.name} is well")  # type: ignore[misc]
        eventually(node.is_ready, f"{node.name} is ready")
    kept.check(nodes, "after they met")
    began = set(who_began(nodes))
    assert all({node.name for node in half} & began for half in (first, second))
