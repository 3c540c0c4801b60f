"""Texts by the hashes of their bytes: where each ends in a tree.

Rule: a name that is found is right, and one that is there may not be found: whoever asks must have
another way. So a table of a few bytes an entry does, in which the later of two takes the place.
"""

from __future__ import annotations

from array import array
from typing import Final

from meshlib.prefix.columns import ROOT
from meshlib.prefix.nodes import Nodes

__all__ = ["TextNames"]

_SLOTS_MIN: Final = 256
_SLOTS_MAX: Final = 1 << 18
_GROWTH: Final = 2
_PROBES: Final = 8
"""Places where a name may stand: where all are taken, the first one goes."""

_READ_MAX: Final = 1 << 16
"""Nodes that are looked at when a table is made of a tree that is there."""


class TextNames:
    """The nodes at which entries end, by the hashes of their texts.

    4 bytes a slot, 4 to 8 slots an entry, up to 262,144 slots.

    Args:
        nodes: of the tree; the newest 65,536 of them are taken in.
    """

    __slots__ = ("_count", "_mask", "_nodes", "_slots")

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._count = 0
        self._mask = _SLOTS_MIN - 1
        self._slots = array("i", bytes(4 * _SLOTS_MIN))
        end = len(nodes.hashes)
        for node in range(max(0, end - _READ_MAX), end):
            if nodes.hashes[node]:
                self.note(node)

    def note(self, node: int) -> None:
        """Take in a node at which an entry ends. O(1) amortised."""
        slots, hashes, mask = self._slots, self._nodes.hashes, self._mask
        name = hashes[node]
        slot = name & mask
        for _ in range(_PROBES):
            held = slots[slot]
            if not held or not hashes[held]:
                break
            if held == node:
                return
            slot = slot + 1 & mask
        else:
            slot = name & mask
        slots[slot] = node
        self._count += 1
        if self._count > len(slots) // 4 and len(slots) < _SLOTS_MAX:
            self._resize()

    def _resize(self) -> None:
        """Put what is still there into a table with room for it. O(slots)."""
        hashes = self._nodes.hashes
        kept = [node for node in self._slots if node and hashes[node]]
        size = len(self._slots)
        if len(kept) > size // 8:
            size *= _GROWTH
        self._mask, self._slots, self._count = size - 1, array("i", bytes(4 * size)), 0
        for node in kept:
            self.note(node)

    def find(self, name: int) -> int | None:
        """Return the node at which the text of that hash ends; None where it is not found. O(1)."""
        slots, hashes, mask = self._slots, self._nodes.hashes, self._mask
        slot = name & mask
        for _ in range(_PROBES):
            node = slots[slot]
            if not node or not name:
                return None
            if hashes[node] == name:
                return node
            slot = slot + 1 & mask
        return None

    def below(self, node: int) -> int:
        """Return the name of a text that goes through a node or ends there; 0 without one.

        O(nodes below, on one way).
        """
        hashes, below = self._nodes.hashes, self._nodes.below
        while node != ROOT:
            name = hashes[node]
            if name and self.find(name) == node:
                return name
            hanging = below[node]
            if hanging is None:
                return 0
            node = next(iter(hanging.values())) if isinstance(hanging, dict) else hanging
        return 0
