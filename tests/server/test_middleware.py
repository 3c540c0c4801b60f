"""Rate limits in front of applications: ASGI, single routes, FastAPI, and WSGI in threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from meshlib import ConfigError, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.errors import InvalidFieldError, InvalidTypeError
from meshlib_server.middleware import (
    Answer,
    Charge,
    RateLimitMiddleware,
    RouteLimits,
    WsgiRateLimitMiddleware,
    as_told,
    by_header,
    tell_used,
)

USER = Charge(key=by_header("x-user", prefix="user:"))
TOKENS = Charge(key=by_header("x-user", prefix="tokens:"), cost=40, actual=as_told)


def still() -> float:
    """Return a wall clock that stands, so that no window ends within a test."""
    return 1_800_000_000.25


def with_mesh(test: Callable[[MeshRuntime], Coroutine[Any, Any, None]]) -> None:
    """Run a test beside one node with three requests and 100 tokens a minute for each user."""

    async def run() -> None:
        transport = MemoryNetwork().transport("node:1")
        config = MeshConfig(name="node")
        async with MeshRuntime(config, transport=transport, wall_clock=still) as mesh:
            await mesh.wait_ready()
            mesh.limits.set_rule("user", pattern="user:*", limits=["3/minute"])
            mesh.limits.set_rule("tokens", pattern="tokens:*", limits=["100/minute"])
            await test(mesh)

    asyncio.run(run())


def used(mesh: MeshRuntime, key: str) -> int:
    """Return how many units of a key are used."""
    [usage] = mesh.rate_limit_usage(key)
    return usage.used_count


async def hello(_request: Request) -> Response:
    """Answer at once."""
    return PlainTextResponse("hello")


def app_of(endpoint: Callable[[Request], Awaitable[Response]] = hello) -> Starlette:
    """Return an application of one route."""
    return Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])


async def get(app: ASGIApp, *, user: str = "ann") -> httpx2.Response:
    """Send one request as a user; empty: as nobody."""
    headers = {"x-user": user} if user else {}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get("/", headers=headers)


# The whole application


def test_over_the_limit_is_a_429_that_says_when_to_come_back() -> None:
    """The body tells it to a program, the headers to a client that knows them."""

    async def test(mesh: MeshRuntime) -> None:
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER])
        answers = [await get(app) for _ in range(4)]

        assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
        body = answers[3].json()
        assert ("too_many_requests", 3, 0) == (body["code"], body["limit"], body["remaining"])
        assert 0 < body["retry_after_s"] <= 60
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
        assert '"3/minute";q=3;w=60' == answers[3].headers["RateLimit-Policy"]

    with_mesh(test)


def test_an_answer_says_how_much_is_left() -> None:
    """With the application's own headers, and for each user apart."""

    async def test(mesh: MeshRuntime) -> None:
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER])
        answer, other = await get(app), await get(app, user="bob")

        assert "hello" == answer.text
        assert "text/plain; charset=utf-8" == answer.headers["Content-Type"]
        assert "2" == answer.headers["X-RateLimit-Remaining"]
        assert '"3/minute";r=2;t=' in answer.headers["RateLimit"]
        assert "2" == other.headers["X-RateLimit-Remaining"]

    with_mesh(test)


def test_who_has_no_key_is_not_charged() -> None:
    """A function that returns None lets a request pass as if nothing were there."""

    async def test(mesh: MeshRuntime) -> None:
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER, TOKENS])
        answers = [await get(app, user="") for _ in range(5)]

        assert {200} == {answer.status_code for answer in answers}
        assert "RateLimit" not in answers[0].headers

    with_mesh(test)


def test_the_cost_is_what_a_function_returns() -> None:
    """A request of 0 units is free."""

    async def test(mesh: MeshRuntime) -> None:
        costs = iter([2, 0, 2])
        charge = Charge(key=lambda _: "user:ann", cost=lambda _: next(costs))
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[charge])
        answers = [await get(app) for _ in range(3)]

        assert [200, 200, 429] == [answer.status_code for answer in answers]
        assert 2 == used(mesh, "user:ann")

    with_mesh(test)


