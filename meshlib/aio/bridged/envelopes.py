"""Envelopes: a frame on its way to another region.

Layout, numbers big endian:

    2 bytes    magic `MB`: a frame of a node begins with `MS`
    1 byte     version, 1
    1 byte     kind, see `Kind`
    1 byte     part, see `Part`
    4 bytes    number of the frame, which its parts have in common
    2 bytes    size of the destination
    2 bytes    size of the origin
    the destination and the origin, addresses in ASCII; then the frame, or this part of it

Rules: a kind says which leg of the way it is, each bridge makes the next leg of it, and after the
third there is none: whatever nodes believe of each other's regions, nothing travels for longer.
A frame that fits a frame no more with its envelope around goes in two parts.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from enum import IntEnum
from typing import Final

from attrs import frozen

from meshlib.limits import ADDRESS_BYTES_MAX, FRAME_BYTES_MAX

__all__ = ["Envelope", "Kind", "Part", "Parts", "is_envelope", "put_in", "read_envelope", "turned"]

MAGIC: Final = b"MB"
VERSION: Final = 1
_HEAD: Final = struct.Struct(">2sBBBIHH")
_KIND_AT: Final = 3

PARTS_MAX: Final = 16
"""First parts that wait for the second: 8 MiB at most, and less than a link's own order needs."""


class Kind(IntEnum):
    """What an envelope is for."""

    OUT = 1
    """The first leg: from a node to a bridge of its own region."""

    ACROSS = 2
    """The second: from there to a bridge of the other region."""

    IN = 3
    """The third: from there to the node that it is for."""

    NO_WAY = 4
    """From a bridge to a node of its region: it has no way to the region named in it."""

    DIRECT = 5
    """One link only, for a frame that begins as an envelope does."""


class Part(IntEnum):
    """Which part of a frame is in an envelope."""

    WHOLE = 0
    FIRST = 1
    LAST = 2


@frozen(slots=True)
class Envelope:
    """One envelope, opened.

    Args:
        kind: what it is for.
        part: which part of the frame is in it.
        number: of the frame.
        destination: the address that it is for.
        origin: the address that it is from, as the sender says.
        frame: what is in it.
    """

    kind: Kind
    part: Part
    number: int
    destination: str
    origin: str
    frame: bytes


def is_envelope(data: bytes) -> bool:
    """Tell whether what came is an envelope, and no frame of a node."""
    return data.startswith(MAGIC)


def put_in(
    frame: bytes, *, kind: Kind, destination: str = "", origin: str = "", number: int = 0
) -> list[bytes]:
    """Put a frame of at most `FRAME_BYTES_MAX` in an envelope, or in two. O(size)."""
    ends = destination.encode("ascii") + origin.encode("ascii")

    def envelope(part: Part, content: bytes) -> bytes:
        head = _HEAD.pack(MAGIC, VERSION, kind, part, number, len(destination), len(origin))
        return b"".join((head, ends, content))

    if _HEAD.size + len(ends) + len(frame) <= FRAME_BYTES_MAX:
        return [envelope(Part.WHOLE, frame)]
    half = len(frame) // 2
    return [envelope(Part.FIRST, frame[:half]), envelope(Part.LAST, frame[half:])]


def read_envelope(data: bytes) -> Envelope | None:
    """Open an envelope; None for what is none. O(size)."""
    if len(data) < _HEAD.size:
        return None
    magic, version, kind, part, number, *sizes = _HEAD.unpack_from(data)
    at = _HEAD.size + sizes[0]
    ends_at = at + sizes[1]
    is_sized = len(data) > ends_at and max(sizes) <= ADDRESS_BYTES_MAX
    if magic != MAGIC or version != VERSION or not is_sized:
        return None
    try:
        destination = data[_HEAD.size : at].decode("ascii")
        origin = data[at:ends_at].decode("ascii")
        return Envelope(Kind(kind), Part(part), number, destination, origin, data[ends_at:])
    except ValueError:  # of both: UnicodeDecodeError is one
        return None


def turned(data: bytes, kind: Kind) -> bytes:
    """Return an envelope as it goes on its next leg. O(size)."""
    return b"".join((data[:_KIND_AT], bytes((kind,)), data[_KIND_AT + 1 :]))


class Parts:
    """Puts frames together that came in two parts; holds 16 first parts at most."""

    __slots__ = ("_first", "dropped_count")

    def __init__(self) -> None:
        self.dropped_count = 0
        self._first: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def join(self, envelope: Envelope, sender: str) -> bytes | None:
        """Return the frame once it is whole; None when the rest of it is still to come, or lost.

        Args:
            envelope: what came.
            sender: whom it is from: numbers of two senders have nothing to do with each other.
        """
        if envelope.part is Part.WHOLE:
            return envelope.frame
        key = (sender, envelope.number)
        if envelope.part is Part.FIRST:
            self._first.pop(key, None)
            self._first[key] = envelope.frame
            if len(self._first) > PARTS_MAX:
                self._first.popitem(last=False)
                self.dropped_count += 1
            return None
        first = self._first.pop(key, None)
        if first is None or len(first) + len(envelope.frame) > FRAME_BYTES_MAX:
            self.dropped_count += 1
            return None
        return first + envelope.frame
