"""Who is reached by which bridge just now, and who was told that their way is busy.

Rule: each True of `link_busy` is followed by a False, however a way ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

__all__ = ["Ways"]

WAYS_MAX: Final = 4096


class Ways:
    """The ways of the latest destinations; forgets those that were sent to longest ago.

    Args:
        tell_busy: told of a destination whose way became busy, or free.
    """

    __slots__ = ("_busy_bridges", "_busy_told", "_tell_busy", "_ways")

    def __init__(self, tell_busy: Callable[[str, bool], None]) -> None:
        self._tell_busy = tell_busy
        self._ways: OrderedDict[str, str] = OrderedDict()
        self._busy_bridges: set[str] = set()
        self._busy_told: set[str] = set()

    def took(self, destination: str, bridge: str) -> None:
        """Note that a frame for a destination was given to a bridge. O(1)."""
        if self._ways.get(destination) != bridge:
            self._free(destination)
            self._ways[destination] = bridge
        self._ways.move_to_end(destination)
        if bridge in self._busy_bridges and destination not in self._busy_told:
            self._busy_told.add(destination)
            self._tell_busy(destination, True)
        if len(self._ways) > WAYS_MAX:
            self.forget(next(iter(self._ways)))

    def forget(self, destination: str) -> None:
        """Forget the way of a destination."""
        self._ways.pop(destination, None)
        self._free(destination)

    def busy(self, bridge: str, is_busy: bool) -> None:
        """Hear that the link to a bridge became busy, or free. O(ways)."""
        if is_busy:
            self._busy_bridges.add(bridge)
        else:
            self._busy_bridges.discard(bridge)
        for destination in self._by(bridge):
            if not is_busy:
                self._free(destination)
            elif destination not in self._busy_told:
                self._busy_told.add(destination)
                self._tell_busy(destination, True)

    def lost(self, bridge: str) -> list[str]:
        """Forget the ways over a bridge, and return whose they were. O(ways)."""
        destinations = self._by(bridge)
        for destination in destinations:
            self.forget(destination)
        return destinations

    def _by(self, bridge: str) -> list[str]:
        return [destination for destination, way in self._ways.items() if way == bridge]

    def _free(self, destination: str) -> None:
        if destination in self._busy_told:
            self._busy_told.discard(destination)
            self._tell_busy(destination, False)
