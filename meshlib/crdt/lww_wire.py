"""The canonical tree of an `LWWMap`.

`(actors, base_ms, columns, counts)`: the actors of the writes, sorted; the earliest write's
milliseconds; seven columns in the order of the keys (key, actor index, ms after base, logical,
sequence, payload or None, changes); and `(key, changes)` for keys of which only counts are told.
Changes are one integer when the writer's name alone made them, else `(name, count, ...)`.

Columns and not rows: a column is checked in a few calls, whatever its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meshlib.clock import Stamp
from meshlib.crdt.entries import NO_WRITE, Changes, LWWEntry
from meshlib.crdt.wire import (
    STAMP_LOGICAL_MAX,
    STAMP_MS_MAX,
    canonical_order,
    read_actor,
    read_integer,
    read_integers,
    read_key_batch,
    read_payload,
    read_rows,
    require,
    require_sorted,
)
from meshlib.errors import LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX

__all__ = ["map_from_wire", "map_to_wire"]

_NAME_BYTES = 8
_COLUMNS = 7

# A NamedTuple's own constructor is a Python function; this one is not, and makes the same.
_new: Callable[..., Any] = tuple.__new__


def _changes_to_wire(changes: Changes, actor: bytes) -> Any:
    if len(changes) == 1 and changes[0][0] == actor[:_NAME_BYTES]:
        return changes[0][1]
    return tuple(part for change in changes for part in change)


def _changes_from_wire(wire: Any, actor: bytes) -> Changes:
    if type(wire) is int:
        require(len(actor) > 0, "counts without a name")
        return ((actor[:_NAME_BYTES], read_integer(wire, "a count", minimum=1)),)
    parts = read_rows(wire, "changes")
    require(len(parts) % 2 == 0, "changes must be names and counts")
    changes = []
    for name, count in zip(parts[::2], parts[1::2], strict=True):
        require(type(name) is bytes and len(name) == _NAME_BYTES, "a name must be 8 bytes")
        changes.append((name, read_integer(count, "a count", minimum=1)))
    names = [name for name, _ in changes]
    require(names == sorted(set(names)), "the names of changes must be sorted, each once")
    require(names != [actor[:_NAME_BYTES]], "a single count of the writer must stand alone")
    return tuple(changes)


def map_to_wire(entries: dict[Any, LWWEntry]) -> Any:
    """Return the canonical tree of a map's entries. O(n log n)."""
    keys, counts = [], []
    for key in canonical_order(entries):
        entry = entries[key]
        if entry.stamp == NO_WRITE:
            counts.append((key, _changes_to_wire(entry.changes, b"")))
        else:
            keys.append(key)
    writes = [entries[key] for key in keys]
    stamps = [entry.stamp for entry in writes]
    actors = sorted({stamp.actor for stamp in stamps})
    index = {actor: position for position, actor in enumerate(actors)}
    base_ms = min((stamp.wall_ms for stamp in stamps), default=0)
    columns = (
        tuple(keys),
        tuple([index[stamp.actor] for stamp in stamps]),
        tuple([stamp.wall_ms - base_ms for stamp in stamps]),
        tuple([stamp.logical for stamp in stamps]),
        tuple([entry.sequence for entry in writes]),
        tuple([entry.payload for entry in writes]),
        tuple([_changes_to_wire(entry.changes, entry.stamp.actor) for entry in writes]),
    )
    return (tuple(actors), base_ms, columns, tuple(counts))


def map_from_wire(wire: Any) -> dict[Any, LWWEntry]:
    """Read a map's entries strictly. O(n log n).

    Raises:
        DecodeError: malformed, or not canonical.
        LimitExceeded: over a limit.
    """
    actors_wire, base_ms, columns, counts = read_rows(wire, "a map", count=4)
    actors = [read_actor(actor) for actor in read_rows(actors_wire, "the actors of a map")]
    if len(actors) > ACTORS_MAX:
        raise LimitExceeded("actors of a map", size=len(actors), limit=ACTORS_MAX)
    require(actors == sorted(set(actors)), "the actors of a map must be sorted, each once")
    base_ms = read_integer(base_ms, "the earliest milliseconds", maximum=STAMP_MS_MAX)
    columns = read_rows(columns, "the columns of a map", count=_COLUMNS)
    keys = read_key_batch(read_rows(columns[0], "the keys of a map"))
    require_sorted(keys, "the keys of a map")
    entries: dict[Any, LWWEntry] = dict(
        zip(keys, _read_writes(columns, actors, base_ms), strict=True)
    )
    counted = []
    for row in read_rows(counts, "the counts of a map"):
        key, changes_wire = read_rows(row, "a row of counts", count=2)
        changes = _changes_from_wire(changes_wire, b"")
        require(len(changes) > 0, "a row that tells nothing")
        counted.append(key)
        entries[key] = LWWEntry(NO_WRITE, 0, None, changes)
    read_key_batch(counted)
    require_sorted(counted, "the counts of a map")
    require(len(entries) == len(keys) + len(counted), "a key with a write and with counts")
    return entries


def _read_writes(columns: Sequence[Any], actors: list[ActorId], base_ms: int) -> list[LWWEntry]:
    """Check the columns, and return the entries they hold."""
    count = len(columns[0])
    positions = read_integers(columns[1], "actor indexes", count=count, maximum=len(actors) - 1)
    after = read_integers(columns[2], "milliseconds", count=count, maximum=STAMP_MS_MAX - base_ms)
    logicals = read_integers(columns[3], "logicals", count=count, maximum=STAMP_LOGICAL_MAX)
    sequences = read_integers(columns[4], "sequences", count=count)
    payloads = read_rows(columns[5], "values", count=count)
    counts = read_rows(columns[6], "changes", count=count)
    require(len(set(positions)) == len(actors), "an actor without a write")
    require(min(after, default=base_ms) == 0, "the earliest milliseconds must be a write's")
    for payload in payloads:
        if payload is not None:
            read_payload(payload)
    # Most entries were changed a few times by their writer alone: these share one tuple.
    shared: dict[tuple[int, int], Changes] = {}
    entries = []
    for position, ms, logical, sequence, payload, counted in zip(
        positions, after, logicals, sequences, payloads, counts, strict=True
    ):
        actor = actors[position]
        changes = shared.get((position, counted)) if type(counted) is int else None
        if changes is None:
            changes = _changes_from_wire(counted, actor)
            if type(counted) is int:
                shared[position, counted] = changes
        stamp = _new(Stamp, (base_ms + ms, logical, actor))
        entries.append(_new(LWWEntry, (stamp, sequence, payload, changes)))
    return entries
