"""The numbered entry of an `LWWMap`, and its join.

An entry is a product of two lattices: the latest write (a total order), and for each writer's
name how often it changed the key (the larger count stays). The first decides the value, the
second the version.

Rule: a map holds rows, tuples with the fields of an `LWWEntry`, and makes the entry when someone
asks for one. Rows equal entries; making ten thousand of them costs as much as reading them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from meshlib.clock import Stamp
from meshlib.identity import ActorId

__all__ = [
    "NO_WRITE",
    "Changes",
    "LWWEntry",
    "Row",
    "changes_by",
    "count_of",
    "counts_alone",
    "join_entries",
    "new_in",
    "rank",
]

Changes = tuple[tuple[bytes, int], ...]
"""The first 8 bytes of a writer's actor -> how often it changed the key; sorted by name."""

Row = tuple[int, int, ActorId, int, bytes | None, Changes]
"""The fields of an `LWWEntry` in their order; every `LWWEntry` is one."""

NO_WRITE: Final = Stamp(0, 0, b"")
"""The stamp before all others: of an entry that tells counts and no write."""


class LWWEntry(NamedTuple):
    """What a map holds for one key: the latest write, and who changed it how often.

    The stamp's parts stand in the entry itself: one object and not two for each key of a map.

    Args:
        wall_ms: milliseconds since 1970 of the latest write, as its writer believed.
        logical: orders the writes within one millisecond.
        actor: who wrote it; empty when only counts are told.
        sequence: the number of that write among its actor's; 0 when it was not numbered.
        payload: the value's canonical bytes; None marks a removal (a tombstone).
        changes: how often each writer's name changed the key, removals included.
    """

    wall_ms: int
    logical: int
    actor: ActorId
    sequence: int
    payload: bytes | None
    changes: Changes

    @property
    def stamp(self) -> Stamp:
        """When and by whom the key was written last."""
        return Stamp(self.wall_ms, self.logical, self.actor)

    @property
    def version(self) -> int:
        """How many changes the key has seen; the same on every replica that saw them."""
        return sum(count for _, count in self.changes)

    @property
    def has_write(self) -> bool:
        """Tell whether a write is told, and not counts alone."""
        return bool(self.actor)

    @property
    def is_live(self) -> bool:
        """Tell whether the key has a value."""
        return self.payload is not None


def counts_alone(changes: Changes) -> Row:
    """Return the row that tells counts and no write."""
    return (0, 0, ActorId(b""), 0, None, changes)


def rank(row: Row) -> tuple[int, int, bytes, bytes, int]:
    """Return the write's place in the total order.

    By stamp; should two writes have one stamp (the writer's id was reused), by payload bytes,
    where a value comes after a removal; then by number.
    """
    wall_ms, logical, actor, sequence, payload, _ = row
    return (wall_ms, logical, actor, payload or b"", sequence)


def count_of(changes: Changes, name: bytes) -> int:
    """Return a name's count, 0 without one."""
    for held, count in changes:
        if held == name:
            return count
    return 0


@lru_cache(maxsize=1024)
def changes_by(name: bytes, count: int) -> Changes:
    """Return the changes of one writer alone: one object for equal ones, as most entries have.

    Sharing takes 140 bytes off an entry, and equal entries are told equal sooner.
    """
    return ((name, count),)


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


def join_entries(mine: Row, theirs: Row) -> Row:
    """Return the join of the rows of one key."""
    if mine == theirs:
        return mine
    winner = theirs if rank(theirs) > rank(mine) else mine
    changes = _join_changes(mine[5], theirs[5])
    return winner if changes == winner[5] else (*winner[:5], changes)


def new_in(theirs: Row, mine: Row) -> Row | None:
    """Return the part of a row that another does not hold, None when it holds all."""
    changes = tuple((name, count) for name, count in theirs[5] if count > count_of(mine[5], name))
    if rank(theirs) > rank(mine):
        return (*theirs[:5], changes)
    return counts_alone(changes) if changes else None
