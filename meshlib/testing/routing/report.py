"""What came of a replay of a trace."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

__all__ = ["RoutingReport"]


@frozen(slots=True, kw_only=True)
class RoutingReport:
    """How one policy did on one trace.

    Args:
        policy: its name.
        request_count: requests of the trace.
        hit_rate: the share of all prompt tokens that were cached at the worker.
        ttft_s: for each request the seconds from its arrival to its first token, sorted.
        work_max_over_mean: prefill of the worker that had most, over that of all, a worker.
        gossip_bytes: what routers sent each other while requests arrived.
    """

    policy: str
    request_count: int
    hit_rate: float
    ttft_s: tuple[float, ...]
    work_max_over_mean: float
    gossip_bytes: int

    @property
    def ttft_mean_ms(self) -> float:
        """The mean time to the first token, in milliseconds."""
        return 1000.0 * sum(self.ttft_s) / len(self.ttft_s)

    def ttft_ms(self, share: float) -> float:
        """Return within how many milliseconds a share of the requests had their first token."""
        return 1000.0 * self.ttft_s[min(len(self.ttft_s) - 1, int(share * len(self.ttft_s)))]

    @property
    def gossip_bytes_per_request(self) -> float:
        """What routers told each other, for each request."""
        return self.gossip_bytes / self.request_count

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, rounded to what means something."""
        return {
            "policy": self.policy,
            "requests": self.request_count,
            "hit_rate": round(self.hit_rate, 4),
            "ttft_ms": {
                "mean": round(self.ttft_mean_ms, 1),
                "p50": round(self.ttft_ms(0.5), 1),
                "p95": round(self.ttft_ms(0.95), 1),
                "p99": round(self.ttft_ms(0.99), 1),
            },
            "work_max_over_mean": round(self.work_max_over_mean, 3),
            "gossip_bytes_per_request": round(self.gossip_bytes_per_request),
        }

    def to_json(self) -> str:
        """Return the report as one JSON object; the same run gives the same text."""
        return json.dumps(self.to_dict())
