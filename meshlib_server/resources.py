"""Routes by resource: one path, and what each method does there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

__all__ = ["Handler", "resource"]

Handler = Callable[[Request], Awaitable[Response]]


def resource(path: str, **methods: Handler) -> Route:
    """Make the route of one path.

    One route knows all methods of its path, so what it does not know is a 405 whose `Allow`
    is complete, and never falls through to a route that matches by accident.

    Args:
        path: Starlette's path template.
        methods: handlers by lower-case method; `get` answers HEAD as well.
    """
    return Route(path, _Resource({name.upper(): handler for name, handler in methods.items()}))


class _Resource:
    """The ASGI application of one path."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        if "GET" in handlers:
            handlers = {**handlers, "HEAD": handlers["GET"]}
        self._handlers = handlers
        self._allow = ", ".join(sorted(handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise HTTPException(405, headers={"Allow": self._allow})
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)
