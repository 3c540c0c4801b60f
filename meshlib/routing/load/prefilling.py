"""What one worker still has to prefill for this router.

Rule: what is left of a prefill is decided in this file. A request waits until its turn is expected,
and is then worked off at the worker's speed; `first_token` says that it is done, and where nobody
says so, time does. What waits is summed up once, so that a long queue costs a decision nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from attrs import define

from meshlib.invariants import require

__all__ = ["Begun", "Prefilling", "left_to_prefill"]


def left_to_prefill(tokens: float, *, starts_at: float, speed: float, now: float) -> float:
    """Return what is left of a prefill that began, or begins, at a time. O(1)."""
    if now <= starts_at:
        return tokens
    return max(0.0, tokens - speed * (now - starts_at))


@define(slots=True, eq=False)
class Begun:
    """One request in flight.

    Args:
        request_id: its name.
        worker_id: where it is.
        tokens: what it has to prefill.
        ahead: tokens that the worker was expected to prefill before.
        begun_at: when it was sent, in monotonic seconds.
        starts_at: when its prefill is expected to begin.
        expires_at: when it counts as ended unless it is renewed.
        decoded_tokens: what it has decoded so far, as far as its router knows.
    """

    request_id: str
    worker_id: str
    tokens: float
    ahead: float
    begun_at: float
    starts_at: float
    expires_at: float
    decoded_tokens: int = 0


class Prefilling:
    """The requests of one worker of which no first token has been heard."""

    __slots__ = (
        "_is_first_known",
        "_next_start",
        "_over",
        "_running",
        "_waiting",
        "_waiting_tokens",
    )

    def __init__(self) -> None:
        self._waiting: dict[str, Begun] = {}
        self._waiting_tokens = 0.0
        self._next_start = math.inf
        """When the first of those that wait is expected to start, or a time before that."""
        self._is_first_known = True
        """Whether it is that time."""
        self._running: dict[str, Begun] = {}
        self._over: dict[str, Begun] = {}
        """Those whose time was up, though nobody has said so."""

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the requests, in no order that means anything."""
        return chain(self._waiting, self._running, self._over)

    def add(self, begun: Begun) -> None:
        """Take a request in that has something to prefill. O(1)."""
        self._waiting[begun.request_id] = begun
        self._waiting_tokens += begun.tokens
        self._next_start = min(self._next_start, begun.starts_at)

    def pop(self, request_id: str) -> Begun | None:
        """Take a request out; None when it is not there. O(1)."""
        begun = self._waiting.pop(request_id, None)
        if begun is not None:
            self._waiting_tokens -= begun.tokens
            if begun.starts_at <= self._next_start:
                self._is_first_known = False  # many may go one after the other: sought when asked
            self._settle()
            return begun
        return self._running.pop(request_id, None) or self._over.pop(request_id, None)

    def _settle(self) -> None:
        """Leave no rounding behind."""
        if not self._waiting:
            self._waiting_tokens, self._next_start = 0.0, math.inf
            self._is_first_known = True

    def move(self, *, begun_from: float, late_s: float, now: float) -> None:
        """Have those that were begun from a time on start later, or sooner. O(requests).

        Args:
            begun_from: that time, in monotonic seconds.
            late_s: by how many seconds; negative for sooner, though not sooner than now.
            now: monotonic seconds.
        """
        for begun in chain(self._waiting.values(), self._running.values(), self._over.values()):
            if begun.begun_at >= begun_from:
                begun.starts_at = max(begun.starts_at + late_s, now)
        back = [one for one in self._over.values() if one.begun_at >= begun_from]
        for begun in back:
            self._running[begun.request_id] = self._over.pop(begun.request_id)
        self._next_start, self._is_first_known = min(self._next_start, now), False
        self._settle()

    def left(self, *, speed: float, now: float) -> tuple[float, float]:
        """Return the tokens that are to be prefilled, and the seconds until it begins.

        O(requests that are expected to be prefilled now), and O(those that wait) whenever the turn
        of one of them comes, or the first of them has gone.
        """
        if now >= self._next_start or not self._is_first_known:
            self._start(speed=speed, now=now)
        left, first_at, over = self._waiting_tokens, self._next_start, []
        for one in self._running.values():
            remains = left_to_prefill(one.tokens, starts_at=one.starts_at, speed=speed, now=now)
            if remains > 0.0:
                left += remains
                first_at = min(first_at, one.starts_at)
            else:
                over.append(one)
        for one in over:
            self._over[one.request_id] = self._running.pop(one.request_id)
        return left, max(0.0, first_at - now) if left else 0.0

    def _start(self, *, speed: float, now: float) -> None:
        """Let those begin whose turn has come. O(requests that wait)."""
        waiting, self._waiting = self._waiting, {}
        tokens, next_start = 0.0, math.inf
        for name, one in waiting.items():
            if one.starts_at > now:
                self._waiting[name] = one
                tokens += one.tokens
                next_start = min(next_start, one.starts_at)
            elif one.tokens > speed * (now - one.starts_at):
                self._running[name] = one
            else:
                self._over[name] = one
        self._waiting_tokens, self._next_start = tokens, next_start
        self._is_first_known = True

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {
            "waiting": self._waiting,
            "waiting_tokens": self._waiting_tokens,
            "running": self._running,
            "over": self._over,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(requests)."""
        names = list(self)
        require(self, len(names) == len(set(names)), "a request is in two states")
        total = math.fsum(one.tokens for one in self._waiting.values())
        is_sum = math.isclose(total, self._waiting_tokens, rel_tol=1e-6, abs_tol=1e-3)
        require(self, is_sum, "the tokens that wait are not those of the requests")
        starts = [one.starts_at for one in self._waiting.values()]
        first = min(starts, default=math.inf)
        is_first = first == self._next_start if self._is_first_known else first >= self._next_start
        require(self, is_first, "the next start is not that of any request that waits")
