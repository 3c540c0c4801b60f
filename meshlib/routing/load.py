"""Shared load: what all routers together have in flight at each worker.

Each router keeps its own requests and tells the others what that makes at each worker; the sum is
what counts. It is volatile: in no log, in no version, on no disk. What a router has told is gone
with its start, whether it says so or not.

Rule: what counts as in flight at a worker, and for how long a router's word does, is decided in
this file. Two nodes that have heard the same add up the same.
Source: active sequences that routers share are NVIDIA Dynamo's, where a message bus carries them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from attrs import define, field

from meshlib.arguments import check_number, check_text
from meshlib.errors import DecodeError, InvalidValueError, RejectReason
from meshlib.identity import ActorId, actor_name_hash
from meshlib.invariants import require
from meshlib.limits import LOAD_ROWS_PER_MESSAGE_MAX, PREFILL_TOKENS_MAX, TENANTS_MAX
from meshlib.routing.in_flight import InFlight, Speeds, left_to_prefill
from meshlib.routing.leases import VolatileUpdate
from meshlib.routing.load_messages import LOAD_DOCUMENT, LoadMessage, LoadRow
from meshlib.state import check_identifier

__all__ = ["DEFAULT_SPEED", "SharedLoad"]

DEFAULT_SPEED: Final = 20_000.0
"""Tokens a second that a worker is taken to prefill before anybody has measured it."""

ALIKE: Final = 1.25
"""Speeds that differ by no more than this factor are taken for the same."""

NAMED_MAX: Final = 4096
"""Requests that are named and not counted, of a router that has not ended any yet."""

TELL_S: Final = 0.01
"""How long a change waits for others, to travel with them: the half of what it may take."""

TELL_END_S: Final = 0.05
"""The same of an end: it changes a count, and nobody's waiting."""

REPEAT_PREFILL_S: Final = 0.5
"""How often all is told again while there is something to prefill: what was lost is made good."""

REPEAT_S: Final = 2.0
"""How often all is told again while there is anything in flight."""

REPEATS_OF_NOTHING: Final = 3
"""How often it is told again that nothing is left at a worker."""

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


@define(slots=True, eq=False)
class _Peer:
    """What one start of a peer said."""

    actor: ActorId
    sequence: int = -1
    rows: dict[str, _Row] = field(factory=dict)
    speeds: dict[str, int] = field(factory=dict)


