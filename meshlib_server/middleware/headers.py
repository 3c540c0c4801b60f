"""What whoever asked is told of a decision: the headers, and the body of a refusal.

Decisions have the headers of the IETF's draft (draft-ietf-httpapi-ratelimit-headers: `RateLimit`,
`RateLimit-Policy`, as structured fields), and the older `X-RateLimit-*`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from attrs import frozen

from meshlib.ratelimit import Decision, Limit
from meshlib_server.problems import problem_body, retry_after

__all__ = ["Refusal", "rate_limit_headers", "raw_headers", "refused"]

AT_ONCE: Final = "at once"
"""What the policy of slots has in the place of a period."""


def rate_limit_headers(decision: Decision) -> dict[str, str]:
    """Return the headers of a decision; none when it was admitted without a limit. O(1).

    For a router's own answers too: whoever is refused learns how long to wait, whoever is not how
    much is left.
    """
    wait = {} if decision else retry_after(decision.retry_after_s)
    if not decision.policy:
        return wait  # no limit, or none that is known yet: there is nothing to tell of it
    reset_s = math.ceil(decision.reset_after_s)
    return {
        "RateLimit-Policy": _policy(decision.policy),
        "RateLimit": f'"{decision.policy}";r={decision.remaining};t={reset_s}',
        "X-RateLimit-Limit": str(decision.limit),
        "X-RateLimit-Remaining": str(decision.remaining),
        "X-RateLimit-Reset": str(reset_s),
        **wait,
    }


def raw_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    """Return the same headers as ASGI has them: for each request. O(1)."""
    wait = () if decision.allowed else _raw(retry_after(decision.retry_after_s))
    policy = decision.policy
    if not policy:
        return [*wait]
    policy_header, limit_header = _of_policy(policy, decision.limit)
    remaining, reset_s = decision.remaining, math.ceil(decision.reset_after_s)
    return [
        policy_header,
        (b"ratelimit", f'"{policy}";r={remaining};t={reset_s}'.encode()),
        limit_header,
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % reset_s),
        *wait,
    ]


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


@lru_cache(maxsize=1024)
def _of_policy(text: str, limit: int) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    return (b"ratelimit-policy", _policy(text).encode()), (b"x-ratelimit-limit", b"%d" % limit)


@lru_cache(maxsize=1024)
def _policy(text: str) -> str:
    count, _, unit = text.partition(" ")
    if unit == AT_ONCE:  # of slots: there is no window
        return f'"{text}";q={count};qu="concurrent-requests"'
    limit = Limit.parse(text)
    return f'"{text}";q={limit.rate};w={math.ceil(limit.period_s)}'


@frozen
class Refusal:
    """The answer to a request that does not pass.

    Args:
        status_code: 429 over a limit, 400 for a key or a cost that cannot be, 503 undecided.
        message: one sentence for a human.
        headers: when to come back, and what the limit is.
        body: JSON, as everywhere: `error` and `code`, and of a limit the fields of the decision.
    """

    status_code: int
    message: str
    headers: Mapping[str, str]
    body: bytes

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers as ASGI has them."""
        return _raw(self.headers)


def refused(
    status_code: int,
    message: str,
    *,
    decision: Decision | None = None,
    retry_after_s: float | None = None,
) -> Refusal:
    """Make the answer to a request that does not pass.

    Args:
        status_code: the HTTP status.
        message: one sentence for a human.
        decision: the one that refused it, if any.
        retry_after_s: when to come back, where no decision says so; None: it is of no use.
    """
    tree: dict[str, object] = {**problem_body(status_code, message)}
    headers = {"Content-Type": "application/json"}
    if decision is not None:
        tree.update(
            limit=decision.limit,
            remaining=decision.remaining,
            retry_after_s=decision.retry_after_s,
            reset_after_s=decision.reset_after_s,
            policy=decision.policy,
        )
        headers |= rate_limit_headers(decision)
    elif retry_after_s is not None:
        headers |= retry_after(retry_after_s)
    body = json.dumps(tree).encode()
    return Refusal(status_code, message, {**headers, "Content-Length": str(len(body))}, body)
