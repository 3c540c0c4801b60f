"""What the messages about leases have in common: their version, their keys, their size.

Rule: reading raises `RemoteError`s and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from meshlib.errors import VersionMismatch
from meshlib.limits import KEY_BYTES_MAX, RATE_KEYS_PER_MESSAGE_MAX
from meshlib.reading import read_integer, read_number, read_rows, read_text, read_tree, require

__all__ = [
    "FORMAT_VERSION",
    "HASH_MAX",
    "batches",
    "read_body",
    "read_key",
    "read_parts",
    "read_seconds",
]

FORMAT_VERSION: Final = 3
"""1 were the reports and answers of shares, which are no longer spoken."""

HASH_MAX: Final = (1 << 64) - 1
SECONDS_MAX: Final = 1e9

PartT = TypeVar("PartT")


def batches(parts: Sequence[PartT]) -> Iterable[tuple[PartT, ...]]:
    """Cut parts into messages of a size that fits a frame."""
    for start in range(0, len(parts), RATE_KEYS_PER_MESSAGE_MAX):
        yield tuple(parts[start : start + RATE_KEYS_PER_MESSAGE_MAX])


def read_body(data: bytes, count: int) -> Sequence[Any]:
    """Return the items of a message of our version, which is the first of them and left out."""
    rows = read_rows(read_tree(data), "a rate-limit message")
    require(len(rows) >= 1, "a rate-limit message must not be empty")
    version = read_integer(rows[0], "the version", minimum=1)
    if version != FORMAT_VERSION:
        raise VersionMismatch("a rate-limit message", ours=FORMAT_VERSION, theirs=version)
    require(len(rows) == count, f"a rate-limit message must have {count} items")
    return rows[1:]


def read_parts(rows: Any, read: Callable[[Any], PartT]) -> tuple[PartT, ...]:
    """Return the parts of a message, one for each key, each read by `read`."""
    parts = read_rows(rows, "the keys of a message", count_max=RATE_KEYS_PER_MESSAGE_MAX)
    return tuple(read(part) for part in parts)


def read_key(key: Any) -> str:
    """Return a rate-limit key."""
    return read_text(key, "a rate-limit key", bytes_max=KEY_BYTES_MAX, is_empty_allowed=False)


def read_seconds(value: Any) -> float:
    """Return a duration, in seconds."""
    return read_number(value, "a duration", maximum=SECONDS_MAX)
