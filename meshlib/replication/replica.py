"""The replica: documents, this node's log of them, and its clock.

Rule: everything that changes a document or moves the clock goes through this file, in one of
three ways: a local `write`, an entry that is `receive`d, a page of a peer's state. The clock
counts, for each writer, the entries absorbed without a gap. Invariants of the design:

- R1: equal clocks mean equal live state.
- R2: a snapshot never resurrects. A numbered entry that this clock covers and that is not here
  is dead; so is one that the sender's clock covers and the sender does not have.
- R3: what cannot be kept is an event.

No IO and no time of its own: stamps come from the injected `HybridClock`, and what waits for a
grace period takes `now`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from meshlib.clock import HybridClock, Stamp
from meshlib.crdt import registry
from meshlib.crdt.causal import Dot
from meshlib.crdt.lattice import Causal, Lattice, join_all
from meshlib.errors import (
    ClockSkewError,
    DecodeError,
    DocumentTypeError,
    InternalError,
    InvalidTypeError,
    LimitError,
    LimitExceeded,
    LocalError,
    RejectReason,
    RemoteError,
    UnknownKeyError,
)
from meshlib.hashing import HASH64_MASK
from meshlib.identity import ActorId, check_name
from meshlib.limits import (
    ACTORS_MAX,
    DOCUMENT_NAME_BYTES_MAX,
    DOCUMENTS_MAX,
    ENTRY_BYTES_MAX,
    SNAPSHOT_PAGE_BYTES_MAX,
)
from meshlib.replication import digest
from meshlib.replication.config import ReplicationConfig
from meshlib.replication.document import Document, latest_stamp
from meshlib.replication.gap_buffer import GapBuffer
from meshlib.replication.log import ReplicationLog
from meshlib.replication.records import (
    Change,
    ChangesDropped,
    EntriesHeld,
    EntrySkipped,
    Gap,
    GapBufferFull,
    IdentityStolen,
    Lacking,
    LogEntry,
    LogShortened,
    Received,
    Rejection,
    ReplicaEvent,
    WriteReceipt,
)
from meshlib.replication.snapshot import SnapshotPage, SnapshotPages, decode_page

__all__ = ["Replica", "WriteContext"]


class WriteContext:
    """What a mutator needs to mark a write: who writes, under which number, when.

    Args:
        actor: the writer.
        sequence: the number that the write's entry will have.
        clock: mints the stamps.
        state: the document's state.
    """

    __slots__ = ("_clock", "_dots", "_state", "actor", "sequence")

    def __init__(self, actor: ActorId, *, sequence: int, clock: HybridClock, state: Any) -> None:
        self.actor = actor
        self.sequence = sequence
        self._clock = clock
        self._state = state
        self._dots = 0

    def stamp(self) -> Stamp:
        """Mint a stamp, later than all before. O(1)."""
        return self._clock.tick()

    def dot(self) -> Dot:
        """Mint the next free dot of this document's context. O(1).

        Raises:
            InvalidTypeError: the document's type has no causal context.
        """
        if not isinstance(self._state, Causal):
            raise InvalidTypeError(f"a {type(self._state).__name__} has no causal context")
        dot = self._state.context.next_dot(self.actor)
        self._dots += 1
        return Dot(self.actor, dot.sequence + self._dots - 1)


class _Group:
    """The writes to one document since the last flush: they become one entry."""

    __slots__ = ("deltas", "payload", "sequence", "size")

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.deltas: list[Any] = []
        self.payload = b""
        self.size = 0

    def add(self, delta: Any, payload: bytes) -> None:
        self.deltas.append(delta)
        self.payload = payload
        self.size += len(payload)

    def encoded(self) -> bytes:
        """Return the joined writes; the first write's bytes are used as they are."""
        if len(self.deltas) == 1:
            return self.payload
        return registry.encode(join_all(self.deltas))


