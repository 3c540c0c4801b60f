"""Workers that went, or came to serve another model, and what trees still hold of them.

Rule: who removes a worker shuts it in the trees himself, and names the write by which it went
(`meshlib.crdt`, epochs). This file mends what comes between the two parts of a removal on another
node, and what comes after both: from one that had heard of neither, or that cleared the worker
meanwhile, and that may have been killed before it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshlib.clock import Stamp
from meshlib.crdt import LWWMap
from meshlib.replication import Change
from meshlib.routing.trees import TreeSync
from meshlib.state import WORKERS_DOCUMENT, WorkerStore

__all__ = ["Departure", "Departures", "changed_workers"]

Departure = tuple[str, str, Stamp | None]
"""A model, a worker that is none of it any more, and when it went; None where nobody knows."""


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

    def is_removed(self, worker_id: object) -> bool:
        """Tell whether a worker of that id was removed, and not all have heard of it yet. O(1)."""
        return isinstance(worker_id, str) and self._workers.removed_at(worker_id) is not None

    def left_behind(self, changes: Iterable[Change]) -> list[Departure]:
        """Return (model, worker, when it went) for each that is gone and still in the tree.

        O(workers that changed * trees), and O(workers + tenants) after a reset.

        Args:
            changes: what the replica reports, of all documents.
        """
        told = changed_workers(changes)
        if told is None:
            return self.left_behind_by_all()
        behind = self._follow(told)
        for model_id in self._trees.models() if told else ():
            behind += self.late(model_id, sorted(told))
        return list(dict.fromkeys(behind))

    def left_behind_by_all(self) -> list[Departure]:
        """Return the same where nobody knows what has changed. O(workers + tenants)."""
        behind = self._follow(set(self._everybody()))
        for model_id in self._trees.models():
            behind += self.late(model_id, self._trees.tenants(model_id))
        return list(dict.fromkeys(behind))

    def late(self, model_id: str, tenants: Iterable[str]) -> list[Departure]:
        """Return the same of tenants of one tree: what came after the worker was gone. O(tenants).

        A tree that names the removal already was put right, and what it holds is there on purpose.
        Nothing of a worker that serves another model now is: a node may have placed it there that
        had moved the worker, was overruled, and was killed before it heard so. Where the tree knows
        of a removal that is later than the worker's last write it is left alone: the write that
        moves it here may be under way.
        """
        behind: list[Departure] = []
        is_any_removed = self._workers.removed_count > 0
        for tenant in tenants:
            named: tuple[int, int] | None
            if self._models.get(tenant, model_id) != model_id:
                gone_at = self._workers.written_at(tenant)
                named = self._trees.epoch_stamp(model_id, tenant)
            elif is_any_removed:
                gone_at = self._workers.removed_at(tenant)
                named = self._trees.shut_through(model_id, tenant)
            else:
                continue
            if gone_at is None or not self._trees.holds(model_id, tenant):
                continue
            if named is None or named < gone_at[:2]:
                behind.append((model_id, tenant, gone_at))
        return behind

    def _everybody(self) -> Iterator[str]:
        yield from self._models
        yield from (worker.worker_id for worker in self._workers.all())

    def _follow(self, worker_ids: set[str]) -> list[Departure]:
        """Take note of which models workers serve now; return who left one. O(workers)."""
        behind: list[Departure] = []
        for worker_id in sorted(worker_ids):
            worker = self._workers.get(worker_id)
            model_id = None if worker is None else worker.model_id
            before = self._models.pop(worker_id, None)
            written_at = self._workers.written_at(worker_id)
            if model_id is not None:
                self._models[worker_id] = model_id
            elif written_at is not None:
                continue  # removed: see `late`
            if before not in (None, model_id) and self._trees.holds(before, worker_id):
                behind.append((before, worker_id, written_at))
        return behind
