"""Drives one node, which has no IO, with a transport and a clock.

Rule: only the driver's task enters the node on the network's account, one step at a time. What
a transport reports is queued here, so that it never calls into a node that is in a call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from attrs import define

from meshlib.aio.diagnosis import Attempts
from meshlib.aio.transport import (
    FRAME_OVERHEAD_BYTES,
    LinkFailure,
    LinkFault,
    QuietLog,
    Transport,
)
from meshlib.errors import RejectReason
from meshlib.gossip import Event, LinkEnd, MemberDown, Packet, PacketRejected
from meshlib.limits import INBOX_BYTES_MAX
from meshlib.membership import MemberRecord

__all__ = ["DrivenNode", "DriverCounters", "NodeDriver"]

_logger = logging.getLogger(__name__)

STEP_S = 0.002
"""How long frames are handled in one step before the rest of the program has its turn."""

PACE_S = 0.002
"""How soon after local writes were sent others are: with many a second each frame has several of
them, and a frame costs its sender and each receiver as much as what is in it."""

CLOSING_REASONS = frozenset(
    (
        RejectReason.MALFORMED,
        RejectReason.CHECKSUM,
        RejectReason.VERSION,
        RejectReason.CLUSTER,
        RejectReason.LIMIT,
    )
)
"""A sender of such frames is no peer of ours. The other reasons befall honest ones too."""


_ENDS: Final = {
    LinkFault.REFUSED: LinkEnd.REFUSED,
    LinkFault.WRONG_TOKEN: LinkEnd.DENIED,
    LinkFault.WRONG_VERSION: LinkEnd.DENIED,
}
"""What a node is told of why a link came to nothing."""


class DrivenNode(Protocol):
    """What a driver needs of a node; `MeshNode` is one."""

    wakeup: Callable[[], None] | None
    wakeup_soon: Callable[[], None] | None

    def receive(self, data: bytes, *, sender: str, now: float) -> None:
        """Take in one frame."""

    def handle_timer(self, now: float) -> None:
        """Do everything that is due."""

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` is to be called next."""
        ...

    def packets_to_send(self) -> list[Packet]:
        """Return the frames to send; drains."""
        ...

    def events(self) -> list[Event]:
        """Return what happened since the last call; drains."""
        ...

    def members(self) -> tuple[MemberRecord, ...]:
        """Return whom it knows, itself included."""
        ...

    def connection_lost(self, address: str, *, now: float, end: LinkEnd) -> None:
        """Learn that a link broke or could not be made, and what is known of why."""

    def heard_again(self) -> list[str]:
        """Return the addresses that were lost, and from where something came; drains."""
        ...

    def link_state(self, address: str, *, is_busy: bool, now: float) -> None:
        """Learn that a link is busy, or free again."""

    def excuse_all(self, now: float) -> None:
        """Hold nobody's silence until now against them."""


@define(slots=True, kw_only=True)
class DriverCounters:
    """What a driver has done. Counts only grow.

    Args:
        steps: turns of the loop in which the node was entered.
        frames_handled: frames given to the node.
        frames_failed: frames that made the node raise: a bug, to be reported.
        frames_dropped: frames that a transport delivered over the inbox's bound.
        packets_dropped: packets of the node that the transport did not take.
        senders_closed: senders whose connection was closed for what they sent.
        timer_late_s: how late the last timer was, in seconds: the lag of the event loop.
        timer_late_max_s: how late the latest was.
    """

    steps: int = 0
    frames_handled: int = 0
    frames_failed: int = 0
    frames_dropped: int = 0
    packets_dropped: int = 0
    senders_closed: int = 0
    timer_late_s: float = 0.0
    timer_late_max_s: float = 0.0


