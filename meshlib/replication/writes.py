"""Local writes: the open groups of a flush, and the numbers they have reserved.

Rule: a group reserves its number with its first write, so that entries inside can carry it; the
vector counts a number only when its group is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from meshlib.arguments import with_article
from meshlib.clock import HybridClock, Stamp
from meshlib.crdt import Causal, CausalContext, Dot, join_all, known_texts, registry
from meshlib.errors import InvalidTypeError, LimitError
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import ENTRY_BYTES_MAX
from meshlib.replication.document import HeldDocument
from meshlib.replication.entries.shortening import shortened
from meshlib.replication.parts import Parts
from meshlib.replication.records import Change, LogEntry, WriteReceipt

__all__ = ["Mutator", "OpenWrites", "WriteContext"]

APPLIED_GROUP_BYTES_MAX: Final = ENTRY_BYTES_MAX // 4
"""A group of placements ends here: a peer takes an entry in one step, and so many bytes are some
400 short texts."""


class WriteContext:
    """What a mutator needs to mark a write: who writes, under which number, when.

    Args:
        actor: the writer.
        sequence: the number that the write's entry will have.
        clock: mints the stamps.
        state: the document's state.
    """

    __slots__ = ("_clock", "_minted", "_state", "actor", "has_minted", "sequence")

    def __init__(self, actor: ActorId, *, sequence: int, clock: HybridClock, state: Any) -> None:
        self.actor = actor
        self.sequence = sequence
        self.has_minted = False
        """Whether a stamp or a dot was asked for: what bears it can be nowhere yet."""
        self._clock = clock
        self._state = state
        # Each context that dots were minted in, by identity, and how many; none as a rule.
        self._minted: dict[int, tuple[CausalContext, int]] | None = None

    def stamp(self) -> Stamp:
        """Mint a stamp, later than all before. O(1)."""
        self.has_minted = True
        return self._clock.tick()

    def dot(self, part: Causal | None = None, /) -> Dot:
        """Mint the next free dot of this document's context, or of one inside it. O(1).

        Args:
            part: where the dot will be used, when the document is a record or a pair: the field
                itself, such as `record.tags`. Each causal field has a context of its own.

        Raises:
            InvalidTypeError: the document, or the part of it, has no causal context.
        """
        where: Any = self._state if part is None else part
        if not isinstance(where, Causal):
            raise InvalidTypeError(f"{with_article(type(where).__name__)} has no causal context")
        self.has_minted = True
        context = where.context
        if self._minted is None:
            self._minted = {}
        _, minted = self._minted.get(id(context), (context, 0))
        self._minted[id(context)] = (context, minted + 1)
        return Dot(self.actor, context.next_dot(self.actor).sequence + minted)


Mutator = Callable[[Any, WriteContext], Any]
"""Takes a document's state and a context, and returns a delta without changing the state."""


class _Group:
    """The writes to one document since the last flush: they become one entry."""

    __slots__ = ("deltas", "payload", "receipt", "sequence", "size")

    def __init__(self, receipt: WriteReceipt) -> None:
        self.receipt = receipt
        self.sequence = receipt.sequence
        self.deltas: list[Any] = []
        self.payload: bytes | None = None
        self.size = 0

    def add(self, delta: Any, payload: bytes | None, size: int) -> None:
        """Take a delta, its bytes if they are made already, and how many they are at most. O(1)."""
        self.deltas.append(delta)
        self.payload = payload
        self.size += size

    def encoded(self) -> bytes:
        """Return the joined writes; a single write's bytes are used as they are."""
        if len(self.deltas) == 1 and self.payload is not None:
            return self.payload
        return registry.encode(join_all(self.deltas))


