"""Frames: what one node sends to another at once.

Layout, format version 2:

    2 bytes    magic `MS`
    1 byte     format version
    8 bytes    XXH3-64 of the body, big endian: damage on the way is seen before anything is read
    the body   msgpack: [cluster, name, incarnation, actor, address, flags, stored at,
               [message bytes, ...]]

The flags are 1 for a sender that is ready, 2 for one that is about to leave and 4 for one that
began alone and has found no cluster since; `stored at` is of when the state is that the sender
began with.

Rule: the exact size of a frame is accounted for in this file alone (`FrameWriter`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import ClusterMismatch, DecodeError, RejectReason, VersionMismatch
from meshlib.gossip.messages.fields import check_identity
from meshlib.gossip.messages.kinds import Message, decode_message
from meshlib.hashing import hash64
from meshlib.identity import ActorId
from meshlib.limits import CLUSTER_NAME_BYTES_MAX, FRAME_BYTES_MAX, MEMBERS_MAX
from meshlib.reading import (
    are_plain,
    read_actor,
    read_address,
    read_bytes,
    read_incarnation,
    read_integer,
    read_name,
    read_row,
    read_rows,
    read_text,
    read_tree,
    require,
)

__all__ = ["FORMAT_VERSION", "Frame", "FrameHeader", "FrameWriter", "decode_frame"]

MAGIC = b"MS"
FORMAT_VERSION = 2
PREFIX_BYTES = 11
MESSAGE_OVERHEAD_BYTES = 5
"""The most that msgpack puts before a run of bytes."""

MESSAGES_MAX = 65_536

READY = 1
LEAVING = 2
ALONE = 4


@frozen(slots=True)
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
            1970 by its wall clock; 0 when it began with nothing.
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


@frozen(slots=True)
class Frame:
    """A checked frame."""

    header: FrameHeader
    messages: tuple[Message, ...]


class FrameWriter:
    """Pack messages into as few frames as their size allows.

    Args:
        header: of every frame.
        bytes_max: a frame is closed before it would pass this; one message alone may need
            more, up to the frame limit.
    """

    __slots__ = ("_bytes_max", "_frames", "_header", "_messages", "_overhead", "_size")

    def __init__(self, header: FrameHeader, *, bytes_max: int) -> None:
        self._header = (
            header.cluster, header.name, header.incarnation, header.actor, header.address,
            READY * header.is_ready + LEAVING * header.is_leaving + ALONE * header.is_alone,
            header.stored_at_ms,
        )  # fmt: skip
        self._overhead = PREFIX_BYTES + len(pack(self._header)) + MESSAGE_OVERHEAD_BYTES
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
        if self._messages and self._size + size > self._bytes_max:
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
        body: bytes = pack((*self._header, self._messages))
        checksum = hash64(body).to_bytes(8, "big")
        self._frames.append(MAGIC + bytes((FORMAT_VERSION,)) + checksum + body)
        self._messages = []
        self._size = self._overhead


# By type as well: True and 1.0 equal 1, and are not what is written. What is refused is not kept.
@lru_cache(maxsize=MEMBERS_MAX, typed=True)
def _read_header(
    cluster: str, name: Any, incarnation: Any, actor: Any, address: Any,
    flags: Any, stored_at_ms: Any,
) -> FrameHeader:  # fmt: skip
    """Read a header; a peer's frames have one until it refutes or its flags change."""
    told = read_integer(flags, "the flags of a header", maximum=READY | LEAVING | ALONE)
    header = FrameHeader(
        cluster=cluster,
        name=read_name(name, "the sender's name"),
        incarnation=read_incarnation(incarnation),
        actor=read_actor(actor),
        address=read_address(address),
        is_ready=bool(told & READY),
        is_leaving=bool(told & LEAVING),
        is_alone=bool(told & ALONE),
        stored_at_ms=read_integer(stored_at_ms, "when a state was stored"),
    )
    check_identity(header.actor, header.name, header.incarnation)
    return header


def decode_frame(data: bytes, *, cluster: str) -> Frame:
    """Check and read one frame. O(size).

    Args:
        data: what came.
        cluster: this node's cluster.

    Raises:
        DecodeError: truncated, damaged or malformed, whole or in any message.
        VersionMismatch: another format version.
        ClusterMismatch: another cluster's frame.
        LimitExceeded: a field over its limit.
    """
    if len(data) > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame of {len(data):,} bytes", reason=RejectReason.LIMIT)
    if len(data) < PREFIX_BYTES or data[:2] != MAGIC:
        raise DecodeError("not a frame")
    if data[2] != FORMAT_VERSION:
        raise VersionMismatch("frame format", ours=FORMAT_VERSION, theirs=data[2])
    body = data[PREFIX_BYTES:]
    if hash64(body).to_bytes(8, "big") != data[3:PREFIX_BYTES]:
        raise DecodeError("the checksum does not fit", reason=RejectReason.CHECKSUM)
    tree = read_row(read_tree(body), "a frame", 8)
    require(are_plain(tree[:7]), "the fields of a header must hold nothing inside")
    theirs = read_text(tree[0], "the cluster's name", bytes_max=CLUSTER_NAME_BYTES_MAX)
    if theirs != cluster:
        raise ClusterMismatch(ours=cluster, theirs=theirs)
    header = _read_header(*tree[:7])
    messages = tuple(
        decode_message(read_bytes(item, "a message"))
        for item in read_rows(tree[7], "the messages", count_max=MESSAGES_MAX)
    )
    return Frame(header, messages)
