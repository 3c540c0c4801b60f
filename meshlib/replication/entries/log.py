"""The log: what a node still has of every writer's entries, in order and bounded.

Rule: for each writer the log holds everything after its mark (`trimmed`) and up to the vector,
without a hole. Whoever drops an entry raises the mark; both must live in this file.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.replication.entries.joining import (
    JOINED_PER_STEP,
    JoiningTime,
    join_entries,
    join_first,
    run_of,
)
from meshlib.replication.records import Gap, Lacking, LogEntry

__all__ = ["ReplicationLog", "entry_bytes", "join_entries"]

ENTRY_OVERHEAD_BYTES: Final = 96
"""Counted for each entry on top of its delta: its numbers, names and place in a frame."""


def entry_bytes(entry: LogEntry) -> int:
    """Return what an entry counts for against the limits. O(1)."""
    return len(entry.delta) + len(entry.document) + ENTRY_OVERHEAD_BYTES


@define(slots=True)
class _ActorLog:
    """One writer's entries. `arrivals` runs beside `entries` and orders drops over writers."""

    trimmed: int = 0
    entries: list[LogEntry] = field(factory=list)
    arrivals: list[int] = field(factory=list)
    joined_upto: int = 0


def _last(entry: LogEntry) -> int:
    return entry.last


