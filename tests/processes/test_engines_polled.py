"""Who asks an engine how it is, over real processes, when that one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.children import Child

CHILD = Path(__file__).with_name("polling_child.py")


class Engine(ThreadingHTTPServer):
    """An engine's metrics, and who has asked for them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Metrics)
        self.running = 3
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Metrics(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        engine = self.server
        assert isinstance(engine, Engine)
        engine.asked.append(self.headers["X-Router"])
        body = f"vllm:num_requests_running {engine.running}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Yield an engine that is asked."""
    with Engine() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
async def routers(engine: Engine, anyio_backend: str) -> AsyncIterator[dict[str, Child]]:
    """Yield three routers that have met."""
    children: dict[str, Child] = {}
    for name in ("one", "two", "three"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), name, engine.url,
            *(child.address for child in children.values()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        children[name] = Child(process)
        children[name].address = await children[name].read()
    yield children
    for child in children.values():
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
        await child.process.communicate()


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_killed_router_s_engines_are_asked_by_another(
    engine: Engine, routers: dict[str, Child]
) -> None:
    """A kill -9 of the one that asks: all the others know what the engine says from then on."""
    for child in routers.values():
        await child.until(lambda told: told == [3, [True, 3.0]])
    async with asyncio.timeout(30):
        while len(set(engine.asked[-6:])) > 1:  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.05)
    first = engine.asked[-1]

    routers.pop(first).signal(signal.SIGKILL)
    engine.running = 5

    for child in routers.values():
        await child.until(lambda told: told[1] == [True, 5.0])
    assert engine.asked[-1] in routers
