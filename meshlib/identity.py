"""Who a node is, and which writer it is.

Rule: an incarnation is minted at every start and never reused, so a ghost of an earlier start
can neither refute its own death nor write under a living name.
"""

from __future__ import annotations

import ipaddress
import random
import re
import unicodedata
from stringprep import in_table_b1
from typing import NewType

from attrs import field, frozen, validators

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.hashing import hash64_text
from meshlib.limits import ADDRESS_BYTES_MAX, NODE_NAME_BYTES_MAX

__all__ = [
    "ACTOR_BYTES",
    "INCARNATION_MAX",
    "INCARNATION_SPAN",
    "ActorId",
    "NodeId",
    "actor_id",
    "actor_incarnation",
    "actor_name_hash",
    "check_address",
    "check_name",
    "is_start_of",
    "is_unspecified_address",
    "is_unspecified_host",
    "mint_incarnation",
]

ActorId = NewType("ActorId", bytes)
"""16 bytes that mark every write: 8 of the node name's hash, 8 of the incarnation."""

ACTOR_BYTES = 16
"""The size of an `ActorId`."""

INCARNATION_MAX = (1 << 63) - 1
_RANDOM_BITS = 20
_NAME_BYTES = 8

INCARNATION_SPAN = 1 << 62
"""How far a start may raise its incarnation, by refuting, above the one that its actor names.

It counts one for each refutation, and jumps over what an earlier start had reached whose wall
clock was ahead: this is 139 years of a wall clock, and half of all incarnations."""

_ZERO = r"(?:0+|0[xX]0*)"
_IPV4_ZEROS = re.compile(rf"{_ZERO}(?:\.{_ZERO})*\.?")
"""0.0.0.0 in every form that `inet_aton` reads: fewer parts, and each decimal, octal or hex."""


def check_name(what: str, name: object, *, bytes_max: int = NODE_NAME_BYTES_MAX) -> str:
    """Check a name that will travel: text, not empty, encodable, without control characters.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: empty, not encodable as UTF-8, or with a control character.
        LimitError: longer than `bytes_max` in UTF-8.
    """
    if not isinstance(name, str):
        raise InvalidTypeError(f"{what} must be a string, not {type(name).__name__}")
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


def is_unspecified_host(host: str) -> bool:
    """Tell whether a host means "every interface", which no peer can dial. O(length).

    That is 0.0.0.0 in every form that resolvers read (`0`, `0.0`, `0x0`), `::` in every form,
    with a zone too, the IPv4 one mapped into IPv6, `*`, and no host at all. A host that is not
    ASCII is judged as IDNA's nameprep (RFC 3491) folds it, since that makes ASCII of wide digits.

    Args:
        host: a literal or a name, without a port; an IPv6 literal with or without brackets.
    """
    host = host.strip().removeprefix("[").removesuffix("]")
    if not host.isascii():
        # Not the codec itself: its time grows faster than what a peer may send.
        kept = "".join(character for character in host if not in_table_b1(character))
        host = unicodedata.normalize("NFKC", kept).replace("\u3002", ".")
    if host in ("", "*") or _IPV4_ZEROS.fullmatch(host):
        return True
    if ":" not in host:
        return False
    try:
        literal = ipaddress.IPv6Address(host)
    except ValueError:
        return False
    mapped = literal.ipv4_mapped
    return int(literal if mapped is None else mapped) == 0


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_IPV6_LITERAL = re.compile(r"\[([0-9A-Fa-f:.]{2,45})(?:%[A-Za-z0-9._~-]{1,32})?\]", re.ASCII)
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_HOST_NAME_MAX = 254


def check_address(what: str, address: object, *, port_min: int = 1) -> str:
    """Check an address that will travel: `host:port` that every peer can dial. O(length).

    The host is an IPv4 literal, an IPv6 literal in brackets, or a DNS name (RFC 1123, with the
    underscores that service names have); the last part of a name is no number (RFC 3696). A name
    that is not ASCII must be given in its ASCII form, for peers do not agree on how to make it.

    Args:
        what: what it is, for the error.
        address: the address.
        port_min: 0 where the port is replaced by the one that a listener found.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: no such address, or an unspecified host.
        LimitError: longer than `limits.ADDRESS_BYTES_MAX`.
    """
    if not isinstance(address, str):
        raise InvalidTypeError(f"{what} must be a string, not {type(address).__name__}")
    if len(address) > ADDRESS_BYTES_MAX:
        raise LimitError(f"{what} bytes", size=len(address), limit=ADDRESS_BYTES_MAX)
    if is_unspecified_address(address):
        raise InvalidValueError(f"{what}: {address!r} is no address that a peer could reach")
    host, colon, port = address.rpartition(":")
    if not colon or not _is_host(host):
        raise InvalidValueError(f"{what}: {address!r} is no address: it must be host:port")
    if not _PORT.fullmatch(port) or not port_min <= int(port) <= 65_535:
        detail = f"its port must be {port_min} to 65535"
        raise InvalidValueError(f"{what}: {address!r} is no address: {detail}")
    return address


def _is_host(host: str) -> bool:
    """Tell whether this is the host of an address, a literal or a name."""
    if literal := _IPV6_LITERAL.fullmatch(host):
        return _is_literal(ipaddress.IPv6Address, literal[1])
    if len(host) > _HOST_NAME_MAX or not _HOST_NAME.fullmatch(host):
        return False
    last = host.removesuffix(".").rpartition(".")[2]
    return not last.isdigit() or _is_literal(ipaddress.IPv4Address, host)


def _is_literal(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def is_unspecified_address(address: str) -> bool:
    """Tell whether the host of an address is one that no peer can dial. O(length).

    Args:
        address: `host:port`, `[ipv6]:port`, or a host alone.
    """
    host, colon, _ = address.rpartition(":")
    if not colon:
        return is_unspecified_host(address)
    if is_unspecified_host(host):
        return True
    # Without brackets the last colon may be the literal's own.
    return ":" in host and not host.startswith("[") and is_unspecified_host(address)


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


def is_start_of(actor: bytes, *, name: str, incarnation: int) -> bool:
    """Tell whether an actor is a start of a node, and may have reached an incarnation. O(1).

    One part of a record alone, damaged or invented, does not pass: the actor names the node and
    the incarnation of its start, above which a start rises only so far.
    """
    start = actor_incarnation(actor)
    return actor[:_NAME_BYTES] == actor_name_hash(name) and (
        start <= incarnation < start + INCARNATION_SPAN
    )


def actor_incarnation(actor: bytes) -> int:
    """Return the incarnation of the start that an actor names. O(1)."""
    return int.from_bytes(actor[_NAME_BYTES:], "big")


def actor_id(name: str, incarnation: int) -> ActorId:
    """Name the writer of one start: 8 bytes of the name's hash, 8 of the incarnation."""
    return ActorId(actor_name_hash(name) + incarnation.to_bytes(8, "big"))
