"""What a route pays for its limits: microseconds over the bare route, for a hot key.

    pip install -e '.[bench]'
    python benchmarks/bench_middleware.py [--quick]

Caveats first. A request is one call of an ASGI application, without a server, a socket or HTTP
around it; the node is alone, so that it holds what it admits and no request waits for another node,
as a busy key of a cluster does as a rule. The bare route is one that Starlette finds among two and
answers with a ready response. Beside it stands fixed-window counting in a dictionary of the same
process, which is the least that a limit could cost: it knows of no other process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib_server.middleware import Charge, RateLimitMiddleware, RouteLimits, as_told, by_header

RESULTS: Final = Path(__file__).resolve().parent / "results"
HEADERS: Final = [(b"host", b"bench"), (b"accept", b"*/*"), (b"x-api-key", b"ann")]
ROUNDS: Final = 9


class InThisProcess:
    """Counts in a dictionary, and tells nobody of it."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._counts: dict[tuple[bytes, int], int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        value = next(value for name, value in scope["headers"] if name == b"x-api-key")
        window = (value, int(time.time()) // 60)
        self._counts[window] = count = self._counts.get(window, 0) + 1
        app = self._app if count <= self._limit else Response(status_code=429)
        await app(scope, receive, send)


async def endpoint(_request: Request) -> Response:
    """Answer at once."""
    return Response(b"ok")


async def receive() -> Message:
    """Return a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Take what is answered."""
    if message["type"] == "http.response.start":
        assert message["status"] == 200


def scope() -> dict[str, Any]:
    """Return one request, as a server hands it over."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": "/hot", "raw_path": b"/hot", "query_string": b"", "root_path": "",
        "scheme": "http", "headers": HEADERS, "client": ("127.0.0.1", 1), "server": ("bench", 80),
    }  # fmt: skip


def contenders(mesh: MeshRuntime) -> dict[str, ASGIApp]:
    """Return each application by what it is called in the table."""

    def routes(hot: Callable[[Request], Awaitable[Response]] = endpoint) -> Starlette:
        return Starlette(routes=[Route("/cold", endpoint), Route("/hot", hot)])

    user = Charge(key=by_header("x-api-key", prefix="user:"))
    secret = Charge(key=by_header("x-api-key", prefix="user:", is_secret=True))
    tokens = Charge(key=by_header("x-api-key", prefix="tokens:"), cost=100, actual=as_told)
    by_user = RateLimitMiddleware(routes(), mesh=mesh, charges=[user])
    return {
        "bare": routes(),
        "a dictionary of this process": InThisProcess(routes(), limit=2**40),
        "middleware, one charge": by_user,
        "middleware, key by digest": RateLimitMiddleware(routes(), mesh=mesh, charges=[secret]),
        "middleware, one charge settled": RateLimitMiddleware(
            routes(), mesh=mesh, charges=[tokens]
        ),
        "middleware, two charges": RateLimitMiddleware(routes(), mesh=mesh, charges=[user, tokens]),
        "decorator, one charge": routes(RouteLimits(mesh).charged(user)(endpoint)),
    }


async def seconds(app: ASGIApp, count: int) -> float:
    """Return how long so many requests take, one after the other."""
    requests = [scope() for _ in range(count)]
    began = time.perf_counter()
    for request in requests:
        await app(request, receive, send)
    return time.perf_counter() - began


async def measure(count: int) -> list[dict[str, Any]]:
    """Measure all in turn, round by round, and compare each round with its own bare one."""
    transport = MemoryNetwork().transport("bench:1")
    async with MeshRuntime(MeshConfig(name="bench"), transport=transport) as mesh:
        await mesh.wait_ready()
        for name in ("user", "tokens"):
            limit = f"{2**50}/minute"
            mesh.limits.set_rule(name, pattern=f"{name}:*", limits=[limit])
        apps = contenders(mesh)
        taken: dict[str, list[float]] = {name: [] for name in apps}
        for _ in range(ROUNDS):
            for name, app in apps.items():
                await asyncio.sleep(0)  # what the node has to do it does in between
                taken[name].append(await seconds(app, count) / count * 1e6)
    rows = []
    for name, each in taken.items():
        over = [one - bare for one, bare in zip(each, taken["bare"], strict=True)]
        rows.append(
            {
                "name": name,
                "request_us": round(statistics.median(each), 2),
                "over_bare_us": round(statistics.median(over), 2),
            }
        )
    return rows


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few requests, and nothing is written")
    is_quick = parser.parse_args().quick
    rows = asyncio.run(measure(200 if is_quick else 5_000))
    print(f"{'route':<32}{'us a request':>14}{'us over bare':>14}")
    for row in rows:
        print(f"{row['name']:<32}{row['request_us']:>14.2f}{row['over_bare_us']:>14.2f}")
    if not is_quick:
        about = {"python": platform.python_version(), "machine": platform.machine()}
        (RESULTS / "bench_middleware.json").write_text(
            json.dumps({**about, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
