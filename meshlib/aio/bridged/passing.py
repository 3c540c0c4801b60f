"""The work of a bridge: frames of other nodes go on to the next leg of their way.

Rule: nothing waits here. What a link does not take is dropped and counted: its queue is bounded,
and a bridge that read more slowly instead would hold back what is for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from meshlib.aio.bridged.admitting import BridgeCounters, remember
from meshlib.aio.bridged.choosing import Choice
from meshlib.aio.bridged.envelopes import Envelope, Kind, put_in, turned
from meshlib.aio.bridged.places import Regions
from meshlib.aio.transport import Transport

__all__ = ["Passing"]

TOLD_PAUSE_S: Final = 0.2
"""How often one node is told that there is no way to a region."""


class Passing:
    """Passes on what is of others.

    Args:
        choice: which bridges of other regions there are.
        regions: all of them.
        address: of this bridge.
        inside: the transport within its region.
        counters: what is counted.
        clock: monotonic seconds.
    """

    __slots__ = ("_address", "_choice", "_clock", "_counters", "_inside", "_regions", "_told")

    def __init__(
        self,
        choice: Choice,
        *,
        regions: Regions,
        address: str,
        inside: Transport,
        counters: BridgeCounters,
        clock: Callable[[], float],
    ) -> None:
        self._choice, self._regions, self._address = choice, regions, address
        self._inside = inside
        self._counters = counters
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def out(self, data: bytes, envelope: Envelope) -> None:
        """Give what came from inside to a bridge of the region that it is for. O(size)."""
        region = self._regions.region_of(envelope.destination)
        assert region is not None
        hops = self._choice.hops(region, envelope.destination, is_passing=True)
        if not hops or hops[0].until:
            # It is tried all the same; but whoever knows of another bridge is to ask that one.
            self._tell_no_way(envelope.origin, region)
        self._give(turned(data, Kind.ACROSS), ((hop.transport, hop.bridge) for hop in hops))

    def inwards(self, data: bytes, envelope: Envelope) -> None:
        """Give what came from between to the node that it is for. O(size)."""
        self._give(turned(data, Kind.IN), ((self._inside, envelope.destination),))

    def _give(self, data: bytes, ways: Iterable[tuple[Transport, str]]) -> None:
        """Give an envelope to the first link that takes it."""
        is_full = False
        for transport, address in ways:
            full_before = transport.counters.frames_dropped_queue_full
            if transport.send(address, data):
                self._counters.frames_passed_on += 1
                self._counters.bytes_passed_on += len(data)
                return
            is_full |= transport.counters.frames_dropped_queue_full > full_before
        if is_full:
            self._counters.frames_dropped_overloaded += 1
        else:
            self._counters.frames_dropped_no_way += 1

    def _tell_no_way(self, origin: str, region: str) -> None:
        now = self._clock()
        if self._told.get((origin, region), 0.0) > now:
            return
        remember(self._told, (origin, region), now + TOLD_PAUSE_S)
        name = region.encode()
        (told,) = put_in(name, kind=Kind.NO_WAY, destination=origin, origin=self._address)
        self._inside.send(origin, told)
