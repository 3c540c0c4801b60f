"""The local face of a replica: what an application reads, writes and is told.

While a node comes back after being away (`begin_rejoin`), it is served from what it had, and a
second set of parts is filled behind it; so there are two, `_served` and `_parts`, the same but
for that time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from meshlib.clock import HybridClock
from meshlib.crdt import Lattice
from meshlib.errors import StateError
from meshlib.identity import ActorId
from meshlib.invariants import Inspectable
from meshlib.replication.config import ReplicationConfig
from meshlib.replication.intake import Intake
from meshlib.replication.journal import Journal, Readings
from meshlib.replication.late_writes import NEVER
from meshlib.replication.page_content import PAGE_VERSION
from meshlib.replication.parts import Parts
from meshlib.replication.records import Change, LogEntry, ReplicaEvent, WriteReceipt
from meshlib.replication.stability import GracePeriod
from meshlib.replication.transfers.arrivals import Arrivals
from meshlib.replication.writes import Mutator, OpenWrites

__all__ = ["LocalReplica"]


class LocalReplica:
    """Documents that this process reads and writes: see `Replica`."""

    def __init__(
        self,
        *,
        actor: ActorId,
        clock: HybridClock,
        config: ReplicationConfig | None = None,
        page_newest: int = PAGE_VERSION,
    ) -> None:
        if clock.actor != actor:
            raise StateError("the clock mints stamps of another actor")
        self.config: Final = config if config is not None else ReplicationConfig()
        self.guard: Callable[[], None] | None = None
        """Called before whatever an application does here, and may refuse it by raising: who
        drives the node knows which thread may enter, and when it is over."""
        self.check_write: Callable[[], None] | None = None
        """Called before an application writes, and may refuse it by raising."""
        self.on_write: Callable[[], None] | None = None
        """Called after each write that changed something, so that it is sent; must not write."""
        journal = Journal(changes_max=self.config.changes_max, events_max=self.config.events_max)
        self._begin(Parts(actor, clock, self.config, journal, page_newest))
        self._served = self._parts
        self._inspectable: tuple[Parts, OpenWrites, Mapping[str, Inspectable]] | None = None
        self._transfers = 0
        self._was_present = False
        self._floor = NEVER
        self._former: dict[ActorId, ActorId] = {}

    def _begin(self, parts: Parts) -> None:
        """Set up what absorbs and logs, over fresh parts."""
        self._parts = parts
        self._writes = OpenWrites(parts)
        self._intake = Intake(parts)
        self._arrivals = Arrivals(parts)
        self._grace = GracePeriod(self.config.tombstone_grace_s)

    @property
    def actor(self) -> ActorId:
        """The writer that this node is."""
        return self._served.actor

    @property
    def clock(self) -> HybridClock:
        """The clock that mints and judges stamps."""
        return self._served.clock

    @property
    def has_own_writes(self) -> bool:
        """Whether anything was written here since the start, sent or not. O(1)."""
        return bool(self._writes) or self.actor in self._parts.vector.view

    def writer_of(self, receipt: WriteReceipt) -> ActorId:
        """Return the actor under which a write of this node travels, with its number. O(1).

        Another one than it was made by, when it was stamped again since.
        """
        return self._former.get(receipt.actor, receipt.actor)

    @property
    def is_rejoining(self) -> bool:
        """Whether a peer's state is being adopted: between `begin_rejoin` and its end."""
        return self._served is not self._parts

    @property
    def has_early(self) -> bool:
        """Whether readers are shown what is not joined yet; see `Replica.absorb_page`."""
        return any(document.is_early for document in self._served.documents)

    @property
    def has_open_writes(self) -> bool:
        """Whether writes wait for `flush`: until then they are in no vector."""
        return bool(self._writes)

    def open(self, document: str, *, type_tag: str) -> Lattice:
        """Return a document's state, made empty when it is not there. O(1).

        Making it is no write: nobody hears of it before something is written.

        Raises:
            DocumentTypeError: it exists with another type.
            InvalidTypeError: no type of that tag is registered, or the name is no text.
            InvalidValueError: a malformed name.
            LimitError: one more document than allowed, or too long a name.
        """
        if self.guard is not None:
            self.guard()
        state: Lattice = self._served.documents.open(document, type_tag).view
        return state

    def get(self, document: str) -> Lattice:
        """Return a document's state: read it, and change it by `write` only. O(1).

        Raises:
            UnknownKeyError: no document of that name.
        """
        if self.guard is not None:
            self.guard()
        state: Lattice = self._served.documents.get(document).view
        return state

    def documents(self) -> list[str]:
        """Return the names of the documents, sorted."""
        if self.guard is not None:
            self.guard()
        return [document.name for document in self._served.documents]

    @property
    def document_count(self) -> int:
        """How many documents there are. O(1)."""
        if self.guard is not None:
            self.guard()
        return len(self._served.documents)

    def incomplete_documents(self) -> list[str]:
        """Return the documents of which an entry was passed over, sorted, until they are healed.

        That is an entry of a type that is not known here, or one that could not be read. Such a
        document may not be there at all.
        """
        return self._served.documents.skipped()

    def read(self, document: str) -> Readings:
        """Return a new queue of what becomes new in a document; see `Document.changes`. O(1)."""
        if self.guard is not None:
            self.guard()
        return self._served.journal.read(document)

    def changes(self) -> list[Change]:
        """Drain what became new, in order."""
        return self._served.journal.drain_changes()

    def events(self) -> list[ReplicaEvent]:
        """Drain what happened, in order."""
        return self._served.journal.drain_events()

    def write(self, document: str, mutate: Mutator) -> WriteReceipt:
        """Change a document. O(delta).

        The delta is absorbed here at once and travels with the next flush; all writes to one
        document within a flush become one entry.

        Args:
            document: an open document.
            mutate: takes the state and a `WriteContext`, returns the delta and changes nothing.
                It is called again, under another number, when the open entry has no room left.

        Returns:
            the number under which the write will travel. A delta that changes nothing is no
            write: then the latest number before it, and `is_new` false.

        Raises:
            UnknownKeyError: no document of that name.
            InvalidTypeError: the delta is not of the document's type.
            LimitError: the delta's bytes are over `limits.ENTRY_BYTES_MAX`.
            Exception: whatever `mutate` raises. Nothing is changed in any of these cases.
        """
        if self.guard is not None:
            self.guard()
        if self.check_write is not None:
            self.check_write()
        return self._write(document, mutate)

    def _write(self, document: str, mutate: Mutator) -> WriteReceipt:
        receipt = self._writes.write(self._served.documents.get(document), mutate)
        if receipt.is_new and self.on_write is not None:
            self.on_write()
        return receipt

    def write_applied(self, document: str, mutate: Mutator, *, bytes_max: int) -> WriteReceipt:
        """Change a document by a mutator that changes the state itself. O(what that takes).

        The same as `write`, for whoever can make a delta and join it at once: it is neither joined
        again nor encoded before the flush.

        Args:
            document: an open document.
            mutate: takes the state and a `WriteContext`, changes the state, and returns what was
                new, or the bottom. It is called once. When it raises it must have changed nothing.
            bytes_max: what the delta takes at the most when it is encoded.

        Raises:
            UnknownKeyError: no document of that name.
            LimitError: `bytes_max` is over `limits.ENTRY_BYTES_MAX`.
            Exception: whatever `mutate` raises. Nothing is changed in any of these cases.
        """
        if self.guard is not None:
            self.guard()
        if self.check_write is not None:
            self.check_write()
        held = self._served.documents.get(document)
        receipt = self._writes.write_applied(held, mutate, bytes_max=bytes_max)
        if receipt.is_new and self.on_write is not None:
            self.on_write()
        return receipt

    def flush(self) -> list[LogEntry]:
        """Close the open groups and return this node's entries since the last flush. O(size).

        The vector counts them from now on. Empty while `is_rejoining`.
        """
        if self.is_rejoining:
            return []
        self._writes.close()
        entries = self._writes.take_unsent()
        if entries:
            self._intake.shorten_log()
        return entries

    def _close_writes(self) -> None:
        if not self.is_rejoining:
            self._writes.close()
