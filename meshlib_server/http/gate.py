"""Who is connected: how many may be, who goes when there is no room, and who was too slow.

Rule: what a stranger can hold is bounded here: connections in all and from one address, and how
long each may take for a head, for a body, for reading its answer, and for doing nothing.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from enum import IntEnum, auto
from itertools import islice
from typing import Final, NamedTuple, Protocol

from attrs import define, field, frozen

from meshlib.errors import ConfigError
from meshlib.limits import (
    ACCEPTED_CONNECTIONS_MAX,
    HTTP_LINGER_BYTES_MAX,
    HTTP_LINGER_S_MAX,
)

__all__ = ["ACCEPT_BATCH", "Gate", "GateCounters", "Guarded", "HttpSettings", "Shares", "Stage",
           "share_descriptors"]  # fmt: skip

ACCEPT_BATCH: Final = 64
"""Connections taken in one turn of the loop."""

LINGER_SILENCE_S: Final = 5.0
"""A connection that is being closed and sends nothing for so long is gone; nginx has the same."""

_SWEEP_S = 0.5

EXPIRED_AT_ONCE: Final = 128
"""How many connections are closed in one turn of the loop: thousands that came together take too
long together as well."""

_NEXT_SWEEP_S = 0.005
"""When the others are."""

_DESCRIPTORS_RESERVED = 64 + ACCEPT_BATCH
"""For the process itself, its files and name look-ups, and a batch that is being turned away."""

_DESCRIPTORS_LEAST = 16
_DESCRIPTORS_UNLIMITED = 1 << 20


@frozen(kw_only=True)
class HttpSettings:
    """What callers are granted, and how long the server goes on once it was told to end.

    Args:
        connections_max: connections of callers at once; fewer when the process may not open so
            many files. When there is no room the one that has been idle longest makes it.
        connections_per_address_max: of them, from one address; 0 for no such limit, since a
            sidecar or a load balancer is one address.
        requests_per_second_per_address: requests that one address may make in a second; 0 for no
            such limit. A fraction is fine; a second's worth may come at once.
        body_bytes_per_address_max: bytes of bodies that one address may have under way at once;
            0 for no such limit.
        head_timeout_s: longest time from connecting to the first byte, and from the first byte
            of a request to the end of its headers.
        body_timeout_s: longest time from the end of the headers to the end of the body, and
            that an answer may wait for a caller who does not read it.
        idle_timeout_s: how long a connection is kept between two requests.
        grace_s: how long requests are still answered, each with `Connection: close`, after the
            server was told to end, and says that it is not ready.
    """

    connections_max: int = 4096
    connections_per_address_max: int = 0
    requests_per_second_per_address: float = 0.0
    body_bytes_per_address_max: int = 0
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 30.0
    grace_s: float = 1.0

    def __attrs_post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: names the setting.
        """
        for name in ("connections_max", "head_timeout_s", "body_timeout_s", "idle_timeout_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"http.{name} must be over 0, got {value}")
        for name in (
            "connections_per_address_max",
            "requests_per_second_per_address",
            "body_bytes_per_address_max",
            "grace_s",
        ):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"http.{name} must be 0 or more, got {value}")


class Shares(NamedTuple):
    """How the descriptors of a process are shared out.

    Args:
        callers: connections of callers.
        peers: accepted connections of peers; as many are left for those that are dialled.
    """

    callers: int
    peers: int


