"""`/rate-limit`: the global limit, how much of it is used, and the decision itself."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.codec import check_key
from meshlib_server.bodies import read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.problems import BadRequest, problem, retry_after
from meshlib_server.resources import resource
from meshlib_server.service import mesh_of, node_of, service_of

__all__ = ["routes"]

_GLOBAL_KEY = "global"
"""The key of the global limit."""


@frozen(kw_only=True)
class _LimitBody:
    """What `POST /rate-limit` takes; 0 disables."""

    limit_per_second: int


@frozen(kw_only=True)
class _AcquireBody:
    """What `POST /rate-limit/acquire` takes."""

    key: str
    cost: int = 1


_STATS = Shape({"limit_per_second": int, "current_count": int, "remaining": int})
_DECISION = Shape(
    {"allowed": bool, "limit": int, "remaining": int, "retry_after_s": float, "confirmed": bool}
)


@described(
    "Set the global limit; 0 switches it off.",
    scope=Scope.OPERATE,
    body=_LimitBody,
    answers={
        200: Shape(
            {"status": Literal["updated"], "limit_per_second": int},
            optional={"current_count": int, "remaining": int},
        )
    },
)
async def _set(request: Request) -> Response:
    body = await read_record(request, _LimitBody)
    node = node_of(request)
    node.sync.set_global_rate_limit(body.limit_per_second)
    answer: dict[str, object] = {
        "status": "updated",
        "limit_per_second": body.limit_per_second,
    }
    if body.limit_per_second == 0:
        # The specification shows this second form as well, for disabling.
        answer.update(current_count=0, remaining=-1)
    return JSONResponse(answer)


@described(
    "The global limit.",
    scope=Scope.READ,
    answers={200: Shape({"limit_per_second": int}, optional={"default_of": str})},
    errors=(404,),
)
async def _get(request: Request) -> Response:
    sync = node_of(request).sync
    limit = sync.get_global_rate_limit()
    if limit is None:
        service_of(request).check_absence("the global rate limit")
        return problem(404, "the global rate limit is not configured")
    answer: dict[str, object] = {"limit_per_second": limit}
    default_of = sync.limits.default_of(_GLOBAL_KEY)
    if default_of is not None:
        answer["default_of"] = default_of
    return JSONResponse(answer)


@described(
    "How much of a limit is used.",
    scope=Scope.READ,
    answers={200: _STATS},
    errors=(404,),
    query={"key": "The rate-limit key; `global` when it is not given."},
)
async def _stats(request: Request) -> Response:
    key = request.query_params.get("key", _GLOBAL_KEY)
    mesh = mesh_of(request)
    if not key:
        raise BadRequest("key: must not be empty")
    check_key(key)
    stats = mesh.rate_limit_stats(key)
    return JSONResponse(
        {
            "limit_per_second": stats.limit_per_second,
            "current_count": stats.current_count,
            "remaining": stats.remaining,
        }
    )


@described(
    "Decide one request, and count it when it is admitted.",
    scope=Scope.OPERATE,
    body=_AcquireBody,
    answers={200: _DECISION, 429: _DECISION},
    errors=(404,),
)
async def _acquire(request: Request) -> Response:
    body = await read_record(request, _AcquireBody)
    mesh = mesh_of(request)
    if not body.key:
        raise BadRequest("key: must not be empty")
    check_key(body.key)
    decision = await mesh.acquire_confirmed(body.key, cost=body.cost)
    answer = {
        "allowed": decision.allowed,
        "limit": decision.limit,
        "remaining": decision.remaining,
        "retry_after_s": decision.retry_after_s,
        "confirmed": decision.confirmed,
    }
    if decision.allowed:
        return JSONResponse(answer)
    return JSONResponse(answer, status_code=429, headers=retry_after(decision.retry_after_s))


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/rate-limit/acquire", post=_acquire),
        resource(f"{prefix}/rate-limit/stats", get=_stats),
        resource(f"{prefix}/rate-limit", get=_get, post=_set),
    ]