class NodeDriver:
    """One task and one timer around a node: the `Receiver` of its transport.

    The inbox is bounded in bytes. When it is half full, transports are asked to stop reading
    until it is down to a quarter; what comes all the same is dropped when it is full.

    Args:
        transport: sends, and delivers to this driver once it was started with it.
        on_step: called after each step with the events of it; must not raise.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        on_step: Callable[[Sequence[Event]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = DriverCounters()
        self.attempts = Attempts()
        self.busy_links: set[str] = set()
        self._transport = transport
        self._on_step = on_step
        self._clock = clock
        self._node: DrivenNode | None = None
        self._frames: deque[tuple[bytes, str, float]] = deque()
        self._frames_bytes = 0
        self._reports: deque[tuple[str, bool | None, LinkEnd]] = deque()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pace: asyncio.TimerHandle | None = None
        self._has_written = False
        self._paced_until = -math.inf
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_carrier_up = True
        self._is_excused = True
        self._deadline: float | None = None
        self._is_deadline_known = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._log = QuietLog(_logger)

    def attach(self, node: DrivenNode) -> None:
        """Give the driver its node. Frames that came before wait for it."""
        self._node = node
        node.wakeup = self.wake
        node.wakeup_soon = self._wake_soon
        self.wake()

    def wake(self) -> None:
        """See that a step is made soon. Idempotent."""
        # Something was done to the node itself: what it waits for may be due earlier now.
        self._is_deadline_known = False
        self._wake.set()

    def _wake_soon(self) -> None:
        """See that a step is made: at once, or together with others when one was just made."""
        self._has_written = True
        self._is_deadline_known = False
        if self._pace is not None or self._wake.is_set():
            return
        delay_s = self._paced_until - self._clock()
        if delay_s <= 0.0 or self._loop is None:
            self._wake.set()
        else:
            self._pace = self._loop.call_later(delay_s, self._end_pace)

    def _end_pace(self) -> None:
        self._pace = None
        self._wake.set()

    # The receiver's side

    def frame_received(self, data: bytes, sender: str) -> bool:
        """Queue a frame for the node; see `Receiver.frame_received`."""
        cost = len(data) + FRAME_OVERHEAD_BYTES
        if self._frames_bytes + cost > INBOX_BYTES_MAX:
            self.counters.frames_dropped += 1
            self._log.tell("inbox full", f"a frame of {len(data):,} bytes was dropped")
            return False
        self._frames.append((data, sender, self._clock()))
        self._frames_bytes += cost
        self._wake.set()
        if self._frames_bytes > INBOX_BYTES_MAX // 2:
            self._has_room.clear()
        return self._has_room.is_set()

    async def wait_for_room(self) -> None:
        """Return when frames are welcome again."""
        await self._has_room.wait()

    def connection_lost(self, address: str, failure: LinkFailure | None = None) -> None:
        """Queue the report of a broken link."""
        self.attempts.failed(address, failure)
        if failure is not None and failure.fault is LinkFault.CARRIER:
            return  # nothing is known of the peer
        end = LinkEnd.BROKEN if failure is None else _ENDS.get(failure.fault, LinkEnd.BROKEN)
        self._reports.append((address, None, end))
        self._wake.set()

    def link_busy(self, address: str, *, is_busy: bool) -> None:
        """Queue the report of a link's state."""
        (self.busy_links.add if is_busy else self.busy_links.discard)(address)
        self._reports.append((address, is_busy, LinkEnd.BROKEN))
        self._wake.set()

    def carrier_changed(self, *, is_up: bool) -> None:
        """Note that nobody can be heard for now, or that everybody can again."""
        self._is_carrier_up = is_up
        self._is_excused = False
        self._wake.set()

    # The task

    async def run(self) -> None:
        """Drive the node until cancelled. The one loop that does."""
        assert self._node is not None
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self._sleep(self._node)
                self.step()
                # One turn for everything else, however much waits here.
                await asyncio.sleep(0)
        finally:
            self._cancel_timer()

    def _drop_link(self, node: DrivenNode, address: str) -> None:
        """Drop the link to a member that is Down, unless another one has its address by now."""
        if not any(m.is_reachable and m.address == address for m in node.members()):
            self._transport.drop_link(address)

    def step(self) -> None:
        """Enter the node once: what came, what is due; then send, and tell what happened."""
        node = self._node
        assert node is not None
        self.counters.steps += 1
        self._wake.clear()
        if self._has_written:
            self._begin_pace()
        deadline = self._deadline if self._is_deadline_known else node.next_deadline()
        self._is_deadline_known = False
        if deadline is not None and (late_s := self._clock() - deadline) >= 0:
            self.counters.timer_late_s = late_s
            self.counters.timer_late_max_s = max(self.counters.timer_late_max_s, late_s)
        # What came is heard before what is due is done: an answer that waits here is no silence.
        if self._reports:
            self._take_reports(node)
        if self._frames:
            self._take_frames(node)
        # What those have set is due in the next step; and what is due after frames came that still
        # wait here is done after them.
        now = self._frames[0][2] if self._frames else self._clock()
        if deadline is not None and now >= deadline:
            if not (self._is_carrier_up and self._is_excused):
                # First, for what is due would end what could not be answered.
                node.excuse_all(now)
                self._is_excused = self._is_carrier_up
            node.handle_timer(now)
        packets, events = node.packets_to_send(), node.events()
        for event in events:
            if isinstance(event, PacketRejected):
                self._meet_rejected(event)
            elif isinstance(event, MemberDown):
                # Before the sending: what is still sent there is to dial anew.
                self._drop_link(node, event.member.address)
        for address in node.heard_again():
            # Likewise: it waits for an answer, and may go on without one.
            self._transport.end_pause(address)
        for packet in packets:
            self.attempts.sent(packet.destination)
            if not self._transport.send(packet.destination, packet.data):
                self.counters.packets_dropped += 1
        if self._frames or self._reports:
            self._wake.set()
        self._on_step(events)

    def _begin_pace(self) -> None:
        """What was written goes with this step, and what is written next waits for a moment."""
        self._has_written = False
        self._paced_until = self._clock() + PACE_S
        if self._pace is not None:
            self._pace.cancel()
            self._pace = None

    def _take_reports(self, node: DrivenNode) -> None:
        for _ in range(len(self._reports)):
            address, is_busy, end = self._reports.popleft()
            if is_busy is None:
                node.connection_lost(address, now=self._clock(), end=end)
            else:
                node.link_state(address, is_busy=is_busy, now=self._clock())

    def _take_frames(self, node: DrivenNode) -> None:
        now = self._clock()
        ends_at = now + STEP_S
        while self._frames and now < ends_at:
            data, sender, _ = self._frames.popleft()
            self._frames_bytes -= len(data) + FRAME_OVERHEAD_BYTES
            self.counters.frames_handled += 1
            try:
                node.receive(data, sender=sender, now=now)
            except Exception:
                # A bug, but no frame of a peer may be what ends a node.
                self.counters.frames_failed += 1
                _logger.exception("a frame from %s failed: please report this", sender)
                self._transport.close_sender(sender)
            now = self._clock()
        if self._frames_bytes <= INBOX_BYTES_MAX // 4:
            self._has_room.set()

    def _meet_rejected(self, event: PacketRejected) -> None:
        self._log.tell(
            f"frame rejected ({event.reason})",
            f"{event.detail}; {event.size:,} bytes from {event.sender}",
        )
        if event.reason in CLOSING_REASONS:
            self.counters.senders_closed += 1
            self._transport.close_sender(event.sender, reason=event.reason)

    async def _sleep(self, node: DrivenNode) -> None:
        """Wait until something came, or the node's deadline."""
        if self._wake.is_set():
            return
        deadline = self._deadline = node.next_deadline()
        self._is_deadline_known = True
        # Mostly a frame comes first, and the deadline has moved on: a timer that is due before it
        # looks again then, which costs less than a new one for each frame.
        if deadline is not None and deadline < self._timer_at:
            self._set_timer(deadline)
        await self._wake.wait()

    def _set_timer(self, deadline: float) -> None:
        self._cancel_timer()
        delay_s = max(0.0, deadline - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)
        self._timer_at = deadline

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, math.inf

    def _on_timer(self) -> None:
        """Wake the task if something is due, or wait on for what is due by now."""
        self._timer, self._timer_at = None, math.inf
        deadline = self._deadline
        if self._is_deadline_known and deadline is not None and self._clock() < deadline:
            self._set_timer(deadline)
        else:
            self._wake.set()
