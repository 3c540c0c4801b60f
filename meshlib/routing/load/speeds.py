"""How many tokens a second workers prefill, as routers have measured and told it.

Rules this file owns:
- What a worker's speed counts as is decided from what was told and not from what was measured, so
  that all routers know the same.
- What was measured counts until nobody has measured the worker for `KEPT_S`, or it has restarted.
  Whoever was slow once is not chosen while others are idle, and so is not measured again: it would
  be slow for good.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Final

from meshlib.limits import TENANTS_MAX
from meshlib.routing.load.prefilling import Begun

__all__ = ["DEFAULT_SPEED", "Speeds"]

DEFAULT_SPEED: Final = 20_000.0
"""Tokens a second that a worker is taken to prefill before anybody has measured it."""

ALIKE: Final = 1.25
"""Speeds that differ by no more than this factor are taken for the same."""

SPEED_SHARE_MIN: Final = 0.1
"""What one measurement counts for at least, beside those before it."""

SPEED_MAX: Final = 1e9
"""Tokens a second that no worker prefills."""

KEPT_S: Final = 30.0
"""How long measurements of a worker count after the last one, in seconds. A worker in use is
measured far more often; one that is not, for others were faster, is tried again after so long."""

MEASURED_TOKENS_MIN: Final = 64
"""A prefill of fewer tokens says little of a speed: it is over before the overhead is."""


_UNMEASURED: Final = (0.0, 0, -math.inf)
_UNHEARD: Final = (0, -math.inf)


class Speeds:
    """What this router has measured its workers to prefill, and what all have told of it."""

    __slots__ = ("_heard", "_learnt_until", "_means", "_measured", "_told", "_usual")

    def __init__(self) -> None:
        self._measured: dict[str, tuple[float, int, float]] = {}
        self._told: dict[str, tuple[int, float]] = {}
        self._heard: dict[str, dict[str, tuple[int, float]]] = {}
        self._means: dict[str, float] = {}
        self._usual = 0.0
        self._learnt_until = math.inf

    def measure(self, begun: Begun, *, now: float) -> bool:
        """Learn from the first token of a request; say whether anything could be. O(1).

        The time to it is what the worker took for all that it was given before and for this one.
        The more of that was this one, the more it says.
        """
        took_s = now - begun.begun_at
        work = begun.ahead + begun.tokens
        if begun.tokens < MEASURED_TOKENS_MIN or took_s <= 0.0:
            return False
        sample = min(work / took_s, SPEED_MAX)
        before = self._measured.pop(begun.worker_id, None)
        if before is None:
            if len(self._measured) >= TENANTS_MAX:
                del self._measured[next(iter(self._measured))]
            self._measured[begun.worker_id] = (sample, 1, now)
            return True
        speed, count, _ = before
        share = max(SPEED_SHARE_MIN, 1.0 / (count + 1)) * begun.tokens / work
        self._measured[begun.worker_id] = (speed + share * (sample - speed), count + 1, now)
        return True

    def to_tell(self, worker_id: str) -> int:
        """Return what this router has measured at a worker; 0 for nothing. It counts from now on.

        O(1).
        """
        speed, _, at = self._measured.get(worker_id, _UNMEASURED)
        measured = round(speed)
        if measured and (measured, at) != self._told.get(worker_id):
            if len(self._told) >= TENANTS_MAX:
                self._told.clear()
            self._told[worker_id] = measured, at
            self._usual = 0.0
        return measured

    def hear(self, router: str, worker_id: str, speed: int, *, now: float) -> None:
        """Take what another router has measured at a worker; 0 says nothing. O(1)."""
        if not speed:
            return
        speeds = self._heard.setdefault(router, {})
        if worker_id in speeds or len(speeds) < TENANTS_MAX:
            if speed != speeds.get(worker_id, _UNHEARD)[0]:
                self._usual = 0.0
            speeds[worker_id] = speed, now

    def forget(self, router: str) -> None:
        """Drop what another router has told. O(1)."""
        if self._heard.pop(router, None) is not None:
            self._usual = 0.0

    def forget_worker(self, worker_id: str) -> None:
        """Drop what is known of a worker that has restarted or gone: it is another one. O(routers).

        Or one that was measured as it went would count as slow for good: whoever is slow is not
        chosen while others are idle, and is not measured again.
        """
        self._measured.pop(worker_id, None)
        for told in (self._told, *self._heard.values()):
            told.pop(worker_id, None)
        self._usual = 0.0

    def of(self, worker_id: str, *, now: float) -> float:
        """Return how many tokens a second a worker prefills: what routers have told of it. O(1).

        O(routers x workers) when one has told something new, or it is too long ago. A measurement
        is as good as what was known of the worker's cache and queue, so a worker counts as slower
        or faster than the others only when it is by a quarter. What this router has measured itself
        counts once it was told, so that all know the same.
        """
        if not self._usual or now > self._learnt_until:
            self._learn(now)
        return self._means.get(worker_id, self._usual)

    def _learn(self, now: float) -> None:
        latest = {worker_id: at for worker_id, (_, _, at) in self._measured.items()}
        for speeds in (self._told, *self._heard.values()):
            for worker_id, (_, at) in speeds.items():
                latest[worker_id] = max(at, latest.get(worker_id, at))
        for worker_id, at in list(latest.items()):
            if now - at > KEPT_S:
                self.forget_worker(worker_id)
                del latest[worker_id]
        self._learnt_until = min(latest.values(), default=math.inf) + KEPT_S
        told: dict[str, list[int]] = {}
        for speeds in (self._told, *self._heard.values()):
            for worker_id, (speed, _) in speeds.items():
                told.setdefault(worker_id, []).append(speed)
        means = {worker_id: sum(each) / len(each) for worker_id, each in told.items()}
        self._usual = usual = median(means.values()) if means else DEFAULT_SPEED
        self._means = {
            worker_id: speed
            for worker_id, speed in means.items()
            if not usual / ALIKE <= speed <= usual * ALIKE
        }
