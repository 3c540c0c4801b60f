"""Errors as answers: whatever goes wrong, the body is `{"error": "...", "code": "..."}`.

Rule: the mapping of an error to a status code must live in this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from meshlib.errors import (
    ClockAheadError,
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
    "Code",
    "ContentTooLarge",
    "Forbidden",
    "TooManyRequests",
    "Unavailable",
    "problem",
    "problem_body",
    "retry_after",
]


class Code(StrEnum):
    """What went wrong, for a program: a code is never renamed, and never means anything else."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_PATH = "unknown_path"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TIMEOUT = "timeout"
    MEMBER_IN_REACH = "member_in_reach"
    CONTENT_TOO_LARGE = "content_too_large"
    TOO_MANY_REQUESTS = "too_many_requests"
    HEADERS_TOO_LARGE = "headers_too_large"
    UNREADABLE_STATE = "unreadable_state"
    INTERNAL_ERROR = "internal_error"
    NOT_READY = "not_ready"
    NOT_ENABLED = "not_enabled"
    LEAVING = "leaving"
    NO_WORKER = "no_worker"
    CLOCK_AHEAD = "clock_ahead"
    UNAVAILABLE = "unavailable"


_BY_STATUS: Final[Mapping[int, Code]] = {
    400: Code.INVALID_REQUEST,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.TIMEOUT,
    409: Code.MEMBER_IN_REACH,
    413: Code.CONTENT_TOO_LARGE,
    429: Code.TOO_MANY_REQUESTS,
    431: Code.HEADERS_TOO_LARGE,
    500: Code.INTERNAL_ERROR,
    503: Code.UNAVAILABLE,
}
"""The code of a status where nothing more is said."""


class BadRequest(Exception):  # noqa: N818 - named as the status is
    """400: the request is not what the endpoint takes. Nothing was changed."""


class Forbidden(Exception):  # noqa: N818 - named as the status is
    """403: who asks is known, and may not. Nothing was changed."""


class ContentTooLarge(Exception):  # noqa: N818 - named as the status is
    """413: the body is over its limit. Nothing was changed."""


class TooManyRequests(Exception):  # noqa: N818 - named as the status is
    """429: the address has as much under way as it may. Nothing was changed."""


class Unavailable(Exception):  # noqa: N818 - named as the status is
    """503: not enabled, leaving, or without a worker to choose. Nothing was changed.

    Args:
        message: one sentence for a human.
        code: which of these it is.
    """

    def __init__(self, message: str, *, code: Code = Code.UNAVAILABLE) -> None:
        super().__init__(message)
        self.code = code


def problem(
    status_code: int,
    message: str,
    *,
    code: Code | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Make the answer to a request that failed.

    Args:
        status_code: the HTTP status.
        message: one sentence for a human; must hold no secret.
        code: what went wrong, for a program; by default what the status says.
        headers: further headers.
    """
    body = problem_body(status_code, message, code=code)
    return JSONResponse(body, status_code=status_code, headers=headers)


def problem_body(status_code: int, message: str, *, code: Code | None = None) -> dict[str, str]:
    """Return the body of such an answer."""
    fallback = Code.INVALID_REQUEST if status_code < 500 else Code.INTERNAL_ERROR
    return {"error": message, "code": code or _BY_STATUS.get(status_code, fallback)}


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that says when to come back: in whole seconds, and 0 would be "at once"."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message, code = str(error.detail), None
    if error.status_code == 404:
        message, code = f"there is no {request.scope['path']}", Code.UNKNOWN_PATH
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed here; allowed: {allowed}"
    return problem(error.status_code, message, code=code, headers=error.headers)


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
        code = Code.CLOCK_AHEAD if isinstance(error, ClockAheadError) else Code.LEAVING
        return problem(503, str(error), code=code)
    return problem(400, str(error))


async def _not_ready(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NotReadyError)
    headers = retry_after(error.retry_after_s)
    return problem(503, str(error), code=Code.NOT_READY, headers=headers)


async def _unreadable(_request: Request, error: Exception) -> Response:
    return problem(500, str(error), code=Code.UNREADABLE_STATE)


async def _bad_request(_request: Request, error: Exception) -> Response:
    return problem(400, str(error))


async def _forbidden(_request: Request, error: Exception) -> Response:
    return problem(403, str(error))


async def _content_too_large(_request: Request, error: Exception) -> Response:
    # What is left of the body is not read, so the connection cannot go on.
    return problem(413, str(error), headers={"Connection": "close"})


async def _too_many(_request: Request, error: Exception) -> Response:
    headers = {"Connection": "close", **retry_after(1.0)}
    return problem(429, str(error), headers=headers)


async def _unavailable(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    return problem(503, str(error), code=error.code)


async def _server_error(_request: Request, _error: Exception) -> Response:
    # The error itself is logged by the server, and is nobody else's business.
    return problem(500, "internal server error")


EXCEPTION_HANDLERS: Mapping[Any, ExceptionHandler] = {
    HTTPException: _http_error,
    BadRequest: _bad_request,
    Forbidden: _forbidden,
    ContentTooLarge: _content_too_large,
    TooManyRequests: _too_many,
    Unavailable: _unavailable,
    LocalError: _local_error,
    NotReadyError: _not_ready,
    RemoteError: _unreadable,  # what a peer, or a writer of raw configuration, stored
    Exception: _server_error,
}
"""What Starlette calls for each kind of error; `Exception` is its outermost net."""
