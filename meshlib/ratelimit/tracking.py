"""One rate-limit key on one node: what the owners said of it, and what share follows.

Rule: from the views of the owners to the share of this node everything is computed in this file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from attrs import frozen

from meshlib.identity import ActorId
from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.shares import ShareBucket, fair_share

__all__ = ["OwnerView", "TrackedKey"]

FRESH_INTERVALS: Final = 3
"""Report intervals for which a view is as good as the newest one."""

ZERO_REPORTS: Final = 3
"""How often a node repeats that it is asked for nothing, before it falls silent."""


@frozen(slots=True)
class OwnerView:
    """What one owner said of a key, leaving this node out.

    Args:
        sequence: the owner's number of the answer.
        actor: the owner's writer.
        heard_at: monotonic seconds.
        demand: units a second that the others are asked for.
        active_count: how many others are asked for anything.
        admitted: window to units that the others admitted.
    """

    actor: ActorId
    sequence: int
    heard_at: float
    demand: float
    active_count: int
    admitted: dict[int, int]


class TrackedKey:
    """The state of one key on this node; see the attributes.

    Args:
        key: the rate-limit key.
    """

    __slots__ = (
        "asked_at",
        "bucket",
        "is_urgent",
        "key",
        "limits_tag",
        "others",
        "owners",
        "reported",
        "reported_at",
        "ring_number",
        "roll_at",
        "views",
        "watched_until",
        "zero_reports",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.limits_tag: object = None
        """The state of the settings when the limit was read; None before."""
        self.bucket: ShareBucket | None = None
        """None while the key is unlimited."""
        self.roll_at = float("-inf")
        """When the next slot or window begins, so that a decision must look up from its path."""
        self.owners: tuple[str, ...] = ()
        self.others: tuple[str, ...] = ()
        """The owners but this node."""
        self.ring_number = -1
        self.views: dict[str, OwnerView] = {}
        self.reported = 0.0
        """The demand in the last report, in units a second."""
        self.reported_at = float("-inf")
        self.asked_at: float | None = None
        """When the first report that nobody has answered yet was sent."""
        self.is_urgent = False
        self.zero_reports = 0
        self.watched_until = float("-inf")

    def is_cut_off(self, now: float, config: RateLimitConfig) -> bool:
        """Tell whether the other owners have been silent for too long."""
        return self.asked_at is not None and now - self.asked_at > config.owner_timeout_s

    def is_active(self, now: float) -> bool:
        """Tell whether there is anything to report of this key."""
        bucket = self.bucket
        return bucket is not None and (
            self.zero_reports < ZERO_REPORTS or not bucket.meter.is_idle or now < self.watched_until
        )

    def others_admitted(self, window: int) -> int:
        """Return what the other nodes admitted in a window, by the owners' best knowledge."""
        return max((view.admitted.get(window, 0) for view in self.views.values()), default=0)

    def note_report(self, now: float) -> float:
        """Take note that the demand is reported now, and return it in units a second."""
        bucket = self.bucket
        demand = 0.0 if bucket is None else bucket.meter.rate(now)
        if bucket is not None:
            bucket.set_urgency(demand)
        self.reported = demand
        self.reported_at = now
        self.is_urgent = False
        self.zero_reports = 0 if demand > 0 else self.zero_reports + 1
        if self.others and self.asked_at is None:
            self.asked_at = now
        return demand

    def keep_views(self, names: Collection[str]) -> None:
        """Forget what nodes said that are gone."""
        self.views = {name: view for name, view in self.views.items() if name in names}

    def take_view(self, owner: str, view: OwnerView) -> bool:
        """Take an owner's answer, unless a newer one is here; tell whether it was taken."""
        known = self.views.get(owner)
        if known is not None and (view.actor, view.sequence) <= (known.actor, known.sequence):
            return False
        self.views[owner] = view
        self.asked_at = None
        return True

    def refresh(
        self,
        now: float,
        *,
        own_view: OwnerView | None,
        is_isolated: bool,
        member_count: int,
        config: RateLimitConfig,
    ) -> None:
        """Compute the share and the ceiling anew. O(owners).

        Args:
            now: monotonic seconds.
            own_view: what this node itself knows as an owner of the key, or None.
            is_isolated: whether this node stands on a side without quorum.
            member_count: members that the limit is parted among while nothing else is known.
            config: the settings.
        """
        bucket = self.bucket
        if bucket is None:
            return
        mode = config.partition_mode
        if is_isolated or self.is_cut_off(now, config):
            if mode is PartitionMode.CLOSED:
                bucket.set_isolated(0.0, now=now)
                return
            if mode is PartitionMode.STATIC:
                bucket.set_isolated(bucket.fraction, now=now)
                return
        if self.is_cut_off(now, config):
            bucket.set_share(1.0, is_growth_free=False, is_contended=False, now=now)
            return
        views = self._trusted_views(now, config)
        if own_view is not None and (views or not self.others):
            # Until another owner has answered, silence does not mean that nobody is active.
            views.append(own_view)
        admitted = [view.admitted.get(bucket.window, 0) for view in views]
        if not views:
            bucket.set_share(1 / member_count, is_growth_free=False, is_contended=False, now=now)
            return
        own = self.reported
        others = max(view.demand for view in views)
        active_count = 1 + max(view.active_count for view in views)
        share = fair_share(bucket.limit, own=own, others=others, active_count=active_count)
        bucket.set_others_admitted(max(admitted))
        bucket.set_share(
            min(1.0, share / bucket.limit),
            is_growth_free=others == 0 or own + others <= bucket.limit,
            is_contended=own + others > bucket.limit,
            now=now,
        )

    def _trusted_views(self, now: float, config: RateLimitConfig) -> list[OwnerView]:
        """Return the fresh views, or the newest one when none is.

        Among the fresh ones the most pessimistic figures count: an owner that is new knows
        less than the others do.
        """
        fresh_s = FRESH_INTERVALS * config.report_interval_s
        fresh = [view for view in self.views.values() if now - view.heard_at <= fresh_s]
        if fresh or not self.views:
            return fresh
        return [max(self.views.values(), key=lambda view: view.heard_at)]
