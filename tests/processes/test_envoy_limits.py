"""Three nodes, three real Envoys before them, and one limit for all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from support.real_envoy import ROOT, envoy_binary, real_envoy
from support.servers import Launcher, Node, eventually

EXAMPLE = ROOT / "examples" / "envoy" / "limits.yaml"
LIMIT = 30
SECONDS = 3
RULES = f"""
domain: llm
descriptors:
  - key: api_key
    rate_limit: {{unit: second, requests_per_unit: {LIMIT}}}
"""

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def worker(port: int) -> AsyncIterator[None]:
    """Answer every request with two letters."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def offer(front: int, key: str, *, rate: float, until: float) -> Counter[tuple[int, int]]:
    """Offer requests at a rate; return how many had each status in each second of the clock.

    The second is the one in which the answer came.
    """
    seen: Counter[tuple[int, int]] = Counter()
    tasks: list[asyncio.Task[None]] = []
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{front}", trust_env=False, timeout=10.0
    ) as client:

        async def one() -> None:
            answer = await client.get("/v1/models", headers={"x-api-key": key})
            seen[int(time.time()), answer.status_code] += 1

        at = time.time()
        while at < until:
            tasks.append(asyncio.create_task(one()))
            at += 1 / rate
            await asyncio.sleep(max(0.0, at - time.time()))
        await asyncio.gather(*tasks)
    return seen


def _sees_all(node: Node) -> bool:
    return len(node.statuses()) == 3


@pytest.fixture
def nodes(own_launcher: Launcher, tmp_path: Path) -> list[tuple[Node, int]]:
    """Three nodes, and the port of each for an Envoy."""
    envoy_binary()
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    ports = own_launcher.free_ports(6)
    names = ("n1", "n2", "n3")
    made = []
    for name, port, grpc_port in zip(names, ports[:3], ports[3:], strict=True):
        environment = {
            "MESH_ENVOY_LISTEN": f"127.0.0.1:{grpc_port}",
            "MESH_ENVOY_RULES": str(rules),
        }
        peers = [other for other in ports[:3] if other != port]
        node = own_launcher.node(name, port=port, peers=peers, environment=environment)
        node.spawn()
        made.append((node, grpc_port))
    for node, _ in made:
        node.await_answer()
        eventually(node.is_ready, f"{node.name} is ready")
        eventually(partial(_sees_all, node), f"{node.name} sees all")
    return made


def test_one_limit_holds_over_three_envoys(
    nodes: list[tuple[Node, int]], own_launcher: Launcher, tmp_path: Path
) -> None:
    """What is offered over a limit is admitted up to it, and what is under it passes whole."""
    worker_port, *free = own_launcher.free_ports(7)
    fronts = free[:3]

    async def case() -> None:
        async with worker(worker_port):
            for key in ("busy", "calm"):  # the first second in which all have met the key
                first = [offer(port, key, rate=5, until=time.time() + 1) for port in fronts]
                await asyncio.gather(*first)
            begins = int(time.time()) + 2
            await asyncio.sleep(begins - time.time())
            ends = float(begins + SECONDS)
            results = await asyncio.gather(
                *(offer(port, "busy", rate=LIMIT, until=ends) for port in fronts),
                *(offer(port, "calm", rate=LIMIT / 9, until=ends) for port in fronts),
            )
        busy, calm = sum(results[:3], Counter()), sum(results[3:], Counter())
        admitted = sum(count for (_, status), count in busy.items() if status == 200)
        windows = len({second for second, _ in busy})
        assert {200, 429} == {status for _, status in busy}
        assert admitted <= LIMIT * windows
        assert admitted >= LIMIT * SECONDS * 0.9
        assert {200} == {status for _, status in calm}

    with contextlib.ExitStack() as stack:
        for (_, grpc_port), front, admin in zip(nodes, fronts, free[3:], strict=True):
            ports = {10000: front, 9901: admin, 8081: grpc_port, 8001: worker_port}
            stack.enter_context(real_envoy(EXAMPLE, tmp_path, ports=ports, admin=admin))
        asyncio.run(case())
