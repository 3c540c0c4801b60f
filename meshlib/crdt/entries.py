"""The numbered entry of an `LWWMap`, and its join.

An entry is a product of two lattices: the latest write (a total order), and for each writer's
name how often it changed the key (the larger count stays). The first decides the value, the
second the version.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from meshlib.clock import Stamp
from meshlib.identity import ActorId

__all__ = ["NO_WRITE", "Changes", "LWWEntry", "count_of", "join_entries", "new_in"]

Changes = tuple[tuple[bytes, int], ...]
"""The first 8 bytes of a writer's actor -> how often it changed the key; sorted by name."""

NO_WRITE: Final = Stamp(0, 0, b"")
"""The stamp before all others: of an entry that tells counts and no write."""


class LWWEntry(NamedTuple):
    """What a map holds for one key: the latest write, and who changed it how often.

    Args:
        stamp: when and by whom it was written last.
        sequence: the number of that write among its actor's; 0 when it was not numbered.
        payload: the value's canonical bytes; None marks a removal (a tombstone).
        changes: how often each writer's name changed the key, removals included.
    """

    stamp: Stamp
    sequence: int
    payload: bytes | None
    changes: Changes

    @property
    def version(self) -> int:
        """How many changes the key has seen; the same on every replica that saw them."""
        return sum(count for _, count in self.changes)

    @property
    def actor(self) -> ActorId:
        """Who wrote it last."""
        return ActorId(self.stamp.actor)

    @property
    def is_live(self) -> bool:
        """Tell whether the key has a value."""
        return self.payload is not None

    def hashed(self) -> tuple[Any, ...]:
        """Return everything inside, for a digest."""
        return (*self.stamp, self.sequence, self.payload, self.changes)

    def hashed_live(self) -> tuple[Any, ...]:
        """Return what the digest of live content counts: the write, not its history."""
        return (*self.stamp, self.sequence, self.payload)


def rank(entry: LWWEntry) -> tuple[Stamp, bytes, int]:
    """Return the write's place in the total order.

    By stamp; should two writes have one stamp (the writer's id was reused), by payload bytes,
    where a value comes after a removal; then by number.
    """
    return (entry.stamp, entry.payload or b"", entry.sequence)


def count_of(changes: Changes, name: bytes) -> int:
    """Return a name's count, 0 without one."""
    for held, count in changes:
        if held == name:
            return count
    return 0


def _join_changes(mine: Changes, theirs: Changes) -> Changes:
    if mine == theirs or not theirs:
        return mine
    if not mine:
        return theirs
    counts = dict(mine)
    for name, count in theirs:
        if count > counts.get(name, 0):
            counts[name] = count
    return tuple(sorted(counts.items()))


def join_entries(mine: LWWEntry, theirs: LWWEntry) -> LWWEntry:
    """Return the join of two entries of one key."""
    if mine == theirs:
        return mine
    winner = theirs if rank(theirs) > rank(mine) else mine
    changes = _join_changes(mine.changes, theirs.changes)
    if changes == winner.changes:
        return winner
    return LWWEntry(winner.stamp, winner.sequence, winner.payload, changes)


def new_in(theirs: LWWEntry, mine: LWWEntry) -> LWWEntry | None:
    """Return the part of an entry that another does not hold, None when it holds all."""
    changes = tuple(
        (name, count) for name, count in theirs.changes if count > count_of(mine.changes, name)
    )
    if rank(theirs) > rank(mine):
        return LWWEntry(theirs.stamp, theirs.sequence, theirs.payload, changes)
    return LWWEntry(NO_WRITE, 0, None, changes) if changes else None
