"""Transports within one process: a network in memory, for tests, examples and simulations.

Frames are delivered in the order in which they were sent, over the whole network, on the
running loop: with an injected `rng` a run's losses repeat too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Collection

from attrs import define, field

from meshlib.aio.transport import (
    FRAME_OVERHEAD_BYTES,
    LinkFailure,
    LinkFault,
    Receiver,
    TransportCounters,
    refusal_word,
    split_address,
)
from meshlib.arguments import check_kind, check_number, check_text
from meshlib.errors import ConfigError, RejectReason, StateError, check_several
from meshlib.limits import FRAME_BYTES_MAX, PEER_QUEUE_BYTES_MAX

__all__ = ["MemoryNetwork", "MemoryTransport"]

_DELIVERIES_PER_TURN = 64
_BUSY_BYTES = 512 * 1024


@define(slots=True, eq=False)
class _Endpoint:
    """One transport's side of the network: what it sent and what waits for it."""

    address: str
    counters: TransportCounters = field(factory=TransportCounters)
    receiver: Receiver | None = None
    is_open: bool = False
    is_cut_off: bool = False
    queued_bytes: dict[str, int] = field(factory=dict)
    links: set[str] = field(factory=set)
    busy: set[str] = field(factory=set)
    waiting: deque[_Frame] = field(factory=deque)
    pump: asyncio.Task[None] | None = None
    drained: asyncio.Event = field(factory=asyncio.Event)

    def frame_queued(self, frame: _Frame) -> None:
        """Count a frame of this sender as waiting."""
        address = frame.address
        waiting = self.queued_bytes[address] = self.queued_bytes.get(address, 0) + frame.cost
        if waiting > _BUSY_BYTES and address not in self.busy and self.receiver is not None:
            self.busy.add(address)
            self.receiver.link_busy(address, is_busy=True)

    def frame_left(self, frame: _Frame) -> None:
        """Take a frame of this sender off its queue, wherever it went."""
        left = self.queued_bytes[frame.address] - frame.cost
        if frame.address in self.busy and left <= _BUSY_BYTES // 4 and self.receiver is not None:
            self.busy.discard(frame.address)
            self.receiver.link_busy(frame.address, is_busy=False)
        if left:
            self.queued_bytes[frame.address] = left
        else:
            del self.queued_bytes[frame.address]
            if not self.queued_bytes:
                self.drained.set()

    def link_refused(self, address: str) -> None:
        """Tell the receiver that nothing listens on an address."""
        self.counters.dials_failed += 1
        self.counters.frames_dropped_unreachable += 1
        self.links.discard(address)
        if self.receiver is not None and self.is_open:
            failure = LinkFailure(LinkFault.REFUSED)
            self.receiver.connection_lost(address, failure)

    def link_broke(self, address: str, word: str = "") -> None:
        """Tell the receiver that a peer it sent to is gone, or wants no more from it."""
        if address in self.links:
            self.links.discard(address)
            self.counters.links_lost += 1
            if self.receiver is not None and self.is_open:
                self.receiver.connection_lost(address, LinkFailure.told(word))

    def arrive(self, frame: _Frame) -> None:
        """Take a frame from the network, behind those that wait already."""
        self.waiting.append(frame)
        if self.pump is None and not self._hand_over():
            self.pump = asyncio.get_running_loop().create_task(self._hand_over_when_welcome())

    def _hand_over(self) -> bool:
        """Hand over what waits; stop and return False when the receiver asks for a pause."""
        assert self.receiver is not None
        while self.waiting:
            frame = self.waiting.popleft()
            frame.sender.frame_left(frame)
            frame.sender.links.add(self.address)
            frame.sender.counters.frames_sent += 1
            frame.sender.counters.bytes_sent += len(frame.data)
            self.counters.frames_received += 1
            self.counters.bytes_received += len(frame.data)
            if not self.receiver.frame_received(frame.data, frame.sender.address):
                return False
        return True

    async def _hand_over_when_welcome(self) -> None:
        assert self.receiver is not None
        try:
            await self.receiver.wait_for_room()
            while not self._hand_over():
                await self.receiver.wait_for_room()
        finally:
            self.pump = None


