"""The requests that this router has in flight.

Rule: which requests are in flight is decided in this file.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.errors import UnknownKeyError
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import REQUESTS_IN_FLIGHT_MAX
from meshlib.routing.load.prefilling import Begun, Prefilling

__all__ = ["EXPIRY_S", "InFlight"]

EXPIRY_S: Final = 600.0
"""After so many seconds a request that was neither ended nor renewed counts as ended."""

EXPIRED_AT_ONCE_MAX: Final = 1024
"""How many expired requests are taken out in one go: all may have been begun at one moment."""

_NUMBER: Final = re.compile("[1-9a-f][0-9a-f]{0,15}")
"""How the number in a request's name is written."""


@define(slots=True, eq=False)
class _AtWorker:
    """What is in flight at one worker."""

    request_count: int = 0
    decoded_tokens: int = 0
    prefilling: Prefilling = field(factory=Prefilling)


class InFlight:
    """The requests of one router.

    Args:
        actor: this start of the router: two starts never give one name to two requests.
    """

    __slots__ = ("_at", "_number", "_prefix", "_requests", "dropped_count")

    def __init__(self, actor: ActorId) -> None:
        self._prefix = actor.hex()
        self._number = 0
        # In the order in which they expire. A plain dict is slow at giving its first entry again
        # and again: it looks through all that were taken out before.
        self._requests: OrderedDict[str, Begun] = OrderedDict()
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

    def has_named(self, request_id: str) -> bool:
        """Tell whether this start gave a name, whatever has become of the request. O(1)."""
        prefix, dash, number = request_id.rpartition("-")
        if prefix != self._prefix or not dash or not _NUMBER.fullmatch(number):
            return False
        return 1 <= int(number, 16) <= self._number

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
            at.prefilling.add(begun)
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
        if prefilling.pop(request_id) is None:
            return None
        late_s = now - (begun.starts_at + begun.tokens / speed)
        prefilling.move(begun_from=begun.begun_at, late_s=late_s, now=now)
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
        at.prefilling.pop(request_id)
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
        self._requests.move_to_end(request_id)

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
        return tokens > 0 and at.prefilling.pop(request_id) is not None

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
        """End the requests that have expired by now, and return them. O(those).

        No more than `EXPIRED_AT_ONCE_MAX`: where more have, `next_expiry` says that it is due.
        """
        gone: list[Begun] = []
        while (due_at := self.next_expiry()) is not None and due_at <= now:
            if len(gone) == EXPIRED_AT_ONCE_MAX:
                break
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
            at.prefilling._check()  # noqa: SLF001 - invariants reach inside on purpose
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

        O(requests of this router that are being prefilled there), as `Prefilling.left`.
        """
        at = self._at.get(worker_id)
        return (0.0, 0.0) if at is None else at.prefilling.left(speed=speed, now=now)
