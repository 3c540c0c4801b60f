"""Cutting a state into pieces whose bytes fit a limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.crdt import join_all, registry

__all__ = ["encoded_pieces"]


def encoded_pieces(parts: list[Any], *, bytes_max: int) -> Iterator[tuple[Any, bytes]]:
    """Yield states and their bytes whose join is the join of `parts`, each within a limit.

    A state that is too large is cut along its decomposition; one that is irreducible is
    yielded although it is over the limit. O(n log n) for n irreducible parts.

    Args:
        parts: one or more states of one type.
        bytes_max: of each piece.
    """
    joined = parts[0] if len(parts) == 1 else join_all(parts)
    data = registry.encode(joined)
    if len(data) > bytes_max:
        pieces = list(joined.decompose()) if len(parts) == 1 else parts
        if len(pieces) > 1:
            chunk_count = min(len(pieces), max(2, len(data) * 5 // (bytes_max * 4) + 1))
            step = -(-len(pieces) // chunk_count)
            for start in range(0, len(pieces), step):
                yield from encoded_pieces(pieces[start : start + step], bytes_max=bytes_max)
            return
    yield joined, data
