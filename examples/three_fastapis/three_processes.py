"""FastAPI in three processes behind one limit: no store, and no process that counts for the others.

    python examples/three_fastapis/three_processes.py

Needs `fastapi` and the extras `server` and `client`. Each process serves HTTP and is a node; the
parent sends 45 requests of one API key, in turn to each, and 10 a minute are admitted in all.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx2
import uvicorn
from fastapi import FastAPI

from meshlib import MeshConfig, MeshRuntime, TcpTransport
from meshlib_server.middleware import Charge, RateLimitMiddleware, by_header

LIMIT = 10
PROCESSES = 3


def make_app(name: str, gossip: str, seeds: list[str]) -> FastAPI:
    """Return the application of one process."""
    mesh = MeshRuntime(MeshConfig(name=name), transport=TcpTransport(gossip), seeds=seeds)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with mesh:
            await mesh.wait_ready()
            mesh.limits.set_rule("user", pattern="user:*", limits=[f"{LIMIT}/minute"])
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(
        RateLimitMiddleware,
        mesh=mesh,
        charges=[Charge(key=by_header("x-api-key", prefix="user:", is_secret=True))],
    )

    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"served_by": name}

    @app.get("/members")
    async def members() -> int:
        return len(mesh.members())

    return app


def serve(name: str, port: int, gossip: str, seeds: list[str]) -> None:
    """Serve until the parent ends the process."""
    app = make_app(name, gossip, seeds)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(url: str) -> None:
    """Return once a process knows of all of them."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{url}/members").json() == PROCESSES:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} has not met the others")
        time.sleep(0.05)


def main() -> None:
    """Start three processes, ask all of them, and end them."""
    ports = free_ports(2 * PROCESSES)
    http, gossip = ports[:PROCESSES], [f"127.0.0.1:{port}" for port in ports[PROCESSES:]]
    urls = [f"http://127.0.0.1:{port}" for port in http]
    processes = [
        subprocess.Popen([sys.executable, __file__, f"web-{n}", str(http[n]), gossip[n], *gossip])  # noqa: S603 - this file itself
        for n in range(PROCESSES)
    ]
    try:
        for url in urls:
            wait_for(url)
        time.sleep(61 - time.time() % 60 if time.time() % 60 > 50 else 0)  # in one minute
        answers = [
            httpx2.get(urls[n % PROCESSES], headers={"x-api-key": "sk-ann"}) for n in range(45)
        ]
        told = Counter(answer.status_code for answer in answers)
        print(f"{told[200]} were admitted and {told[429]} refused, by {PROCESSES} processes")
        print(
            f"the last one: {answers[-1].json()['error']}, {answers[-1].headers['Retry-After']} s"
        )
        assert told == {200: LIMIT, 429: 45 - LIMIT}, told
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(
            sys.argv[1],
            int(sys.argv[2]),
            sys.argv[3],
            [s for s in sys.argv[4:] if s != sys.argv[3]],
        )
    else:
        main()
