"""A radix tree over token ids: the tree of `radix_tree` for routers that have tokenised already.

Rule: how a sequence of tokens becomes bytes must live in this file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, Final

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.limits import TEXT_CHARACTERS_MAX, TREE_CHARACTERS_MAX
from meshlib.prefix.prefix_tree import PrefixTree

__all__ = ["TOKEN_MAX", "TokenTree", "tokens_to_bytes"]

TOKEN_MAX: Final = (1 << 32) - 1
"""The highest token id."""

TOKEN_BYTES: Final = 4


def tokens_to_bytes(tokens: Sequence[int]) -> bytes:
    """Return token ids as 4 big-endian bytes each. O(tokens), in C.

    Raises:
        InvalidValueError: a token that is no integer from 0 to 2**32 - 1.
    """
    try:
        return struct.pack(f">{len(tokens)}I", *tokens)
    except struct.error as error:
        raise InvalidValueError(f"a token must be from 0 to {TOKEN_MAX}") from error


class TokenTree(PrefixTree[Sequence[int]]):
    """Sequences of token ids by prefix, each with the tenants that hold it; as `RadixTree`.

    Entries come back as tuples. A token takes 4 bytes, so a text takes about a byte a character.

    Args:
        tokens_max: how many tokens the tree may hold over all tenants, where a shared prefix
            counts once; 67,108,864 by default, and up to 4 times that. What would cross it is
            refused, as by `RadixTree`.

    Raises:
        InvalidValueError: `tokens_max` under 1.
        LimitError: `tokens_max` over 4 times 67,108,864.
    """

    __slots__ = ()

    _what: ClassVar[str] = "tokens"
    _width: ClassVar[int] = TOKEN_BYTES

    def __init__(self, *, tokens_max: int = TREE_CHARACTERS_MAX) -> None:
        super().__init__(tokens_max)

    @property
    def tokens_max(self) -> int:
        """How many tokens the tree may hold."""
        return self._units_max

    def tokens(self, tenant: str) -> int:
        """Count the tokens of the nodes that a tenant holds; 0 when unknown. O(1)."""
        holding = self._holdings.get(tenant)
        return 0 if holding is None else holding.units

    @staticmethod
    def _check_key(key: object) -> None:
        if not isinstance(key, Sequence) or isinstance(key, str | bytes | bytearray):
            raise InvalidTypeError(f"an entry must be tokens, not {type(key).__name__}")
        if not key:
            raise InvalidValueError("the tokens of an entry must not be empty")
        if len(key) > TEXT_CHARACTERS_MAX:
            raise LimitError("tokens", size=len(key), limit=TEXT_CHARACTERS_MAX)

    @staticmethod
    def _encoded(key: Sequence[int]) -> bytes:
        return tokens_to_bytes(key)

    @staticmethod
    def _decoded(data: bytes) -> tuple[int, ...]:
        return struct.unpack(f">{len(data) // TOKEN_BYTES}I", data)

    @staticmethod
    def _first(edge: bytes) -> int:
        return int.from_bytes(edge[:TOKEN_BYTES], "big")
