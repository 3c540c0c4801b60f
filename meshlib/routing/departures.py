"""Workers that went, or came to serve another model, and what trees still hold of them.

Rule: who removes a worker raises its epoch in the tree himself. This file mends what comes
between the two parts of a removal on another node: one that has heard of the new epoch and not
yet of the removal, in a transfer for example, may place a prompt in the new epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshlib.crdt import LWWMap
from meshlib.replication import Change
from meshlib.routing.trees import TreeSync
from meshlib.state import WORKERS_DOCUMENT, WorkerStore

__all__ = ["Departures", "changed_workers"]


def changed_workers(changes: Iterable[Change]) -> set[str] | None:
    """Return the workers that changes are of; None when it may be any. O(changes)."""
    told: set[str] = set()
    for change in changes:
        if change.document != WORKERS_DOCUMENT:
            continue
        if change.is_reset or not isinstance(change.delta, LWWMap):
            return None
        told.update(key for key, _ in change.delta.entries() if isinstance(key, str))
    return told


class Departures:
    """Knows which worker served which model, as of the last change that was told.

    Args:
        workers: the workers of all models.
        trees: the routing trees of all models.
    """

    __slots__ = ("_models", "_trees", "_workers")

    def __init__(self, workers: WorkerStore, trees: TreeSync) -> None:
        self._workers = workers
        self._trees = trees
        self._models: dict[str, str] = {}

    def note(self, worker_id: str, model_id: str) -> None:
        """Take note of a write made here: a peer's may replace it before any change is told."""
        self._models[worker_id] = model_id

    def left_behind(self, changes: Iterable[Change]) -> list[tuple[str, str]]:
        """Return (model, worker) for each that is no longer one and still has texts in the tree.

        O(workers that changed), and O(workers) after a reset.

        Args:
            changes: what the replica reports, of all documents.
        """
        told = changed_workers(changes)
        if told is None:
            return self.left_behind_by_all()
        return self._follow(told) if told else []

    def left_behind_by_all(self) -> list[tuple[str, str]]:
        """Return the same where nobody knows what has changed. O(workers)."""
        return self._follow(set(self._everybody()))

    def _everybody(self) -> Iterator[str]:
        yield from self._models
        yield from (worker.worker_id for worker in self._workers.all())

    def _follow(self, worker_ids: set[str]) -> list[tuple[str, str]]:
        behind = []
        for worker_id in sorted(worker_ids):
            worker = self._workers.get(worker_id)
            model_id = None if worker is None else worker.model_id
            before = self._models.pop(worker_id, None)
            if model_id is not None:
                self._models[worker_id] = model_id
            if before not in (None, model_id) and self._trees.holds(before, worker_id):
                behind.append((before, worker_id))
        return behind
