"""`/rate-limit`: the global limit, and how much of a limit is used."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.codec import check_key
from meshlib.ratelimit import KeyUse, LimitUsage
from meshlib_server.bodies import page_limit, read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.problems import BadRequest, problem
from meshlib_server.resources import resource
from meshlib_server.service import mesh_of, node_of, service_of

__all__ = ["routes"]

_GLOBAL_KEY = "global"
"""The key of the global limit."""

_KEYS_SHOWN = 20


@frozen(kw_only=True)
class _LimitBody:
    """What `POST /rate-limit` takes; 0 disables."""

    limit_per_second: int


_USAGE = Shape(
    {"policy": str, "limit": int, "used_count": int, "remaining": int, "reset_after_s": float}
)
_STATS = Shape(
    {"limit_per_second": int, "current_count": int, "remaining": int},
    optional={"limits": [_USAGE]},
)
_KEYS = Shape(
    {"keys": [Shape({"key": str, "mark": str, "admitted_count": int, "refused_count": int})]}
)


@described(
    "Set the global limit; 0 switches it off.",
    scope=Scope.OPERATE,
    is_write=True,
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
    answer: dict[str, object] = {
        "limit_per_second": stats.limit_per_second,
        "current_count": stats.current_count,
        "remaining": stats.remaining,
    }
    if key != _GLOBAL_KEY and mesh.limits.rule_of(key) is not None:
        # The specification knows limits a second alone; of a rule each limit says its period.
        answer["limits"] = [_usage(usage) for usage in mesh.rate_limit_usage(key)]
    return JSONResponse(answer)


@described(
    "The keys of which this node admitted and refused most, of each limit.",
    scope=Scope.READ,
    answers={200: _KEYS},
    query={"limit": "How many of either kind at most, 1 to 10,000; 20 when it is not given."},
)
async def _keys(request: Request) -> Response:
    mesh = mesh_of(request)
    count = page_limit(request, default=_KEYS_SHOWN)
    return JSONResponse({"keys": [_use(use) for use in mesh.busiest_keys(count=count)]})


def _usage(usage: LimitUsage) -> dict[str, object]:
    return {
        "policy": usage.policy,
        "limit": usage.limit,
        "used_count": usage.used_count,
        "remaining": usage.remaining,
        "reset_after_s": usage.reset_after_s,
    }


def _use(use: KeyUse) -> dict[str, object]:
    return {
        "key": use.key,
        "mark": use.mark,
        "admitted_count": use.admitted_count,
        "refused_count": use.refused_count,
    }


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/rate-limit/stats", get=_stats),
        resource(f"{prefix}/rate-limit/keys", get=_keys),
        resource(f"{prefix}/rate-limit", get=_get, post=_set),
    ]
