"""The table of the HTTP page: what is answered in which state, cell by cell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from attrs import define

from meshlib import (
    GossipConfig,
    MemoryNetwork,
    MeshConfig,
    MeshRuntime,
    NodeState,
    StartupConfig,
)
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.service import Service

PAGE = Path(__file__).resolve().parents[2] / "docs" / "http.md"
OPEN = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)
LIMIT = 1000
WORKER = {"model_id": "m", "url": "http://w", "health": True, "load": 0.0}

OF_NOTHING = [
    ("GET", "/mesh/workers/x", None),
    ("GET", "/mesh/policies/x", None),
    ("GET", "/mesh/config/x", None),
    ("GET", "/mesh/trees/x", None),
    ("GET", "/mesh/rate-limit", None),
    ("GET", "/mesh/rate-limit/stats?key=x", None),
]
REMOVALS_OF_NOTHING = [
    ("DELETE", "/mesh/workers/x", None),
    ("DELETE", "/mesh/policies/x", None),
    ("DELETE", "/mesh/config/x", None),
    ("DELETE", "/mesh/members/x", None),
    ("POST", "/mesh/workers/x/heartbeat", None),
    ("POST", "/mesh/workers/x/cleared", None),
]
WRITES = [
    ("PUT", "/mesh/workers/w", WORKER),
    ("PUT", "/mesh/policies/m", {"policy_type": "cache_aware", "config": "{}"}),
    ("POST", "/mesh/config", {"key": "k", "value": "01"}),
    ("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT}),
    (
        "POST",
        "/mesh/trees/m/operations",
        {"operations": [{"insert": {"text": "t", "tenant": "w"}}]},
    ),
]
REMOVALS = [
    ("DELETE", "/mesh/config/k", None),
    ("DELETE", "/mesh/policies/m", None),
    ("DELETE", "/mesh/workers/w", None),
]
ACQUIRE_OTHER = ("POST", "/mesh/rate-limit/acquire", {"key": "x"})
ROUTE = ("POST", "/mesh/route/m", {"text": "a prompt"})

Call = tuple[str, str, Any]


@define
class Caller:
    """Makes calls of one application, and says what they were answered with."""

    client: httpx2.AsyncClient

    async def one(self, call: Call) -> str:
        """Make a call and return its status; a 503 of a mesh endpoint says why."""
        method, path, body = call
        answer = await self.client.request(method, path, json=body)
        if answer.status_code == 503:
            assert answer.json()["error"]
        return str(answer.status_code)

    async def all(self, calls: list[Call]) -> str:
        """Make calls and return the one status that all of them had."""
        [status] = {await self.one(call) for call in calls}
        return status

    async def limited(self) -> str:
        """Ask for units of a key that has a limit."""
        answer = await self.client.post("/mesh/rate-limit/acquire", json={"key": "global"})
        if answer.status_code == 503:
            return "503"
        assert answer.json()["limit"] == LIMIT
        return "200 or 429" if answer.status_code in {200, 429} else str(answer.status_code)


ROWS: list[tuple[str, Callable[[Caller], Awaitable[str]]]] = [
    ("`GET /livez`", lambda c: c.one(("GET", "/livez", None))),
    ("`GET /readyz`", lambda c: c.one(("GET", "/readyz", None))),
    ("`GET /mesh/health`", lambda c: c.one(("GET", "/mesh/health", None))),
    (
        "a list, `GET /mesh/status`",
        lambda c: c.all(
            [("GET", f"/mesh/{noun}", None) for noun in ("status", "workers", "policies", "config")]
        ),
    ),
    ("reading what is not here", lambda c: c.all(OF_NOTHING)),
    ("removing or renewing what is not here", lambda c: c.all(REMOVALS_OF_NOTHING)),
    (
        "`acquire` or `stats` of `global`, no limit known",
        lambda c: c.all(
            [
                ("POST", "/mesh/rate-limit/acquire", {"key": "global"}),
                ("GET", "/mesh/rate-limit/stats", None),
            ]
        ),
    ),
    ("`acquire` of another key, no limit known", lambda c: c.one(ACQUIRE_OTHER)),
    ("any write", lambda c: c.all(WRITES)),
    ("`match`", lambda c: c.one(("POST", "/mesh/trees/m/match", {"text": "t"}))),
    (
        "reading what is here",
        lambda c: c.all(
            [
                ("GET", path, None)
                for path in (
                    "/mesh/workers/w", "/mesh/policies/m", "/mesh/config/k", "/mesh/trees/m",
                    "/mesh/rate-limit", "/mesh/rate-limit/stats",
                )
            ]
        ),
    ),
    ("`acquire`, a limit is known", lambda c: c.limited()),
    ("`route`, a worker is here", lambda c: c.one(ROUTE)),
    ("removing what is here", lambda c: c.all(REMOVALS)),
]  # fmt: skip
"""What is asked, in this order, of a node that holds nothing."""


async def _with_open_settings(caller: Caller) -> dict[str, str]:
    acquired = await caller.one(ACQUIRE_OTHER)
    await caller.all(WRITES)
    return {
        "the same, with `startup.acquire: open`": acquired,
        "the same, with `startup.route: open`": await caller.one(ROUTE),
    }


def documented() -> dict[str, dict[str, str]]:
    """Return the page's table: by state, what is answered to what."""
    section = PAGE.read_text().split("## Before it is ready")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head, _, *rows = table
    states = [cell.strip("`") for cell in head[1:]]
    return {
        state: {row[0]: row[column] for row in rows} for column, state in enumerate(states, start=1)
    }


