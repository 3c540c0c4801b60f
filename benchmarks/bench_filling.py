"""A node that joins a cluster with a large tree: when it is ready, and when it decides.

    python benchmarks/bench_filling.py [--quick]

Caveats first: two processes share this machine's cores and its loopback, and the way of 80 ms is
made by a relay in the process of the node that joins, which costs it time too. What stands under
"before" was measured when pages were asked for one by one and held aside until the last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import platform
import socket
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from meshlib import MeshConfig, MeshRuntime, TcpTransport
from meshlib.routing import TreeInsert

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
MODEL, LIMIT, WORKERS = "model", 5, 8


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def hold(port: int, characters: int, entries: int, is_full: Event, is_over: Event) -> None:
    """Be the cluster: one node with a limit, a policy, workers and a tree."""
    transport = TcpTransport(f"127.0.0.1:{port}")
    async with MeshRuntime(MeshConfig(name="full"), transport=transport) as mesh:
        await mesh.wait_ready(10)
        mesh.sync.set_global_rate_limit(LIMIT)
        config = json.dumps({"max_tree_size": 1 << 26})
        mesh.sync.sync_policy_state(MODEL, policy_type="cache_aware", config=config)
        for number in range(WORKERS):
            mesh.sync.sync_worker_state(
                f"w{number}", model_id=MODEL, url="http://w", health=True, load=0.0
            )
        for number in range(entries):
            text = (f"{number:08}" * (characters // entries // 8 + 1))[: characters // entries]
            mesh.sync.sync_tree_operation(MODEL, TreeInsert(text, f"w{number % WORKERS}"))
            if number % 200 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(1.0)
        is_full.set()
        await asyncio.to_thread(is_over.wait)


def hold_in_process(*arguments: Any) -> None:
    asyncio.run(hold(*arguments))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Hand on what comes, so much later and in order."""
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    task = asyncio.create_task(deliver())
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            waiting.put_nowait((time.monotonic() + delay_s, data))
    waiting.put_nowait((time.monotonic() + delay_s, b""))
    await task


async def relay(port: int, target: int, delay_s: float) -> asyncio.Server:
    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(
                carry(reader, far_writer, delay_s), carry(far_reader, writer, delay_s)
            )

    return await asyncio.start_server(on_connection, "127.0.0.1", port)


async def join(target: int, round_trip_s: float) -> dict[str, float]:
    """Join, and note when what is known and when it is all there, from the first contact on."""
    server = None
    if round_trip_s:
        via = free_port()
        server = await relay(via, target, round_trip_s / 2)
        target = via
    transport = TcpTransport(f"127.0.0.1:{free_port()}")
    mesh = MeshRuntime(MeshConfig(name="new"), transport=transport, seeds=[f"127.0.0.1:{target}"])
    await mesh.start()
    seen: dict[str, float] = {}
    conditions: dict[str, Callable[[], bool]] = {
        "met": lambda: len(mesh.members()) > 1,
        "limit": lambda: mesh.sync.get_global_rate_limit() == LIMIT,
        "policy": lambda: mesh.sync.get_policy_state(MODEL) is not None,
        "workers": lambda: len(mesh.sync.get_all_worker_states()) == WORKERS,
        "ready": lambda: mesh.is_ready,
    }
    while "ready" not in seen:
        for name, is_so in conditions.items():
            if name not in seen and is_so():
                seen[name] = time.perf_counter()
        await asyncio.sleep(0.002)
    await mesh.stop()
    if server is not None:
        server.close()
    return {f"{name}_s": at - seen["met"] for name, at in seen.items() if name != "met"}


def measure(characters: int, entries: int, round_trip_s: float) -> dict[str, float]:
    is_full, is_over = multiprocessing.Event(), multiprocessing.Event()
    port = free_port()
    arguments = (port, characters, entries, is_full, is_over)
    process = multiprocessing.Process(target=hold_in_process, args=arguments, daemon=True)
    process.start()
    try:
        if not is_full.wait(120):
            raise TimeoutError("the tree was not filled")
        return asyncio.run(join(port, round_trip_s))
    finally:
        is_over.set()
        process.join(10)


CASES = (
    ("40 M characters in 20,000 entries, loopback", 40_000_000, 20_000, 0.0, "6 s", "8.4 s"),
    ("12 M characters in 6,000 entries, 80 ms away", 12_000_000, 6_000, 0.08, "", "9.4 s"),
    ("40 M characters in 20,000 entries, 80 ms away", 40_000_000, 20_000, 0.08, "", ""),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth, to see that it runs")
    quick = parser.parse_args().quick
    results: dict[str, Any] = {}
    print(f"{'':48}{'decides':>10}{'mark':>8}{'ready':>10}{'mark':>8}{'before':>10}")
    for what, characters, entries, round_trip_s, mark, before in CASES:
        share = 10 if quick else 1
        found = measure(characters // share, entries // share, round_trip_s)
        decides_s = max(found["limit_s"], found["policy_s"], found["workers_s"])
        results[what] = found
        print(
            f"{what:48}{decides_s * 1000:>7.0f} ms{'300 ms':>8}{found['ready_s']:>8.2f} s"
            f"{mark:>8}{before:>10}"
        )
    results["versions"] = {"python": platform.python_version()}
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "bench_filling.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
