"""Load and health of engines, from the metrics that they publish: the ring says who asks whom.

Rule: which metrics count is decided in this file. Sources: "Production Metrics" of vLLM's
documentation, and of SGLang's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Mapping
from typing import Final

import httpx2
from attrs import frozen

from meshlib import MeshRuntime
from meshlib.errors import StateError
from meshlib_server.adapters.engines.duty import Duties, Duty

__all__ = ["LOOK_S", "EngineLoad", "EnginePoller", "read_load"]

LOOK_S: Final = 0.05
"""How soon a router that is to ask an engine from now on does so: another has gone, or has come."""

RUNNING: Final = ("vllm:num_requests_running", "sglang:num_running_reqs")
WAITING: Final = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
CACHE_USED: Final = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",  # its name in releases before
    "sglang:token_usage",
)

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
FAILURES_MAX: Final = 2
"""Failures in a row that make an engine unhealthy; a success makes it healthy at once."""


@frozen
class EngineLoad:
    """What an engine says of itself.

    Args:
        running: requests in the batch, of all its ranks.
        waiting: requests in the queue.
        cache_used: the part of the cache in use, 0 to 1, of the fullest rank; 0 where it does not
            say.
    """

    running: float
    waiting: float
    cache_used: float = 0.0

    @property
    def requests(self) -> float:
        """All requests that it has: what `sync_worker_state` is told as its load."""
        return self.running + self.waiting


def read_load(text: str) -> EngineLoad | None:
    """Read the metrics of vLLM or SGLang, in Prometheus' text format. O(size).

    Returns:
        None where neither of them says how many requests are running.
    """
    found: dict[str, list[float]] = {}
    wanted = {*RUNNING, *WAITING, *CACHE_USED}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in wanted:
            continue
        behind = line.rpartition("}")[2] if "{" in line else line[len(name) :]
        value = _number(behind)
        if value is not None:
            found.setdefault(name, []).append(value)
    running = [value for name in RUNNING for value in found.get(name, ())]
    waiting = [value for name in WAITING for value in found.get(name, ())]
    used = [value for name in CACHE_USED for value in found.get(name, ())]
    if not running:
        return None
    return EngineLoad(sum(running), sum(waiting), max(used, default=0.0))


def _number(text: str) -> float | None:
    """Return the value of a sample, which a time may follow; None for what is no load."""
    words = text.split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


class EnginePoller:
    """Asks the engines that this router is first for, and writes what they say, for all routers.

    A worker is written when its health or its load has changed. One that comes back has its cache
    forgotten: nobody knows what it still has. When a router has died the next one on the ring asks
    within 50 ms of knowing it, which is well within a second of the death where its system closed
    its connections.

    Args:
        mesh: this router's node.
        client: what asks.
        workers: the base URLs of all engines, by their ids; the same on all routers.
        model_id: what they serve.
        interval_s: seconds from one question to the next, give or take a fifth.
        timeout_s: seconds to wait for an answer.
    """

    def __init__(
        self,
        mesh: MeshRuntime,
        client: httpx2.AsyncClient,
        workers: Mapping[str, str],
        *,
        model_id: str,
        interval_s: float = 0.25,
        timeout_s: float = 1.0,
    ) -> None:
        self._mesh, self._client = mesh, client
        self._workers, self._model_id = dict(workers), model_id
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._duties = Duties(mesh)
        self._changed = asyncio.Event()
        self._failures = dict.fromkeys(self._workers, 0)
        self.loads: dict[str, EngineLoad] = {}
        """What the engines that this router asks have said last."""

    async def run(self) -> None:
        """Ask until cancelled, or until the node has ended."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            for worker_id in self._workers:
                tasks.create_task(self._watch(worker_id))

    async def _look(self) -> None:
        """Wake the tasks of engines that this router does not ask when it may have to."""
        seen = 0
        while self._mesh.is_running:
            with contextlib.suppress(StateError):
                if seen != (seen := self._duties.change_count()):
                    self._changed.set()
                    self._changed = asyncio.Event()
            await asyncio.sleep(LOOK_S)
        self._changed.set()

    async def _watch(self, worker_id: str) -> None:
        while self._mesh.is_running:
            if self._is_own(worker_id):
                load = await self._ask(worker_id)
                if self._mesh.is_running and self._mesh.is_ready:
                    self._note(worker_id, load)
                await asyncio.sleep(self._interval_s * random.uniform(0.8, 1.2))
            else:
                self._failures[worker_id] = 0
                self.loads.pop(worker_id, None)
                await self._changed.wait()

    def _is_own(self, worker_id: str) -> bool:
        try:
            return self._duties.of(worker_id) is Duty.FIRST
        except StateError:
            return False

    async def _ask(self, worker_id: str) -> EngineLoad | None:
        url = self._workers[worker_id] + "/metrics"
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._client.stream("GET", url) as answer:
                    if answer.status_code != 200:
                        return None
                    body = b""
                    async for data in answer.aiter_bytes():
                        body += data
                        if len(body) > BODY_BYTES_MAX:
                            return None
        except (httpx2.HTTPError, TimeoutError):
            return None
        return read_load(body.decode("utf-8", "replace"))

    def _note(self, worker_id: str, load: EngineLoad | None) -> None:
        sync, known = self._mesh.sync, self._mesh.sync.get_worker_state(worker_id)
        if load is None:
            self._failures[worker_id] += 1
            if self._failures[worker_id] < FAILURES_MAX:
                return
            self.loads.pop(worker_id, None)
        else:
            self._failures[worker_id] = 0
            self.loads[worker_id] = load
        health = load is not None
        requests = load.requests if load is not None else 0.0
        if known is not None and (known.health, known.load) == (health, requests):
            return
        if known is not None and health and not known.health:
            sync.clear_worker(worker_id)
        sync.sync_worker_state(
            worker_id,
            model_id=self._model_id,
            url=self._workers[worker_id],
            health=health,
            load=requests,
        )
