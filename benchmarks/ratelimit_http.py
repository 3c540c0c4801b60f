"""What `POST /mesh/rate-limit/acquire` costs beside a bare route of the same server.

Both routes stand in one process of `meshlib-server serve`, behind the same authentication, and
answer with the same headers; the bare one reads its JSON body and answers with a ready decision.
The client shares the machine with the server, and so does whatever else it does: what is compared
is the processor time that the server takes for a request, and rates are those of one core that
does nothing else. What the client sees by the wall clock stands beside it.

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


def _cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken; of Linux alone."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _load(node: Node, path: str, body: Any, duration_s: float) -> tuple[float, float]:
    """Ask over kept-alive connections; return requests a second, and CPU seconds of one."""
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

    assert node.process is not None
    begin, cpu_s = time.perf_counter(), _cpu_s(node.process.pid)
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    took_s = time.perf_counter() - begin
    return done / took_s, (_cpu_s(node.process.pid) - cpu_s) / done


def http_rows(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Measure both routes in turns, and decisions in batches: CPU time, and requests a second."""
    rounds, duration_s = (2, 0.5) if is_quick else (7, 2.0)
    one = {"key": "user:ann"}
    batch = {"batch": [{"key": f"user:{number}"} for number in range(BATCH)]}
    asked = {"bare": (BARE, one), "acquire": (ACQUIRE, one), "batch": (ACQUIRE, batch)}
    per_s: dict[str, list[float]] = {name: [] for name in asked}
    cpu_s: dict[str, list[float]] = {name: [] for name in asked}
    with _server() as node:
        for _ in range(rounds):
            for name, (path, body) in asked.items():
                rate, took_s = asyncio.run(_load(node, path, body, duration_s))
                per_s[name].append(rate)
                cpu_s[name].append(took_s)
    ratios = [bare / ours for bare, ours in zip(cpu_s["bare"], cpu_s["acquire"], strict=True)]
    yield {
        "loop": "uvloop" if _has_uvloop() else "asyncio",
        "bare_cpu_us": round(1e6 * statistics.median(cpu_s["bare"]), 1),
        "acquire_cpu_us": round(1e6 * statistics.median(cpu_s["acquire"]), 1),
        "ratio": round(statistics.median(ratios), 2),
        "batch": BATCH,
        "batch_cpu_us": round(1e6 * statistics.median(cpu_s["batch"]), 1),
        "decisions_per_s": round(BATCH / statistics.median(cpu_s["batch"])),
        "bare_seen_per_s": round(statistics.median(per_s["bare"])),
        "acquire_seen_per_s": round(statistics.median(per_s["acquire"])),
        "decisions_seen_per_s": round(BATCH * statistics.median(per_s["batch"])),
    }


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


if __name__ == "__main__":
    _serve()
