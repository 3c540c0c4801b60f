"""Three routers and four mock workers on this machine, tried with the `openai` client.

    python examples/openai_router/run.py          # show what they do, and end
    python examples/openai_router/run.py --stay   # leave them running

Needs the extra `gateway`. What is shown is checked: the command fails where it is not so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx2
from openai import APIConnectionError, APIError, AsyncOpenAI, InternalServerError, RateLimitError

HERE = Path(__file__).resolve().parent
MODEL = "llama-3"
KEYS = [f"sk-{name}" for name in ("ann", "bob", "cem", "dan", "eve", "fay", "gus", "hal", "ida")]
KEYS.append("sk-joe")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Process:
    """One process, and where it serves HTTP.

    Args:
        name: what it is called among its like.
        port: of HTTP.
        command: what runs it, in the folder of the examples.
    """

    def __init__(self, name: str, port: int, command: list[str]) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self._command = [sys.executable, *command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may not serve yet."""
        self._process = subprocess.Popen(self._command, cwd=HERE.parent)  # noqa: S603 - our own

    def kill(self) -> None:
        """End it without a word: kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=60)

    def get(self, path: str) -> Any:
        """Return what it answers, or None when it does not, or with an error."""
        with contextlib.suppress(httpx2.TransportError):
            answer = httpx2.get(self.url + path, timeout=5)
            return answer.json() if answer.status_code == 200 and answer.content else None
        return None


class Cluster:
    """Routers and workers. Ended with the block.

    Args:
        routers: how many.
        workers: how many.
        token_s: what a worker takes for a token, in seconds.
        settings: what goes to every router beside the names.
    """

    def __init__(
        self, *, routers: int = 3, workers: int = 4, token_s: float = 0.01, **settings: Any
    ) -> None:
        ports = free_ports(2 * routers + workers)
        gossip = [f"127.0.0.1:{port}" for port in ports[:routers]]
        self._folder = tempfile.TemporaryDirectory()
        self.workers = [
            Process(f"w{n}", port, ["openai_router/mock_worker.py", str(port), str(token_s)])
            for n, port in enumerate(ports[2 * routers :])
        ]
        self.routers = []
        urls = {worker.name: worker.url for worker in self.workers}
        for n, port in enumerate(ports[routers : 2 * routers]):
            told = {"name": f"router-{n}", "port": port, "gossip": gossip[n], "seeds": gossip}
            told |= {"model": MODEL, "workers": urls, "keys": KEYS, **settings}
            path = Path(self._folder.name, f"router-{n}.json")
            path.write_text(json.dumps(told))
            command = ["-m", "openai_router.router", str(path)]
            self.routers.append(Process(f"router-{n}", port, command))

    def __enter__(self) -> Self:
        try:
            for process in (*self.workers, *self.routers):
                process.start()
            for router in self.routers:
                self.wait_until(partial(self.is_whole, router), f"{router.name} sees all")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.routers, *self.workers):
            process.stop()
        self._folder.cleanup()

    def is_whole(self, router: Process) -> bool:
        """Tell whether a router has met the others and sees every worker healthy."""
        stats = router.get("/stats") if router.get("/readyz") else None
        return (
            stats is not None
            and list(stats["members"].values()).count("Alive") == len(self.routers)
            and list(stats["workers"].values()).count(True) == len(self.workers)
        )

    @staticmethod
    def wait_until(condition: Callable[[], bool], what: str, *, limit_s: float = 60.0) -> None:
        """Return once something is so."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.05)

    def settled(self) -> Counter[str]:
        """Return the tokens that the routers have settled, by tenant."""
        return _sum(router.get("/stats")["settled_tokens"] for router in self.routers)

    def counted(self) -> Counter[str]:
        """Return the tokens that the workers have counted, by tenant."""
        return _sum(worker.get("/counts")["tokens"] for worker in self.workers)

    def most_at_once(self) -> int:
        """Return how many requests of one key ran at once at most, on all workers together."""
        changes = []
        for worker in self.workers:
            for began, ended, tenant in worker.get("/counts")["spans"]:
                changes += [(began, 1, tenant), (ended, -1, tenant)]
        running: Counter[str] = Counter()
        most = 0
        for _, change, tenant in sorted(changes):  # an end before a beginning at the same time
            running[tenant] += change
            most = max(most, running[tenant])
        return most


