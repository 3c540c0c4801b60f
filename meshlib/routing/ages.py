"""Since when a router knows its workers, and how old its word of them is."""

from __future__ import annotations

import math
from collections.abc import Iterable

from meshlib.replication import Change
from meshlib.routing.departures import changed_workers
from meshlib.state import WorkerStore

__all__ = ["WorkerAges"]


class WorkerAges:
    """Knows which workers came while this router was there.

    Those that it was told of when it came itself have always been there, as far as it knows.

    Args:
        workers: the workers of all models.
    """

    __slots__ = ("_came_at", "_told_at", "_workers")

    def __init__(self, workers: WorkerStore) -> None:
        self._workers = workers
        self._came_at: dict[str, float] = {}
        self._told_at: dict[str, float] = {}

    def since(self, worker_id: str) -> float:
        """Return when a worker came, in monotonic seconds; minus infinity for one of old. O(1)."""
        return self._came_at.get(worker_id, -math.inf)

    def told_at(self, worker_id: str) -> float:
        """Return when a worker was last written, as far as it was heard here. O(1).

        In monotonic seconds; minus infinity when it was before this router came.
        """
        return self._told_at.get(worker_id, -math.inf)

    def follow(self, changes: Iterable[Change], *, now: float, is_settled: bool) -> None:
        """Learn of workers that came or went. O(workers that changed), or all after a reset.

        Args:
            changes: what the replica reports, of all documents.
            now: monotonic seconds.
            is_settled: whether this router has been told of those that were there before.
        """
        told = changed_workers(changes)
        came_at = now if is_settled and told is not None else -math.inf
        if told is None:
            told = {worker.worker_id for worker in self._workers.all()}
            self._came_at = {name: at for name, at in self._came_at.items() if name in told}
            self._told_at = {name: at for name, at in self._told_at.items() if name in told}
        for worker_id in told:
            if self._workers.get(worker_id) is None:
                self._came_at.pop(worker_id, None)
                self._told_at.pop(worker_id, None)
            else:
                self._came_at.setdefault(worker_id, came_at)
                self._told_at[worker_id] = came_at
