"""`GET /metrics`: what this process counts, for Prometheus; beside the prefixes."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from meshlib_server.describing import Scope, described
from meshlib_server.metrics import read_families, render
from meshlib_server.resources import resource
from meshlib_server.service import service_of

__all__ = ["METRICS_PATH", "metrics_routes"]

METRICS_PATH: Final = "/metrics"


@described(
    "What is counted, for Prometheus.",
    scope=Scope.READ,
    answers={200: None},
    media_type="text/plain",
    is_mesh=False,
)
async def _metrics(request: Request) -> Response:
    """Answer in every state of the node: what it counts is wanted most when it is not well."""
    service = service_of(request)
    families = read_families(service.running, service.sources)
    accept = request.headers.get("accept", "")
    content, content_type = await render(families, accept=accept)
    return Response(content, headers={"Content-Type": content_type})


def metrics_routes() -> list[BaseRoute]:
    """Return the routes of this module."""
    return [resource(METRICS_PATH, get=_metrics)]
