"""How the entries of a prefix cache are written and read.

Texts are sorted and written as what they share with the one before and the rest, so a prefix
that many share travels once. What tenants share travels once too: where a text of the rows before
shares `GAIN_MIN` characters more than the one before in its own row, it is named by its number, in
the order in which texts are first written, and the length of what is shared. Of those the one is
meant that stands next to the text in sorted order: before it, or behind it where that shares more.

Each character that is written lets `SHARED_FACTOR` others be taken from the text before, and as
many from other rows, now or later: this bounds what a small message makes its reader build.

Source: front coding, Witten, Moffat, Bell, "Managing Gigabytes", 1999, section 4.1.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from operator import lt
from typing import Any, Final

from meshlib.errors import DecodeError, LimitError, LimitExceeded, LocalError
from meshlib.limits import TENANTS_MAX, TEXT_CHARACTERS_MAX
from meshlib.prefix import (
    ACCESS_MAX,
    BLOCK_BYTES,
    blocks_to_bytes,
    bytes_to_blocks,
    check_tenant,
    common_prefix_length,
)
from meshlib.reading import (
    are_integers,
    is_row,
    read_bytes,
    read_integer,
    read_rows,
    read_text,
    require,
)

__all__ = [
    "SharedTexts",
    "read_blocks",
    "read_tenants",
    "read_texts",
    "write_blocks",
    "write_texts",
]

SHARED_FACTOR: Final = 1024
"""How many characters may be taken from the texts before, for each one that is written."""

GAIN_MIN: Final = 16
"""How many characters a text of another row must save: naming it takes some bytes."""

_TEXT_BYTES_MAX: Final = 4 * TEXT_CHARACTERS_MAX
"""A text of so many characters in UTF-8, at the most."""


class SharedTexts:
    """The texts of the rows of one cache, as they are written or read: what others may share.

    Rows are given one after the other, in the order of the tenants.
    """

    __slots__ = ("_credit", "_numbers", "_sorted", "_texts", "_waiting")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._sorted: list[str] = []
        self._waiting: list[str] = []
        self._credit = 0

    def begin_row(self) -> None:
        """Let the rows from here on share what the rows before have. O(their texts * log n)."""
        for text in self._waiting:
            if text not in self._numbers:
                self._numbers[text] = len(self._texts)
                self._texts.append(text)
                insort(self._sorted, text)
        self._waiting = []

    def note(self, text: str, rest_length: int) -> None:
        """Take note of a text of this row, of which so many characters were written. O(1)."""
        self._waiting.append(text)
        self._credit += SHARED_FACTOR * rest_length

    def take(self, length: int) -> None:
        """Take note that so much was taken from another row. O(1)."""
        self._credit -= length

    def nearest(self, text: str) -> tuple[int, int]:
        """Return what shares most with a text: its number, and how much may be taken of it.

        O(length * log n).
        """
        best = (0, 0)
        at = bisect_left(self._sorted, text)
        for other in self._sorted[max(0, at - 1) : at + 1]:
            length = common_prefix_length(other, text)
            if length > best[1]:
                best = (self._numbers[other], length)
        return best[0], min(best[1], self._credit)

    def beginning(self, number: Any, length: Any) -> str:
        """Return so much of a text by its number, as a peer says it.

        Raises:
            DecodeError: there is no such text, or it is shorter, or too much was taken.
        """
        read_integer(number, "the number of a text", maximum=len(self._texts) - 1)
        text: str = self._texts[number]
        read_integer(length, "a shared length", maximum=min(len(text), self._credit))
        return text[:length]


def _shared(
    text: str, previous: str, credit: int, texts: SharedTexts
) -> tuple[int | tuple[int, int], int]:
    """Return how what a text shares is written, and how many characters that are."""
    shared = min(common_prefix_length(previous, text), credit)
    number, length = texts.nearest(text)
    return ((number, length), length) if length >= shared + GAIN_MIN else (shared, shared)


def write_texts(entries: Sequence[tuple[str, int]], texts: SharedTexts) -> tuple[Any, ...]:
    """Return `(oldest access, (shared, rest, access above the oldest, ...))` of sorted entries."""
    if not entries:
        return 0, ()
    texts.begin_row()
    oldest = min(access for _, access in entries)
    row: list[Any] = []
    previous, credit = "", 0
    for text, access in entries:
        how, shared = _shared(text, previous, credit, texts)
        rest = text[shared:]
        row += how, rest, access - oldest
        credit += SHARED_FACTOR * len(rest)
        if isinstance(how, int):
            credit -= shared
        else:
            texts.take(shared)
        texts.note(text, len(rest))
        previous = text
    return oldest, tuple(row)


def read_texts(
    oldest: Any, row: Any, *, floor: int, texts: SharedTexts
) -> Iterator[tuple[str, int]]:
    """Read what `write_texts` returned, strictly."""
    row = read_rows(row, "the texts of a tenant")
    require(len(row) % 3 == 0, "texts must come in threes")
    oldest = _read_oldest(oldest, row[2::3], floor=floor)
    texts.begin_row()
    previous, credit = "", 0
    for how, rest, offset in zip(row[::3], row[1::3], row[2::3], strict=True):
        is_other = is_row(how)
        if is_other:
            beginning = texts.beginning(*read_rows(how, "a shared text", count=2))
        else:
            read_integer(how, "a shared length", maximum=min(len(previous), credit))
            beginning = previous[:how]
        read_text(rest, "the rest of a text", bytes_max=_TEXT_BYTES_MAX, is_empty_allowed=is_other)
        text, shared = beginning + rest, len(beginning)
        if len(text) > TEXT_CHARACTERS_MAX:
            raise LimitExceeded("text characters", size=len(text), limit=TEXT_CHARACTERS_MAX)
        require(previous < text, "texts must be sorted, each once")
        written = tuple(how) if is_other else how
        require(
            written == _shared(text, previous, credit, texts)[0],
            "what is shared must be written so",
        )
        credit += SHARED_FACTOR * len(rest)
        if is_other:
            texts.take(shared)
        else:
            credit -= shared
        texts.note(text, len(rest))
        yield text, oldest + offset
        previous = text


def write_blocks(entries: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    """Return `(oldest access, hashes, (access above the oldest, ...))` of sorted entries."""
    if not entries:
        return 0, b"", ()
    oldest = min(access for _, access in entries)
    hashes = blocks_to_bytes([block for block, _ in entries])
    return oldest, hashes, tuple([access - oldest for _, access in entries])


def read_blocks(oldest: Any, hashes: Any, offsets: Any, *, floor: int) -> list[tuple[int, int]]:
    """Read what `write_blocks` returned, strictly."""
    offsets = read_rows(offsets, "the accesses of a tenant")
    hashes = read_bytes(hashes, "the blocks of a tenant")
    require(len(hashes) == BLOCK_BYTES * len(offsets), "each block must have 8 bytes and an access")
    oldest = _read_oldest(oldest, offsets, floor=floor)
    blocks = bytes_to_blocks(hashes)
    require(all(map(lt, blocks, blocks[1:])), "blocks must be sorted, each once")
    return [(block, oldest + offset) for block, offset in zip(blocks, offsets, strict=True)]


def _read_oldest(oldest: Any, offsets: Sequence[Any], *, floor: int) -> int:
    if not offsets:
        return read_integer(oldest, "the oldest access of nothing", maximum=0)
    oldest = read_integer(oldest, "the oldest access", minimum=floor + 1, maximum=ACCESS_MAX)
    if not are_integers(offsets) or max(offsets) > ACCESS_MAX - oldest:
        for offset in offsets:
            read_integer(offset, "an access", maximum=ACCESS_MAX - oldest)
    require(min(offsets) == 0, "accesses must count from the oldest")
    return int(oldest)


def read_tenants(wire: Any, *, columns: int) -> Iterator[tuple[str, int, int, Sequence[Any]]]:
    """Read the rows of a cache: `(tenant, epoch, floor, what is left of the row)`.

    Raises:
        DecodeError: malformed, or not sorted.
        LimitExceeded: more tenants than allowed.
    """
    rows = read_rows(wire, "a prefix cache")
    if len(rows) > TENANTS_MAX:
        raise LimitExceeded("tenants", size=len(rows), limit=TENANTS_MAX)
    previous = ""
    for row in rows:
        tenant, epoch, floor, *rest = read_rows(row, "a tenant's row", count=3 + columns)
        try:
            check_tenant(tenant)
        except LimitError as error:
            raise LimitExceeded(error.what, size=error.size, limit=error.limit) from error
        except LocalError as error:
            raise DecodeError(str(error)) from error
        require(previous < tenant, "tenants must be sorted, each once")
        previous = tenant
        yield tenant, read_integer(epoch, "an epoch"), read_integer(floor, "a floor"), rest
