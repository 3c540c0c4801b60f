"""The canonical tree of an `LWWMap`.

`(actors, base_ms, keys, numbers, payloads, changes, counts)`: the actors of the writes, sorted;
the earliest write's milliseconds; then in the order of the keys these, four packed columns of
numbers (actor index, ms after base, logical, sequence), and each write's payload (None for a
removal) and changes; and `(key, changes)` for keys of which only counts are told. Changes are
one integer when the writer's name alone made them, else `(name, count, name, count, ...)`.

A packed column is the numbers in little-endian bytes, all as wide as the largest needs: 1, 2, 4
or 8. Columns and not rows: a column is checked in a few calls, whatever its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Final, TypeVar

from meshlib.codec import canonical_order
from meshlib.crdt.lww.entries import Changes, Row, changes_by, counts_alone
from meshlib.errors import LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import ACTORS_MAX
from meshlib.reading import (
    COUNT_MAX,
    STAMP_LOGICAL_MAX,
    STAMP_MS_MAX,
    are_integers,
    is_integer,
    is_packed,
    read_actor,
    read_bytes,
    read_column,
    read_integer,
    read_key,
    read_key_set,
    read_ordered_keys,
    read_payload,
    read_payloads,
    read_rows,
    require,
)

__all__ = ["map_from_wire", "map_to_wire"]

_NAME_BYTES: Final = 8
_COLUMNS: Final = ("actor indexes", "milliseconds", "logicals", "sequences")
_ZERO: Final = b"\0"
_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}

ValueT = TypeVar("ValueT")


def _width(largest: int) -> int:
    """Return how many bytes a number takes in a packed column."""
    if largest < 1 << 16:
        return 1 if largest < 1 << 8 else 2
    return 4 if largest < 1 << 32 else 8


def _pack_column(numbers: Sequence[int]) -> bytes:
    code = _CODES[_width(max(numbers, default=0))]
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def _changes_to_wire(changes: Changes, actor: bytes) -> Any:
    if len(changes) == 1 and changes[0][0] == actor[:_NAME_BYTES]:
        return changes[0][1]
    return tuple(part for change in changes for part in change)


def _changes_from_wire(wire: Any, actor: bytes) -> Changes:
    if is_integer(wire):
        require(len(actor) > 0, "counts without a name")
        return changes_by(actor[:_NAME_BYTES], read_integer(wire, "a count", minimum=1))
    parts = read_rows(wire, "changes")
    require(len(parts) % 2 == 0, "changes must be names and counts")
    changes = []
    for name, count in zip(parts[::2], parts[1::2], strict=True):
        require(len(read_bytes(name, "a name")) == _NAME_BYTES, "a name must be 8 bytes")
        changes.append((name, read_integer(count, "a count", minimum=1)))
    names = [name for name, _ in changes]
    require(names == sorted(set(names)), "the names of changes must be sorted, each once")
    require(names != [actor[:_NAME_BYTES]], "a single count of the writer must stand alone")
    return tuple(changes)


def map_to_wire(entries: dict[Any, Row]) -> Any:
    """Return the canonical tree of a map's entries. O(n log n)."""
    if len(entries) == 1:
        ((key, row),) = entries.items()
        if row[2]:
            return _only_write_to_wire(key, row)
    ordered = [(key, entries[key]) for key in canonical_order(entries)]
    counts = tuple((key, _changes_to_wire(entry[5], b"")) for key, entry in ordered if not entry[2])
    if counts:
        ordered = [(key, entry) for key, entry in ordered if entry[2]]
    if not ordered:
        return ((), 0, (), (b"",) * len(_COLUMNS), (), (), counts)
    keys, writes = zip(*ordered, strict=True)
    walls, logicals, writers, sequences, payloads, changes = zip(*writes, strict=True)
    actors = sorted(set(writers))
    index = {actor: position for position, actor in enumerate(actors)}
    base_ms = min(walls)
    numbers = (
        list(map(index.__getitem__, writers)),
        [wall_ms - base_ms for wall_ms in walls],
        logicals,
        sequences,
    )
    return (
        tuple(actors),
        base_ms,
        keys,
        tuple(map(_pack_column, numbers)),
        payloads,
        tuple(map(_changes_to_wire, changes, writers)),
        counts,
    )


def _only_write_to_wire(key: Any, row: Row) -> Any:
    """Return the tree of a map with one write, as most deltas are. O(1)."""
    wall_ms, logical, actor, sequence, payload, changes = row
    numbers = (_ZERO, _ZERO, _pack_column((logical,)), _pack_column((sequence,)))
    told = (_changes_to_wire(changes, actor),)
    return ((actor,), wall_ms, (key,), numbers, (payload,), told, ())


