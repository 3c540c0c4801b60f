"""Three processes share one limit: together they admit it, no more and no less."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any

import pytest
from support.processes import Cluster

LIMIT = 300
DURATION_S = 10


async def offer(node: Any, rate: int, admitted: Counter[int], refused: Counter[int]) -> None:
    """Ask a node `rate` times a second, evenly, and count by the second of asking."""
    loop = asyncio.get_running_loop()
    body = json.dumps({"key": "global", "cost": 1}).encode()
    request = (
        f"POST /mesh/rate-limit/acquire HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}"
        f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    start = loop.time()
    for index in range(rate * DURATION_S):
        due = start + index / rate
        if due > loop.time():
            await asyncio.sleep(due - loop.time())
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        answer = json.loads(await reader.readexactly(length))
        second = int(loop.time() - start)
        is_allowed = head.startswith(b"HTTP/1.1 200")
        assert is_allowed or head.startswith(b"HTTP/1.1 429")
        assert answer["allowed"] is is_allowed
        (admitted if is_allowed else refused)[second] += 1
    writer.close()


@pytest.mark.long
@pytest.mark.parametrize("shares", [(300, 300, 300), (860, 20, 20)])
def test_each_second_after_the_first_admits_the_limit(
    cluster: Cluster, shares: tuple[int, int, int]
) -> None:
    """At three times the limit each second admits within a tenth of it; the rest get 429."""
    first = cluster.nodes[0]
    first.do("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT})
    for node in cluster.nodes:
        cluster.wait_until(
            partial(lambda node: node.get("/mesh/rate-limit") is not None, node),
            "the limit is everywhere",
        )
    admitted: Counter[int] = Counter()
    refused: Counter[int] = Counter()

    async def campaign() -> None:
        await asyncio.gather(
            *(
                offer(node, rate, admitted, refused)
                for node, rate in zip(cluster.nodes, shares, strict=True)
            )
        )

    asyncio.run(campaign())
    by_second = [admitted[second] for second in range(DURATION_S)]
    print(f"\nadmitted in each second: {by_second}; refused in all: {sum(refused.values())}")

    assert all(abs(count - LIMIT) <= LIMIT / 10 for count in by_second[1:])
    assert sum(admitted.values()) + sum(refused.values()) == sum(shares) * DURATION_S


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