class OpenWrites:
    """The writes that are in the documents and not yet in the log.

    Args:
        parts: the replica's.
    """

    __slots__ = ("_full", "_groups", "_parts", "_unsent", "reserved")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._groups: dict[str, _Group] = {}
        self._full: list[LogEntry] = []
        self._unsent: list[LogEntry] = []
        self.reserved = 0

    def __bool__(self) -> bool:
        return bool(self._groups)

    @property
    def group_count(self) -> int:
        """How many numbers are reserved and not in the vector."""
        return len(self._groups) + len(self._full)

    def write(self, document: HeldDocument, mutate: Mutator) -> WriteReceipt:
        """Make and absorb one delta: see `Replica.write`."""
        parts = self._parts
        name = document.name
        group = self._groups.get(name)
        sequence = group.sequence if group is not None else self.reserved + 1
        delta, payload, has_minted = self._make_delta(document, mutate, sequence)
        if group is not None and group.size + len(payload) > ENTRY_BYTES_MAX:
            sequence = self.reserved + 1
            delta, payload, has_minted = self._make_delta(document, mutate, sequence)
        if not payload:
            return WriteReceipt(parts.actor, self.reserved, False)
        new = document.absorb(delta)
        if new.is_bottom():
            if not has_minted:
                return WriteReceipt(parts.actor, self.reserved, False)
            # What bears a mark of this very write is here already: the mutator has changed the
            # state itself. It is sent all the same, or the others would never have it.
            new = delta
        if group is None or sequence != group.sequence:
            group = self._begin(name, group, sequence)
        group.add(delta, payload, len(payload))
        parts.journal.note(Change(name, new, True))
        return group.receipt

    def write_applied(
        self, document: HeldDocument, mutate: Mutator, *, bytes_max: int
    ) -> WriteReceipt:
        """Take a delta that its mutator has joined already: see `Replica.write_applied`."""
        if bytes_max > ENTRY_BYTES_MAX:
            raise LimitError("delta bytes", size=bytes_max, limit=ENTRY_BYTES_MAX)
        parts, name = self._parts, document.name
        group = self._groups.get(name)
        sequence = self.reserved + 1
        if group is not None and group.size + bytes_max <= APPLIED_GROUP_BYTES_MAX:
            sequence = group.sequence
        state = document.state
        context = WriteContext(parts.actor, sequence=sequence, clock=parts.clock, state=state)
        delta = mutate(state, context)
        if delta.is_bottom():
            return WriteReceipt(parts.actor, self.reserved, False)
        document.show_written(delta)
        if group is None or sequence != group.sequence:
            group = self._begin(name, group, sequence)
        group.add(delta, None, bytes_max)
        parts.journal.note(Change(name, delta, True))
        return group.receipt

    def _begin(self, name: str, full: _Group | None, sequence: int) -> _Group:
        """Begin a group, after one that has no room left if there is one."""
        if full is not None:
            self._full.append(self._entry(name, full))
        group = self._groups[name] = _Group(WriteReceipt(self._parts.actor, sequence))
        self.reserved = sequence
        return group

    def _make_delta(
        self, document: HeldDocument, mutate: Mutator, sequence: int
    ) -> tuple[Any, bytes, bool]:
        """Return a delta, its bytes (none when it changes nothing), and if marks were minted."""
        parts, state = self._parts, document.view
        context = WriteContext(parts.actor, sequence=sequence, clock=parts.clock, state=state)
        delta = mutate(state, context)
        if type(delta) is not type(state):
            raise InvalidTypeError(
                f"the delta of {document.name!r} is {with_article(type(delta).__name__)}, and the "
                f"document of type {document.tag}"
            )
        if delta.is_bottom():
            return delta, b"", context.has_minted
        payload = registry.encode(delta)
        if len(payload) > ENTRY_BYTES_MAX:
            raise LimitError("delta bytes", size=len(payload), limit=ENTRY_BYTES_MAX)
        return delta, payload, context.has_minted

    def _entry(self, document: str, group: _Group) -> LogEntry:
        parts, sequence = self._parts, group.sequence
        entry = LogEntry(parts.actor, sequence, sequence, document, group.encoded())
        known = [text for delta in group.deltas for text in known_texts(delta)]
        if known:
            short = shortened(entry, known, bytes_min=parts.config.known_bytes_min)
            if short is not None:
                parts.shorts.put(short)
        return entry

    def close(self) -> None:
        """Turn the open groups into entries of the log.

        Also done before anything foreign is absorbed: a vector that covers a peer's removal must
        cover the writes made here before it was seen, or that removal would look settled while
        an older write is still to come.
        """
        if not self._groups:
            return
        entries = self._full
        entries += [self._entry(document, group) for document, group in self._groups.items()]
        if len(entries) > 1:
            entries.sort(key=lambda entry: entry.first)
        self._full = []
        self._groups = {}
        parts = self._parts
        for entry in entries:
            parts.log.append(entry)
        parts.vector.set(parts.actor, self.reserved)
        self._unsent += entries

    def put_unsent(self, entries: list[LogEntry]) -> None:
        """Take over entries that were closed under an earlier actor of this node."""
        self._unsent = entries + self._unsent

    def take_unsent(self) -> list[LogEntry]:
        """Return the entries closed since the last call."""
        entries, self._unsent = self._unsent, []
        return entries

    def diagnostics(self) -> Mapping[str, Any]:
        """Show which numbers are reserved, and what is not sent yet."""
        return {
            "reserved": self.reserved,
            "open": {name: group.sequence for name, group in self._groups.items()},
            "unsent": [(entry.first, entry.last) for entry in self._unsent],
        }

    def _check(self) -> None:
        """Assert that each reserved number is of one entry that is open, or in the vector."""
        numbers = [group.sequence for group in self._groups.values()]
        numbers += [entry.first for entry in self._full]
        closed = self.reserved - len(numbers)
        is_each_once = sorted(numbers) == list(range(closed + 1, self.reserved + 1))
        require(self, is_each_once, "the open numbers are not the last that were reserved")
        require(self, all(group.deltas for group in self._groups.values()), "a write is empty")
        sent = [entry.first for entry in self._unsent]
        require(self, sent == sorted(sent), "entries are sent out of order")