def test_charges_under_one_key_add_up() -> None:
    """Two charges of one unit are two units."""

    async def test(mesh: MeshRuntime) -> None:
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER, USER])

        assert [200, 429] == [(await get(app)).status_code for _ in range(2)]
        assert 2 == used(mesh, "user:ann")

    with_mesh(test)


def test_what_one_limit_refuses_burns_nothing_of_another() -> None:
    """Whether the reservation is refused, or what comes after it."""

    async def test(mesh: MeshRuntime) -> None:
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER, TOKENS])
        assert [200, 200, 429] == [(await get(app)).status_code for _ in range(3)]
        assert (2, 80) == (used(mesh, "user:ann"), used(mesh, "tokens:ann"))

        mesh.acquire("user:bob", cost=3)
        assert 429 == (await get(app, user="bob")).status_code
        assert 0 == used(mesh, "tokens:bob")

    with_mesh(test)


# Settling


def test_a_stream_is_settled_at_its_end_by_what_the_application_tells() -> None:
    """While it runs the estimate counts, and afterwards what was used."""

    async def test(mesh: MeshRuntime) -> None:
        seen = []

        async def endpoint(request: Request) -> Response:
            async def pieces() -> AsyncIterator[str]:
                yield "one"
                seen.append(used(mesh, "tokens:ann"))
                tell_used(request.scope, 7)
                yield "two"

            return StreamingResponse(pieces())

        app = RateLimitMiddleware(app_of(endpoint), mesh=mesh, charges=[TOKENS])
        answer = await get(app)

        assert ("onetwo", [40], 7) == (answer.text, seen, used(mesh, "tokens:ann"))

    with_mesh(test)


def test_an_answer_is_settled_by_what_it_says() -> None:
    """A function reads the end of the answer."""

    async def test(mesh: MeshRuntime) -> None:
        async def endpoint(_request: Request) -> Response:
            return JSONResponse({"text": "x" * 20_000, "tokens": 55})

        def tokens(answer: Answer) -> int:
            assert answer.is_complete
            assert 20_000 < answer.body_bytes
            return int(answer.tail.rpartition(b":")[2].rstrip(b"}"))

        charge = Charge(key=lambda _: "tokens:ann", cost=10, actual=tokens)
        await get(RateLimitMiddleware(app_of(endpoint), mesh=mesh, charges=[charge]))

        assert 55 == used(mesh, "tokens:ann")

    with_mesh(test)


def test_each_key_may_be_told_apart() -> None:
    """What is told of one key goes before what is told of all, and the last word counts."""

    async def test(mesh: MeshRuntime) -> None:
        async def endpoint(request: Request) -> Response:
            tell_used(request.scope, 9)
            tell_used(request.scope, 5, key="tokens:team")
            tell_used(request.scope, 8)
            return PlainTextResponse("")

        team = Charge(key=lambda _: "tokens:team", cost=30, actual=as_told)
        await get(RateLimitMiddleware(app_of(endpoint), mesh=mesh, charges=[TOKENS, team]))

        assert (8, 5) == (used(mesh, "tokens:ann"), used(mesh, "tokens:team"))

    with_mesh(test)


def test_what_nobody_tells_stays_at_the_estimate() -> None:
    """`as_told` leaves it so."""

    async def test(mesh: MeshRuntime) -> None:
        await get(RateLimitMiddleware(app_of(), mesh=mesh, charges=[TOKENS]))

        assert 40 == used(mesh, "tokens:ann")

    with_mesh(test)