@define(slots=True, eq=False)
class _Frame:
    sender: _Endpoint
    address: str
    data: bytes

    @property
    def cost(self) -> int:
        """What the frame takes of a link's room, in bytes."""
        return len(self.data) + FRAME_OVERHEAD_BYTES


class _Hub:
    """The wires: one queue for the whole network, so that order is order of sending."""

    def __init__(self, rng: random.Random, loss_probability: float) -> None:
        self.endpoints: dict[str, _Endpoint] = {}
        self.groups: tuple[frozenset[str], ...] = ()
        self.loss_probability = loss_probability
        self.frames_lost = 0
        self._rng = rng
        self._frames: deque[_Frame] = deque()
        self._is_scheduled = False

    def group(self, address: str) -> int:
        """Number the side of the cut that an address is on."""
        for index, group in enumerate(self.groups):
            if address in group:
                return index
        return -1

    def is_connected(self, one: str, other: str) -> bool:
        """Tell whether the cut lets frames pass."""
        return self.group(one) == self.group(other)

    def detach(self, endpoint: _Endpoint) -> None:
        """Take an endpoint off; those that had a link to it hear of it."""
        if self.endpoints.get(endpoint.address) is not endpoint:
            return
        del self.endpoints[endpoint.address]
        for peer in list(self.endpoints.values()):
            if self.is_connected(peer.address, endpoint.address):
                peer.link_broke(endpoint.address)
        for frame in endpoint.waiting:
            frame.sender.frame_left(frame)
            frame.sender.counters.frames_dropped_unreachable += 1
        endpoint.waiting.clear()

    def carry(self, frame: _Frame) -> None:
        """Queue a frame behind all others."""
        self._frames.append(frame)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver_some)

    def _deliver_some(self) -> None:
        self._is_scheduled = False
        for _ in range(min(len(self._frames), _DELIVERIES_PER_TURN)):
            self._deliver(self._frames.popleft())
        if self._frames:
            self._schedule()

    def _deliver(self, frame: _Frame) -> None:
        sender = frame.sender
        is_lost = self.loss_probability > 0 and self._rng.random() < self.loss_probability
        if is_lost or sender.is_cut_off or not self.is_connected(sender.address, frame.address):
            sender.frame_left(frame)
            self.frames_lost += 1
            return
        target = self.endpoints.get(frame.address)
        if target is None:
            sender.frame_left(frame)
            sender.link_refused(frame.address)
            return
        target.arrive(frame)


