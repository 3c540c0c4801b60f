"""Three nodes over each transport: time to spread, processor time, and bytes.

    python benchmarks/bench_transports.py [--quick]

Caveats first: the three nodes, the server of NATS and this program share one machine's cores and
its loopback, and no transport is encrypted. A write is timed from before it is made until the
last of the two other nodes holds it, on the one monotonic clock that Linux gives to all processes.
Bytes are those of frames, without what TCP, WebSockets or NATS put around them. Over NATS
each frame is read by the server too, whose processor time is told beside.

`bridged` is a writer and a bridge in one region, over TCP, and a bridge in another one behind NATS:
a write is everywhere when it has gone by both. `memory` is three nodes in one process, on
one event loop, with a third of its processor time for each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import (
    BridgedTransport,
    MemoryNetwork,
    NatsTransport,
    Regions,
    TcpTransport,
    Transport,
    WebSocketTransport,
)
from meshlib.crdt import LWWMap
from meshlib_server.commands.nats import NatsServer
from meshlib_server.commands.processes import free_ports

RESULTS = Path(__file__).resolve().parent / "results"
KINDS = ("tcp", "websocket", "nats", "bridged")
REGION_OF = ("here", "here", "there")
WRITES_PER_S = 20
SETTLE_S = 2.0


# A node in a process of its own


def transport_of(kind: str, index: int, addresses: list[str], server: str, token: str) -> Transport:
    """Make the transport of a node."""
    address = addresses[index]
    if kind == "tcp":
        return TcpTransport(address, token=token)
    if kind == "websocket":
        return WebSocketTransport(address, token=token)
    # The token of NATS is this program's own, for as long as it runs.
    nats = NatsTransport(address, servers=[server], token=token)
    if kind == "nats":
        return nats
    regions = Regions({"here": addresses[:2], "there": addresses[2:]}, bridges=addresses[1:])
    return BridgedTransport(
        TcpTransport(address, token=token), region=REGION_OF[index], regions=regions,
        between=nats if index else None,
    )  # fmt: skip


def _set(key: str, state: Any, context: Any) -> Any:
    return state.set(key, 1, stamp=context.stamp(), sequence=context.sequence)


class Node:
    """One node: writes what it is told to, and notes when each key came."""

    def __init__(self, runtime: MeshRuntime) -> None:
        self.runtime = runtime
        self.came_at: dict[str, float] = {}

    def note(self) -> bool:
        """Note the keys that are new; False, so that it is asked again at every step."""
        replica, now = self.runtime.node.replica, time.monotonic()
        state = replica.get("app") if "app" in replica.documents() else None
        # One node writes them, in this order, and in this order they are taken in.
        while isinstance(state, LWWMap) and state.get(key := f"k{len(self.came_at)}") is not None:
            self.came_at[key] = now
        return False

    async def write(self, count: int) -> dict[str, float]:
        """Write so many keys at an even pace, and return when each was begun."""
        replica, began = self.runtime.node.replica, {}
        replica.open("app", type_tag="lww_map")
        for number in range(count):
            key = f"k{number}"
            began[key] = time.monotonic()
            replica.write("app", partial(_set, key))
            self.runtime.wake()
            await asyncio.sleep(1 / WRITES_PER_S)
        return began

    def spent(self) -> dict[str, float]:
        """Return what the process has spent since its start."""
        counters = self.runtime.transport.counters
        return {
            "cpu_s": time.process_time(), "at_s": time.monotonic(),
            "bytes": counters.bytes_sent, "frames": counters.frames_sent,
        }  # fmt: skip


async def child(kind: str, index: int, addresses: list[str], server: str) -> None:
    """Run one node, and answer a line for each line of input."""
    token = os.environ["BENCH_TOKEN"]
    runtime = MeshRuntime(
        MeshConfig(name=f"node-{index}", region=REGION_OF[index] if kind == "bridged" else ""),
        transport=transport_of(kind, index, addresses, server, token),
        seeds=[address for address in addresses if address != addresses[index]],
    )
    async with runtime:
        await runtime.wait_ready()
        await runtime.wait_until(lambda: len(runtime.node.members()) == 3, timeout_s=30)
        node = Node(runtime)
        noting = asyncio.create_task(runtime.wait_until(node.note))
        print("ready", flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            verb, _, rest = line.partition(" ")
            answer: Any = node.spent() if verb == "spent" else node.came_at
            if verb == "write":
                answer = await node.write(int(rest))
            print(json.dumps(answer), flush=True)
        noting.cancel()


async def in_memory(seconds: float) -> dict[str, Any]:
    """Measure three nodes of this process: at rest, and while one writes."""
    network, addresses = MemoryNetwork(), [f"node-{index}:1" for index in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for address in addresses:
            runtime = MeshRuntime(
                MeshConfig(name=address.partition(":")[0], address=address),
                transport=network.transport(address),
                seeds=[other for other in addresses if other != address],
            )
            nodes.append(Node(await stack.enter_async_context(runtime)))
        for node in nodes:
            await node.runtime.wait_ready()
        noting = [asyncio.create_task(n.runtime.wait_until(n.note)) for n in nodes[1:]]
        await asyncio.sleep(SETTLE_S)
        spent = [[node.spent() for node in nodes]]
        await asyncio.sleep(seconds)
        spent.append([node.spent() for node in nodes])
        began = await nodes[0].write(math.ceil(seconds * WRITES_PER_S))
        spent.append([node.spent() for node in nodes])
        await asyncio.sleep(SETTLE_S)
        for task in noting:
            task.cancel()
    rest, writing = (cost(early, late) for early, late in itertools.pairwise(spent))
    for each in (rest, writing):
        each["cpu_ms_per_node_s"] /= 3  # each of them was told what the process has spent
    return row(began, [node.came_at for node in nodes[1:]], rest, writing)


# The measurement


def cost(before: list[dict[str, float]], after: list[dict[str, float]]) -> dict[str, float]:
    """Return what was spent, for a node and second."""
    pairs = list(zip(before, after, strict=True))
    seconds = statistics.mean(late["at_s"] - early["at_s"] for early, late in pairs)

    def per_node_second(name: str) -> float:
        spent: float = sum(late[name] - early[name] for early, late in pairs)
        return spent / len(pairs) / seconds

    return {
        "cpu_ms_per_node_s": per_node_second("cpu_s") * 1000,
        "bytes_per_node_s": per_node_second("bytes"),
        "frames_per_node_s": per_node_second("frames"),
    }


def row(
    began: dict[str, float], came: list[dict[str, float]], rest: Any, writing: Any
) -> dict[str, Any]:
    """Return how long writes took until the others had them, and what it cost."""
    missing = sum(key not in seen for seen in came for key in began)
    assert not missing, f"{missing} writes have not come within {SETTLE_S} s"
    spread = sorted(max(seen[key] for seen in came) - at for key, at in began.items())
    return {
        "writes": len(began),
        "spread_p50_ms": spread[len(spread) // 2] * 1000,
        "spread_p99_ms": spread[min(len(spread) - 1, math.ceil(len(spread) * 0.99) - 1)] * 1000,
        "rest": rest,
        "writing": writing,
    }


class Process:
    """A node as this program sees it."""

    def __init__(self, kind: str, index: int, addresses: list[str], server: str) -> None:
        command = [sys.executable, __file__, "--child", kind, str(index), server, *addresses]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "BENCH_TOKEN": "of-this-benchmark"},
        )  # fmt: skip

    def read(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"a node ended with exit code {self.process.wait()}")
        return line

    def ask(self, line: str) -> Any:
        """Give it a line, and return its answer."""
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return json.loads(self.read())

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)


def cpu_of(server: NatsServer) -> float:
    """Return the processor time of a process in seconds; Linux."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return float((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


