"""`GET /status` and `GET /health`: who is in the cluster, and how it is."""

from __future__ import annotations

import datetime as dt
import time
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib import Health, NodeState
from meshlib.membership import MemberStatus
from meshlib.node import HealthStatus
from meshlib_server.bodies import path_key
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.resources import resource
from meshlib_server.service import node_of, service_of

__all__ = ["routes"]


_HEALTH = Shape(
    {
        "status": HealthStatus,
        "node_name": str,
        "cluster_size": int,
        "stores_healthy": bool,
        "state": NodeState,
        "formats": Shape({"spoken": int, "newest": int}),
        "problems": [str],
    },
    optional={"progress": Shape({"done": int, "total": int, "unit": str})},
)
_MEMBER = Shape({"name": str, "address": str, "status": MemberStatus, "version": int})
_COUNTS = ("membership_count", "worker_count", "policy_count", "app_count")
_STATUS = Shape(
    {
        "node_name": str,
        "node_count": int,
        "nodes": [_MEMBER],
        "stores": Shape(dict.fromkeys(_COUNTS, int)),
    }
)


@described("The members, and how much is in the stores.", scope=Scope.READ, answers={200: _STATUS})
async def _status(request: Request) -> Response:
    return Response(service_of(request).status_body(), media_type="application/json")


@described("How the cluster looks from here.", scope=Scope.READ, answers={200: _HEALTH})
async def _health(request: Request) -> Response:
    node = node_of(request)
    health = node.health()
    answer: dict[str, object] = {
        "status": health.status,
        "node_name": node.name,
        "cluster_size": health.cluster_size,
        "stores_healthy": health.stores_healthy,
        "state": node.state,
        "formats": {"spoken": node.format_spoken, "newest": node.config.formats[1]},
        "problems": _lines(health),
    }
    progress = node.progress()
    if progress is not None:
        answer["progress"] = {
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
        }
    return JSONResponse(answer)


def _lines(health: Health) -> list[str]:
    """Return what is wrong, each with since when, by this machine's clock, to the second."""
    now_s = time.time()
    return [
        f"{problem} (since {_utc(now_s - age_s)})"
        for problem, age_s in zip(health.problems, health.ages_s, strict=True)
    ]


def _utc(wall_s: float) -> str:
    return dt.datetime.fromtimestamp(wall_s, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@described(
    "Forget a member that is gone for good.",
    scope=Scope.ADMIN,
    is_write=True,
    answers={200: Shape({"status": Literal["forgotten"], "name": str})},
    errors=(404, 409),
)
async def _forget(request: Request) -> Response:
    name = path_key(request, "name")
    node_of(request).forget(name)
    return JSONResponse({"status": "forgotten", "name": name})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/status", get=_status),
        resource(f"{prefix}/members/{{name:path}}", delete=_forget),
        resource(f"{prefix}/health", get=_health),
    ]
