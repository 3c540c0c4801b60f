"""What other routers have told of their requests in flight.

Rule: for how long a router's word counts is decided in this file. What a router has told is gone
with its start, whether it says so or not. Two nodes that have heard the same add up the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import TENANTS_MAX
from meshlib.routing.load.messages import LoadMessage, LoadRow
from meshlib.routing.load.prefilling import left_to_prefill
from meshlib.routing.load.speeds import Speeds

__all__ = ["UNHEARD_S", "PeerLoads"]

UNHEARD_S: Final = 7.0
"""A row that was not told again for so long counts no more: three repetitions were lost."""

SWEEP_S: Final = 1.0
"""How often such rows are looked for."""


@define(slots=True, eq=False)
class _Row:
    """What a peer said of one worker."""

    epoch: int
    request_count: int
    tokens: float
    starts_at: float
    heard_at: float
    decoded_tokens: int


@define(slots=True, eq=False)
class _Peer:
    """What one start of a peer said."""

    actor: ActorId
    sequence: int = -1
    rows: dict[str, _Row] = field(factory=dict)


class PeerLoads:
    """What each of the other routers has in flight, as it told.

    Args:
        epochs: of the workers; whoever made this keeps it up to date.
        speeds: what is told of those goes there.
        count: told of each change: a worker, and how many requests more.
    """

    __slots__ = ("_count", "_epochs", "_peers", "_speeds", "_sweep_at")

    def __init__(
        self, *, epochs: Mapping[str, int], speeds: Speeds, count: Callable[[str, int], None]
    ) -> None:
        self._epochs = epochs
        self._speeds = speeds
        self._count = count
        self._peers: dict[str, _Peer] = {}
        self._sweep_at: float | None = None

    def take(self, message: LoadMessage, *, sender: str, now: float) -> bool:
        """Take what a peer has in flight; False where a later message has come already. O(rows)."""
        peer = self._peers.get(sender)
        if peer is not None and peer.actor != message.actor:
            self._forget(sender)
            peer = None
        if peer is None:
            peer = self._peers[sender] = _Peer(message.actor)
        if message.sequence <= peer.sequence:
            return False
        peer.sequence = message.sequence
        for row in message.rows:
            if row.epoch >= self._epochs.get(row.worker_id, 0):
                self._speeds.hear(sender, row.worker_id, row.speed, now=now)
            self._take(peer, row, now)
        if peer.rows and self._sweep_at is None:
            self._sweep_at = now + SWEEP_S
        return True

    def _take(self, peer: _Peer, row: LoadRow, now: float) -> None:
        worker_id = row.worker_id
        self._drop_row(peer, worker_id)
        if not row.request_count or row.epoch < self._epochs.get(worker_id, 0):
            return
        if len(peer.rows) >= TENANTS_MAX:
            return
        peer.rows[worker_id] = _Row(
            row.epoch,
            row.request_count,
            float(row.prefill_tokens),
            now + row.wait_ms / 1000.0,
            now,
            row.decoded_tokens,
        )
        self._count(worker_id, row.request_count)

    def _drop_row(self, peer: _Peer, worker_id: str) -> None:
        row = peer.rows.pop(worker_id, None)
        if row is not None:
            self._count(worker_id, -row.request_count)

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name)
        for worker_id in list(peer.rows):
            self._drop_row(peer, worker_id)
        self._speeds.forget(name)

    def left(self, worker_id: str, *, speed: float, now: float) -> float:
        """Return how many tokens peers still have to be prefilled at a worker. O(routers)."""
        left = 0.0
        for peer in self._peers.values():
            row = peer.rows.get(worker_id)
            if row is not None and row.tokens:
                left += left_to_prefill(row.tokens, starts_at=row.starts_at, speed=speed, now=now)
        return left

    def decoded_tokens(self, worker_id: str) -> int:
        """Return what the requests of peers at a worker have decoded so far. O(routers)."""
        rows = (peer.rows.get(worker_id) for peer in self._peers.values())
        return sum(row.decoded_tokens for row in rows if row is not None)

    def clear(self, worker_id: str, *, epoch: int) -> None:
        """Drop what was begun at a worker before an epoch of it. O(routers)."""
        for peer in self._peers.values():
            row = peer.rows.get(worker_id)
            if row is not None and row.epoch < epoch:
                self._drop_row(peer, worker_id)

    def keep(self, members: Mapping[str, ActorId], *, before: Mapping[str, ActorId]) -> None:
        """Forget what those have told who are gone or have restarted. O(routers).

        Args:
            members: the other members in reach, and the start that each of them is.
            before: what that was until now.
        """
        for name, peer in list(self._peers.items()):
            # A start may be heard before its record is; an earlier one is over when that changes.
            is_over = before.get(name) == peer.actor != members.get(name)
            if name not in members or is_over:
                self._forget(name)

    def next_deadline(self) -> float | None:
        """Return when `sweep` is due, in monotonic seconds; None while there is nothing to do."""
        return self._sweep_at

    def sweep(self, now: float) -> None:
        """Drop rows that were not told again: their router has gone, or they are nothing now.

        O(routers x workers) once a second, and O(1) else.
        """
        if self._sweep_at is None or now < self._sweep_at:
            return
        for peer in self._peers.values():
            for worker_id in [
                worker_id for worker_id, row in peer.rows.items() if now - row.heard_at > UNHEARD_S
            ]:
                self._drop_row(peer, worker_id)
        self._sweep_at = now + SWEEP_S if any(peer.rows for peer in self._peers.values()) else None

    def request_counts(self) -> dict[str, int]:
        """Return how many requests peers have in flight, by worker. O(workers x routers)."""
        total: Counter[str] = Counter()
        for peer in self._peers.values():
            for worker_id, row in peer.rows.items():
                total[worker_id] += row.request_count
        return dict(total)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {"peers": self._peers, "sweep_at": self._sweep_at}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(workers x routers)."""
        for peer in self._peers.values():
            require(self, len(peer.rows) <= TENANTS_MAX, "a peer has more rows than are kept")
            for worker_id, row in peer.rows.items():
                require(self, row.request_count > 0, f"a row without requests at {worker_id!r}")
                is_old = row.epoch < self._epochs.get(worker_id, 0)
                require(self, not is_old, f"requests from before {worker_id!r} was cleared")
        has_rows = any(peer.rows for peer in self._peers.values())
        require(self, not has_rows or self._sweep_at is not None, "rows that are never swept")
