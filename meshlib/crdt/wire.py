"""Strict readers for wire trees, and the canonical order of keys.

Rule: what several types check of a tree from a peer must live in this file, and raises
`DecodeError` or `LimitExceeded` and nothing else. What one type alone asks of its own tree (rows
that fit together, a limit) is checked in its `from_wire`, with the same errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from meshlib.clock import Stamp
from meshlib.codec import Key, check_encoded, check_key, pack
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, LocalError
from meshlib.hashing import hash64
from meshlib.identity import ActorId
from meshlib.limits import KEY_BYTES_MAX

__all__ = [
    "ACTOR_BYTES",
    "COUNT_MAX",
    "STAMP_LOGICAL_MAX",
    "STAMP_MS_MAX",
    "canonical_order",
    "check_actor",
    "check_amount",
    "check_stamp",
    "read_actor",
    "read_bool",
    "read_integer",
    "read_key",
    "read_key_batch",
    "read_key_set",
    "read_ordered_keys",
    "read_payload",
    "read_rows",
    "read_stamp",
    "require",
    "wire_digest",
]

ACTOR_BYTES: Final = 16
"""The size of an `ActorId`."""

COUNT_MAX: Final = (1 << 63) - 1
"""The largest number of a count, a sequence or a window: signed 64 bits on every platform."""

STAMP_MS_MAX: Final = (1 << 48) - 1
"""The latest wall time of a stamp: the year 10889."""

STAMP_LOGICAL_MAX: Final = (1 << 16) - 1
"""The largest logical part of a stamp."""

SHORT_CHARACTERS_MAX: Final = KEY_BYTES_MAX // 4
"""Text of so many characters is within the limit of a key, whatever they are."""

KeyT = TypeVar("KeyT")


def wire_digest(wire: Any) -> int:
    """Hash a canonical tree to 64 bits. O(size)."""
    return hash64(pack(wire))


def canonical_order(keys: Iterable[KeyT]) -> list[KeyT]:
    """Sort keys in the one order that every process agrees on. O(n log n).

    Texts by code point, bytes and integers by value; tuples and mixed kinds by their packed
    bytes. It depends on nothing but the set of keys.
    """
    listed: list[Any] = list(keys)
    kinds = set(map(type, listed))
    if len(kinds) <= 1 and tuple not in kinds:
        listed.sort()
    else:
        listed.sort(key=pack)
    return listed


def check_actor(actor: Any) -> None:
    """Check that something is an actor id.

    Raises:
        InvalidTypeError: not bytes.
        InvalidValueError: not 16 of them.
    """
    if type(actor) is not bytes:
        raise InvalidTypeError(f"an actor is bytes, not {type(actor).__name__}")
    if len(actor) != ACTOR_BYTES:
        raise InvalidValueError(f"an actor is {ACTOR_BYTES} bytes, not {len(actor)}")


def check_amount(amount: Any) -> None:
    """Check that something is a positive integer that fits a count.

    Raises:
        InvalidTypeError: not an `int`, or a `bool`.
        InvalidValueError: under 1 or over 63 bits.
    """
    if type(amount) is not int:
        raise InvalidTypeError(f"an amount is an int, not {type(amount).__name__}")
    if not 1 <= amount <= COUNT_MAX:
        raise InvalidValueError(f"an amount is 1 to {COUNT_MAX:,}, not {amount:,}")


def check_stamp(stamp: Any) -> None:
    """Check that something is a stamp that fits the wire.

    Raises:
        InvalidTypeError: not a `Stamp`.
        InvalidValueError: a part out of its range.
    """
    if type(stamp) is not Stamp:
        raise InvalidTypeError(f"a stamp is a Stamp, not {type(stamp).__name__}")
    if not (0 <= stamp.wall_ms <= STAMP_MS_MAX and 0 <= stamp.logical <= STAMP_LOGICAL_MAX):
        raise InvalidValueError(f"{stamp} is out of range")
    check_actor(stamp.actor)


def require(condition: bool, detail: str) -> None:
    """Raise `DecodeError(detail)` unless a condition holds."""
    if not condition:
        raise DecodeError(detail)


def read_rows(wire: Any, what: str, *, count: int | None = None) -> Sequence[Any]:
    """Read an array, of exactly `count` items when given."""
    if type(wire) is not tuple and type(wire) is not list:
        raise DecodeError(f"{what} must be an array, not {type(wire).__name__}")
    rows: Sequence[Any] = wire
    if count is not None and len(rows) != count:
        raise DecodeError(f"{what} must have {count} items, not {len(rows)}")
    return rows


def read_integer(wire: Any, what: str, *, minimum: int = 0, maximum: int = COUNT_MAX) -> int:
    """Read an integer in a range; a bool is none."""
    if type(wire) is not int:
        raise DecodeError(f"{what} must be an integer, not {type(wire).__name__}")
    if not minimum <= wire <= maximum:
        raise DecodeError(f"{what} must be {minimum} to {maximum}, not {wire}")
    return wire


def read_bool(wire: Any, what: str) -> bool:
    """Read a truth value; an integer is none."""
    if type(wire) is not bool:
        raise DecodeError(f"{what} must be true or false, not {type(wire).__name__}")
    return wire


def read_actor(wire: Any) -> ActorId:
    """Read an actor: exactly 16 bytes."""
    if type(wire) is not bytes or len(wire) != ACTOR_BYTES:
        raise DecodeError(f"an actor must be {ACTOR_BYTES} bytes")
    return _shared_actor(wire)


@lru_cache(maxsize=1024)
def _shared_actor(actor: bytes) -> ActorId:
    """Return the one object for an actor, which is read again and again.

    Each dot and each entry holds one: sharing takes 49 bytes off it, and makes equal ones equal
    at a glance. Past the size of the cache the actors read longest ago are read anew.
    """
    return ActorId(actor)


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


def read_stamp(wall_ms: Any, logical: Any, actor: Any) -> Stamp:
    """Read a stamp from its three parts."""
    return Stamp(
        read_integer(wall_ms, "wall_ms", maximum=STAMP_MS_MAX),
        read_integer(logical, "logical", maximum=STAMP_LOGICAL_MAX),
        read_actor(actor),
    )