class ReplicationLog:
    """Entries by writer.

    Args:
        bytes_max: what `shorten` brings it down to.
        seconds: returns how late it is, so that joining takes no long time.
    """

    __slots__ = ("_actors", "_arrived", "_bytes", "_bytes_max", "_document_bytes", "_seconds")

    def __init__(self, *, bytes_max: int, seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._bytes_max = bytes_max
        self._seconds = seconds
        self._actors: dict[ActorId, _ActorLog] = {}
        self._document_bytes: dict[str, int] = {}
        self._bytes = 0
        self._arrived = 0

    def __len__(self) -> int:
        return sum(len(log.entries) for log in self._actors.values())

    def __iter__(self) -> Iterator[LogEntry]:
        for log in self._actors.values():
            yield from log.entries

    @property
    def bytes(self) -> int:
        """What the entries count for."""
        return self._bytes

    @property
    def is_over(self) -> bool:
        """Whether the log is over its limit."""
        return self._bytes > self._bytes_max

    def trimmed(self, actor: ActorId) -> int:
        """Return the mark: the log holds only what is above it. O(1)."""
        log = self._actors.get(actor)
        return 0 if log is None else log.trimmed

    def append(self, entry: LogEntry) -> None:
        """Add a writer's next entry. O(1).

        An entry that joins some the log already holds takes their place.
        """
        log = self._actors.get(entry.actor)
        if log is None:
            log = self._actors[entry.actor] = _ActorLog(trimmed=entry.first - 1)
        entries = log.entries
        while entries and entries[-1].first >= entry.first:
            self._count(entries.pop(), -1)
            log.arrivals.pop()
        self._arrived += 1
        entries.append(entry)
        log.arrivals.append(self._arrived)
        self._count(entry, 1)

    def _count(self, entry: LogEntry, sign: int) -> None:
        size = sign * (len(entry.delta) + len(entry.document) + ENTRY_OVERHEAD_BYTES)
        self._bytes += size
        left = self._document_bytes.get(entry.document, 0) + size
        if left:
            self._document_bytes[entry.document] = left
        else:
            del self._document_bytes[entry.document]

    def _drop_front(self, log: _ActorLog, count: int) -> None:
        for entry in log.entries[:count]:
            self._count(entry, -1)
            log.trimmed = max(log.trimmed, entry.last)
        del log.entries[:count]
        del log.arrivals[:count]

    def trim(self, stable: Mapping[ActorId, int]) -> int:
        """Drop what every member has, and return how many entries. O(entries dropped)."""
        dropped = 0
        for actor, upto in stable.items():
            log = self._actors.get(actor)
            if log is not None:
                count = bisect_right(log.entries, upto, key=_last)
                if count:
                    self._drop_front(log, count)
                    dropped += count
        return dropped

    def skip_to(self, actor: ActorId, sequence: int) -> None:
        """Note that everything up to `sequence` came by other ways than entries."""
        log = self._actors.setdefault(actor, _ActorLog())
        if not log.entries or log.entries[-1].last < sequence:
            self._drop_front(log, len(log.entries))
            log.trimmed = max(log.trimmed, sequence)

    def forget(self, actor: ActorId) -> None:
        """Drop a writer altogether. O(its entries)."""
        log = self._actors.pop(actor, None)
        if log is not None:
            self._drop_front(log, len(log.entries))

    def rewrite(self, actor: ActorId, new: ActorId, change: Callable[[LogEntry], LogEntry]) -> None:
        """Replace a writer's entries, and log them under a new writer that has none yet. O(size).

        Args:
            actor: the writer.
            new: the other one.
            change: returns the entry to take instead, of the same numbers and document.
        """
        log = self._actors.pop(actor, None)
        if log is None:
            return
        for place, entry in enumerate(log.entries):
            self._count(entry, -1)
            log.entries[place] = changed = change(entry)
            self._count(changed, 1)
        self._actors[new] = log

    def join_adjacent(self) -> int:
        """Join neighbours of one actor and document, oldest first; return how many fewer there are.

        The newer half of each writer's entries is left alone: most peers lack only these, and
        a joined entry is sent as a whole. As many as fit one entry are joined at once, so none is
        read and written again for each that follows it. O(`JOINED_PER_STEP`), and no longer than
        `JOINING_S` and one entry more.
        """
        time, bytes_left, gone = JoiningTime(self._seconds), JOINED_PER_STEP, 0
        for log in self._actors.values():
            entries = log.entries
            end = len(entries) // 2
            index = bisect_right(entries, log.joined_upto, 0, end, key=_last)
            while index + 1 < end and bytes_left > 0 and not time.is_over:
                run = run_of(entries, index, end)
                bytes_left -= sum(map(entry_bytes, run))
                joined, count = join_first(run, time)
                if joined is None:
                    index += 1
                    log.joined_upto = entries[index].first - 1
                    continue
                gone += count - 1
                end -= count - 1
                for entry in run[:count]:
                    self._count(entry, -1)
                self._count(joined, 1)
                entries[index : index + count] = [joined]
                del log.arrivals[index : index + count - 1]
        return gone

    def shorten(self) -> int:
        """Bring the log under its limit: join, then drop the oldest; return how many dropped.

        Drops to seven eighths, so that a full log does not do this at each entry.
        """
        if self._bytes <= self._bytes_max:
            return 0
        self.join_adjacent()
        if self._bytes <= self._bytes_max:
            return 0
        goal = self._bytes_max * 7 // 8
        heads = [(log.arrivals[0], actor) for actor, log in self._actors.items() if log.entries]
        heapq.heapify(heads)
        dropped = 0
        while heads and self._bytes > goal:
            _, actor = heads[0]
            log = self._actors[actor]
            self._drop_front(log, 1)
            dropped += 1
            if log.entries:
                heapq.heapreplace(heads, (log.arrivals[0], actor))
            else:
                heapq.heappop(heads)
        return dropped

    def lacking(
        self,
        vector: Mapping[ActorId, int],
        peer_vector: Mapping[ActorId, int],
        *,
        bytes_max: int,
    ) -> Lacking:
        """Return what a peer lacks: actors it does not know first, then small documents.

        Each actor's entries come in order, so those that fit are of use at once. An entry over
        the budget is sent when it is the only one. Where the log does not reach back far enough
        for one actor, the entries of the others still come: what is new does not wait for a
        snapshot of what is old. O(actors + entries returned).
        """
        heads: list[tuple[bool, int, ActorId, int]] = []
        needs_transfer = False
        for actor, have in vector.items():
            theirs = peer_vector.get(actor, 0)
            if theirs >= have:
                continue
            log = self._actors.get(actor)
            if log is None or theirs < log.trimmed:
                needs_transfer = True
                continue
            index = bisect_right(log.entries, theirs, key=_last)
            heads.append(self._head(log, index, actor, theirs > 0))
        heapq.heapify(heads)
        chosen: list[LogEntry] = []
        used, is_complete = 0, True
        while heads:
            is_known, _, actor, index = heads[0]
            entries = self._actors[actor].entries
            size = entry_bytes(entries[index])
            if chosen and used + size > bytes_max:
                is_complete = False
                heapq.heappop(heads)
                continue
            chosen.append(entries[index])
            used += size
            if index + 1 < len(entries):
                heapq.heapreplace(
                    heads, self._head(self._actors[actor], index + 1, actor, is_known)
                )
            else:
                heapq.heappop(heads)
        return Lacking(chosen, needs_transfer, is_complete and not needs_transfer)

    def _head(
        self, log: _ActorLog, index: int, actor: ActorId, is_known: bool
    ) -> tuple[bool, int, ActorId, int]:
        return is_known, self._document_bytes[log.entries[index].document], actor, index

    def between(self, gap: Gap, *, bytes_max: int) -> Lacking:
        """Return one writer's entries that fill a gap, under a budget. O(entries returned)."""
        log = self._actors.get(gap.actor)
        chosen: list[LogEntry] = []
        if log is None:
            return Lacking(chosen, False, False)
        if gap.first <= log.trimmed:
            return Lacking(chosen, True, False)
        used = 0
        for index in range(bisect_right(log.entries, gap.first - 1, key=_last), len(log.entries)):
            entry = log.entries[index]
            used += entry_bytes(entry)
            if entry.first > gap.last or (chosen and used > bytes_max):
                break
            chosen.append(entry)
        return Lacking(chosen, False, bool(chosen) and chosen[-1].last >= gap.last)

    def ends(self) -> dict[ActorId, int]:
        """Return the number of each writer's last entry, or its mark. O(writers)."""
        return {
            actor: log.entries[-1].last if log.entries else log.trimmed
            for actor, log in self._actors.items()
        }

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how much there is, and of each writer from where to where."""
        return {
            "bytes": self._bytes,
            "document_bytes": MappingProxyType(self._document_bytes),
            "trimmed": {actor: log.trimmed for actor, log in self._actors.items()},
            "ends": self.ends(),
        }

    def _check(self) -> None:
        """Assert what this file promises."""
        sizes: dict[str, int] = {}
        for log in self._actors.values():
            end = log.trimmed
            is_beside = len(log.entries) == len(log.arrivals)
            require(self, is_beside, "the arrivals do not run beside the entries")
            is_in_order = all(one < other for one, other in pairwise(log.arrivals))
            require(self, is_in_order, "the arrivals are out of order")
            for entry in log.entries:
                is_next = entry.first <= end + 1 and entry.last > end
                require(self, is_next, "there is a hole or a step back")
                end = entry.last
                sizes[entry.document] = sizes.get(entry.document, 0) + entry_bytes(entry)
        require(self, sum(sizes.values()) == self._bytes, "the bytes are miscounted")
        require(self, sizes == self._document_bytes, "the bytes of a document are miscounted")
