"""Golden bytes of envelopes: what nodes and bridges of this version put around a frame.

The bytes change only with `VERSION` of `meshlib/aio/bridged/envelopes.py`: bridges pass envelopes
of other nodes on as they are, so that every node of both regions reads them. When a test here
fails, let the version grow, name the change in `CHANGELOG.md` under "Wire format", and run
`python tests/wire/test_envelopes_golden.py`, which adds a section and leaves the older ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from meshlib.aio.bridged.envelopes import (
    VERSION,
    Envelope,
    Kind,
    Part,
    put_in,
    read_envelope,
    turned,
)
from meshlib.limits import ADDRESS_BYTES_MAX, FRAME_BYTES_MAX

PATH = Path(__file__).with_name("envelopes.json")
SECTION = f"envelope {VERSION}"
TO, FROM = "10.2.0.7:7000", "[::1]:1"
LONGEST = "a" * (ADDRESS_BYTES_MAX - 2) + ":1"
NUMBER_MAX: Final = (1 << 32) - 1
HEAD_BYTES: Final = 13
"""What is before the addresses."""


def _made(kind: Kind, frame: bytes = b"frame", to: str = TO, origin: str = FROM) -> bytes:
    (data,) = put_in(frame, kind=kind, destination=to, origin=origin, number=0x01020304)
    return data


def _head(part: Part) -> bytes:
    """Return what is around a half of the largest frame, without the half."""
    parts = put_in(b"x" * FRAME_BYTES_MAX, kind=Kind.OUT, destination=TO, origin=FROM, number=7)
    return parts[part - Part.FIRST].rstrip(b"x")


ENVELOPES: dict[str, Callable[[], bytes]] = {
    "OUT": partial(_made, Kind.OUT),
    "ACROSS": partial(_made, Kind.ACROSS),
    "IN": partial(_made, Kind.IN),
    "NO_WAY to a region": partial(_made, Kind.NO_WAY, b"eu", FROM, TO),
    "DIRECT": partial(_made, Kind.DIRECT, b"MB frame", "", ""),
    "OUT that goes across": lambda: turned(_made(Kind.OUT), Kind.ACROSS),
    "ACROSS that goes in": lambda: turned(_made(Kind.ACROSS), Kind.IN),
    "OUT between the longest addresses": partial(_made, Kind.OUT, b"f", LONGEST, LONGEST),
    "OUT with the largest number": lambda: put_in(
        b"f", kind=Kind.OUT, destination=TO, origin=FROM, number=NUMBER_MAX
    )[0],
    "around the first half of the largest frame": partial(_head, Part.FIRST),
    "around the last half of the largest frame": partial(_head, Part.LAST),
}
READ: dict[str, Envelope] = {
    "OUT": Envelope(Kind.OUT, Part.WHOLE, 0x01020304, TO, FROM, b"frame"),
    "ACROSS": Envelope(Kind.ACROSS, Part.WHOLE, 0x01020304, TO, FROM, b"frame"),
    "IN": Envelope(Kind.IN, Part.WHOLE, 0x01020304, TO, FROM, b"frame"),
    "NO_WAY to a region": Envelope(Kind.NO_WAY, Part.WHOLE, 0x01020304, FROM, TO, b"eu"),
    "DIRECT": Envelope(Kind.DIRECT, Part.WHOLE, 0x01020304, "", "", b"MB frame"),
    "OUT that goes across": Envelope(Kind.ACROSS, Part.WHOLE, 0x01020304, TO, FROM, b"frame"),
    "ACROSS that goes in": Envelope(Kind.IN, Part.WHOLE, 0x01020304, TO, FROM, b"frame"),
    "OUT between the longest addresses": Envelope(
        Kind.OUT, Part.WHOLE, 0x01020304, LONGEST, LONGEST, b"f"
    ),
    "OUT with the largest number": Envelope(Kind.OUT, Part.WHOLE, NUMBER_MAX, TO, FROM, b"f"),
}
"""What is opened from the golden bytes; a half of a frame is opened with its half below."""

WRITTEN: dict[str, dict[str, str]] = json.loads(PATH.read_text()) if PATH.exists() else {}


@pytest.mark.parametrize("name", ENVELOPES)
def test_bytes_change_only_with_the_version(name: str) -> None:
    """What is written now is what the section of the version has."""
    assert WRITTEN[SECTION][name] == ENVELOPES[name]().hex(), f"run `python {Path(__file__).name}`"


def test_nothing_is_kept_that_is_no_longer_said() -> None:
    """An envelope that is gone is a change of the format too."""
    assert set(ENVELOPES) == set(WRITTEN[SECTION])


@pytest.mark.parametrize("name", READ)
def test_golden_envelopes_are_read_as_what_they_were(name: str) -> None:
    """Every field comes back from the bytes."""
    assert read_envelope(bytes.fromhex(WRITTEN[SECTION][name])) == READ[name]


@pytest.mark.parametrize("part", [Part.FIRST, Part.LAST])
def test_golden_parts_are_read_as_what_they_were(part: Part) -> None:
    """With the half of a frame that belongs to them."""
    head = bytes.fromhex(
        WRITTEN[SECTION][f"around the {part.name.lower()} half of the largest frame"]
    )
    half = b"x" * (FRAME_BYTES_MAX // 2)

    assert read_envelope(head + half) == Envelope(Kind.OUT, part, 7, TO, FROM, half)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_golden_bytes(kind: Kind) -> None:
    """A kind that is added without its bytes fails here."""
    assert kind in {each.kind for each in READ.values()}


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_another_version_is_not_opened(version: int) -> None:
    """It might mean anything; its frame is dropped, and counted by who got it."""
    golden = bytes.fromhex(WRITTEN[SECTION]["OUT"])

    assert read_envelope(golden[:2] + bytes((version,)) + golden[3:]) is None


def test_what_is_around_a_frame_is_as_small_as_the_documents_say() -> None:
    """Thirteen bytes, and the two addresses."""
    golden = bytes.fromhex(WRITTEN[SECTION]["OUT"])

    assert len(golden) == HEAD_BYTES + len(TO) + len(FROM) + len(b"frame")


if __name__ == "__main__":
    WRITTEN[SECTION] = {name: make().hex() for name, make in ENVELOPES.items()}
    PATH.write_text(json.dumps(WRITTEN, indent=1) + "\n")
