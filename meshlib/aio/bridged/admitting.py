"""Which envelopes belong here, and the counters of what becomes of them.

Rule: what comes from inside is on its first or its third leg, and what comes from between on its
second; of and for which regions follows from that, and anything else is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

from attrs import define

from meshlib.aio.bridged.envelopes import Envelope, Kind
from meshlib.aio.bridged.places import Regions

__all__ = ["BridgeCounters", "Place", "remember"]

_Key = TypeVar("_Key")

ORIGINS_MAX: Final = 1024
"""Nodes of which something is remembered for a moment."""


@define(slots=True, kw_only=True)
class BridgeCounters:
    """What was carried and dropped between regions, beside what the two transports count.

    Args:
        frames_passed_on: frames of others that a link was given, parts of one counted each.
        bytes_passed_on: their bytes, with their envelopes.
        frames_dropped_overloaded: to be passed on, with the queue of a next link full.
        frames_dropped_no_way: own ones and those to be passed on, with nobody that takes them.
        frames_dropped_unknown_region: sent to an address that is of no region.
        frames_dropped_stray: envelopes that came where they do not belong, or that are none.
        frames_dropped_unwanted: of origins whose frames were refused a moment ago.
        frames_dropped_in_part: whose other part was lost.
        detours: times that a bridge was lost, or said that it has no way.
    """

    frames_passed_on: int = 0
    bytes_passed_on: int = 0
    frames_dropped_overloaded: int = 0
    frames_dropped_no_way: int = 0
    frames_dropped_unknown_region: int = 0
    frames_dropped_stray: int = 0
    frames_dropped_unwanted: int = 0
    frames_dropped_in_part: int = 0
    detours: int = 0


class Place:
    """Where a node is, and so which envelopes may come to it.

    Args:
        regions: all of them.
        region: that of the node.
        address: of the node.
        is_bridge: whether it is one.
    """

    __slots__ = ("_address", "_is_bridge", "_region", "_regions")

    def __init__(self, regions: Regions, *, region: str, address: str, is_bridge: bool) -> None:
        self._regions = regions
        self._region = region
        self._address = address
        self._is_bridge = is_bridge

    def admits(self, envelope: Envelope, *, is_inside: bool) -> bool:
        """Tell whether an envelope may come from there, of such an origin and for such a node.

        Args:
            envelope: what came.
            is_inside: whether from within the region, and not from between.
        """
        of = self._regions.region_of(envelope.origin)
        to = self._regions.region_of(envelope.destination)
        is_coming = to == self._region and of is not None and of != self._region
        match envelope.kind:
            case Kind.OUT:
                is_going = of == self._region and to is not None and to != self._region
                return is_inside and is_going and self._is_bridge
            case Kind.ACROSS:
                return not is_inside and is_coming
            case Kind.IN:
                return is_inside and is_coming
            case Kind.NO_WAY:
                is_of_bridge = envelope.origin in self._regions.bridges_of(self._region)
                return is_inside and is_of_bridge and envelope.destination == self._address
            case _:
                return True


def remember(table: OrderedDict[_Key, float], key: _Key, until: float) -> None:
    """Keep until when something of a peer holds; of 1,024, the one kept longest is forgotten."""
    table[key] = until
    table.move_to_end(key)
    if len(table) > ORIGINS_MAX:
        table.popitem(last=False)
