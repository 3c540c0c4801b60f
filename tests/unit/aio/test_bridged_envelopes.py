"""Envelopes: their bytes, their two parts, and what is none."""

from __future__ import annotations

import random

import pytest

from meshlib.aio.bridged.envelopes import (
    PARTS_MAX,
    Envelope,
    Kind,
    Part,
    Parts,
    put_in,
    read_envelope,
    turned,
)
from meshlib.limits import ADDRESS_BYTES_MAX, FRAME_BYTES_MAX

ONE = b"MB\x01\x02\x00\x01\x02\x03\x04\x00\x03\x00\x04x:1yy:2frame"


def test_an_envelope_is_these_bytes() -> None:
    """As the documents have it; another layout needs another version."""
    (made,) = put_in(
        b"frame", kind=Kind.ACROSS, destination="x:1", origin="yy:2", number=0x01020304
    )

    assert made == ONE
    assert read_envelope(ONE) == Envelope(
        Kind.ACROSS, Part.WHOLE, 0x01020304, "x:1", "yy:2", b"frame"
    )
    assert turned(ONE, Kind.IN) == ONE[:3] + b"\x03" + ONE[4:]


@pytest.mark.parametrize("over", [-30, -19, -18, -1, 0])
def test_a_frame_too_large_for_an_envelope_goes_in_two(over: int) -> None:
    """Each of them fits a frame, and what is joined is what was sent."""
    frame = random.Random(over).randbytes(FRAME_BYTES_MAX + over)
    sent = put_in(frame, kind=Kind.OUT, destination="x:1", origin="y:1", number=7)
    parts = Parts()
    opened = [read_envelope(data) for data in sent]
    joined = [parts.join(envelope, "y:1") for envelope in opened if envelope is not None]

    assert all(len(data) <= FRAME_BYTES_MAX for data in sent)
    assert joined == [*[None] * (len(sent) - 1), frame]
    assert len(sent) == (1 if over <= -19 else 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MB",
        ONE[:16],
        b"MS" + ONE[2:],
        b"MB\x02" + ONE[3:],
        ONE[:3] + b"\x00" + ONE[4:],
        ONE[:3] + b"\x06" + ONE[4:],
        ONE[:4] + b"\x03" + ONE[5:],
        ONE[:9] + b"\xff\xff" + ONE[11:],
        ONE[:-5],
        ONE[:13] + b"\xff" + ONE[14:],
        b"MB\x01\x02\x00\x00\x00\x00\x00\x02\x01\x00\x00" + b"a" * 2000,
    ],
)
def test_what_is_no_envelope_is_not_opened(data: bytes) -> None:
    """Too short, of another version or kind, with nothing in it, or with no such address."""
    assert read_envelope(data) is None


def test_bytes_of_anybody_are_opened_or_refused() -> None:
    """Never an error, whatever is damaged."""
    rng = random.Random(4)
    for _ in range(3000):
        data = bytearray(ONE)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        envelope = read_envelope(bytes(data[: rng.randint(0, len(data))]))
        if envelope is not None:
            assert max(len(envelope.destination), len(envelope.origin)) <= ADDRESS_BYTES_MAX


def _part(part: Part, number: int, frame: bytes = b"x") -> Envelope:
    return Envelope(Kind.IN, part, number, "x:1", "y:1", frame)


def test_parts_of_two_senders_or_frames_are_not_mixed() -> None:
    """Numbers are each sender's own."""
    parts = Parts()
    parts.join(_part(Part.FIRST, 1, b"one"), "y:1")
    parts.join(_part(Part.FIRST, 1, b"two"), "z:1")

    assert parts.join(_part(Part.LAST, 2), "y:1") is None
    assert parts.join(_part(Part.LAST, 1, b"!"), "z:1") == b"two!"
    assert parts.join(_part(Part.LAST, 1, b"!"), "y:1") == b"one!"
    assert parts.dropped_count == 1


def test_first_parts_whose_second_never_comes_are_bounded() -> None:
    """The oldest is forgotten, and counted."""
    parts = Parts()
    for number in range(PARTS_MAX + 5):
        parts.join(_part(Part.FIRST, number), "y:1")

    assert parts.dropped_count == 5
    assert parts.join(_part(Part.LAST, 4), "y:1") is None
    assert parts.join(_part(Part.LAST, 5), "y:1") == b"xx"


def test_two_parts_that_are_no_frame_together_are_dropped() -> None:
    """Nobody gets more through than a frame may have."""
    parts = Parts()
    parts.join(_part(Part.FIRST, 1, b"x" * (FRAME_BYTES_MAX - 100)), "y:1")

    assert parts.join(_part(Part.LAST, 1, b"x" * 101), "y:1") is None
    assert parts.dropped_count == 1
