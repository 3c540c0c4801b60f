"""`/workers`: which workers there are, how they are, and how loaded."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs
from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib import MeshNode
from meshlib.errors import UnknownKeyError
from meshlib.limits import CHANGES_MAX
from meshlib.state import WorkerState
from meshlib_server.bodies import (
    PAGE_QUERY,
    check_changes,
    naming,
    page_of,
    path_key,
    read_record,
)
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.resources import resource
from meshlib_server.service import mesh_of, node_of
from meshlib_server.structure import AtMost

__all__ = ["routes"]


@frozen(kw_only=True)
class _WorkerBody:
    """What `PUT` takes: all that a worker state has, but its id and its version.

    Without `ttl_s` a worker stays as it was written, as specified.
    """

    model_id: str
    url: str
    health: bool
    load: float
    ttl_s: float | None = None


@frozen(kw_only=True)
class _WorkerToPut(_WorkerBody):
    """One worker of several: as `PUT` takes it, with its id."""

    worker_id: str


@frozen(kw_only=True)
class _ChangesBody:
    """What `PATCH` takes: workers to write, and ids of workers to remove."""

    put: Annotated[tuple[_WorkerToPut, ...], AtMost(CHANGES_MAX)] = ()
    delete: Annotated[tuple[str, ...], AtMost(CHANGES_MAX)] = ()


_FIELDS = {
    "worker_id": str,
    "model_id": str,
    "url": str,
    "health": bool,
    "load": float,
    "version": int,
}
_WORKER = Shape(_FIELDS, optional={"ttl_s": float})


def _done(status: Any) -> Shape:
    return Shape({"status": status, "worker_id": str})


def _as_json(worker: WorkerState) -> dict[str, Any]:
    fields = attrs.asdict(worker)
    if worker.ttl_s is None:
        del fields["ttl_s"]  # the specification's answer does not have it
    return fields


def _known(node: MeshNode, worker_id: str) -> WorkerState:
    worker = node.sync.get_worker_state(worker_id)
    if worker is None:
        raise UnknownKeyError("worker", worker_id)
    return worker


@described(
    "All workers, by their ids, or a page of them.",
    scope=Scope.READ,
    answers={200: [_WORKER]},
    query=PAGE_QUERY,
)
async def _list(request: Request) -> Response:
    workers = node_of(request).sync.get_all_worker_states()
    page = page_of(request, workers, key=lambda worker: worker.worker_id)
    return JSONResponse([_as_json(worker) for worker in page])


@described(
    "Write and remove several workers: all of them, or none.",
    scope=Scope.OPERATE,
    is_write=True,
    body=_ChangesBody,
    answers={200: Shape({"status": Literal["updated"], "put": int, "deleted": int})},
    errors=(404,),
)
async def _patch(request: Request) -> Response:
    body = await read_record(request, _ChangesBody)
    node = node_of(request)
    puts = {worker.worker_id: attrs.asdict(worker) for worker in body.put}
    check_changes([worker.worker_id for worker in body.put], body.delete)
    for index, worker in enumerate(puts.values()):
        with naming(f"put[{index}]"):
            node.sync.workers.check(**worker)
    for worker_id in body.delete:
        _known(node, worker_id)
    for worker in puts.values():
        node.sync.sync_worker_state(**worker)
    for worker_id in body.delete:
        node.sync.remove_worker_state(worker_id)
    return JSONResponse({"status": "updated", "put": len(puts), "deleted": len(body.delete)})


@described("One worker.", scope=Scope.READ, answers={200: _WORKER}, errors=(404,))
async def _get(request: Request) -> Response:
    worker_id = path_key(request, "worker_id")
    return JSONResponse(_as_json(_known(node_of(request), worker_id)))


@described(
    "Write a worker.",
    scope=Scope.OPERATE,
    is_write=True,
    body=_WorkerBody,
    answers={200: Shape({"status": Literal["updated"], **_FIELDS}, optional={"ttl_s": float})},
)
async def _put(request: Request) -> Response:
    worker_id = path_key(request, "worker_id")
    body = await read_record(request, _WorkerBody)
    node = node_of(request)
    node.sync.sync_worker_state(
        worker_id,
        model_id=body.model_id,
        url=body.url,
        health=body.health,
        load=body.load,
        ttl_s=body.ttl_s,
    )
    return JSONResponse({"status": "updated", **_as_json(_known(node, worker_id))})


@described(
    "Remove a worker, and all it had cached.",
    scope=Scope.OPERATE,
    is_write=True,
    answers={200: _done(Literal["deleted"])},
    errors=(404,),
)
async def _delete(request: Request) -> Response:
    worker_id = path_key(request, "worker_id")
    node_of(request).sync.remove_worker_state(worker_id)
    return JSONResponse({"status": "deleted", "worker_id": worker_id})


@described(
    "Renew a worker's lease.",
    scope=Scope.OPERATE,
    answers={200: _done(Literal["renewed"])},
    errors=(404,),
)
async def _heartbeat(request: Request) -> Response:
    worker_id = path_key(request, "worker_id")
    mesh_of(request).renew_worker(worker_id)
    return JSONResponse({"status": "renewed", "worker_id": worker_id})


@described(
    "Forget what a worker had cached: it has restarted.",
    scope=Scope.OPERATE,
    is_write=True,
    answers={200: _done(Literal["cleared"])},
    errors=(404,),
)
async def _cleared(request: Request) -> Response:
    worker_id = path_key(request, "worker_id")
    node_of(request).sync.clear_worker(worker_id)
    return JSONResponse({"status": "cleared", "worker_id": worker_id})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    worker = f"{prefix}/workers/{{worker_id:path}}"
    return [
        resource(f"{prefix}/workers", get=_list, patch=_patch),
        resource(f"{worker}/heartbeat", post=_heartbeat),
        resource(f"{worker}/cleared", post=_cleared),
        resource(worker, get=_get, put=_put, delete=_delete),
    ]
