"""The fields of messages: each kind of field says how it is read, and how it is written.

How fields fit together is checked by the message that has them. What a node compares with what it
knows (whether a sender is who it says) is no question of form, and is asked where it is used.

A message is a frozen record; each of its fields carries a kind in its metadata, and `Layout`
reads and writes the fields in their order. What is read is asked for by `meshlib.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import attrs

from meshlib.errors import DecodeError, LimitExceeded
from meshlib.identity import ActorId, is_start_of
from meshlib.limits import (
    ACTORS_MAX,
    DOCUMENT_NAME_BYTES_MAX,
    ENTRY_BYTES_MAX,
    FORMAT_MAX,
    FRAME_BYTES_MAX,
    HOLES_MAX,
    MEMBERS_MAX,
    NODE_NAME_BYTES_MAX,
    WRITES_MAX,
)
from meshlib.membership import VERSION_MAX, MemberRecord, MemberStatus
from meshlib.reading import (
    STAMP_MS_MAX,
    are_plain,
    is_row,
    read_actor,
    read_address,
    read_bool,
    read_bytes,
    read_hash,
    read_incarnation,
    read_integer,
    read_name,
    read_row,
    read_rows,
    read_text,
    read_vector,
    read_writer,
    require,
)
from meshlib.replication import Hole, LogEntry, ShortEntry, marked_number

__all__ = [
    "ADDRESS",
    "DOCUMENT",
    "ENTRIES",
    "GAPS",
    "HASH",
    "HASH_OR_NONE",
    "INCARNATION",
    "MEMBER",
    "MEMBERS",
    "NAME",
    "NAME_OR_EMPTY",
    "NAME_OR_NONE",
    "NUMBER",
    "PAYLOAD",
    "TRUTH",
    "VECTOR",
    "VECTOR_OR_NONE",
    "WALL_MS",
    "Layout",
    "check_identity",
    "kind",
    "list_of",
    "record_from_wire",
    "record_to_wire",
]

T = TypeVar("T")

_KIND: Final = "wire"

_STATUS_CODES = {
    MemberStatus.ALIVE: 0,
    MemberStatus.SUSPECTED: 1,
    MemberStatus.DOWN: 2,
    MemberStatus.LEAVING: 3,
}
_STATUSES = tuple(_STATUS_CODES)

STATE_MAX: Final = FORMAT_MAX << 3 | 7
"""The largest status and formats; see `_state_code`."""


@attrs.frozen(slots=True)
class _Kind:
    """How one kind of field travels.

    Args:
        read: checks what came and returns the value, or raises a `RemoteError`.
        write: lays a value out as a tree; None: it is one already.
        width: how many places it takes; with several, `read` is given a tuple of them and
            `write` returns one.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] | None = None
    width: int = 1


def kind(
    read: Callable[[Any], Any], write: Callable[[Any], Any] | None = None, *, width: int = 1
) -> dict[str, _Kind]:
    """Make the metadata of a field: how it is read, and how it is written if it is no tree."""
    return {_KIND: _Kind(read, write, width)}


