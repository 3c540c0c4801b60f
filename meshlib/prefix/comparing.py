"""How far two texts, or two strings of bytes, are the same.

Rule: comparing an edge that does not match whole must live in this file. No loop runs over
characters: slices are compared in C.
"""

from __future__ import annotations

from typing import Final

__all__ = ["common_bytes", "common_length", "common_prefix_length"]

_WINDOW: Final = 16
_GALLOP_FACTOR: Final = 8


def common_length(edge: str, text: str, position: int) -> int:
    """Return how many characters of `edge` stand in `text` at `position`; the first one does.

    Growing steps from the start keep the cost with what matches, not with the edge's length.
    """
    limit = min(len(edge), len(text) - position)
    low = 1
    step = _WINDOW
    while True:
        high = min(low + step, limit)
        if not text.startswith(edge[low:high], position + low):
            break
        low = high
        if low == limit:
            return limit
        step *= _GALLOP_FACTOR
    while high - low > 1:
        middle = (low + high) // 2
        if text.startswith(edge[low:middle], position + low):
            low = middle
        else:
            high = middle
    return low


def common_prefix_length(one: str, other: str) -> int:
    """Return how many leading characters two texts share. O(what they share), in C."""
    if not one or not other or one[0] != other[0]:
        return 0
    return common_length(one, other, 0)


def common_bytes(edge: bytes, data: bytes, at: int) -> int:
    """Return how many bytes of `edge` stand in `data` at `at`. O(what is shared), in C.

    Growing steps as of `common_length`; within the last of them two integers are compared, whose
    highest differing bit tells the first differing byte.
    """
    low, high = 0, _WINDOW
    piece, other = edge[:_WINDOW], data[at : at + _WINDOW]
    while piece == other:
        # What is shorter than asked for ends by what the two share.
        low += len(piece)
        if low < high:
            return low
        high = low * _GALLOP_FACTOR
        piece, other = edge[low:high], data[at + low : at + high]
    if len(piece) != len(other):
        shorter = min(len(piece), len(other))
        piece, other = piece[:shorter], other[:shorter]
        if piece == other:
            return low + shorter
    while len(piece) > _WINDOW:
        middle = len(piece) // 2
        if piece[:middle] == other[:middle]:
            piece, other = piece[middle:], other[middle:]
            low += middle
        else:
            piece, other = piece[:middle], other[:middle]
    differing = int.from_bytes(piece, "big") ^ int.from_bytes(other, "big")
    return low + len(piece) - (differing.bit_length() + 7) // 8
