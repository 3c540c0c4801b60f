"""How the entries of a prefix cache are written and read.

Texts are sorted and written as what they share with the one before and the rest, so a prefix
that many share travels once. Each character that is written lets `SHARED_FACTOR` others be taken
from the text before, now or later, which bounds what a small message makes its reader build.

Source: front coding, Witten, Moffat, Bell, "Managing Gigabytes", 1999, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from meshlib.errors import DecodeError, LimitError, LimitExceeded, LocalError
from meshlib.limits import TENANTS_MAX, TEXT_CHARACTERS_MAX
from meshlib.prefix import ACCESS_MAX, check_tenant, common_prefix_length
from meshlib.reading import read_bytes, read_integer, read_rows, read_text, require

__all__ = [
    "read_blocks",
    "read_tenants",
    "read_texts",
    "write_blocks",
    "write_texts",
]

SHARED_FACTOR: Final = 1024
"""How many characters may be taken from the texts before, for each one that is written."""

_TEXT_BYTES_MAX: Final = 4 * TEXT_CHARACTERS_MAX
"""A text of so many characters in UTF-8, at the most."""

BLOCK_BYTES: Final = 8
"""One block's hash."""


def write_texts(entries: Sequence[tuple[str, int]]) -> tuple[Any, ...]:
    """Return `(oldest access, (shared, rest, access above the oldest, ...))` of sorted entries."""
    if not entries:
        return 0, ()
    oldest = min(access for _, access in entries)
    row: list[Any] = []
    previous, credit = "", 0
    for text, access in entries:
        shared = min(common_prefix_length(previous, text), credit)
        row += shared, text[shared:], access - oldest
        credit += SHARED_FACTOR * (len(text) - shared) - shared
        previous = text
    return oldest, tuple(row)


def read_texts(oldest: Any, row: Any, *, floor: int) -> Iterator[tuple[str, int]]:
    """Read what `write_texts` returned, strictly."""
    row = read_rows(row, "the texts of a tenant")
    require(len(row) % 3 == 0, "texts must come in threes")
    oldest = _read_oldest(oldest, row[2::3], floor=floor)
    previous, credit = "", 0
    for shared, rest, offset in zip(row[::3], row[1::3], row[2::3], strict=True):
        read_integer(shared, "a shared length", maximum=min(len(previous), credit))
        read_text(rest, "the rest of a text", bytes_max=_TEXT_BYTES_MAX, is_empty_allowed=False)
        length = shared + len(rest)
        if length > TEXT_CHARACTERS_MAX:
            raise LimitExceeded("text characters", size=length, limit=TEXT_CHARACTERS_MAX)
        text = previous[:shared] + rest
        require(previous < text, "texts must be sorted, each once")
        common = common_prefix_length(previous, text)
        require(shared == min(common, credit), "what is shared must be written so")
        credit += SHARED_FACTOR * len(rest) - shared
        yield text, oldest + offset
        previous = text


def write_blocks(entries: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    """Return `(oldest access, hashes, (access above the oldest, ...))` of sorted entries."""
    if not entries:
        return 0, b"", ()
    oldest = min(access for _, access in entries)
    hashes = b"".join(block.to_bytes(BLOCK_BYTES, "big") for block, _ in entries)
    return oldest, hashes, tuple(access - oldest for _, access in entries)


def read_blocks(oldest: Any, hashes: Any, offsets: Any, *, floor: int) -> Iterator[tuple[int, int]]:
    """Read what `write_blocks` returned, strictly."""
    offsets = read_rows(offsets, "the accesses of a tenant")
    hashes = read_bytes(hashes, "the blocks of a tenant")
    require(len(hashes) == BLOCK_BYTES * len(offsets), "each block must have 8 bytes and an access")
    oldest = _read_oldest(oldest, offsets, floor=floor)
    previous = -1
    for index, offset in enumerate(offsets):
        block = int.from_bytes(hashes[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES], "big")
        require(previous < block, "blocks must be sorted, each once")
        yield block, oldest + offset
        previous = block


def _read_oldest(oldest: Any, offsets: Sequence[Any], *, floor: int) -> int:
    if not offsets:
        return read_integer(oldest, "the oldest access of nothing", maximum=0)
    oldest = read_integer(oldest, "the oldest access", minimum=floor + 1, maximum=ACCESS_MAX)
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