def spend(
    nodes: list[Process], server: NatsServer | None, work: Any
) -> tuple[Any, dict[str, float]]:
    """Do something, and return what came of it and what it cost, for a node and second."""
    before, server_before = [n.ask("spent") for n in nodes], cpu_of(server) if server else 0.0
    answer = work()
    after, server_after = [n.ask("spent") for n in nodes], cpu_of(server) if server else 0.0
    found = cost(before, after)
    seconds = statistics.mean(b["at_s"] - a["at_s"] for a, b in zip(before, after, strict=True))
    return answer, found | {"nats_cpu_ms_per_s": (server_after - server_before) / seconds * 1000}


def measure(kind: str, *, seconds: float, folder: Path) -> dict[str, Any]:
    """Measure one transport: at rest, and while one node writes."""
    ports, server = free_ports(4), None
    url = f"nats://of-nats@127.0.0.1:{ports[3]}"
    if kind in {"nats", "bridged"}:
        server = NatsServer(folder, port=ports[3], token="of-nats")
        server.start()
    addresses = [f"127.0.0.1:{port}" for port in ports[:3]]
    nodes = [Process(kind, index, addresses, url) for index in range(3)]
    try:
        for node in nodes:
            assert node.read() == "ready"
        time.sleep(SETTLE_S)
        _, rest = spend(nodes, server, lambda: time.sleep(seconds))
        count = math.ceil(seconds * WRITES_PER_S)
        began, writing = spend(nodes, server, lambda: nodes[0].ask(f"write {count}"))
        time.sleep(SETTLE_S)
        came = [node.ask("came") for node in nodes[1:]]
    finally:
        for node in nodes:
            node.stop()
        if server is not None:
            server.stop()
    return row(began, came, rest, writing)


def report(rows: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    print(f"\n{'':10} {'spread p50':>11} {'p99':>9}   at rest, a node and second     writing")
    for kind, row in rows.items():
        rest, writing = row["rest"], row["writing"]
        print(
            f"{kind:10} {row['spread_p50_ms']:8.2f} ms {row['spread_p99_ms']:6.2f} ms"
            f"   {rest['bytes_per_node_s']:6.0f} B {rest['cpu_ms_per_node_s']:6.1f} ms CPU"
            f"   {writing['bytes_per_node_s']:10.0f} B {writing['cpu_ms_per_node_s']:6.1f} ms CPU"
        )
    at_rest, busy = (rows["nats"][name]["nats_cpu_ms_per_s"] for name in ("rest", "writing"))
    print(f"the server of NATS: {at_rest:.1f} ms CPU a second at rest, {busy:.1f} while one writes")


def main() -> None:
    """Measure all, print the table, and keep the figures."""
    parser = argparse.ArgumentParser(description="Memory, TCP, WebSockets, NATS and bridges.")
    parser.add_argument("--quick", action="store_true", help="two seconds each; keeps nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, index, server, *addresses = arguments.child
        asyncio.run(child(kind, int(index), addresses, server))
        return
    seconds = 2.0 if arguments.quick else 10.0
    rows = {"memory": asyncio.run(in_memory(seconds))}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            rows[kind] = measure(kind, seconds=seconds, folder=Path(folder))
    report(rows)
    if not arguments.quick:
        machine = {
            "python": platform.python_version(), "cores": os.cpu_count(),
            "nats-py": version("nats-py"), "load": os.getloadavg()[0],
        }  # fmt: skip
        text = json.dumps({"machine": machine, "transports": rows}, indent=1)
        (RESULTS / "bench_transports.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
