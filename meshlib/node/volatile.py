"""What limits and leases of workers say to those of other nodes: sent as it is, never logged.

Rule this file owns: a malformed part counts against where it came from, like any frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshlib.errors import RemoteError
from meshlib.gossip import Engine
from meshlib.ratelimit import RateLimiter, RateMessage
from meshlib.replication import Replica
from meshlib.routing import LEASE_DOCUMENT, VolatileUpdate, WorkerLeases

__all__ = ["VolatileTraffic", "unguarded"]


class unguarded:  # noqa: N801 - used as `with unguarded(replica):`
    """Let a node itself use its stores: applications may be refused already at its end.

    Args:
        replica: whose guard is lifted meanwhile.
    """

    __slots__ = ("_guard", "_replica")

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._guard: Callable[[], None] | None = None

    def __enter__(self) -> None:
        self._guard, self._replica.guard = self._replica.guard, None

    def __exit__(self, *_details: object) -> None:
        self._replica.guard = self._guard


class VolatileTraffic:
    """Carries messages between the engine, the limiter and the leases.

    Args:
        engine: sends and receives them.
        replica: its guard is lifted while the leases write.
        limiter: the limits.
        leases: the leases of workers.
    """

    def __init__(
        self, engine: Engine, *, replica: Replica, limiter: RateLimiter, leases: WorkerLeases
    ) -> None:
        self._engine = engine
        self._replica = replica
        self._limiter = limiter
        self._leases = leases

    def receive(self, *, sender: str, now: float) -> None:
        """Hand on what the engine has received; the answers are sent. O(size).

        Args:
            sender: where the frame came from, as `MeshNode.receive` was told.
            now: monotonic seconds.
        """
        for name, document, payload in self._engine.volatile():
            try:
                if document == LEASE_DOCUMENT:
                    with unguarded(self._replica):
                        self._leases.receive(payload, now=now)
                    continue
                answers = self._limiter.receive_volatile(document, payload, sender=name, now=now)
            except RemoteError as error:
                self._engine.reject(
                    error.reason, sender=sender, size=len(payload), detail=str(error)
                )
                continue
            self.send(answers)

    def send(self, messages: Iterable[RateMessage | VolatileUpdate]) -> None:
        """Send messages to whom they are for. O(size)."""
        for message in messages:
            for name in message.to:
                self._engine.send_volatile(name, message.document, message.payload)

    def next_deadline(self) -> float | None:
        """Return when the limiter or the leases have something to do, in monotonic seconds."""
        limiter_due, leases_due = self._limiter.next_deadline(), self._leases.next_deadline()
        if limiter_due is None or (leases_due is not None and leases_due < limiter_due):
            return leases_due
        return limiter_due

    def tick_limiter(self, now: float) -> None:
        """Let the limiter do what is due, and send what it says."""
        due_at = self._limiter.next_deadline()
        if due_at is not None and due_at <= now:
            self.send(self._limiter.tick(now))

    def tick_leases(self, now: float) -> bool:
        """Let leases end that are due to, and tell renewals; say whether any were looked at."""
        due_at = self._leases.next_deadline()
        if due_at is None or due_at > now:
            return False
        own = self._engine.record.name
        others = [name for name in self._engine.reachable_names() if name != own]
        with unguarded(self._replica):
            self.send(self._leases.tick(now, others=others))
        return True