class SharedLoad:
    """Requests in flight, and tokens still to prefill, by worker, over all routers.

    Args:
        actor: the start of the node that this is part of.
    """

    __slots__ = (
        "_actor",
        "_are_ended",
        "_counts",
        "_dirty",
        "_epochs",
        "_fading",
        "_greet_at",
        "_is_timed",
        "_mean_speeds",
        "_members",
        "_named",
        "_newcomers",
        "_own",
        "_peers",
        "_repeat_at",
        "_sequence",
        "_speeds",
        "_sweep_at",
        "_tell_at",
        "_told_speeds",
        "_usual_speed",
        "is_in_use",
        "latest_s",
    )

    def __init__(self, actor: ActorId) -> None:
        self._actor = actor
        self._own = InFlight(actor)
        self._speeds = Speeds()
        self._told_speeds: dict[str, int] = {}
        self._peers: dict[str, _Peer] = {}
        self._epochs: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._mean_speeds: dict[str, float] = {}
        self._usual_speed = 0.0
        self._dirty: set[str] = set()
        self._fading: dict[str, int] = {}
        self._sequence = 0
        self._members: dict[str, ActorId] = {}
        self._newcomers: set[str] = set()
        self._greet_at: float | None = None
        self._tell_at: float | None = None
        self._repeat_at: float | None = None
        self._sweep_at: float | None = None
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
        self._tell(worker_id, now + TELL_S)
        if dropped is not None:
            self._ended(dropped.worker_id, now)
        return begun.request_id

    def _name_alone(self) -> str:
        request_id = self._own.new_name()
        if len(self._named) >= NAMED_MAX:
            del self._named[next(iter(self._named))]
        self._named[request_id] = None
        return request_id

    def first_token(self, request_id: str, *, now: float) -> None:
        """Take note that a request is prefilled: its worker was heard. O(requests at the worker).

        A second time changes nothing.

        Raises:
            UnknownKeyError: no such request is in flight here. State unchanged.
        """
        check_text("request_id", request_id)
        if request_id in self._named:
            self._are_ended = True
            return
        worker_speed = self.speed(self._own.worker_of(request_id))
        begun = self._own.first_token(request_id, speed=worker_speed, now=now)
        if begun is None:
            return
        self._speeds.measure(begun, now=now)
        self._tell(begun.worker_id, now + TELL_S)

    def end(self, request_id: str, *, now: float) -> None:
        """Take note that a request is over, however it ended. O(1).

        Raises:
            UnknownKeyError: no such request is in flight here. State unchanged.
        """
        check_text("request_id", request_id)
        if request_id in self._named:
            del self._named[request_id]
            self._are_ended = True
            return
        self._ended(self._own.end(request_id).worker_id, now)

    def renew(self, request_id: str, *, now: float) -> None:
        """Let a long request count for another 600 seconds from now. O(1).

        Raises:
            UnknownKeyError: no such request is in flight here. State unchanged.
        """
        check_text("request_id", request_id)
        if request_id in self._named:
            return
        self._own.renew(request_id, now=now)

    def has(self, request_id: str) -> bool:
        """Tell whether a request is in flight at this router. O(1)."""
        return request_id in self._own

    def _ended(self, worker_id: str, now: float) -> None:
        self._count(worker_id, -1)
        self._tell(worker_id, now + TELL_END_S)

    def _count(self, worker_id: str, change: int) -> None:
        count = self._counts.get(worker_id, 0) + change
        if count:
            self._counts[worker_id] = count
        else:
            self._counts.pop(worker_id, None)

    def _tell(self, worker_id: str, at: float) -> None:
        self._dirty.add(worker_id)
        if self._tell_at is None or at < self._tell_at:
            self._tell_at = at

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
        for peer in self._peers.values():
            row = peer.rows.get(worker_id)
            if row is not None and row.tokens:
                left += left_to_prefill(row.tokens, starts_at=row.starts_at, speed=speed, now=now)
        return left

    def speed(self, worker_id: str) -> float:
        """Return how many tokens a second a worker prefills: what routers have told of it. O(1).

        O(routers x workers) when one has told something new. A measurement is as good as what was
        known of the worker's cache and queue, so a worker counts as slower or faster than the
        others only when it is by a quarter. What this router has measured itself counts once it
        was told, so that all know the same.
        """
        if not self._usual_speed:
            self._learn_speeds()
        return self._mean_speeds.get(worker_id, self._usual_speed)

    def _learn_speeds(self) -> None:
        told: dict[str, list[int]] = {}
        for speeds in (self._told_speeds, *(peer.speeds for peer in self._peers.values())):
            for worker_id, speed in speeds.items():
                told.setdefault(worker_id, []).append(speed)
        means = {worker_id: sum(each) / len(each) for worker_id, each in told.items()}
        self._usual_speed = median(means.values()) if means else DEFAULT_SPEED
        usual = self._usual_speed
        self._mean_speeds = {
            worker_id: speed
            for worker_id, speed in means.items()
            if not usual / ALIKE <= speed <= usual * ALIKE
        }

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
        gone = self._own.clear(worker_id)
        if gone:
            self._count(worker_id, -gone)
            self._tell(worker_id, now + TELL_S)
        for peer in self._peers.values():
            row = peer.rows.get(worker_id)
            if row is not None and row.epoch < epoch:
                self._drop_row(peer, worker_id)

    # Peers

    def update_members(self, members: Mapping[str, ActorId], *, now: float) -> None:
        """Forget what those have told who are gone or have restarted, and tell new ones all.

        O(members).

        Args:
            members: the other members in reach, and the start that each of them is.
            now: monotonic seconds.
        """
        before = self._members
        for name, peer in list(self._peers.items()):
            # A start may be heard before its record is; an earlier one is over when that changes.
            is_over = before.get(name) == peer.actor != members.get(name)
            if name not in members or is_over:
                self._forget_peer(name)
        if len(self._own):
            self._newcomers.update(
                name for name, actor in members.items() if before.get(name) != actor
            )
            if self._newcomers and self._greet_at is None:
                self._greet_at = now + TELL_S
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
        peer = self._peers.get(sender)
        if peer is not None and peer.actor != message.actor:
            self._forget_peer(sender)
            peer = None
        if peer is None:
            peer = self._peers[sender] = _Peer(message.actor)
        if message.sequence <= peer.sequence:
            return
        peer.sequence = message.sequence
        self.is_in_use = self.is_in_use or message.is_timed
        for row in message.rows:
            self._take(peer, row, now)
        if peer.rows and self._sweep_at is None:
            self._sweep_at = now + SWEEP_S

    def _take(self, peer: _Peer, row: LoadRow, now: float) -> None:
        worker_id = row.worker_id
        if row.speed and row.speed != peer.speeds.get(worker_id) and len(peer.speeds) < TENANTS_MAX:
            peer.speeds[worker_id] = row.speed
            self._usual_speed = 0.0
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
        )
        self._count(worker_id, row.request_count)

    def _drop_row(self, peer: _Peer, worker_id: str) -> None:
        row = peer.rows.pop(worker_id, None)
        if row is not None:
            self._count(worker_id, -row.request_count)

    def _forget_peer(self, name: str) -> None:
        peer = self._peers.pop(name)
        for worker_id in list(peer.rows):
            self._drop_row(peer, worker_id)
        if peer.speeds:
            self._usual_speed = 0.0

    # Time

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, in monotonic seconds; None while there is nothing to do."""
        due_at = self._own.next_expiry()
        for other in (self._tell_at, self._repeat_at, self._sweep_at, self._greet_at):
            if other is not None and (due_at is None or other < due_at):
                due_at = other
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
        if self._sweep_at is not None and now >= self._sweep_at:
            self._sweep(now)
        updates: list[VolatileUpdate] = []
        if self._repeat_at is not None and now >= self._repeat_at:
            updates += self._say(self._all_workers(), now, to=others, is_all=True)
        elif self._tell_at is not None and now >= self._tell_at:
            updates += self._say(sorted(self._dirty), now, to=others, is_all=False)
        if self._greet_at is not None and now >= self._greet_at:
            newcomers = [name for name in others if name in self._newcomers]
            self._newcomers.clear()
            self._greet_at = None
            rows = [self._row(worker_id, now) for worker_id in sorted(self._own.workers())]
            updates += self._messages(rows, to=newcomers)
        return updates

    def _sweep(self, now: float) -> None:
        """Drop rows that were not told again: their router has gone, or they are nothing now."""
        for peer in self._peers.values():
            for worker_id in [
                worker_id for worker_id, row in peer.rows.items() if now - row.heard_at > UNHEARD_S
            ]:
                self._drop_row(peer, worker_id)
        self._sweep_at = now + SWEEP_S if any(peer.rows for peer in self._peers.values()) else None

    def _all_workers(self) -> list[str]:
        """Return the workers to tell of, sorted; those without anything a few times more."""
        for worker_id, count in list(self._fading.items()):
            if count == 1:
                del self._fading[worker_id]
            else:
                self._fading[worker_id] = count - 1
        return sorted({*self._own.workers(), *self._fading, *self._dirty})

    def _say(
        self, workers: Sequence[str], now: float, *, to: Sequence[str], is_all: bool
    ) -> list[VolatileUpdate]:
        rows = [self._row(worker_id, now) for worker_id in workers]
        for row in rows:
            if row.request_count:
                self._fading.pop(row.worker_id, None)
            elif row.worker_id in self._dirty:
                self._fading[row.worker_id] = REPEATS_OF_NOTHING
        self._dirty.clear()
        self._tell_at = None
        self._plan_repetition(now, is_all=is_all, is_prefilling=any(r.prefill_tokens for r in rows))
        return self._messages(rows, to=to)

    def _messages(self, rows: Sequence[LoadRow], *, to: Sequence[str]) -> list[VolatileUpdate]:
        updates: list[VolatileUpdate] = []
        for start in range(0, len(rows) if to else 0, LOAD_ROWS_PER_MESSAGE_MAX):
            self._sequence += 1
            part = rows[start : start + LOAD_ROWS_PER_MESSAGE_MAX]
            payload = LoadMessage(self._actor, self._sequence, self._is_timed, part).encode()
            updates.append(VolatileUpdate(tuple(to), LOAD_DOCUMENT, payload))
        return updates

    def _plan_repetition(self, now: float, *, is_all: bool, is_prefilling: bool) -> None:
        if is_all:
            self._repeat_at = None
        if not len(self._own) and not self._fading:
            return
        due_at = now + (REPEAT_PREFILL_S if is_prefilling else REPEAT_S)
        if self._repeat_at is None or due_at < self._repeat_at:
            self._repeat_at = due_at

    def _row(self, worker_id: str, now: float) -> LoadRow:
        measured = round(self._speeds.of(worker_id))
        if measured and measured != self._told_speeds.get(worker_id):
            if len(self._told_speeds) >= TENANTS_MAX:
                self._told_speeds.clear()
            self._told_speeds[worker_id] = measured
            self._usual_speed = 0.0
        left, wait_s = self._own.left(worker_id, speed=self.speed(worker_id), now=now)
        return LoadRow(
            worker_id,
            self._epochs.get(worker_id, 0),
            self._own.request_count(worker_id),
            min(round(left), PREFILL_TOKENS_MAX),
            round(wait_s * 1000.0),
            measured,
        )

    # What it keeps, for tests

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps, for a person and for tests: views of live state. O(1)."""
        return {
            "counts": self._counts,
            "own": self._own.diagnostics(),
            "peers": self._peers,
            "epochs": self._epochs,
            "told_at": self._tell_at,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(workers x routers)."""
        self._own._check()  # noqa: SLF001 - invariants reach inside on purpose
        own = self._own
        total = Counter({worker_id: own.request_count(worker_id) for worker_id in own.workers()})
        for peer in self._peers.values():
            require(self, len(peer.rows) <= TENANTS_MAX, "a peer has more rows than are kept")
            for worker_id, row in peer.rows.items():
                require(self, row.request_count > 0, f"a row without requests at {worker_id!r}")
                is_old = row.epoch < self._epochs.get(worker_id, 0)
                require(self, not is_old, f"requests from before {worker_id!r} was cleared")
                total[worker_id] += row.request_count
        require(self, dict(total) == self._counts, "the sum is not what is in flight")
        require(self, not self._dirty or self._tell_at is not None, "a change that is never told")
        has_rows = any(peer.rows for peer in self._peers.values())
        require(self, not has_rows or self._sweep_at is not None, "rows that are never swept")
