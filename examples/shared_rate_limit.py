"""Three routers share one limit: together they admit it and no more, whoever is asked how much.

Run: python examples/shared_rate_limit.py
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime

LIMIT = 200
OFFERED = {"router-1": 500, "router-2": 80, "router-3": 20}
DURATION_S = 7.0
OWNERS_DECIDE_AFTER_S = 4.0
"""Nodes that have all just started first wait until what they may have promised before is over."""


async def offer(runtime: MeshRuntime, rate: int, admitted: list[float]) -> None:
    """Ask for a unit `rate` times a second, evenly, and keep when one was admitted."""
    start = time.monotonic()
    for index in range(int(rate * DURATION_S)):
        await asyncio.sleep(max(0.0, start + index / rate - time.monotonic()))
        if await runtime.acquire_confirmed("global"):
            admitted.append(time.monotonic() - start)


async def main() -> None:
    """Run three nodes in one process and offer them three times the limit, unevenly."""
    network = MemoryNetwork()
    runtimes = [
        MeshRuntime(
            MeshConfig(name=name),
            transport=network.transport(f"{name}:1"),
            seeds=["router-1:1"],
        )
        for name in OFFERED
    ]
    for runtime in runtimes:
        await runtime.start()
    for runtime in runtimes:
        await runtime.wait_ready()
    runtimes[0].sync.set_global_rate_limit(LIMIT)
    for runtime in runtimes:
        sync = runtime.sync
        await runtime.wait_until(partial(lambda sync: sync.get_global_rate_limit() == LIMIT, sync))

    admitted: list[float] = []
    async with asyncio.TaskGroup() as group:
        for runtime, rate in zip(runtimes, OFFERED.values(), strict=True):
            group.create_task(offer(runtime, rate, admitted))
    for runtime in runtimes:
        await runtime.stop()

    late = [moment for moment in admitted if moment >= OWNERS_DECIDE_AFTER_S]
    measured = len(late) / (DURATION_S - OWNERS_DECIDE_AFTER_S)
    print(f"offered {sum(OFFERED.values())}/s, limit {LIMIT}/s, admitted {measured:.0f}/s")
    assert 0.8 * LIMIT <= measured <= 1.2 * LIMIT


if __name__ == "__main__":
    asyncio.run(main())
