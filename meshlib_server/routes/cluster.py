"""`GET /status` and `GET /health`: who is in the cluster, and how it is."""

from __future__ import annotations

import datetime as dt
import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib import Health
from meshlib_server.bodies import path_key
from meshlib_server.resources import resource
from meshlib_server.service import node_of, service_of

__all__ = ["routes"]


async def _status(request: Request) -> Response:
    return Response(service_of(request).status_body(), media_type="application/json")


async def _health(request: Request) -> Response:
    node = node_of(request)
    health = node.health()
    return JSONResponse(
        {
            "status": health.status,
            "node_name": node.name,
            "cluster_size": health.cluster_size,
            "stores_healthy": health.stores_healthy,
            "state": node.state,
            "formats": {"spoken": node.format_spoken, "newest": node.config.formats[1]},
            "problems": _lines(health),
        }
    )


def _lines(health: Health) -> list[str]:
    """Return what is wrong, each with since when, by this machine's clock, to the second."""
    now_s = time.time()
    return [
        f"{problem} (since {_utc(now_s - age_s)})"
        for problem, age_s in zip(health.problems, health.ages_s, strict=True)
    ]


def _utc(wall_s: float) -> str:
    return dt.datetime.fromtimestamp(wall_s, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
