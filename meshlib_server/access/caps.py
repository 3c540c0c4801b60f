"""What one address may ask in a second, and how many bytes of bodies it may have under way.

Rule: a cap is by address, before any token is looked at, and off unless it is set: a sidecar or a
load balancer is one address. Probes are not capped, or a supervisor would end a node that is busy.
Source: the rate is the generic cell rate algorithm (ITU-T I.371), which keeps one time for each
address.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshlib_server.logs import quiet_warning
from meshlib_server.problems import Code, ContentTooLarge, TooManyRequests, problem, retry_after

__all__ = ["CapsByAddress", "Rates", "address_of"]

ADDRESSES_MAX: Final = 8192
"""Addresses whose rate is kept; of more, those that asked longest ago begin anew."""

_NETWORK_BITS: Final = 64
"""Of an IPv6 address: whoever has one has all of its network."""


def address_of(host: str) -> str:
    """Return what counts as one address: for IPv6, the network of 64 bits. O(1)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> _NETWORK_BITS << _NETWORK_BITS))


class Rates:
    """How many requests addresses have made. Each is O(1).

    Args:
        per_second: what one may ask, on average; so many, at least one, may come at once. Over 0.
        clock: returns monotonic seconds.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = 1.0 / per_second
        self._ahead_max_s = max(0.0, 1.0 - self._interval_s)
        self._clock = clock
        self._free_at: dict[str, float] = {}  # in the order of the last request

    def __len__(self) -> int:
        return len(self._free_at)

    def wait_s(self, address: str) -> float:
        """Take note of a request, and return 0; or return in how many seconds one may come."""
        now = self._clock()
        free_at = max(self._free_at.pop(address, now), now)
        wait_s = free_at - now - self._ahead_max_s
        if wait_s <= 1e-9:  # what rounding leaves
            free_at += self._interval_s
            wait_s = 0.0
        self._free_at[address] = free_at
        if len(self._free_at) > ADDRESSES_MAX:
            del self._free_at[next(iter(self._free_at))]
        return wait_s


class CapsByAddress:
    """Answers 429 to what an address asks beyond its caps; pure ASGI.

    Args:
        app: what is protected.
        rate: requests of one address in a second; 0: any number.
        body_bytes_max: bytes of bodies of one address that are under way at once; 0: any number.
        free_paths: paths that are not capped.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        rate: float,
        body_bytes_max: int,
        free_paths: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._rates = Rates(rate, clock=clock) if rate else None
        self._bodies = _Bodies(body_bytes_max)
        self._free_paths = frozenset(free_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; what it brings is counted while it is answered."""
        if scope["type"] != "http" or scope["path"] in self._free_paths:
            await self._app(scope, receive, send)
            return
        client = scope.get("client") or ("unknown", 0)
        address = address_of(client[0])
        wait_s = self._rates.wait_s(address) if self._rates is not None else 0.0
        if wait_s:
            quiet_warning("an address asks more often than it may", f"from {address}")
            response = problem(
                429,
                "this address asks more often than it may",
                code=Code.TOO_MANY_REQUESTS,
                headers=retry_after(wait_s),
            )
            await response(scope, receive, send)
            return
        if not self._bodies.bytes_max:
            await self._app(scope, receive, send)
            return
        body = _Body(self._bodies, address, receive)
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.release()


class _Bodies:
    """How many bytes of bodies each address has under way."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.under_way: dict[str, int] = {}

    def add(self, address: str, size: int) -> int:
        """Count bytes, or fewer with a negative number, and return how many there are now."""
        count = self.under_way.get(address, 0) + size
        if count:
            self.under_way[address] = count
        else:
            self.under_way.pop(address, None)
        return count


class _Body:
    """The body of one request, counted as it comes."""

    def __init__(self, bodies: _Bodies, address: str, receive: Receive) -> None:
        self._bodies = bodies
        self._address = address
        self._receive = receive
        self._size = 0

    async def receive(self) -> Message:
        """Receive the next part.

        Raises:
            ContentTooLarge: this body alone is over the cap.
            TooManyRequests: all bodies of its address together are.
        """
        message = await self._receive()
        size = len(message.get("body") or b"")
        if not size:
            return message
        self._size += size
        total = self._bodies.add(self._address, size)
        bytes_max = self._bodies.bytes_max
        if self._size > bytes_max:
            raise ContentTooLarge(f"the body is over {bytes_max:,} bytes, the cap of an address")
        if total > bytes_max:
            quiet_warning("an address sends more than it may", f"from {self._address}")
            raise TooManyRequests("this address has more bodies under way than it may")
        return message

    def release(self) -> None:
        """Count the body no more."""
        self._bodies.add(self._address, -self._size)
