"""Own writes that nobody else has, put under the stamps that a right clock would have given them.

Rules this file owns:
- The stamps keep their order, and stay after all that was here before the first of those writes:
  what this node wrote over stays replaced.
- They become those of another writer, and so do the entries and their numbers. An older copy of
  this state, such as one on disk, may come back: no number of a writer ever has two contents.
- What hangs on dots stays as it is: a dot never gets a second content. So do numbers that count,
  such as those of counters, and what a value says itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import evolve

from meshlib.clock import HybridClock, Stamp
from meshlib.crdt import Restampable, registry
from meshlib.identity import ActorId
from meshlib.replication.document import DocumentTable
from meshlib.replication.entries.log import ReplicationLog
from meshlib.replication.journal import Journal
from meshlib.replication.late_writes import Time
from meshlib.replication.records import Change, LogEntry
from meshlib.replication.vector import VersionVector

__all__ = ["OwnWrites", "restamp_own_writes"]

Restamp = Callable[[Stamp], Stamp]


class OwnWrites(Protocol):
    """What of a replica has its own writes in it: `meshlib.replication.parts.Parts`."""

    actor: ActorId
    clock: HybridClock
    journal: Journal
    documents: DocumentTable
    vector: VersionVector
    log: ReplicationLog


def restamp_own_writes(parts: OwnWrites, new: ActorId, *, back_ms: int, floor: Time) -> int:
    """Put the own writes of a replica, all of them closed, under earlier stamps. O(content).

    Args:
        parts: of the replica.
        new: the writer that they are of from now on, never used before.
        back_ms: by how much, in milliseconds; over 0.
        floor: the latest time that was known here before the first of them.

    Returns:
        by how much it was; 0 where the floor allows nothing, or there are none: then nothing was
        changed.
    """
    old, earliest = parts.actor, _earliest(parts)
    back_ms = 0 if earliest is None else min(back_ms, earliest[0] - floor[0] - 1)
    if back_ms <= 0:
        return 0

    has_changed = False

    def change(stamp: Stamp) -> Stamp:
        nonlocal has_changed
        if stamp.actor != old:
            return stamp
        has_changed = True
        return Stamp(stamp.wall_ms - back_ms, stamp.logical, new)

    for document in parts.documents:
        state: Any = document.state
        if isinstance(state, Restampable):
            has_changed = False
            document.state = state = state.restamp(change)
            if has_changed:
                # Who has gathered what was new so far would take what comes for older.
                parts.journal.note(Change(document.name, state, False, True))
    parts.log.rewrite(old, new, lambda entry: _changed(entry, new, change))
    parts.vector.rename(old, new)
    # The writers of what is later are others, whose stamps this clock has seen, or nobody.
    wall_ms, logical = parts.clock.latest
    parts.clock.begin_again(new, latest=max(floor, (wall_ms - back_ms, logical)))
    parts.actor = new
    return back_ms


def _earliest(parts: OwnWrites) -> Time | None:
    """Return when the first of the own writes was stamped that is here still. O(content)."""
    own = parts.actor
    earliest: Time | None = None

    def look(stamp: Stamp) -> Stamp:
        nonlocal earliest
        if stamp.actor == own:
            earliest = stamp[:2] if earliest is None else min(earliest, stamp[:2])
        return stamp

    for document in parts.documents:
        if isinstance(document.state, Restampable):
            document.state.restamp(look)  # changes nothing: each stamp is returned as it is
    for entry in parts.log:
        if entry.actor == own:
            _changed(entry, own, look)
    return earliest


def _changed(entry: LogEntry, new: ActorId, change: Restamp) -> LogEntry:
    """Return an entry of this node as another writer's, with other stamps. O(size)."""
    delta: Any = registry.decode(entry.delta)
    if isinstance(delta, Restampable):
        changed: Any = delta.restamp(change)
        return evolve(entry, actor=new, delta=registry.encode(changed))
    return evolve(entry, actor=new)