def test_who_goes_away_amid_a_stream_is_charged_what_went_out() -> None:
    """The server cancels the application; the answer is then not complete."""

    async def test(mesh: MeshRuntime) -> None:
        began = asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"four", "more_body": True})
            began.set()
            await asyncio.Event().wait()

        def sent(answer: Answer) -> int:
            assert (200, False) == (answer.status_code, answer.is_complete)
            return answer.body_bytes

        charge = Charge(key=lambda _: "tokens:ann", cost=90, actual=sent)
        limited = RateLimitMiddleware(app, mesh=mesh, charges=[charge])
        task = asyncio.create_task(get(limited))
        await began.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert 4 == used(mesh, "tokens:ann")

    with_mesh(test)


def test_an_application_that_fails_is_settled_too() -> None:
    """What it would have answered is a 500, and the error goes on to the server."""

    async def test(mesh: MeshRuntime) -> None:
        async def app(_scope: Any, _receive: Any, _send: Any) -> None:
            raise RuntimeError("broken")

        charge = Charge(
            key=lambda _: "tokens:ann",
            cost=90,
            actual=lambda answer: 0 if answer.status_code >= 500 else None,
        )
        with pytest.raises(RuntimeError, match="broken"):
            await get(RateLimitMiddleware(app, mesh=mesh, charges=[charge]))

        assert 0 == used(mesh, "tokens:ann")

    with_mesh(test)


def test_a_node_that_ends_before_an_answer_does_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The answer goes out; the reservation stays at its estimate, which is logged."""

    async def test(mesh: MeshRuntime) -> None:
        async def endpoint(request: Request) -> Response:
            tell_used(request.scope, 7)
            await mesh.stop()
            return PlainTextResponse("late")

        answer = await get(RateLimitMiddleware(app_of(endpoint), mesh=mesh, charges=[TOKENS]))

        assert "late" == answer.text
        assert "stays at its estimate" in caplog.text

    with_mesh(test)


@pytest.mark.parametrize(("units", "error"), [("7", InvalidTypeError), (-1, InvalidFieldError)])
def test_units_that_cannot_be_are_refused_where_they_are_told(
    units: Any, error: type[Exception]
) -> None:
    """So that whoever tells them sees it, and not who settles."""
    with pytest.raises(error):
        tell_used({}, units)


# What cannot be decided


@pytest.mark.parametrize(("mode", "status_code"), [("closed", 503), ("open", 200)])
def test_without_a_node_the_setting_decides(mode: str, status_code: int) -> None:
    """As while it starts; a 503 says when to come back."""
    app = RateLimitMiddleware(app_of(), mesh=lambda: None, charges=[USER], on_failure=mode)
    answer = asyncio.run(get(app))

    assert status_code == answer.status_code
    assert (status_code == 503) == ("Retry-After" in answer.headers)


@pytest.mark.parametrize(("mode", "status_code"), [("closed", 503), ("open", 200)])
def test_before_the_node_is_ready_the_setting_decides(mode: str, status_code: int) -> None:
    """A limit that has not come yet is not "no limit"."""

    async def run() -> httpx2.Response:
        transport = MemoryNetwork().transport("node:1")
        config = MeshConfig(name="node")
        async with MeshRuntime(config, transport=transport, seeds=["nobody:1"]) as mesh:
            app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER, TOKENS], on_failure=mode)
            return await get(app)

    assert status_code == asyncio.run(run()).status_code


@pytest.mark.parametrize("charge", [USER, TOKENS])
def test_a_key_that_no_limit_is_for_is_not_decided(
    charge: Charge, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a rule that somebody has still to write: logged once, without the key."""

    async def test(mesh: MeshRuntime) -> None:
        mesh.limits.remove_rule("user")
        mesh.limits.remove_rule("tokens")
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[charge])
        answers = [await get(app) for _ in range(3)]

        assert {503} == {answer.status_code for answer in answers}
        assert 1 == caplog.text.count("no limit is set for a key")
        assert ":ann" not in caplog.text + answers[0].text

    with_mesh(test)


