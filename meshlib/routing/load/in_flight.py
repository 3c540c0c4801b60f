"""The requests that this router has in flight.

Rule: what one request still costs its worker is decided in this file. A request waits until the
worker is through with what it was given before, and is then prefilled at the worker's speed;
`first_token` says that it is done. Where nobody says so, time does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.errors import UnknownKeyError
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import REQUESTS_IN_FLIGHT_MAX

__all__ = ["EXPIRY_S", "Begun", "InFlight", "left_to_prefill"]

EXPIRY_S: Final = 600.0
"""After so many seconds a request that was neither ended nor renewed counts as ended."""


def left_to_prefill(tokens: float, *, starts_at: float, speed: float, now: float) -> float:
    """Return what is left of a prefill that began, or begins, at a time. O(1)."""
    if now <= starts_at:
        return tokens
    return max(0.0, tokens - speed * (now - starts_at))


@define(slots=True, eq=False)
class Begun:
    """One request in flight.

    Args:
        request_id: its name.
        worker_id: where it is.
        tokens: what it has to prefill.
        ahead: tokens that the worker was expected to prefill before.
        begun_at: when it was sent, in monotonic seconds.
        starts_at: when its prefill is expected to begin.
        expires_at: when it counts as ended unless it is renewed.
        decoded_tokens: what it has decoded so far, as far as its router knows.
    """

    request_id: str
    worker_id: str
    tokens: float
    ahead: float
    begun_at: float
    starts_at: float
    expires_at: float
    decoded_tokens: int = 0


@define(slots=True, eq=False)
class _AtWorker:
    """What is in flight at one worker; `prefilling` in the order of beginning."""

    request_count: int = 0
    decoded_tokens: int = 0
    prefilling: dict[str, Begun] = field(factory=dict)


class InFlight:
    """The requests of one router.

    Args:
        actor: this start of the router: two starts never give one name to two requests.
    """

    __slots__ = ("_at", "_number", "_prefix", "_requests", "dropped_count")

    def __init__(self, actor: ActorId) -> None:
        self._prefix = actor.hex()
        self._number = 0
        self._requests: dict[str, Begun] = {}  # in the order in which they expire
        self._at: dict[str, _AtWorker] = {}
        self.dropped_count = 0
        """Requests that were taken for ended because there were too many."""

    def __len__(self) -> int:
        """Return how many requests are in flight. O(1)."""
        return len(self._requests)

    def __contains__(self, request_id: object) -> bool:
        """Tell whether a request is in flight. O(1)."""
        return request_id in self._requests

    def workers(self) -> Collection[str]:
        """Return the workers that have requests, in no order that means anything. O(1)."""
        return self._at.keys()

    def new_name(self) -> str:
        """Return a name that no request has had, here or elsewhere. O(1)."""
        self._number += 1
        return f"{self._prefix}-{self._number:x}"

    def begin(
        self, worker_id: str, *, tokens: float, ahead: float, speed: float, now: float
    ) -> tuple[Begun, Begun | None]:
        """Take a request in. O(1).

        Args:
            worker_id: where it goes.
            tokens: what it has to prefill.
            ahead: tokens that are to be prefilled there before it.
            speed: tokens a second of that worker.
            now: monotonic seconds.

        Returns:
            the request, and one that had to be taken for ended to make room for it.
        """
        dropped = None
        if len(self._requests) >= REQUESTS_IN_FLIGHT_MAX:
            dropped = self.end(next(iter(self._requests)))
            self.dropped_count += 1
        begun = Begun(
            request_id=self.new_name(),
            worker_id=worker_id,
            tokens=tokens,
            ahead=ahead,
            begun_at=now,
            starts_at=now + ahead / speed,
            expires_at=now + EXPIRY_S,
        )
        self._requests[begun.request_id] = begun
        at = self._at.get(worker_id)
        if at is None:
            at = self._at[worker_id] = _AtWorker()
        at.request_count += 1
        if tokens > 0:
            at.prefilling[begun.request_id] = begun
        return begun, dropped

    def first_token(self, request_id: str, *, speed: float, now: float) -> Begun | None:
        """Take note that a request is prefilled; None when that was known already.

        What this router has behind it at the worker is moved by as much as this one was early or
        late. O(requests of this router that are still to be prefilled there).

        Raises:
            UnknownKeyError: no such request is in flight. State unchanged.
        """
        begun = self._find(request_id)
        prefilling = self._at[begun.worker_id].prefilling
        if prefilling.pop(request_id, None) is None:
            return None
        late_s = now - (begun.starts_at + begun.tokens / speed)
        for other in prefilling.values():
            if other.begun_at >= begun.begun_at:
                other.starts_at = max(other.starts_at + late_s, now)
        return begun

    def end(self, request_id: str) -> Begun:
        """Take a request out. O(1).

        Raises:
            UnknownKeyError: no such request is in flight. State unchanged.
        """
        begun = self._find(request_id)
        del self._requests[request_id]
        at = self._at[begun.worker_id]
        at.request_count -= 1
        at.decoded_tokens -= begun.decoded_tokens
        at.prefilling.pop(request_id, None)
        if not at.request_count:
            del self._at[begun.worker_id]
        return begun

    def renew(self, request_id: str, *, now: float) -> None:
        """Let a request live for another `EXPIRY_S`. O(1).

        Raises:
            UnknownKeyError: no such request is in flight. State unchanged.
        """
        begun = self._find(request_id)
        begun.expires_at = now + EXPIRY_S
        self._requests[request_id] = self._requests.pop(request_id)

    def decoded(self, request_id: str, tokens: int) -> bool:
        """Take note of what a request has decoded so far; say whether its prefill is over by that.

        Fewer than are known already change nothing: words of a request may come in any order. O(1).

        Args:
            request_id: the request.
            tokens: since its beginning; with one of them it is prefilled, whenever that was.

        Raises:
            UnknownKeyError: no such request is in flight. State unchanged.
        """
        begun = self._find(request_id)
        at = self._at[begun.worker_id]
        at.decoded_tokens += max(0, tokens - begun.decoded_tokens)
        begun.decoded_tokens = max(begun.decoded_tokens, tokens)
        return tokens > 0 and at.prefilling.pop(request_id, None) is not None

    def _find(self, request_id: str) -> Begun:
        begun = self._requests.get(request_id)
        if begun is None:
            raise UnknownKeyError("request", request_id)
        return begun

    def next_expiry(self) -> float | None:
        """Return when the next request expires, in monotonic seconds; None without any. O(1)."""
        for begun in self._requests.values():
            return begun.expires_at
        return None

    def expire(self, now: float) -> list[Begun]:
        """End the requests that have expired by now, and return them. O(those)."""
        gone = []
        while (due_at := self.next_expiry()) is not None and due_at <= now:
            gone.append(self.end(next(iter(self._requests))))
        return gone

    def clear(self, worker_id: str) -> int:
        """End all requests at a worker, and return how many. O(requests in flight)."""
        if worker_id not in self._at:
            return 0
        gone = [one.request_id for one in self._requests.values() if one.worker_id == worker_id]
        for request_id in gone:
            self.end(request_id)
        return len(gone)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {"requests": self._requests, "at": self._at, "dropped_count": self.dropped_count}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(requests)."""
        require(self, len(self._requests) <= REQUESTS_IN_FLIGHT_MAX, "more than may be in flight")
        counted = Counter(begun.worker_id for begun in self._requests.values())
        held = {worker_id: at.request_count for worker_id, at in self._at.items()}
        require(self, dict(counted) == held, "the counts by worker are not the requests")
        decoded: Counter[str] = Counter()
        for begun in self._requests.values():
            decoded[begun.worker_id] += begun.decoded_tokens
        for worker_id, at in self._at.items():
            is_sum = decoded[worker_id] == at.decoded_tokens
            require(self, is_sum, f"the decoded tokens at {worker_id!r} are not its requests'")
            for request_id in at.prefilling:
                is_there = self._requests[request_id].worker_id == worker_id
                require(self, is_there, f"{request_id!r} is prefilled where it is not")

    def worker_of(self, request_id: str) -> str:
        """Return where a request is. O(1).

        Raises:
            UnknownKeyError: no such request is in flight.
        """
        return self._find(request_id).worker_id

    def request_count(self, worker_id: str) -> int:
        """Return how many requests are in flight at a worker. O(1)."""
        at = self._at.get(worker_id)
        return 0 if at is None else at.request_count

    def decoded_tokens(self, worker_id: str) -> int:
        """Return what the requests in flight at a worker have decoded so far. O(1)."""
        at = self._at.get(worker_id)
        return 0 if at is None else at.decoded_tokens

    def left(self, worker_id: str, *, speed: float, now: float) -> tuple[float, float]:
        """Return the tokens that are to be prefilled at a worker, and the seconds until it begins.

        O(requests of this router that are still to be prefilled there).
        """
        at = self._at.get(worker_id)
        if at is None or not at.prefilling:
            return 0.0, 0.0
        left, first_at = 0.0, math.inf
        for one in at.prefilling.values():
            remains = left_to_prefill(one.tokens, starts_at=one.starts_at, speed=speed, now=now)
            if remains > 0.0:
                left += remains
                first_at = min(first_at, one.starts_at)
        return left, max(0.0, first_at - now) if left else 0.0
