"""What the two transports of a node deliver and report, and what becomes of it.

Rule: what the loss of a bridge says is said of the bridge, and of nobody who is behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from meshlib.aio.bridged.admitting import BridgeCounters, Place, remember
from meshlib.aio.bridged.choosing import Choice
from meshlib.aio.bridged.envelopes import Envelope, Kind, Parts, is_envelope, read_envelope
from meshlib.aio.bridged.passing import Passing
from meshlib.aio.bridged.places import Regions
from meshlib.aio.bridged.ways import Ways
from meshlib.aio.transport import LinkFailure, LinkFault, QuietLog, Receiver, Transport
from meshlib.errors import RejectReason

__all__ = ["Ear", "Hearing", "loop_now"]

_logger = logging.getLogger(__name__)

_BY: Final = " by way of "

UNWANTED_S: Final = 1.0
"""For how long nothing more is taken of an origin whose frames were refused."""


def loop_now() -> float:
    """Return the time of the running loop, in seconds."""
    return asyncio.get_running_loop().time()


class Hearing:
    """Hears both transports of a node for its receiver.

    Args:
        receiver: of the node.
        regions: all of them.
        region: that of the node.
        counters: what is counted.
    """

    def __init__(
        self, receiver: Receiver, *, regions: Regions, region: str, counters: BridgeCounters
    ) -> None:
        self.receiver = receiver
        self.parts = Parts()
        self.ways = Ways(self._tell_busy)
        self.choice: Choice | None = None
        self._regions, self._region = regions, region
        self._counters = counters
        self._address = ""
        self._place: Place | None = None
        self._passing: Passing | None = None
        self._unwanted: OrderedDict[str, float] = OrderedDict()
        self._log = QuietLog(_logger)

    def settle(self, address: str, *, inside: Transport, between: Transport | None) -> None:
        """Take one's place, now that the address is known. What came before was dropped."""
        self._address = address
        self._place = Place(
            self._regions, region=self._region, address=address, is_bridge=between is not None
        )
        choice = self.choice = Choice(
            self._regions,
            region=self._region,
            address=address,
            inside=inside,
            between=between,
            clock=loop_now,
        )
        self._passing = Passing(
            choice,
            regions=self._regions,
            address=address,
            inside=inside,
            counters=self._counters,
            clock=loop_now,
        )

    def frame(self, data: bytes, sender: str, *, part: Transport, is_inside: bool) -> bool:
        """Take what a transport delivers; see `Receiver.frame_received`. O(size)."""
        receiver, place = self.receiver, self._place
        if not is_envelope(data):
            return receiver.frame_received(data, sender)
        envelope = read_envelope(data)
        if envelope is None:
            self._counters.frames_dropped_stray += 1
            self._log.tell("an envelope that is none", f"from {sender}")
            part.close_sender(sender, reason=RejectReason.MALFORMED)
        elif place is None or not place.admits(envelope, is_inside=is_inside):
            self._counters.frames_dropped_stray += 1
            ends = f"from {envelope.origin!r} for {envelope.destination!r}"
            self._log.tell("an envelope that does not belong here", ends)
        elif envelope.kind is Kind.DIRECT:
            frame = self.parts.join(envelope, sender)
            return frame is None or receiver.frame_received(frame, sender)
        elif self._unwanted.get(envelope.origin, 0.0) > loop_now():
            self._counters.frames_dropped_unwanted += 1
        else:
            return self._take(data, envelope, sender)
        return True

    def refuse(self, sender: str) -> bool:
        """Take nothing more of an origin for a second; False for a sender that has a link here."""
        origin, by, _ = sender.partition(_BY)
        if by:
            remember(self._unwanted, origin, loop_now() + UNWANTED_S)
        return bool(by)

    def link_lost(self, address: str, failure: LinkFailure | None) -> None:
        """Hear that a link broke, or could not be made."""
        self.receiver.connection_lost(address, failure)
        if self._regions.is_bridge(address):
            self.lose(address)

    def link_busy(self, address: str, is_busy: bool) -> None:
        """Hear that a link is busy, or free; so are the ways over it."""
        self._tell_busy(address, is_busy)
        if self._regions.is_bridge(address):
            self.ways.busy(address, is_busy)

    def carrier_changed(self, is_up: bool, *, is_inside: bool) -> None:
        """Hear that what carries all links of a transport was lost, or is back.

        Of that between, only the bridges of other regions: whoever is inside answers.
        """
        if is_inside:
            self.receiver.carrier_changed(is_up=is_up)
        elif self.choice is not None:
            self.choice.between_changed(is_up)

    def lose(self, bridge: str, *, at_least_s: float = 0.0) -> None:
        """Pass a bridge over, and tell that nothing is known of who is behind it. O(ways)."""
        self._counters.detours += 1
        if self.choice is not None:
            self.choice.lost(bridge, at_least_s=at_least_s)
        behind = LinkFailure(LinkFault.CARRIER, f"by way of {bridge}")
        for destination in self.ways.lost(bridge):
            if destination != bridge:
                self.receiver.connection_lost(destination, behind)

    def _take(self, data: bytes, envelope: Envelope, sender: str) -> bool:
        """Take an envelope that belongs here."""
        assert self._passing is not None
        if envelope.kind is Kind.NO_WAY:
            self._hear_no_way(envelope)
        elif envelope.kind is Kind.OUT:
            self._passing.out(data, envelope)
        elif envelope.kind is Kind.ACROSS and envelope.destination != self._address:
            self._passing.inwards(data, envelope)
        else:
            frame = self.parts.join(envelope, envelope.origin)
            by = f"{envelope.origin}{_BY}{sender}"
            return frame is None or self.receiver.frame_received(frame, by)
        return True

    def _hear_no_way(self, envelope: Envelope) -> None:
        region = envelope.frame.decode("utf-8", errors="replace")
        if self.choice is not None and region in self._regions.names and region != self._region:
            self._counters.detours += 1
            self.choice.lost(envelope.origin, region)

    def _tell_busy(self, address: str, is_busy: bool) -> None:
        self.receiver.link_busy(address, is_busy=is_busy)


class Ear:
    """Hears one of the two: the `Receiver` that it is started with.

    Args:
        hearing: of the node.
        part: the transport.
        is_inside: whether it is the one within the region.
    """

    def __init__(self, hearing: Hearing, part: Transport, *, is_inside: bool) -> None:
        self._hearing = hearing
        self._part = part
        self._is_inside = is_inside

    def frame_received(self, data: bytes, sender: str) -> bool:
        """Take a frame; see `Receiver.frame_received`."""
        return self._hearing.frame(data, sender, part=self._part, is_inside=self._is_inside)

    async def wait_for_room(self) -> None:
        """Return when frames are welcome again."""
        await self._hearing.receiver.wait_for_room()

    def connection_lost(self, address: str, failure: LinkFailure | None = None) -> None:
        """Hear of a broken link."""
        self._hearing.link_lost(address, failure)

    def link_busy(self, address: str, *, is_busy: bool) -> None:
        """Hear of a busy link."""
        self._hearing.link_busy(address, is_busy)

    def carrier_changed(self, *, is_up: bool) -> None:
        """Hear of what carries all links."""
        self._hearing.carrier_changed(is_up, is_inside=self._is_inside)
