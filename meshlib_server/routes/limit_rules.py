"""`/limits`: rules by name, each with its limits for the keys of a pattern."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.errors import UnknownKeyError
from meshlib.limits import LIMITS_PER_RULE_MAX
from meshlib.ratelimit import LimitRule, LimitSettings
from meshlib_server.bodies import PAGE_QUERY, page_of, path_key, read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.resources import resource
from meshlib_server.service import node_of
from meshlib_server.structure import AtMost

__all__ = ["routes"]


@frozen(kw_only=True)
class _RuleBody:
    """What `PUT` takes; without a pattern the name is the pattern."""

    limits: Annotated[tuple[str, ...], AtMost(LIMITS_PER_RULE_MAX)]
    pattern: str | None = None


_FIELDS = {"name": str, "pattern": str, "limits": [str]}
_RULE = Shape(_FIELDS, optional={"default_of": str})


def _as_json(limits: LimitSettings, rule: LimitRule) -> dict[str, Any]:
    answer = {
        "name": rule.name,
        "pattern": rule.pattern,
        "limits": [str(limit) for limit in rule.limits],
    }
    default_of = limits.rule_default_of(rule.name)
    return answer if default_of is None else {**answer, "default_of": default_of}


@described(
    "All rules in force, by their names, or a page of them.",
    scope=Scope.READ,
    answers={200: [_RULE]},
    query=PAGE_QUERY,
)
async def _list(request: Request) -> Response:
    limits = node_of(request).sync.limits
    page = page_of(request, limits.rules(), key=lambda rule: rule.name)
    return JSONResponse([_as_json(limits, rule) for rule in page])


@described("One rule.", scope=Scope.READ, answers={200: _RULE}, errors=(404,))
async def _get(request: Request) -> Response:
    name = path_key(request, "name")
    limits = node_of(request).sync.limits
    rule = limits.rule(name)
    if rule is None:
        raise UnknownKeyError("rate-limit rule", name)
    return JSONResponse(_as_json(limits, rule))


@described(
    "Set the limits of all keys of a pattern, such as `tokens:{key}`; all of them hold at once.",
    scope=Scope.OPERATE,
    is_write=True,
    body=_RuleBody,
    answers={200: Shape({"status": Literal["updated"], **_FIELDS})},
)
async def _put(request: Request) -> Response:
    name = path_key(request, "name")
    body = await read_record(request, _RuleBody)
    limits = node_of(request).sync.limits
    pattern = name if body.pattern is None else body.pattern
    limits.set_rule(name, pattern=pattern, limits=body.limits)
    rule = limits.rule(name)
    assert rule is not None
    return JSONResponse({"status": "updated", **_as_json(limits, rule)})


@described(
    "Remove a rule; that of a file is in force again.",
    scope=Scope.OPERATE,
    is_write=True,
    answers={200: Shape({"status": Literal["deleted"], "name": str})},
    errors=(404,),
)
async def _delete(request: Request) -> Response:
    name = path_key(request, "name")
    node_of(request).sync.limits.remove_rule(name)
    return JSONResponse({"status": "deleted", "name": name})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/limits", get=_list),
        resource(f"{prefix}/limits/{{name:path}}", get=_get, put=_put, delete=_delete),
    ]
