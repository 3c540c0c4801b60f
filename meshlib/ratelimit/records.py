"""What the limiter answers with."""

from __future__ import annotations

from typing import Final, NamedTuple

from attrs import frozen

__all__ = ["GLOBAL_KEY", "Decision", "RateLimitStats"]

GLOBAL_KEY: Final = "global"
"""The rate-limit key of the global limit."""


@frozen(slots=True, kw_only=True)
class RateLimitStats:
    """What is used of a rate limit.

    Args:
        limit_per_second: the limit; 0 means unlimited.
        current_count: units admitted on all nodes in the current window of a second.
        remaining: what the limit leaves in this window, never under 0; -1 when unlimited.
    """

    limit_per_second: int
    current_count: int
    remaining: int


class Decision(NamedTuple):
    """Whether a request may pass. True in a boolean context when it may.

    A named tuple and not an attrs record: one is made for each request.

    Args:
        allowed: whether it may.
        limit: units a second for the whole cluster; 0 means unlimited.
        remaining: units that this node would still admit now; -1 when unlimited.
        retry_after_s: when the same request could be admitted, in seconds; 0 when it was.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float

    def __bool__(self) -> bool:
        return self.allowed
