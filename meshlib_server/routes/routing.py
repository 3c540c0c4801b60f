"""`/route` and `/trees`: which worker a prompt goes to, and the prefixes that decide it.

Rule: a request that `/route` has named is in flight until it is completed, as far as clients say
so: until one of them has, requests are named and not counted.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from time import monotonic
from typing import Annotated, Any, Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from meshlib.errors import LocalError, UnknownKeyError
from meshlib.limits import TENANTS_MAX, TREE_OPERATIONS_MAX
from meshlib.routing import SESSION_TTL_S, RouteReason, TreeInsert, TreeOperation, TreeRemove
from meshlib.sync import MeshSyncManager
from meshlib_server.bodies import path_key, read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.metrics.requests import OUTCOME
from meshlib_server.problems import BadRequest, Code, Unavailable
from meshlib_server.resources import resource
from meshlib_server.service import node_of, service_of
from meshlib_server.structure import AtMost

__all__ = ["routes"]


_dumps = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


@frozen(kw_only=True)
class _TextBody:
    """What `match` takes."""

    text: str


@frozen(kw_only=True)
class _RouteBody:
    """What `route` takes: a prompt, what is known of it, and who may have it."""

    text: str
    tokens: float | None = None
    exclude: Annotated[tuple[str, ...], AtMost(TENANTS_MAX)] = ()
    candidates: Annotated[tuple[str, ...], AtMost(TENANTS_MAX)] | None = None
    salt: str = ""
    session: str = ""
    session_ttl_s: float = SESSION_TTL_S
    held: dict[str, int] | None = None
    record: bool = True


@frozen(kw_only=True)
class _RequestBody:
    """What `complete` and `first_token` take."""

    request_id: str


@frozen(kw_only=True)
class _RenewBody:
    """What `renew` takes."""

    request_id: str
    decoded_tokens: int | None = None


@frozen(kw_only=True)
class _InsertBody:
    """A worker now holds a text."""

    text: str
    tenant: str


@frozen(kw_only=True)
class _RemoveBody:
    """A worker holds nothing any more."""

    tenant: str


@frozen(kw_only=True)
class _OperationBody:
    """One operation: exactly one of the two."""

    insert: _InsertBody | None = None
    remove: _RemoveBody | None = None


@frozen(kw_only=True)
class _OperationsBody:
    """What `POST /trees/{model_id}/operations` takes."""

    operations: Annotated[tuple[_OperationBody, ...], AtMost(TREE_OPERATIONS_MAX)]


_INSERT = Shape({"insert": _InsertBody})


def _operation(body: _OperationBody, index: int) -> TreeOperation:
    if body.insert is not None and body.remove is None:
        return TreeInsert(text=body.insert.text, tenant=body.insert.tenant)
    if body.remove is not None and body.insert is None:
        return TreeRemove(tenant=body.remove.tenant)
    raise BadRequest(f"operations[{index}]: expected either `insert` or `remove`")


def _check(sync: MeshSyncManager, model_id: str, operations: list[TreeOperation]) -> None:
    """Name the operation that cannot be: all of a request are applied, or none."""
    for index, operation in enumerate(operations):
        try:
            sync.check_tree_operation(model_id, operation)
        except LocalError as error:
            raise BadRequest(f"operations[{index}]: {error}") from None


def _as_json(operation: TreeOperation) -> dict[str, Any]:
    if isinstance(operation, TreeInsert):
        return {"insert": {"text": operation.text, "tenant": operation.tenant}}
    return {"remove": {"tenant": operation.tenant}}


@described(
    "Change a model's prefix tree: all of the operations are applied, or none.",
    scope=Scope.OPERATE,
    is_write=True,
    body=_OperationsBody,
    answers={200: Shape({"status": Literal["updated"], "model_id": str, "applied": int})},
)
async def _apply(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    body = await read_record(request, _OperationsBody)
    node = node_of(request)
    operations = [_operation(item, index) for index, item in enumerate(body.operations)]
    _check(node.sync, model_id, operations)
    for _ in node.sync.sync_tree_slices(model_id, operations):
        await asyncio.sleep(0)  # probes and requests have their turn
    return JSONResponse(
        {
            "status": "updated",
            "model_id": model_id,
            "applied": len(operations),
        }
    )


@described(
    "A model's prefix tree, as operations.",
    scope=Scope.READ,
    answers={200: Shape({"model_id": str, "operations": [_INSERT], "version": int})},
    errors=(404,),
)
async def _get(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    sync = node_of(request).sync
    version = sync.get_tree_version(model_id)
    if version is None:
        raise UnknownKeyError("tree", model_id)
    parts = _tree_parts(model_id, version, sync.tree_slices(model_id))
    return StreamingResponse(parts, media_type="application/json")


async def _tree_parts(
    model_id: str, version: int, slices: Iterable[Sequence[TreeOperation]]
) -> AsyncIterator[str]:
    """Write a tree a slice at a time, with a turn for everything else after each."""
    yield f'{{"model_id":{_dumps(model_id)},"operations":['
    comma = ""
    for operations in slices:
        if operations:
            yield comma + ",".join(_dumps(_as_json(operation)) for operation in operations)
            comma = ","
        await asyncio.sleep(0)
    yield f'],"version":{version}}}'


@described(
    "Who has the longest prefix of a text.",
    scope=Scope.READ,
    body=_TextBody,
    answers={200: Shape({"tenant": str | None, "matched": int, "input_length": int})},
    errors=(404,),
)
async def _match(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    body = await read_record(request, _TextBody)
    node = node_of(request)
    match = node.sync.match_tree(model_id, body.text)
    return JSONResponse(
        {
            "tenant": match.tenant,
            "matched": match.matched,
            "input_length": match.input_length,
        }
    )


@described(
    "Choose a worker for a prompt.",
    scope=Scope.OPERATE,
    body=_RouteBody,
    answers={
        200: Shape(
            {
                "worker_id": str,
                "url": str,
                "matched": int,
                "reason": RouteReason,
                "request_id": str,
            }
        )
    },
    errors=(404,),
)
async def _route(request: Request) -> Response:
    model_id = path_key(request, "model_id")
    body = await read_record(request, _RouteBody)
    node = node_of(request)
    now = monotonic()
    decision = node.route(
        model_id,
        body.text,
        tokens=body.tokens,
        exclude=body.exclude,
        candidates=body.candidates,
        salt=body.salt,
        session=body.session,
        session_ttl_s=body.session_ttl_s,
        held=body.held,
        record=body.record,
        now=now,
    )
    request.scope[OUTCOME] = decision.reason
    if decision.worker_id is not None:
        hits = service_of(request).sources.hits
        hits.add(decision.worker_id, matched=decision.matched, length=len(body.text))
    if not decision:
        message = f"no healthy worker serves the model {model_id!r}"
        raise Unavailable(message, code=Code.NO_WORKER)
    return JSONResponse(
        {
            "worker_id": decision.worker_id,
            "url": decision.url,
            "matched": decision.matched,
            "reason": decision.reason,
            "request_id": node.begin(decision, is_tentative=True, now=now),
        }
    )


@described(
    "Say that a request is prefilled: its first token has come.",
    scope=Scope.OPERATE,
    body=_RequestBody,
    answers={200: Shape({"status": Literal["prefilled"], "request_id": str})},
    errors=(404,),
)
async def _first_token(request: Request) -> Response:
    body = await read_record(request, _RequestBody)
    node_of(request).first_token(body.request_id, now=monotonic())
    return JSONResponse({"status": "prefilled", "request_id": body.request_id})


@described(
    "Say that a request has ended, however it did.",
    scope=Scope.OPERATE,
    body=_RequestBody,
    answers={200: Shape({"status": Literal["completed"], "request_id": str})},
    errors=(404,),
)
async def _complete(request: Request) -> Response:
    body = await read_record(request, _RequestBody)
    node_of(request).end(body.request_id, now=monotonic())
    return JSONResponse({"status": "completed", "request_id": body.request_id})


@described(
    "Say that a long request goes on, and what it has decoded so far.",
    scope=Scope.OPERATE,
    body=_RenewBody,
    answers={200: Shape({"status": Literal["renewed"], "request_id": str})},
    errors=(404,),
)
async def _renew(request: Request) -> Response:
    body = await read_record(request, _RenewBody)
    node_of(request).renew_request(
        body.request_id, decoded_tokens=body.decoded_tokens, now=monotonic()
    )
    return JSONResponse({"status": "renewed", "request_id": body.request_id})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    tree = f"{prefix}/trees/{{model_id:path}}"
    route = f"{prefix}/route/{{model_id:path}}"
    return [
        resource(f"{route}/complete", post=_complete),
        resource(f"{route}/first_token", post=_first_token),
        resource(f"{route}/renew", post=_renew),
        resource(route, post=_route),
        resource(f"{tree}/operations", post=_apply),
        resource(f"{tree}/match", post=_match),
        resource(tree, get=_get),
    ]
