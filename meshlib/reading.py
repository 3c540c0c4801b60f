"""What a peer sent, read strictly: the one room that looks into it.

Rules: bytes from a peer become a tree here and nowhere else (`read_tree`), and every type and
every range in that tree is asked for by a reader of this file. A reader returns what it was
given, checked, or raises `DecodeError` or `LimitExceeded` and nothing else; it changes nothing.
What a tree means, and which numbers in it fit each other, is decided where the type lives, with
`require`.

`what` names the thing that is read, for the error; it is never something a peer chose.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any, Final

from meshlib.clock import Stamp
from meshlib.codec import Key, canonical_order, check_encoded, check_key, unpack
from meshlib.errors import DecodeError, LimitExceeded, LocalError
from meshlib.identity import ACTOR_BYTES, INCARNATION_MAX, ActorId, check_address
from meshlib.limits import (
    ACTORS_MAX,
    ADDRESS_BYTES_MAX,
    FRAME_BYTES_MAX,
    KEY_BYTES_MAX,
    NODE_NAME_BYTES_MAX,
)

__all__ = [
    "COUNT_MAX",
    "HASH_MAX",
    "STAMP_LOGICAL_MAX",
    "STAMP_MS_MAX",
    "are_integers",
    "are_plain",
    "are_rows",
    "is_integer",
    "is_packed",
    "is_row",
    "read_actor",
    "read_address",
    "read_bool",
    "read_bytes",
    "read_column",
    "read_hash",
    "read_hashes",
    "read_incarnation",
    "read_integer",
    "read_key",
    "read_key_batch",
    "read_key_set",
    "read_name",
    "read_number",
    "read_ordered_keys",
    "read_payload",
    "read_payloads",
    "read_row",
    "read_rows",
    "read_stamp",
    "read_text",
    "read_tree",
    "read_vector",
    "read_writer",
    "require",
]

COUNT_MAX: Final = (1 << 63) - 1
"""The largest number of a count, a sequence or a window: signed 64 bits on every platform."""

HASH_MAX: Final = (1 << 64) - 1
"""The largest 64-bit hash."""

STAMP_MS_MAX: Final = (1 << 48) - 1
"""The latest wall time of a stamp: the year 10889."""

STAMP_LOGICAL_MAX: Final = (1 << 16) - 1
"""The largest logical part of a stamp."""

SHORT_CHARACTERS_MAX: Final = KEY_BYTES_MAX // 4
"""Text of so many characters is within the limit of a key, whatever they are."""

_COLUMN_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""The widths of a packed column, in bytes, and what `struct` calls them."""

_HASH_BYTES: Final = 8

_ROW: Final = frozenset((tuple,))
_INTEGER: Final = frozenset((int,))
_PLAIN: Final = frozenset((str, bytes, int, float, bool, NoneType))


def read_tree(data: bytes | memoryview, *, bytes_max: int = FRAME_BYTES_MAX) -> Any:
    """Turn bytes into a tree. O(size). See `codec.unpack` for what is refused.

    Raises:
        DecodeError: not one whole tree, or more than `bytes_max`.
    """
    return unpack(data, bytes_max=bytes_max)


def require(condition: bool, detail: str) -> None:
    """Raise `DecodeError(detail)` unless a condition holds."""
    if not condition:
        raise DecodeError(detail)


# Shapes


def are_rows(wires: Sequence[Any]) -> bool:
    """Tell whether all of these are arrays, as a tree holds them: for a reader's quick way."""
    return _ROW.issuperset(map(type, wires))


def are_integers(wires: Sequence[Any]) -> bool:
    """Tell whether all of these are integers; a bool is none, and none at all are."""
    return _INTEGER.issuperset(map(type, wires))


def is_packed(column: Sequence[int]) -> bool:
    """Tell whether a column that was read is bytes, which cannot be searched for over 255."""
    return type(column) is bytes


