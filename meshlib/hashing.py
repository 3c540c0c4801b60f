"""Stable hashes: the only room that imports xxhash.

Equal input gives equal output on every process, machine and Python version, unlike `hash()`.
None of these resists an attacker who chooses the input; they spread load and spot differences.
Source: XXH3, Y. Collet, https://github.com/Cyan4973/xxHash (specification in doc/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import xxhash

__all__ = ["HASH64_MASK", "chain_hashes", "hash64", "hash64_hex", "hash64_text", "hash128"]

HASH64_MASK = (1 << 64) - 1
"""All ones in 64 bits: keeps sums of hashes in 64 bits."""

hash64 = xxhash.xxh3_64_intdigest
"""`hash64(data: bytes, seed: int = 0) -> int`: 64-bit XXH3 of bytes. O(len(data))."""

hash128 = xxhash.xxh3_128_digest
"""`hash128(data: bytes, seed: int = 0) -> bytes`: 16-byte XXH3 of bytes. O(len(data))."""


def hash64_text(text: str, seed: int = 0) -> int:
    """Hash a text's UTF-8 bytes to 64 bits. O(len(text)).

    Lone surrogates are hashed too (`surrogatepass`), so that no `str` raises.
    """
    return hash64(text.encode("utf-8", "surrogatepass"), seed)


def hash64_hex(data: bytes) -> str:
    """Hash bytes to 16 hexadecimal digits, for people to compare. O(len(data))."""
    return f"{hash64(data):016x}"


def chain_hashes(blocks: Iterable[bytes], *, start: int = 0) -> Iterator[int]:
    """Yield the chain hash of each block: it names the block and everything before it.

    `h[i] = hash64(h[i-1] as 8 big-endian bytes + block[i])`, so two sequences share `h[i]`
    if, and but for collisions only if, they share their first `i + 1` blocks. O(total bytes).

    Args:
        blocks: the blocks, in order.
        start: the chain hash of what comes before the first block; 0 at the beginning.
    """
    previous = start
    for block in blocks:
        previous = hash64(previous.to_bytes(8, "big") + block)
        yield previous
