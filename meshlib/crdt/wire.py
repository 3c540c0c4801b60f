"""The digest of a wire tree, and checks of what a caller gives a type.

What a peer gives it is read by `meshlib.reading`. What one type alone asks of its own tree (rows
that fit together, a limit) is checked in its `from_wire`, with the same errors.
"""

from __future__ import annotations

from typing import Any

from meshlib.arguments import with_article
from meshlib.clock import Stamp
from meshlib.codec import pack
from meshlib.errors import InvalidTypeError, InvalidValueError
from meshlib.hashing import hash64
from meshlib.identity import ACTOR_BYTES
from meshlib.reading import COUNT_MAX, STAMP_LOGICAL_MAX, STAMP_MS_MAX

__all__ = ["cannot_join", "check_actor", "check_amount", "check_stamp", "wire_digest"]


def wire_digest(wire: Any) -> int:
    """Hash a canonical tree to 64 bits. O(size)."""
    return hash64(pack(wire))


def cannot_join(state: object, other: object) -> InvalidTypeError:
    """Make the error of a join with what is of another class."""
    mine, theirs = (with_article(type(one).__name__) for one in (state, other))
    return InvalidTypeError(f"{mine} cannot join {theirs}")


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
