"""What a replica has to tell: changes for subscribers, events for whoever drives it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from meshlib.crdt import Lattice
from meshlib.invariants import require
from meshlib.limits import DOCUMENT_CHANGES_MAX
from meshlib.replication.records import Change, ChangesDropped, ReplicaEvent

__all__ = ["Journal", "QuietJournal", "Readings"]


class Readings:
    """What became new in one document and one reader has not taken: a bounded queue."""

    __slots__ = ("_deltas", "is_closed")

    def __init__(self) -> None:
        self._deltas: list[Lattice] | None = None  # None: all of it is new
        self.is_closed = False

    def note(self, change: Change) -> None:
        """Add a change. O(1)."""
        if self._deltas is None or self.is_closed:
            return
        if change.is_reset or len(self._deltas) >= DOCUMENT_CHANGES_MAX:
            self._deltas = None
        else:
            self._deltas.append(change.delta)

    def take(self) -> list[Lattice] | None:
        """Return the deltas since the last call, in order; None: read the whole state. O(1)."""
        deltas, self._deltas = self._deltas, []
        return deltas


class Journal:
    """Two bounded queues that are drained.

    Args:
        changes_max: changes that may wait; beyond it all of them go, with an event, since a
            subscriber that missed one has to read the state again anyway.
        events_max: events that may wait; the oldest goes beyond it, counted.
    """

    __slots__ = (
        "_changes",
        "_changes_max",
        "_events",
        "_events_max",
        "_readings",
        "events_dropped",
    )

    def __init__(self, *, changes_max: int, events_max: int) -> None:
        self._changes: deque[Change] = deque()
        self._changes_max = changes_max
        self._events: deque[ReplicaEvent] = deque()
        self._events_max = events_max
        self._readings: dict[str, list[Readings]] = {}
        self.events_dropped = 0

    def read(self, document: str) -> Readings:
        """Return a new queue of what becomes new in a document, until it is closed. O(1)."""
        readings = Readings()
        self._readings.setdefault(document, []).append(readings)
        return readings

    def note(self, change: Change) -> None:
        """Add a change. O(who reads its document)."""
        if self._readings:
            self._tell(change)
        if len(self._changes) >= self._changes_max:
            self.emit(ChangesDropped(change_count=len(self._changes)))
            self._changes.clear()
        self._changes.append(change)

    def _tell(self, change: Change) -> None:
        readers = self._readings.get(change.document, ())
        for readings in readers:
            readings.note(change)
        if any(readings.is_closed for readings in readers):
            left = [readings for readings in readers if not readings.is_closed]
            self._readings[change.document] = left
            if not left:
                del self._readings[change.document]

    def emit(self, event: ReplicaEvent) -> None:
        """Add an event. O(1)."""
        if len(self._events) >= self._events_max:
            self._events.popleft()
            self.events_dropped += 1
        self._events.append(event)

    def drain_changes(self) -> list[Change]:
        """Return the changes since the last call, in order."""
        if not self._changes:
            return []
        drained = list(self._changes)
        self._changes.clear()
        return drained

    def drain_events(self) -> list[ReplicaEvent]:
        """Return the events since the last call, in order."""
        if not self._events:
            return []
        drained = list(self._events)
        self._events.clear()
        return drained

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how much waits to be told."""
        return {
            "change_count": len(self._changes),
            "event_count": len(self._events),
            "events_dropped": self.events_dropped,
        }

    def _check(self) -> None:
        """Assert that no more waits than may."""
        require(self, len(self._changes) <= self._changes_max, "too many changes wait")
        require(self, len(self._events) <= self._events_max, "too many events wait")


class QuietJournal(Journal):
    """Tells no changes, and tells its events to another journal: of documents not yet served.

    Args:
        other: who is told.
    """

    __slots__ = ("_other",)

    def __init__(self, other: Journal) -> None:
        super().__init__(changes_max=1, events_max=1)
        self._other = other

    def note(self, change: Change) -> None:
        """Ignore a change."""

    def emit(self, event: ReplicaEvent) -> None:
        """Pass an event on."""
        self._other.emit(event)
