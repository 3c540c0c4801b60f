"""Chains: what a text or a sequence of tokens is where only hashes may be kept or sent.

Rule: how a text or a sequence of tokens becomes a chain must live in this file. The hash of a
block names everything up to its end (`hashing.chain_hashes`), so no text is kept or sent, and a
match ends at the end of a block.
Source: the block hashes of vLLM's prefix cache and of Dynamo's key-value router.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from meshlib.errors import InvalidValueError
from meshlib.hashing import chain_hashes
from meshlib.prefix.token_tree import TOKEN_BYTES, tokens_to_bytes

__all__ = [
    "BLOCK_BYTES",
    "BLOCK_CHARACTERS",
    "BLOCK_TOKENS",
    "Chain",
    "blocks_to_bytes",
    "bytes_to_blocks",
    "text_chain",
    "token_blocks",
    "token_chain",
]

BLOCK_CHARACTERS: Final = 256
"""Characters of a block of text unless said otherwise: about 64 tokens."""

BLOCK_TOKENS: Final = 16
"""Tokens of a block unless said otherwise: the default of vLLM and of sglang's indexers."""

BLOCK_BYTES: Final = 8
"""One block's hash."""


class Chain(tuple[int, ...]):  # noqa: SLOT001 - what a tuple's subclass has in slots is empty
    """The hashes of the leading blocks of something, from its beginning on: a tuple of integers.

    Made by `text_chain` and `token_chain` only, so an index may rely on each hash naming what
    comes before it; what is sliced or built otherwise is a plain tuple and is taken block by
    block. It has its bytes with it, which are what an index compares.
    """

    data: bytes
    """The hashes, 8 big-endian bytes each."""


def text_chain(text: str, *, block_characters: int = BLOCK_CHARACTERS) -> Chain:
    """Return the chain of the whole blocks of a text; what does not fill a block is left out.

    O(len(text)). All nodes of a cluster must cut alike.

    Args:
        text: any Unicode, lone surrogates included.
        block_characters: at least 1.

    Raises:
        InvalidValueError: `block_characters` under 1.
    """
    if block_characters < 1:
        raise InvalidValueError(f"block_characters must be at least 1, got {block_characters}")
    end = len(text) - len(text) % block_characters
    if text.isascii():
        data = text.encode()
        return _chain(
            data[start : start + block_characters] for start in range(0, end, block_characters)
        )
    return _chain(
        text[start : start + block_characters].encode("utf-8", "surrogatepass")
        for start in range(0, end, block_characters)
    )


def token_chain(tokens: Sequence[int], *, block_tokens: int = BLOCK_TOKENS) -> Chain:
    """Return the chain of the whole blocks of a sequence of token ids, as `text_chain` does.

    Args:
        tokens: ids from 0 to 2**32 - 1.
        block_tokens: at least 1.

    Raises:
        InvalidValueError: `block_tokens` under 1, or a token out of range.
    """
    return _chain(_token_pieces(tokens, block_tokens))


def token_blocks(tokens: Sequence[int], *, block_tokens: int, start: int) -> tuple[int, ...]:
    """Return the hashes of blocks that go on where another chain ends. O(tokens).

    Args:
        tokens: ids from 0 to 2**32 - 1.
        block_tokens: at least 1.
        start: the hash of the block before, or whatever else the chain depends on; 0 for a
            beginning.

    Raises:
        InvalidValueError: `block_tokens` under 1, or a token out of range.
    """
    return tuple(chain_hashes(_token_pieces(tokens, block_tokens), start=start))


def _token_pieces(tokens: Sequence[int], block_tokens: int) -> Iterator[bytes]:
    if block_tokens < 1:
        raise InvalidValueError(f"block_tokens must be at least 1, got {block_tokens}")
    data = tokens_to_bytes(tokens[: len(tokens) - len(tokens) % block_tokens])
    size = block_tokens * TOKEN_BYTES
    return (data[start : start + size] for start in range(0, len(data), size))


def _chain(blocks: Iterable[bytes]) -> Chain:
    chain = Chain(chain_hashes(blocks))
    chain.data = blocks_to_bytes(chain)
    return chain


def blocks_to_bytes(blocks: Sequence[int]) -> bytes:
    """Return hashes of 64 bits as 8 big-endian bytes each. O(blocks), in C."""
    return struct.pack(f">{len(blocks)}Q", *blocks)


def bytes_to_blocks(data: bytes) -> tuple[int, ...]:
    """Return the hashes whose bytes these are. O(blocks), in C."""
    return struct.unpack(f">{len(data) // BLOCK_BYTES}Q", data)
