"""The canonical tree of an `LWWMap`.

`(actors, base_ms, rows)`: the actors of the writes, sorted; the earliest write's milliseconds;
and in the order of the keys one row each, `(key, actor index, ms after base, logical, sequence,
payload or None, changes)`, or `(key, changes)` when only counts are told. Changes are one
integer when the writer's name alone made them, else `(name, count, name, count, ...)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshlib.crdt.entries import NO_WRITE, Changes, LWWEntry
from meshlib.crdt.wire import (
    canonical_order,
    read_actor,
    read_integer,
    read_key,
    read_payload,
    read_rows,
    read_stamp,
    require,
    require_sorted,
)
from meshlib.errors import LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX

__all__ = ["map_from_wire", "map_to_wire"]

_NAME_BYTES = 8


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
    stamps = [entry.stamp for entry in entries.values() if entry.stamp != NO_WRITE]
    actors = sorted({stamp.actor for stamp in stamps})
    index = {actor: position for position, actor in enumerate(actors)}
    base_ms = min((stamp.wall_ms for stamp in stamps), default=0)
    rows: list[tuple[Any, ...]] = []
    for key in canonical_order(entries):
        stamp, sequence, payload, changes = entries[key]
        counts = _changes_to_wire(changes, stamp.actor)
        if stamp == NO_WRITE:
            rows.append((key, counts))
            continue
        wall_ms, logical, actor = stamp
        rows.append((key, index[actor], wall_ms - base_ms, logical, sequence, payload, counts))
    return (tuple(actors), base_ms, tuple(rows))


def map_from_wire(wire: Any) -> dict[Any, LWWEntry]:
    """Read a map's entries strictly. O(n log n).

    Raises:
        DecodeError: malformed, or not canonical.
        LimitExceeded: over a limit.
    """
    actors_wire, base_ms, rows = read_rows(wire, "a map", count=3)
    actors = [read_actor(actor) for actor in read_rows(actors_wire, "the actors of a map")]
    if len(actors) > ACTORS_MAX:
        raise LimitExceeded("actors of a map", size=len(actors), limit=ACTORS_MAX)
    require(actors == sorted(set(actors)), "the actors of a map must be sorted, each once")
    base_ms = read_integer(base_ms, "the earliest milliseconds")
    entries: dict[Any, LWWEntry] = {}
    keys, used, earliest = [], set(), None
    for row in read_rows(rows, "the rows of a map"):
        require(type(row) in (tuple, list) and len(row) in (2, 7), "a row has 2 or 7 items")
        key = read_key(row[0])
        keys.append(key)
        if len(row) == 2:
            changes = _changes_from_wire(row[1], b"")
            require(len(changes) > 0, "a row that tells nothing")
            entries[key] = LWWEntry(NO_WRITE, 0, None, changes)
            continue
        entry = _read_write(row, actors, base_ms)
        entries[key] = entry
        used.add(entry.actor)
        if earliest is None or entry.stamp.wall_ms < earliest:
            earliest = entry.stamp.wall_ms
    require_sorted(keys, "the rows of a map")
    require(len(used) == len(actors), "an actor without a write")
    require(base_ms == (earliest or 0), "the earliest milliseconds must be a write's")
    return entries


def _read_write(row: Sequence[Any], actors: list[ActorId], base_ms: int) -> LWWEntry:
    _, position, after_ms, logical, sequence, payload, counts = row
    actor = actors[read_integer(position, "an actor's index", maximum=len(actors) - 1)]
    wall_ms = base_ms + read_integer(after_ms, "milliseconds")
    return LWWEntry(
        read_stamp(wall_ms, logical, actor),
        read_integer(sequence, "a sequence"),
        None if payload is None else read_payload(payload),
        _changes_from_wire(counts, actor),
    )
