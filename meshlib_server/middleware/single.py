"""Rate limits for single routes: a decorator for Starlette's, a dependency for FastAPI's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meshlib.errors import InvalidTypeError
from meshlib_server.middleware.asgi import follow
from meshlib_server.middleware.charges import Answer, Charge
from meshlib_server.middleware.charging import (
    Admission,
    Charging,
    MeshSource,
    OnFailure,
)

__all__ = ["RouteLimits"]

Endpoint = Callable[..., Awaitable[Response]]


class RouteLimits:
    """Makes limits for single routes.

        limits = RouteLimits(lambda: app.state.mesh)

        @limits.charged(Charge(key=by_header("x-api-key", prefix="user:")))
        async def search(request: Request) -> Response: ...

    Args:
        mesh: the node, which may start later, or what returns it once there is one.
        on_failure: as for `RateLimitMiddleware`.
        timeout_s: likewise.
    """

    def __init__(
        self,
        mesh: MeshSource,
        *,
        on_failure: str = OnFailure.CLOSED,
        timeout_s: float | None = None,
    ) -> None:
        self._mesh = mesh
        self._on_failure = on_failure
        self._timeout_s = timeout_s

    def _charging(self, charges: tuple[Charge, ...]) -> Charging:
        return Charging(
            self._mesh, charges=charges, on_failure=self._on_failure, timeout_s=self._timeout_s
        )

    def charged(self, *charges: Charge) -> Callable[[Callable[..., Any]], Endpoint]:
        """Return a decorator for an endpoint of Starlette, which takes a request.

        A streaming answer is settled at its end. An ordinary function runs in a thread, as
        Starlette has it.

        Args:
            charges: what a request is charged; at least one.

        Raises:
            ConfigError: no charge.
        """
        charging = self._charging(charges)

        def decorate(endpoint: Callable[..., Any]) -> Endpoint:
            call: Callable[..., Awaitable[Response]] = (
                endpoint
                if inspect.iscoroutinefunction(endpoint)
                else functools.partial(run_in_threadpool, endpoint)
            )

            @functools.wraps(endpoint)
            async def charged(*args: Any, **kwargs: Any) -> Response:
                request = _request_of(args, kwargs)
                admission = await charging.admit(request.scope)
                if admission.refusal is not None:
                    refusal = admission.refusal
                    return Response(refusal.body, refusal.status_code, refusal.headers)
                admission.register(request.scope)
                try:
                    response = _checked(await call(*args, **kwargs))
                except BaseException as error:
                    admission.settle(_failed(error))
                    raise
                return _Followed(response, admission)

            return charged

        return decorate

    def dependency(self, *charges: Charge) -> Callable[..., AsyncIterator[None]]:
        """Return a dependency for FastAPI: `Depends(limits.dependency(...))`.

        A request that is refused is an `HTTPException`, whose `detail` says what is wrong. FastAPI
        ends a dependency after the answer has been sent; it sees nothing of it, so the route
        tells by `tell_used(request.scope, ...)` what was used.

        Args:
            charges: what a request is charged; at least one.

        Raises:
            ConfigError: no charge.
        """
        charging = self._charging(charges)

        async def charge(request: Request, response: Response) -> AsyncIterator[None]:
            admission = await charging.admit(request.scope)
            if admission.refusal is not None:
                refusal = admission.refusal
                headers = {
                    name: value
                    for name, value in refusal.headers.items()
                    if not name.startswith("Content-")
                }
                raise HTTPException(refusal.status_code, refusal.message, headers)
            response.headers.update(admission.headers())
            admission.register(request.scope)
            answer = Answer(status_code=200, is_complete=True)
            try:
                yield
            except BaseException as error:
                answer = _failed(error)
                raise
            finally:
                admission.settle(answer)

        return charge


def _request_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Request):
            return value
    raise InvalidTypeError("an endpoint that is charged must take the request")


def _checked(response: object) -> Response:
    if not isinstance(response, Response):
        kind = type(response).__name__
        raise InvalidTypeError(f"an endpoint that is charged must return a Response, not {kind}")
    return response


def _failed(error: BaseException) -> Answer:
    return Answer(status_code=error.status_code if isinstance(error, HTTPException) else 500)


class _Followed(Response):
    """An answer that is settled when it has been sent."""

    def __init__(self, inner: Response, admission: Admission) -> None:
        self._inner = inner
        self._admission = admission
        self.status_code = inner.status_code
        self.media_type = inner.media_type
        self.background = inner.background
        self.body = getattr(inner, "body", b"")
        self.raw_headers = inner.raw_headers  # the same list: what is added here goes out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await follow(self._inner, scope, receive, send, admission=self._admission)
