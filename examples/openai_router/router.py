"""One router: an OpenAI-compatible server that is a node of a mesh.

    cd examples && python -m openai_router.router settings.json

`run.py` beside this file starts three of them, and four workers to try them with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import httpx2
import uvicorn
from openai_router.admission import Doorkeeper, RefusedError
from openai_router.sending import Answer, Asked, Sender, WorkerFailedError
from openai_router.settings import Settings
from openai_router.workers import Circuits, Prober, monotonic
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meshlib import (
    ConfiguredDefaults,
    GossipConfig,
    Limit,
    MeshConfig,
    MeshRuntime,
    TcpTransport,
)
from meshlib.state import LimitRule
from meshlib_server.adapters.openai import BODY_BYTES_MAX, read_prompt

POLICY = ("expected_time", "{}")

KEEP_ALIVE_S = 75
"""How long an idle connection of a client stays: longer than clients keep theirs, so that none is
closed just as a request comes on it."""

WORKER_IDLE_S = 2.0
"""How long one to a worker does: shorter than workers keep theirs, for the same reason."""


class Router:
    """What the endpoints work on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.mesh = MeshRuntime(
            _mesh_config(settings),
            transport=TcpTransport(settings.gossip, token=settings.token),
            seeds=[seed for seed in settings.seeds if seed != settings.gossip],
        )
        self.client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(
                settings.silence_timeout_s, connect=settings.connect_timeout_s, pool=None
            ),
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=64,
                keepalive_expiry=WORKER_IDLE_S,
            ),
        )
        self.circuits = Circuits()
        self.doorkeeper = Doorkeeper(self.mesh, settings)
        self.sender = Sender(self.mesh, self.client, self.circuits, settings)
        self.is_draining = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be a node, and probe the workers, inside the block."""
        async with self.client, self.mesh:
            await self.mesh.wait_ready()
            probing = asyncio.create_task(Prober(self.mesh, self.client, self.settings).run())
            try:
                yield
            finally:
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)

    async def read(self, request: Request) -> Asked:
        """Read a request, and see to it that it has an end and that its usage will be told."""
        tenant = self.doorkeeper.who(request.headers)
        if int(request.headers.get("content-length") or 0) > BODY_BYTES_MAX:
            raise RefusedError(413, "too_large", f"a body has {BODY_BYTES_MAX} bytes at most")
        data = await request.body()
        prompt = read_prompt(data) if len(data) <= BODY_BYTES_MAX else None
        if prompt is None:
            raise RefusedError(400, "invalid_body", "the body must be a JSON object")
        if prompt.model != self.settings.model:
            raise RefusedError(404, "model_not_found", f"there is no model {prompt.model!r}")
        body: dict[str, Any] = json.loads(data)
        named = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
        most = body.setdefault(named, self.settings.max_tokens)
        choices = body.get("n", 1)
        if type(most) is not int or type(choices) is not int or min(most, choices) < 1:
            raise RefusedError(400, "invalid_body", f"{named} and n must be 1 or more")
        options = body.get("stream_options") or {}
        if body.get("stream"):
            told = {"include_usage": True, "continuous_usage_stats": True}
            body["stream_options"] = {**options, **told}
        tokens = math.ceil(len(prompt.text) / self.settings.characters_per_token) + 8
        wants_usage = bool(options.get("include_usage"))
        return Asked(request.url.path, body, tenant, prompt.text, tokens, wants_usage)

    def estimate(self, asked: Asked) -> int:
        """Return the most tokens that a request may use."""
        most: int = asked.body.get("max_completion_tokens") or asked.body["max_tokens"]
        choices: int = asked.body.get("n", 1)
        return asked.prompt_tokens + most * choices


class Completions:
    """`/v1/chat/completions` and `/v1/completions`. Plain ASGI: it must see the client go away."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request until it is answered or nobody waits for the answer."""
        try:
            asked = await self._router.read(Request(scope, receive))
        except RefusedError as error:
            await error.response()(scope, receive, send)
            return
        serving = asyncio.create_task(self._serve(asked, scope, receive, send))
        leaving = asyncio.create_task(_wait_gone(receive))
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not serving.done():
                serving.cancel()
            await asyncio.gather(serving, leaving, return_exceptions=True)
        if not serving.cancelled():
            serving.result()

    async def _serve(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        router, answer, used = self._router, None, 0
        try:
            admission = await router.doorkeeper.admit(asked.tenant, estimate=router.estimate(asked))
        except RefusedError as error:
            await error.response()(scope, receive, send)
            return
        try:
            answer = await router.sender.answer(asked)
            await self._pass_on(answer, send)
        except RefusedError as error:
            await error.response()(scope, receive, send)
        finally:
            # First what nothing can interrupt: the next await may be where this is cancelled.
            if answer is not None:
                used = answer.tokens
            router.doorkeeper.end(admission, tokens=used)
            if answer is not None:
                await answer.close()

    async def _pass_on(self, answer: Answer, send: Send) -> None:
        is_stream = answer.status == 200 and answer.asked.is_stream
        media_type = "text/event-stream" if is_stream else "application/json"
        headers = {"content-type": media_type, "x-worker": answer.worker}
        headers["x-router"] = self._router.settings.name
        if not is_stream:
            headers["content-length"] = str(len(answer.first))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.first, "more_body": is_stream})
        if not is_stream:
            return
        try:
            async for event in answer.rest():
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except (httpx2.HTTPError, WorkerFailedError, ValueError):
            self._router.circuits.failed(answer.worker, now=monotonic())
            error = {
                "message": "the worker was lost",
                "type": "server_error",
                "code": "worker_lost",
            }
            event = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wait_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _mesh_config(settings: Settings) -> MeshConfig:
    """Return the node's settings; what holds of all routers each says, and none writes."""
    rules = tuple(
        LimitRule(what, pattern=f"{what}:*", limits=(Limit(most, per="minute"),))
        for what, most in (
            ("requests", settings.requests_per_minute),
            ("tokens", settings.tokens_per_minute),
        )
    )
    return MeshConfig(
        name=settings.name,
        gossip=GossipConfig.of("local"),
        defaults=ConfiguredDefaults(rules=rules, policies={settings.model: POLICY}),
    )


