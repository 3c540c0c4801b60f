"""What is to be told to other routers, and when.

Rule: each change is told within `TELL_S`, or `TELL_END_S`, and all is told again and again while
there is anything, so that what was lost is made good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from meshlib.invariants import require
from meshlib.limits import TENANTS_MAX
from meshlib.routing.load.messages import LoadRow

__all__ = ["TELL_END_S", "TELL_S", "Telling"]

TELL_S: Final = 0.01
"""How long a change waits for others, to travel with them: the half of what it may take."""

TELL_END_S: Final = 0.05
"""The same of an end: it changes a count, and nobody's waiting."""

REPEAT_PREFILL_S: Final = 0.5
"""How often all is told again while there is something to prefill: what was lost is made good."""

REPEAT_S: Final = 2.0
"""How often all is told again while there is anything in flight."""

REPEATS_OF_NOTHING: Final = 3
"""How often it is told again that nothing is left at a worker."""


class Telling:
    """Which workers are to be told of, and who has not heard of anything yet."""

    __slots__ = ("_dirty", "_fading", "_greet_at", "_newcomers", "_repeat_at", "_tell_at")

    def __init__(self) -> None:
        self._dirty: set[str] = set()
        self._fading: dict[str, int] = {}
        self._newcomers: set[str] = set()
        self._greet_at: float | None = None
        self._repeat_at: float | None = None
        self._tell_at: float | None = None

    def mark(self, worker_id: str, *, at: float) -> None:
        """Take note that something has changed at a worker, to be told at a time. O(1)."""
        self._dirty.add(worker_id)
        if self._tell_at is None or at < self._tell_at:
            self._tell_at = at

    def greet(self, names: Iterable[str], *, now: float) -> None:
        """Take note of routers that are to be told of all. O(names)."""
        self._newcomers.update(names)
        if self._newcomers and self._greet_at is None:
            self._greet_at = now + TELL_S

    def next_deadline(self) -> float | None:
        """Return when anything is due, in monotonic seconds; None while nothing is. O(1)."""
        due_at = self._tell_at
        for other_at in (self._repeat_at, self._greet_at):
            if other_at is not None and (due_at is None or other_at < due_at):
                due_at = other_at
        return due_at

    def take_due(self, now: float, *, workers: Collection[str]) -> tuple[Sequence[str], bool]:
        """Return which workers are to be told of to everybody, and whether those are all.

        O(workers told of).

        Args:
            now: monotonic seconds.
            workers: those that have requests.
        """
        if self._repeat_at is not None and now >= self._repeat_at:
            return self._all(workers), True
        if self._tell_at is not None and now >= self._tell_at:
            return sorted(self._dirty), False
        return (), False

    def take_newcomers(self, now: float, *, others: Sequence[str]) -> list[str]:
        """Return who is to be told of all now; once. O(others)."""
        if self._greet_at is None or now < self._greet_at:
            return []
        newcomers = [name for name in others if name in self._newcomers]
        self._newcomers.clear()
        self._greet_at = None
        return newcomers

    def told(self, rows: Sequence[LoadRow], *, now: float, is_all: bool, is_empty: bool) -> None:
        """Take note that these rows are told, and plan when all is told again. O(rows).

        Args:
            rows: of the workers that `take_due` returned.
            now: monotonic seconds.
            is_all: what it said of them.
            is_empty: whether nothing is in flight.
        """
        for row in rows:
            if row.request_count:
                self._fading.pop(row.worker_id, None)
            elif row.worker_id in self._dirty:
                self._fade(row.worker_id)
        self._dirty.clear()
        self._tell_at = None
        if is_all:
            self._repeat_at = None
        if is_empty and not self._fading:
            return
        is_prefilling = any(row.prefill_tokens for row in rows)
        due_at = now + (REPEAT_PREFILL_S if is_prefilling else REPEAT_S)
        if self._repeat_at is None or due_at < self._repeat_at:
            self._repeat_at = due_at

    def _fade(self, worker_id: str) -> None:
        if worker_id not in self._fading and len(self._fading) >= TENANTS_MAX:
            del self._fading[next(iter(self._fading))]
        self._fading[worker_id] = REPEATS_OF_NOTHING

    def _all(self, workers: Collection[str]) -> list[str]:
        """Return the workers to tell of, sorted; those without anything a few times more."""
        for worker_id, count in list(self._fading.items()):
            if count == 1:
                del self._fading[worker_id]
            else:
                self._fading[worker_id] = count - 1
        return sorted({*workers, *self._fading, *self._dirty})

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {"dirty": self._dirty, "told_at": self._tell_at, "repeat_at": self._repeat_at}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(1)."""
        require(self, not self._dirty or self._tell_at is not None, "a change that is never told")
        require(self, self._tell_at is None or bool(self._dirty), "nothing, told at a time")
