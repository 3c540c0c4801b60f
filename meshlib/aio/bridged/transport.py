"""Two transports in one: BridgedTransport.

Rule: a frame for the own region goes to its node, and one for another region to a bridge.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
from typing import Protocol, cast

import attrs

from meshlib.aio.bridged.admitting import BridgeCounters
from meshlib.aio.bridged.choosing import Choice
from meshlib.aio.bridged.envelopes import Kind, is_envelope, put_in
from meshlib.aio.bridged.hearing import Ear, Hearing
from meshlib.aio.bridged.places import Regions
from meshlib.aio.transport import (
    LinkFailure,
    LinkFault,
    QuietLog,
    Receiver,
    Transport,
    TransportCounters,
    check_transport,
)
from meshlib.arguments import check_kind, check_text
from meshlib.errors import ConfigError, RejectReason, StateError
from meshlib.limits import FRAME_BYTES_MAX

__all__ = ["BridgedTransport"]

_logger = logging.getLogger(__name__)


class _Presenting(Protocol):
    """A transport whose token can be changed."""

    def present(self, token: str | None) -> None:
        """Show another token from now on."""


class BridgedTransport:
    """Carries frames within a region by one transport, and between regions by its bridges.

    Implements `meshlib.aio.Transport`. A node of another region is reached over two bridges: one
    of this region, which has both transports, and one of the other. Who they are is configured,
    the same on all nodes; which one is asked is chosen anew as soon as one is lost.

    Args:
        inside: carries frames within the region, such as a `TcpTransport` or
            `WebSocketTransport`; not started yet. Its address is the node's.
        region: the region of this node, one of `regions`.
        regions: which addresses are of which region, and which nodes are the bridges.
        between: carries frames between bridges, such as a `NatsTransport` with the address of
            `inside`; not started yet. For bridges, and for them alone.
        rng: for the numbers of frames that go in two parts.

    Raises:
        ConfigError: the region is none of the regions.
        InvalidTypeError: an argument of another type.
    """

    def __init__(
        self,
        inside: Transport,
        *,
        region: str,
        regions: Regions,
        between: Transport | None = None,
        rng: random.Random | None = None,
    ) -> None:
        check_transport(inside)
        if between is not None:
            check_transport(between)
        check_text("region", region)
        check_kind("regions", regions, Regions, wanted="Regions")
        if rng is not None:
            check_kind("rng", rng, random.Random, wanted="a random.Random")
        if region not in regions.names:
            raise ConfigError(f"region {region!r} is none of {', '.join(regions.names)}")
        self._inside, self._between = inside, between
        self._region, self._regions = region, regions
        self._own = TransportCounters()
        self._bridging = BridgeCounters()
        self._numbers = itertools.count((rng or random.Random()).getrandbits(32))
        self._hearing: Hearing | None = None
        self._is_closed = False
        self._log = QuietLog(_logger)

    @property
    def address(self) -> str:
        """Where peers of the region reach this node, and what those of others call it."""
        return self._inside.address

    @property
    def region(self) -> str:
        """The region of this node."""
        return self._region

    @property
    def parts(self) -> tuple[Transport, ...]:
        """The transport inside, and on a bridge the one between."""
        return (self._inside,) if self._between is None else (self._inside, self._between)

    @property
    def counters(self) -> TransportCounters:
        """What both have done and dropped: the sum, as of now.

        What is passed on for others is among what was received and sent.
        """
        several = [self._own, *(part.counters for part in self.parts)]
        names = [field.name for field in attrs.fields(TransportCounters)]
        return TransportCounters(
            **{name: sum(getattr(counters, name) for counters in several) for name in names}
        )

    @property
    def bridging(self) -> BridgeCounters:
        """What was carried and dropped between regions."""
        if self._hearing is not None:
            self._bridging.frames_dropped_in_part = self._hearing.parts.dropped_count
        return self._bridging

    def present(self, token: str | None) -> None:
        """Show another token to peers that are dialled from now on; None shows none.

        Raises:
            ConfigError: an empty token, or one that does not fit.
        """
        for part in self.parts:
            if hasattr(part, "present"):
                cast("_Presenting", part).present(token)

    async def start(self, receiver: Receiver) -> None:
        """Start what carries frames inside, and between, and deliver to `receiver` from now on.

        Raises:
            ConfigError: the address is of another region, the two transports have two of them, or
                the node is among the bridges and cannot be one, or the other way round.
            OSError: as the two raise it.
            StateError: started before. In each case nothing was started.
        """
        if self._hearing is not None:
            raise StateError("the transport was started before")
        hearing = self._hearing = Hearing(
            receiver, regions=self._regions, region=self._region, counters=self._bridging
        )
        try:
            await self._inside.start(Ear(hearing, self._inside, is_inside=True))
            try:
                self._check_place()
                hearing.settle(self.address, inside=self._inside, between=self._between)
                if self._between is not None:
                    await self._between.start(Ear(hearing, self._between, is_inside=False))
            except BaseException:
                await self._inside.close(drain_s=0)
                raise
        except BaseException:
            self._hearing = None
            raise

    def send(self, address: str, data: bytes) -> bool:
        """Queue one frame; see `Transport.send`. O(size) for one that goes between regions."""
        hearing, region = self._hearing, self._regions.region_of(address)
        if hearing is None or hearing.choice is None or self._is_closed:
            self._own.frames_dropped_closed += 1
            return False
        if region == self._region:
            return self._send_direct(self._inside, address, data)
        if self._between is not None and hearing.choice.is_next(address):
            return self._send_direct(self._between, address, data)
        if not 0 < len(data) <= FRAME_BYTES_MAX:
            self._own.frames_dropped_oversized += 1
            return False
        if region is not None:
            return self._send_out(hearing, hearing.choice, address, region, data)
        self._log.tell("an address of no region", f"a frame for {address} was dropped")
        self._bridging.frames_dropped_unknown_region += 1
        return self._drop(hearing, address, "it is of no region")

    def drop_link(self, address: str) -> None:
        """Give up the outgoing link to an address; see `Transport.drop_link`.

        A bridge is passed over until it is heard again, and reported as lost so that this is told:
        one that is frozen takes what it is sent, for ever.
        """
        for part in self.parts:
            part.drop_link(address)
        hearing = self._hearing
        if hearing is not None:
            hearing.ways.forget(address)
            if self._regions.is_bridge(address):
                hearing.lose(address, at_least_s=math.inf)
                down = LinkFailure(LinkFault.TIMED_OUT, "it is Down")
                hearing.receiver.connection_lost(address, down)

    def end_pause(self, address: str) -> None:
        """Dial again a peer that was heard; see `Transport.end_pause`.

        A bridge is asked again.
        """
        choice = None if self._hearing is None else self._hearing.choice
        if choice is not None and self._regions.is_bridge(address):
            choice.heard(address)
        for part in self.parts:
            part.end_pause(address)

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the incoming connection that a frame came on; see `Transport.close_sender`.

        That of a bridge carries the frames of others too: in place of closing it, nothing more is
        taken of the origin for a second.
        """
        if self._hearing is None or not self._hearing.refuse(sender):
            for part in self.parts:
                part.close_sender(sender, reason=reason)

    async def close(self, *, drain_s: float) -> None:
        """Close both, after what is queued was sent for up to `drain_s` seconds. Idempotent."""
        self._is_closed = True
        await asyncio.gather(*(part.close(drain_s=drain_s) for part in self.parts))

    # Inside

    def _check_place(self) -> None:
        """Refuse an address that is not the place of this node.

        Raises:
            ConfigError: as of `start`.
        """
        regions, address, between = self._regions, self.address, self._between
        found = regions.region_of(address)
        if found != self._region:
            where = "no region" if found is None else f"region {found!r}"
            raise ConfigError(
                f"a node of region {self._region!r} has an address of {where}: {address}"
            )
        if between is None and regions.is_bridge(address):
            raise ConfigError(f"{address} is among the bridges, and has nothing to carry between")
        if between is not None and not regions.is_bridge(address):
            raise ConfigError(f"{address} is not among the bridges: no node would ask it")
        if between is not None and between.address != address:
            raise ConfigError(f"a bridge has one address, and not {address} and {between.address}")

    def _send_direct(self, transport: Transport, address: str, data: bytes) -> bool:
        if not is_envelope(data) or len(data) > FRAME_BYTES_MAX:
            return transport.send(address, data)
        wrapped = put_in(data, kind=Kind.DIRECT, number=self._number())
        return all(transport.send(address, envelope) for envelope in wrapped)

    def _send_out(
        self, hearing: Hearing, choice: Choice, address: str, region: str, data: bytes
    ) -> bool:
        """Give a frame of this node to a bridge."""
        for hop in choice.hops(region, address):
            envelopes = put_in(
                data,
                kind=hop.kind,
                destination=address,
                origin=self.address,
                number=self._number(),
            )
            if all(hop.transport.send(hop.bridge, envelope) for envelope in envelopes):
                hearing.ways.took(address, hop.bridge)
                return True
        self._bridging.frames_dropped_no_way += 1
        return self._drop(hearing, address, "no bridge takes it")

    def _number(self) -> int:
        return next(self._numbers) & 0xFFFFFFFF

    def _drop(self, hearing: Hearing, address: str, why: str) -> bool:
        """Count a frame that nobody takes; of whom it is for, nothing is known."""
        self._own.frames_dropped_unreachable += 1
        hearing.receiver.connection_lost(address, LinkFailure(LinkFault.CARRIER, why))
        return False