class MemoryNetwork:
    """Joins the memory transports of one event loop, and can be cut and made to lose frames.

    A cut or a loss drops frames in silence, as a broken network does; an address where nothing
    listens refuses at once, as a host without the program does.

    Args:
        loss_probability: how likely each frame is lost, 0 to 1.
        rng: decides the losses.

    Raises:
        ConfigError: a probability outside 0 to 1.
        InvalidTypeError: a probability that is no number, or an `rng` that is none.
    """

    def __init__(self, *, loss_probability: float = 0.0, rng: random.Random | None = None) -> None:
        if rng is not None:
            check_kind("rng", rng, random.Random, wanted="a random.Random")
        self._hub = _Hub(rng or random.Random(), 0.0)
        self.lose(loss_probability)

    @property
    def frames_lost(self) -> int:
        """Frames dropped by cuts and losses so far."""
        return self._hub.frames_lost

    def transport(self, address: str) -> MemoryTransport:
        """Make a transport that will listen on `address`; any `host:port` text will do.

        Raises:
            ConfigError: not of the form `host:port`.
        """
        split_address(address)
        return MemoryTransport(self._hub, address)

    def partition(self, *groups: Collection[str]) -> None:
        """Cut the network: frames pass only within a group. Replaces an earlier cut.

        Args:
            groups: addresses; those in no group form one together.

        Raises:
            InvalidTypeError: one address in place of a group, or one that is no text. Nothing was
                changed.
        """
        for group in groups:
            check_several("the addresses of a group", group)
            for address in group:
                check_text("an address of a group", address)
        self._hub.groups = tuple(frozenset(group) for group in groups)

    def heal(self) -> None:
        """Undo the cut. What was lost stays lost."""
        self._hub.groups = ()

    def lose(self, probability: float) -> None:
        """Lose each frame with this probability from now on; 0 ends it.

        Raises:
            ConfigError: outside 0 to 1. Nothing was changed.
            InvalidTypeError: no number. Nothing was changed.
        """
        check_number("a loss probability", probability)
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"a loss probability must be 0 to 1, got {probability}")
        self._hub.loss_probability = probability

    def is_connected(self, one: str, other: str) -> bool:
        """Tell whether frames pass between two addresses now, but for losses."""
        return self._hub.is_connected(one, other)


class MemoryTransport:
    """Carries frames within one process: a `Transport`. Made by `MemoryNetwork.transport`."""

    def __init__(self, hub: _Hub, address: str) -> None:
        self._hub = hub
        self._endpoint = _Endpoint(address)

    @property
    def address(self) -> str:
        """Where peers reach this transport."""
        return self._endpoint.address

    @property
    def counters(self) -> TransportCounters:
        """What was done and dropped so far."""
        return self._endpoint.counters

    async def start(self, receiver: Receiver) -> None:
        """Listen, and deliver to `receiver` from now on.

        Raises:
            OSError: something else listens on the address. Nothing was started.
            StateError: started before.
        """
        if self._endpoint.receiver is not None:
            raise StateError("the transport was started before")
        if self.address in self._hub.endpoints:
            raise OSError(f"{self.address} is listened on already")
        self._hub.endpoints[self.address] = self._endpoint
        self._endpoint.receiver = receiver
        self._endpoint.is_open = True

    def send(self, address: str, data: bytes) -> bool:
        """Queue one frame; see `Transport.send`."""
        endpoint = self._endpoint
        if not endpoint.is_open:
            endpoint.counters.frames_dropped_closed += 1
            return False
        if not 0 < len(data) <= FRAME_BYTES_MAX:
            endpoint.counters.frames_dropped_oversized += 1
            return False
        frame = _Frame(endpoint, address, data)
        if endpoint.queued_bytes.get(address, 0) + frame.cost > PEER_QUEUE_BYTES_MAX:
            endpoint.counters.frames_dropped_queue_full += 1
            return False
        endpoint.frame_queued(frame)
        self._hub.carry(frame)
        return True

    def drop_link(self, address: str) -> None:
        """Do nothing: a frame is carried or lost, and none waits for another."""

    def end_pause(self, address: str) -> None:
        """Do nothing: whoever listens is reached at once."""

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Tell the sender that its link is closed; there is none, and its next frame is taken."""
        endpoint = self._hub.endpoints.get(sender)
        if endpoint is not None and self._hub.is_connected(sender, self.address):
            endpoint.link_broke(self.address, refusal_word(reason))

    async def close(self, *, drain_s: float) -> None:
        """Stop listening, wait for what is queued for up to `drain_s` seconds, and close."""
        endpoint = self._endpoint
        if endpoint.is_cut_off:
            return
        endpoint.is_open = False
        if endpoint.queued_bytes and drain_s > 0:
            endpoint.drained.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await endpoint.drained.wait()
        endpoint.is_cut_off = True
        self._hub.detach(endpoint)
        if endpoint.pump is not None:
            endpoint.pump.cancel()
            await asyncio.gather(endpoint.pump, return_exceptions=True)
