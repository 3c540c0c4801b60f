"""The rate limiter: decisions that never wait, and the reports that make them right.

Each node decides alone, from a token bucket filled at its share of the limit. What a share needs
to know comes from the owners of the key: up to three nodes on a hash ring over the live members,
to whom every active node reports what it admitted and what it is asked for.

Rule: the engine's contract holds here too. Time and messages are arguments and results; nothing
here sends, sleeps or calls back, but for one hook that says "there is something to send".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from meshlib.clock import MonotonicTime
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LocalError,
    MeshError,
    UnknownKeyError,
    check_several,
)
from meshlib.identity import ActorId
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.exchange import RateExchange
from meshlib.ratelimit.messages import RateMessage
from meshlib.ratelimit.records import Decision, RateLimitStats
from meshlib.ratelimit.settings import LimitSettings
from meshlib.ratelimit.shares import ShareBucket
from meshlib.ratelimit.store import RateLimitStore
from meshlib.ratelimit.tracking import TrackedKey

__all__ = ["RateLimiter"]

_URGENT_PART: Final = 1 / 10
"""Urgent reports of one key keep this part of an interval apart."""

_SWEPT_PER_TICK: Final = 64
_UNLIMITED: Final = Decision(True, 0, -1, 0.0)
_UNLIMITED_STATS: Final = RateLimitStats(limit_per_second=0, current_count=0, remaining=-1)


class RateLimiter:
    """Decides who may pass under limits that hold for the whole cluster.

    Args:
        name: this node's name.
        actor: the writer under which this limiter counts; of no other limiter.
        limits: where the limits are kept.
        wall_clock: returns seconds since 1970; windows are its whole seconds.
        config: the settings.
        on_urgent: called when a report should not wait for its interval: `next_deadline` is
            earlier than it was. Must not call back.
        read_time: takes each `now` that comes in and returns the time that it is, or raises a
            `LocalError`; by default `MonotonicTime.advance` of a clock of its own.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        limits: LimitSettings,
        wall_clock: Callable[[], float],
        config: RateLimitConfig | None = None,
        on_urgent: Callable[[], None] | None = None,
        read_time: Callable[[float], float] | None = None,
    ) -> None:
        self.config: Final = config if config is not None else RateLimitConfig()
        self.on_urgent = on_urgent
        self.guard: Callable[[], None] | None = None
        """Called before a caller's verb does anything, and may refuse it by raising."""
        self.read_time: Callable[[float], float] = read_time or MonotonicTime().advance
        """Judges each `now`; see the arguments of this class."""
        self._limits = limits
        self._wall_clock = wall_clock
        self._wall_offset_s: float | None = None
        self._tracked: OrderedDict[str, TrackedKey] = OrderedDict()
        self._active: dict[str, TrackedKey] = {}
        self._urgent: dict[str, TrackedKey] = {}
        self._urgent_due_at = math.inf
        self._interval_due_at = math.inf
        self._exchange = RateExchange(name, actor=actor, tracked=self._tracked, config=self.config)
        limits.watch(self._limit_written)

    @property
    def store(self) -> RateLimitStore:
        """The counters that this node holds, of its own and as an owner."""
        return self._exchange.store

    def acquire(self, key: str, *, cost: int = 1, now: float) -> Decision:
        """Decide whether a request may pass, and count it when it may. O(1), and local.

        What is refused counts as demand and not as used.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: a key that is not text, or a cost that is no integer.
            InvalidValueError: a cost under 1, or over the limit: it could never pass.
            UnknownKeyError: no limit is set for the key. The global one is then unlimited.
            DecodeError: what is stored as the limit is none.
            ForeignClockError: `now` is no reading of the clock that was given before. Nothing is
                counted in any case.
        """
        if self.guard is not None:
            self.guard()
        now = self.read_time(now)
        if type(cost) is not int or cost < 1:
            raise _refused_cost(cost)
        try:
            tracked = self._tracked.get(key)
        except TypeError:
            raise _refused_key(key) from None
        if tracked is None:
            tracked = self._track(key, now)
        if now >= tracked.roll_at:
            self._roll(tracked, now)
            if tracked.bucket is not None:
                self._activate(tracked, now)
        bucket = tracked.bucket
        if bucket is None:
            return _UNLIMITED
        limit = bucket.limit
        if cost > limit:
            raise InvalidValueError(f"cost {cost} can never pass a limit of {limit} a second")
        meter = bucket.meter
        meter.current = asked = meter.current + cost
        if asked > bucket.urgent_above and not tracked.is_urgent:
            self._hurry(tracked, now)
        left = bucket.admit(cost, now)
        if left >= 0:
            return Decision(True, limit, left, 0.0)
        window_left_s = max(0.0, bucket.window + 1 - self._wall(now))
        wait_s = bucket.wait_s(cost, window_left_s=window_left_s)
        return Decision(False, limit, bucket.remaining(), wait_s)

    def stats(self, key: str, *, now: float) -> RateLimitStats:
        """Return what the whole cluster used of a limit in the current window.

        A node that neither owns the key nor is asked for it learns the counts from the owners
        from the first call on: the next one, a report interval later, is up to date.

        Args:
            key: the rate-limit key.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: a key that is not text.
            UnknownKeyError: no limit is set for the key. The global one is then unlimited.
            DecodeError: what is stored as the limit is none.
            ForeignClockError: as for `acquire`.
        """
        if self.guard is not None:
            self.guard()
        now = self.read_time(now)
        if type(key) is not str:
            raise _refused_key(key)
        tracked = self._tracked.get(key)
        if tracked is None:
            tracked = self._track(key, now)
        self._read_wall(now)
        self._roll(tracked, now)
        bucket = tracked.bucket
        if bucket is None:
            return _UNLIMITED_STATS
        tracked.watched_until = now + self.config.watch_s
        self._activate(tracked, now)
        count = bucket.admitted + self._exchange.admitted_elsewhere(tracked, bucket.window)
        return RateLimitStats(
            limit_per_second=bucket.limit,
            current_count=count,
            remaining=max(0, bucket.limit - count),
        )

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, in monotonic seconds, or None while nothing is active."""
        due_at = min(self._urgent_due_at, self._interval_due_at)
        return None if due_at == math.inf else due_at

    def tick(self, now: float) -> list[RateMessage]:
        """Return the reports that are due, and compute the shares anew. O(active keys).

        Args:
            now: monotonic seconds.

        Raises:
            ForeignClockError: as for `acquire`.
        """
        now = self.read_time(now)
        self._read_wall(now)
        is_interval = now >= self._interval_due_at
        keys = list((self._active if is_interval else self._urgent).values())
        self._urgent.clear()
        self._urgent_due_at = math.inf
        due: list[TrackedKey] = []
        for tracked in keys:
            if not self._is_limited(tracked, now):
                continue
            if is_interval and not tracked.is_active(now):
                self._rest(tracked, now)
            else:
                due.append(tracked)
        if is_interval:
            self._sweep(now)
            self.store.expire(now)
            interval_s = self.config.report_interval_s
            self._interval_due_at = now + interval_s if self._active else math.inf
        return self._exchange.report(due, now)

    def receive_volatile(
        self, document: str, payload: bytes, *, sender: str, now: float
    ) -> list[RateMessage]:
        """Take a report or an answer of another node; return what to answer.

        Args:
            document: the volatile document it came for.
            payload: its bytes.
            sender: the name of the node that sent it, as its link or frame vouches.
            now: monotonic seconds.

        Raises:
            RemoteError: not what it should be.
            ForeignClockError: as for `acquire`. Nothing was changed.
        """
        now = self.read_time(now)

        def window_now() -> int:
            self._read_wall(now)
            return self._window(now)

        return self._exchange.receive(
            document, payload, sender=sender, window_at=window_now, now=now
        )

    def update_members(
        self, names: Collection[str], *, has_quorum: bool = True, awaited_count: int = 1
    ) -> None:
        """Rebuild the ring over the live members. The next reports fill the new owners.

        Args:
            names: the members that take part, Alive or Suspected; this node always does.
            has_quorum: whether this node's side of the cluster reaches a majority. Without it
                the partition mode applies.
            awaited_count: how many nodes there may be, those named included. On a side without
                a majority a limit is parted among so many at least.

        Raises:
            InvalidTypeError: one text in place of the names. Nothing was changed.
        """
        check_several("the names of members", names)
        self._exchange.update_members(names, has_quorum=has_quorum, awaited_count=awaited_count)

    # Time

    def _read_wall(self, now: float) -> None:
        self._wall_offset_s = self._wall_clock() - now

    def _wall(self, now: float) -> float:
        """Return the wall time, as of the clock's last reading."""
        if self._wall_offset_s is None:
            self._wall_offset_s = self._wall_clock() - now
        return now + self._wall_offset_s

    def _window(self, now: float) -> int:
        return max(0, math.floor(self._wall(now)))

    # Keys that are tracked here

    def _track(self, key: str, now: float) -> TrackedKey:
        if type(key) is not str:
            raise _refused_key(key)
        self._limits.limit(key)  # raises for a key without a limit, before anything is kept
        if len(self._tracked) >= self.config.keys_max:
            _, oldest = self._tracked.popitem(last=False)
            self._exchange.record(oldest, now)
            self._drop(oldest)
        tracked = self._tracked[key] = TrackedKey(key)
        return tracked

    def _drop(self, tracked: TrackedKey) -> None:
        self._tracked.pop(tracked.key, None)
        self._active.pop(tracked.key, None)
        self._urgent.pop(tracked.key, None)

    def _limit_written(self, key: str) -> None:
        """Let the next decision of a key read its limit again."""
        tracked = self._tracked.get(key)
        if tracked is not None:
            tracked.roll_at = -math.inf

    def _roll(self, tracked: TrackedKey, now: float) -> None:
        """Bring a key to this slot, this window, and the limit that is set now."""
        self._read_limit(tracked, now)
        self._tracked.move_to_end(tracked.key)
        bucket = tracked.bucket
        if bucket is None:
            tracked.roll_at = now + self.config.report_interval_s
            return
        window = self._window(now)
        if window != bucket.window:
            self._exchange.record(tracked, now)
            bucket.set_window(window, admitted=self._exchange.admitted_here(tracked.key, window))
        bucket.meter.advance(now)
        bucket.set_urgency(tracked.reported)
        next_window_at = now + (window + 1 - self._wall(now))
        tracked.roll_at = min(bucket.meter.slot_ends_at, next_window_at)

    def _is_limited(self, tracked: TrackedKey, now: float) -> bool:
        """Bring a key to now, and tell whether it still has a limit."""
        try:
            self._roll(tracked, now)
        except MeshError:
            return False
        return tracked.bucket is not None

    def _read_limit(self, tracked: TrackedKey, now: float) -> None:
        tag = self._limits.tag()
        if tag == tracked.limits_tag:
            return
        try:
            limit = self._limits.limit(tracked.key)
        except (DecodeError, UnknownKeyError):
            # The last limit that could be read is known on some nodes only, and is no limit of
            # the cluster: all nodes answer what they would after a restart.
            self._drop(tracked)
            raise
        tracked.limits_tag = tag
        bucket = tracked.bucket
        if limit == 0:
            tracked.bucket = None
            self._active.pop(tracked.key, None)
        elif bucket is None:
            window = self._window(now)
            tracked.bucket = ShareBucket(
                limit,
                fraction=1 / self._exchange.member_count,
                window=window,
                admitted=self._exchange.admitted_here(tracked.key, window),
                slot_s=self.config.report_interval_s,
                now=now,
            )
            self._exchange.hold_to_mode(tracked, now)
        elif limit != bucket.limit:
            bucket.set_limit(limit, now=now)

    # When to report

    def _activate(self, tracked: TrackedKey, now: float) -> None:
        """Let a key be reported, at once and then at each interval."""
        tracked.zero_reports = 0
        if tracked.key not in self._active:
            self._active[tracked.key] = tracked
            if self._interval_due_at == math.inf:
                self._interval_due_at = now + self.config.report_interval_s
            self._hurry(tracked, now)

    def _hurry(self, tracked: TrackedKey, now: float) -> None:
        """Let a key be reported before its interval is over."""
        self._urgent[tracked.key] = tracked
        tracked.is_urgent = True
        spacing_s = self.config.report_interval_s * _URGENT_PART
        due_at = max(now, tracked.reported_at + spacing_s)
        if due_at < self._urgent_due_at:
            self._urgent_due_at = due_at
            if self.on_urgent is not None:
                self.on_urgent()

    def _rest(self, tracked: TrackedKey, now: float) -> None:
        """Stop reporting a key, and forget it when a new bucket would be the same."""
        self._active.pop(tracked.key, None)
        bucket = tracked.bucket
        if bucket is not None:
            bucket.fill(now)
        if bucket is None or bucket.is_full:
            self._drop(tracked)

    def _sweep(self, now: float) -> None:
        """Look at a few of the longest unused keys, and forget those that rest."""
        for _ in range(min(_SWEPT_PER_TICK, len(self._tracked))):
            key, tracked = next(iter(self._tracked.items()))
            self._tracked.move_to_end(key)
            if key not in self._active:
                self._rest(tracked, now)


def _refused_cost(cost: object) -> LocalError:
    if type(cost) is not int:
        return InvalidTypeError(f"cost must be an integer, not {type(cost).__name__}")
    return InvalidValueError(f"cost must be at least 1, got {cost}")


def _refused_key(key: object) -> LocalError:
    return InvalidTypeError(f"a rate-limit key must be text, not {type(key).__name__}")
