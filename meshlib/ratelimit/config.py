"""Settings of the rate limiter."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError
from meshlib.limits import RATE_KEYS_MAX

__all__ = ["PartitionMode", "RateLimitConfig"]

OWNERS_MAX: Final = 16
"""Owners of one key: each costs a report and an answer an interval."""


class PartitionMode(StrEnum):
    """What a node admits while it is cut off from the owners of a key."""

    STATIC = "static"
    """Its last share."""

    OPEN = "open"
    """What is left by those that it still hears: up to the whole limit for each side."""

    CLOSED = "closed"
    """Nothing."""


def _partition_mode(mode: str) -> PartitionMode:
    try:
        return PartitionMode(mode)
    except ValueError:
        known = ", ".join(PartitionMode)
        raise ConfigError(f"partition_mode must be one of {known}, got {mode!r}") from None


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class RateLimitConfig:
    """Settings of the rate limiter.

    Args:
        report_interval_s: seconds between two reports of an active key, 0.01 to 1; shorter
            ones make the counts agree sooner and cost more messages.
        owner_count: owners of each key, 1 to 16; with three, any two may go.
        owner_timeout_s: seconds without an answer after which a node counts as cut off from
            the owners; several report intervals, and shorter than membership takes to find
            that a node is Down.
        demand_ttl_s: seconds after which an owner no longer counts a silent node as active;
            longer than membership takes to find that a node is Down.
        partition_mode: what a node admits that is cut off: `static`, `open` or `closed`.
        watch_s: seconds for which asking for statistics keeps them up to date here.
        keys_max: keys with a bucket on this node; the longest unused one makes room.
    """

    report_interval_s: float = 0.1
    owner_count: int = 3
    owner_timeout_s: float = 1.0
    demand_ttl_s: float = 5.0
    partition_mode: PartitionMode = field(default=PartitionMode.STATIC, converter=_partition_mode)
    watch_s: float = 10.0
    keys_max: int = RATE_KEYS_MAX

    def __attrs_post_init__(self) -> None:
        """Check that the settings can hold.

        Raises:
            ConfigError: names the setting and what it must be.
            InvalidTypeError: a setting of another type, before any of these checks.
        """
        if not 0.01 <= self.report_interval_s <= 1.0:
            raise ConfigError(f"report_interval_s must be 0.01 to 1, got {self.report_interval_s}")
        if not 1 <= self.owner_count <= OWNERS_MAX:
            raise ConfigError(f"owner_count must be 1 to {OWNERS_MAX}, got {self.owner_count}")
        for name in ("owner_timeout_s", "demand_ttl_s"):
            if not self.report_interval_s < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be over report_interval_s, and finite")
        if not 0 <= self.watch_s < math.inf:
            raise ConfigError(f"watch_s must be 0 or more, and finite, got {self.watch_s}")
        if not 1 <= self.keys_max <= RATE_KEYS_MAX:
            raise ConfigError(f"keys_max must be 1 to {RATE_KEYS_MAX:,}, got {self.keys_max}")
