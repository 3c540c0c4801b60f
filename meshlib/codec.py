"""Canonical bytes: the only room that imports msgpack.

Two levels. `pack` and `unpack` carry wire trees, whose order their owner has already made
canonical. `encode_value` and `decode_value` carry what users store: equal values give equal
bytes on every process, and what has no canonical form (NaN, a set, an object) is refused.

Rule: bytes from a peer pass through `unpack` (which `meshlib.reading` alone calls) or
`decode_value` and nowhere else, and those raise `DecodeError` and nothing else.
Source: the msgpack specification, https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgpack

from meshlib.arguments import with_article
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, LimitError
from meshlib.limits import DECODE_DEPTH_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX

__all__ = [
    "Key",
    "canonical_order",
    "check_encoded",
    "check_key",
    "decode_value",
    "encode_value",
    "pack",
    "unpack",
]

Key = str | bytes | int | tuple[Any, ...]
"""What may be a key or a set's element: text, bytes, an integer, or a tuple of these."""

KeyT = TypeVar("KeyT")

_ONE_BYTE_VALUES: Final = b"\xa0\xc0\xc2\xc3"
"""Empty text, None, False and True; small integers come besides, empty containers not."""

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 64) - 1

# One for all threads: it is written in C and calls nothing, so none comes in between.
pack = msgpack.Packer(use_bin_type=True).pack
"""`pack(tree) -> bytes`: a tree of None, bool, int, float, str, bytes, list, tuple and dict.

Order is the caller's; for canonical bytes the caller sorts. O(size)."""


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


def _no_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a map has a key twice")
    return result


