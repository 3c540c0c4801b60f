"""What `meshlib-server plan` says beside real clusters: bytes, CPU and memory of 3 to 40 processes.

With the time that a write takes to spread over three of them (the median, as `bench_transports.py`
measures it), and how much of all cores was idle meanwhile: where next to nothing was, processes
waited for their turn, and figures are those of a starved cluster.

    python benchmarks/bench_plan.py [--counts 3,20,40] [--quick]

Caveats first: all processes share one machine's cores and its loopback, and whatever else runs
there; CPU is user and system time of each process, which other programs raise through the caches.
Nodes are runtimes of the library over TCP, without HTTP. Bytes are those of frames. A write is one
key of some twenty bytes, made at the nodes in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import TcpTransport
from meshlib_server.commands.processes import free_ports
from meshlib_server.planning import Load, plan

RESULTS = Path(__file__).resolve().parent / "results"
WRITES_PER_S = (5, 20)
SETTLE_S = 4.0


def _set(key: str, state: Any, context: Any) -> Any:
    return state.set(key, 1, stamp=context.stamp(), sequence=context.sequence)


def spent(runtime: MeshRuntime) -> dict[str, float]:
    """Return what the process has spent since its start."""
    counters = runtime.transport.counters
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "cpu_s": time.process_time(), "at_s": time.monotonic(), "bytes": counters.bytes_sent,
        "frames": counters.frames_sent, "rss": pages * os.sysconf("SC_PAGE_SIZE"),
    }  # fmt: skip


async def write(runtime: MeshRuntime, rate: float, seconds: float, name: str, share: float) -> None:
    """Write at an even pace, at another moment than the other nodes."""
    await asyncio.sleep(share / rate)
    replica = runtime.node.replica
    replica.open("app", type_tag="lww_map")
    for number in range(round(rate * seconds)):
        replica.write("app", partial(_set, f"{name}-{number % 1000}"))
        runtime.wake()
        await asyncio.sleep(1 / rate)


async def child(index: int, addresses: list[str]) -> None:
    """Run one node, and answer a line for each line of input."""
    runtime = MeshRuntime(
        MeshConfig(name=f"node-{index:04}"),
        transport=TcpTransport(addresses[index], token=os.environ["BENCH_TOKEN"]),
        seeds=[address for address in addresses[:3] if address != addresses[index]],
    )
    async with runtime:
        await runtime.wait_ready(120)
        await runtime.wait_until(
            lambda: len(runtime.node.members()) == len(addresses), timeout_s=120
        )
        print("ready", flush=True)
        tasks = list[asyncio.Task[None]]()
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            verb, *numbers = line.split()
            if verb == "stop":
                while tasks:
                    tasks.pop().cancel()
            if verb == "write":
                rate, seconds = map(float, numbers)
                share = index / len(addresses)
                tasks.append(asyncio.create_task(write(runtime, rate, seconds, f"k{index}", share)))
            print(json.dumps(spent(runtime)), flush=True)
        for task in tasks:
            task.cancel()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    return line if line == "ready" else json.loads(line)


def ask_all(processes: list[subprocess.Popen[str]], line: str) -> list[dict[str, float]]:
    for process in processes:
        say(process, line)
    return [hear(process) for process in processes]


def ticks() -> tuple[int, int]:
    """Return for how long the cores were idle, and for how long they were there; Linux."""
    spent_on = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return spent_on[3], sum(spent_on)


def window(processes: list[subprocess.Popen[str]], seconds: float) -> dict[str, float]:
    """Return what a node spends in a second, the mean over the nodes."""
    before, ticks_before = ask_all(processes, "spent"), ticks()
    time.sleep(seconds)
    after, ticks_after = ask_all(processes, "spent"), ticks()
    idle, there = (late - early for early, late in zip(ticks_before, ticks_after, strict=True))
    rates: dict[str, list[float]] = {"cpu_s": [], "bytes": [], "frames": []}
    for early, late in zip(before, after, strict=True):
        for name, values in rates.items():
            values.append((late[name] - early[name]) / (late["at_s"] - early["at_s"]))
    found = {name: statistics.mean(values) for name, values in rates.items()}
    rss = statistics.mean(late["rss"] for late in after)
    return found | {"rss": rss, "idle_share": idle / there}


def measure(count: int, seconds: float) -> dict[int, dict[str, float]]:
    """Start so many processes; measure them at rest, and at each rate of writes of them all."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    environment = os.environ | {"BENCH_TOKEN": os.urandom(8).hex()}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", str(index), json.dumps(addresses)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for index in range(count)
    ]  # fmt: skip
    try:
        for process in processes:
            assert hear(process) == "ready"
        time.sleep(SETTLE_S)
        found = {0: window(processes, seconds)}
        for rate in WRITES_PER_S:
            # All begin within the time between two writes of one of them, and go on until stopped.
            ask_all(processes, f"write {rate / count} {10 * seconds + 60}")
            time.sleep(2.0)
            found[rate] = window(processes, seconds)
            ask_all(processes, "stop")
            time.sleep(1.0)
        return found
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def row(count: int, rate: int, found: dict[str, float]) -> dict[str, Any]:
    planned = plan(Load(nodes=count, writes_per_s=rate))
    node = planned.node
    return {
        "n": count, "writes_per_s": rate,
        "bytes_per_s": found["bytes"], "planned_bytes": node.bytes_per_s,
        "cpu_ms_per_s": found["cpu_s"] * 1000, "planned_cpu_ms": node.cpu_ms_per_s,
        "memory_mb": found["rss"] / 1e6, "planned_mb": node.memory_bytes / 1e6,
        "frames_per_s": found["frames"], "planned_frames": node.frames_per_s,
        "idle_share": found["idle_share"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--counts", default="3,20,40")
    parser.add_argument("--quick", action="store_true", help="shorter, and no figures are kept")
    given = parser.parse_args()
    if given.child:
        asyncio.run(child(int(given.child[0]), json.loads(given.child[1])))
        return
    rows = []
    for count in map(int, given.counts.split(",")):
        found = measure(count, 5.0 if given.quick else 20.0)
        rows += [row(count, rate, figures) for rate, figures in found.items()]
        for each in rows[-len(found) :]:
            print(
                f"n = {count:>3} {each['writes_per_s']:>3} writes/s "
                f"{each['bytes_per_s']:>9,.0f} B/s "
                f"(planned {each['planned_bytes']:,.0f}) {each['cpu_ms_per_s']:>6.1f} ms/s "
                f"(planned {each['planned_cpu_ms']:.1f}) {each['memory_mb']:>5.0f} MB "
                f"(planned {each['planned_mb']:.0f}) {each['frames_per_s']:.1f} frames/s, "
                f"{each['idle_share']:.0%} of the cores idle",
                flush=True,
            )
    import bench_transports  # here, so that nodes do not load NATS for it

    with tempfile.TemporaryDirectory() as folder:
        seconds = 2.0 if given.quick else 10.0
        spread_ms = bench_transports.measure("tcp", seconds=seconds, folder=Path(folder))[
            "spread_p50_ms"
        ]
    planned_ms = plan(Load(nodes=3)).spread_ms
    print(f"n =   3 a write is everywhere after {spread_ms:.2f} ms (planned {planned_ms:.2f})")
    if not given.quick:
        spread = {"n": 3, "p50_ms": spread_ms, "planned_ms": planned_ms}
        machine = {"python": platform.python_version(), "cores": os.cpu_count()}
        path = RESULTS / "bench_plan.json"
        path.write_text(
            json.dumps({"machine": machine, "rows": rows, "spread": spread}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
