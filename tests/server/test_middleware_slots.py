"""Slots in front of applications: held until an answer has ended, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from meshlib import ConfigError, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib_server.middleware import (
    Charge,
    RateLimitMiddleware,
    RouteLimits,
    WsgiRateLimitMiddleware,
)


def of_user(asked: Any) -> str | None:
    """Return the key of whoever asks; None for nobody."""
    headers = dict(asked["headers"]) if "headers" in asked else {}
    return (headers.get(b"x-user") or b"").decode() or asked.get("HTTP_X_USER") or None


ONE = Charge(key=of_user, slots=1)


def with_mesh(test: Callable[[MeshRuntime], Coroutine[Any, Any, None]]) -> None:
    """Run a test beside one node."""

    async def run() -> None:
        transport = MemoryNetwork().transport("node:1")
        async with MeshRuntime(MeshConfig(name="node"), transport=transport) as mesh:
            await mesh.wait_ready()
            mesh.limits.set_rule("few", pattern="few:*", limits=["1/month"])
            await test(mesh)

    asyncio.run(run())


async def in_use(mesh: MeshRuntime, key: str = "ann", *, of: int = 1) -> int:
    """Return how many slots of a key are held: those that are left can be had and given back."""
    free = []
    while (ticket := await mesh.acquire_slot(key, limit=of)).slot is not None:
        free.append(ticket)
    for each in free:
        mesh.release_slot(each)
    return of - len(free)


async def get(app: ASGIApp, *, user: str = "ann") -> httpx2.Response:
    """Send one request as a user."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get("/", headers={"x-user": user} if user else {})


class Held:
    """An endpoint that streams: it is in the middle of its answer until it may end."""

    def __init__(self, mesh: MeshRuntime) -> None:
        self.mesh = mesh
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def answer(self, _request: Request) -> Response:
        """Begin an answer."""

        async def pieces() -> AsyncIterator[str]:
            yield "one"
            self.begun.set()
            await self.may_end.wait()
            yield "two"

        return StreamingResponse(pieces())


def app_of(endpoint: Any) -> Starlette:
    """Return an application of one route."""
    return Starlette(routes=[Route("/", endpoint)])


async def check_held(mesh: MeshRuntime, app: ASGIApp, held: Held) -> None:
    """Ask once and amid the stream once more; then let it end."""
    first = asyncio.create_task(get(app))
    await held.begun.wait()
    refused = await get(app)
    assert 1 == await in_use(mesh)
    held.may_end.set()
    answer = await first

    assert (200, "onetwo") == (answer.status_code, answer.text)
    assert 429 == refused.status_code
    assert int(refused.headers["Retry-After"]) >= 1
    assert 0 == await in_use(mesh)


def test_a_slot_is_held_until_a_stream_has_ended() -> None:
    """Of the whole application; who is refused is told of the slots."""

    async def test(mesh: MeshRuntime) -> None:
        held = Held(mesh)
        app = RateLimitMiddleware(app_of(held.answer), mesh=mesh, charges=[ONE])
        await check_held(mesh, app, held)
        answer = await get(app)

        assert '"1 at once";q=1;qu="concurrent-requests"' == answer.headers["RateLimit-Policy"]
        assert "0" == answer.headers["X-RateLimit-Remaining"]

    with_mesh(test)


def test_a_decorated_route_holds_a_slot_until_its_stream_has_ended() -> None:
    """Starlette's."""

    async def test(mesh: MeshRuntime) -> None:
        held = Held(mesh)

        @RouteLimits(mesh).charged(ONE)
        async def endpoint(request: Request) -> Response:
            return await held.answer(request)

        await check_held(mesh, app_of(endpoint), held)

    with_mesh(test)


def test_a_dependency_holds_a_slot_until_its_stream_has_ended() -> None:
    """FastAPI's."""

    async def test(mesh: MeshRuntime) -> None:
        app, held, limits = FastAPI(), Held(mesh), RouteLimits(mesh)

        @app.get("/", dependencies=[Depends(limits.dependency(ONE))])
        async def endpoint(request: Request) -> Response:
            return await held.answer(request)

        await check_held(mesh, app, held)

    with_mesh(test)


