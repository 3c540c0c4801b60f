"""What the limiter answers with."""

from __future__ import annotations

from typing import Final, NamedTuple

from attrs import frozen

__all__ = [
    "GLOBAL_KEY",
    "Decision",
    "KeyUse",
    "LimitUsage",
    "RateLimitStats",
    "RateMessage",
    "Reservation",
]

GLOBAL_KEY: Final = "global"
"""The rate-limit key of the global limit."""


@frozen(slots=True, kw_only=True)
class RateLimitStats:
    """What is used of a rate limit.

    Args:
        limit_per_second: the limit; 0 means unlimited. Of another period than a second: units in
            that period, or at once; `RateLimiter.usage` tells which.
        current_count: units admitted on all nodes in the current window.
        remaining: what the limit leaves in this window, never under 0; -1 when unlimited.
    """

    limit_per_second: int
    current_count: int
    remaining: int


class LimitUsage(NamedTuple):
    """What is used of one of the limits of a key.

    Args:
        policy: the limit as text; empty when unlimited.
        limit: units in each window, or at once; 0 when unlimited.
        used_count: units used on all nodes.
        remaining: what the limit leaves, never under 0; -1 when unlimited.
        reset_after_s: seconds until nothing is used any more, if nobody comes.
    """

    policy: str
    limit: int
    used_count: int
    remaining: int
    reset_after_s: float


class KeyUse(NamedTuple):
    """What one node has decided of a key under one limit.

    Args:
        key: the rate-limit key.
        mark: of the period: seconds or `month`, with `s` if sliding and `g` if gcra; empty for
            windows of a second.
        admitted_count: units admitted.
        refused_count: requests refused.
    """

    key: str
    mark: str
    admitted_count: int
    refused_count: int


class Decision(NamedTuple):
    """Whether a request may pass. True in a boolean context when it may.

    A named tuple and not an attrs record: one is made for each request.

    Args:
        allowed: whether it may.
        limit: units for the whole cluster in each window, or at once; 0 means unlimited. Of
            several limits, here and below, that of which the least is left, or which refuses
            for longest.
        remaining: units that the cluster would still admit now, as far as this node has heard;
            -1 when unlimited.
        retry_after_s: after so many seconds the same request passes, if nobody else comes and
            nothing is owed; 0 when it was admitted. Never more than the period, or than a burst
            that is larger than the rate takes to come back.
        reset_after_s: seconds until nothing of the limit is used any more, if nobody comes.
        policy: the limit as text, such as `100/minute`; empty when unlimited.
        confirmed: whether it rests on the word of the key's owner: on units that it granted, or on
            its refusal. Not so on credit, and where no owner was reached. True when unlimited.
        window: the number of the window whose units were used, in periods since 1970 by the
            owner's clock; 0 where there are no windows, -1 without an owner's grant.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    reset_after_s: float = 0.0
    policy: str = ""
    confirmed: bool = False
    window: int = -1

    def __bool__(self) -> bool:
        return self.allowed

    def with_confirmed(self, is_confirmed: bool) -> Decision:
        """Return the same decision, resting on the owner's word or not."""
        return self._replace(confirmed=is_confirmed)

    def with_retry(self, retry_after_s: float) -> Decision:
        """Return the same refusal, some time later."""
        return self._replace(retry_after_s=retry_after_s)


class Reservation(NamedTuple):
    """Units that were counted by an estimate. True in a boolean context when they were.

    Args:
        reservation_id: its name, for the node that made it; empty when it was refused.
        key: the rate-limit key.
        estimate: the units.
        decision: on the estimate.
    """

    reservation_id: str
    key: str
    estimate: int
    decision: Decision

    def __bool__(self) -> bool:
        return self.decision.allowed


@frozen(slots=True)
class RateMessage:
    """Bytes of a volatile document, and whom they are for.

    Args:
        to: names of nodes; none of them is this one.
        document: the volatile document.
        payload: its bytes.
    """

    to: tuple[str, ...]
    document: str
    payload: bytes
