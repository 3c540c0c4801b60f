"""Errors as answers: whatever goes wrong, the body is `{"error": "..."}`.

Rule: the mapping of an error to a status code must live in this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from meshlib.errors import (
    LocalError,
    MemberInReachError,
    NotReadyError,
    RemoteError,
    StateError,
    UnknownKeyError,
)

__all__ = [
    "EXCEPTION_HANDLERS",
    "BadRequest",
    "ContentTooLarge",
    "Unavailable",
    "problem",
    "retry_after",
]


class BadRequest(Exception):  # noqa: N818 - named as the status is
    """400: the request is not what the endpoint takes. Nothing was changed."""


class ContentTooLarge(Exception):  # noqa: N818 - named as the status is
    """413: the body is over its limit. Nothing was changed."""


class Unavailable(Exception):  # noqa: N818 - named as the status is
    """503: not enabled, leaving, or without a worker to choose. Nothing was changed."""


def problem(
    status_code: int, message: str, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Make the answer to a request that failed.

    Args:
        status_code: the HTTP status.
        message: one sentence for a human; must hold no secret.
        headers: further headers.
    """
    return JSONResponse({"error": message}, status_code=status_code, headers=headers)


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that says when to come back: in whole seconds, and 0 would be "at once"."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is no {request.scope['path']}"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed here; allowed: {allowed}"
    return problem(error.status_code, message, headers=error.headers)


async def _local_error(request: Request, error: Exception) -> Response:
    if isinstance(error, UnknownKeyError):
        try:
            request.app.state.service.check_absence(f"the {error.what} {error.key!r}")
        except NotReadyError as early:
            return await _not_ready(request, early)
        return problem(404, str(error))
    if isinstance(error, MemberInReachError):
        return problem(409, str(error))
    if isinstance(error, StateError):
        return problem(503, str(error))
    return problem(400, str(error))


async def _not_ready(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NotReadyError)
    return problem(503, str(error), headers=retry_after(error.retry_after_s))


async def _unreadable(_request: Request, error: Exception) -> Response:
    return problem(500, str(error))


async def _bad_request(_request: Request, error: Exception) -> Response:
    return problem(400, str(error))


async def _content_too_large(_request: Request, error: Exception) -> Response:
    # What is left of the body is not read, so the connection cannot go on.
    return problem(413, str(error), headers={"Connection": "close"})


async def _unavailable(_request: Request, error: Exception) -> Response:
    return problem(503, str(error))


async def _server_error(_request: Request, _error: Exception) -> Response:
    # The error itself is logged by the server, and is nobody else's business.
    return problem(500, "internal server error")


EXCEPTION_HANDLERS: Mapping[Any, ExceptionHandler] = {
    HTTPException: _http_error,
    BadRequest: _bad_request,
    ContentTooLarge: _content_too_large,
    Unavailable: _unavailable,
    LocalError: _local_error,
    NotReadyError: _not_ready,
    RemoteError: _unreadable,  # what a peer, or a writer of raw configuration, stored
    Exception: _server_error,
}
"""What Starlette calls for each kind of error; `Exception` is its outermost net."""