def test_who_goes_away_amid_a_stream_gives_its_slot_back() -> None:
    """The server says that it has gone, and Starlette ends what it streams."""

    async def test(mesh: MeshRuntime) -> None:
        held = Held(mesh)
        app = RateLimitMiddleware(app_of(held.answer), mesh=mesh, charges=[ONE])

        async def receive() -> dict[str, Any]:
            await held.begun.wait()
            assert 1 == await in_use(mesh)
            return {"type": "http.disconnect"}

        async def send(_message: Any) -> None:
            pass

        scope = {
            "type": "http", "method": "GET", "path": "/", "headers": [(b"x-user", b"ann")],
            "query_string": b"", "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip
        await app(scope, receive, send)

        assert 0 == await in_use(mesh)

    with_mesh(test)


def test_a_request_that_the_server_cancels_gives_its_slot_back() -> None:
    """While it is served, and while it waits for its turn."""

    async def test(mesh: MeshRuntime) -> None:
        held = Held(mesh)
        patient = Charge(key=of_user, slots=1, wait_s=600)
        app = RateLimitMiddleware(app_of(held.answer), mesh=mesh, charges=[patient])
        served = asyncio.create_task(get(app))
        await held.begun.wait()
        waiting = asyncio.create_task(get(app))
        await asyncio.sleep(0)
        for task in (waiting, served):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert 0 == await in_use(mesh)

    with_mesh(test)


def test_an_application_that_fails_gives_its_slot_back() -> None:
    """And its error goes on to the server."""

    async def test(mesh: MeshRuntime) -> None:
        async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
            assert 1 == await in_use(mesh)
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            await get(RateLimitMiddleware(broken, mesh=mesh, charges=[ONE]))

        assert 0 == await in_use(mesh)

    with_mesh(test)


def test_who_waits_for_its_turn_is_served_when_one_ends() -> None:
    """Within `wait_s`."""

    async def test(mesh: MeshRuntime) -> None:
        held = Held(mesh)
        patient = Charge(key=of_user, slots=1, wait_s=600)
        app = RateLimitMiddleware(app_of(held.answer), mesh=mesh, charges=[patient])
        first = asyncio.create_task(get(app))
        await held.begun.wait()
        second = asyncio.create_task(get(app))
        held.may_end.set()

        assert [200, 200] == [(await each).status_code for each in (first, second)]
        assert 0 == await in_use(mesh)

    with_mesh(test)


def test_what_another_limit_refuses_holds_no_slot() -> None:
    """All or nothing; and what a slot refuses is counted nowhere."""

    async def test(mesh: MeshRuntime) -> None:
        few = Charge(key=lambda _: "few:ann")
        app = RateLimitMiddleware(
            app_of(lambda _: PlainTextResponse("")), mesh=mesh, charges=[few, ONE]
        )
        ticket = await mesh.acquire_slot("ann", limit=1)
        refused = [await get(app)]
        mesh.release_slot(ticket)
        answers = [await get(app) for _ in range(2)]
        refused.append(answers.pop())

        assert [200] == [answer.status_code for answer in answers]
        assert ["over the limit of 1 at once", "over the limit of 1/month"] == [
            answer.json()["error"] for answer in refused
        ]
        assert 0 == await in_use(mesh)

    with_mesh(test)


def test_how_many_slots_there_are_may_depend_on_the_request() -> None:
    """Without a key, or with 0, it needs none."""

    async def test(mesh: MeshRuntime) -> None:
        charge = Charge(key=of_user, slots=lambda asked: 0 if of_user(asked) == "root" else 1)
        app = RateLimitMiddleware(
            app_of(lambda _: PlainTextResponse("")), mesh=mesh, charges=[charge]
        )
        for key in ("ann", "root"):
            assert (await mesh.acquire_slot(key, limit=1)).slot is not None
        answers = [await get(app, user=user) for user in ("ann", "root", "")]

        assert [429, 200, 200] == [answer.status_code for answer in answers]

    with_mesh(test)


def test_a_wsgi_application_holds_a_slot_until_the_server_closes_the_answer() -> None:
    """In its threads; read to the end, and not."""

    async def test(mesh: MeshRuntime) -> None:
        def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            yield b"one"
            yield b"two"

        limited = WsgiRateLimitMiddleware(app, mesh=mesh, charges=[ONE])
        statuses: list[str] = []

        def ask() -> Any:
            return limited({"HTTP_X_USER": "ann"}, lambda status, _headers: statuses.append(status))

        def read(answer: Any, *, count: int) -> None:
            pieces = iter(answer)
            for _ in range(count):
                next(pieces)
            with contextlib.suppress(AttributeError):
                answer.close()

        for count in (1, 2):
            answer = await asyncio.to_thread(ask)
            refused = await asyncio.to_thread(ask)
            assert 1 == await in_use(mesh)
            await asyncio.to_thread(read, answer, count=count)
            await asyncio.to_thread(read, refused, count=1)
            assert 0 == await in_use(mesh)

        assert ["429 Too Many Requests", "200 OK"] * 2 == statuses

    with_mesh(test)


@pytest.mark.parametrize(
    "settings",
    [{"slots": 0}, {"slots": 1.5}, {"slots": True}, {"slots": 1_000_001}, {"slots": "4"},
     {"slots": 4, "cost": 2}, {"slots": 4, "actual": lambda _answer: 1}],
)  # fmt: skip
def test_slots_that_cannot_be_are_refused_at_once(settings: Any) -> None:
    """Before any request comes."""
    with pytest.raises(ConfigError):
        Charge(key=of_user, **settings)