def make_app(router: Router) -> Starlette:
    """Return the application of a router."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with router.running():
            yield

    async def models(_request: Request) -> Response:
        model = {"id": router.settings.model, "object": "model", "created": 0, "owned_by": "mesh"}
        return JSONResponse({"object": "list", "data": [model]})

    async def gone(_request: Request, _error: Exception) -> Response:
        """Answer nobody: the client went away while it sent its request."""
        return Response(status_code=400)

    async def ready(_request: Request) -> Response:
        workers = router.mesh.sync.get_all_worker_states()
        can_serve = router.mesh.is_ready and any(worker.health for worker in workers)
        is_ready = can_serve and not router.is_draining
        return JSONResponse({"is_ready": is_ready}, 200 if is_ready else 503)

    async def stats(_request: Request) -> Response:
        mesh = router.mesh
        return JSONResponse(
            {
                "name": router.settings.name,
                "members": {member.name: member.status for member in mesh.members()},
                "workers": {
                    worker.worker_id: worker.health for worker in mesh.sync.get_all_worker_states()
                },
                "open_circuits": sorted(router.circuits.excluded(now=monotonic())),
                "settled_tokens": dict(router.doorkeeper.settled),
                "ledger": [
                    (minute, tenant, what, count)
                    for minute, counts in router.doorkeeper.ledger.items()
                    for (tenant, what), count in counts.items()
                ],
                "retries": router.sender.retries,
            }
        )

    completions = Completions(router)
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/readyz", ready),
            Route("/stats", stats),
        ],
        exception_handlers={ClientDisconnect: gone},
    )


class Server(uvicorn.Server):
    """uvicorn, which drains: it says so first, then takes nothing new, then ends what runs."""

    def __init__(self, config: uvicorn.Config, router: Router) -> None:
        super().__init__(config)
        self._router = router

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal does not wait for it."""
        if self._router.is_draining:
            super().handle_exit(sig, frame)
            return
        self._router.is_draining = True
        loop = asyncio.get_running_loop()
        loop.call_later(self._router.settings.drain_s, super().handle_exit, sig, frame)


def main() -> None:
    """Serve until a signal."""
    router = Router(Settings.load(sys.argv[1]))
    config = uvicorn.Config(
        make_app(router),
        host=router.settings.host,
        port=router.settings.port,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=60,
    )
    Server(config, router).run()


if __name__ == "__main__":
    main()