def unpack(data: bytes | memoryview, *, bytes_max: int = FRAME_BYTES_MAX) -> Any:
    """Decode one wire tree, strictly. Lists come back as tuples. O(size).

    Refused: more than `bytes_max`, trailing bytes, extension types, invalid UTF-8, a map with a
    key twice, nesting that msgpack itself refuses. Shape and numbers are the caller's to check.

    Raises:
        DecodeError: for any of these.
    """
    if len(data) > bytes_max:
        raise DecodeError(f"{len(data):,} bytes are over the limit of {bytes_max:,}")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=False,
            object_pairs_hook=_no_duplicates,
            ext_hook=_refuse_extension,
            timestamp=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise DecodeError(f"not a wire tree: {error}") from error


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _canonical(value: Any, depth: int) -> Any:
    """Return a tree that packs canonically, or raise what is wrong with `value`."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bool or value is None:
        return value
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise InvalidValueError(f"the integer {value} does not fit 64 bits")
        return value
    if kind is float:
        if math.isnan(value):
            raise InvalidValueError("NaN has no place in an order")
        return value
    if depth <= 0:
        raise InvalidValueError(f"nested deeper than {DECODE_DEPTH_MAX}")
    if kind is list or kind is tuple:
        return [_canonical(item, depth - 1) for item in value]
    if kind is dict:
        return _canonical_map(value, depth)
    raise InvalidTypeError(f"{with_article(kind.__name__)} cannot be replicated")


def _canonical_map(value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    pairs: list[tuple[bytes, Any, Any]] = []
    for key, item in value.items():
        if type(key) not in (str, bytes, int):
            raise InvalidTypeError(f"{with_article(type(key).__name__)} cannot be a key of a map")
        canonical_key = _canonical(key, depth - 1)
        try:
            packed = pack(canonical_key)
        except ValueError as error:
            raise InvalidValueError(f"a key cannot be encoded: {error}") from error
        pairs.append((packed, canonical_key, _canonical(item, depth - 1)))
    pairs.sort(key=lambda pair: pair[0])
    return {key: item for _, key, item in pairs}


def encode_value(value: Any, *, bytes_max: int = VALUE_BYTES_MAX) -> bytes:
    """Freeze a value into canonical bytes. O(size), O(n log n) for maps.

    Allowed: None, bool, int of 64 bits, float but NaN, str, bytes, list and tuple (which come
    back as tuples), and dict with str, bytes or int keys. Later changes of `value` do not
    reach the bytes.

    Raises:
        InvalidTypeError: another type, or a bool, float or None as a key.
        InvalidValueError: NaN, a larger integer, a lone surrogate, nesting over the limit.
        LimitError: more than `bytes_max` bytes.
    """
    tree = _canonical(value, DECODE_DEPTH_MAX)
    try:
        data: bytes = pack(tree)
    except ValueError as error:
        raise InvalidValueError(f"the value cannot be encoded: {error}") from error
    if len(data) > bytes_max:
        raise LimitError("value bytes", size=len(data), limit=bytes_max)
    return data


def decode_value(data: bytes, *, bytes_max: int = VALUE_BYTES_MAX) -> Any:
    """Thaw canonical bytes into a fresh value. Lists come back as tuples. O(size).

    Raises:
        DecodeError: bytes that `encode_value` would not have made in kind: malformed, over a
            limit, or holding NaN.
    """
    value = unpack(data, bytes_max=bytes_max)
    if type(value) in (str, bytes, int, bool, type(None)):
        return value
    try:
        _canonical(value, DECODE_DEPTH_MAX)
    except (InvalidTypeError, InvalidValueError) as error:
        raise DecodeError(str(error)) from error
    return value


def check_encoded(data: bytes) -> None:
    """Check that bytes are what `encode_value` makes of some value. O(size).

    Short scalars, which most values are, are told by their first bytes alone.

    Raises:
        DecodeError: other bytes, also such that decode to a value but are not its canonical form.
    """
    size = len(data)
    if size == 1:
        if data[0] <= 0x7F or data[0] >= 0xE0 or data[0] in _ONE_BYTE_VALUES:
            return
    elif size > 1:
        first = data[0]
        if 0xA0 < first <= 0xBF and first & 0x1F == size - 1 and data[1:].isascii():
            return
        if first == 0xD9 and data[1] == size - 2 > 31 and data[2:].isascii():
            return
        if first == 0xC4 and data[1] == size - 2:
            return
    try:
        is_canonical = encode_value(decode_value(data)) == data
    except (InvalidTypeError, InvalidValueError, LimitError) as error:
        raise DecodeError(str(error)) from error
    if not is_canonical:
        raise DecodeError("a value is not in canonical form")


def check_key(key: Any) -> Key:
    """Check that something can be a key or an element, and return it. O(size).

    Text, bytes, 64-bit integers and tuples of these are told apart by Python's own equality;
    bool (`True == 1`), float (`1.0 == 1`) and None are refused for that reason.

    Raises:
        InvalidTypeError: another type.
        InvalidValueError: an integer beyond 64 bits, a lone surrogate, nesting over the limit.
        LimitError: more than 1 KiB of canonical bytes.
    """
    kind = type(key)
    checked: Key = key
    if kind is str:
        if len(key) * 4 <= KEY_BYTES_MAX and key.isascii():
            return checked  # the common case, checked without a copy
    elif kind is bytes:
        if len(key) > KEY_BYTES_MAX:
            raise LimitError("key bytes", size=len(key), limit=KEY_BYTES_MAX)
        return checked
    elif kind is int:
        if not INTEGER_MIN <= key <= INTEGER_MAX:
            raise InvalidValueError(f"the integer {key} does not fit 64 bits")
        return checked
    _check_key_kind(key, DECODE_DEPTH_MAX)
    encode_value(key, bytes_max=KEY_BYTES_MAX + 3)
    return checked


def _check_key_kind(key: Any, depth: int) -> None:
    kind = type(key)
    if kind is tuple:
        if depth <= 0:
            raise InvalidValueError(f"nested deeper than {DECODE_DEPTH_MAX}")
        for item in key:
            _check_key_kind(item, depth - 1)
    elif kind not in (str, bytes, int):
        raise InvalidTypeError(f"{with_article(kind.__name__)} cannot be a key or an element")