def map_from_wire(wire: Any) -> tuple[dict[Any, Row], int]:
    """Read a map's rows strictly, and how many of them hold no value. O(n log n).

    Raises:
        DecodeError: malformed, or not canonical.
        LimitExceeded: over a limit.
    """
    *writes, counts = read_rows(wire, "a map", count=7)
    keys = read_rows(writes[2], "the keys of a map")
    entries: dict[Any, Row]
    if len(keys) == 1:
        row = _read_only_write(writes)
        entries, empty_count = {read_key(keys[0]): row}, int(row[4] is None)
    else:
        read_ordered_keys(keys, "the keys of a map")
        rows, empty_count = _read_writes(writes)
        entries = dict(zip(keys, rows, strict=True))
        require(len(entries) == len(keys), "the keys of a map must be there once each")
    if not read_rows(counts, "the counts of a map"):
        return entries, empty_count
    counted = []
    for told in counts:
        key, changes_wire = read_rows(told, "a row of counts", count=2)
        changes = _changes_from_wire(changes_wire, b"")
        require(len(changes) > 0, "a row that tells nothing")
        counted.append((key, changes))
    read_key_set([key for key, _ in counted], "the counts of a map")
    for key, changes in counted:
        require(key not in entries, "a key with a write and with counts")
        entries[key] = counts_alone(changes)
    return entries, empty_count + len(counted)


def _read_only_write(writes: Sequence[Any]) -> Row:
    """Read the row of a map with one write, as most deltas are: `_read_writes` in fewer calls."""
    actors_wire, base_wire, _, numbers, payloads, changes_wires = writes
    actor = read_actor(read_rows(actors_wire, "the actors of one write", count=1)[0])
    wall_ms = read_integer(base_wire, "the earliest milliseconds", maximum=STAMP_MS_MAX)
    columns = read_rows(numbers, "the numbers of a map", count=len(_COLUMNS))
    position, after, logicals, sequences = columns
    require(position == _ZERO and after == _ZERO, "one write is the first actor's, and earliest")
    logical = read_column(logicals, "logicals", 1, maximum=STAMP_LOGICAL_MAX)[0]
    sequence = read_column(sequences, "sequences", 1, maximum=COUNT_MAX)[0]
    payload = read_rows(payloads, "values", count=1)[0]
    if payload is not None:
        read_payload(payload)
    changes = _changes_from_wire(read_rows(changes_wires, "changes", count=1)[0], actor)
    return wall_ms, logical, actor, sequence, payload, changes


def _read_writes(writes: Sequence[Any]) -> tuple[Iterable[Row], int]:
    """Check the columns, and return the rows they hold, and the number of removals."""
    actors_wire, base_wire, keys, numbers, payloads, changes_wires = writes
    count = len(keys)
    actors = [read_actor(actor) for actor in read_rows(actors_wire, "the actors of a map")]
    if len(actors) > ACTORS_MAX:
        raise LimitExceeded("actors of a map", size=len(actors), limit=ACTORS_MAX)
    require(actors == sorted(set(actors)), "the actors of a map must be sorted, each once")
    base_ms = read_integer(base_wire, "the earliest milliseconds", maximum=STAMP_MS_MAX)
    maxima = (len(actors) - 1, STAMP_MS_MAX - base_ms, STAMP_LOGICAL_MAX, COUNT_MAX)
    numbers = read_rows(numbers, "the numbers of a map", count=len(_COLUMNS))
    columns = [
        read_column(column, what, count, maximum=maximum)
        for column, what, maximum in zip(numbers, _COLUMNS, maxima, strict=True)
    ]
    positions, after, logicals, sequences = columns
    # None of them is over the last actor's, so all are there when no actor's is missing.
    # One byte cannot be searched for a larger number.
    is_narrow = is_packed(positions) and len(actors) <= 256
    used = positions if is_narrow else set(positions)
    require(all(map(used.__contains__, range(len(actors)))), "an actor without a write")
    require(0 in after if count else base_ms == 0, "the earliest milliseconds must be a write's")
    payloads, removal_count = read_payloads(payloads, count)
    changes = _read_changes(changes_wires, positions, actors)
    walls = [base_ms + ms for ms in after]
    writers = _at(positions, actors)
    return zip(walls, logicals, writers, sequences, payloads, changes, strict=True), removal_count


def _at(positions: Sequence[int], values: Sequence[ValueT]) -> Iterable[ValueT]:
    """Return the value of each position; without looking each up where there is one alone."""
    if len(values) == 1:
        return repeat(values[0], len(positions))
    return map(values.__getitem__, positions)


def _read_changes(
    wire: Any, positions: Sequence[int], actors: Sequence[ActorId]
) -> Iterable[Changes]:
    """Read the changes of each entry; equal ones, which most are, share one tuple."""
    wires = read_rows(wire, "changes", count=len(positions))
    if not wires or not are_integers(wires):
        return [
            _changes_from_wire(each, actors[position])
            for each, position in zip(wires, positions, strict=True)
        ]
    count = wires[0]
    if wires.count(count) == len(wires):
        by_writer = [_changes_from_wire(count, actor) for actor in actors]
        return _at(positions, by_writer)
    # A count and who made it, as one number: equal ones are told without a tuple for each.
    told = wires
    if len(actors) > 1:
        pairs = zip(wires, positions, strict=True)
        told = [each * len(actors) + position for each, position in pairs]
    shared = {
        number: _changes_from_wire(number // len(actors), actors[number % len(actors)])
        for number in set(told)
    }
    return map(shared.__getitem__, told)
