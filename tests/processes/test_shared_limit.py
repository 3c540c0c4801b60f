"""Three processes share one limit: together they admit it, no more and no less."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import Any

import pytest
from support.offers import Answered, Client, confirm, next_second
from support.processes import Cluster

LIMIT = 300
DURATION_S = 10


class Seconds:
    """Admitted requests by the second of the wall clock, whose windows are the owner's too.

    A request that is asked for in one second and answered in another may be counted in either.
    """

    def __init__(self) -> None:
        self.within: Counter[int] = Counter()
        self.between: Counter[int] = Counter()
        self.answered = 0

    def count(self, answer: Answered, *, asked_in: int) -> None:
        self.answered += 1
        (self.within if answer.second == asked_in else self.between)[asked_in] += answer.is_allowed
        assert answer.is_confirmed

    def all_in(self, second: int) -> int:
        """Return what may have been admitted in a second."""
        return self.within[second] + self.between[second - 1] + self.between[second]


async def offer(node: Any, rate: int, seconds: Seconds) -> None:
    """Ask a node `rate` times a second, evenly, one request after the other."""
    client = Client(node)
    await client.open(1)
    loop = asyncio.get_running_loop()
    start = loop.time()
    for index in range(rate * DURATION_S):
        due = start + index / rate
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        asked_in = int(time.time())
        seconds.count(await client.acquire("global"), asked_in=asked_in)
    client.close()


@pytest.mark.long
@pytest.mark.parametrize("shares", [(300, 300, 300), (860, 20, 20)])
def test_each_second_after_the_first_admits_the_limit(
    cluster: Cluster, shares: tuple[int, int, int]
) -> None:
    """At three times the limit: never more, and within a tenth of it; the rest get 429."""
    confirm(cluster, LIMIT)
    seconds = Seconds()

    async def campaign() -> None:
        await next_second(0.0)
        await asyncio.gather(
            *(offer(node, rate, seconds) for node, rate in zip(cluster.nodes, shares, strict=True))
        )

    asyncio.run(campaign())
    whole = sorted(seconds.within)[1:-1]
    print(f"\nadmitted within each second: {[seconds.within[second] for second in whole]}")

    assert len(whole) >= DURATION_S - 2
    assert all(count <= LIMIT for count in seconds.within.values())
    assert all(seconds.all_in(second) >= 0.9 * LIMIT for second in whole)
    assert seconds.answered == sum(shares) * DURATION_S


@pytest.mark.slow
def test_stats_agree_on_all_nodes_after_a_burst(cluster: Cluster) -> None:
    """What one node admits is counted by every node, within the same window."""
    first = cluster.nodes[0]
    first.do("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT})
    for node in cluster.nodes:
        cluster.wait_until(
            partial(lambda node: node.get("/mesh/rate-limit") is not None, node),
            "the limit is everywhere",
        )

    def counts() -> list[int]:
        for _ in range(3):
            first.call("POST", "/mesh/rate-limit/acquire", {"key": "global", "cost": 1})
        return [node.get("/mesh/rate-limit/stats")["current_count"] for node in cluster.nodes]

    def agree() -> bool:
        seen = counts()
        return seen[0] > 0 and max(seen) - min(seen) <= 6

    cluster.wait_until(agree, "all nodes count what the first one admits")