class Layout(Generic[T]):
    """Reads and writes the fields of one record class, in their order. O(size).

    Args:
        record: the class; each of its fields carries a `kind`. A method `check_read`, when it
            has one, is called on what was read, for what one field alone does not show.
    """

    __slots__ = ("_check", "_get", "_readers", "_record", "_wide", "_write", "_writers", "width")

    def __init__(self, record: type[T]) -> None:
        fields = attrs.fields(record)  # type: ignore[arg-type]
        kinds: list[_Kind] = [field.metadata[_KIND] for field in fields]
        names = [field.name for field in fields]
        self._record = record
        self.width: Final = sum(kind.width for kind in kinds)
        """How many places the fields of a record take."""
        self._get: Callable[[T], Any] = attrgetter(*names) if len(names) > 1 else _getter(names)
        self._readers = tuple(kind.read for kind in kinds)
        # From the last to the first, so that a wide one moves none that is still to be written.
        self._writers = tuple(
            (place, kind.write, kind.width > 1)
            for place, kind in reversed(list(enumerate(kinds)))
            if kind.write is not None
        )
        self._wide = tuple((place, k.width) for place, k in enumerate(kinds) if k.width > 1)
        self._check: Callable[[T], None] | None = getattr(record, "check_read", None)
        self._write = self._write_all if self._writers else self._get

    @property
    def write(self) -> Callable[[T], Sequence[Any]]:
        """What lays out the fields of a record."""
        return self._write

    def _write_all(self, record: T) -> Sequence[Any]:
        tree = [*self._get(record)]
        for place, write, is_wide in self._writers:
            if is_wide:
                tree[place : place + 1] = write(tree[place])
            else:
                tree[place] = write(tree[place])
        return tree

    def read(self, fields: Sequence[Any]) -> T:
        """Check the fields and make the record.

        Raises:
            DecodeError: too few or too many fields, or one that its kind refuses.
            LimitExceeded: a field over its limit.
        """
        if len(fields) != self.width:
            raise DecodeError(f"expected {self.width} fields, not {len(fields)}")
        for place, width in self._wide:
            fields = (*fields[:place], fields[place : place + width], *fields[place + width :])
        record = self._record(
            *[read(field) for read, field in zip(self._readers, fields, strict=True)]
        )
        if self._check is not None:
            self._check(record)
        return record


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what `attrgetter` does for several names, for one or none."""
    if not names:
        return lambda _record: ()
    get = attrgetter(names[0])
    return lambda record: (get(record),)


# What fields may be


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read_if_there(wire: Any) -> Any:
        return None if wire is None else read(wire)

    return read_if_there


def list_of(
    read: Callable[[Any], Any],
    write: Callable[[Any], Any] | None = None,
    *,
    what: str,
    count_max: int,
) -> dict[str, _Kind]:
    """Make the metadata of a field that holds up to `count_max` things of one kind, in order."""

    def read_list(wire: Any) -> tuple[Any, ...]:
        return tuple(map(read, read_rows(wire, what, count_max=count_max)))

    if write is None:
        return kind(read_list)
    return kind(read_list, lambda items: [write(item) for item in items])


def record_to_wire(record: MemberRecord) -> tuple[Any, ...]:
    """Lay out one member record."""
    return (
        record.name, record.incarnation, _state_code(record), record.address,
        record.actor, record.region, record.zone, record.version,
    )  # fmt: skip


def _state_code(record: MemberRecord) -> int:
    """Return the status and the formats of a member as one number, of one byte as a rule.

    Four times twice its newest format, or one more if it speaks the one before, and the status.
    """
    oldest, newest = record.formats
    return (newest << 1 | (oldest < newest)) << 2 | _STATUS_CODES[record.status]


def record_from_wire(wire: Any) -> MemberRecord:
    """Check and read one member record.

    Its parts must fit each other, so that no damage to one of them makes a member that is not
    there: the actor names the node and the incarnation of its start.
    """
    fields = read_row(wire, "a member", 8)
    require(are_plain(fields), "the fields of a member must hold nothing inside")
    return _read_record(*fields)


# By type as well: True and 1.0 equal 1, and are not what is written. What is refused is not kept.
@lru_cache(maxsize=MEMBERS_MAX, typed=True)
def _read_record(
    name: Any, incarnation: Any, state: Any, address: Any,
    writer: Any, region: Any, zone: Any, version: Any,
) -> MemberRecord:  # fmt: skip
    """Read a record; the same ones come again and again, and one object does for all of them."""
    told = read_integer(state, "the state of a member", minimum=16, maximum=STATE_MAX)
    newest = told >> 3
    record = MemberRecord(
        name=read_name(name, "the name of a member"),
        incarnation=read_incarnation(incarnation),
        status=_STATUSES[told & 3],
        address=read_address(address),
        actor=read_actor(writer),
        region=read_text(region, "a region", bytes_max=NODE_NAME_BYTES_MAX),
        zone=read_text(zone, "a zone", bytes_max=NODE_NAME_BYTES_MAX),
        version=read_integer(version, "a version", minimum=1, maximum=VERSION_MAX),
        formats=(newest - (told >> 2 & 1), newest),
    )
    check_identity(record.actor, record.name, record.incarnation)
    return record


def check_identity(actor: ActorId, name: str, incarnation: int) -> None:
    """Check that an actor, a name and an incarnation that came together are of one node.

    Raises:
        DecodeError: they are not.
    """
    if not is_start_of(actor, name=name, incarnation=incarnation):
        raise DecodeError("an actor that is no start of the node at this incarnation")


def _vector_to_wire(vector: Mapping[ActorId, int]) -> list[Any]:
    """Lay out a version vector: actors and numbers in turn, sorted."""
    flat: list[Any] = []
    for writer in sorted(vector):
        flat += (writer, vector[writer])
    return flat


def _vector_or_none_to_wire(vector: Mapping[ActorId, int] | None) -> list[Any] | None:
    return None if vector is None else _vector_to_wire(vector)


def _entry_to_wire(entry: LogEntry | ShortEntry) -> tuple[Any, ...]:
    content: Any
    if isinstance(entry, LogEntry):
        content = entry.delta
    else:
        content = (entry.rest, entry.digest, *(each for hole in entry.holes for each in hole))
    return (entry.actor, entry.first, entry.last, entry.document, content)


def _entry_from_wire(wire: Any) -> LogEntry | ShortEntry:
    writer, first, last, document, content = read_row(wire, "an entry", 5)
    actor = read_writer(writer)
    lowest = read_integer(first, "the first number of an entry", minimum=1, maximum=WRITES_MAX)
    highest = read_integer(last, "the last of an entry", minimum=lowest, maximum=WRITES_MAX)
    document = read_text(document, "a document", bytes_max=DOCUMENT_NAME_BYTES_MAX)
    if is_row(content):
        rest, digest, holes = _short_from_wire(content)
        return ShortEntry(actor, lowest, highest, document, rest, digest, holes)
    delta = read_bytes(content, "the delta of an entry", bytes_max=ENTRY_BYTES_MAX)
    return LogEntry(actor, lowest, highest, document, delta)


def _short_from_wire(wire: Any) -> tuple[bytes, int, tuple[Hole, ...]]:
    """Read what is left of an entry, the hash of all of it, and what was left out."""
    row = read_rows(wire, "what is left of an entry")
    require(len(row) >= 6, "what is left of an entry has holes")
    rest, digest, *numbers = row
    rest = read_bytes(rest, "what is left of an entry", bytes_max=ENTRY_BYTES_MAX)
    require(len(numbers) % 4 == 0, "holes must come in fours")
    if len(numbers) > 4 * HOLES_MAX:
        raise LimitExceeded("holes", size=len(numbers) // 4, limit=HOLES_MAX)
    holes, left = list[Hole](), len(rest)
    for after, name, start, end in zip(*[iter(numbers)] * 4, strict=True):
        read_integer(after, "where a hole is", maximum=left)
        left -= after
        read_integer(start, "the beginning of a hole", maximum=ENTRY_BYTES_MAX)
        read_integer(end, "the end of a hole", minimum=start + 1, maximum=ENTRY_BYTES_MAX)
        holes.append(Hole(after, read_hash(name), start, end))
    return rest, read_hash(digest), tuple(holes)


def _gap_from_wire(wire: Any) -> tuple[ActorId, int, int]:
    writer, first, last = read_row(wire, "a gap", 3)
    lowest = read_integer(first, "the first number of a gap", minimum=1, maximum=WRITES_MAX)
    highest = read_integer(last, "the last of a gap", minimum=lowest, maximum=WRITES_MAX)
    return read_writer(writer), lowest, highest


def _name(wire: Any) -> str:
    return read_name(wire, "a name")


def _name_or_empty(wire: Any) -> str:
    return read_text(wire, "a name", bytes_max=NODE_NAME_BYTES_MAX)


def _document(wire: Any) -> str:
    return read_text(wire, "a document", bytes_max=DOCUMENT_NAME_BYTES_MAX)


def _payload(wire: Any) -> bytes:
    return read_bytes(wire, "a payload")


def _vector(wire: Any, *, minimum: int = 0) -> dict[ActorId, int]:
    """Read a vector: numbers of writes, and marks of forgotten writers with theirs."""
    vector = read_vector(wire, minimum=minimum)
    if vector and max(vector.values()) > WRITES_MAX:
        for number in vector.values():
            require(marked_number(number) <= WRITES_MAX, "a number of a vector is no writer's")
    return vector


def _vector_of_state(wire: Any) -> dict[ActorId, int]:
    return _vector(wire, minimum=1)


def _wall_ms(wire: Any) -> int:
    return read_integer(wire, "a wall clock", maximum=STAMP_MS_MAX)


NUMBER: Final = kind(read_integer)
WALL_MS: Final = kind(_wall_ms)
INCARNATION: Final = kind(read_incarnation)
HASH: Final = kind(read_hash)
HASH_OR_NONE: Final = kind(_or_none(read_hash))
TRUTH: Final = kind(read_bool)
NAME: Final = kind(_name)
NAME_OR_EMPTY: Final = kind(_name_or_empty)
NAME_OR_NONE: Final = kind(_or_none(_name_or_empty))
ADDRESS: Final = kind(read_address)
DOCUMENT: Final = kind(_document)
PAYLOAD: Final = kind(_payload)
VECTOR: Final = kind(_vector, _vector_to_wire)
VECTOR_OR_NONE: Final = kind(_or_none(_vector_of_state), _vector_or_none_to_wire)
MEMBER: Final = kind(record_from_wire, record_to_wire)
MEMBERS: Final = list_of(record_from_wire, record_to_wire, what="members", count_max=MEMBERS_MAX)
ENTRIES: Final = list_of(
    _entry_from_wire, _entry_to_wire, what="entries", count_max=FRAME_BYTES_MAX
)
GAPS: Final = list_of(_gap_from_wire, what="gaps", count_max=ACTORS_MAX)
