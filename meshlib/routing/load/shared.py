"""Shared load: what all routers together have in flight at each worker.

Each router keeps its own requests and tells the others what that makes at each worker; the sum is
what counts. It is volatile: in no log, in no version, on no disk.

Rule: what counts as in flight at a worker is decided in this file.
Source: active sequences that routers share are NVIDIA Dynamo's, where a message bus carries them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from meshlib.arguments import check_count, check_number, check_text
from meshlib.errors import DecodeError, InvalidValueError, RejectReason
from meshlib.identity import ActorId, actor_name_hash
from meshlib.invariants import require
from meshlib.limits import (
    DECODED_TOKENS_MAX,
    LOAD_ROWS_PER_MESSAGE_MAX,
    PREFILL_TOKENS_MAX,
    TENANTS_MAX,
)
from meshlib.routing.leases import VolatileUpdate
from meshlib.routing.load.in_flight import InFlight
from meshlib.routing.load.messages import LOAD_DOCUMENT, LoadMessage, LoadRow
from meshlib.routing.load.peers import PeerLoads
from meshlib.routing.load.speeds import Speeds
from meshlib.routing.load.telling import TELL_END_S, TELL_S, Telling
from meshlib.state import check_identifier

__all__ = ["SharedLoad", "check_decoded_tokens"]

NAMED_MAX: Final = 4096
"""Requests that are named and not counted, of a router that has not ended any yet."""


def check_decoded_tokens(decoded_tokens: int | None) -> None:
    """Check what a request is said to have decoded; None says nothing. O(1).

    Raises:
        InvalidTypeError: no count.
        InvalidValueError: one out of range.
    """
    if decoded_tokens is None:
        return
    check_count("decoded_tokens", decoded_tokens, least=0)
    if decoded_tokens > DECODED_TOKENS_MAX:
        raise InvalidValueError(
            f"decoded_tokens must be at most {DECODED_TOKENS_MAX:,}, got {decoded_tokens}"
        )


class SharedLoad:
    """Requests in flight, and tokens still to prefill, by worker, over all routers.

    Args:
        actor: the start of the node that this is part of.
    """

    __slots__ = (
        "_actor",
        "_are_ended",
        "_counts",
        "_epochs",
        "_is_timed",
        "_members",
        "_named",
        "_own",
        "_peers",
        "_sequence",
        "_speeds",
        "_telling",
        "is_in_use",
        "latest_s",
    )

    def __init__(self, actor: ActorId) -> None:
        self._actor = actor
        self._own = InFlight(actor)
        self._epochs: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._speeds = Speeds()
        self._peers = PeerLoads(epochs=self._epochs, speeds=self._speeds, count=self._count)
        self._telling = Telling()
        self._sequence = 0
        self._members: dict[str, ActorId] = {}
        self._is_timed = False
        self._are_ended = False
        self._named: dict[str, None] = {}
        self.is_in_use = False
        """Whether anybody has told of tokens to prefill, since this start."""
        self.latest_s = 0.0
        """The latest time that this was given, in monotonic seconds."""

    # What this router has in flight

    def begin(
        self,
        worker_id: str,
        *,
        prefill_tokens: float = 0.0,
        is_tentative: bool = False,
        now: float,
    ) -> str:
        """Count a request that is sent to a worker, here and on all other routers. O(1).

        O(routers) when it has something to prefill.

        Args:
            worker_id: where it goes.
            prefill_tokens: tokens that are not cached there; 0 or more.
            is_tentative: whether nobody has said yet that this router's requests are also ended:
                until one is, they are named and not counted, or they would pile up for ever.
            now: monotonic seconds.

        Returns:
            the request's name, for `first_token`, `end` and `renew`.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: tokens that cannot be. State unchanged after either.
        """
        check_identifier("worker_id", worker_id)
        check_number("prefill_tokens", prefill_tokens, wanted="a number of tokens")
        if not 0 <= prefill_tokens <= PREFILL_TOKENS_MAX:
            raise InvalidValueError(
                f"prefill_tokens must be 0 to {PREFILL_TOKENS_MAX}, got {prefill_tokens}"
            )
        self.latest_s = max(self.latest_s, now)
        if is_tentative and not self._are_ended:
            return self._name_alone()
        self._are_ended = True
        ahead = 0.0
        if prefill_tokens:
            self.is_in_use = self._is_timed = True
            ahead = self.backlog(worker_id, now=now)
        begun, dropped = self._own.begin(
            worker_id,
            tokens=float(prefill_tokens),
            ahead=ahead,
            speed=self.speed(worker_id),
            now=now,
        )
        self._count(worker_id, 1)
        self._telling.mark(worker_id, at=now + TELL_S)
        if dropped is not None:
            self._ended(dropped.worker_id, now)
        return begun.request_id

    def _name_alone(self) -> str:
        request_id = self._own.new_name()
        if len(self._named) >= NAMED_MAX:
            del self._named[next(iter(self._named))]
        self._named[request_id] = None
        return request_id

    def _note_word(self, request_id: str) -> None:
        """Take note that somebody says what becomes of requests: from now on they count.

        Though it was begun too long ago to be known: where answers take long and requests are
        many, there would never be another one.
        """
        if not self._are_ended and self._own.has_named(request_id):
            self._are_ended = True

    def first_token(self, request_id: str, *, now: float) -> None:
        """Take note that a request is prefilled: its worker was heard. O(requests at the worker).

        A second time changes nothing.

        Raises:
            UnknownKeyError: no such request is in flight here. Nothing is counted otherwise.
        """
        check_text("request_id", request_id)
        self._note_word(request_id)
        if request_id in self._named:
            return
        worker_speed = self.speed(self._own.worker_of(request_id))
        begun = self._own.first_token(request_id, speed=worker_speed, now=now)
        if begun is None:
            return
        self._speeds.measure(begun, now=now)
        self._telling.mark(begun.worker_id, at=now + TELL_S)

    def end(self, request_id: str, *, now: float) -> None:
        """Take note that a request is over, however it ended. O(1).

        Raises:
            UnknownKeyError: no such request is in flight here. Nothing is counted otherwise.
        """
        check_text("request_id", request_id)
        self._note_word(request_id)
        if request_id in self._named:
            del self._named[request_id]
            return
        self._ended(self._own.end(request_id).worker_id, now)

    def renew(self, request_id: str, *, decoded_tokens: int | None = None, now: float) -> None:
        """Let a long request count for another 600 seconds from now. O(1).

        Args:
            request_id: the request.
            decoded_tokens: how many it has decoded so far, if this router knows; 0 to 2**32 - 1.
                The others hear of them within two seconds. One that has decoded anything is
                prefilled, though nobody has said when; fewer than before change nothing.
            now: monotonic seconds.

        Raises:
            UnknownKeyError: no such request is in flight here.
            InvalidTypeError: an argument of another type.
            InvalidValueError: tokens that cannot be. State unchanged after each.
        """
        check_text("request_id", request_id)
        check_decoded_tokens(decoded_tokens)
        if request_id in self._named:
            return
        self._own.renew(request_id, now=now)
        if decoded_tokens is not None and self._own.decoded(request_id, decoded_tokens):
            self._telling.mark(self._own.worker_of(request_id), at=now + TELL_S)

    def has(self, request_id: str) -> bool:
        """Tell whether a request is in flight at this router. O(1)."""
        return request_id in self._own

    def _ended(self, worker_id: str, now: float) -> None:
        self._count(worker_id, -1)
        self._telling.mark(worker_id, at=now + TELL_END_S)

    def _count(self, worker_id: str, change: int) -> None:
        count = self._counts.get(worker_id, 0) + change
        if count:
            self._counts[worker_id] = count
        else:
            self._counts.pop(worker_id, None)

    # The sum

    def request_count(self, worker_id: str) -> int:
        """Return how many requests all routers have in flight at a worker. O(1)."""
        return self._counts.get(worker_id, 0)

    @property
    def counts(self) -> Mapping[str, int]:
        """Requests in flight by worker, over all routers; a view, without those that have none."""
        return self._counts

    def backlog(self, worker_id: str, *, now: float) -> float:
        """Return how many tokens all routers still have to be prefilled at a worker.

        O(routers + requests of this router that are still to be prefilled there).
        """
        speed = self.speed(worker_id)
        left, _ = self._own.left(worker_id, speed=speed, now=now)
        return left + self._peers.left(worker_id, speed=speed, now=now)

    def decoded_tokens(self, worker_id: str) -> int:
        """Return what all requests in flight at a worker have decoded so far. O(routers).

        As far as their routers have been told: those that say nothing of it count nothing.
        """
        return self._own.decoded_tokens(worker_id) + self._peers.decoded_tokens(worker_id)

    def speed(self, worker_id: str) -> float:
        """Return how many tokens a second a worker prefills; as `Speeds.of`."""
        return self._speeds.of(worker_id, now=self.latest_s)

    def clear(self, worker_id: str, *, epoch: int, now: float) -> None:
        """Take note that a worker has restarted or gone: all that was begun before is over.

        Args:
            worker_id: the worker.
            epoch: its epoch in the tree from then on; one that is known already changes nothing.
            now: monotonic seconds.
        """
        if epoch <= self._epochs.get(worker_id, 0):
            return
        if worker_id not in self._epochs and len(self._epochs) >= TENANTS_MAX:
            del self._epochs[next(iter(self._epochs))]
        self._epochs[worker_id] = epoch
        self._speeds.forget_worker(worker_id)
        gone = self._own.clear(worker_id)
        if gone:
            self._count(worker_id, -gone)
            self._telling.mark(worker_id, at=now + TELL_S)
        self._peers.clear(worker_id, epoch=epoch)

    # Peers

    def update_members(self, members: Mapping[str, ActorId], *, now: float) -> None:
        """Forget what those have told who are gone or have restarted, and tell new ones all.

        O(members).

        Args:
            members: the other members in reach, and the start that each of them is.
            now: monotonic seconds.
        """
        before = self._members
        self._peers.keep(members, before=before)
        if len(self._own):
            started = [name for name, actor in members.items() if before.get(name) != actor]
            self._telling.greet(started, now=now)
        self._members = dict(members)

    def receive(self, payload: bytes, *, sender: str, now: float) -> None:
        """Take what a peer has in flight. O(rows).

        Args:
            payload: the message.
            sender: the peer's name.
            now: monotonic seconds.

        Raises:
            RemoteError: no such message, or in another's name. State unchanged.
        """
        self.latest_s = max(self.latest_s, now)
        message = LoadMessage.decode(payload)
        if message.actor[:8] != actor_name_hash(sender):
            raise DecodeError(f"{sender!r} speaks for another", reason=RejectReason.IDENTITY)
        if self._peers.take(message, sender=sender, now=now):
            self.is_in_use = self.is_in_use or message.is_timed

    # Time

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, in monotonic seconds; None while there is nothing to do."""
        due_at = self._own.next_expiry()
        for other_at in (self._telling.next_deadline(), self._peers.next_deadline()):
            # Asked in each step of a node, like all of its kind: no generator, and no `min`.
            if other_at is not None and (due_at is None or other_at < due_at):
                due_at = other_at
        return due_at

    def tick(self, now: float, *, others: Sequence[str]) -> list[VolatileUpdate]:
        """Do what is due, and return what to tell. O(workers told of, routers now and then).

        Args:
            now: monotonic seconds.
            others: the names of the other members in reach.
        """
        self.latest_s = max(self.latest_s, now)
        for gone in self._own.expire(now):
            self._ended(gone.worker_id, now)
        self._peers.sweep(now)
        updates: list[VolatileUpdate] = []
        workers, is_all = self._telling.take_due(now, workers=self._own.workers())
        if workers or is_all:
            rows = [self._row(worker_id, now) for worker_id in workers]
            self._telling.told(rows, now=now, is_all=is_all, is_empty=not len(self._own))
            updates += self._messages(rows, to=others)
        newcomers = self._telling.take_newcomers(now, others=others)
        if newcomers:
            rows = [self._row(worker_id, now) for worker_id in sorted(self._own.workers())]
            updates += self._messages(rows, to=newcomers)
        return updates

    def _messages(self, rows: Sequence[LoadRow], *, to: Sequence[str]) -> list[VolatileUpdate]:
        updates: list[VolatileUpdate] = []
        for start in range(0, len(rows) if to else 0, LOAD_ROWS_PER_MESSAGE_MAX):
            self._sequence += 1
            part = rows[start : start + LOAD_ROWS_PER_MESSAGE_MAX]
            payload = LoadMessage(self._actor, self._sequence, self._is_timed, part).encode()
            updates.append(VolatileUpdate(tuple(to), LOAD_DOCUMENT, payload))
        return updates

    def _row(self, worker_id: str, now: float) -> LoadRow:
        measured = self._speeds.to_tell(worker_id)
        left, wait_s = self._own.left(worker_id, speed=self.speed(worker_id), now=now)
        return LoadRow(
            worker_id,
            self._epochs.get(worker_id, 0),
            self._own.request_count(worker_id),
            min(round(left), PREFILL_TOKENS_MAX),
            round(wait_s * 1000.0),
            measured,
            self._own.decoded_tokens(worker_id),
        )

    # What it keeps, for tests

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps, for a person and for tests: views of live state. O(1)."""
        return {
            "counts": self._counts,
            "own": self._own.diagnostics(),
            "peers": self._peers.diagnostics(),
            "telling": self._telling.diagnostics(),
            "epochs": self._epochs,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(workers x routers)."""
        self._own._check()  # noqa: SLF001 - invariants reach inside on purpose
        self._telling._check()  # noqa: SLF001
        self._peers._check()  # noqa: SLF001
        own = self._own
        total = Counter({worker_id: own.request_count(worker_id) for worker_id in own.workers()})
        total.update(self._peers.request_counts())
        require(self, dict(total) == self._counts, "the sum is not what is in flight")
