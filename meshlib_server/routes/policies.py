"""`/policies`: which policy each model is routed by."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib import MeshNode
from meshlib.errors import UnknownKeyError
from meshlib.state import PolicyState
from meshlib_server.bodies import PAGE_QUERY, page_of, path_key, read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.resources import resource
from meshlib_server.service import node_of

__all__ = ["routes"]


@frozen(kw_only=True)
class _PolicyBody:
    """What `PUT` takes: all that a policy state has, but its model and its version.

    Whether the type is known and takes this configuration, the library tells.
    """

    policy_type: str
    config: str


_FIELDS = {"model_id": str, "policy_type": str, "config": str, "version": int}
_POLICY = Shape(_FIELDS, optional={"default_of": str})


def _as_json(policy: PolicyState) -> dict[str, Any]:
    """Return a policy as the specification has it, and whose default it is where it is one."""
    fields = attrs.asdict(policy)
    if policy.default_of is None:
        del fields["default_of"]
    return fields


def _known(node: MeshNode, model_id: str) -> PolicyState:
    policy = node.sync.get_policy_state(model_id)
    if policy is None:
        raise UnknownKeyError("policy", model_id)
    return policy


@described(
    "All policies, by their models, or a page of them.",
    scope=Scope.READ,
    answers={200: [_POLICY]},
    query=PAGE_QUERY,
)
async def _list(request: Request) -> Response:
    policies = node_of(request).sync.get_all_policy_states()
    page = page_of(request, policies, key=lambda policy: policy.model_id)
    return JSONResponse([_as_json(policy) for policy in page])


@described("One policy.", scope=Scope.READ, answers={200: _POLICY}, errors=(404,))
async def _get(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    return JSONResponse(_as_json(_known(node_of(request), model_id)))


@described(
    "Write a policy.",
    scope=Scope.OPERATE,
    is_write=True,
    body=_PolicyBody,
    answers={200: Shape({"status": Literal["updated"], **_FIELDS}, optional={"default_of": str})},
)
async def _put(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    body = await read_record(request, _PolicyBody)
    node = node_of(request)
    node.sync.sync_policy_state(model_id, policy_type=body.policy_type, config=body.config)
    return JSONResponse({"status": "updated", **_as_json(_known(node, model_id))})


@described(
    "Remove a policy; the default of a file is in force again.",
    scope=Scope.OPERATE,
    is_write=True,
    answers={200: Shape({"status": Literal["deleted"], "model_id": str})},
    errors=(404,),
)
async def _delete(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    node_of(request).sync.remove_policy_state(model_id)
    return JSONResponse({"status": "deleted", "model_id": model_id})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/policies", get=_list),
        resource(f"{prefix}/policies/{{model_id:path}}", get=_get, put=_put, delete=_delete),
    ]