def share_descriptors(wanted: int, *, descriptors: int | None = None) -> Shares:
    """Share out what the process may open, so that callers never take what gossip needs.

    A third is kept for gossip, in both directions, unless it can never need that many.

    Args:
        wanted: connections of callers, at most.
        descriptors: what the process may open; `RLIMIT_NOFILE` when None.
    """
    if descriptors is None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            descriptors = _DESCRIPTORS_UNLIMITED
    free = max(_DESCRIPTORS_LEAST, descriptors - _DESCRIPTORS_RESERVED)
    peers = min(ACCEPTED_CONNECTIONS_MAX, free // 6)
    return Shares(callers=min(wanted, free - 2 * peers), peers=peers)


class Stage(IntEnum):
    """What a connection is doing; the first ones are the first to go."""

    OPENING = auto()
    """Connected, and nothing was sent yet."""
    HEAD = auto()
    """A head has begun and not ended."""
    LINGERING = auto()
    """All was answered; what still comes is thrown away until the other side closes."""
    IDLE = auto()
    """Between two requests."""
    BODY = auto()
    """A body has begun and not ended."""
    ANSWERING = auto()
    """A whole request is being answered."""


_EVICTABLE = (Stage.OPENING, Stage.HEAD, Stage.LINGERING, Stage.IDLE)


class Guarded(Protocol):
    """A connection, as the gate sees it."""

    def expire(self, stage: Stage) -> None:
        """Answer, when there is something to say, and close: a stage has lasted too long."""

    def abort(self) -> None:
        """Close at once, without a word."""

    def begin_draining(self) -> None:
        """Let the answer that is being made be the last."""


@define(kw_only=True)
class GateCounters:
    """What the gate has done. Counts only grow.

    Args:
        accepted: connections that were let in.
        evicted: those closed to make room for others.
        refused: those turned away, since there was no room or too many from their address.
        expired: those closed because they took too long.
    """

    accepted: int = 0
    evicted: int = 0
    refused: int = 0
    expired: int = 0


@define(eq=False)
class _Place:
    """Where a connection stands."""

    host: str
    stage: Stage = Stage.OPENING
    since: float = 0.0
    heard_at: float = 0.0
    discarded_bytes: int = 0
    stalled_since: float | None = field(default=None)


class Gate:
    """The connections of callers, by what they are doing. Each change is O(1).

    Args:
        settings: what is granted.
        connections_max: connections at once, as the descriptors allow.
    """

    def __init__(self, settings: HttpSettings, *, connections_max: int) -> None:
        self.settings = settings
        self.connections_max = connections_max
        self.counters = GateCounters()
        self.is_draining = False
        self._places: dict[Guarded, _Place] = {}
        self._by_stage: dict[Stage, dict[Guarded, None]] = {stage: {} for stage in Stage}
        self._stalled: dict[Guarded, None] = {}
        self._by_host: dict[str, int] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Guarded]:
        return iter(list(self._places))

    def make_room(self, host: str) -> bool:
        """Tell whether one more connection may come, and close an idle one if that is what helps.

        Args:
            host: where it is from.
        """
        per_host = self.settings.connections_per_address_max
        if per_host and self._by_host.get(host, 0) >= per_host:
            self.counters.refused += 1
            return False
        if len(self._places) < self.connections_max:
            return True
        for stage in _EVICTABLE:
            for connection in self._by_stage[stage]:
                self.counters.evicted += 1
                self.leave(connection)
                connection.abort()
                return True
        self.counters.refused += 1
        return False

    def enter(self, connection: Guarded, host: str) -> None:
        """Take in a connection that `make_room` had room for."""
        self.counters.accepted += 1
        now = asyncio.get_running_loop().time()
        self._places[connection] = _Place(host, since=now, heard_at=now)
        self._by_stage[Stage.OPENING][connection] = None
        self._by_host[host] = self._by_host.get(host, 0) + 1
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def leave(self, connection: Guarded) -> None:
        """Take note that a connection has gone, or is nobody's caller any more. Idempotent."""
        place = self._places.pop(connection, None)
        if place is None:
            return
        del self._by_stage[place.stage][connection]
        self._stalled.pop(connection, None)
        left = self._by_host[place.host] - 1
        if left:
            self._by_host[place.host] = left
        else:
            del self._by_host[place.host]

    def move(self, connection: Guarded, stage: Stage) -> None:
        """Take note of what a connection does now: the time for it begins anew."""
        place = self._places.get(connection)
        if place is None:
            return
        del self._by_stage[place.stage][connection]
        self._by_stage[stage][connection] = None
        place.stage = stage
        place.since = place.heard_at = asyncio.get_running_loop().time()

    def discard(self, connection: Guarded, size: int) -> bool:
        """Count what came on a lingering connection and was thrown away.

        Returns:
            whether more of it may come.
        """
        place = self._places.get(connection)
        if place is None:
            return False
        place.heard_at = asyncio.get_running_loop().time()
        place.discarded_bytes += size
        return place.discarded_bytes <= HTTP_LINGER_BYTES_MAX

    def stall(self, connection: Guarded, *, is_stalled: bool) -> None:
        """Take note that a connection does not take what is written to it, or does again."""
        place = self._places.get(connection)
        if place is None:
            return
        if is_stalled:
            place.stalled_since = asyncio.get_running_loop().time()
            self._stalled[connection] = None
        else:
            place.stalled_since = None
            self._stalled.pop(connection, None)

    def begin_draining(self) -> None:
        """Let every connection end with its next answer. Idempotent."""
        self.is_draining = True
        for connection in self:
            connection.begin_draining()

    def close(self) -> None:
        """Close whatever is left, at once."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in self:
            self.leave(connection)
            connection.abort()

    def _sweep(self) -> None:
        """Close what takes too long. The oldest of a stage come first: O(those, lingerers)."""
        self._sweeping = None
        loop = asyncio.get_running_loop()
        overdue = list(islice(self._overdue(loop.time()), EXPIRED_AT_ONCE))
        for connection, stage in overdue:
            if connection not in self._places:
                continue
            if stage is None:
                self.counters.expired += 1
                self.leave(connection)
                connection.abort()
            else:
                self._expire(connection, stage)
        if self._places:
            is_more = len(overdue) == EXPIRED_AT_ONCE
            self._sweeping = loop.call_later(_NEXT_SWEEP_S if is_more else _SWEEP_S, self._sweep)

    def _overdue(self, now: float) -> Iterator[tuple[Guarded, Stage | None]]:
        """Yield what takes too long, and in what; None for a caller who does not read."""
        settings = self.settings
        for stage, limit_s in (
            (Stage.OPENING, settings.head_timeout_s),
            (Stage.HEAD, settings.head_timeout_s),
            (Stage.BODY, settings.body_timeout_s),
            (Stage.IDLE, settings.idle_timeout_s),
            (Stage.LINGERING, HTTP_LINGER_S_MAX),
        ):
            for connection in self._by_stage[stage]:
                if self._places[connection].since > now - limit_s:
                    break
                yield connection, stage
        for connection in self._by_stage[Stage.LINGERING]:
            if self._places[connection].heard_at <= now - LINGER_SILENCE_S:
                yield connection, Stage.LINGERING
        for connection in self._stalled:
            since = self._places[connection].stalled_since
            if since is None or since > now - settings.body_timeout_s:
                break
            yield connection, None

    def _expire(self, connection: Guarded, stage: Stage) -> None:
        self.counters.expired += 1
        connection.expire(stage)