@pytest.mark.parametrize("user", ["a" * 2_000, ":" * 2_000])
def test_a_key_that_cannot_be_is_the_caller_s_fault(user: str) -> None:
    """Whoever sends a header of any length gets a 400, and nothing is counted or kept."""

    async def test(mesh: MeshRuntime) -> None:
        app = RateLimitMiddleware(app_of(), mesh=mesh, charges=[USER])

        assert 400 == (await get(app, user=user)).status_code

    with_mesh(test)


def test_a_function_that_returns_no_cost_is_a_bug() -> None:
    """It is not hidden behind an answer to who asked."""

    async def test(mesh: MeshRuntime) -> None:
        broken: Any = Charge(key=lambda _: "user:ann", cost=lambda _: "7")  # type: ignore[arg-type, return-value]
        with pytest.raises(InvalidTypeError):
            await get(RateLimitMiddleware(app_of(), mesh=mesh, charges=[broken]))

    with_mesh(test)


def test_what_is_no_http_passes() -> None:
    """The lifespan of an application, and its WebSockets."""
    seen = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    async def never(message: Message) -> None:
        raise AssertionError(message)

    async def nothing() -> Message:
        raise AssertionError

    limited = RateLimitMiddleware(app, mesh=lambda: None, charges=[USER])
    for kind in ("lifespan", "websocket"):
        asyncio.run(limited({"type": kind}, nothing, never))

    assert ["lifespan", "websocket"] == seen


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateLimitMiddleware(app_of(), mesh=lambda: None, charges=[]),
        lambda: RateLimitMiddleware(
            app_of(), mesh=lambda: None, charges=[USER], on_failure="shrug"
        ),
        lambda: Charge(key=lambda _: "k", cost=0),
        lambda: Charge(key=lambda _: "k", cost=True),
        lambda: Charge(key="k"),  # type: ignore[arg-type]
        lambda: Charge(key=lambda _: "k", actual=7),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(make: Callable[[], object]) -> None:
    """Before any request comes."""
    with pytest.raises(ConfigError):
        make()


def test_a_secret_is_not_the_key_itself() -> None:
    """Keys are seen by all nodes and by whoever looks at the busy ones."""
    key_of = by_header("Authorization", prefix="user:", is_secret=True)
    key = key_of({"headers": [(b"authorization", b"Bearer sk-1")]})

    assert key is not None
    assert key.startswith("user:")
    assert "sk-1" not in key
    assert key == key_of({"HTTP_AUTHORIZATION": "Bearer sk-1"})
    assert key != key_of({"headers": [(b"authorization", b"Bearer sk-2")]})


# Single routes


def test_a_decorated_route_is_limited_and_its_stream_is_settled() -> None:
    """The others are not."""

    async def test(mesh: MeshRuntime) -> None:
        limits = RouteLimits(mesh)

        @limits.charged(USER, TOKENS)
        async def endpoint(request: Request) -> Response:
            async def pieces() -> AsyncIterator[str]:
                yield "one"
                assert 40 <= used(mesh, "tokens:ann")
                tell_used(request.scope, 7)

            return StreamingResponse(pieces(), headers={"x-own": "1"})

        answers = [await get(app_of(endpoint)) for _ in range(4)]

        assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
        assert "too_many_requests" == answers[3].json()["code"]
        assert ("1", "2") == tuple(
            answers[0].headers[name] for name in ("x-own", "X-RateLimit-Remaining")
        )
        assert 21 == used(mesh, "tokens:ann")
        assert 200 == (await get(app_of())).status_code

    with_mesh(test)


def test_a_decorated_function_may_block() -> None:
    """It runs in a thread, as Starlette has it, and what it fails with is settled."""

    async def test(mesh: MeshRuntime) -> None:
        charge = Charge(key=lambda _: "tokens:ann", cost=90, actual=lambda _answer: 3)

        @RouteLimits(mesh).charged(charge)
        def endpoint(request: Request) -> Response:
            if request.method == "GET":
                raise RuntimeError("broken")
            return PlainTextResponse("")

        with pytest.raises(RuntimeError, match="broken"):
            await get(app_of(endpoint))

        assert 3 == used(mesh, "tokens:ann")

    with_mesh(test)


