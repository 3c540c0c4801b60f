"""Limits over real processes, where local estimates were wrong: small ones, and bursts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.offers import Answered, Client, confirm, next_second
from support.processes import Cluster

from meshlib_server.commands.demo import make_nodes

pytestmark = pytest.mark.slow

SECONDS = 4


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Cluster]:
    """Yield one node that was told of nobody."""
    (node,) = make_nodes(tmp_path, 1)
    made = Cluster([node])
    try:
        made.start(node)
        yield made
    finally:
        if node.process is not None:
            node.process.kill()
            node.process.wait()


def run(
    cluster: Cluster, limit: int, work: Callable[[list[Client]], Coroutine[Any, Any, None]]
) -> None:
    """Set the limit, wait until an owner decides on every node, and do the work."""
    confirm(cluster, limit)

    async def body() -> None:
        clients = [Client(node) for node in cluster.nodes]
        try:
            await work(clients)
        finally:
            for client in clients:
                client.close()

    asyncio.run(body())


async def at_once(clients: list[Client], each: int) -> list[Answered]:
    """Make so many requests on each node within a moment."""
    return await asyncio.gather(*(client.acquire("global") for client in clients * each))


@pytest.mark.parametrize(("limit", "each"), [(1, 4), (5, 8)])
def test_a_small_limit_is_the_clusters(cluster: Cluster, limit: int, each: int) -> None:
    """One a second, or five, over three processes that are all asked at once."""
    counts: list[int] = []

    async def work(clients: list[Client]) -> None:
        for client in clients:
            await client.open(each)
        for _ in range(SECONDS):
            await next_second()
            answers = await at_once(clients, each)
            assert all(answer.is_confirmed for answer in answers)
            counts.append(sum(answer.is_allowed for answer in answers))

    run(cluster, limit, work)

    assert [limit] * SECONDS == counts


def test_random_bursts_fill_no_second_beyond_the_limit(cluster: Cluster) -> None:
    """300 a second, asked for in bursts of up to 150 on any node, 3 times what may pass.

    A request that is answered about the turn of a second may be counted in either of the two.
    """
    limit = 300
    admitted: Counter[int] = Counter()
    edges: Counter[int] = Counter()

    async def work(clients: list[Client]) -> None:
        rng = random.Random(1)
        await next_second(0.0)
        end = time.time() + SECONDS
        while time.time() < end:
            client = rng.choice(clients)
            began = int(time.time())
            answers = await asyncio.gather(
                *(client.acquire("global") for _ in range(rng.randint(1, 150)))
            )
            for answer in answers:
                assert answer.is_confirmed
                is_edge = answer.second != began
                (edges if is_edge else admitted)[answer.second] += answer.is_allowed
            await asyncio.sleep(rng.uniform(0.0, 0.15))

    run(cluster, limit, work)
    print(f"\nadmitted in each second: {sorted(admitted.items())}; about its turn: {dict(edges)}")

    assert all(count <= limit for count in admitted.values())
    assert sum(admitted.values()) + sum(edges.values()) <= limit * (SECONDS + 1)


def test_a_burst_at_one_of_three_nodes_has_the_whole_limit(cluster: Cluster) -> None:
    """200 at once every other second, of 200 a second."""
    counts: list[int] = []

    async def work(clients: list[Client]) -> None:
        await clients[1].open(200)
        for _ in range(3):
            await next_second(0.1)
            answers = await at_once(clients[1:2], 200)
            counts.append(sum(answer.is_allowed for answer in answers))
            await asyncio.sleep(1.0)

    run(cluster, 200, work)

    assert [200] * 3 == counts


def test_a_few_requests_on_an_idle_cluster_all_pass(cluster: Cluster) -> None:
    """Eight within some milliseconds under ten a second."""
    counts: list[int] = []

    async def work(clients: list[Client]) -> None:
        await clients[0].open(8)
        for _ in range(SECONDS):
            await next_second()
            answers = await at_once(clients[:1], 8)
            counts.append(sum(answer.is_allowed for answer in answers))

    run(cluster, 10, work)

    assert [8] * SECONDS == counts


def test_one_process_refuses_nothing_below_its_limit(alone: Cluster) -> None:
    """180 at once in each second, of 200."""
    counts: list[int] = []

    async def work(clients: list[Client]) -> None:
        await clients[0].open(180)
        for _ in range(SECONDS):
            await next_second(0.1)
            answers = await at_once(clients, 180)
            counts.append(sum(answer.is_allowed for answer in answers))

    run(alone, 200, work)

    assert [180] * SECONDS == counts
