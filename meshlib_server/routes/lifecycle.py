"""`POST /shutdown`: a graceful end."""

from __future__ import annotations

from typing import Literal

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib_server.describing import Scope, Shape, described
from meshlib_server.resources import resource
from meshlib_server.service import Service, service_of

__all__ = ["routes"]


@described(
    "Leave the cluster and end.",
    scope=Scope.ADMIN,
    answers={202: Shape({"status": Literal["shutdown initiated"]})},
)
async def _shutdown(request: Request) -> Response:
    service = service_of(request)
    if not service.is_leaving:
        _ = service.node  # not enabled: 503
    # Begun once the answer is out, so that nobody is left without one.
    return JSONResponse(
        {"status": "shutdown initiated"},
        status_code=202,
        background=BackgroundTask(_begin, service),
    )


async def _begin(service: Service) -> None:
    """Begin on the event loop: a plain function would be called in a thread."""
    service.shut_down()


def routes(prefix: str) -> list[BaseRoute]:
    """Return the routes of this module under a prefix."""
    return [resource(f"{prefix}/shutdown", post=_shutdown)]
