"""Routes by resource: one path, and what each method does there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meshlib_server.metrics.requests import PATH
from meshlib_server.problems import BadRequest

__all__ = ["Handler", "resource"]

Handler = Callable[[Request], Awaitable[Response]]


_SHOWN_MAX: Final = 5
_SHOWN_CHARACTERS_MAX: Final = 100


def resource(path: str, *, parameters: Collection[str] = (), **methods: Handler) -> Route:
    """Make the route of one path.

    One route knows all methods of its path, so what it does not know is a 405 whose `Allow`
    is complete, and never falls through to a route that matches by accident.

    Args:
        path: Starlette's path template.
        parameters: the query parameters that `get` knows; any other is a 400, as is one that is
            there twice. Other methods know none.
        methods: handlers by lower-case method; `get` answers HEAD as well.
    """
    handlers = {name.upper(): handler for name, handler in methods.items()}
    return Route(path, _Resource(handlers, frozenset(parameters), path.replace(":path}", "}")))


class _Resource:
    """The ASGI application of one path."""

    def __init__(self, handlers: dict[str, Handler], parameters: frozenset[str], path: str) -> None:
        if "GET" in handlers:
            handlers = {**handlers, "HEAD": handlers["GET"]}
        self._handlers = handlers
        self._parameters = parameters
        self._path = path
        self._allow = ", ".join(sorted(handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PATH] = self._path
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise HTTPException(405, headers={"Allow": self._allow})
        request = Request(scope, receive, send)
        self._check_parameters(request)
        response = await handler(request)
        await response(scope, receive, send)

    def _check_parameters(self, request: Request) -> None:
        """Refuse what would be passed over: whoever asks for it would believe the answer."""
        if not request.scope["query_string"]:
            return
        known = self._parameters if request.method in ("GET", "HEAD") else frozenset[str]()
        names = [name for name, _ in request.query_params.multi_items()]
        unknown = sorted(set(names) - known)
        if unknown:
            shown = ", ".join(repr(name[:_SHOWN_CHARACTERS_MAX]) for name in unknown[:_SHOWN_MAX])
            raise BadRequest(
                f"unknown query parameters: {shown}; known: {', '.join(sorted(known)) or 'none'}"
            )
        if len(set(names)) < len(names):
            raise BadRequest("a query parameter is there twice")
