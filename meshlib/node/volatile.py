"""What limits, leases of workers and loads say to those of other nodes: as it is, never logged.

Rule this file owns: a malformed part counts against where it came from, like any frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshlib.errors import RemoteError
from meshlib.gossip import Engine
from meshlib.ratelimit import RateLimiter, RateMessage
from meshlib.replication import Replica
from meshlib.routing import (
    LEASE_DOCUMENT,
    LOAD_DOCUMENT,
    WORD_DOCUMENT,
    RequestWord,
    SharedLoad,
    VolatileUpdate,
    Word,
    WorkerLeases,
    hear_word,
    router_of,
)

__all__ = ["VolatileTraffic", "unguarded"]


class unguarded:  # noqa: N801 - used as `with unguarded(replica):`
    """Let a node itself use its stores: applications may be refused already at its end.

    Args:
        replica: whose guard is lifted meanwhile, and whose writes are not checked.
    """

    __slots__ = ("_check_write", "_guard", "_replica")

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._guard: Callable[[], None] | None = None
        self._check_write: Callable[[], None] | None = None

    def __enter__(self) -> None:
        replica = self._replica
        self._guard, replica.guard = replica.guard, None
        self._check_write, replica.check_write = replica.check_write, None

    def __exit__(self, *_details: object) -> None:
        self._replica.guard = self._guard
        self._replica.check_write = self._check_write


class VolatileTraffic:
    """Carries messages between the engine, the limiter, the leases and the shared load.

    Args:
        engine: sends and receives them.
        replica: its guard is lifted while the leases write.
        limiter: the limits.
        leases: the leases of workers.
        load: what routers have in flight.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        replica: Replica,
        limiter: RateLimiter,
        leases: WorkerLeases,
        load: SharedLoad,
    ) -> None:
        self._engine = engine
        self._replica = replica
        self._limiter = limiter
        self._leases = leases
        self._load = load

    def receive(self, *, sender: str, now: float) -> None:
        """Hand on what the engine has received; the answers are sent. O(size).

        Args:
            sender: where the frame came from, as `MeshNode.receive` was told.
            now: monotonic seconds.
        """
        for name, document, payload in self._engine.volatile():
            try:
                if document == LOAD_DOCUMENT:
                    self._load.receive(payload, sender=name, now=now)
                    continue
                if document == WORD_DOCUMENT:
                    hear_word(self._load, payload, sender=name, now=now)
                    continue
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

    def pass_on(self, word: Word, request_id: str, *, decoded_tokens: int = 0) -> bool:
        """Send a word of a request to the router that has it; False when none in reach can. O(n).

        Args:
            word: what is said of it.
            request_id: its name, which says whose it is.
            decoded_tokens: what it has decoded so far, as far as was said.
        """
        actor, own = router_of(request_id), self._engine.record
        for member in self._engine.members() if actor is not None else ():
            if member.actor == actor and member.is_reachable and member.name != own.name:
                payload = RequestWord(own.actor, word, request_id, decoded_tokens).encode()
                return self._engine.send_volatile(member.name, WORD_DOCUMENT, payload)
        return False

    def next_deadline(self) -> float | None:
        """Return when any of them has something to do, in monotonic seconds."""
        due_at = self._limiter.next_deadline()
        for other_at in (self._leases.next_deadline(), self._load.next_deadline()):
            # Twice a step: a generator and `min` would cost more than all that they compare.
            if other_at is not None and (due_at is None or other_at < due_at):
                due_at = other_at
        return due_at

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
        with unguarded(self._replica):
            self.send(self._leases.tick(now, others=self._others()))
        return True

    def tick_load(self, now: float) -> None:
        """Let requests expire that are due to, and tell the others what is in flight."""
        due_at = self._load.next_deadline()
        if due_at is not None and due_at <= now:
            self.send(self._load.tick(now, others=self._others()))

    def update_members(self, now: float) -> None:
        """Forget the load of those who are gone, and tell new ones of ours. O(members)."""
        own = self._engine.record.name
        members = {
            member.name: member.actor
            for member in self._engine.members()
            if member.is_reachable and member.name != own
        }
        self._load.update_members(members, now=now)

    def _others(self) -> list[str]:
        own = self._engine.record.name
        return [name for name in self._engine.reachable_names() if name != own]
