"""What `POST /mesh/rate-limit/acquire` costs beside a bare route of the same server.

Both routes stand in one process of `meshlib-server serve`, behind the same authentication, and
answer with the same headers; the bare one reads its JSON body and answers with a ready decision.
The client shares the machine with the server, so only ratios say much.

    python benchmarks/ratelimit_http.py serve --config FILE    # what the benchmark starts
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from meshlib.ratelimit import Decision
from meshlib_server import app, serving
from meshlib_server.commands.processes import Node, make_nodes
from meshlib_server.middleware.headers import rate_limit_headers
from meshlib_server.routes.decisions import as_json

__all__ = ["http_rows"]

BARE: Final = "/mesh/bare"
ACQUIRE: Final = "/mesh/rate-limit/acquire"
LIMIT: Final = 2**40
BATCH: Final = 100
CONNECTIONS: Final = 16
READY: Final = Decision(True, LIMIT, LIMIT - 1, 0.0, 0.5, f"{LIMIT}/second", True, 1)


# The server


async def _bare(request: Request) -> Response:
    await request.json()
    return JSONResponse(as_json(READY), headers=rate_limit_headers(READY))


def _serve() -> None:
    build = app.build_app

    def with_bare_route(*arguments: Any, **settings: Any) -> Starlette:
        made = build(*arguments, **settings)
        made.router.routes.insert(0, Route(BARE, _bare, methods=["POST"]))
        return made

    setattr(serving, "build_app", with_bare_route)  # noqa: B010 - no export of that room
    from meshlib_server.__main__ import main

    main()


@contextlib.contextmanager
def _server() -> Iterator[Node]:
    directory = Path(tempfile.mkdtemp(prefix="meshlib-bench-"))
    (node,) = make_nodes(directory, 1)
    command = [sys.executable, __file__, "serve", "--config", str(node.config)]
    with node.log.open("ab") as log:
        node.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        end_s = time.monotonic() + 30
        while node.get("/mesh/status") is None:
            assert time.monotonic() < end_s, node.log.read_text()[-2000:]
            time.sleep(0.05)
        node.do("PUT", "/mesh/limits/users", {"pattern": "user:*", "limits": [f"{LIMIT}/second"]})
        time.sleep(4)  # nobody decides in the first seconds after a start
        yield node
    finally:
        node.stop()
        shutil.rmtree(directory, ignore_errors=True)


# The client


async def _load(node: Node, path: str, body: Any, duration_s: float) -> float:
    """Return requests a second over kept-alive connections."""
    data = json.dumps(body)
    request = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n{data}"
    ).encode()
    done, end = 0, time.perf_counter() + duration_s

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        while time.perf_counter() < end:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            size = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(size.split(b":")[1]))
            done += 1
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return done / (time.perf_counter() - begin)


def http_rows(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Measure requests a second of both routes in turns, and decisions a second in batches."""
    rounds, duration_s = (2, 0.5) if is_quick else (7, 2.0)
    one = {"key": "user:ann"}
    batch = {"batch": [{"key": f"user:{number}"} for number in range(BATCH)]}
    with _server() as node:
        load = partial(asyncio.run)
        bare, acquire, batches = [], [], []
        for _ in range(rounds):
            bare.append(load(_load(node, BARE, one, duration_s)))
            acquire.append(load(_load(node, ACQUIRE, one, duration_s)))
            batches.append(load(_load(node, ACQUIRE, batch, duration_s)))
        server = "uvloop" if _has_uvloop() else "asyncio"
    ratios = [ours / theirs for ours, theirs in zip(acquire, bare, strict=True)]
    yield {
        "loop": server,
        "bare_per_s": round(statistics.median(bare)),
        "acquire_per_s": round(statistics.median(acquire)),
        "ratio": round(statistics.median(ratios), 2),
        "batch": BATCH,
        "decisions_per_s": round(BATCH * statistics.median(batches)),
    }


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


if __name__ == "__main__":
    _serve()
