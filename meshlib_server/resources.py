"""Routes by resource: one path, and what each method does there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from meshlib_server.describing import Operation, Scope, operation_of
from meshlib_server.metrics.requests import PATH
from meshlib_server.problems import BadRequest, Forbidden
from meshlib_server.service import service_of

__all__ = ["GRANTED", "DirectRoutes", "Handler", "operations_of", "resource"]

Handler = Callable[[Request], Awaitable[Response]]

GRANTED: Final = "meshlib.granted"
"""Where the check of tokens leaves the scope of a caller; without it everything is open."""

_SHOWN_MAX: Final = 5
_SHOWN_CHARACTERS_MAX: Final = 100


def resource(path: str, **methods: Handler) -> Route:
    """Make the route of one path.

    One route knows all methods of its path, so what it does not know is a 405 whose `Allow`
    is complete, and never falls through to a route that matches by accident.

    Args:
        path: Starlette's path template.
        methods: handlers by lower-case method, each `described`; `get` answers HEAD as well. A
            query parameter that a handler is not described with is a 400, as is one that is
            there twice.

    Raises:
        TypeError: a handler is not described.
    """
    handlers = {name.upper(): handler for name, handler in methods.items()}
    return Route(path, _Resource(handlers, path.replace(":path}", "}")))


def operations_of(routes: Iterable[BaseRoute]) -> dict[str, dict[str, Operation]]:
    """Return what the routes that `resource` made do: path template, lower-case method, what."""
    return {
        route.endpoint.path: {
            name.lower(): operation
            for name, operation in route.endpoint.operations.items()
            if name != "HEAD"
        }
        for route in routes
        if isinstance(route, Route) and isinstance(route.endpoint, _Resource)
    }


class DirectRoutes(BaseRoute):
    """Finds a route whose path has no parameters by its path, where a router tries one by one.

    It stands before the routes themselves, which it leaves whatever it does not find.

    Args:
        routes: those that it looks among; `resource` made the ones that it takes.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._by_path = {
            route.path: route
            for route in routes
            if isinstance(route, Route)
            and isinstance(route.endpoint, _Resource)
            and "{" not in route.path
        }

    def matches(self, scope: AsgiScope) -> tuple[Match, AsgiScope]:
        """Tell whether there is such a route. O(1)."""
        if scope["type"] != "http" or scope.get("root_path"):
            return Match.NONE, {}
        route = self._by_path.get(scope["path"])
        if route is None:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": route.endpoint, "path_params": {}}

    async def handle(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Have the route answer."""
        scope["route"] = route = self._by_path[scope["path"]]
        await route.handle(scope, receive, send)


class _Resource:
    """The ASGI application of one path."""

    def __init__(self, handlers: dict[str, Handler], path: str) -> None:
        if "GET" in handlers:
            handlers = {**handlers, "HEAD": handlers["GET"]}
        self._handlers = handlers
        self.path = path
        self.operations = {name: operation_of(handler) for name, handler in handlers.items()}
        self._allow = ", ".join(sorted(handlers))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        scope[PATH] = self.path
        method = scope["method"]
        handler = self._handlers.get(method)
        if handler is None:
            raise HTTPException(405, headers={"Allow": self._allow})
        operation = self.operations[method]
        granted: Scope | None = scope.get(GRANTED)
        wanted = operation.scope
        if wanted is not None and granted is not None and not granted.opens(wanted):
            raise Forbidden(f"this needs a token of the scope {wanted}, not {granted}")
        request = Request(scope, receive, send)
        _check_parameters(request, operation)
        if operation.is_write:
            await service_of(request).await_clock()
        response = await handler(request)
        await response(scope, receive, send)


def _check_parameters(request: Request, operation: Operation) -> None:
    """Refuse what would be passed over: whoever asks for it would believe the answer."""
    if not request.scope["query_string"]:
        return
    known = operation.query
    names = [name for name, _ in request.query_params.multi_items()]
    unknown = sorted(set(names) - set(known))
    if unknown:
        shown = ", ".join(repr(name[:_SHOWN_CHARACTERS_MAX]) for name in unknown[:_SHOWN_MAX])
        raise BadRequest(
            f"unknown query parameters: {shown}; known: {', '.join(sorted(known)) or 'none'}"
        )
    if len(set(names)) < len(names):
        raise BadRequest("a query parameter is there twice")
