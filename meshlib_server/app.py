"""The ASGI application: routes, middleware and error answers, put together as data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from meshlib_server.access.caps import CapsByAddress
from meshlib_server.access.foreign import RefuseForeign
from meshlib_server.auth import AuthMiddleware, Keyring, Secrets
from meshlib_server.http.gate import HttpSettings
from meshlib_server.metrics import CountedRequests
from meshlib_server.problems import EXCEPTION_HANDLERS
from meshlib_server.resources import DirectRoutes
from meshlib_server.routes import PREFIXES, api_routes
from meshlib_server.routes.description import description_routes
from meshlib_server.routes.events import ui_routes
from meshlib_server.routes.metrics import metrics_routes
from meshlib_server.routes.probes import PROBE_PATHS, probe_routes
from meshlib_server.service import Service

__all__ = ["EncodedPaths", "build_app", "http_routes"]


def build_app(
    service: Service,
    *,
    secrets: Secrets | Keyring,
    gossip: Callable[[WebSocket], Awaitable[None]] | None = None,
    http: HttpSettings | None = None,
) -> Starlette:
    """Make the application of one node.

    Args:
        service: what the endpoints work on.
        secrets: who may call; a keyring's may be replaced while it runs.
        gossip: takes the connections of peers; None when the mesh is not enabled.
        http: what callers are granted; None: the defaults.
    """
    first = secrets.secrets if isinstance(secrets, Keyring) else secrets
    is_open = not first.operators
    http = http or HttpSettings()
    rate, body_bytes_max = http.requests_per_second_per_address, http.body_bytes_per_address_max
    caps = Middleware(
        CapsByAddress, rate=rate, body_bytes_max=body_bytes_max, free_paths=PROBE_PATHS
    )
    routes = http_routes()
    if gossip is not None:
        routes += [WebSocketRoute(f"{prefix}/gossip", gossip) for prefix in PREFIXES]
    app = Starlette(
        routes=[DirectRoutes(routes), *routes],
        middleware=[
            Middleware(CountedRequests, counters=service.sources.requests),
            *([caps] if rate or body_bytes_max else []),
            *([Middleware(RefuseForeign)] if is_open else []),
            Middleware(AuthMiddleware, secrets=secrets),
            Middleware(EncodedPaths),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False  # a key may end in a slash
    app.state.service = service
    return app


def http_routes() -> list[BaseRoute]:
    """Return every route of HTTP, the most frequent first: each one costs those behind it."""
    routes = [*api_routes(), *probe_routes(), *metrics_routes(), *ui_routes()]
    return [*routes, *description_routes(routes)]


class EncodedPaths:
    """Lets routes match the path as it was sent, percent-encoding and all.

    A server hands over a decoded path, in which `a%2Fb` and `a/b` are one, as are the id
    `x/match` and the operation `match` on `x`. Handlers undo the encoding of each key with
    `bodies.path_key`.

    Args:
        app: what sees the encoded path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the raw path in the place of the decoded one."""
        raw_path: bytes = scope.get("raw_path") or b""
        if b"%" in raw_path:
            scope["path"] = raw_path.decode("latin-1")
        await self._app(scope, receive, send)
