"""Three real processes: propagation, detection, restoration, and the cost of one request.

    python benchmarks/bench_cluster.py [--quick]

Caveats first: client and all three nodes share this machine's cores and its loopback, so every
figure includes the client's own work and what else the machine does; compare ratios and
medians. The marks beside the figures are of upstream 1.4.1 on the same work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from meshlib_server.commands.demo import Node, make_nodes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
KEY_COUNT = 10_000
LIVED_S = 2.5


class Caller:
    """One kept-alive connection to a node."""

    def __init__(self, node: Node) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
        self._headers = {
            "Authorization": f"Bearer {node.token}",
            "Content-Type": "application/json",
        }

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, path, payload, self._headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def json(self, path: str) -> Any:
        status, data = self.call("GET", path)
        assert status == 200, (status, data)
        return json.loads(data)

    def close(self) -> None:
        self._connection.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def wait_until(condition: Callable[[], bool], *, limit_s: float = 30.0) -> float:
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > limit_s:
            raise TimeoutError("the cluster did not get there")
        time.sleep(0.002)
    return time.perf_counter() - start


def alive_count(node: Node) -> int:
    answer = node.get("/mesh/status") or {"nodes": []}
    return sum(member["status"] == "Alive" for member in answer["nodes"])


@contextlib.contextmanager
def cluster() -> Iterator[list[Node]]:
    directory = Path(tempfile.mkdtemp(prefix="meshlib-bench-"))
    nodes = make_nodes(directory)
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            wait_until(partial(lambda node: alive_count(node) == 3, node))
        yield nodes
    finally:
        for node in nodes:
            node.stop()
        shutil.rmtree(directory, ignore_errors=True)


def measure_propagation(nodes: list[Node], count: int) -> dict[str, float]:
    """Time from the answer to a POST on one node until both others answer its GET."""
    callers = [Caller(node) for node in nodes]
    taken_ms = []
    for index in range(count):
        key = f"propagation-{index}"
        status, _ = callers[0].call("POST", "/mesh/config", {"key": key, "value": "74727565"})
        start = time.perf_counter()
        assert status == 200
        waiting = callers[1:]
        while waiting:
            waiting = [c for c in waiting if c.call("GET", f"/mesh/config/{key}")[0] != 200]
        taken_ms.append((time.perf_counter() - start) * 1000)
    for caller in callers:
        caller.close()
    return {"p50_ms": percentile(taken_ms, 0.5), "p99_ms": percentile(taken_ms, 0.99)}


def sent_bytes(caller: Caller) -> float:
    """Return the bytes of frames that a node has sent, as its metrics tell it."""
    status, text = caller.call("GET", "/metrics")
    assert status == 200
    found = re.search(
        r'^meshlib_transport_bytes_total\{[^}]*"sent"[^}]*\} (\S+)$', text.decode(), re.MULTILINE
    )
    assert found is not None, text
    return float(found[1])


def measure_rest(nodes: list[Node], seconds: float) -> dict[str, float]:
    """Return the bytes of frames that a node sends in a second while nothing is asked of it."""
    callers = [Caller(node) for node in nodes]
    time.sleep(3.0)
    start, before = time.perf_counter(), [sent_bytes(caller) for caller in callers]
    time.sleep(seconds)
    taken_s = time.perf_counter() - start
    rates = [
        (sent_bytes(caller) - early) / taken_s
        for caller, early in zip(callers, before, strict=True)
    ]
    for caller in callers:
        caller.close()
    return {"bytes_per_s": statistics.mean(rates), "bytes_max_per_s": max(rates)}


def measure_detection(nodes: list[Node], count: int) -> dict[str, float]:
    """Time from kill -9 until both others show Suspected (or worse), and until Down."""
    suspected_s, down_s = [], []
    victim = nodes[2]
    for _ in range(count):
        # A link that broke within its first second counts as a failed dial, and is dialled anew
        # only after a pause: a process that ends as soon as it has begun is not what is asked.
        time.sleep(LIVED_S)
        callers = [Caller(node) for node in nodes[:2]]
        assert victim.process is not None
        victim.process.kill()
        start = time.perf_counter()
        victim.process.wait()

        def shown(callers: list[Caller] = callers) -> set[str]:
            return {
                member["status"]
                for caller in callers
                for member in caller.json("/mesh/status")["nodes"]
                if member["name"] == victim.name
            }

        wait_until(partial(lambda shown: "Alive" not in shown(), shown))
        suspected_s.append(time.perf_counter() - start)
        wait_until(partial(lambda shown: shown() == {"Down"}, shown))
        down_s.append(time.perf_counter() - start)
        for caller in callers:
            caller.close()
        victim.start()
        for node in nodes:
            wait_until(partial(lambda node: alive_count(node) == 3, node))
    return {
        "suspected_median_s": statistics.median(suspected_s),
        "suspected_max_s": max(suspected_s),
        "down_median_s": statistics.median(down_s),
        "down_max_s": max(down_s),
    }


async def fill(node: Node, count: int) -> None:
    """Write many keys over a few kept-alive connections."""

    async def write(start: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        for index in range(start, count, 8):
            body = json.dumps({"key": f"restored-{index}", "value": f"{index:08x}"})
            head = (
                f"POST /mesh/config HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                f"Authorization: Bearer {node.token}\r\nContent-Type: application/json\r\n\r\n"
            )
            writer.write((head + body).encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            await reader.readexactly(content_length(answer))
        writer.close()

    await asyncio.gather(*(write(start) for start in range(8)))


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    raise ValueError("no content-length")


def measure_restoration(nodes: list[Node], repeats: int) -> dict[str, float]:
    """Time from the start of a fresh process until it holds every key again."""
    asyncio.run(fill(nodes[0], KEY_COUNT))
    wanted = nodes[0].get("/mesh/status")["stores"]["app_count"]
    victim = nodes[2]
    from_start_s, from_listening_s = [], []
    for _ in range(repeats):
        assert victim.process is not None
        victim.process.kill()
        victim.process.wait()
        start = time.perf_counter()
        victim.start()
        wait_until(lambda: victim.get("/mesh/status") is not None)
        listening = time.perf_counter()
        wait_until(lambda: victim.get("/mesh/status")["stores"]["app_count"] == wanted)
        end = time.perf_counter()
        from_start_s.append(end - start)
        from_listening_s.append(end - listening)
    return {
        "keys": wanted,
        "from_process_start_s": statistics.median(from_start_s),
        "from_listening_s": statistics.median(from_listening_s),
    }


async def load(port: int, path: str, token: str, duration_s: float, connections: int = 16) -> float:
    """Return requests a second over kept-alive connections."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    done = 0
    end = time.perf_counter() + duration_s

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(content_length(head))
            done += 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return done / (time.perf_counter() - start)


