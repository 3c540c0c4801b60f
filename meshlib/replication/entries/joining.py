"""Neighbours in a log become one entry: how many at once, and for how long.

Rule: how far joining goes is decided in this file. A few bytes may stand for long texts, so that
neither a count nor a size tells how long it takes: the time does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from meshlib.crdt import absorb, registry
from meshlib.errors import MeshError
from meshlib.limits import FRAME_CLOSED_BYTES
from meshlib.replication.records import LogEntry

__all__ = ["JOINED_PER_STEP", "JoiningTime", "join_entries", "join_first", "run_of"]

JOINED_BYTES_MAX: Final = FRAME_CLOSED_BYTES
"""Joining stops here: a peer that lacks one write of a joined entry is sent all of it, and takes it
in one step; and on a slow link all else waits behind it."""

JOINED_PER_STEP: Final = 32 * JOINED_BYTES_MAX
"""What may be read to be joined in one step, in bytes."""

JOINING_S: Final = 0.003
"""How long one step goes on."""


class JoiningTime:
    """Tells when a step of joining has taken long enough.

    Args:
        seconds: returns how late it is. A clock that is set meanwhile only ends the step early.
    """

    __slots__ = ("_begun", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._begun = seconds()

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return not 0 <= self._seconds() - self._begun < JOINING_S


def join_entries(first: LogEntry, *others: LogEntry) -> LogEntry:
    """Join adjacent entries of one actor and document. O(size): each is read once.

    Raises:
        RemoteError: one of them cannot be read (it was passed over).
    """
    state: Any = registry.decode(first.delta)
    last = first.last
    for entry in others:
        state, _ = absorb(state, registry.decode(entry.delta))
        last = entry.last
    return LogEntry(first.actor, first.first, last, first.document, registry.encode(state))


def run_of(entries: Sequence[LogEntry], index: int, end: int) -> list[LogEntry]:
    """Return the entries from `index` on, before `end`, that one entry has room for. O(these)."""
    first = entries[index]
    run, size = [first], len(first.delta)
    for entry in islice(entries, index + 1, end):
        if entry.document != first.document or entry.first != run[-1].last + 1:
            break
        size += len(entry.delta)
        if size > JOINED_BYTES_MAX:
            break
        run.append(entry)
    return run


def join_first(run: Sequence[LogEntry], time: JoiningTime) -> tuple[LogEntry | None, int]:
    """Join as many of a run as time allows, the first ones.

    Returns:
        what they became, and how many they are; None where that is not even two. What cannot be
        read (it was passed over) stays as it is, and so does what takes all the time to be read.
    """
    if len(run) < 2:
        return None, 1
    count = 1
    try:
        state: Any = registry.decode(run[0].delta)
        for entry in run[1:]:
            if time.is_over:
                break
            state, _ = absorb(state, registry.decode(entry.delta))
            count += 1
        if count < 2:
            return None, 1
        first, last = run[0], run[count - 1]
        data = registry.encode(state)
        return LogEntry(first.actor, first.first, last.last, first.document, data), count
    except MeshError:
        # Those before it can be one entry all the same.
        return (join_entries(*run[:count]), count) if count > 1 else (None, 1)
