"""Which workers may be tried: what one router has seen of them, and what all know.

Two things that are not the same. A *circuit* is this router's own experience, opens at once and is
told to nobody: a router whose own network is broken must not take the workers away from the
others. The *health* of a worker is told to all, and said by one router: the one that owns the
worker on a hash ring over the routers in reach. When it dies another one owns it.
"""

from __future__ import annotations

import asyncio
import random
import time

import httpx2
from attrs import define
from openai_router.settings import Settings

from meshlib import ConsistentHashRing, MeshRuntime

FAILURES_MAX = 3
"""Failures in a row that open a circuit."""

OPEN_S, OPEN_S_MAX = 1.0, 30.0
"""For how long: twice as long each time that the trial after it fails."""

PROBES_MAX = 2
"""Probes in a row that must fail before a worker is said to be unhealthy."""


@define
class _Circuit:
    failures: int = 0
    open_s: float = OPEN_S
    closed_at: float = 0.0
    is_tried: bool = False


class Circuits:
    """This router's circuit breakers, one for each worker; time is an argument."""

    def __init__(self) -> None:
        self._circuits: dict[str, _Circuit] = {}

    def excluded(self, *, now: float) -> set[str]:
        """Return the workers that are not to be tried now; of each that was, one trial runs."""
        return {
            name
            for name, circuit in self._circuits.items()
            if circuit.failures >= FAILURES_MAX and (circuit.is_tried or now < circuit.closed_at)
        }

    def chosen(self, worker: str) -> None:
        """Take note that a request goes there: behind an open circuit it is the one trial."""
        if worker in self._circuits:
            self._circuits[worker].is_tried = True

    def succeeded(self, worker: str) -> None:
        """Close the circuit: the worker has answered."""
        self._circuits.pop(worker, None)

    def given_up(self, worker: str) -> None:
        """Take note that a request ended before the worker could show anything."""
        if worker in self._circuits:
            self._circuits[worker].is_tried = False

    def failed(self, worker: str, *, now: float) -> None:
        """Count a failure; the third in a row opens the circuit, and each after it again."""
        circuit = self._circuits.setdefault(worker, _Circuit())
        circuit.failures += 1
        circuit.is_tried = False
        if circuit.failures > FAILURES_MAX:
            circuit.open_s = min(2 * circuit.open_s, OPEN_S_MAX)
        circuit.closed_at = now + circuit.open_s


class Prober:
    """Asks the workers that this router owns how they are, and tells all routers.

    Args:
        mesh: this router's node.
        client: what asks.
        settings: which workers there are, how often and how long they are asked.
    """

    def __init__(self, mesh: MeshRuntime, client: httpx2.AsyncClient, settings: Settings) -> None:
        self._mesh, self._client, self._settings = mesh, client, settings
        self._failures = dict.fromkeys(settings.workers, 0)

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for worker in self._settings.workers:
                tasks.create_task(self._watch(worker))

    async def _watch(self, worker: str) -> None:
        while True:
            if self._is_own(worker):
                self._note(worker, is_healthy=await self._is_healthy(worker))
            await asyncio.sleep(self._settings.probe_interval_s * random.uniform(0.8, 1.2))

    def _is_own(self, worker: str) -> bool:
        routers = [member.name for member in self._mesh.members() if member.is_reachable]
        return ConsistentHashRing(routers).owner(worker) == self._settings.name

    async def _is_healthy(self, worker: str) -> bool:
        url = self._settings.workers[worker]
        try:
            answer = await self._client.get(f"{url}/health", timeout=self._settings.probe_timeout_s)
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200

    def _note(self, worker: str, *, is_healthy: bool) -> None:
        self._failures[worker] = 0 if is_healthy else self._failures[worker] + 1
        if 0 < self._failures[worker] < PROBES_MAX:
            return
        sync, known = self._mesh.sync, self._mesh.sync.get_worker_state(worker)
        if known is not None and known.health == is_healthy:
            return
        if known is not None and is_healthy:
            sync.clear_worker(worker)  # it was gone, and nobody knows what it still has cached
        sync.sync_worker_state(
            worker,
            model_id=self._settings.model,
            url=self._settings.workers[worker],
            health=is_healthy,
            load=0.0,
        )


def monotonic() -> float:
    """Return the time that circuits are judged by."""
    return time.monotonic()
