"""Entries that cannot be absorbed yet: ahead of a gap, or of this node's clock.

Rule: what waits here was not absorbed and is in no vector, so dropping it loses nothing; it is
asked for again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.replication.entries.log import entry_bytes
from meshlib.replication.records import Gap, LogEntry

__all__ = ["GapBuffer"]

ACTOR_SHARE: Final = 4
"""One writer may fill this fraction of the buffer, so that it cannot crowd out the others."""


def _first(entry: LogEntry) -> int:
    return entry.first


@define(slots=True)
class _Waiting:
    """One writer's entries by their first number."""

    entries: list[LogEntry] = field(factory=list)
    size: int = 0


class GapBuffer:
    """Waiting entries by writer, bounded.

    Args:
        bytes_max: of all of them.
    """

    __slots__ = ("_bytes", "_bytes_max", "_waiting")

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: dict[ActorId, _Waiting] = {}

    def __len__(self) -> int:
        return sum(len(waiting.entries) for waiting in self._waiting.values())

    def __contains__(self, actor: object) -> bool:
        return actor in self._waiting

    @property
    def bytes(self) -> int:
        """What the entries count for."""
        return self._bytes

    def actors(self) -> list[ActorId]:
        """Return the writers with entries here, sorted. O(n log n)."""
        return sorted(self._waiting)

    def put(self, entry: LogEntry) -> bool:
        """Keep an entry; False when there is no room for it. O(log n).

        Where room is short, an entry further ahead of the same writer makes way.
        """
        waiting = self._waiting.get(entry.actor)
        if waiting is None:
            waiting = _Waiting()
        entries = waiting.entries
        index = bisect_left(entries, entry.first, key=_first)
        if index < len(entries) and entries[index].first == entry.first:
            if entries[index].last >= entry.last:
                return True
            self._remove(waiting, index)
        size = entry_bytes(entry)
        while entries and entries[-1].first > entry.first and not self._has_room(waiting, size):
            self._remove(waiting, len(entries) - 1)
        if not self._has_room(waiting, size):
            if not entries:
                self._waiting.pop(entry.actor, None)
            return False
        insort(entries, entry, key=_first)
        waiting.size += size
        self._bytes += size
        self._waiting[entry.actor] = waiting
        return True

    def _has_room(self, waiting: _Waiting, size: int) -> bool:
        return (
            self._bytes + size <= self._bytes_max
            and waiting.size + size <= self._bytes_max // ACTOR_SHARE
        )

    def _remove(self, waiting: _Waiting, index: int) -> None:
        size = entry_bytes(waiting.entries.pop(index))
        waiting.size -= size
        self._bytes -= size

    def pop_next(self, actor: ActorId, *, have: int) -> LogEntry | None:
        """Take the writer's first entry if it follows `have`; drop those it covers. O(n)."""
        waiting = self._waiting.get(actor)
        if waiting is None:
            return None
        entries = waiting.entries
        index = 0
        while index < len(entries) and entries[index].first <= have:
            # Behind one that reaches further stand others that do not, where writers' entries were
            # joined in another way on another node.
            if entries[index].last <= have:
                self._remove(waiting, index)
            else:
                index += 1
        found: LogEntry | None = None
        if entries and entries[0].first <= have + 1:
            found = entries[0]
            self._remove(waiting, 0)
        if not entries:
            del self._waiting[actor]
        return found

    def drop(self, actor: ActorId) -> None:
        """Drop a writer's entries."""
        waiting = self._waiting.pop(actor, None)
        if waiting is not None:
            self._bytes -= waiting.size

    def gaps(self, actor: ActorId, *, have: int) -> list[Gap]:
        """Return the numbers missing before and between a writer's entries. O(n)."""
        gaps: list[Gap] = []
        waiting = self._waiting.get(actor)
        for entry in waiting.entries if waiting else ():
            if entry.first > have + 1:
                gaps.append(Gap(actor, have + 1, entry.first - 1))
            have = max(have, entry.last)
        return gaps

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what waits, by its writer."""
        return {
            "bytes": self._bytes,
            "entry_count": len(self),
            "ranges": {
                actor: [(entry.first, entry.last) for entry in waiting.entries]
                for actor, waiting in self._waiting.items()
            },
        }

    def _check(self) -> None:
        """Assert that what waits is in order, is counted right and is within its limits."""
        total = 0
        for actor, waiting in self._waiting.items():
            firsts = [entry.first for entry in waiting.entries]
            require(self, firsts, "a writer is kept without entries")
            is_in_order = all(one < other for one, other in pairwise(firsts))
            require(self, is_in_order, "entries are out of order, or twice")
            is_its_own = all(entry.actor == actor for entry in waiting.entries)
            require(self, is_its_own, "an entry is kept under another writer")
            size = sum(map(entry_bytes, waiting.entries))
            require(self, size == waiting.size, "a writer's bytes are miscounted")
            require(self, size <= self._bytes_max // ACTOR_SHARE, "a writer has too large a share")
            total += size
        require(self, total == self._bytes, "the bytes are miscounted")
        require(self, total <= self._bytes_max, "more waits than may")
