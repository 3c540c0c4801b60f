"""What was asked for over HTTP, how it was answered, and how long that took."""

from __future__ import annotations

import bisect
import time
from typing import Final

from attrs import define, field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshlib.limits import TENANTS_MAX

__all__ = ["BUCKETS_S", "OUTCOME", "PATH", "CountedRequests", "Duration", "RequestCounters"]

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds; an answer of this server is a matter of milliseconds."""

PATH: Final = "meshlib.path"
"""Where a route leaves its template in the scope; what has none is counted under `other`."""

OUTCOME: Final = "meshlib.outcome"
"""Where a handler leaves what it decided: a word of a fixed list."""

_ACQUIRE: Final = "/rate-limit/acquire"
_ACQUIRED: Final = {200: "admitted", 429: "refused"}

_HITS_KEPT: Final = 0.99
"""What is left of the earlier prompts of a worker with each new one: some hundred count."""

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


@define
class Duration:
    """How long the answers to one path took.

    Args:
        buckets: how many took up to each of `BUCKETS_S` and longer than those before it; one
            more for those that took longer than all.
        sum_s: all of them together, in seconds.
    """

    buckets: list[int] = field(factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, took_s: float) -> None:
        """Count one. O(log buckets)."""
        self.buckets[bisect.bisect_left(BUCKETS_S, took_s)] += 1
        self.sum_s += took_s


@define
class RequestCounters:
    """Requests since the start. As many entries as there are routes, methods and statuses.

    Args:
        answers: how many, by method, path template and status.
        durations: how long they took, by path template.
        outcomes: what was decided, by path template and word.
        in_progress: requests that are being answered.
    """

    answers: dict[tuple[str, str, int], int] = field(factory=dict)
    durations: dict[str, Duration] = field(factory=dict)
    outcomes: dict[tuple[str, str], int] = field(factory=dict)
    in_progress: int = 0

    def add(self, scope: Scope, status: int, took_s: float) -> None:
        """Count an answer. O(1)."""
        path = scope.get(PATH, "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        key = (method, path, status)
        self.answers[key] = self.answers.get(key, 0) + 1
        duration = self.durations.get(path)
        if duration is None:
            duration = self.durations[path] = Duration()
        duration.add(took_s)
        outcome = _ACQUIRED.get(status) if path.endswith(_ACQUIRE) else scope.get(OUTCOME)
        if outcome is not None:
            self.outcomes[path, outcome] = self.outcomes.get((path, outcome), 0) + 1

    def outcomes_of(self, ending: str) -> dict[str, int]:
        """Return what was decided on the paths that end so, by the word. O(outcomes)."""
        found: dict[str, int] = {}
        for (path, outcome), count in self.outcomes.items():
            if path.endswith(ending):
                found[outcome] = found.get(outcome, 0) + count
        return found


class WorkerHits:
    """What workers had cached of the prompts that this node routed to them, lately."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, float]] = {}

    def add(self, worker_id: str, *, matched: int, length: int) -> None:
        """Count a prompt; what was counted before counts a hundredth less each time. O(1).

        Args:
            worker_id: where it went.
            matched: characters that were cached there.
            length: characters of the prompt.
        """
        hit, asked = self._counts.pop(worker_id, (0.0, 0.0))
        if len(self._counts) >= TENANTS_MAX:
            del self._counts[next(iter(self._counts))]
        self._counts[worker_id] = hit * _HITS_KEPT + matched, asked * _HITS_KEPT + length

    def rate_of(self, worker_id: str) -> float | None:
        """Return the part of them that was cached, 0 to 1; None before the first. O(1)."""
        hit, asked = self._counts.get(worker_id, (0.0, 0.0))
        return round(hit / asked, 4) if asked else None


class CountedRequests:
    """Counts each request as its answer ends; pure ASGI.

    Args:
        app: what answers.
        counters: where they are counted.
    """

    def __init__(self, app: ASGIApp, *, counters: RequestCounters) -> None:
        self._app = app
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it whatever becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what a caller is told whose answer was never begun

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        counters = self._counters
        counters.in_progress += 1
        began_at = time.monotonic()
        try:
            await self._app(scope, receive, note_status)
        finally:
            counters.in_progress -= 1
            counters.add(scope, status, time.monotonic() - began_at)
