"""Own writes that nobody else has, put under the stamps that a right clock would have given them.

Rules this file owns:
- The stamps keep their order, and stay after all that was here before the first of those writes:
  what this node wrote over stays replaced.
- They become those of another writer, and so do the entries and their numbers. An older copy of
  this state, such as one on disk, may come back: no number of a writer ever has two contents.
- What hangs on dots stays as it is: a dot never gets a second content. So do numbers that count,
  such as those of counters, and what a value says itself. The clock goes on after what stayed, so
  that it still counts as ahead for as long as others hold that back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import evolve, frozen

from meshlib.clock import HybridClock, Stamp
from meshlib.crdt import NOBODY, Restampable, registry
from meshlib.identity import ActorId
from meshlib.replication.document import DocumentTable, latest_stamp
from meshlib.replication.entries.log import ReplicationLog
from meshlib.replication.journal import Journal
from meshlib.replication.late_writes import Time
from meshlib.replication.records import Change, LogEntry
from meshlib.replication.vector import VersionVector

__all__ = ["OwnWrites", "SetBack", "restamp_own_writes"]

Restamp = Callable[[Stamp], Stamp]


@frozen(slots=True)
class SetBack:
    """How a wall clock was set back since it was looked at.

    Args:
        latest: the latest time that was minted or observed by that look.
        wrong_ms: what the wall clock showed then, in milliseconds.
        right_ms: what it would have shown then by how it stands now.
    """

    latest: Time
    wrong_ms: int
    right_ms: int

    def is_before(self, wall_ms: int, logical: int) -> bool:
        """Tell whether the clock was set back before a stamp of that time was minted. O(1)."""
        return (wall_ms, logical) > self.latest and wall_ms < self.wrong_ms


class OwnWrites(Protocol):
    """What of a replica has its own writes in it: `meshlib.replication.parts.Parts`."""

    actor: ActorId
    clock: HybridClock
    journal: Journal
    documents: DocumentTable
    vector: VersionVector
    log: ReplicationLog


def restamp_own_writes(
    parts: OwnWrites, new: ActorId, *, back_ms: int, floor: Time, set_back: SetBack | None = None
) -> int:
    """Put the own writes of a replica, all of them closed, under earlier stamps. O(content).

    Args:
        parts: of the replica.
        new: the writer that they are of from now on, never used before.
        back_ms: by how much, in milliseconds; over 0.
        floor: the latest time that was known here before the first of them.
        set_back: how the wall clock was set back, if it is because of that.

    Returns:
        by how much it was; 0 where the floor allows nothing, or there are none and the clock stands
        no later than its wall clock: then nothing was changed.
    """
    old, clock = parts.actor, parts.clock
    is_own = partial(_is_own, old, floor)
    earliest = _earliest(parts, is_own)
    if earliest is None and clock.leap_s():
        earliest = clock.latest  # minted, and nowhere here
    back_ms = 0 if earliest is None else min(back_ms, earliest[0] - floor[0] - 1)
    if back_ms <= 0:
        return 0

    def put_back(wall_ms: int, logical: int) -> int:
        if set_back is None or not set_back.is_before(wall_ms, logical):
            return wall_ms - back_ms
        # The clock went on after its latest stamp, or had passed that again.
        is_counted_on = wall_ms <= set_back.latest[0]
        return max(wall_ms - back_ms, set_back.right_ms) if is_counted_on else wall_ms

    has_changed = False

    def change(stamp: Stamp) -> Stamp:
        nonlocal has_changed
        if not is_own(stamp):
            return stamp
        has_changed = True
        actor = new if stamp.actor else NOBODY
        return Stamp(put_back(stamp.wall_ms, stamp.logical), stamp.logical, actor)

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
    wall_ms, logical = clock.latest
    stamps = [latest_stamp(document.state) for document in parts.documents]
    kept = [stamp[:2] for stamp in stamps if stamp is not None]
    clock.begin_again(new, latest=max(floor, (put_back(wall_ms, logical), logical), *kept))
    parts.actor = new
    return back_ms


def _is_own(actor: ActorId, floor: Time, stamp: Stamp) -> bool:
    """Tell whether a stamp is of a writer, or was kept without one after a time. O(1)."""
    return stamp[:2] > floor if stamp.actor == NOBODY else stamp.actor == actor


def _earliest(parts: OwnWrites, is_own: Callable[[Stamp], bool]) -> Time | None:
    """Return when the first of the own writes was stamped that is here still. O(content)."""
    earliest: Time | None = None

    def look(stamp: Stamp) -> Stamp:
        nonlocal earliest
        if is_own(stamp):
            earliest = stamp[:2] if earliest is None else min(earliest, stamp[:2])
        return stamp

    for document in parts.documents:
        if isinstance(document.state, Restampable):
            document.state.restamp(look)  # changes nothing: each stamp is returned as it is
    for entry in parts.log:
        if entry.actor == parts.actor:
            _changed(entry, parts.actor, look)
    return earliest


def _changed(entry: LogEntry, new: ActorId, change: Restamp) -> LogEntry:
    """Return an entry of this node as another writer's, with other stamps. O(size)."""
    delta: Any = registry.decode(entry.delta)
    if isinstance(delta, Restampable):
        changed: Any = delta.restamp(change)
        return evolve(entry, actor=new, delta=registry.encode(changed))
    return evolve(entry, actor=new)