def is_row(wire: Any, count: int | None = None) -> bool:
    """Tell whether this is an array, of `count` items if given, where a tree may hold another."""
    return type(wire) is tuple and (count is None or len(wire) == count)


def are_plain(wires: Sequence[Any]) -> bool:
    """Tell whether none of these holds anything inside: what may be looked up as a whole."""
    return _PLAIN.issuperset(map(type, wires))


def is_integer(wire: Any) -> bool:
    """Tell whether this is an integer, where a tree may hold one or something else."""
    return type(wire) is int


def read_rows(
    wire: Any, what: str, *, count: int | None = None, count_max: int | None = None
) -> Sequence[Any]:
    """Read an array: of exactly `count` items, or of up to `count_max`, when given.

    Raises:
        DecodeError: no array, or of another length than `count`.
        LimitExceeded: longer than `count_max`.
    """
    if type(wire) is not tuple and type(wire) is not list:
        raise DecodeError(f"{what} must be an array, not {type(wire).__name__}")
    rows: Sequence[Any] = wire
    if count is not None and len(rows) != count:
        raise DecodeError(f"{what} must have {count} items, not {len(rows)}")
    if count_max is not None and len(rows) > count_max:
        raise LimitExceeded(what, size=len(rows), limit=count_max)
    return rows


def read_row(wire: Any, what: str, count: int) -> tuple[Any, ...]:
    """Read an array of exactly `count` items: `read_rows` where every call counts."""
    if type(wire) is not tuple or len(wire) != count:
        raise DecodeError(f"{what} must be an array of {count} items")
    return wire


# Scalars


def read_integer(
    wire: Any, what: str = "a number", *, minimum: int = 0, maximum: int = COUNT_MAX
) -> int:
    """Read an integer in a range; a bool is none."""
    if type(wire) is not int:
        raise DecodeError(f"{what} must be an integer, not {type(wire).__name__}")
    if not minimum <= wire <= maximum:
        raise DecodeError(f"{what} must be {minimum} to {maximum}, not {wire}")
    return wire


def read_number(wire: Any, what: str, *, maximum: float = COUNT_MAX) -> float:
    """Read a finite number from 0 to a maximum, an integer or a float; a bool is none."""
    if type(wire) is not int and type(wire) is not float:
        raise DecodeError(f"{what} must be a number, not {type(wire).__name__}")
    if not 0 <= wire <= maximum:  # false for NaN too
        raise DecodeError(f"{what} must be finite and from 0 to {maximum}")
    return float(wire)


def read_bool(wire: Any, what: str = "a truth value") -> bool:
    """Read a truth value; an integer is none."""
    if type(wire) is not bool:
        raise DecodeError(f"{what} must be true or false, not {type(wire).__name__}")
    return wire


def read_text(wire: Any, what: str, *, bytes_max: int, is_empty_allowed: bool = True) -> str:
    """Read text of a bounded size in UTF-8.

    Raises:
        DecodeError: no text, or empty where that is not allowed.
        LimitExceeded: over `bytes_max`.
    """
    if type(wire) is not str:
        raise DecodeError(f"{what} must be a string, not {type(wire).__name__}")
    size = len(wire)
    if size > bytes_max >> 2 and (size > bytes_max or len(wire.encode()) > bytes_max):
        raise LimitExceeded(what, size=size, limit=bytes_max)
    if not size and not is_empty_allowed:
        raise DecodeError(f"{what} must not be empty")
    return wire


