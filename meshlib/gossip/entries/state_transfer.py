"""A whole state from peer to peer, page by page, where the log no longer reaches back.

Rules this file owns:
- A transfer's vector is the sender's as it was before the first page, and is joined only when the
  last page is in; a transfer that breaks off leaves nothing claimed that was not received.
- At most one transfer comes in at a time, and at most one goes out to each peer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field

from meshlib.errors import RejectReason, RemoteError
from meshlib.gossip.context import Context, Timer
from meshlib.gossip.entries.dissemination import Dissemination
from meshlib.gossip.events import EntryRejected, StateRestored
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import TransferNext, TransferPageMessage, TransferRequest
from meshlib.gossip.messages.offers import compact, expand
from meshlib.limits import TRANSFER_PAGE_BYTES_MAX
from meshlib.replication import TransferPage, TransferPages

__all__ = ["StateTransfer"]

TRANSFER_TRIES_MAX = 3
"""How often a page is asked for again before a transfer is given up."""


@define(slots=True)
class _Incoming:
    """A state transfer that this node receives."""

    session: int
    peer: str
    is_repair: bool = False
    next_index: int = 0
    tries: int = 0
    ask_again_at: float = 0.0


@define(slots=True)
class _Outgoing:
    """A state transfer that this node sends."""

    session: int
    pages: TransferPages
    index: int = -1
    given_up_at: float = 0.0
    following: TransferPage | None = None
    current: TransferPageMessage | None = field(default=None)


class StateTransfer:
    """Send this node's state to peers that ask, and take in a peer's.

    Args:
        context: the engine's shared state.
        dissemination: reports what the pages did.
        on_complete: called with a peer's name and the time once all of its state is in.
    """

    def __init__(
        self,
        context: Context,
        dissemination: Dissemination,
        *,
        on_complete: Callable[[str, float], None],
    ) -> None:
        self._context = context
        self._dissemination = dissemination
        self._on_complete = on_complete
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

    def on_transfer_available(self, header: FrameHeader, now: float) -> None:
        """Ask for a peer's state: its log no longer reaches back to what this node has."""
        self.request(header.name, now)

    def request(self, name: str, now: float, *, is_repair: bool = False) -> None:
        """Ask for a peer's state, unless one is coming in or has just come.

        Args:
            name: the peer.
            now: monotonic seconds.
            is_repair: unequal content was found at equal vectors: everything that differs is to
                come, what the vectors count included.
        """
        context = self._context
        if self._incoming is not None or now < self._next_transfer_at:
            return
        incoming = self._incoming = _Incoming(context.rng.getrandbits(48), name, is_repair)
        self._ask_for_page(incoming, now)
        context.timers.set(incoming.ask_again_at, Timer("transfer_in", name, incoming.session))

    def _ask_for_page(self, incoming: _Incoming, now: float) -> None:
        """Ask for the page that is awaited, soon again at first and then less often."""
        context = self._context
        session, index = incoming.session, incoming.next_index
        if index:
            context.send_to_member(incoming.peer, TransferNext(session, index))
        else:
            # Under a number of its own: pages that answer an earlier offer lack what came since.
            incoming.session = session = context.rng.getrandbits(48)
            context.replica.begin_transfer()
            offer = compact(context.replica.transfer_offer())
            request = TransferRequest(session, offer, incoming.is_repair)
            context.send_to_member(incoming.peer, request)
        timeout_s = context.config.transfer_timeout_s
        incoming.ask_again_at = now + timeout_s / 2 ** (TRANSFER_TRIES_MAX - incoming.tries)

    def on_transfer_request(
        self, message: TransferRequest, header: FrameHeader, now: float
    ) -> None:
        """Begin to send the parts of the state that differ."""
        context = self._context
        known = self._outgoing.get(header.name)
        if known is not None and known.session == message.session and known.current is not None:
            context.send(header.address, known.current)
            return
        self._dissemination.publish()
        pages = context.replica.transfer_pages(
            expand(message.offer, context.replica.transfer_offer()),
            page_bytes_max=min(TRANSFER_PAGE_BYTES_MAX, context.config.packet_bytes_max),
            is_repair=message.is_repair,
        )
        outgoing = _Outgoing(message.session, pages, following=next(pages, None))
        self._outgoing[header.name] = outgoing
        context.counters.transfers_sent += 1
        self._send_page(outgoing, header, now)

    def _send_page(self, outgoing: _Outgoing, header: FrameHeader, now: float) -> None:
        """Make the next page and send it; the last one carries the vector."""
        page, outgoing.following = outgoing.following, next(outgoing.pages, None)
        outgoing.index += 1
        outgoing.current = TransferPageMessage(
            outgoing.session,
            outgoing.index,
            page.document if page is not None else "",
            page.state if page is not None else b"",
            outgoing.pages.vector if outgoing.following is None else None,
        )
        self._context.send(header.address, outgoing.current)
        wait_s = (TRANSFER_TRIES_MAX + 1) * self._context.config.transfer_timeout_s
        outgoing.given_up_at = now + wait_s
        if not outgoing.index:
            timer = Timer("transfer_out", header.name, outgoing.session)
            self._context.timers.set(outgoing.given_up_at, timer)

    def on_transfer_next(self, message: TransferNext, header: FrameHeader, now: float) -> None:
        """Send the next page, or the current one again."""
        outgoing = self._outgoing.get(header.name)
        if outgoing is None or outgoing.session != message.session or outgoing.current is None:
            return
        if message.index == outgoing.index:
            self._context.send(header.address, outgoing.current)
        elif message.index == outgoing.index + 1 and outgoing.current.vector is None:
            self._send_page(outgoing, header, now)

    def on_transfer_out_timer(self, name: str, session: int, now: float) -> None:
        """Drop a transfer whose receiver has fallen silent."""
        outgoing = self._outgoing.get(name)
        if outgoing is None or outgoing.session != session:
            return
        if now >= outgoing.given_up_at:
            del self._outgoing[name]
        else:
            self._context.timers.set(outgoing.given_up_at, Timer("transfer_out", name, session))

    def on_transfer_page(
        self, message: TransferPageMessage, header: FrameHeader, now: float
    ) -> None:
        """Absorb a page; with the last one, the vector.

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
            or incoming.next_index != message.index
        ):
            return
        context = self._context
        if message.document:
            try:
                context.replica.absorb_page(TransferPage(message.document, message.state))
            except RemoteError as error:
                self._incoming = None
                self._report_page(message, header, error)
                if error.reason is RejectReason.MALFORMED:
                    raise
                return
        incoming.next_index += 1
        incoming.tries = 0
        if message.vector is None:
            self._ask_for_page(incoming, now)
            return
        self._incoming = None
        # What a transfer cannot bring, entries stamped ahead for one, the next would not either.
        self._next_transfer_at = now + context.config.exchange_interval_s
        try:
            received = context.replica.complete_transfer(message.vector)
        except RemoteError as error:
            self._report_page(message, header, error)
            return
        self._dissemination.report(received)
        context.counters.transfers_received += 1
        context.emit(StateRestored(peer=header.name, page_count=incoming.next_index))
        self._on_complete(header.name, now)

    def _report_page(
        self, message: TransferPageMessage, header: FrameHeader, error: RemoteError
    ) -> None:
        self._context.emit(
            EntryRejected(
                document=message.document,
                actor=header.actor,
                sequence=message.index,
                reason=error.reason,
                detail=str(error),
            )
        )

    def on_transfer_in_timer(self, name: str, session: int, now: float) -> None:
        """Ask for the awaited page again, or give the transfer up."""
        incoming = self._incoming
        if incoming is None or incoming.session != session:
            return
        if now >= incoming.ask_again_at:
            incoming.tries += 1
            member = self._context.members.get(name)
            if incoming.tries > TRANSFER_TRIES_MAX or member is None or not member.is_reachable:
                self._incoming = None
                return
            self._ask_for_page(incoming, now)
        timer = Timer("transfer_in", name, incoming.session)
        self._context.timers.set(incoming.ask_again_at, timer)

    def restart(self) -> None:
        """Break every transfer off: this node comes back as a new writer."""
        self._incoming = None
        self._outgoing.clear()

    def forget(self, name: str) -> None:
        """Break off what goes on with a member that is gone."""
        self._outgoing.pop(name, None)
        if self._incoming is not None and self._incoming.peer == name:
            self._incoming = None
