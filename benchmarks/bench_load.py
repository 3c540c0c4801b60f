"""Requests of `/route` over HTTP at an even rate, on one node of three: latency, CPU, memory.

    python benchmarks/bench_load.py [--quick] [--hash] [--rate 1500] [--seconds 30]
    python benchmarks/bench_load.py --soak [--seconds 600] [--tree 20000000]

Caveats first: this program and the three nodes share the cores and the loopback of one machine.
CPU time is what the kernel booked for all threads of a process, less what the node does at rest;
latency and the watchdog's record depend on what else the machine does, so how long the nodes
waited for a processor is told beside, and `--nice -15` lets them come before it. A request is
timed from when it was due, not from when it could be sent. 70 % of each prompt is one of 20
beginnings, the rest is new; 8 workers take them. The soak fills a tree with `--rate`, and keeps
200 and then 1,000 requests a second on it, each for `--seconds`: memory is told at the end of each
fifth of that time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import selectors
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from meshlib_server.commands.processes import MODEL, Node, make_nodes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz      etaoin"
CONNECTIONS: Final = 32
WORKERS: Final = 8
SHARED_PART: Final = 0.7
SLICE: Final = 400
FILL_RATE: Final = 1200
SOAK_RATES: Final = (200, 1000)


class Prompts:
    """Makes prompts cheaply: slices of one long text behind one of 20 beginnings."""

    def __init__(self, size: int, *, seed: int = 1) -> None:
        self.size = size
        self._rng = random.Random(seed)
        self._pool = "".join(self._rng.choices(ALPHABET, k=1_000_000)).encode()
        self._rest = size - int(size * SHARED_PART)
        self._beginnings = [self._text(size - self._rest) for _ in range(20)]

    def _text(self, size: int) -> bytes:
        rng, pool = self._rng.random, self._pool
        whole = [SLICE] * (size // SLICE) + [size % SLICE]
        begins = [int(rng() * (len(pool) - SLICE)) for _ in whole]
        return b"".join([pool[at : at + length] for at, length in zip(begins, whole, strict=True)])

    def next(self) -> bytes:
        """Return the next one, in ASCII."""
        return self._beginnings[int(self._rng.random() * 20)] + self._text(self._rest)


class Load:
    """Sends requests at an even rate over some connections, and takes their times."""

    def __init__(self, node: Node, prompts: Prompts) -> None:
        self._prompts = prompts
        self._head = (
            f"POST /mesh/route/{MODEL} HTTP/1.1\r\nHost: {node.host}\r\n"
            f"Authorization: Bearer {node.token}\r\nContent-Type: application/json\r\n"
        ).encode()
        self._selector = selectors.DefaultSelector()
        self._free: deque[socket.socket] = deque()
        for _ in range(CONNECTIONS):
            sock = socket.create_connection((node.host, node.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ)
            self._free.append(sock)
        self._due: dict[socket.socket, float] = {}
        self._begun: dict[socket.socket, bytes] = {}
        self.took_ms: list[float] = []
        self.failures: list[bytes] = []

    def close(self) -> None:
        """Close the connections."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def run(self, rate: float, seconds: float) -> None:
        """Send so many requests a second, for so long, and wait for the last answer."""
        begun, sent, count = time.perf_counter(), 0, int(rate * seconds)
        waiting: deque[float] = deque()
        while sent < count or self._due or waiting:
            now = time.perf_counter()
            while sent < count and begun + sent / rate <= now:
                waiting.append(begun + sent / rate)
                sent += 1
            while waiting and self._free:
                # Each in turn: one that is not used for long is closed by the node.
                self._send(self._free.popleft(), waiting.popleft())
            rest = begun + sent / rate - time.perf_counter() if sent < count else 1.0
            for key, _ in self._selector.select(max(rest, 0.0)):
                self._receive(key.fileobj)  # type: ignore[arg-type]

    def _send(self, sock: socket.socket, due: float) -> None:
        body = b'{"text":"%b"}' % self._prompts.next()
        sock.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
        self._due[sock] = due

    def _receive(self, sock: socket.socket) -> None:
        came = sock.recv(65536)
        if not came:
            raise ConnectionError("the node has closed a connection")
        answer = self._begun.pop(sock, b"") + came
        if not answer.endswith(b"}"):  # of an answer, a flat object: its end is to come
            self._begun[sock] = answer
            return
        self.took_ms.append((time.perf_counter() - self._due.pop(sock)) * 1000)
        if not answer.startswith(b"HTTP/1.1 200"):
            self.failures.append(answer[:200])
        self._free.append(sock)


