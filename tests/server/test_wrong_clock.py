"""Three nodes of which one's wall clock is set wrong while they run: what its callers are told."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

import httpx2
from attrs import define

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib_server.app import build_app, http_routes
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.describing import Scope
from meshlib_server.resources import operations_of
from meshlib_server.service import Service

OPEN = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)
NAMES = ("a", "b", "c")

DECISIONS = {
    "post /rate-limit/acquire",
    "post /rate-limit/refund",
    "post /rate-limit/reserve",
    "post /rate-limit/reset",
    "post /rate-limit/settle",
    "post /route/{model_id}",
    "post /route/{model_id}/complete",
    "post /route/{model_id}/first_token",
    "post /route/{model_id}/renew",
    "post /shutdown",
    "post /slots/acquire",
    "post /slots/release",
    "post /slots/renew",
    "post /workers/{worker_id}/heartbeat",
}
"""What writes nothing that has a time: counts, loads, leases, and the end of a node."""


@define
class Cluster:
    """Three nodes behind HTTP, and by how many seconds each one's clock is ahead."""

    meshes: dict[str, MeshRuntime]
    clients: dict[str, httpx2.AsyncClient]
    ahead_s: dict[str, float]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, at the first node."""
        await self.meshes["a"].wait_until(condition, timeout_s=30.0)

    async def measured(self) -> None:
        """Wait until each node knows the clocks of both others."""
        for name in NAMES:
            mesh = self.meshes[name]
            await mesh.wait_until(partial(knows_clocks, mesh), timeout_s=30.0)


def knows_clocks(mesh: MeshRuntime) -> bool:
    """Tell whether a node has measured the clocks of both others."""
    return len(mesh.node.clock_offsets()) == 2


def told_s(problems: Iterable[str], name: str, side: str) -> float | None:
    """Return how far a node says that another one's clock is on a side of its own."""
    for line in problems:
        found = re.fullmatch(rf"the clock of {name} is ([0-9.]+) s {side} this node's", line)
        if found is not None:
            return float(found[1])
    return None


@contextlib.asynccontextmanager
async def three() -> AsyncIterator[Cluster]:
    """Yield three nodes that have met."""
    network, ahead_s = MemoryNetwork(), dict.fromkeys(NAMES, 0.0)
    meshes: dict[str, MeshRuntime] = {}
    clients: dict[str, httpx2.AsyncClient] = {}

    def read(name: str) -> float:
        return time.time() + ahead_s[name]

    async with contextlib.AsyncExitStack() as stack:
        for name in NAMES:
            mesh = MeshRuntime(
                MeshConfig(name=name),
                transport=network.transport(f"{name}:1"),
                seeds=[f"{other}:1" for other in NAMES[: NAMES.index(name)]],
                wall_clock=partial(read, name),
            )
            meshes[name] = await stack.enter_async_context(mesh)
            app = build_app(Service(mesh, shut_down=lambda: None), secrets=OPEN)
            clients[name] = await stack.enter_async_context(
                httpx2.AsyncClient(
                    transport=httpx2.ASGITransport(app=app), base_url="http://localhost"
                )
            )
        cluster = Cluster(meshes, clients, ahead_s)
        for name in NAMES:
            await meshes[name].wait_ready(30.0)
        await cluster.measured()
        yield cluster


def test_a_write_on_a_clock_far_ahead_is_refused_and_a_deletion_elsewhere_holds() -> None:
    """503 with how far; the others are told whose clock it is, and reads and decisions go on."""

    async def scenario() -> None:
        async with three() as cluster:
            a, c = cluster.clients["a"], cluster.clients["c"]
            key = {"key": "k", "value": "01"}
            assert (await a.post("/mesh/config", json=key)).status_code == 200
            config = cluster.meshes["c"].sync.get_config
            await cluster.meshes["c"].wait_until(lambda: config("k") is not None, timeout_s=30.0)

            cluster.ahead_s["c"] = 90.0
            refused = await c.post("/mesh/config", json={"key": "k", "value": "02"})
            assert refused.status_code == 503
            assert "s ahead of those of most members" in refused.json()["error"]
            assert (await c.get("/mesh/config/k")).json()["value"] == "01"
            assert (await a.delete("/mesh/config/k")).status_code == 200
            health = (await c.get("/mesh/health")).json()
            assert health["status"] == "degraded"
            assert any("takes no writes" in line for line in health["problems"])
            cluster.ahead_s["c"] = 0.0
            for name in NAMES:
                mesh = cluster.meshes[name]
                is_gone = partial(lambda mesh: mesh.sync.get_config("k") is None, mesh)
                await mesh.wait_until(is_gone, timeout_s=30.0)
            assert (await c.post("/mesh/config", json=key)).status_code == 200

    asyncio.run(scenario())


def test_each_side_of_two_clocks_that_differ_says_so() -> None:
    """With how far, and since when; the one that is behind as the one that is ahead."""

    async def scenario() -> None:
        async with three() as cluster:
            cluster.ahead_s["c"] = 20.0

            def tells(name: str, other: str, side: str) -> bool:
                told = told_s(cluster.meshes[name].node.health().problems, other, side)
                return told is not None and 19.0 < told < 21.0

            await cluster.until(partial(tells, "a", "c", "ahead of"))
            await cluster.until(partial(tells, "c", "a", "behind"))
            health = (await cluster.clients["a"].get("/mesh/health")).json()
            assert any(
                line.startswith("the clock of c is ") and " this node's (since " in line
                for line in health["problems"]
            )
            answer = await cluster.clients["c"].post(
                "/mesh/config", json={"key": "k", "value": "01"}
            )
            assert answer.status_code == 200

    asyncio.run(scenario())


def test_whatever_changes_something_waits_for_the_clock_unless_it_only_decides() -> None:
    """A write of a node whose clock is not compared yet may replace what is newer."""
    at_once = {
        f"{method} {path.removeprefix('/mesh')}"
        for path, methods in operations_of(http_routes()).items()
        for method, operation in methods.items()
        if operation.scope in (Scope.OPERATE, Scope.ADMIN) and not operation.is_write
        if path.startswith("/mesh/")
    }

    assert DECISIONS == at_once
