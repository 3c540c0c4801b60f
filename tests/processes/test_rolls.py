"""Restarts of real processes, in turn and together: nothing that the cluster had is lost."""

from __future__ import annotations

import random
import signal
from functools import partial
from typing import Any

import pytest
from support.rolls import (
    PATIENT,
    await_all,
    end,
    fill,
    is_healthy,
    keys_of,
    nodes_of,
    start_ready,
)
from support.servers import Launcher, Node, eventually

LARGE = (60, 262_000)
"""Keys, and bytes of each: 16 MB take longer to arrive than a process to answer."""

MANY = (400, 20_000)

LONG = (pytest.mark.long, pytest.mark.timeout(1_800))


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=LONG)])
def test_a_roll_that_waits_for_health_loses_nothing(own_launcher: Launcher, rounds: int) -> None:
    """Three nodes, told to end one after the other, each awaited by its health alone."""
    nodes = nodes_of(own_launcher, 3)
    start_ready(nodes)
    keys = fill(nodes[0], *LARGE)
    await_all(nodes, keys)

    for _ in range(rounds):
        for node in nodes:
            end([node], signal.SIGTERM)
            node.start()
            eventually(partial(is_healthy, node), f"{node.name} is healthy", deadline_s=60.0)
            assert keys_of(node) == keys


@pytest.mark.slow
def test_a_roll_in_haste_loses_nothing(own_launcher: Launcher) -> None:
    """Whoever goes on as soon as a node answers finds the last holder handing over."""
    nodes = nodes_of(own_launcher, 3)
    start_ready(nodes)
    keys = fill(nodes[0], *LARGE)
    await_all(nodes, keys)

    for node in nodes:
        end([node], signal.SIGTERM)
        node.start()
        eventually(partial(lambda n: len(n.statuses()) > 1, node), f"{node.name} has met somebody")

    await_all(nodes, keys)


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=LONG)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_two_that_start_together_have_all_that_a_third_has(
    own_launcher: Launcher, rounds: int, number: signal.Signals
) -> None:
    """The third ends as soon as both say that they are ready, and takes nothing along."""
    for each in range(rounds):
        *newcomers, third = nodes_of(own_launcher, 3, f"r{each}-")
        third.arguments = third.arguments[:4]  # its own cluster: it is told of no peer
        start_ready([third])
        keys = fill(third, *MANY)
        start_ready(newcomers)
        at_ready = [keys_of(node) for node in newcomers]
        end([third], number)

        assert at_ready == [keys, keys]
        await_all(newcomers, keys)
        for node in newcomers:
            node.stop()


def roll_at_random(launcher: Launcher, count: int, seed: int, batches: int) -> None:
    """Restart nodes in batches that chance chooses, always waiting until all are ready."""
    rng = random.Random(seed)
    nodes = nodes_of(launcher, count, f"s{seed}-{count}-")
    start_ready(nodes)
    keys = fill(nodes[0], 20, 50_000)
    await_all(nodes, keys)
    for number in range(batches):
        batch = rng.sample(nodes, rng.choice((1, 2, count - 1)))
        end(batch, rng.choice((signal.SIGTERM, signal.SIGKILL)))
        start_ready(batch)
        assert [keys_of(node) for node in batch] == [keys] * len(batch)
        keys |= fill(rng.choice(nodes), 5, 50_000, prefix=f"more{number}-")
        await_all(nodes, keys)
    for node in nodes:
        node.stop()


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize(
    ("seeds", "batches"), [(1, 2), pytest.param(10, 12, marks=LONG)], ids=["few", "many"]
)
def test_random_rolls_lose_nothing(
    own_launcher: Launcher, count: int, seeds: int, batches: int
) -> None:
    """One, two or all but one at a time, told to end or killed."""
    for seed in range(seeds):
        roll_at_random(own_launcher, count, seed, batches)


@pytest.mark.slow
def test_three_empty_nodes_that_start_at_once_are_ready_soon(own_launcher: Launcher) -> None:
    """One of them begins; none says that it is ready before."""
    nodes = nodes_of(own_launcher, 3, environment=PATIENT)
    start_ready(nodes)
    are_healthy = all(is_healthy(node) for node in nodes)
    logs = {node.name: node.log_of_its_life() for node in nodes}
    began = [name for name, log in logs.items() for line in log if line["message"] == "Began"]

    assert began == ["n0"]
    assert are_healthy


@pytest.mark.slow
def test_two_beside_a_silent_third_begin_and_lose_nothing_of_it(own_launcher: Launcher) -> None:
    """It holds all and is stopped; once it goes on, everybody has everything."""
    *newcomers, third = nodes_of(own_launcher, 3)
    start_ready([third])
    held = fill(third, 20, 1_000)
    assert third.process is not None
    third.process.send_signal(signal.SIGSTOP)
    try:
        start_ready(newcomers)
        written = fill(newcomers[0], 5, 1_000, prefix="meanwhile")
    finally:
        third.process.send_signal(signal.SIGCONT)

    await_all([*newcomers, third], held | written)


@pytest.mark.slow
def test_one_whose_seed_never_answers_begins_and_says_that_it_is_isolated(
    own_launcher: Launcher,
) -> None:
    """Not ready at first, then ready and degraded, and well once it has met somebody."""
    port = own_launcher.free_ports(1)[0]
    lone = own_launcher.node(
        "lone", peers=[port], environment={"MESH_GOSSIP_BOOTSTRAP_AFTER_S": "3"}
    )
    lone.start()
    before = lone.request("GET", "/readyz", status=503), lone.get("/mesh/health")["status"]
    eventually(lone.is_ready, "it is ready")
    isolated = lone.get("/mesh/health")["status"]
    lone.request("POST", "/mesh/config", {"key": "k", "value": "01"})
    other = own_launcher.node("other", port=port, peers=[lone.port])
    start_ready([other])

    unready = {"error": "not ready: no peer was met yet", "code": "not_ready"}
    assert before == (unready, "degraded")
    assert isolated == "degraded"
    await_all([lone, other], {"k"})
    eventually(lambda: is_healthy(lone), "it is healthy")


def probe(node: Node, path: str) -> tuple[int, Any]:
    """Ask without a token."""
    response = node.client.get(path, headers={"Authorization": ""})
    return response.status_code, response.json()


def test_the_probes_need_no_token_and_tell_nothing_else(own_launcher: Launcher) -> None:
    """Alive at once; ready when it is; the endpoints stay closed."""
    node = own_launcher.node("n")
    start_ready([node])

    assert probe(node, "/livez") == (200, {"status": "alive"})
    assert probe(node, "/readyz") == (200, {"status": "ready"})
    assert probe(node, "/mesh/health")[0] == 401
