"""`GET /livez` and `GET /readyz`: for supervisors and load balancers.

They need no token and stand beside the prefixes; they tell whether, why not, and nothing else.
"""

from __future__ import annotations

from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from meshlib_server.describing import Shape, described
from meshlib_server.problems import Code, problem
from meshlib_server.resources import resource
from meshlib_server.service import service_of

__all__ = ["PROBE_PATHS", "probe_routes"]

LIVE_PATH: Final = "/livez"
READY_PATH: Final = "/readyz"

PROBE_PATHS: Final = frozenset({LIVE_PATH, READY_PATH})
"""The paths that are answered without a token."""


@described(
    "Whether the process answers.",
    scope=None,
    answers={200: Shape({"status": Literal["alive"]})},
    is_mesh=False,
    is_capped=False,
)
async def _live(_request: Request) -> Response:
    """Answer: the event loop turns."""
    return JSONResponse({"status": "alive"})


@described(
    "Whether the node is ready, and stays.",
    scope=None,
    answers={200: Shape({"status": Literal["ready"]})},
    errors=(503,),
    is_mesh=False,
    is_capped=False,
)
async def _ready(request: Request) -> Response:
    """Answer 200 when this node holds what its cluster holds and is not leaving."""
    reason = service_of(request).unready_reason()
    return (
        problem(503, reason, code=Code.NOT_READY) if reason else JSONResponse({"status": "ready"})
    )


def probe_routes() -> list[BaseRoute]:
    """Return the routes of this module."""
    return [resource(LIVE_PATH, get=_live), resource(READY_PATH, get=_ready)]