def spent(node: Node) -> dict[str, float]:
    """Return what a process has spent and holds: seconds, and MB."""
    assert node.process is not None
    base = Path(f"/proc/{node.process.pid}")
    cpu = waited = 0
    for task in (base / "task").iterdir():
        on, off, _ = (task / "schedstat").read_text().split()
        cpu, waited = cpu + int(on), waited + int(off)
    pages = int((base / "statm").read_text().split()[1])
    return {
        "cpu_s": cpu / 1e9,
        "waited_s": waited / 1e9,
        "memory_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


METRICS: Final = {
    "suspicions": "meshlib_suspicions_total",
    "held": "meshlib_event_loop_held_total",
    "held_max_s": "meshlib_event_loop_held_max_seconds",
    "starved": "meshlib_event_loop_starved_total",
    "held_cpu_max_s": "meshlib_event_loop_held_cpu_max_seconds",
    "bytes_sent": 'meshlib_bytes_total{direction="sent"}',
}


def counted(node: Node) -> dict[str, float]:
    """Return what a node has counted."""
    with socket.create_connection((node.host, node.port)) as sock:
        head = f"GET /metrics HTTP/1.1\r\nHost: {node.host}\r\nConnection: close\r\n"
        sock.sendall(f"{head}Authorization: Bearer {node.token}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    found = dict(line.rsplit(" ", 1) for line in answer.splitlines() if line[:7] == "meshlib")
    return {name: float(found[metric]) for name, metric in METRICS.items()}


@contextlib.contextmanager
def cluster(settings: dict[str, object], tree: int | None, nice: int) -> Iterator[list[Node]]:
    """Run three nodes that see each other, with workers."""
    directory = Path(tempfile.mkdtemp(prefix="meshlib-bench-"))
    nodes = make_nodes(directory, settings=settings)
    try:
        for node in nodes:
            node.start()
            hurry(node.process, nice)
        hurry(None, nice)
        for node in nodes:
            wait_for_three(node)
        for number in range(WORKERS):
            body = {"model_id": MODEL, "url": f"http://w{number}:8000", "health": True, "load": 0.0}
            nodes[0].do("PUT", f"/mesh/workers/w{number}", body)
        if tree is not None:
            config = {"cache_threshold": 0.7, "max_tree_size": tree}
            policy = {"policy_type": "cache_aware", "config": json.dumps(config)}
            nodes[0].do("PUT", f"/mesh/policies/{MODEL}", policy)
        time.sleep(1.0)
        yield nodes
    finally:
        for node in nodes:
            node.stop()
        shutil.rmtree(directory, ignore_errors=True)


def hurry(process: Any, nice: int) -> None:
    """Let a process come before what else this machine does: Linux shares out by session."""
    path = Path(f"/proc/{'self' if process is None else process.pid}/autogroup")
    if nice and path.exists():
        path.write_text(str(nice))


def wait_for_three(node: Node) -> None:
    for _ in range(600):
        answer = node.get("/mesh/health")
        nodes = (node.get("/mesh/status") or {"nodes": []})["nodes"]
        if answer and answer["status"] == "healthy" and len(nodes) == 3:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{node.name} did not become ready")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def at_rest(nodes: list[Node], seconds: float) -> list[float]:
    """Return what each node takes of a processor when nothing is asked of it."""
    before = [spent(node)["cpu_s"] for node in nodes]
    time.sleep(seconds)
    return [(spent(node)["cpu_s"] - cpu) / seconds for node, cpu in zip(nodes, before, strict=True)]


def measure(
    nodes: list[Node], prompts: Prompts, *, rate: float, seconds: float, rest: list[float]
) -> dict[str, Any]:
    """Keep a rate on the first node, and return what that was like."""
    before, counts = [spent(node) for node in nodes], [counted(node) for node in nodes]
    load = Load(nodes[0], prompts)
    own = time.process_time()
    begun = time.perf_counter()
    load.run(rate, seconds)
    took_s = time.perf_counter() - begun
    own = time.process_time() - own
    load.close()
    after, later = [spent(node) for node in nodes], [counted(node) for node in nodes]
    count = len(load.took_ms)

    def per_request(position: int, name: str, idle: float = 0.0) -> float:
        return (after[position][name] - before[position][name] - idle * took_s) / count * 1000

    def grown(name: str) -> list[float]:
        return [new[name] - old[name] for new, old in zip(later, counts, strict=True)]

    return {
        "asked a second": rate,
        "answered a second": count / took_s,
        "failures": len(load.failures),
        "p50, ms": percentile(load.took_ms, 0.5),
        "p99, ms": percentile(load.took_ms, 0.99),
        "longest, ms": max(load.took_ms),
        "CPU a request at its node, ms": per_request(0, "cpu_s", rest[0]),
        "CPU a request at each peer, ms": [per_request(n, "cpu_s", rest[n]) for n in (1, 2)],
        "waited for a processor, share": [
            (new["waited_s"] - old["waited_s"]) / took_s
            for new, old in zip(after, before, strict=True)
        ],
        "CPU of this program, ms a request": own / count * 1000,
        "suspicions": sum(grown("suspicions")),
        "steps over 20 ms": grown("held"),
        "of these, had a processor for less": grown("starved"),
        "longest step since the start, ms": [new["held_max_s"] * 1000 for new in later],
        "most processor time of one, ms": [new["held_cpu_max_s"] * 1000 for new in later],
        "bytes sent a request, to both": grown("bytes_sent")[0] / count,
        "memory, MB": [new["memory_mb"] for new in after],
    }


def show(results: dict[str, Any]) -> None:
    """Print a row for each figure."""
    for name, figure in results.items():
        figures = figure if isinstance(figure, list) else [figure]
        print(f"  {name:40}" + "".join(f"{each:>12,.3f}" for each in figures), flush=True)


def soak(
    nodes: list[Node], prompts: Prompts, *, tree: int, seconds: float, rest: list[float]
) -> dict[str, Any]:
    """Fill a tree, then keep two rates on it; return the figures of each, and of its fifths."""
    new_characters = prompts.size * (1 - SHARED_PART)
    fill_s = 1.2 * tree / new_characters / FILL_RATE
    print(f"filling a tree of {tree:,} characters: {fill_s:.0f} s", flush=True)
    results: dict[str, Any] = {
        "filling": measure(nodes, prompts, rate=FILL_RATE, seconds=fill_s, rest=rest)
    }
    for rate in SOAK_RATES:
        fifths = [
            measure(nodes, prompts, rate=rate, seconds=seconds / 5, rest=rest) for _ in range(5)
        ]
        for number, fifth in enumerate(fifths, start=1):
            results[f"{rate:,} a second, fifth {number}"] = fifth
            print(f"{rate:,} a second, fifth {number}", flush=True)
            show(fifth)
    return results


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short, to see that it runs")
    parser.add_argument("--soak", action="store_true", help="200 and 1,000 a second, for long")
    parser.add_argument("--rate", type=float, default=1500.0, help="requests a second")
    parser.add_argument("--seconds", type=float, help="for so long: 30, and in a soak 60 per rate")
    parser.add_argument("--characters", type=int, default=8000, help="of each prompt")
    parser.add_argument("--hash", action="store_true", help="with prefix_sync: hash")
    parser.add_argument("--nice", type=int, default=0, help="priority: -15 on a busy machine")
    parser.add_argument("--tree", type=int, default=20_000_000, help="max_tree_size of a soak")
    return parser.parse_args()


def main() -> None:
    arguments = arguments_of()
    settings: dict[str, object] = {"prefix_sync": "hash"} if arguments.hash else {}
    prompts = Prompts(arguments.characters)
    seconds = arguments.seconds or (60.0 if arguments.soak else 30.0)
    if arguments.quick:
        seconds = min(seconds, 5.0)
    tree = arguments.tree if arguments.soak else None
    with cluster(settings, tree, arguments.nice) as nodes:
        rest = at_rest(nodes, 3.0)
        # What is asked first fills the tree's beginnings and the caches of the interpreter.
        measure(nodes, prompts, rate=200, seconds=2.0, rest=rest)
        if tree is not None:
            results = soak(nodes, prompts, tree=tree, seconds=seconds, rest=rest)
        else:
            label = f"{arguments.rate:,.0f} a second{', hash' if arguments.hash else ''}"
            results = {
                label: measure(nodes, prompts, rate=arguments.rate, seconds=seconds, rest=rest)
            }
            show(results[label])
    if not arguments.quick:
        keep(results)


def keep(results: dict[str, Any]) -> None:
    """Write the figures to the file of this benchmark, beside those of other runs."""
    path = RESULTS / "bench_load.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept |= {"python": platform.python_version(), "machine": f"{os.cpu_count()} cores", **results}
    path.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
