"""The real table of `bench_gossip.py`: runtimes on one event loop, over the transport in memory."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Sequence
from functools import partial
from typing import Any

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import MemoryNetwork

__all__ = ["real"]


def real(counts: Sequence[int], *, seconds: float) -> list[dict[str, Any]]:
    """Measure processor time for each received frame, and memory for each member."""
    rows = [asyncio.run(_measure(count, seconds)) for count in counts]
    for row in rows:
        row["bytes_per_node"] = asyncio.run(_memory(row["n"]))
    small, large = rows[0], rows[-1]
    if small["n"] != large["n"]:
        grown = large["bytes_per_node"] - small["bytes_per_node"]
        for row in rows:
            row["bytes_per_member"] = grown / (large["n"] - small["n"])
    return rows


def _knows(runtime: MeshRuntime, count: int) -> bool:
    return len(runtime.node.members()) == count


def _set(key: str, value: int, state: Any, context: Any) -> Any:
    return state.set(key, value, stamp=context.stamp(), sequence=context.sequence)


async def _start(count: int) -> list[MeshRuntime]:
    network = MemoryNetwork()
    runtimes = []
    for index in range(count):
        address = f"node-{index}:1"
        runtimes.append(
            MeshRuntime(
                MeshConfig(name=f"node-{index}", address=address),
                transport=network.transport(address),
                seeds=() if not index else ("node-0:1",),
            )
        )
    for runtime in runtimes:
        await runtime.start()
    for runtime in runtimes:
        await runtime.wait_ready(timeout_s=120)
        await runtime.wait_until(partial(_knows, runtime, count), timeout_s=120)
    return runtimes


async def _measure(count: int, seconds: float) -> dict[str, Any]:
    """Write as fast as one core takes it in, one write after another, each sent by itself."""
    runtimes = await _start(count)
    await asyncio.sleep(3.0)
    for runtime in runtimes:
        runtime.node.replica.open("app", type_tag="lww_map")

    def frames() -> int:
        return sum(runtime.node.counters.frames_received for runtime in runtimes)

    before, start_s, end = frames(), time.process_time(), time.monotonic() + seconds
    writes = 0
    while time.monotonic() < end:
        runtime = runtimes[writes % count]
        key = f"k{writes % 1000}"
        runtime.node.replica.write("app", partial(_set, key, writes))
        runtime.wake()
        writes += 1
        # Let this write's frames arrive before the next: nothing is joined on the way.
        for _ in range(4):
            await asyncio.sleep(0)
    took_s, received = time.process_time() - start_s, frames() - before
    for runtime in runtimes:
        await runtime.abort()
    return {
        "n": count,
        "writes": writes,
        "microseconds_per_frame": 1e6 * took_s / received,
        "frames_per_s": received / took_s,
    }


async def _memory(count: int) -> int:
    gc.collect()
    tracemalloc.start()
    runtimes = await _start(count)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for runtime in runtimes:
        await runtime.abort()
    return held // count