def read_bytes(wire: Any, what: str, *, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Read a run of bytes of a bounded size."""
    if type(wire) is not bytes:
        raise DecodeError(f"{what} must be bytes, not {type(wire).__name__}")
    if len(wire) > bytes_max:
        raise LimitExceeded(what, size=len(wire), limit=bytes_max)
    return wire


def read_hash(wire: Any) -> int:
    """Read a 64-bit hash or digest."""
    if type(wire) is not int or not 0 <= wire <= HASH_MAX:
        raise DecodeError("a hash must be an integer of 64 bits")
    return wire


def read_hashes(wire: Any, what: str, *, count_max: int) -> tuple[int, ...]:
    """Read 64-bit hashes that were written as one run of 8 bytes each, big-endian. O(size)."""
    run = read_bytes(wire, what, bytes_max=_HASH_BYTES * count_max)
    if len(run) % _HASH_BYTES:
        raise DecodeError(f"{what} must have {_HASH_BYTES} bytes each")
    return struct.unpack(f">{len(run) // _HASH_BYTES}Q", run)


def read_column(wire: Any, what: str, count: int, *, maximum: int) -> Sequence[int]:
    """Read a packed column of `count` numbers up to a maximum. O(count), in a few calls.

    They are in little-endian bytes, all as wide as the largest needs: 1, 2, 4 or 8.
    """
    if type(wire) is not bytes:
        raise DecodeError(f"{what} must be a packed column")
    if len(wire) == count and maximum >= 0 and not wire.strip(b"\0"):
        return wire  # nothing but zeros, which most columns are, and bytes are numbers
    width, rest = divmod(len(wire), count) if count else (1, len(wire))
    if rest or width not in _COLUMN_CODES:
        raise DecodeError(f"{what} must hold {count} numbers")
    is_narrow = width == 1 or any(
        wire[place::width].strip(b"\0") for place in range(width // 2, width)
    )
    require(is_narrow, f"{what} must be as narrow as they can be")
    numbers: Sequence[int] = (
        wire if width == 1 else struct.unpack(f"<{count}{_COLUMN_CODES[width]}", wire)
    )
    if numbers and maximum < 1 << (8 * width):
        require(max(numbers) <= maximum, f"{what} must be at most {maximum}")
    return numbers


# Identity


def read_actor(wire: Any) -> ActorId:
    """Read an actor: exactly 16 bytes."""
    if type(wire) is not bytes or len(wire) != ACTOR_BYTES:
        raise DecodeError(f"an actor must be {ACTOR_BYTES} bytes")
    return _shared_actor(wire)


def read_writer(wire: Any) -> ActorId:
    """Read an actor as it came: where it is looked at once, sharing costs more than it saves."""
    if type(wire) is not bytes or len(wire) != ACTOR_BYTES:
        raise DecodeError(f"an actor must be {ACTOR_BYTES} bytes")
    return wire  # type: ignore[return-value]


@lru_cache(maxsize=1024)
def _shared_actor(actor: bytes) -> ActorId:
    """Return the one object for an actor, which is read again and again.

    Each dot and each entry holds one: sharing takes 49 bytes off it, and makes equal ones equal
    at a glance. Past the size of the cache the actors read longest ago are read anew.
    """
    return ActorId(actor)


def read_name(wire: Any, what: str) -> str:
    """Read the name of a node: text, not empty, and within the limit of a name."""
    return read_text(wire, what, bytes_max=NODE_NAME_BYTES_MAX, is_empty_allowed=False)


def read_incarnation(wire: Any) -> int:
    """Read an incarnation."""
    return read_integer(wire, "an incarnation", maximum=INCARNATION_MAX)


@lru_cache(maxsize=8192)
def _checked_address(address: str) -> str:
    """Return an address that can be dialled. Those of members are read with every frame."""
    try:
        return check_address("an address", address)
    except LocalError as error:
        raise DecodeError(str(error)) from error


def read_address(wire: Any) -> str:
    """Read where a node is reached: `host:port` that can be dialled, and never unspecified.

    Raises:
        DecodeError: as `identity.check_address` refuses it. Whoever dialled such a one would
            reach itself, or nobody, or break its resolver.
        LimitExceeded: over `limits.ADDRESS_BYTES_MAX`.
    """
    return _checked_address(read_text(wire, "an address", bytes_max=ADDRESS_BYTES_MAX))


def read_vector(wire: Any, *, minimum: int = 1) -> dict[ActorId, int]:
    """Read a version vector: actors and their numbers in turn, each actor once. O(actors).

    Args:
        wire: what came.
        minimum: 0 where a writer may be named that is not in it.
    """
    flat = read_rows(wire, "a vector", count_max=2 * ACTORS_MAX)
    require(len(flat) % 2 == 0, "a vector must be actors and numbers")
    writers, numbers = flat[::2], flat[1::2]
    # In a few calls, however many there are.
    if not {bytes}.issuperset(map(type, writers)) or not {ACTOR_BYTES}.issuperset(
        map(len, writers)
    ):
        raise DecodeError(f"an actor must be {ACTOR_BYTES} bytes")
    if not {int}.issuperset(map(type, numbers)):
        raise DecodeError("a number of a vector must be an integer")
    if numbers and not minimum <= min(numbers) <= max(numbers) <= COUNT_MAX:
        raise DecodeError(f"a number of a vector must be {minimum} to {COUNT_MAX}")
    vector = dict(zip(writers, numbers, strict=True))
    require(len(vector) == len(writers), "a vector must name an actor once")
    return vector


# Keys and values of users


def read_key(wire: Any) -> Key:
    """Read a key or element."""
    if type(wire) is str and len(wire) <= SHORT_CHARACTERS_MAX and wire.isascii():
        return wire  # what most are, told without another call
    try:
        return check_key(wire)
    except LocalError as error:
        raise DecodeError(str(error)) from error


def _are_short_texts(wires: Sequence[Any]) -> bool:
    """Tell whether these are all plain texts far below the limit. O(size), in a few calls."""
    try:
        joined = "".join(wires)
    except TypeError:
        return False
    return joined.isascii() and max(map(len, wires), default=0) <= SHORT_CHARACTERS_MAX


def read_key_batch(wires: Sequence[Any]) -> Sequence[Key]:
    """Read many keys or elements. O(size)."""
    if not _are_short_texts(wires):
        for wire in wires:
            read_key(wire)
    return wires


def read_key_set(wire: Any, what: str) -> set[Key]:
    """Read an array of keys in canonical order, each once."""
    keys = read_ordered_keys(wire, what)
    different = set(keys)
    require(len(different) == len(keys), f"{what} must be there once each")
    return different


def read_ordered_keys(wire: Any, what: str) -> Sequence[Key]:
    """Read an array of keys in canonical order; the caller tells whether one comes twice.

    A caller that makes a dict of them anyway tells by its size, and needs no set beside it.
    """
    keys = read_rows(wire, what)
    if _are_short_texts(keys):
        ordered: list[Any] = sorted(keys)
    else:
        for key in keys:
            read_key(key)
        ordered = canonical_order(keys)
    if ordered != list(keys):
        raise DecodeError(f"{what} must be in canonical order")
    return keys


def read_payload(wire: Any) -> bytes:
    """Read a user's value: bytes that `encode_value` makes."""
    if type(wire) is not bytes:
        raise DecodeError(f"a value must be bytes, not {type(wire).__name__}")
    check_encoded(wire)
    return wire


def read_payloads(wire: Any, count: int) -> tuple[Sequence[bytes | None], int]:
    """Read users' values, different ones once each; return them and how many are none. O(size)."""
    payloads = read_rows(wire, "values", count=count)
    kinds = set(map(type, payloads))
    removal_count = payloads.count(None) if NoneType in kinds else 0
    different: Collection[Any] = payloads
    if kinds <= {bytes, NoneType}:
        # Often all are one, which is told sooner than how many there are.
        is_one = count > 0 and payloads.count(payloads[0]) == count
        different = payloads[:1] if is_one else set(payloads)
    for payload in different:
        if payload is not None:
            read_payload(payload)
    return payloads, removal_count


def read_stamp(wall_ms: Any, logical: Any, actor: Any) -> Stamp:
    """Read a stamp from its three parts."""
    return Stamp(
        read_integer(wall_ms, "wall_ms", maximum=STAMP_MS_MAX),
        read_integer(logical, "logical", maximum=STAMP_LOGICAL_MAX),
        read_actor(actor),
    )
