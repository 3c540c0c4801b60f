"""What the limiter answers with."""

from __future__ import annotations

from typing import Final, NamedTuple

from attrs import frozen

__all__ = ["GLOBAL_KEY", "Decision", "RateLimitStats", "RateMessage"]

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
        remaining: units that the cluster would still admit now, as far as this node has heard;
            -1 when unlimited.
        retry_after_s: after so many seconds the same request passes, if nobody else comes; 0 when
            it was admitted.
        confirmed: whether it rests on the word of the key's owner: on units that it granted, or on
            its refusal. Not so on credit, and where no owner was reached. True when unlimited.
        window: the number of the window whose units were used, in seconds since 1970 by the
            owner's clock; -1 without an owner's grant.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    confirmed: bool = False
    window: int = -1

    def __bool__(self) -> bool:
        return self.allowed


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
