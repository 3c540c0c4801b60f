"""The counters of rate limits, as their owners hold them: sharded, volatile, joined.

Rule: counts of other nodes enter by joining the counters that they report, and never by adding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from attrs import define, field

from meshlib.crdt import WindowCounter
from meshlib.identity import ActorId
from meshlib.limits import RATE_KEYS_MAX
from meshlib.ratelimit.messages import RateCounter

__all__ = ["RateLimitStore"]


@define(slots=True)
class _Demand:
    """What one node is asked for, as it last said."""

    actor: ActorId
    sequence: int
    rate: float
    heard_at: float


@define(slots=True)
class _Shard:
    """One key."""

    counter: WindowCounter
    demands: dict[str, _Demand] = field(factory=dict)
    used_at: float = 0.0


class RateLimitStore:
    """Counters by key: what this node admitted, and what was reported to it as an owner.

    Nothing here is logged or kept: a new owner is filled by the next reports.

    Args:
        demand_ttl_s: seconds after which a node that is silent is no longer counted as active.
        keys_max: keys that are held; the longest unused one makes room.
    """

    __slots__ = ("_keys_max", "_shards", "_ttl_s", "evicted_count")

    def __init__(self, *, demand_ttl_s: float = 5.0, keys_max: int = RATE_KEYS_MAX) -> None:
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._ttl_s = demand_ttl_s
        self._keys_max = keys_max
        self.evicted_count = 0
        """Keys that made room for others while they could still have mattered."""

    def __len__(self) -> int:
        return len(self._shards)

    def keys(self) -> tuple[str, ...]:
        """Return the keys that are held, sorted. O(n log n)."""
        return tuple(sorted(self._shards))

    def absorb(self, key: str, counter: WindowCounter, *, window: int, now: float) -> None:
        """Join counts into a key.

        Args:
            key: the rate-limit key.
            counter: counts of any nodes.
            window: the current window here; what is more than one window ahead of it is left
                out, and comes again with a later report when it is due.
            now: monotonic seconds.
        """
        shard = self._shard(key, now)
        newest = shard.counter.newest
        if newest is not None and newest > window + 1:
            # The wall clock went back: what was counted under it would push the present out.
            shard.counter, _ = shard.counter.clamp(window + 1)
        newest = counter.newest
        if newest is not None and newest > window + 1:
            counter, _ = counter.clamp(window + 1)
        shard.counter.absorb(counter)

    def note_demand(
        self, key: str, name: str, *, actor: ActorId, sequence: int, rate: float, now: float
    ) -> None:
        """Take note of what a node is asked for, unless something newer is known of it."""
        shard = self._shard(key, now)
        known = shard.demands.get(name)
        if known is not None and (actor, sequence) <= (known.actor, known.sequence):
            return
        shard.demands[name] = _Demand(actor, sequence, rate, now)

    def total(self, key: str, window: int, *, but: ActorId | None = None) -> int:
        """Return what all nodes, but one when given, admitted of a key in a window."""
        shard = self._shards.get(key)
        if shard is None:
            return 0
        total = shard.counter.total(window)
        return total if but is None else total - self.admitted(key, window, by=but)

    def admitted(self, key: str, window: int, *, by: ActorId) -> int:
        """Return what one node admitted of a key in a window."""
        shard = self._shards.get(key)
        return 0 if shard is None else shard.counter.by_actor(window).get(by, 0)

    def others_demand(self, key: str, *, but: str, now: float) -> tuple[float, int]:
        """Return what the nodes but one are asked for, and how many of them are at all."""
        shard = self._shards.get(key)
        if shard is None:
            return 0.0, 0
        rates = [
            demand.rate
            for name, demand in shard.demands.items()
            if name != but and demand.rate > 0 and now - demand.heard_at <= self._ttl_s
        ]
        return sum(rates), len(rates)

    def keep_names(self, names: Collection[str]) -> None:
        """Forget what nodes that are gone were asked for. Their counts stay. O(keys)."""
        for shard in self._shards.values():
            for name in [name for name in shard.demands if name not in names]:
                del shard.demands[name]

    def expire(self, now: float) -> None:
        """Drop the keys that were not reported for the time to live, oldest first."""
        while self._shards:
            key, shard = next(iter(self._shards.items()))
            if now - shard.used_at <= self._ttl_s:
                return
            del self._shards[key]

    def drop(self, key: str) -> None:
        """Drop a key whose limit was taken away."""
        self._shards.pop(key, None)

    def _shard(self, key: str, now: float) -> _Shard:
        shard = self._shards.get(key)
        if shard is None:
            if len(self._shards) >= self._keys_max:
                _, oldest = self._shards.popitem(last=False)
                self.evicted_count += now - oldest.used_at <= self._ttl_s
            shard = self._shards[key] = _Shard(RateCounter())
        else:
            self._shards.move_to_end(key)
        shard.used_at = now
        return shard