class Replica:
    """Named documents that converge with those of every other replica.

    Args:
        actor: the writer that this node is, fresh for every start.
        clock: mints and judges stamps; of the same actor.
        config: the limits.
    """

    def __init__(
        self, *, actor: ActorId, clock: HybridClock, config: ReplicationConfig | None = None
    ) -> None:
        self.actor: ActorId = actor
        self.config: Final = config if config is not None else ReplicationConfig()
        self._hybrid = clock
        self._documents: dict[str, Document] = {}
        self._clock: dict[ActorId, int] = {}
        self._clock_view = MappingProxyType(self._clock)
        self._clock_sum = 0
        self._log = ReplicationLog(bytes_max=self.config.log_bytes_max)
        self._gaps = GapBuffer(bytes_max=self.config.gap_buffer_bytes_max)
        self._reserved = 0
        self._groups: dict[str, _Group] = {}
        self._full: list[LogEntry] = []
        self._unsent: list[LogEntry] = []
        self._changes: deque[Change] = deque()
        self._events: deque[ReplicaEvent] = deque()
        self._rejections: dict[tuple[ActorId, int], int] = {}
        self._held: set[ActorId] = set()
        self._samples: deque[tuple[float, dict[ActorId, int]]] = deque()

    # -- documents -----------------------------------------------------------------------------

    @property
    def version_vector(self) -> Mapping[ActorId, int]:
        """The clock: actor to the highest number absorbed without a gap. A live view."""
        return self._clock_view

    @property
    def has_open_writes(self) -> bool:
        """Whether writes wait for `flush`: until then they are in no clock."""
        return bool(self._groups)

    def open(self, document: str, *, type_tag: str) -> Lattice:
        """Return a document's state, made empty when it is not there. O(1).

        Making it is no write: nobody hears of it before something is written.

        Raises:
            DocumentTypeError: it exists with another type.
            InvalidTypeError: no type of that tag is registered.
            LimitError: one more document than allowed, or too long a name.
        """
        held = self._documents.get(document)
        if held is None:
            check_name("the document's name", document, bytes_max=DOCUMENT_NAME_BYTES_MAX)
            if len(self._documents) >= DOCUMENTS_MAX:
                raise LimitError("documents", size=DOCUMENTS_MAX + 1, limit=DOCUMENTS_MAX)
            try:
                state = registry.bottom(type_tag)
            except RemoteError as error:
                raise InvalidTypeError(str(error)) from error
            held = self._documents[document] = Document(document, tag=type_tag, state=state)
        if held.tag != type_tag:
            raise DocumentTypeError(document, held=held.tag, wanted=type_tag)
        return held.state  # type: ignore[no-any-return]

    def get(self, document: str) -> Lattice:
        """Return a document's state: read it, and change it by `write` only. O(1).

        Raises:
            UnknownKeyError: no document of that name.
        """
        held = self._documents.get(document)
        if held is None:
            raise UnknownKeyError("document", document)
        state: Lattice = held.state
        return state

    def documents(self) -> list[str]:
        """Return the names of the documents, sorted."""
        return sorted(self._documents)

    # -- local writes --------------------------------------------------------------------------

    def write(self, document: str, mutate: Callable[[Any, WriteContext], Any]) -> WriteReceipt:
        """Change a document. O(delta).

        The delta is absorbed here at once and travels with the next flush; all writes to one
        document within a flush become one entry.

        Args:
            document: an open document.
            mutate: returns the delta; pure, since it is called again under another number when
                the open entry has no room for the delta.

        Returns:
            the number under which the write will travel.

        Raises:
            UnknownKeyError: no document of that name.
            InvalidTypeError: the delta is not of the document's type.
            LimitError: the delta's bytes are over `limits.ENTRY_BYTES_MAX`.
            Exception: whatever `mutate` raises. Nothing is changed in any of these cases.
        """
        held = self._documents.get(document)
        if held is None:
            raise UnknownKeyError("document", document)
        group = self._groups.get(document)
        sequence = group.sequence if group is not None else self._reserved + 1
        delta, payload = self._make_delta(held, mutate, sequence)
        if group is not None and group.size + len(payload) > ENTRY_BYTES_MAX:
            group = None
            sequence = self._reserved + 1
            delta, payload = self._make_delta(held, mutate, sequence)
        if not payload:
            return WriteReceipt(self.actor, self._reserved, is_new=False)
        new = held.absorb(delta)
        if new.is_bottom():
            return WriteReceipt(self.actor, self._reserved, is_new=False)
        if group is None:
            earlier = self._groups.get(document)
            if earlier is not None:
                self._full.append(self._entry(document, earlier))
            group = self._groups[document] = _Group(sequence)
            self._reserved = sequence
        group.add(delta, payload)
        self._note_change(Change(document, new, True))
        return WriteReceipt(self.actor, sequence)

    def _make_delta(
        self, held: Document, mutate: Callable[[Any, WriteContext], Any], sequence: int
    ) -> tuple[Any, bytes]:
        """Return a delta and its bytes; no bytes when it changes nothing."""
        context = WriteContext(self.actor, sequence=sequence, clock=self._hybrid, state=held.state)
        delta = mutate(held.state, context)
        if type(delta) is not type(held.state):
            raise InvalidTypeError(
                f"the delta of {held.name!r} is a {type(delta).__name__}, not a {held.tag}"
            )
        if delta.is_bottom():
            return delta, b""
        payload = registry.encode(delta)
        if len(payload) > ENTRY_BYTES_MAX:
            raise LimitError("delta bytes", size=len(payload), limit=ENTRY_BYTES_MAX)
        return delta, payload

    def _entry(self, document: str, group: _Group) -> LogEntry:
        return LogEntry(self.actor, group.sequence, group.sequence, document, group.encoded())

    def _close_groups(self) -> None:
        """Turn the open groups into entries.

        Also done before anything foreign is absorbed: a clock that covers a peer's removal must
        cover the writes made here before it was seen, or that removal would look settled while
        an older write is still to come.
        """
        if not self._groups:
            return
        entries = self._full
        entries += (self._entry(document, group) for document, group in self._groups.items())
        if len(entries) > 1:
            entries.sort(key=lambda entry: entry.first)
        self._full = []
        self._groups = {}
        for entry in entries:
            self._log.append(entry)
        self._set_clock(self.actor, self._reserved)
        self._unsent += entries

    def flush(self) -> list[LogEntry]:
        """Close the open groups and return this node's entries since the last flush. O(size).

        The clock counts them from now on.
        """
        self._close_groups()
        entries, self._unsent = self._unsent, []
        self._shorten_log()
        return entries

    # -- entries from peers --------------------------------------------------------------------

    def receive(self, entries: Iterable[LogEntry]) -> Received:
        """Absorb entries of peers. O(size); never raises on what they hold.

        An entry is dropped as a duplicate by its number alone, absorbed, or kept until the gap
        before it is filled. One that cannot be read is rejected and the clock stays, so that it
        is asked for again, perhaps from another peer; after `rejections_max` times it is passed
        over with an `EntrySkipped` event, forwarded as it is, and the writer's later entries go
        on: one bad entry harms its document here and not everything its writer does.
        An entry stamped further ahead than the clock allows waits, with what follows it, for
        `release`.

        Returns:
            what was new, which gaps to ask for, and what was refused.
        """
        self._close_groups()
        received = Received()
        waiting: dict[ActorId, None] = {}
        for entry in entries:
            have = self._clock.get(entry.actor, 0)
            if entry.last <= have:
                continue
            if entry.actor == self.actor:
                self._refuse_own(entry, received)
            elif entry.first > have + 1:
                self._keep(entry)
                waiting[entry.actor] = None
            elif self._absorb_entry(entry, have, received):
                if entry.actor in self._gaps:
                    self._drain(entry.actor, received)
                    waiting[entry.actor] = None
            else:
                waiting[entry.actor] = None
        self._finish(received, waiting)
        return received

    def release(self) -> Received:
        """Absorb what waited for this node's clock and has become plausible. O(what waits)."""
        self._close_groups()
        received = Received()
        actors = self._gaps.actors()
        for actor in actors:
            self._drain(actor, received)
        self._finish(received, actors)
        return received

    def _finish(self, received: Received, actors: Iterable[ActorId]) -> None:
        for actor in actors:
            received.gaps.extend(self._gaps.gaps(actor, have=self._clock.get(actor, 0)))
        for rejection in received.rejected:
            entry = rejection.entry
            have = self._clock.get(entry.actor, 0)
            if rejection.reason is not RejectReason.IDENTITY and entry.last > have:
                received.gaps.append(Gap(entry.actor, have + 1, entry.last))
        if received.new:
            self._shorten_log()

    def _refuse_own(self, entry: LogEntry, received: Received) -> None:
        detail = "an entry of this node's own actor that it did not write"
        received.rejected.append(Rejection(entry, RejectReason.IDENTITY, detail))
        self._emit(IdentityStolen(actor=self.actor, sequence=entry.last))

    def _keep(self, entry: LogEntry) -> None:
        if not self._gaps.put(entry):
            self._emit(GapBufferFull(actor=entry.actor, first=entry.first))

    def _drain(self, actor: ActorId, received: Received) -> None:
        """Absorb the writer's waiting entries that follow its number."""
        while True:
            have = self._clock.get(actor, 0)
            entry = self._gaps.pop_next(actor, have=have)
            if entry is None or not self._absorb_entry(entry, have, received):
                return

    def _absorb_entry(self, entry: LogEntry, have: int, received: Received) -> bool:
        """Absorb an entry that follows or overlaps `have`; tell whether the clock moved."""
        try:
            delta = registry.decode(entry.delta)
            held = self._documents.get(entry.document)
            if held is None:
                held = self._new_document(entry.document, delta)
            elif type(delta) is not type(held.state):
                held.check_type(delta)
            if have == 0 and len(self._clock) >= ACTORS_MAX:
                raise LimitExceeded("actors", size=ACTORS_MAX + 1, limit=ACTORS_MAX)
            if held.traits.is_stamped:
                stamp = latest_stamp(delta)
                if stamp is not None:
                    self._hybrid.observe(stamp)
            if entry.first <= have:
                new = held.absorb_known(delta, covers=self._covers)
            else:
                new = held.absorb(delta)
        except ClockSkewError as error:
            self._hold(entry, error)
            return False
        except RemoteError as error:
            return self._reject(entry, error, received)
        if self._rejections:
            self._rejections.pop((entry.actor, have + 1), None)
        self._documents.setdefault(entry.document, held)
        self._advance(entry, received)
        if not new.is_bottom():
            self._note_change(Change(entry.document, new, False))
        return True

    def _advance(self, entry: LogEntry, received: Received) -> None:
        self._set_clock(entry.actor, entry.last)
        self._log.append(entry)
        received.new.append(entry)
        self._held.discard(entry.actor)

    def _hold(self, entry: LogEntry, error: ClockSkewError) -> None:
        if entry.actor not in self._held:
            self._held.add(entry.actor)
            self._emit(EntriesHeld(actor=entry.actor, first=entry.first, ahead_s=error.ahead_s))
        self._keep(entry)

    def _reject(self, entry: LogEntry, error: RemoteError, received: Received) -> bool:
        """Refuse an entry, or pass over it once it was asked for often enough."""
        key = (entry.actor, self._clock.get(entry.actor, 0) + 1)
        count = self._rejections.get(key, 0) + 1
        received.rejected.append(Rejection(entry, error.reason, str(error)))
        if count < self.config.rejections_max:
            self._rejections[key] = count
            return False
        self._rejections.pop(key, None)
        self._advance(entry, received)
        self._emit(
            EntrySkipped(
                actor=entry.actor,
                first=entry.first,
                last=entry.last,
                document=entry.document,
                reason=error.reason,
                detail=str(error),
            )
        )
        return True

    def _new_document(self, name: str, state: Any) -> Document:
        """Make an empty document for what a peer sent; it is kept once that is absorbed."""
        if len(self._documents) >= DOCUMENTS_MAX:
            raise LimitExceeded("documents", size=DOCUMENTS_MAX + 1, limit=DOCUMENTS_MAX)
        try:
            check_name("the document's name", name, bytes_max=DOCUMENT_NAME_BYTES_MAX)
        except LocalError as error:
            raise DecodeError(str(error)) from error
        return Document(name, tag=registry.type_tag(state), state=type(state)())

    def _covers(self, actor: ActorId, sequence: int) -> bool:
        """Tell whether a write was absorbed here. One without a number never was."""
        return 0 < sequence <= self._clock.get(actor, 0)

    def _set_clock(self, actor: ActorId, sequence: int) -> None:
        before = self._clock.get(actor, 0)
        self._clock[actor] = sequence
        self._clock_sum += digest.clock_term(actor, sequence) - digest.clock_term(actor, before)

    # -- what peers lack -----------------------------------------------------------------------

    def lacking(self, peer_clock: Mapping[ActorId, int], *, bytes_max: int) -> Lacking:
        """Return what a peer lacks, from the log. O(actors + entries returned).

        Args:
            peer_clock: the peer's clock.
            bytes_max: of the entries together; a single one may be over it.
        """
        return self._log.lacking(self._clock, peer_clock, bytes_max=bytes_max)

    def entries_between(self, gap: Gap, *, bytes_max: int) -> Lacking:
        """Return the entries that fill a peer's gap, from the log. O(entries returned)."""
        return self._log.between(gap, bytes_max=bytes_max)

    def clock_hash(self) -> int:
        """Return 64 bits that are equal for equal clocks. O(1)."""
        return self._clock_sum & HASH64_MASK

    def content_digest(self) -> int:
        """Return 64 bits that are equal for equal live content. O(documents).

        Compare it only when no writes are open here: they are in the content and in no clock.
        """
        return digest.content_digest(
            (name, document.state) for name, document in self._documents.items()
        )

    # -- snapshots -----------------------------------------------------------------------------

    def snapshot_offer(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return what this node has: document to type tag and bucket digests. O(buckets)."""
        return {
            name: (document.tag, digest.document_digests(document.state))
            for name, document in sorted(self._documents.items())
        }

    def snapshot_pages(
        self,
        their_offer: digest.Offer,
        *,
        page_bytes_max: int = SNAPSHOT_PAGE_BYTES_MAX,
        is_repair: bool = False,
    ) -> SnapshotPages:
        """Return the pages that a peer needs, made one by one as they are asked for.

        Its `clock`, this node's before the first page, goes with the last page and no earlier.
        """
        self._close_groups()
        return SnapshotPages(
            self._documents,
            their_offer,
            page_bytes_max=page_bytes_max,
            clock=self._clock,
            clock_hash=self.clock_hash(),
            is_repair=is_repair,
        )

    def absorb_page(self, page: SnapshotPage) -> None:
        """Join a page of a peer's state. Idempotent; the clock stays as it is. O(size).

        Raises:
            RemoteError: the page cannot be read, is of another type than the document here, or
                is stamped too far ahead. State unchanged.
        """
        self._close_groups()
        content = decode_page(page.state)
        held = self._documents.get(page.document)
        if held is None:
            held = self._new_document(page.document, content.part)
        else:
            held.check_type(content.part)
        stamp = latest_stamp(content.part)
        if stamp is not None:
            self._hybrid.observe(stamp)
        if content.is_repair:
            new = held.absorb(content.part)
        else:
            new = held.absorb_known(content.part, covers=self._covers)
        self._documents.setdefault(page.document, held)
        if not new.is_bottom():
            self._note_change(Change(page.document, new, False))

    def complete_snapshot(self, clock: Mapping[ActorId, int]) -> Received:
        """Join the sender's clock, once every page of its snapshot was absorbed. O(actors).

        The log starts anew behind it, and entries that waited are absorbed.

        Args:
            clock: `SnapshotPages.clock` of the sender.

        Raises:
            LimitExceeded: the clock has more actors than allowed. State unchanged.
        """
        self._close_groups()
        if len(clock.keys() | self._clock.keys()) > ACTORS_MAX:
            raise LimitExceeded("actors", size=len(clock), limit=ACTORS_MAX)
        received = Received()
        for actor, sequence in clock.items():
            if sequence <= self._clock.get(actor, 0):
                continue
            if actor == self.actor:
                self._emit(IdentityStolen(actor=actor, sequence=sequence))
                continue
            self._set_clock(actor, sequence)
            self._log.skip_to(actor, sequence)
            self._held.discard(actor)
        actors = self._gaps.actors()
        for actor in actors:
            self._drain(actor, received)
        self._finish(received, actors)
        return received

    # -- upkeep --------------------------------------------------------------------------------

    def trim(self, stable: Mapping[ActorId, int]) -> int:
        """Drop what every live member has from the log; return how many entries.

        Also joins neighbours in the log's older half, a bounded number at each call.
        """
        dropped = self._log.trim(stable)
        self._log.join_adjacent()
        return dropped

    def collect_tombstones(self, settled: Mapping[ActorId, int], *, now: float) -> int:
        """Drop the tombstones whose removal is settled and past its grace. O(documents).

        Args:
            settled: what is stable by both conditions, by `StabilityTracker.settled`.
            now: monotonic seconds.

        Returns:
            how many were dropped.
        """
        settled = self._aged(settled, now)

        def is_settled(entry: Any) -> bool:
            sequence: int = entry.sequence
            return 0 < sequence <= settled.get(entry.actor, 0)

        return sum(
            document.state.collect(is_settled)
            for document in self._documents.values()
            if document.traits.is_numbered
        )

    def _aged(self, settled: Mapping[ActorId, int], now: float) -> Mapping[ActorId, int]:
        """Return the part of a clock that this node had covered a grace period ago."""
        grace_s = self.config.tombstone_grace_s
        if grace_s == 0:
            return settled
        samples = self._samples
        if not samples or now - samples[-1][0] >= grace_s / 8:
            samples.append((now, dict(self._clock)))
        while len(samples) > 1 and now - samples[1][0] >= grace_s:
            samples.popleft()
        at, clock = samples[0]
        if now - at < grace_s:
            return {}
        return {actor: min(settled[actor], clock[actor]) for actor in settled if actor in clock}

    def _shorten_log(self) -> None:
        if self._log.is_over:
            dropped = self._log.shorten()
            if dropped:
                self._emit(LogShortened(entry_count=dropped))

    def changes(self) -> list[Change]:
        """Drain what became new, in order."""
        drained = list(self._changes)
        self._changes.clear()
        return drained

    def events(self) -> list[ReplicaEvent]:
        """Drain what happened, in order."""
        drained = list(self._events)
        self._events.clear()
        return drained

    def _note_change(self, change: Change) -> None:
        if len(self._changes) >= self.config.changes_max:
            count = len(self._changes)
            self._changes.clear()
            self._emit(ChangesDropped(change_count=count))
        self._changes.append(change)

    def _emit(self, event: ReplicaEvent) -> None:
        if len(self._events) >= self.config.events_max:
            self._events.popleft()
        self._events.append(event)

    def _check(self) -> None:
        """Assert every invariant that can be seen from one replica."""

        def fail(what: str) -> InternalError:
            return InternalError(f"{what}; clock {dict(self._clock)!r}")

        if self.clock_hash() != digest.clock_hash(self._clock):
            raise fail("the hash of the clock is not kept up")
        if self._clock.get(self.actor, 0) + len(self._groups) + len(self._full) != self._reserved:
            raise fail("reserved numbers and open groups do not agree")
        self._log.check(self._clock, fail)
