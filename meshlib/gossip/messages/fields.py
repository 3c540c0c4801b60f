"""Checks of decoded fields: the types and ranges that messages and frames have in common.

How fields fit together is checked by the message that has them. What a node compares with what it
knows (whether a sender is who it says) is no question of form, and is asked where it is used.

Each check returns the value it was given, or raises `DecodeError` or `LimitExceeded`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.errors import DecodeError, LimitExceeded
from meshlib.identity import INCARNATION_MAX, ActorId, is_unspecified_address
from meshlib.limits import ACTORS_MAX, NODE_NAME_BYTES_MAX
from meshlib.membership import MemberRecord, MemberStatus

__all__ = [
    "ADDRESS_BYTES_MAX",
    "actor",
    "binary",
    "boolean",
    "fixed",
    "integer",
    "record_from_wire",
    "record_to_wire",
    "sequence",
    "text",
    "vector_from_wire",
    "vector_to_wire",
]

SEQUENCE_MAX = (1 << 63) - 1
ADDRESS_BYTES_MAX = 512

_STATUS_CODES = {
    MemberStatus.ALIVE: 0,
    MemberStatus.SUSPECTED: 1,
    MemberStatus.DOWN: 2,
    MemberStatus.LEAVING: 3,
}
_STATUSES = {code: status for status, code in _STATUS_CODES.items()}


def integer(value: Any, *, least: int = 0, most: int = SEQUENCE_MAX) -> int:
    """Check a decoded integer and its range; a bool is none."""
    if type(value) is not int or not least <= value <= most:
        raise DecodeError(f"expected an integer from {least} to {most}")
    return value


def text(value: Any, *, bytes_max: int) -> str:
    """Check a decoded text and its size in UTF-8."""
    if type(value) is not str:
        raise DecodeError("expected text")
    if len(value) > bytes_max or len(value.encode()) > bytes_max:
        raise LimitExceeded("text bytes", size=len(value), limit=bytes_max)
    return value


def binary(value: Any, *, bytes_max: int) -> bytes:
    """Check decoded bytes and their size."""
    if type(value) is not bytes:
        raise DecodeError("expected bytes")
    if len(value) > bytes_max:
        raise LimitExceeded("bytes", size=len(value), limit=bytes_max)
    return value


def actor(value: Any) -> ActorId:
    """Check a decoded actor: exactly 16 bytes."""
    if type(value) is not bytes or len(value) != 16:
        raise DecodeError("expected an actor of 16 bytes")
    return ActorId(value)


def boolean(value: Any) -> bool:
    """Check a decoded truth value."""
    if type(value) is not bool:
        raise DecodeError("expected a truth value")
    return value


def sequence(value: Any, *, length_max: int) -> tuple[Any, ...]:
    """Check a decoded list and its length."""
    if type(value) is not tuple:
        raise DecodeError("expected a list")
    if len(value) > length_max:
        raise LimitExceeded("list length", size=len(value), limit=length_max)
    return value


def fixed(value: Any, count: int) -> tuple[Any, ...]:
    """Check a decoded list of exactly `count` fields."""
    if type(value) is not tuple or len(value) != count:
        raise DecodeError(f"expected a list of {count}")
    return value


def record_to_wire(record: MemberRecord) -> tuple[Any, ...]:
    """Lay out one member record."""
    return (
        record.name, record.incarnation, _STATUS_CODES[record.status], record.address,
        record.actor, record.region, record.zone, record.version,
    )  # fmt: skip


def record_from_wire(wire: Any) -> MemberRecord:
    """Check and read one member record."""
    name, incarnation, status, address, writer, region, zone, version = fixed(wire, 8)
    checked = text(name, bytes_max=NODE_NAME_BYTES_MAX)
    if not checked:
        raise DecodeError("a member without a name")
    if type(status) is not int or status not in _STATUSES:
        raise DecodeError("an unknown member status")
    reached_at = text(address, bytes_max=ADDRESS_BYTES_MAX)
    if is_unspecified_address(reached_at):
        # Whoever dials it reaches itself.
        raise DecodeError("a member at no address that a peer could reach")
    return MemberRecord(
        name=checked,
        incarnation=integer(incarnation, most=INCARNATION_MAX),
        status=_STATUSES[status],
        address=reached_at,
        actor=actor(writer),
        region=text(region, bytes_max=NODE_NAME_BYTES_MAX),
        zone=text(zone, bytes_max=NODE_NAME_BYTES_MAX),
        version=integer(version, least=1, most=INCARNATION_MAX),
    )


def vector_to_wire(vector: Mapping[ActorId, int]) -> list[Any]:
    """Lay out a version vector: actors and numbers in turn, sorted."""
    flat: list[Any] = []
    for writer in sorted(vector):
        flat += (writer, vector[writer])
    return flat


def vector_from_wire(wire: Any, *, least: int = 1) -> dict[ActorId, int]:
    """Check and read a version vector; 0, where it is allowed, names a writer that is not in it."""
    flat = sequence(wire, length_max=2 * ACTORS_MAX)
    if len(flat) % 2:
        raise DecodeError("a vector of odd length")
    writers = flat[::2]
    vector = {
        actor(writer): integer(number, least=least)
        for writer, number in zip(writers, flat[1::2], strict=True)
    }
    if len(vector) != len(writers):
        raise DecodeError("a vector names an actor twice")
    return vector
