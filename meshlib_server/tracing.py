"""A span for each request, when the program was started under OpenTelemetry."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["traced"]

_UNTRACED = "livez,readyz,metrics"
"""What supervisors and scrapers ask for all the time."""


def traced(app: ASGIApp) -> ASGIApp:
    """Return an application whose requests are spans, or the same one when nobody traces.

    Whoever wants spans starts the program with `opentelemetry-instrument`, which has imported
    OpenTelemetry by now; so nobody else pays for its import. Connections of peers are no spans,
    since they last as long as the node.

    Args:
        app: what answers.
    """
    name = "opentelemetry.instrumentation.asgi"
    if "opentelemetry.trace" not in sys.modules or importlib.util.find_spec(name) is None:
        return app
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    spans: Any = OpenTelemetryMiddleware(
        app,
        excluded_urls=_UNTRACED,
        default_span_details=_details,
        exclude_spans=["receive", "send"],
    )

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        await (spans if scope["type"] == "http" else app)(scope, receive, send)

    return choose


def _details(scope: Any) -> tuple[str, dict[str, Any]]:
    """Name a span by its method: a path holds keys, of which there are any number."""
    return scope.get("method", "HTTP"), {}
