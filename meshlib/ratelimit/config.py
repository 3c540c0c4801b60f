"""Settings of the rate limiter."""

from __future__ import annotations

import math
from enum import StrEnum

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError
from meshlib.limits import RATE_KEYS_MAX

__all__ = ["PartitionMode", "RateLimitConfig"]


class PartitionMode(StrEnum):
    """What a node admits of a key whose owner it does not reach."""

    STATIC = "static"
    """An equal part of the limit, rounded down: what each node had when all were in."""

    OPEN = "open"
    """Up to the whole limit, on each such node."""

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
        mandate_s: seconds for which the votes of a majority let an owner decide, 0.1 to 0.9;
            longer ones cost fewer messages and more time when an owner dies or a node starts.
        confirm_timeout_s: seconds that a confirmed call waits for the owner's word unless the
            call says otherwise, over 0 to 60.
        idle_return_s: seconds without a request after which a node gives back what it holds, 0.01
            to 1.
        batch_delay_s: seconds that questions wait for others to the same owner, 0 to 0.01; with
            0 each is sent at once.
        partition_mode: what a node admits that reaches no owner: `static`, `open` or `closed`.
        watch_s: seconds for which asking for statistics keeps them up to date here.
        keys_max: keys that are tracked on this node; the longest unused one makes room.
    """

    mandate_s: float = 0.75
    confirm_timeout_s: float = 0.5
    idle_return_s: float = 0.05
    batch_delay_s: float = 0.0
    partition_mode: PartitionMode = field(default=PartitionMode.STATIC, converter=_partition_mode)
    watch_s: float = 10.0
    keys_max: int = RATE_KEYS_MAX

    def __attrs_post_init__(self) -> None:
        """Check that the settings can hold.

        Raises:
            ConfigError: names the setting and what it must be.
            InvalidTypeError: a setting of another type, before any of these checks.
        """
        for name, least, most in (
            ("mandate_s", 0.1, 0.9),
            ("idle_return_s", 0.01, 1.0),
            ("batch_delay_s", 0.0, 0.01),
        ):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name} must be {least:g} to {most:g}, got {getattr(self, name)}"
                )
        if not 0 < self.confirm_timeout_s <= 60:
            raise ConfigError(
                f"confirm_timeout_s must be over 0 and at most 60, got {self.confirm_timeout_s}"
            )
        if not 0 <= self.watch_s < math.inf:
            raise ConfigError(f"watch_s must be 0 or more, and finite, got {self.watch_s}")
        if not 1 <= self.keys_max <= RATE_KEYS_MAX:
            raise ConfigError(f"keys_max must be 1 to {RATE_KEYS_MAX:,}, got {self.keys_max}")
