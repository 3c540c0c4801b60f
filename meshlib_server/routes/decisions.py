"""`/rate-limit/acquire` and the other verbs of rate limits: what routers ask for each request.

Decisions have the headers of `meshlib_server.middleware`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from attrs import frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib.codec import check_key
from meshlib.errors import LocalError, UnknownKeyError
from meshlib.limits import RATE_KEYS_AT_ONCE_MAX
from meshlib.ratelimit import Decision
from meshlib_server.bodies import read_record
from meshlib_server.describing import Scope, Shape, described
from meshlib_server.middleware.headers import rate_limit_headers, raw_headers
from meshlib_server.problems import BadRequest, Code, problem_body
from meshlib_server.resources import resource
from meshlib_server.service import mesh_of
from meshlib_server.structure import AtMost

__all__ = ["DECISION", "as_json", "as_response", "as_text", "rate_limit_headers", "routes"]

DECISION: Final = Shape(
    {
        "allowed": bool,
        "limit": int,
        "remaining": int,
        "retry_after_s": float,
        "reset_after_s": float,
        "policy": str,
        "confirmed": bool,
    }
)


def as_json(decision: Decision) -> dict[str, Any]:
    """Return the fields of a decision that everybody may read."""
    return {
        "allowed": decision.allowed,
        "limit": decision.limit,
        "remaining": decision.remaining,
        "retry_after_s": decision.retry_after_s,
        "reset_after_s": decision.reset_after_s,
        "policy": decision.policy,
        "confirmed": decision.confirmed,
    }


def as_text(decision: Decision, **fields: str | float) -> str:
    """Return the same as JSON, and what is told beside it. O(fields).

    Written here and not by `json`, which takes five times as long: for each request.
    """
    allowed, limit, remaining, retry_after_s, reset_after_s, policy, confirmed, _ = decision
    told = (f',"{name}":{json.dumps(value, ensure_ascii=False)}' for name, value in fields.items())
    more = "".join(told) if fields else ""
    return (
        f'{{"allowed":{"true" if allowed else "false"},"limit":{limit},"remaining":{remaining},'
        f'"retry_after_s":{retry_after_s!r},"reset_after_s":{reset_after_s!r},'
        f'"policy":{_quoted(policy)},"confirmed":{"true" if confirmed else "false"}{more}}}'
    )


@lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class _Told(Response):
    """An answer whose bytes are there already.

    Args:
        text: JSON.
        status_code: the HTTP status.
        headers: as ASGI has them.
    """

    def __init__(
        self, text: str, *, status_code: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        self.status_code = status_code
        self.background = None
        self.body = text.encode()
        length = b"%d" % len(self.body)
        self.raw_headers = [*headers, (b"content-length", length), _JSON]


_JSON: Final = (b"content-type", b"application/json")


def as_response(decision: Decision, **fields: str | float) -> Response:
    """Answer with a decision: 200, or 429 when it was refused.

    Args:
        decision: on the request.
        fields: what is told beside it.
    """
    text = as_text(decision, **fields)
    return _Told(text, status_code=200 if decision else 429, headers=raw_headers(decision))


@frozen(kw_only=True)
class _OneBody:
    """What `refund`, `peek` and each decision of a batch take."""

    key: str
    cost: int = 1


@frozen(kw_only=True)
class _AcquireBody:
    """What `POST /rate-limit/acquire` takes: one of `key`, `keys` and `batch`.

    `keys` pass all together or none of them; the decisions of a `batch` are independent.
    """

    key: str | None = None
    cost: int = 1
    keys: Annotated[tuple[_OneBody, ...], AtMost(RATE_KEYS_AT_ONCE_MAX)] | None = None
    batch: Annotated[tuple[_OneBody, ...], AtMost(RATE_KEYS_AT_ONCE_MAX)] | None = None
    wait_s: float | None = None


@frozen(kw_only=True)
class _ReserveBody:
    """What `POST /rate-limit/reserve` takes."""

    key: str
    estimate: int
    lease_s: float = 600.0


@frozen(kw_only=True)
class _SettleBody:
    """What `POST /rate-limit/settle` takes."""

    reservation_id: str
    actual: int


@frozen(kw_only=True)
class _KeyBody:
    """What `POST /rate-limit/reset` takes."""

    key: str


_DECIDED = Shape({}, optional={**DECISION.fields, "error": str, "code": str})
_ACQUIRED = Shape({}, optional={**DECISION.fields, "decisions": [_DECIDED]})
_RESERVATION = Shape({**DECISION.fields, "reservation_id": str})


def _checked(key: str) -> str:
    if not key:
        raise BadRequest("key: must not be empty")
    check_key(key)
    return key


@described(
    "Decide one request, one for several keys together, or a batch, and count what is admitted.",
    scope=Scope.OPERATE,
    body=_AcquireBody,
    answers={200: _ACQUIRED, 429: DECISION},
    errors=(404,),
)
async def _acquire(request: Request) -> Response:
    body = await read_record(request, _AcquireBody)
    mesh = mesh_of(request)
    if [body.key, body.keys, body.batch].count(None) != 2:
        raise BadRequest("expected one of key, keys and batch")
    if body.batch is not None:
        return await _acquire_each(request, body.batch)
    if body.keys is not None:
        costs = {_checked(one.key): one.cost for one in body.keys}
        if len(costs) < len(body.keys):
            raise BadRequest("keys: a key is there twice")
        return as_response(await mesh.acquire_many_confirmed(costs))
    key = _checked(body.key or "")
    if body.wait_s is not None:
        return as_response(await mesh.wait(key, cost=body.cost, timeout_s=body.wait_s))
    return as_response(await mesh.acquire_confirmed(key, cost=body.cost))


async def _acquire_each(request: Request, batch: tuple[_OneBody, ...]) -> Response:
    mesh = mesh_of(request)
    decided = await mesh.acquire_each([(_checked(one.key), one.cost) for one in batch])
    return _Told(f'{{"decisions":[{",".join(map(_one_of, decided))}]}}')


def _one_of(outcome: Decision | LocalError) -> str:
    if isinstance(outcome, Decision):
        return as_text(outcome)
    is_unknown = isinstance(outcome, UnknownKeyError)
    code = Code.NOT_FOUND if is_unknown else Code.INVALID_REQUEST
    body = problem_body(404 if is_unknown else 400, str(outcome), code=code)
    return json.dumps(body, ensure_ascii=False)


@described(
    "Tell what would be decided on a request, and count nothing.",
    scope=Scope.READ,
    body=_OneBody,
    answers={200: DECISION},
    errors=(404,),
)
async def _peek(request: Request) -> Response:
    body = await read_record(request, _OneBody)
    decision = await mesh_of(request).peek_confirmed(_checked(body.key), cost=body.cost)
    return JSONResponse(as_json(decision))


@described(
    "Give units back that were admitted and not used, in the windows that run.",
    scope=Scope.OPERATE,
    body=_OneBody,
    answers={200: Shape({"status": Literal["refunded"]})},
    errors=(404,),
)
async def _refund(request: Request) -> Response:
    body = await read_record(request, _OneBody)
    mesh_of(request).refund(_checked(body.key), cost=body.cost)
    return JSONResponse({"status": "refunded"})


@described(
    "Let nothing of a key's limits be used any more.",
    scope=Scope.OPERATE,
    body=_KeyBody,
    answers={200: Shape({"status": Literal["reset"]})},
    errors=(404,),
)
async def _reset(request: Request) -> Response:
    body = await read_record(request, _KeyBody)
    mesh_of(request).reset_limit(_checked(body.key))
    return JSONResponse({"status": "reset"})


@described(
    "Count an estimate of what is known only later, such as the tokens of an answer.",
    scope=Scope.OPERATE,
    body=_ReserveBody,
    answers={200: _RESERVATION, 429: _RESERVATION},
    errors=(404,),
)
async def _reserve(request: Request) -> Response:
    body = await read_record(request, _ReserveBody)
    reservation = await mesh_of(request).reserve_confirmed(
        _checked(body.key), estimate=body.estimate, lease_s=body.lease_s
    )
    return as_response(reservation.decision, reservation_id=reservation.reservation_id)


@described(
    "Count what was really used in the place of an estimate; at the node that counted it.",
    scope=Scope.OPERATE,
    body=_SettleBody,
    answers={200: Shape({"status": Literal["settled"]})},
    errors=(404,),
)
async def _settle(request: Request) -> Response:
    body = await read_record(request, _SettleBody)
    mesh_of(request).settle(body.reservation_id, actual=body.actual)
    return JSONResponse({"status": "settled"})


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [
        resource(f"{prefix}/rate-limit/acquire", post=_acquire),
        resource(f"{prefix}/rate-limit/peek", post=_peek),
        resource(f"{prefix}/rate-limit/refund", post=_refund),
        resource(f"{prefix}/rate-limit/reset", post=_reset),
        resource(f"{prefix}/rate-limit/reserve", post=_reserve),
        resource(f"{prefix}/rate-limit/settle", post=_settle),
    ]
