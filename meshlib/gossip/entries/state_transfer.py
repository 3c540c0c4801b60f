"""A whole state from peer to peer, page by page, where the log no longer reaches back.

Rules this file owns:
- A transfer's vector is the sender's as it was before the first page, and is joined only when the
  last page is in; a transfer that breaks off leaves nothing claimed that was not received.
- At most one transfer comes in at a time, and at most one goes out to each peer.
- Several pages are on their way at a time, as many as the way holds and no more than
  `TRANSFER_WINDOW_BYTES_MAX`. They are taken in their order, and what comes before its turn waits,
  as long as there is room. In one step one page is made or taken, or some that are tiny, so that
  none takes long: what a page takes in time its bytes do not tell.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from meshlib.errors import RejectReason, RemoteError
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.entries.dissemination import Dissemination
from meshlib.gossip.entries.outgoing import PAGE_COST_BYTES, OutgoingState, SentPage
from meshlib.gossip.entries.ways import Ways
from meshlib.gossip.events import EntryRejected, StateRestored
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
)
from meshlib.gossip.messages.offers import compact, expand
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.speech import Speech
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.limits import TRANSFER_PAGE_BYTES_MAX, TRANSFER_WINDOW_BYTES_MAX
from meshlib.replication import Replica, TransferPage

__all__ = ["StateTransfer"]

HALVINGS = 3
"""A page is asked for again after this many times half the timeout, then after twice as long each
time, up to the timeout."""

TRIES_MAX = 6
"""How often it is asked for again before a transfer is given up: the page may be on a slow link,
and is not sent twice for being asked for twice."""

STEP_BYTES = 6 * 1024
"""Over how many bytes no page is made or taken in a step beside the first: one of short texts, or
of hashes, is hardly larger and takes 3 to 6 ms."""

PACE_S = 0.001
"""How long after a step the next one follows, in seconds."""


@define(slots=True)
class _Incoming:
    """A state transfer that this node receives."""

    session: int
    peer: str
    is_repair: bool = False
    request: TransferRequest | None = None
    next_index: int = 0
    tries: int = 0
    ask_again_at: float = 0.0
    early: dict[int, tuple[TransferPageMessage, FrameHeader]] = field(factory=dict)
    early_bytes: int = 0
    is_taking: bool = False

    def keep(self, message: TransferPageMessage, header: FrameHeader) -> None:
        """Keep a page whose turn has not come, if there is room: it is sent again otherwise.

        There is for all that its sender has on its way at once, for it counts alike.
        """
        size = PAGE_COST_BYTES + len(message.state)
        is_room = self.early_bytes + size <= TRANSFER_WINDOW_BYTES_MAX
        if is_room and message.index not in self.early:
            self.early[message.index] = message, header
            self.early_bytes += size

    def drop(self, index: int) -> None:
        """Drop a page whose turn has come, if it is kept: it may have come twice."""
        kept = self.early.pop(index, None)
        if kept is not None:
            self.early_bytes -= PAGE_COST_BYTES + len(kept[0].state)


class StateTransfer:
    """Send this node's state to peers that ask, and take in a peer's.

    Args:
        config: the settings.
        rng: numbers the transfers.
        replica: gives and takes the pages.
        dissemination: reports what the pages did.
        view: knows who is in reach.
        speech: knows which pages a peer reads.
        beginning: knows whose word this node may decide by.
        timers: let it ask again, and give up.
        ways: know how much may be on its way to whom.
        outbox: takes the pages.
        events: hears of what came in, and of what could not.
        counters: counts transfers.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        replica: Replica,
        dissemination: Dissemination,
        view: MembershipView,
        speech: Speech,
        beginning: Beginning,
        timers: TimerQueue,
        ways: Ways,
        outbox: Outbox,
        events: EventQueue,
        counters: Counters,
    ) -> None:
        self._config = config
        self._rng = rng
        self._replica = replica
        self._dissemination = dissemination
        self._view = view
        self._ways = ways
        self._speech = speech
        self._beginning = beginning
        self._timers = timers
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._incoming: _Incoming | None = None
        self._next_transfer_at = -math.inf
        self._outgoing: dict[str, OutgoingState] = {}

    @property
    def is_receiving(self) -> bool:
        """Whether a peer's state is coming in."""
        return self._incoming is not None

    def is_under_way(self, name: str, now: float) -> bool:
        """Tell whether any state is coming in, or one goes out to a member.

        One that was sent whole is kept for long, to be repeated; it has come by then.
        """
        outgoing = self._outgoing.get(name)
        since = now - self._config.transfer_timeout_s
        return self.is_receiving or (outgoing is not None and not outgoing.was_sent_before(since))

    def on_transfer_available(
        self, _message: TransferAvailable, header: FrameHeader, now: float
    ) -> None:
        """Ask for a peer's state: its log no longer reaches back to what this node has."""
        self.request(header.name, now)

    def request(self, name: str, now: float, *, is_repair: bool = False) -> None:
        """Ask for a peer's state, unless one is coming in or has just come.

        Who is no member cannot be asked: waiting for its answer would only keep others from it.

        Args:
            name: the peer.
            now: monotonic seconds.
            is_repair: unequal content was found at equal vectors: everything that differs is to
                come, what the vectors count included.
        """
        if self._incoming is not None or now < self._next_transfer_at:
            return
        if name not in self._view.members:
            return
        incoming = self._incoming = _Incoming(self._rng.getrandbits(48), name, is_repair)
        self._ask_for_page(incoming, now)
        self._timers.set(
            incoming.ask_again_at, Timer(TimerKind.TRANSFER_IN, name, incoming.session)
        )

    def _ask_for_page(self, incoming: _Incoming, now: float) -> None:
        """Ask for the page that is awaited, soon again at first and then less often."""
        session, index = incoming.session, incoming.next_index
        if index:
            self._outbox.send_to_member(incoming.peer, TransferNext(session, index))
        else:
            if incoming.request is None:
                self._replica.begin_transfer()
                offer = compact(self._replica.transfer_offer())
                incoming.request = TransferRequest(session, offer, incoming.is_repair)
            # The same again: under another number the first page, which may be on a slow link,
            # would come for nothing, and then the next one, for ever.
            self._outbox.send_to_member(incoming.peer, incoming.request)
        halvings = max(0, HALVINGS - incoming.tries)
        incoming.ask_again_at = now + self._config.transfer_timeout_s / 2**halvings

    def on_transfer_request(
        self, message: TransferRequest, header: FrameHeader, now: float
    ) -> None:
        """Begin to send the parts of the state that differ.

        To members alone: nothing would ever forget what is kept for anybody else. Who is not
        known yet asks again.
        """
        if header.name not in self._view.members:
            return
        known = self._outgoing.get(header.name)
        if known is not None and known.session == message.session:
            self._repeat(known, now)
            self._send_more(known, header.name, now)
            return
        self._dissemination.publish()
        pages = self._replica.transfer_pages(
            expand(message.offer, self._replica.transfer_offer()),
            page_bytes_max=min(TRANSFER_PAGE_BYTES_MAX, self._config.packet_bytes_max),
            is_repair=message.is_repair,
            page_version=self._speech.to(header.address, message).page_version,
        )
        way = self._ways.to(header.name)
        outgoing = OutgoingState(message.session, header.address, pages, way)
        outgoing.begin()
        self._outgoing[header.name] = outgoing
        self._counters.transfers_sent += 1
        self._send_more(outgoing, header.name, now)
        timer = Timer(TimerKind.TRANSFER_OUT, header.name, outgoing.session)
        self._timers.set(outgoing.given_up_at, timer)

    def _send_more(self, outgoing: OutgoingState, name: str, now: float) -> None:
        """Send pages while there is room for them; in one step one, or some that are tiny."""
        wait_s = (TRIES_MAX + 1) * self._config.transfer_timeout_s
        outgoing.given_up_at = now + wait_s
        step: list[SentPage] = []
        step_bytes = outgoing.next_bytes
        while outgoing.has_room and (not step or step_bytes <= STEP_BYTES):
            step.append(outgoing.next_page(now))
            self._outbox.send(outgoing.address, step[-1].message)
            step_bytes += outgoing.next_bytes
        outgoing.note_step(step)
        if outgoing.has_room and not outgoing.is_paced:
            outgoing.is_paced = True
            timer = Timer(TimerKind.TRANSFER_PAGE, name, outgoing.session)
            self._timers.set(now + PACE_S, timer)

    def on_transfer_page_timer(self, timer: Timer, now: float) -> None:
        """Send more of what there is room for."""
        outgoing = self._outgoing.get(timer.key)
        if outgoing is not None and outgoing.session == timer.token:
            outgoing.is_paced = False
            self._send_more(outgoing, timer.key, now)

    def on_transfer_next(self, message: TransferNext, header: FrameHeader, now: float) -> None:
        """Take note of which page is awaited: what was before it has come.

        Who awaits the same page as before has missed it, unless it is still on its way.
        """
        outgoing = self._outgoing.get(header.name)
        if outgoing is None or outgoing.session != message.session:
            return
        if message.index > outgoing.made_count:
            return  # nobody awaits what was not made
        is_progress = outgoing.note_arrived(message.index, now)
        if not is_progress:
            self._repeat(outgoing, now, awaited=message.index)
        self._send_more(outgoing, header.name, now)

    @staticmethod
    def _repeat(outgoing: OutgoingState, now: float, *, awaited: int = 0) -> None:
        """Have what was missed sent again, but what was sent just now."""
        page = outgoing.sent.get(awaited)
        if page is not None and now - page.at >= page.wait_s:
            outgoing.go_back()

    def on_transfer_out_timer(self, timer: Timer, now: float) -> None:
        """Drop a transfer whose receiver has fallen silent."""
        outgoing = self._outgoing.get(timer.key)
        if outgoing is None or outgoing.session != timer.token:
            return
        if now >= outgoing.given_up_at:
            del self._outgoing[timer.key]
        else:
            self._timers.set(outgoing.given_up_at, timer)

    def take_page(self, message: TransferPageMessage, header: FrameHeader, now: float) -> bool:
        """Absorb a page; with the last one, the vector.

        Returns:
            Whether all of the peer's state is in now.

        Raises:
            RemoteError: the page is malformed. Its sender made it, and forwarded it for nobody,
                so it counts against the connection that it came by. The transfer is over, as it
                is with an event alone when this node has no room for a page, or does not know
                its type.
        """
        incoming = self._incoming
        if (
            incoming is None
            or incoming.session != message.session
            or incoming.peer != header.name
            or incoming.next_index > message.index
        ):
            return False
        if incoming.next_index < message.index:
            incoming.keep(message, header)
            return False
        is_whole = self._take(incoming, message, header, now)
        self._go_on(incoming, now)
        return is_whole

    def take_waiting(self, timer: Timer, now: float) -> bool:
        """Take pages that came before their turn, now that it is; see `take_page`.

        One in one step, or some that together are no more than `STEP_BYTES`.
        """
        incoming = self._incoming
        if incoming is None or incoming.session != timer.token or incoming.peer != timer.key:
            return False
        incoming.is_taking = False
        taken_bytes = 0
        while self._incoming is incoming:
            waiting = incoming.early.get(incoming.next_index)
            if waiting is None:
                break
            is_first = not taken_bytes
            taken_bytes += PAGE_COST_BYTES + len(waiting[0].state)
            if taken_bytes > STEP_BYTES and not is_first:
                break
            try:
                if self._take(incoming, *waiting, now):
                    return True
            except RemoteError:
                return False  # an event tells; the connection it came by is not known any more
        self._go_on(incoming, now)
        return False

    def _go_on(self, incoming: _Incoming, now: float) -> None:
        """Ask for the page that follows, and have it taken soon if it has come: by one timer."""
        if self._incoming is not incoming:
            return
        self._ask_for_page(incoming, now)
        if incoming.next_index in incoming.early and not incoming.is_taking:
            incoming.is_taking = True
            timer = Timer(TimerKind.TRANSFER_TAKE, incoming.peer, incoming.session)
            self._timers.set(now + PACE_S, timer)

    def _take(
        self, incoming: _Incoming, message: TransferPageMessage, header: FrameHeader, now: float
    ) -> bool:
        """Absorb the page whose turn it is; say whether it was the last."""
        incoming.drop(message.index)
        if message.document:
            try:
                self._replica.absorb_page(
                    TransferPage(message.document, message.state),
                    is_shown=self._beginning.is_worth_showing(header),
                )
            except RemoteError as error:
                self._incoming = None
                self._report_page(message, header, error)
                if error.reason is RejectReason.MALFORMED:
                    raise
                return False
        incoming.next_index += 1
        incoming.tries = 0
        if message.vector is None:
            return False
        self._incoming = None
        # What a transfer cannot bring, entries stamped ahead for one, the next would not either.
        self._next_transfer_at = now + self._config.exchange_interval_s
        try:
            received = self._replica.complete_transfer(message.vector)
        except RemoteError as error:
            self._report_page(message, header, error)
            return False
        self._dissemination.report(received)
        self._counters.transfers_received += 1
        self._events.emit(StateRestored(peer=header.name, page_count=incoming.next_index))
        return True

    def _report_page(
        self, message: TransferPageMessage, header: FrameHeader, error: RemoteError
    ) -> None:
        self._events.emit(
            EntryRejected(
                document=message.document,
                actor=header.actor,
                sequence=message.index,
                reason=error.reason,
                detail=str(error),
            )
        )

    def on_transfer_in_timer(self, timer: Timer, now: float) -> None:
        """Ask for the awaited page again, or give the transfer up."""
        name, incoming = timer.key, self._incoming
        if incoming is None or incoming.session != timer.token:
            return
        if now >= incoming.ask_again_at:
            incoming.tries += 1
            member = self._view.members.get(name)
            if incoming.tries > TRIES_MAX or member is None or not member.is_reachable:
                self._incoming = None
                return
            self._ask_for_page(incoming, now)
        timer = Timer(TimerKind.TRANSFER_IN, name, incoming.session)
        self._timers.set(incoming.ask_again_at, timer)

    def restart(self) -> None:
        """Break every transfer off: this node comes back as a new writer."""
        self._incoming = None
        self._outgoing.clear()

    def forget(self, name: str) -> None:
        """Break off what goes on with a member that is gone."""
        self._outgoing.pop(name, None)
        if self._incoming is not None and self._incoming.peer == name:
            self._incoming = None

    def diagnostics(self) -> Mapping[str, Any]:
        """Show which states are on their way, in and out."""
        incoming = self._incoming
        return {
            "incoming": None
            if incoming is None
            else (
                incoming.session,
                incoming.peer,
                incoming.is_repair,
                incoming.next_index,
                incoming.tries,
                incoming.ask_again_at,
                tuple(incoming.early),
            ),
            "outgoing": {
                name: (outgoing.session, outgoing.made_count, outgoing.given_up_at)
                for name, outgoing in self._outgoing.items()
            },
            "next_transfer_at": self._next_transfer_at,
        }

    def _check(self) -> None:
        """Assert that each transfer is with a member, ends some time, and has its vector last."""
        members, incoming = self._view.members, self._incoming
        if incoming is not None:
            require(self, incoming.peer in members, "a state comes from who is gone")
            is_within = 0 <= incoming.tries <= TRIES_MAX and incoming.next_index >= 0
            require(self, is_within, "a page was asked for too often")
            early_bytes = sum(
                PAGE_COST_BYTES + len(message.state) for message, _ in incoming.early.values()
            )
            is_counted = early_bytes == incoming.early_bytes <= TRANSFER_WINDOW_BYTES_MAX
            require(self, is_counted, "pages before their turn are miscounted, or too many")
            is_early = all(index >= incoming.next_index for index in incoming.early)
            require(self, is_early, "a page is kept whose turn is over")
            timer = Timer(TimerKind.TRANSFER_IN, incoming.peer, incoming.session)
            is_armed = timer in self._timers.of(TimerKind.TRANSFER_IN)
            require(self, is_armed, "a page is never asked for again")
        ends = self._timers.of(TimerKind.TRANSFER_OUT) if self._outgoing else []
        for name, outgoing in self._outgoing.items():
            is_armed = Timer(TimerKind.TRANSFER_OUT, name, outgoing.session) in ends
            require(self, is_armed, "a transfer is never given up")
            require(self, name in members, "a state goes to who is gone")
            outgoing._check()  # noqa: SLF001 - it is a part of this one
