"""Frames: what one node sends to another at once.

Layout:

    2 bytes    magic `MS`
    1 byte     six bits: the format that the frame is in; one bit: whether its sender speaks the
               format before as well; one bit: whether it speaks the one after
    8 bytes    XXH3-64 of the body, big endian, with the byte before it as its seed: damage on the
               way is seen before anything is read
    the body   msgpack: [cluster, name, incarnation, address, flags, raised by, stored at,
               [message bytes, ...]], where of the last three those are left out that are 0 and
               have nothing but zeros behind them

The flags are 1 for a sender that is ready, 2 for one that is about to leave and 4 for one that
began alone and has found no cluster since. The incarnation is `raised by` so much above the one
that the sender began with, which with its name makes the actor that it is (`identity.py`).
`stored at` is of when the state is that the sender began with.

Rules: the exact size of a frame is accounted for in this file alone (`FrameWriter`). The first 11
bytes are laid out so in every format there will ever be: whoever cannot read a frame learns from
it what its sender speaks. The body is its format's affair (`dialects.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from attrs import define, frozen

from meshlib.codec import pack
from meshlib.errors import ClusterMismatch, DecodeError, RejectReason, VersionMismatch
from meshlib.gossip.messages.dialects import DIALECTS, Dialect
from meshlib.gossip.messages.kinds import Message
from meshlib.hashing import hash64
from meshlib.identity import INCARNATION_SPAN, ActorId, actor_id, actor_incarnation
from meshlib.limits import (
    CLUSTER_NAME_BYTES_MAX,
    FORMAT_MAX,
    FORMAT_NEWEST,
    FORMATS,
    FRAME_BYTES_MAX,
    MEMBERS_MAX,
)
from meshlib.reading import (
    are_plain,
    read_actor,
    read_address,
    read_bytes,
    read_incarnation,
    read_integer,
    read_name,
    read_rows,
    read_text,
    read_tree,
    require,
)

__all__ = ["FORMAT_VERSION", "Frame", "FrameHeader", "FrameWriter", "decode_frame", "seal"]

MAGIC = b"MS"
FORMAT_VERSION: Final = FORMAT_NEWEST
HEADER_FIELDS: Final = 7
HEADER_FIELDS_MIN: Final = 4
"""Those of a header that are never left out."""

PREFIX_BYTES = 11
MESSAGE_OVERHEAD_BYTES = 5
"""The most that msgpack puts before a run of bytes."""

MESSAGES_MAX: Final = 256
"""In one frame. A frame is handled at one go: what it asks for must not hold the loop."""

HEADERS_KEPT_MAX: Final = 256
"""Own headers that are kept laid out: one for each node of a process and format."""

READY = 1
LEAVING = 2
ALONE = 4


@frozen(slots=True, cache_hash=True)
class FrameHeader:
    """Who sent a frame.

    Args:
        cluster: the cluster's name.
        name: the sender's name.
        incarnation: the sender's incarnation now.
        actor: the writer that the sender is.
        address: where the sender is reached.
        is_ready: whether the sender held what its cluster held, before it made any of the
            messages: see `entries/beginning.py`.
        is_leaving: whether the sender is about to leave.
        is_alone: whether the sender began with nobody else there, and has not taken the state of
            anybody since.
        stored_at_ms: of when the state is that the sender began with, in milliseconds since
            1970 by its wall clock; 0 when it began with nothing, and when it is ready.
    """

    cluster: str
    name: str
    incarnation: int
    actor: ActorId
    address: str
    is_ready: bool = False
    is_leaving: bool = False
    is_alone: bool = False
    stored_at_ms: int = 0


@define(slots=True)
class Frame:
    """A checked frame. Not frozen: one is made of each that comes, and that takes its time.

    Args:
        header: who sent it.
        messages: what it says, in order.
        formats: the oldest and the newest format that its sender speaks.
        skipped_count: messages of a sender that is a version ahead of which something was not
            known here, and was passed over.
    """

    header: FrameHeader
    messages: tuple[Message, ...]
    formats: tuple[int, int] = FORMATS
    skipped_count: int = 0


def seal(body: bytes, version: int, formats: tuple[int, int]) -> bytes:
    """Put before a frame's body what every frame begins with. O(size).

    Args:
        body: the packed fields.
        version: the format that it is in.
        formats: what its sender speaks.
    """
    told, start = _told(version, formats)
    return start + hash64(body, told).to_bytes(8, "big") + body


@lru_cache(maxsize=FORMAT_MAX)
def _told(version: int, formats: tuple[int, int]) -> tuple[int, bytes]:
    """Return what the third byte of a frame tells, and the first three."""
    told = version << 2 | (formats[0] < version) << 1 | (formats[1] > version)
    return told, MAGIC + bytes((told,))


@lru_cache(maxsize=HEADERS_KEPT_MAX)
def _lay_out(header: FrameHeader, dialect: Dialect) -> bytes:
    """Return a body up to its messages. A node has one header for long."""
    more = dialect.header_fields
    fields: Sequence[Any] = (
        header.cluster, header.name, header.incarnation, header.address,
        READY * header.is_ready + LEAVING * header.is_leaving + ALONE * header.is_alone,
        header.incarnation - actor_incarnation(header.actor),
        header.stored_at_ms,
    )  # fmt: skip
    fields = (*fields, *(field.value for field in more)) if more else _without_zeros(fields)
    packed: bytes = pack((*fields, 0))
    return packed[:-1]  # without the number that stood where the messages do


def _without_zeros(fields: Sequence[Any]) -> Sequence[Any]:
    """Return the fields of a header without what is 0 at their end and may be left out."""
    count = len(fields)
    while count > HEADER_FIELDS_MIN and fields[count - 1] == 0:
        count -= 1
    return fields[:count]


class FrameWriter:
    """Pack messages into as few frames as their size allows.

    Args:
        header: of every frame.
        bytes_max: a frame is closed before it would pass this; one message alone may need
            more, up to the frame limit. It is closed as well once it has `MESSAGES_MAX` of them.
        dialect: of the messages that will be added; that of the newest format without one.
        formats: what the sender speaks.
    """

    __slots__ = (
        "_bytes_max",
        "_formats",
        "_frames",
        "_header",
        "_messages",
        "_overhead",
        "_size",
        "_version",
    )

    def __init__(
        self,
        header: FrameHeader,
        *,
        bytes_max: int,
        dialect: Dialect = DIALECTS[FORMAT_NEWEST],
        formats: tuple[int, int] = FORMATS,
    ) -> None:
        self._version = dialect.version
        self._formats = formats
        self._header = _lay_out(header, dialect)
        self._overhead = PREFIX_BYTES + len(self._header) + MESSAGE_OVERHEAD_BYTES
        self._bytes_max = bytes_max
        self._frames: list[bytes] = []
        self._messages: list[bytes] = []
        self._size = self._overhead

    def add(self, message: bytes) -> bool:
        """Add one packed message. O(1).

        Returns:
            False when it cannot fit any frame; it was then not added.
        """
        size = len(message) + MESSAGE_OVERHEAD_BYTES
        if self._overhead + size > FRAME_BYTES_MAX:
            return False
        count = len(self._messages)
        if count and (self._size + size > self._bytes_max or count == MESSAGES_MAX):
            self._close()
        self._messages.append(message)
        self._size += size
        return True

    def frames(self) -> list[bytes]:
        """Return the finished frames. O(size)."""
        if self._messages:
            self._close()
        frames, self._frames = self._frames, []
        return frames

    def _close(self) -> None:
        body = self._header + pack(self._messages)
        self._frames.append(seal(body, self._version, self._formats))
        self._messages = []
        self._size = self._overhead


# By type as well: True and 1.0 equal 1, and are not what is written. What is refused is not kept.
@lru_cache(maxsize=MEMBERS_MAX, typed=True)
def _read_header(
    cluster: str, name: Any, incarnation: Any, address: Any, *more: Any
) -> FrameHeader:  # fmt: skip
    """Read a header; a peer's frames have one until it refutes or its flags change."""
    require(not more or more[-1] != 0, "what is 0 at the end of a header must be left out")
    flags, raised_by, stored_at_ms = (*more, 0, 0, 0)[: HEADER_FIELDS - HEADER_FIELDS_MIN]
    name = read_name(name, "the sender's name")
    incarnation = read_incarnation(incarnation)
    raised_max = min(incarnation, INCARNATION_SPAN - 1)
    raised_by = read_integer(raised_by, "what an incarnation is raised by", maximum=raised_max)
    told = read_integer(flags, "the flags of a header", maximum=READY | LEAVING | ALONE)
    return FrameHeader(
        cluster=cluster,
        name=name,
        incarnation=incarnation,
        actor=read_actor(actor_id(name, incarnation - raised_by)),
        address=read_address(address),
        is_ready=bool(told & READY),
        is_leaving=bool(told & LEAVING),
        is_alone=bool(told & ALONE),
        stored_at_ms=read_integer(stored_at_ms, "when a state was stored"),
    )


