"""Leases of workers: who has not been heard of for too long may not be chosen.

Renewals are volatile: they change no record and no version, and are in no log. Each node counts
from when it last heard of a worker itself, on its own monotonic clock, and stops choosing one whose
lease is over, without a write. The removal, much later, is an ordinary write.

Rule: how long a worker counts as heard of is decided in this file, and so are the bytes that
renewals travel in; reading raises `RemoteError`s and nothing else.
Source: leases are C. Gray, D. Cheriton, "Leases", SOSP 1989, of which only the expiry is taken;
ephemeral nodes of ZooKeeper are the same with a session's heartbeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import define, frozen

from meshlib.codec import pack
from meshlib.errors import InvalidValueError, UnknownKeyError, VersionMismatch
from meshlib.invariants import require as require_state
from meshlib.limits import KEY_BYTES_MAX, RENEWALS_PER_MESSAGE_MAX
from meshlib.reading import read_integer, read_rows, read_text, read_tree, require
from meshlib.replication import Change
from meshlib.routing.departures import changed_workers
from meshlib.state import WorkerState, WorkerStore, check_identifier

__all__ = ["LEASE_DOCUMENT", "REMOVED_AFTER_TTLS", "VolatileUpdate", "WorkerLeases"]

LEASE_DOCUMENT: Final = "workers:renewals"
"""The volatile document that renewals travel in."""

REMOVED_AFTER_TTLS: Final = 10
"""Times to live after which a worker that nobody hears of is removed everywhere."""

TICK_S: Final = 0.5
"""How often leases are looked at, in seconds."""

TELL_S: Final = 0.1
"""How long renewals wait for others, to travel together, in seconds."""

STALL_S: Final = 1.0
"""What one step of this node counts for at most. A process that was stopped has heard of nobody
meanwhile, and that is no fault of the workers."""

FORMAT_VERSION: Final = 1


@frozen(slots=True)
class VolatileUpdate:
    """Bytes of a volatile document, and whom they are for.

    Args:
        to: names of nodes; none of them is this one.
        document: the volatile document.
        payload: its bytes.
    """

    to: tuple[str, ...]
    document: str
    payload: bytes


@define(slots=True)
class _Lease:
    """One worker: its time to live, and when it was heard of, on the clock of the leases."""

    ttl_s: float
    heard_at: float


class WorkerLeases:
    """The leases of the workers that have a time to live, as one node sees them.

    Args:
        workers: the workers; those whose leases are over show there as not healthy.
    """

    __slots__ = ("_clock_s", "_leases", "_renewed", "_tell_at", "_ticked_at", "_workers")

    def __init__(self, workers: WorkerStore) -> None:
        self._workers = workers
        self._leases: dict[str, _Lease] = {}
        self._renewed: set[str] = set()
        self._tell_at: float | None = None
        self._ticked_at = 0.0
        self._clock_s = 0.0

    def __len__(self) -> int:
        """Return how many workers have a lease. O(1)."""
        return len(self._leases)

    def follow(self, changes: Iterable[Change], *, now: float) -> None:
        """Learn of workers that were written, here or elsewhere: a write says that one lives.

        O(workers that changed), and O(workers) after a reset.

        Args:
            changes: what the replica reports, of all documents.
            now: monotonic seconds.
        """
        told = changed_workers(changes)
        if told is None:
            self.follow_all(now=now)
            return
        for worker_id in sorted(told):
            self._set(worker_id, self._workers.get(worker_id), now=now, is_heard=True)

    def follow_all(self, *, now: float) -> None:
        """Learn of all workers where nobody knows what has changed. O(workers)."""
        workers = {worker.worker_id: worker for worker in self._workers.all()}
        for worker_id in sorted(self._leases.keys() | workers.keys()):
            self._set(worker_id, workers.get(worker_id), now=now, is_heard=False)

    def _set(
        self, worker_id: str, worker: WorkerState | None, *, now: float, is_heard: bool
    ) -> None:
        if worker is None or worker.ttl_s is None:
            self._leases.pop(worker_id, None)
            self._renewed.discard(worker_id)
            self._workers.set_lapsed(worker_id, is_lapsed=False)
            return
        if not self._leases:
            self._ticked_at = now
        lease = self._leases.get(worker_id)
        if lease is None or is_heard:
            self._hear(worker_id, worker.ttl_s, now)
        else:
            lease.ttl_s = worker.ttl_s

    def renew(self, worker_id: str, *, now: float) -> None:
        """Take note that a worker lives, and tell the other nodes with the next tick. O(1).

        Args:
            worker_id: the worker.
            now: monotonic seconds.

        Raises:
            UnknownKeyError: there is none of that id: it was removed, or never written.
            InvalidValueError: it has no time to live. State unchanged after either.
        """
        check_identifier("worker_id", worker_id)
        worker = self._workers.get(worker_id)
        if worker is None:
            raise UnknownKeyError("worker", worker_id)
        if worker.ttl_s is None:
            raise InvalidValueError(f"the worker {worker_id!r} has no ttl_s to renew")
        if not self._leases:
            self._ticked_at = now
        self._hear(worker_id, worker.ttl_s, now)
        self._renewed.add(worker_id)
        if self._tell_at is None:
            self._tell_at = now + TELL_S

    def receive(self, payload: bytes, *, now: float) -> None:
        """Take the renewals that a peer has heard of. O(renewals).

        Workers without a lease here are passed over: what is written of them counts when it comes.

        Raises:
            RemoteError: no such message. State unchanged.
        """
        for worker_id in _read_renewals(payload):
            lease = self._leases.get(worker_id)
            if lease is not None:
                self._hear(worker_id, lease.ttl_s, now)

    def _hear(self, worker_id: str, ttl_s: float, now: float) -> None:
        self._leases[worker_id] = _Lease(ttl_s, self._clock(now))
        self._workers.set_lapsed(worker_id, is_lapsed=False)

    def _clock(self, now: float) -> float:
        return self._clock_s + min(max(0.0, now - self._ticked_at), STALL_S)

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, in monotonic seconds; None while there is no lease."""
        if not self._leases:
            return None
        due_at = self._ticked_at + TICK_S
        return due_at if self._tell_at is None else min(due_at, self._tell_at)

    def tick(self, now: float, *, others: Sequence[str]) -> list[VolatileUpdate]:
        """Let leases end that are over, and return what to tell. O(leases).

        Args:
            now: monotonic seconds.
            others: the names of the other members in reach.
        """
        self._clock_s = self._clock(now)
        self._ticked_at = now
        for worker_id, lease in self._leases.items():
            if self._clock_s - lease.heard_at > lease.ttl_s:
                self._workers.set_lapsed(worker_id, is_lapsed=True)
        if self._tell_at is None or now < self._tell_at:
            return []
        told = sorted(self._renewed)
        self._renewed.clear()
        self._tell_at = None
        if not others:
            return []
        return [
            VolatileUpdate(
                tuple(others),
                LEASE_DOCUMENT,
                pack((FORMAT_VERSION, told[start : start + RENEWALS_PER_MESSAGE_MAX])),
            )
            for start in range(0, len(told), RENEWALS_PER_MESSAGE_MAX)
        ]

    def overdue(self) -> list[str]:
        """Return the workers to remove, sorted: unheard of for ten times their lease. O(leases)."""
        return sorted(
            worker_id
            for worker_id, lease in self._leases.items()
            if self._clock_s - lease.heard_at > REMOVED_AFTER_TTLS * lease.ttl_s
        )

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps, for a person and for tests: views of live state. O(1)."""
        return {
            "leases": self._leases,
            "renewed": self._renewed,
            "told_at": self._tell_at,
            "clock_s": self._clock_s,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(leases)."""
        for worker_id, lease in self._leases.items():
            require_state(self, lease.ttl_s > 0, f"the lease of {worker_id!r} lasts for no time")
            is_past = lease.heard_at <= self._clock_s + STALL_S
            require_state(self, is_past, f"{worker_id!r} was heard in the future")
        require_state(self, self._renewed <= self._leases.keys(), "a renewal of no lease")
        is_told = not self._renewed or self._tell_at is not None
        require_state(self, is_told, "renewals that are never told")


def _read_renewals(payload: bytes) -> list[str]:
    rows = read_rows(read_tree(payload), "renewals")
    require(len(rows) >= 1, "renewals must not be empty")
    version = read_integer(rows[0], "the version", minimum=1)
    if version != FORMAT_VERSION:
        raise VersionMismatch("renewals", ours=FORMAT_VERSION, theirs=version)
    require(len(rows) == 2, "renewals must have 2 items")
    worker_ids = read_rows(rows[1], "the renewed workers", count_max=RENEWALS_PER_MESSAGE_MAX)
    return [
        read_text(one, "a worker's id", bytes_max=KEY_BYTES_MAX, is_empty_allowed=False)
        for one in worker_ids
    ]
