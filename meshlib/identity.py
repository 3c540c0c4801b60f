"""Who a node is, and which writer it is.

Rule: an incarnation is minted at every start and never reused, so a ghost of an earlier start
can neither refute its own death nor write under a living name.
"""

from __future__ import annotations

import random
from typing import NewType

from attrs import field, frozen, validators

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.hashing import hash64_text
from meshlib.limits import NODE_NAME_BYTES_MAX

__all__ = ["ActorId", "NodeId", "actor_id", "actor_name_hash", "check_name", "mint_incarnation"]

ActorId = NewType("ActorId", bytes)
"""16 bytes that mark every write: 8 of the node name's hash, 8 of the incarnation."""

INCARNATION_MAX = (1 << 63) - 1
_RANDOM_BITS = 20


def check_name(what: str, name: object, *, bytes_max: int = NODE_NAME_BYTES_MAX) -> str:
    """Check a name that will travel: text, not empty, encodable, without control characters.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: empty, not encodable as UTF-8, or with a control character.
        LimitError: longer than `bytes_max` in UTF-8.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"{what} must be text, not {type(name).__name__}")
    if not name:
        raise InvalidValueError(f"{what} must not be empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidValueError(f"{what} cannot be encoded as UTF-8") from error
    if size > bytes_max:
        raise LimitError(f"{what} bytes", size=size, limit=bytes_max)
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise InvalidValueError(f"{what} must not contain control characters")
    return name


@frozen(slots=True, order=True)
class NodeId:
    """One node of the cluster during one incarnation.

    Args:
        name: the node's name, unique in the cluster; 1 to 255 bytes in UTF-8.
        incarnation: minted at its start, raised by one for each refuted suspicion.
    """

    name: str
    incarnation: int = field(validator=validators.and_(validators.ge(0)))

    def __str__(self) -> str:
        return f"{self.name}#{self.incarnation:x}"


def mint_incarnation(wall_s: float, rng: random.Random) -> int:
    """Make the incarnation of a start: 43 bits of wall milliseconds, then 20 random bits.

    Later starts are higher unless the wall clock went back; the random bits keep two starts
    within one millisecond apart. A node that meets a higher incarnation of its own name moves
    above it, so the clock is a convenience here and nothing depends on it.

    Args:
        wall_s: seconds since 1970.
        rng: where the random bits come from.
    """
    milliseconds = max(0, int(wall_s * 1000)) & ((1 << 43) - 1)
    return (milliseconds << _RANDOM_BITS) | rng.getrandbits(_RANDOM_BITS)


def actor_name_hash(name: str) -> bytes:
    """Hash a node's name to the first 8 bytes of its actors."""
    return hash64_text(name).to_bytes(8, "big")


def actor_id(name: str, incarnation: int) -> ActorId:
    """Name the writer of one start: 8 bytes of the name's hash, 8 of the incarnation."""
    return ActorId(actor_name_hash(name) + incarnation.to_bytes(8, "big"))