def _check_header(fields: Sequence[Any], dialect: Dialect, cluster: str) -> FrameHeader:
    """Check and read what stands before the messages; of another cluster, nothing but its name."""
    require(are_plain(fields), "the fields of a header must hold nothing inside")
    named = read_text(fields[0], "the cluster's name", bytes_max=CLUSTER_NAME_BYTES_MAX)
    if named != cluster:
        raise ClusterMismatch(ours=cluster, theirs=named)
    more = dialect.header_fields
    if more:
        require(len(fields) == HEADER_FIELDS + len(more), "a header must have all its fields")
        for field, told in zip(more, fields[HEADER_FIELDS:], strict=True):
            field.read(told)
        fields = _without_zeros(fields[:HEADER_FIELDS])
    else:
        require(len(fields) <= HEADER_FIELDS, "a header must have no more than its fields")
    return _read_header(*fields)


def decode_frame(data: bytes, *, cluster: str, formats: tuple[int, int] = FORMATS) -> Frame:
    """Check and read one frame. O(size).

    Args:
        data: what came.
        cluster: this node's cluster.
        formats: the oldest and the newest format that this node speaks.

    Raises:
        DecodeError: truncated, damaged or malformed, whole or in any message.
        VersionMismatch: in a format that this node does not speak.
        ClusterMismatch: another cluster's frame.
        LimitExceeded: a field over its limit.
    """
    if len(data) > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame of {len(data):,} bytes", reason=RejectReason.LIMIT)
    if len(data) < PREFIX_BYTES or data[:2] != MAGIC:
        raise DecodeError("not a frame")
    body = data[PREFIX_BYTES:]
    told, newest = data[2], formats[1]
    is_whole = hash64(body, told).to_bytes(8, "big") == data[3:PREFIX_BYTES]
    version = told >> 2
    theirs = version - (told >> 1 & 1), version + (told & 1)
    if not formats[0] <= version <= newest:
        raise VersionMismatch(
            "frame format", ours=newest, theirs=version, peer_formats=theirs if is_whole else None
        )
    if not is_whole:
        raise DecodeError("the checksum does not fit", reason=RejectReason.CHECKSUM)
    dialect = DIALECTS[version]
    tree = read_rows(read_tree(body), "a frame")
    require(len(tree) > HEADER_FIELDS_MIN, "a frame must have a header and messages")
    header = _check_header(tree[:-1], dialect, cluster)
    rows = read_rows(tree[-1], "the messages", count_max=MESSAGES_MAX)
    if theirs[1] > newest:
        return _read_from_newer(header, rows, dialect, theirs)
    decode = dialect.decode_message
    messages = tuple([decode(read_bytes(item, "a message")) for item in rows])
    return Frame(header, messages, theirs)


def _read_from_newer(
    header: FrameHeader, rows: Sequence[Any], dialect: Dialect, formats: tuple[int, int]
) -> Frame:
    """Read what a sender says that is a version ahead; what is not known here is passed over."""
    messages: list[Message] = []
    skipped_count = 0
    for item in rows:
        message, is_skipped = dialect.decode_from_newer(read_bytes(item, "a message"))
        skipped_count += is_skipped
        if message is not None:
            messages.append(message)
    return Frame(header, tuple(messages), formats, skipped_count)