def test_a_dependency_of_fastapi_limits_its_route() -> None:
    """Headers on what passes, an `HTTPException` for what does not, and settled afterwards."""

    async def test(mesh: MeshRuntime) -> None:
        app = FastAPI()
        limits = RouteLimits(mesh)

        @app.get("/", dependencies=[Depends(limits.dependency(USER, TOKENS))])
        async def endpoint(request: Request) -> dict[str, int]:
            tell_used(request.scope, 7)
            return {"used": used(mesh, "tokens:ann")}

        answers = [await get(app) for _ in range(4)]

        assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
        assert [40, 47, 54] == [answer.json()["used"] for answer in answers[:3]]
        assert 21 == used(mesh, "tokens:ann")
        assert {"detail": "over the limit of 3/minute"} == answers[3].json()
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
        assert "RateLimit-Policy" in answers[0].headers

    with_mesh(test)


# Threads


def serve(app: Callable[..., Iterable[bytes]], *, user: str) -> tuple[str, dict[str, str], bytes]:
    """Ask a WSGI application, as a server does: read the answer, and close it."""
    started: list[tuple[str, dict[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        started.append((status, dict(headers)))

    answer = app({"REQUEST_METHOD": "GET", "HTTP_X_USER": user}, start_response)
    try:
        body = b"".join(answer)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
    return *started[0], body


def test_a_wsgi_application_is_limited_from_its_threads() -> None:
    """Each request is decided in the node's loop, and settled when the server closes it."""

    async def test(mesh: MeshRuntime) -> None:
        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("x-own", "1")])
            yield b"one"
            tell_used(environ, 7)

        limited = WsgiRateLimitMiddleware(app, mesh=mesh, charges=[USER, TOKENS])
        answers = await asyncio.gather(
            *(asyncio.to_thread(serve, limited, user="ann") for _ in range(2))
        )
        answers += [await asyncio.to_thread(serve, limited, user="ann") for _ in range(2)]
        statuses = [status for status, _, _ in answers]

        assert ["200 OK"] * 3 + ["429 Too Many Requests"] == statuses
        assert b"one" == answers[0][2]
        assert "1" == answers[0][1]["x-own"]
        assert "X-RateLimit-Remaining" in answers[0][1]
        assert "too_many_requests" == json.loads(answers[3][2])["code"]
        assert 21 == used(mesh, "tokens:ann")

    with_mesh(test)


def test_a_wsgi_application_that_fails_is_settled() -> None:
    """Whether it fails before its answer or within."""

    async def test(mesh: MeshRuntime) -> None:
        def early(_environ: Any, _start: Any) -> Iterable[bytes]:
            raise RuntimeError("broken")

        def late(_environ: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            yield b"four"
            raise RuntimeError("broken")

        charge = Charge(
            key=lambda _: "tokens:ann", cost=90, actual=lambda answer: answer.body_bytes
        )
        for app, units in ((early, 0), (late, 4)):
            limited = WsgiRateLimitMiddleware(app, mesh=mesh, charges=[charge])
            with pytest.raises(RuntimeError, match="broken"):
                await asyncio.to_thread(serve, limited, user="ann")
            assert units == used(mesh, "tokens:ann")

    with_mesh(test)


@pytest.mark.parametrize(("mode", "status"), [("closed", "503"), ("open", "200")])
def test_a_wsgi_application_without_a_node_is_as_the_setting_says(mode: str, status: str) -> None:
    """The node ended, or has not started."""

    async def test(mesh: MeshRuntime) -> None:
        def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [])
            return [b""]

        await mesh.stop()
        for source in (mesh, lambda: None):
            limited = WsgiRateLimitMiddleware(app, mesh=source, charges=[USER], on_failure=mode)
            answer, _, _ = await asyncio.to_thread(serve, limited, user="ann")
            assert answer.startswith(status)

    with_mesh(test)
