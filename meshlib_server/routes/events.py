"""`/events` and `/ui`: what happens, live; and the page that shows it."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from meshlib_server.describing import Scope, described
from meshlib_server.problems import BadRequest
from meshlib_server.resources import resource
from meshlib_server.service import service_of

__all__ = ["UI_PATH", "routes", "ui_routes"]

UI_PATH: Final = "/mesh/ui"

_PAGE: Final = Path(__file__).parents[1] / "dashboard" / "page.html"

_POLICY: Final = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@described(
    "What happens, as server-sent events: an overview first, and then each event as it comes.",
    scope=Scope.READ,
    answers={200: None},
    media_type="text/event-stream",
    query={"overview": "`1`: another overview follows each second in which nothing happens."},
)
async def _events(request: Request) -> Response:
    wanted = request.query_params.get("overview", "0")
    if wanted not in ("0", "1"):
        raise BadRequest("overview: expected 0 or 1")
    service = service_of(request)
    mesh, feed = service.mesh, service.feed
    feed.check_room()
    return StreamingResponse(
        feed.stream(mesh, has_overviews=wanted == "1"),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@described(
    "The dashboard; the page itself holds nothing of the cluster, and asks for a token.",
    scope=None,
    answers={200: None},
    media_type="text/html",
    is_mesh=False,
)
async def _ui(_request: Request) -> Response:
    page, policy = _page()
    headers = {**_HEADERS, "Content-Security-Policy": policy}
    return Response(page, media_type="text/html", headers=headers)


@functools.cache
def _page() -> tuple[bytes, str]:
    """Return the page, and a policy by which its own script runs and no other."""
    page = _PAGE.read_bytes()
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return page, _POLICY.format(script=digest)


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [resource(f"{prefix}/events", get=_events)]


def ui_routes() -> list[BaseRoute]:
    """Return the route of the page."""
    return [resource(UI_PATH, get=_ui)]
