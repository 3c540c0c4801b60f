"""What the prefix indexes take and answer, and what they refuse.

Rule: the checks of texts, tenants and accesses must live in this file, so that the radix tree and
the block index accept the same.
"""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.hashing import HASH64_MASK
from meshlib.limits import KEY_BYTES_MAX, TEXT_CHARACTERS_MAX

__all__ = [
    "ACCESS_MAX",
    "NO_MATCH",
    "BlockEvent",
    "BlocksCleared",
    "BlocksRemoved",
    "BlocksStored",
    "Entry",
    "Match",
    "Placement",
    "check_access",
    "check_block",
    "check_tenant",
    "check_text",
]

ACCESS_MAX: Final = (1 << 63) - 1
"""The highest access that an entry may have."""


class Match(NamedTuple):
    """The longest prefix of a request that somebody holds.

    Args:
        tenants: who holds the deepest matched point, sorted; empty when nothing matched.
        matched: how far the match reaches: characters of a text, or blocks of a chain.
    """

    tenants: tuple[str, ...]
    matched: int


NO_MATCH: Final = Match((), 0)
"""The answer when nobody holds any of it."""


KeyT = TypeVar("KeyT")


class Entry(NamedTuple, Generic[KeyT]):
    """One text, or one sequence of tokens, of one tenant.

    Args:
        tenant: who holds the text.
        text: the whole text, or the tokens.
        access: when it was last used, in the unit of whoever inserted it.
    """

    tenant: str
    text: KeyT
    access: int


class Placement(NamedTuple):
    """What an insertion found.

    Args:
        text_hash: the 64-bit hash of the whole text, as `hashing.hash64_text` makes it.
        previous: the access that the entry had before, or None when it is new.
    """

    text_hash: int
    previous: int | None


class BlocksStored(NamedTuple):
    """A tenant holds blocks from now on.

    Args:
        blocks: their hashes, as `token_chain` makes them; in any order.
    """

    blocks: tuple[int, ...]


class BlocksRemoved(NamedTuple):
    """A tenant holds some blocks no more; which it did not hold, is none.

    Args:
        blocks: their hashes.
    """

    blocks: tuple[int, ...]


class BlocksCleared(NamedTuple):
    """A tenant holds nothing any more."""


BlockEvent = BlocksStored | BlocksRemoved | BlocksCleared
"""What an engine says of its cache."""


def check_tenant(tenant: object) -> str:
    """Check a tenant's name: text, not empty, 1 KiB of UTF-8 at most.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: empty, or not encodable as UTF-8.
        LimitError: longer than 1 KiB in UTF-8.
    """
    if not isinstance(tenant, str):
        raise InvalidTypeError(f"a tenant must be a string, not {type(tenant).__name__}")
    if not tenant:
        raise InvalidValueError("a tenant must not be empty")
    try:
        size = len(tenant.encode())
    except UnicodeEncodeError as error:
        raise InvalidValueError("a tenant cannot be encoded as UTF-8") from error
    if size > KEY_BYTES_MAX:
        raise LimitError("tenant bytes", size=size, limit=KEY_BYTES_MAX)
    return tenant


def check_text(text: object) -> None:
    """Check the text of an entry: not empty, 262,144 characters at most, any Unicode.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: empty; everybody holds the empty text, so it says nothing.
        LimitError: too long.
    """
    if not isinstance(text, str):
        raise InvalidTypeError(f"an entry must be a string, not {type(text).__name__}")
    if not text:
        raise InvalidValueError("the text of an entry must not be empty")
    if len(text) > TEXT_CHARACTERS_MAX:
        raise LimitError("text characters", size=len(text), limit=TEXT_CHARACTERS_MAX)


def check_access(access: object) -> None:
    """Check an access: an integer from 0 to 2**63 - 1.

    Raises:
        InvalidTypeError: not an integer; a bool is none.
        InvalidValueError: out of range.
    """
    if type(access) is not int:
        raise InvalidTypeError(f"an access must be an integer, not {type(access).__name__}")
    if not 0 <= access <= ACCESS_MAX:
        raise InvalidValueError(f"an access must be from 0 to 2**63 - 1, got {access}")


def check_block(block: object) -> None:
    """Check the hash of a block: an integer of 64 bits.

    Raises:
        InvalidTypeError: not an integer; a bool is none.
        InvalidValueError: out of range.
    """
    if type(block) is not int:
        raise InvalidTypeError(f"a block must be an integer, not {type(block).__name__}")
    if not 0 <= block <= HASH64_MASK:
        raise InvalidValueError(f"a block must be of 64 bits, got {block}")
