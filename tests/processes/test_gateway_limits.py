"""Ten API keys over three gateways for three minutes, each bound by another of its limits."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from typing import Any

import pytest
from attrs import define, field
from openai import AsyncOpenAI, RateLimitError
from openai.types.chat import ChatCompletionMessageParam
from openai_router.admission import Doorkeeper
from openai_router.run import KEYS, MODEL, Cluster, clients

MINUTES = 3
REQUESTS, TOKENS, PARALLEL = 60, 20_000, 4
LEAST = 0.97
"""Of what is due."""

POLL_S = 0.5
"""How long a client waits that was refused, whatever it was told: it wants all it can get."""


@define
class Kind:
    """What the requests of one key are like.

    Args:
        prompt: characters.
        max_tokens: and as many are generated.
        token_s: seconds for each.
        tasks: how many ask at the same time.
        pause_s: between two requests of one task.
    """

    prompt: int
    max_tokens: int
    token_s: float
    tasks: int
    pause_s: float = 0.0
    keys: list[str] = field(factory=list)


KINDS = {
    "requests": Kind(60, 8, 0.01, tasks=3, keys=KEYS[:3]),
    "tokens": Kind(1200, 150, 0.005, tasks=3, keys=KEYS[3:6]),
    # Of ten seconds: between two of them a slot changes hands and the tokens are counted, which on
    # a machine that has no processor to spare is a good part of a second.
    "parallel": Kind(200, 50, 0.2, tasks=6, keys=KEYS[6:8]),
    "nothing": Kind(600, 20, 0.01, tasks=1, pause_s=2.0, keys=KEYS[8:]),
}
"""By what bounds it."""


async def ask(client: AsyncOpenAI, kind: Kind, text: str, *, is_stream: bool) -> None:
    """Send one request and read all of its answer."""
    how: dict[str, Any] = {"max_tokens": kind.max_tokens, "model": MODEL}
    how["extra_body"] = {"ignore_eos": True, "token_s": kind.token_s}
    said: list[ChatCompletionMessageParam] = [{"role": "user", "content": text}]
    if not is_stream:
        await client.chat.completions.create(messages=said, **how)
        return
    stream: Any = await client.chat.completions.create(messages=said, stream=True, **how)
    async for _ in stream:
        pass


async def use(urls: list[str], key: str, kind: Kind, *, number: int, end: float) -> int:
    """Ask as much as one task can, of a router that is drawn each time; return the refusals."""
    rng, refused = random.Random(f"{key} {number}"), 0
    async with clients(urls, key) as told:
        while time.time() < end:
            text = f"{key} {rng.randrange(6)} ".ljust(kind.prompt, "x")
            try:
                await ask(rng.choice(told), kind, text, is_stream=rng.random() < 0.5)
            except RateLimitError:
                refused += 1
                await asyncio.sleep(POLL_S * rng.uniform(0.8, 1.2))
            await asyncio.sleep(kind.pause_s)
    return refused


async def run_load(cluster: Cluster, *, end: float) -> Counter[str]:
    """Use all keys until then, and return how many requests of each were refused."""
    urls = [router.url for router in cluster.routers]
    tasks = [
        (key, asyncio.create_task(use(urls, key, kind, number=number, end=end)))
        for kind in KINDS.values()
        for key in kind.keys
        for number in range(kind.tasks)
    ]
    refused: Counter[str] = Counter()
    for key, task in tasks:
        refused[key] += await task
    return refused


def ledger(cluster: Cluster) -> dict[str, dict[tuple[int, str], int]]:
    """Return what was counted of each tenant: by minute, requests and tokens."""
    counted: dict[str, dict[tuple[int, str], int]] = defaultdict(Counter)
    for router in cluster.routers:
        for minute, tenant, what, count in router.get("/stats")["ledger"]:
            counted[tenant][minute, what] += count
    return counted


def busy_s(cluster: Cluster, tenant: str, begin: float, end: float) -> float:
    """Return for how long requests of a tenant ran between two moments, all together."""
    spans: list[tuple[float, float, str]] = []
    for worker in cluster.workers:
        spans += worker.get("/counts")["spans"]
    return sum(
        max(0.0, min(ended, end) - max(began, begin))
        for began, ended, whose in spans
        if whose == tenant
    )


@pytest.mark.long
@pytest.mark.timeout(500)
def test_no_key_is_above_a_limit_and_none_is_starved() -> None:
    """Requests, tokens and parallel requests: each of them is what some key runs into."""
    limits = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS, "parallel": PARALLEL}
    with Cluster(queue_s=20.0, **limits) as cluster:
        first = int(time.time() // 60) + 1
        first += first * 60 - time.time() < 8  # there is to be load when the first one begins
        begin = time.monotonic() + first * 60 - time.time()
        time.sleep(max(0.0, begin - time.monotonic() - 8.0))
        refused = asyncio.run(run_load(cluster, end=(first + MINUTES) * 60.0))

        counted, minutes = ledger(cluster), range(first, first + MINUTES)
        used = {
            key: [counted[Doorkeeper.tenant_of(key)].get((minute, what), 0) for minute in minutes]
            for what in ("requests", "tokens")
            for key in KINDS.get(what, KINDS["nothing"]).keys
        }
        busy = {
            key: busy_s(cluster, Doorkeeper.tenant_of(key), begin, begin + 60 * MINUTES)
            for key in KINDS["parallel"].keys
        }
        most = cluster.most_at_once()
        settled, workers_counted = cluster.settled(), cluster.counted()
        print(f"\nof each minute: {used}\nseconds in use of {60 * MINUTES * PARALLEL}: {busy}")
        print(
            f"most at once: {most}; settled and counted: {settled.total()}, "
            f"{workers_counted.total()}; refused: {dict(refused)}"
        )

    above = {
        (tenant, *place): count
        for tenant, counts in counted.items()
        for place, count in counts.items()
        if count > {"requests": REQUESTS, "tokens": TOKENS}[place[1]]
    }
    assert (above, most) == ({}, PARALLEL)
    for key in KINDS["requests"].keys:
        assert min(used[key]) >= LEAST * REQUESTS, key
    for key in KINDS["tokens"].keys:
        assert min(used[key]) >= LEAST * TOKENS, key
    for key in KINDS["parallel"].keys:
        assert busy[key] >= LEAST * 60 * MINUTES * PARALLEL, key
    assert [0, 0] == [refused[key] for key in KINDS["nothing"].keys]
    assert settled == workers_counted
