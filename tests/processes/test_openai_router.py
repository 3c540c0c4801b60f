"""The router of the examples: three of them and four workers as processes, and the real client."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai.types.chat import ChatCompletionMessageParam
from openai_router.mock_worker import Worker, make_app
from openai_router.run import KEYS, MODEL, Cluster, clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
FREE = {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000, "parallel": 1000}
"""Limits that nobody reaches."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three routers and four workers, which nobody kills."""
    with Cluster(parallel=4, queue_s=0.2) as started:
        yield started


def one_client(cluster: Cluster, key: str, *, router: int = 0) -> OpenAI:
    """Return a client of one router, which does not try again."""
    url = f"{cluster.routers[router].url}/v1"
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)


def test_chat_and_completions_are_answered_whole_and_streamed(cluster: Cluster) -> None:
    """With the usage where the client asks for it, and nowhere else."""
    with one_client(cluster, KEYS[0]) as client:
        said: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello " * 40}]
        whole = client.chat.completions.create(model=MODEL, messages=said, max_tokens=8)
        pieces = list(
            client.chat.completions.create(model=MODEL, messages=said, max_tokens=8, stream=True)
        )
        counted = list(
            client.completions.create(
                model=MODEL,
                prompt="hello",
                max_tokens=8,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        text = client.completions.create(model=MODEL, prompt="hello", max_tokens=8)

        assert "so it goes round and round " == whole.choices[0].message.content
        assert whole.choices[0].message.content == "".join(
            piece.choices[0].delta.content or "" for piece in pieces
        )
        assert all(piece.usage is None for piece in pieces)
        assert [None] * (len(counted) - 1) == [piece.usage for piece in counted[:-1]]
        assert counted[-1].usage == text.usage
        assert [MODEL] == [model.id for model in client.models.list()]


def test_what_cannot_be_is_told_as_the_client_knows_it(cluster: Cluster) -> None:
    """Each by its own exception."""
    said: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
    with one_client(cluster, "sk-nobody") as stranger, pytest.raises(AuthenticationError):
        stranger.completions.create(model=MODEL, prompt="hello")
    with one_client(cluster, KEYS[1]) as client:
        with pytest.raises(NotFoundError):
            client.completions.create(model="another", prompt="hello")
        with pytest.raises(BadRequestError):
            client.completions.create(model=MODEL, prompt="hello", max_tokens=0)
        with pytest.raises(BadRequestError, match="more than the 20000"):
            client.chat.completions.create(model=MODEL, messages=said, max_tokens=20_000)


def test_parallel_requests_and_tokens_are_bounded_over_all_routers(cluster: Cluster) -> None:
    """The fifth at once is refused, and so is what goes beyond the tokens of a minute."""
    with (
        one_client(cluster, KEYS[2]) as first,
        one_client(cluster, KEYS[2], router=1) as second,
    ):
        streams = [
            client.completions.create(model=MODEL, prompt="long", max_tokens=400, stream=True)
            for client in (first, first, second, second)
        ]
        with pytest.raises(RateLimitError) as refused:
            second.completions.create(model=MODEL, prompt="one more")
        assert "too_many_parallel_requests" == refused.value.code
        for stream in streams:
            stream.close()
    with one_client(cluster, KEYS[3]) as client:
        ask = partial(client.completions.create, model=MODEL, prompt="x" * 50_000)
        told = [refusal(partial(ask, max_tokens=60)) for _ in range(3)]
    # Two of the three are in one minute at least.
    assert "rate_limit_exceeded" in [None if error is None else error.code for error in told]
    assert all(error is None or error.response.headers["Retry-After"] for error in told)


def refusal(ask: Callable[[], object]) -> RateLimitError | None:
    """Ask, and return the refusal if there is one."""
    try:
        ask()
    except RateLimitError as error:
        return error
    return None


def test_who_goes_away_frees_the_worker_and_pays_for_what_was_generated(cluster: Cluster) -> None:
    """Not for the estimate; the slot is free, and the worker has stopped."""
    with one_client(cluster, KEYS[4]) as client:
        before = cluster.settled()
        with client.completions.create(
            model=MODEL, prompt="long", max_tokens=2000, stream=True
        ) as stream:
            next(iter(stream))

        def running() -> int:
            counts = [worker.get("/counts")["running"] for worker in cluster.workers]
            return sum(sum(count.values()) for count in counts)

        cluster.wait_until(lambda: running() == 0, "the worker stops")
        cluster.wait_until(lambda: cluster.settled() != before, "it is settled")
        assert 0 < (cluster.settled() - before).total() < 500


# Under load


@define
class Outcome:
    """What became of the requests of a load, each asked once unless it was lost unbegun."""

    answered: int = 0
    broken_begun: int = 0
    lost: list[str] = field(factory=list)
    retried: int = 0
    is_over: bool = False
    _more: asyncio.Event = field(factory=asyncio.Event)

    def note(self, pieces: int) -> None:
        """Take note of an answer that has begun; negative for one that broke."""
        self.answered += pieces > 0
        self.broken_begun += pieces < 0
        self._more.set()

    async def wait_for_answers(self, count: int) -> None:
        """Return once so many more requests were answered."""
        wanted = self.answered + count
        while self.answered < wanted:
            self._more.clear()
            await self._more.wait()


async def ask(client: AsyncOpenAI, text: str) -> int:
    """Stream one answer; return how many pieces came before it broke, negative when it did."""
    pieces = 0
    try:
        stream = await client.completions.create(
            model=MODEL, prompt=text, max_tokens=40, stream=True
        )
        async for _ in stream:
            pieces += 1
    except APIStatusError:
        raise
    except APIError:
        if not pieces:
            raise
        return -pieces
    return pieces


async def load(
    urls: list[str],
    key: str,
    outcome: Outcome,
    *,
    number: int,
) -> None:
    """Ask one request after the other; what was lost before it had begun is asked elsewhere."""
    rng = random.Random(number)
    async with clients(urls, key) as told:
        while not outcome.is_over:
            text = f"{rng.randrange(20)} is the number of this conversation. " * 20
            for attempt in range(2 * len(urls)):
                client = told[(number + attempt) % len(told)]
                try:
                    pieces = await ask(client, text)
                except APIError as error:
                    if len(urls) == 1 or attempt == 2 * len(urls) - 1:
                        outcome.lost.append(repr(error))
                        break
                    outcome.retried += 1
                    continue
                outcome.note(pieces)
                break


async def under_load(routers: list[list[str]], event: Callable[[], None]) -> Outcome:
    """Let something happen while 24 clients ask: after 100 answers, with 100 more to come."""
    outcome = Outcome()
    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        for n in range(24):
            tasks.create_task(load(routers[n % len(routers)], KEYS[n % 10], outcome, number=n))
        await outcome.wait_for_answers(100)
        await asyncio.to_thread(event)
        await outcome.wait_for_answers(100)
        outcome.is_over = True
    return outcome


def test_a_worker_that_is_killed_under_load_loses_nothing_that_had_not_begun() -> None:
    """Without any retry of the client; and the worker is used again once it is back."""
    with Cluster(token_s=0.005, **FREE) as cluster:
        victim = cluster.workers[0]
        routers = [[router.url] for router in cluster.routers]

        outcome = asyncio.run(under_load(routers, victim.kill))

        assert [] == outcome.lost
        assert outcome.broken_begun <= 24
        victim.start()
        cluster.wait_until(
            lambda: all(cluster.is_whole(router) for router in cluster.routers), "it is healthy"
        )
        numbers = itertools.count()
        with one_client(cluster, KEYS[0]) as client:

            def is_used() -> bool:
                prompt = f"{next(numbers)} is a prompt that nobody has. " * 20
                client.completions.create(model=MODEL, prompt=prompt, max_tokens=1)
                return bool(victim.get("/counts")["requests"])

            cluster.wait_until(is_used, "it gets requests again")


def test_a_router_that_is_killed_under_load_loses_nothing_that_a_second_url_cannot_save() -> None:
    """Its slots are free again too, and the others go on probing its workers."""
    with Cluster(token_s=0.005, **{**FREE, "parallel": 8}) as cluster:
        victim, others = cluster.routers[0], cluster.routers[1:]
        routers = [[victim.url, others[0].url], [others[0].url, others[1].url]]

        outcome = asyncio.run(under_load(routers, victim.kill))

        assert [] == outcome.lost
        assert 0 < outcome.retried
        cluster.workers[3].kill()

        def is_told() -> bool:
            return all(not router.get("/stats")["workers"]["w3"] for router in others)

        cluster.wait_until(is_told, "the routers that are left say that it is gone", limit_s=20)


def test_a_router_that_drains_breaks_no_request() -> None:
    """What it has begun it ends; what comes when it listens no more goes elsewhere."""
    with Cluster(token_s=0.005, **FREE) as cluster:
        victim, others = cluster.routers[0], cluster.routers[1:]
        routers = [[victim.url, others[0].url], [others[0].url, others[1].url]]

        outcome = asyncio.run(under_load(routers, victim.stop))

        assert ([], 0) == (outcome.lost, outcome.broken_begun)


def test_the_example_runs_as_it_is_and_checks_its_own_outcome() -> None:
    """By one command, without a warning."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples/openai_router/run.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert "60 of 80 passed, 20 were refused" in result.stdout
    assert 2 == result.stdout.count("16 of 16 requests were answered")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_who_goes_away_with_half_a_request_is_no_error_of_a_worker(path: str) -> None:
    """A router that is killed does: it filled the log of whoever it spoke to."""
    app = make_app(Worker(0.0))
    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))

    assert sent[0]["status"] == 400
