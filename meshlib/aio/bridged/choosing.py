"""Which bridge is asked first, and which are passed over because they were lost lately.

Rule: a bridge is chosen anew as soon as one was lost, and none is given up for good: when all were
lost, the one that is passed over for the shortest time is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from attrs import define, frozen

from meshlib.aio.bridged.envelopes import Kind
from meshlib.aio.bridged.places import Regions
from meshlib.aio.transport import Transport
from meshlib.hashing import hash64_text

__all__ = ["Choice", "Hop"]

LOST_FIRST_S: Final = 0.5
LOST_MAX_S: Final = 16.0
"""How long a bridge is passed over: doubled with each loss, until it is heard again."""

TRIES_MAX: Final = 3
"""Bridges that one frame is offered to."""


@frozen(slots=True)
class Hop:
    """A bridge that a frame may be given to.

    Args:
        transport: over which it is reached.
        kind: which leg of the way that is.
        bridge: its address.
        until: until when it is passed over; 0 for one that is not.
    """

    transport: Transport
    kind: Kind
    bridge: str
    until: float


@define(slots=True)
class _Mark:
    until: float
    for_s: float


class Choice:
    """The bridges that one node may ask, and which of them were lost.

    Each node has an order of its own, so that all of them share the work.

    Args:
        regions: all of them.
        region: that of the node.
        address: of the node.
        inside: the transport within the region.
        between: the one between regions; None for a node that is no bridge.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        regions: Regions,
        *,
        region: str,
        address: str,
        inside: Transport,
        between: Transport | None,
        clock: Callable[[], float],
    ) -> None:
        self._regions, self._region = regions, region
        self._inside, self._between = inside, between
        self._clock = clock
        self._is_between_up = True
        self._marks: dict[tuple[str, str], _Mark] = {}
        self._ordered = {
            name: sorted(
                (bridge for bridge in regions.bridges_of(name) if bridge != address),
                key=lambda bridge: (hash64_text(f"{address} {bridge}"), bridge),
            )
            for name in regions.names
        }

    def is_next(self, address: str) -> bool:
        """Tell whether an address is the other end of a link of this bridge's own. O(1)."""
        return (
            self._between is not None
            and self._is_between_up
            and self._regions.is_bridge(address)
            and self._regions.region_of(address) != self._region
            and not self._until(address, "")
        )

    def hops(self, region: str, address: str, *, is_passing: bool = False) -> list[Hop]:
        """Return the bridges that a frame may be given to, the best first; 3 at most. O(bridges).

        Args:
            region: that it is for, another one.
            address: that it is for.
            is_passing: whether it is of another node: it goes on its next leg, or nowhere.
        """
        hops: list[Hop] = []
        if self._between is not None:
            for bridge in self._ordered[region]:
                until = self._until(bridge, "") if self._is_between_up else math.inf
                hops.append(Hop(self._between, Kind.ACROSS, bridge, until))
            hops.sort(key=lambda hop: hop.bridge != address)  # which is there itself
        if not is_passing:
            hops += (
                Hop(self._inside, Kind.OUT, bridge, self._until(bridge, region))
                for bridge in self._ordered[self._region]
            )
        return sorted(hops, key=lambda hop: hop.until)[:TRIES_MAX]

    def lost(self, bridge: str, region: str = "", *, at_least_s: float = 0.0) -> None:
        """Pass a bridge over for a while, or for frames to one region only. O(1).

        Args:
            bridge: the address of one.
            region: empty for all.
            at_least_s: how long, if it would be for less; may be infinite.
        """
        now, known = self._clock(), self._marks.get((bridge, region))
        for_s = LOST_FIRST_S
        if known is not None:
            if now < known.until and at_least_s <= known.until - now:
                return  # of the same loss: several links and frames may tell of it
            is_again = now < known.until + LOST_MAX_S
            for_s = min(LOST_MAX_S, known.for_s * 2) if is_again else LOST_FIRST_S
        for_s = max(for_s, at_least_s)
        self._marks[bridge, region] = _Mark(now + for_s, for_s)

    def heard(self, bridge: str) -> None:
        """Ask a bridge again. O(regions)."""
        for region in ("", *self._regions.names):
            self._marks.pop((bridge, region), None)

    def between_changed(self, is_up: bool) -> None:
        """Hear that no bridge of another region can be reached, or that all may be again."""
        self._is_between_up = is_up
        if is_up:
            for name in self._regions.names:
                if name != self._region:
                    for bridge in self._ordered[name]:
                        self.heard(bridge)

    def _until(self, bridge: str, region: str) -> float:
        """Return until when a bridge is passed over; 0 for one that is not."""
        now, latest = self._clock(), 0.0
        for key in ((bridge, ""), (bridge, region)):
            mark = self._marks.get(key)
            if mark is not None and mark.until > now:
                latest = max(latest, mark.until)
        return latest
