"""What the limiter of leases answers with."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["HeldDecision"]


class HeldDecision(NamedTuple):
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
            its refusal. Not so on credit, and where no owner was reached.
        window: the number of the window whose units were used, -1 without an owner's grant.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    confirmed: bool = False
    window: int = -1

    def __bool__(self) -> bool:
        return self.allowed