def measure_status(nodes: list[Node], rounds: int, duration_s: float) -> dict[str, float]:
    """Requests a second of GET /mesh/status against a bare route with the same body."""
    _, body = Caller(nodes[0]).call("GET", "/mesh/status")
    port = free_port()
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        bare = subprocess.Popen([sys.executable, str(HERE / "bare_route.py"), str(port), file.name])
        try:
            wait_until(lambda: is_listening(port))
            ours, theirs, ratios = [], [], []
            for _ in range(rounds):
                mesh = asyncio.run(load(nodes[0].port, "/mesh/status", nodes[0].token, duration_s))
                plain = asyncio.run(load(port, "/status", "none", duration_s))
                ours.append(mesh)
                theirs.append(plain)
                ratios.append(mesh / plain)
        finally:
            bare.terminate()
            bare.wait()
    return {
        "mesh_status_rps": statistics.median(ours),
        "bare_route_rps": statistics.median(theirs),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def is_listening(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/status")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def report(results: dict[str, dict[str, float]]) -> None:
    spread, found = results["propagation"], results["detection"]
    kept, cost = results["restoration"], results["status"]
    rows = [
        ("a node at rest sends", f"{results['rest']['bytes_per_s']:.0f} B/s", "600 B/s", ""),
        ("configuration reaches both others, p50", f"{spread['p50_ms']:.1f} ms", "10 ms", "990 ms"),
        ("configuration reaches both others, p99", f"{spread['p99_ms']:.1f} ms", "50 ms", ""),
        ("kill -9 to Suspected on both", f"{found['suspected_median_s']:.2f} s", "", "0.6 s"),
        ("kill -9 to Down on both", f"{found['down_median_s']:.2f} s", "0.8 s", "2.7 s"),
        ("kill -9 to Down on both, worst", f"{found['down_max_s']:.2f} s", "0.8 s", ""),
        (f"{kept['keys']:,} keys restored, from process start",
         f"{kept['from_process_start_s']:.2f} s", "2 s", ""),
        ("the same, from the first answer", f"{kept['from_listening_s']:.2f} s", "", ""),
        ("GET /mesh/status", f"{cost['mesh_status_rps']:,.0f} /s", "", ""),
        ("a bare Starlette route", f"{cost['bare_route_rps']:,.0f} /s", "", ""),
        ("ratio of the two, median", f"{cost['ratio_median']:.2f}", "0.80", ""),
    ]  # fmt: skip
    print(f"\n{'':54}{'measured':>12}{'mark':>10}{'upstream':>10}")
    for what, measured, mark, upstream in rows:
        print(f"{what:54}{measured:>12}{mark:>10}{upstream:>10}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, to see that it runs")
    quick = parser.parse_args().quick
    results: dict[str, Any] = {}
    load_before = os.getloadavg()[0]
    with cluster() as nodes:
        results["rest"] = measure_rest(nodes, 3.0 if quick else 20.0)
        results["propagation"] = measure_propagation(nodes, 40 if quick else 200)
        results["detection"] = measure_detection(nodes, 2 if quick else 10)
        results["status"] = measure_status(nodes, 2 if quick else 7, 0.5 if quick else 2.0)
        results["restoration"] = measure_restoration(nodes, 1 if quick else 5)
    report(results)
    results["load"] = {"cores": os.cpu_count(), "before": load_before, "after": os.getloadavg()[0]}
    results["versions"] = {
        "python": platform.python_version(),
        **{name: version(name) for name in ("meshlib-crdt", "starlette", "uvicorn", "websockets")},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "bench_cluster.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