TABLE = documented()


@contextlib.asynccontextmanager
async def node_in(state: str, startup: StartupConfig) -> AsyncIterator[Service]:
    """Yield the service of a node that holds nothing and is in a state."""
    network = MemoryNetwork()
    seeds = {"joining": ["b:1"], "syncing": ["b:1"], "isolated": ["b:1"]}.get(state, [])
    after_s = 0.01 if state == "isolated" else 0.0  # 0: never
    gossip = GossipConfig(
        bootstrap_after_s=after_s,
        bootstrap_listen_s=0,
        join_retry_s=0.02,
        leave_handover_s=0.0,
    )

    def runtime(name: str, seeds: list[str]) -> MeshRuntime:
        config = MeshConfig(name=name, gossip=gossip, startup=startup)
        return MeshRuntime(config, transport=network.transport(f"{name}:1"), seeds=seeds)

    async with contextlib.AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(runtime("a", seeds))
        if state == "syncing":
            await stack.enter_async_context(runtime("b", ["a:1"]))
        wanted = NodeState(state if seeds else "ready")
        await mesh.wait_until(lambda: mesh.state is wanted, timeout_s=30.0)
        service = Service(mesh, shut_down=lambda: None)
        service.is_draining = state in {"in its grace period", "draining"}
        service.is_leaving = state == "draining"
        yield service


async def answers_in(state: str) -> dict[str, str]:
    """Ask a node in a state everything, under the default settings and under the open ones."""
    found: dict[str, str] = {}
    for startup in (StartupConfig(), StartupConfig(acquire="open", route="open")):
        async with node_in(state, startup) as service:
            transport = httpx2.ASGITransport(app=build_app(service, secrets=OPEN))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                caller = Caller(client)
                if startup == StartupConfig():
                    found |= {what: await ask(caller) for what, ask in ROWS}
                else:
                    found |= await _with_open_settings(caller)
    return found


@pytest.mark.parametrize("state", TABLE)
def test_every_cell_of_the_table_is_so(state: str) -> None:
    """Each kind of call, in each state, is answered as the page says."""
    assert asyncio.run(answers_in(state)) == TABLE[state]


def test_the_table_has_every_state_that_http_can_be_asked_in() -> None:
    """Before `joining` the server does not listen, and after `draining` it is gone."""
    in_grace = "in its grace period"

    assert set(TABLE) == set(NodeState) - {NodeState.STARTING, NodeState.STOPPED} | {in_grace}


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (("GET", "/mesh/workers/x", None), "the worker 'x'"),
        (("GET", "/mesh/rate-limit", None), "the global rate limit"),
        (("GET", "/mesh/rate-limit/stats?key=x", None), "the rate limit 'x'"),
        (ROUTE, "which workers there are"),
    ],
)
def test_what_is_not_known_yet_is_named_with_the_reason_and_when_to_come_back(
    call: Call, what: str
) -> None:
    """A caller that reads the answer knows that it is early, and not wrong."""

    async def run() -> tuple[str, str]:
        async with node_in("joining", StartupConfig()) as service:
            transport = httpx2.ASGITransport(app=build_app(service, secrets=OPEN))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                answer = await client.request(call[0], call[1], json=call[2])
                return answer.json()["error"], answer.headers["retry-after"]

    reason = "is not known here yet: not ready: no peer was met yet"
    assert asyncio.run(run()) == (f"{what} {reason}", "1")


def test_a_request_that_is_wrong_in_itself_is_told_so_before_it_is_ready() -> None:
    """A cost of nothing can never pass, whatever comes."""

    async def run() -> list[int]:
        async with node_in("joining", StartupConfig()) as service:
            transport = httpx2.ASGITransport(app=build_app(service, secrets=OPEN))
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                bodies = [{"key": "x", "cost": 0}, {"key": "x", "cost": -1}, {"key": ""}]
                return [
                    (await client.post("/mesh/rate-limit/acquire", json=body)).status_code
                    for body in bodies
                ]

    assert asyncio.run(run()) == [400, 400, 400]
