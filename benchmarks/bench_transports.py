"""Three processes over TCP, WebSockets and NATS: time to spread, processor time, and bytes.

    python benchmarks/bench_transports.py [--quick]

Caveats first: the three nodes, the server of NATS and this program share one machine's cores and
its loopback, and no transport is encrypted. A write is timed from before it is made until the
last of the two other nodes holds it, on the one monotonic clock that Linux gives to all processes.
Bytes are those of frames, without what TCP, WebSockets or NATS put around them. Over NATS
each frame is read by the server too, whose processor time is told beside.
"""

from __future__ import annotations

import argparse
import asyncio
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
from meshlib.aio import NatsTransport, TcpTransport, Transport, WebSocketTransport
from meshlib.crdt import LWWMap
from meshlib_server.commands.nats import NatsServer
from meshlib_server.commands.processes import free_ports

RESULTS = Path(__file__).resolve().parent / "results"
KINDS = ("tcp", "websocket", "nats")
WRITES_PER_S = 20
SETTLE_S = 2.0


# A node in a process of its own


def transport_of(kind: str, address: str, server: str, token: str) -> Transport:
    """Make the transport of a node."""
    if kind == "tcp":
        return TcpTransport(address, token=token)
    if kind == "websocket":
        return WebSocketTransport(address, token=token)
    # The token of NATS is this program's own, for as long as it runs.
    return NatsTransport(address, servers=[server], token=token)


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
        MeshConfig(name=f"node-{index}"),
        transport=transport_of(kind, addresses[index], server, token),
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


# The measurement


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
    seconds: float = statistics.mean(
        b["at_s"] - a["at_s"] for a, b in zip(before, after, strict=True)
    )

    def per_node_second(name: str) -> float:
        spent: float = sum(b[name] - a[name] for a, b in zip(before, after, strict=True))
        return spent / len(nodes) / seconds

    return answer, {
        "cpu_ms_per_node_s": per_node_second("cpu_s") * 1000,
        "bytes_per_node_s": per_node_second("bytes"),
        "frames_per_node_s": per_node_second("frames"),
        "nats_cpu_ms_per_s": (server_after - server_before) / seconds * 1000,
    }


def measure(kind: str, *, seconds: float, folder: Path) -> dict[str, Any]:
    """Measure one transport: at rest, and while one node writes."""
    ports, server = free_ports(4), None
    url = f"nats://of-nats@127.0.0.1:{ports[3]}"
    if kind == "nats":
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
    missing = sum(key not in seen for seen in came for key in began)
    assert not missing, f"{missing} writes have not come within {SETTLE_S} s"
    spread = sorted(max(seen[key] for seen in came) - at for key, at in began.items())
    return {
        "writes": count,
        "spread_p50_ms": spread[len(spread) // 2] * 1000,
        "spread_p99_ms": spread[min(len(spread) - 1, math.ceil(len(spread) * 0.99) - 1)] * 1000,
        "rest": rest,
        "writing": writing,
    }


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
    parser = argparse.ArgumentParser(description="TCP, WebSockets and NATS.")
    parser.add_argument("--quick", action="store_true", help="two seconds each; keeps nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, index, server, *addresses = arguments.child
        asyncio.run(child(kind, int(index), addresses, server))
        return
    seconds, rows = 2.0 if arguments.quick else 10.0, {}
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
