"""The event loop, and how long it is held: measured exactly, at no cost worth telling.

Between two looks at the sockets a loop does what has become due, and whatever comes meanwhile
waits for it: this is the lag that probes and requests see. It is measured where the loop looks.
uvloop lets nobody see where it looks, so there a timer says how late it was: a turn that held the
loop for long makes it late by as much, less up to the time between two of its rings.

A turn is long because it does much, or because the machine lets it do nothing: another program
has the processor, or the host of a virtual machine. Which of the two it was is told by the
processor time of the thread, for only the first can be mended here.

A full collection looks at all that is alive: a tree of some hundred thousand texts makes that take
longer than the loop may be held, each time for nothing. What was alive after one that took long is
frozen (`gc.freeze`): it goes when nothing refers to it any more, as ever, and only a cycle that was
there at that time stays for good. That is what was under way in one moment, a few times in the
life of a process: each time when as much again has come to stay.

The interpreter collects when enough containers have come to stay, however long that takes. A text
in a tree is hardly any of them, and takes as long to look at: a tree had 190,000 before it was
looked at for the first time. So full collections come by the clock as well, and find little new.
And a state that comes whole, from a file or from a peer, is frozen as it has come.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import selectors
import time
from collections.abc import Callable
from enum import StrEnum
from time import monotonic, thread_time
from types import TracebackType
from typing import Any, Final, Self

from attrs import define

from meshlib.errors import ConfigError
from meshlib_server.logs import quiet_warning

__all__ = [
    "COLLECTED_EACH_S",
    "HELD_S",
    "PAUSE_S",
    "EventLoop",
    "Freezer",
    "LoopLag",
    "collect_often",
    "freeze_what_came",
    "new_watched_loop",
]

HELD_S: Final = 0.02
"""Nothing may hold the loop for longer than this."""

PAUSE_S: Final = 0.005
"""A full collection that took longer freezes what was alive after it: a quarter of what is allowed,
for the next one has a quarter more to look at."""

COLLECTED_EACH_S: Final = 10.0
"""So often everything is collected that is not frozen: some 15,000 texts in a tree may have come
since the last time, which take 2 to 5 ms."""

_TOLD_S = 0.5
"""What is worth a line: so long a stall makes peers wonder."""


class EventLoop(StrEnum):
    """Which event loop the server runs on."""

    AUTO = "auto"
    """uvloop where it is installed, else asyncio's own."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


@define(kw_only=True)
class LoopLag:
    """What was measured since the start. Counts only grow.

    Args:
        turns: turns of the loop; 0 on uvloop, which does not tell.
        busy_s: how long they took together, in seconds; likewise.
        held_count: turns that took longer than `HELD_S`.
        held_max_s: how long the longest took.
        starved_count: turns longer than `HELD_S` that had a processor for no longer than that: they
            waited for it, or for a disk. On uvloop some are missed: see `held_cpu_max_s`.
        held_cpu_max_s: the most processor time that such a long turn took, in seconds; on uvloop
            with what ran in the `HELD_S` before it.
    """

    turns: int = 0
    busy_s: float = 0.0
    held_count: int = 0
    held_max_s: float = 0.0
    starved_count: int = 0
    held_cpu_max_s: float = 0.0

    def note_held(self, turn_s: float, cpu_s: float) -> None:
        """Count a turn that took too long, if it did.

        Args:
            turn_s: how long it took.
            cpu_s: how long it had a processor meanwhile.
        """
        if turn_s > HELD_S:
            self.held_count += 1
            self.starved_count += cpu_s <= HELD_S
            self.held_max_s = max(self.held_max_s, turn_s)
            self.held_cpu_max_s = max(self.held_cpu_max_s, cpu_s)
            if turn_s > _TOLD_S:
                busy = f"for {turn_s:.2f} s, {cpu_s:.2f} s of them on a processor"
                quiet_warning("the event loop was held", busy)


_look: Final = selectors.DefaultSelector.select


class _WatchingSelector(selectors.DefaultSelector):
    """Looks at the sockets, and takes the time between two looks."""

    def __init__(self, lag: LoopLag) -> None:
        super().__init__()
        self._lag = lag
        self._looked_at: float | None = None
        self._cpu_at = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Wait for what is ready, and note how long the turn before took."""
        looked_at = self._looked_at
        if looked_at is not None:  # in one place: this is done several times for each request
            turn_s, lag = monotonic() - looked_at, self._lag
            lag.turns += 1
            lag.busy_s += turn_s
            if turn_s > HELD_S:
                lag.note_held(turn_s, thread_time() - self._cpu_at)
        found = _look(self, timeout)
        self._looked_at, self._cpu_at = monotonic(), thread_time()
        return found


class _Bell:
    """Rings again and again, and takes down how late it was.

    Args:
        lag: where that is counted.
        loop: whose timer it is.
    """

    def __init__(self, lag: LoopLag, loop: asyncio.AbstractEventLoop) -> None:
        self._lag = lag
        self._loop = loop
        self._wind()

    def _wind(self) -> None:
        self._due_at, self._cpu_at = self._loop.time() + HELD_S, thread_time()
        self._loop.call_at(self._due_at, self._ring)

    def _ring(self) -> None:
        self._lag.note_held(self._loop.time() - self._due_at, thread_time() - self._cpu_at)
        self._wind()


def new_watched_loop(
    lag: LoopLag, *, kind: EventLoop = EventLoop.ASYNCIO
) -> asyncio.AbstractEventLoop:
    """Make an event loop that counts how long it is held.

    Args:
        lag: where that is counted.
        kind: which loop.

    Raises:
        ConfigError: uvloop is wanted, and is not installed.
    """
    is_there = kind is not EventLoop.ASYNCIO and importlib.util.find_spec("uvloop") is not None
    if kind is EventLoop.UVLOOP and not is_there:
        raise ConfigError("mesh.event_loop: uvloop is not installed: pip install uvloop")
    if not is_there:
        return asyncio.SelectorEventLoop(_WatchingSelector(lag))
    loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    _Bell(lag, loop)
    return loop


async def collect_often(*, each_s: float = COLLECTED_EACH_S) -> None:
    """Collect everything that is not frozen, again and again until cancelled.

    Args:
        each_s: seconds between two collections.
    """
    while True:
        await asyncio.sleep(each_s)
        gc.collect()


def freeze_what_came() -> None:
    """Freeze what is alive, garbage too: for a large state that has just come, before it is seen.

    O(1). A cycle that nothing refers to any more stays for good, as for `Freezer`.
    """
    gc.freeze()


class Freezer:
    """Freezes what is alive when it is entered, and again whenever a full collection took long.

    Args:
        seconds: returns how late it is.
    """

    __slots__ = ("_begun", "_seconds", "count")

    def __init__(self, *, seconds: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._begun = 0.0
        self.count = 0
        """How often something was frozen."""

    def __enter__(self) -> Self:
        gc.collect()
        self._freeze()
        gc.callbacks.append(self._watch)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        gc.callbacks.remove(self._watch)
        gc.unfreeze()

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            self._begun = self._seconds()
        elif self._seconds() - self._begun > PAUSE_S:
            self._freeze()

    def _freeze(self) -> None:
        gc.freeze()
        self.count += 1
