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

_MOVED_AT_ONCE: Final = 16

_READ_MAX: Final = 1 << 16
"""Nodes that are looked at when a table is made of a tree that is there."""


class TextNames:
    """The nodes at which entries end, by the hashes of their texts.

    4 bytes a slot, 4 to 8 slots an entry, up to 262,144 slots. A table that becomes too small is
    moved into a larger one some slots at a time.

    Args:
        nodes: of the tree; the newest 65,536 of them are taken in.
    """

    __slots__ = ("_count", "_former", "_moved", "_nodes", "_slots")

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        end = len(nodes.hashes)
        first = max(0, end - _READ_MAX)
        size = _SLOTS_MIN
        while size < 4 * (end - first):
            size *= _GROWTH
        self._slots = _empty(size)
        self._former = _empty(0)
        self._moved = self._count = 0
        for node in range(first, end):
            if nodes.hashes[node]:
                self._put(node)

    def note(self, node: int) -> None:
        """Take in a node at which an entry ends. O(1)."""
        slots = self._slots
        slot = self._nodes.hashes[node] & len(slots) - 1
        if slots[slot]:
            self._put(node)
        else:
            slots[slot] = node
            self._count += 1
        if self._former:
            self._move()
        elif self._count > len(self._slots) // 4 and len(self._slots) < _SLOTS_MAX:
            self._former, self._moved = self._slots, 0
            self._slots, self._count = _empty(_GROWTH * len(self._slots)), 0

    def _put(self, node: int) -> None:
        slots, hashes = self._slots, self._nodes.hashes
        mask = len(slots) - 1
        name = hashes[node]
        slot = name & mask
        for _ in range(_PROBES):
            held = slots[slot]
            if not held:
                self._count += 1
                break
            if held == node:
                return
            if not hashes[held]:
                break
            slot = slot + 1 & mask
        else:
            slot = name & mask
        slots[slot] = node

    def _move(self) -> None:
        hashes, end = self._nodes.hashes, self._moved + _MOVED_AT_ONCE
        for node in self._former[self._moved : end]:
            if node and hashes[node]:
                self._put(node)
        self._moved = end
        if end >= len(self._former):
            self._former = _empty(0)

    def find(self, name: int) -> int | None:
        """Return the node at which the text of that hash ends; None where it is not found. O(1)."""
        node = self._find(self._slots, name)
        return self._find(self._former, name) if node is None and self._former else node

    def _find(self, slots: array[int], name: int) -> int | None:
        hashes, mask = self._nodes.hashes, len(slots) - 1
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
        hashes, below, slots = self._nodes.hashes, self._nodes.below, self._slots
        mask = len(slots) - 1
        while node != ROOT:
            name = hashes[node]
            if name and (slots[name & mask] == node or self.find(name) == node):
                return name
            hanging = below[node]
            if hanging is None:
                return 0
            node = next(iter(hanging.values())) if isinstance(hanging, dict) else hanging
        return 0


def _empty(size: int) -> array[int]:
    return array("i", bytes(size * array("i").itemsize))