def _sum(parts: Iterator[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


@contextlib.asynccontextmanager
async def clients(
    urls: list[str], key: str, *, retries: int = 0
) -> AsyncIterator[list[AsyncOpenAI]]:
    """Give one client for each base URL."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=retries, timeout=30)
            )
            for url in urls
        ]


async def chat(
    client: AsyncOpenAI, text: str, *, max_tokens: int = 16, system: str = "You are brief."
) -> tuple[str, str, int]:
    """Stream one answer; return it, who gave it, and its tokens by the worker's word."""
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "system", "content": system}, {"role": "user", "content": text}],
        max_tokens=max_tokens,
        stream=True,
        stream_options={"include_usage": True},
    )
    words, tokens = "", 0
    async for chunk in raw.parse():
        for choice in chunk.choices:
            words += choice.delta.content or ""
        if chunk.usage is not None:
            tokens = chunk.usage.total_tokens
    return words, raw.headers["x-worker"], tokens


async def chat_somewhere(told: list[AsyncOpenAI], text: str, *, max_tokens: int = 16) -> str:
    """Ask one router, and when that is lost the next: what a client with two base URLs does."""
    for attempt in range(20):
        with contextlib.suppress(APIConnectionError, InternalServerError, RateLimitError, APIError):
            words, _, _ = await chat(told[attempt % len(told)], text, max_tokens=max_tokens)
            return words
        await asyncio.sleep(0.25)
    raise TimeoutError("no router gave an answer")


async def show_prefixes(cluster: Cluster) -> None:
    """Routers know together who has a prompt cached."""
    system = "You are an assistant of a bank, polite and exact. " * 40
    seen = []
    for router in cluster.routers:
        async with clients([router.url], KEYS[0]) as [client]:
            words, worker, tokens = await chat(client, f"Hello, {router.name}", system=system)
        seen.append(worker)
        print(f"  {router.name} sent it to {worker}: {words.strip()!r}, {tokens} tokens")
        await asyncio.sleep(0.2)
    assert len(set(seen)) == 1, seen


async def show_limits(cluster: Cluster, *, parallel: int, requests: int) -> None:
    """A key's limits hold over all routers."""
    urls = [router.url for router in cluster.routers]
    async with clients(urls, KEYS[1]) as told:
        asked = (chat(told[n % 3], f"question {n}", max_tokens=8) for n in range(requests + 20))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, RateLimitError)]
    passed = sum(isinstance(answer, tuple) for answer in answers)
    most = cluster.most_at_once()
    print(f"  {passed} of {len(answers)} passed, {len(refused)} were refused, {refused[0].code}")
    print(f"  at most {most} of them ran at once")
    assert (passed, most) == (requests, parallel)
    assert len(refused) == 20


async def show_kill(cluster: Cluster, victim: Process, key: str) -> None:
    """A process is killed while requests run; a client that asks again loses none."""
    urls = [router.url for router in cluster.routers if router is not victim][:1]
    urls += [router.url for router in cluster.routers if router.url not in urls][:1]
    if victim in cluster.routers:
        urls[1] = victim.url
    async with clients(urls, key) as told:
        asked = [
            asyncio.create_task(chat_somewhere(told[n % 2 :] + told[: n % 2], f"number {n}"))
            for n in range(4)
        ]
        await asyncio.sleep(0.05)
        victim.kill()
        asked += [
            asyncio.create_task(chat_somewhere(told[n % 2 :] + told[: n % 2], f"number {n}"))
            for n in range(4, 16)
        ]
        answers = await asyncio.gather(*asked)
    print(f"  {len(answers)} of {len(asked)} requests were answered")


def main() -> None:
    """Start everything, show it, and end it or leave it running."""
    requests, parallel = 60, 4
    print("starting three routers and four workers")
    with Cluster(requests_per_minute=requests, parallel=parallel, queue_s=10.0) as cluster:
        for process in (*cluster.routers, *cluster.workers):
            print(f"  {process.name:9} {process.url}")
        if "--stay" in sys.argv:
            print(f"base URLs as above with /v1, model {MODEL}, keys {', '.join(KEYS)}")
            print("Ctrl-C ends all of it")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1)
            return
        print("one prompt, asked of each router, goes where it is cached")
        asyncio.run(show_prefixes(cluster))
        print(f"one key, {requests} requests a minute, {parallel} at once, 80 asked of all routers")
        time.sleep(61 - time.time() % 60 if time.time() % 60 > 40 else 0)  # in one minute
        asyncio.run(show_limits(cluster, parallel=parallel, requests=requests))
        settled, counted = cluster.settled(), cluster.counted()
        print(f"{settled.total()} tokens were settled, {counted.total()} counted by the workers")
        assert settled == counted, (settled, counted)
        print("a worker is killed")
        asyncio.run(show_kill(cluster, cluster.workers[0], KEYS[2]))
        print("a router is killed")
        asyncio.run(show_kill(cluster, cluster.routers[0], KEYS[3]))


if __name__ == "__main__":
    main()
