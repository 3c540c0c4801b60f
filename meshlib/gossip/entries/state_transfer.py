"""A whole state from peer to peer, page by page, where the log no longer reaches back.

Rules this file owns:
- A transfer's vector is the sender's as it was before the first page, and is joined only when the
  last page is in; a transfer that breaks off leaves nothing claimed that was not received.
- At most one transfer comes in at a time, and at most one goes out to each peer.
- Several pages are on their way at a time, as many as the way holds and no more than
  `TRANSFER_WINDOW_BYTES_MAX`. They are taken in their order, and what comes before its turn waits,
  as long as there is room. In one step one large page is made or taken, so that none takes long.
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
from meshlib.replication import Replica, TransferPage, TransferPages

__all__ = ["StateTransfer"]

TRANSFER_TRIES_MAX = 3
"""How often a page is asked for again before a transfer is given up."""

RESEND_S = 0.2
"""How long a page is not sent again, in seconds, when it was sent once; twice as long after each
time: who asks again may only have a slow link."""

QUEUED_S_MAX = 0.2
"""How much longer than the quickest a page may take before less is put on its way, in seconds: well
under what a probe may take."""

STEP_BYTES = TRANSFER_PAGE_BYTES_MAX // 2
"""After how many bytes no further page is made in the same step."""

EARLY_PAGES_MAX = 1024
"""How many pages are kept that came before their turn."""

PACE_S = 0.001
"""How long after a step the next one follows, in seconds."""

PAGE_COST_BYTES = 256
"""What a page counts for beside its content."""


@define(slots=True)
class _Incoming:
    """A state transfer that this node receives."""

    session: int
    peer: str
    is_repair: bool = False
    next_index: int = 0
    tries: int = 0
    ask_again_at: float = 0.0
    early: dict[int, tuple[TransferPageMessage, FrameHeader]] = field(factory=dict)
    early_bytes: int = 0

    def keep(self, message: TransferPageMessage, header: FrameHeader) -> None:
        """Keep a page whose turn has not come, if there is room: it is sent again otherwise."""
        size = len(message.state)
        is_room = self.early_bytes + size <= TRANSFER_WINDOW_BYTES_MAX
        if is_room and message.index not in self.early and len(self.early) < EARLY_PAGES_MAX:
            self.early[message.index] = message, header
            self.early_bytes += size

    def drop(self, index: int) -> None:
        """Drop a page whose turn has come, if it is kept: it may have come twice."""
        kept = self.early.pop(index, None)
        if kept is not None:
            self.early_bytes -= len(kept[0].state)


@define(slots=True)
class _Sent:
    """A page that was made and is not known to have come.

    Args:
        message: the page.
        size: in bytes, its head aside.
        at: when it was sent last, in monotonic seconds.
        wait_s: how long after that it is not sent again, whoever asks for it.
    """

    message: TransferPageMessage
    size: int
    at: float
    wait_s: float = RESEND_S


@define(slots=True)
class _Outgoing:
    """A state transfer that this node sends.

    Args:
        session: names it.
        address: where it goes.
        pages: what is sent, made as there is room for it.
        following: the page that is made next; None when all were made.
        made_count: how many were made.
        sent: those that are not known to have come, by index.
        cursor: the index that is sent next: pages behind one that was missed are sent again.
        way_bytes: of the pages that are on their way.
        window_bytes: how many may be.
        quickest_s: the shortest time after which a page was known to have come.
        is_whole: whether the page with the vector was made.
        is_paced: whether more is sent with the next timer.
    """

    session: int
    address: str
    pages: TransferPages
    following: TransferPage | None = None
    made_count: int = 0
    sent: dict[int, _Sent] = field(factory=dict)
    cursor: int = 0
    way_bytes: int = 0
    window_bytes: int = TRANSFER_PAGE_BYTES_MAX
    quickest_s: float = math.inf
    given_up_at: float = 0.0
    is_whole: bool = False
    is_paced: bool = False

    @property
    def has_room(self) -> bool:
        """Whether another page is sent now: one may be on its way whatever its size."""
        is_all_sent = self.is_whole and self.cursor == self.made_count
        return not is_all_sent and (not self.way_bytes or self.way_bytes < self.window_bytes)

    def next_page(self, now: float) -> _Sent:
        """Return the page that is sent next, made if need be, and count it as on its way."""
        known = self.sent.get(self.cursor)
        if known is None:
            known = self.sent[self.cursor] = self._make(now)
        else:
            known.at = now
            known.wait_s *= 2
        self.cursor += 1
        self.way_bytes += known.size
        return known

    def _make(self, now: float) -> _Sent:
        """Make the next page; the last one carries the vector."""
        page, self.following = self.following, next(self.pages, None)
        self.is_whole = self.following is None
        message = TransferPageMessage(
            self.session,
            self.made_count,
            page.document if page is not None else "",
            page.state if page is not None else b"",
            self.pages.vector if self.is_whole else None,
        )
        self.made_count += 1
        return _Sent(message, PAGE_COST_BYTES + len(message.state), now)

    def note_arrived(self, index: int, now: float) -> bool:
        """Count what came before a page as arrived, and learn how much the way holds.

        The more is on its way the longer a page takes, once the way is full; and what waits there
        keeps probes and entries waiting too. So the window grows while pages take about as long as
        the quickest did, and shrinks when they take longer.

        Returns:
            whether this was not known before.
        """
        arrived = [known for known in self.sent if known < index]
        for each in arrived:
            page = self.sent.pop(each)
            if each < self.cursor:
                self.way_bytes -= page.size
            if page.wait_s > RESEND_S:
                continue  # nobody knows which of them came
            took_s = now - page.at
            self.quickest_s = min(self.quickest_s, took_s)
            if took_s > self.quickest_s + QUEUED_S_MAX:
                self.shrink()
            else:
                self.window_bytes = min(TRANSFER_WINDOW_BYTES_MAX, self.window_bytes + page.size)
        self.cursor = max(self.cursor, index)
        return bool(arrived)

    def go_back(self) -> None:
        """Send again what was not taken: of pages out of order only the first missing is kept."""
        self.cursor = min(self.sent)
        self.way_bytes = 0
        self.shrink()

    def shrink(self) -> None:
        """Let half as much be on its way, one page at least."""
        self.window_bytes = max(TRANSFER_PAGE_BYTES_MAX, self.window_bytes // 2)


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
        outbox: Outbox,
        events: EventQueue,
        counters: Counters,
    ) -> None:
        self._config = config
        self._rng = rng
        self._replica = replica
        self._dissemination = dissemination
        self._view = view
        self._speech = speech
        self._beginning = beginning
        self._timers = timers
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._incoming: _Incoming | None = None
        self._next_transfer_at = -math.inf
        self._outgoing: dict[str, _Outgoing] = {}

    @property
    def is_receiving(self) -> bool:
        """Whether a peer's state is coming in."""
        return self._incoming is not None

    def is_under_way(self, name: str) -> bool:
        """Tell whether any state is coming in, or one goes out to a member."""
        return self.is_receiving or name in self._outgoing

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
            # Under a number of its own: pages that answer an earlier offer lack what came since.
            incoming.session = session = self._rng.getrandbits(48)
            incoming.early.clear()
            incoming.early_bytes = 0
            self._replica.begin_transfer()
            offer = compact(self._replica.transfer_offer())
            request = TransferRequest(session, offer, incoming.is_repair)
            self._outbox.send_to_member(incoming.peer, request)
        timeout_s = self._config.transfer_timeout_s
        incoming.ask_again_at = now + timeout_s / 2 ** (TRANSFER_TRIES_MAX - incoming.tries)

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
        outgoing = _Outgoing(message.session, header.address, pages, following=next(pages, None))
        self._outgoing[header.name] = outgoing
        self._counters.transfers_sent += 1
        self._send_more(outgoing, header.name, now)
        timer = Timer(TimerKind.TRANSFER_OUT, header.name, outgoing.session)
        self._timers.set(outgoing.given_up_at, timer)

    def _send_more(self, outgoing: _Outgoing, name: str, now: float) -> None:
        """Send pages while there is room for them; in one step no more than a large one."""
        wait_s = (TRANSFER_TRIES_MAX + 1) * self._config.transfer_timeout_s
        outgoing.given_up_at = now + wait_s
        step_bytes = 0
        while outgoing.has_room and step_bytes < STEP_BYTES:
            page = outgoing.next_page(now)
            self._outbox.send(outgoing.address, page.message)
            step_bytes += page.size
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
    def _repeat(outgoing: _Outgoing, now: float, *, awaited: int = 0) -> None:
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
        return self._take(incoming, message, header, now)

    def take_waiting(self, timer: Timer, now: float) -> bool:
        """Take a page that came before its turn, now that it is; see `take_page`. One at a time."""
        incoming = self._incoming
        if incoming is None or incoming.session != timer.token or incoming.peer != timer.key:
            return False
        waiting = incoming.early.get(incoming.next_index)
        if waiting is None:
            return False
        try:
            return self._take(incoming, *waiting, now)
        except RemoteError:
            return False  # an event tells; the connection that it came by is not known any more

    def _take(
        self, incoming: _Incoming, message: TransferPageMessage, header: FrameHeader, now: float
    ) -> bool:
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
            self._ask_for_page(incoming, now)
            if incoming.next_index in incoming.early:
                timer = Timer(TimerKind.TRANSFER_TAKE, incoming.peer, incoming.session)
                self._timers.set(now + PACE_S, timer)
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
            if incoming.tries > TRANSFER_TRIES_MAX or member is None or not member.is_reachable:
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
            is_within = 0 <= incoming.tries <= TRANSFER_TRIES_MAX and incoming.next_index >= 0
            require(self, is_within, "a page was asked for too often")
            early_bytes = sum(len(message.state) for message, _ in incoming.early.values())
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
            self._check_outgoing(outgoing)

    def _check_outgoing(self, outgoing: _Outgoing) -> None:
        """Assert that the pages on their way are those that were sent and did not come."""
        sent, cursor = outgoing.sent, outgoing.cursor
        is_in_order = list(sent) == list(
            range(outgoing.made_count - len(sent), outgoing.made_count)
        )
        require(self, is_in_order, "a page is missing among those that were made")
        require(self, 0 <= cursor <= outgoing.made_count, "a page is sent before it is made")
        way_bytes = sum(page.size for index, page in sent.items() if index < cursor)
        require(self, way_bytes == outgoing.way_bytes, "bytes on their way are miscounted")
        held_bytes = sum(page.size for page in sent.values())
        largest = max((page.size for page in sent.values()), default=0)
        is_bounded = held_bytes <= TRANSFER_WINDOW_BYTES_MAX + largest
        require(self, is_bounded, "too much is on its way")
        for page in sent.values():
            message = page.message
            require(self, message.session == outgoing.session, "a page is of another transfer")
            is_last = outgoing.is_whole and message.index == outgoing.made_count - 1
            require(self, (message.vector is not None) == is_last, "a vector is not with the end")
