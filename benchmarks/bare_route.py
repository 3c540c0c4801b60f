"""One Starlette route that answers a fixed body: what `GET /mesh/status` is compared with.

python benchmarks/bare_route.py PORT BODY_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BODY = Path(sys.argv[2]).read_bytes()


async def status(_request: Request) -> Response:
    return Response(BODY, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/status", status)]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        access_log=False,
        log_level="warning",
    )
