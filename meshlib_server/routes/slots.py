"""`/slots`: so many requests of a key at once, for routers that are no nodes themselves.

Rule: a slot is held under a lease. A router that dies renews nothing, and its slots are free.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.codec import check_key
from meshlib_server.bodies import read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.problems import BadRequest
from meshlib_server.resources import resource
from meshlib_server.routes.decisions import DECISION, as_response
from meshlib_server.service import service_of

__all__ = ["routes"]


@frozen(kw_only=True)
class _AcquireBody:
    """What `POST /slots/acquire` takes; `limit` is how many of the key may run at once."""

    key: str
    limit: int
    wait_s: float = 0.0
    lease_s: float = 30.0


@frozen(kw_only=True)
class _RenewBody:
    """What `POST /slots/renew` takes; without `lease_s` the lease is as long as before."""

    slot_id: str
    lease_s: float | None = None


@frozen(kw_only=True)
class _ReleaseBody:
    """What `POST /slots/release` takes."""

    slot_id: str


_SLOT = Shape({**DECISION.fields, "slot_id": str, "lease_s": float})


@described(
    "Take one of a key's slots in the whole cluster, held under a lease until it is released.",
    scope=Scope.OPERATE,
    body=_AcquireBody,
    answers={200: _SLOT, 429: _SLOT},
)
async def _acquire(request: Request) -> Response:
    body = await read_record(request, _AcquireBody)
    if not body.key:
        raise BadRequest("key: must not be empty")
    check_key(body.key)
    slots = service_of(request).slots
    slot = await slots.acquire(
        body.key, limit=body.limit, timeout_s=body.wait_s, lease_s=body.lease_s
    )
    if slot and await request.is_disconnected():
        slots.release(slot.slot_id)  # nobody would renew it, or use it until its lease ends
    return as_response(slot.decision, slot_id=slot.slot_id, lease_s=slot.lease_s)


@described(
    "Hold a slot for another lease from now on; at the node that gave it.",
    scope=Scope.OPERATE,
    body=_RenewBody,
    answers={200: Shape({"status": Literal["renewed"], "slot_id": str, "lease_s": float})},
    errors=(404,),
)
async def _renew(request: Request) -> Response:
    body = await read_record(request, _RenewBody)
    lease_s = service_of(request).slots.renew(body.slot_id, lease_s=body.lease_s)
    return JSONResponse({"status": "renewed", "slot_id": body.slot_id, "lease_s": lease_s})


@described(
    "Give a slot back; at the node that gave it.",
    scope=Scope.OPERATE,
    body=_ReleaseBody,
    answers={200: Shape({"status": Literal["released"], "slot_id": str})},
    errors=(404,),
)
async def _release(request: Request) -> Response:
    body = await read_record(request, _ReleaseBody)
    service_of(request).slots.release(body.slot_id)
    return JSONResponse({"status": "released", "slot_id": body.slot_id})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/slots/acquire", post=_acquire),
        resource(f"{prefix}/slots/renew", post=_renew),
        resource(f"{prefix}/slots/release", post=_release),
    ]
