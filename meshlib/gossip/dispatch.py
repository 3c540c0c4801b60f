"""Which part takes which message, and which timer: two tables of handlers.

Rule: a handler of a message is given the message, the header of its frame and the time; one of a
timer is given the timer and the time. Handlers return nothing, and none is made on the spot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    EntriesMessage,
    ExchangeEqual,
    ExchangeRequest,
    GapRequest,
    IndirectPingFailed,
    IndirectPingRequest,
    JoinRequest,
    JoinResponse,
    MemberUpdates,
    Message,
    PingRequest,
    PingResponse,
    SeedAnswer,
    SeedQuestion,
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)
from meshlib.gossip.parts import Parts
from meshlib.gossip.timers import Timer, TimerKind
from meshlib.invariants import require
from meshlib.limits import EVENTS_QUEUED_MAX

__all__ = ["FROM_ANYONE", "OF_ENTRIES", "Dispatch", "without_repeats"]

FROM_ANYONE: Final = (JoinRequest, ConflictNotice, PingRequest, SeedQuestion)
"""Read whoever sends them: a claim to a name comes from a start that is not known yet, its
refusal may come from the very node that has the name, and a question whether one lives is
answered to anyone, or two nodes of one name could never settle which of them goes on. Who asks at
a seed is not known yet either, or is this node itself."""

OF_ENTRIES: Final = (
    EntriesMessage,
    ExchangeEqual,
    ExchangeRequest,
    GapRequest,
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
)
"""What is not read while entries are held back: see `entries/early_writes.py`."""

ANSWERED_ONCE: Final = frozenset(
    (
        ConflictNotice,
        ExchangeRequest,
        GapRequest,
        JoinRequest,
        TransferAvailable,
        TransferNext,
        TransferRequest,
        VectorExchange,
    )
)
"""Questions whose answer may cost as much as all that this node holds. Of several alike in one
frame the last one is answered: it says what the others said, or something newer."""

FEW_MESSAGES: Final = 4
"""So many are handled as they are: nearly every frame has no more."""

MessageHandler = Callable[[Any, FrameHeader, float], None]
TimerHandler = Callable[[Timer, float], None]


def without_repeats(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Leave out of a frame's messages the questions that are asked again behind them. O(n)."""
    if len(messages) <= FEW_MESSAGES:
        return messages
    kept: list[Message] = []
    asked: set[tuple[Any, ...]] = set()
    for message in reversed(messages):
        question = _question(message)
        if question is None or question not in asked:
            kept.append(message)
        if question is not None:
            asked.add(question)
    kept.reverse()
    return tuple(kept)


def _question(message: Message) -> tuple[Any, ...] | None:
    """Return what two messages have in common that ask the same; None for what is told."""
    if type(message) not in ANSWERED_ONCE:
        return None
    if isinstance(message, ExchangeRequest):
        return ExchangeRequest, message.content_digest is None, message.wants_whole
    if isinstance(message, VectorExchange):
        return None if message.is_partial else (VectorExchange, message.wants_reply)
    if isinstance(message, JoinRequest):
        return JoinRequest, message.sender.name
    return (type(message),)


class Dispatch:
    """Hands messages and timers to the parts.

    Args:
        parts: the parts.

    Attributes:
        message_handlers: by the type of the message.
        timer_handlers: by the kind of the timer.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._volatile: deque[tuple[str, str, bytes]] = deque()
        self.message_handlers: Final = self._make_message_handlers()
        self.timer_handlers: Final = self._make_timer_handlers()

    def _make_message_handlers(self) -> Mapping[type[Message], MessageHandler]:
        parts = self._parts
        roster, admission, repair = parts.roster, parts.admission, parts.anti_entropy
        return {
            PingRequest: self._on_ping,
            PingResponse: self._on_ping_response,
            IndirectPingRequest: roster.on_indirect_request,
            IndirectPingFailed: roster.on_indirect_failed,
            JoinRequest: admission.on_join_request,
            JoinResponse: self._on_join_response,
            ConflictNotice: parts.own.on_conflict_notice,
            MemberUpdates: roster.on_updates,
            EntriesMessage: self._on_entries,
            GapRequest: self._on_gap_request,
            ExchangeRequest: repair.on_exchange_request,
            ExchangeEqual: repair.on_exchange_equal,
            VectorExchange: repair.on_vector,
            TransferAvailable: parts.transfer.on_transfer_available,
            TransferRequest: parts.transfer.on_transfer_request,
            TransferPageMessage: repair.on_transfer_page,
            TransferNext: parts.transfer.on_transfer_next,
            VolatileMessage: self._on_volatile,
            SeedQuestion: parts.dialler.on_seed_question,
            SeedAnswer: parts.dialler.on_seed_answer,
        }

    def _make_timer_handlers(self) -> Mapping[TimerKind, TimerHandler]:
        parts = self._parts
        detector, roster, dialler = parts.detector, parts.roster, parts.dialler
        spread, repair, transfer = parts.dissemination, parts.anti_entropy, parts.transfer
        return {
            TimerKind.PROBE: self._on_probe_timer,
            TimerKind.PROBE_DIRECT: detector.on_direct_timer,
            TimerKind.PROBE_FINAL: roster.on_final_timer,
            TimerKind.RELAY: detector.on_relay_timer,
            TimerKind.SUSPICION: roster.on_suspicion_timer,
            TimerKind.JOIN: dialler.on_join_timer,
            TimerKind.HEAL: dialler.on_heal_timer,
            TimerKind.CLAIM: parts.admission.on_claim_timer,
            TimerKind.GOSSIP: parts.news.on_gossip_timer,
            TimerKind.FORGET: roster.on_forget_timer,
            TimerKind.GAP: spread.on_gap_timer,
            TimerKind.PUSH: spread.on_push_timer,
            TimerKind.ACKNOWLEDGE: spread.on_acknowledge_timer,
            TimerKind.BEGIN: parts.beginning.on_begin_timer,
            TimerKind.HANDOVER: parts.handover.on_handover_timer,
            TimerKind.TELL_READY: repair.on_tell_ready_timer,
            TimerKind.FILLED: repair.on_filled_timer,
            TimerKind.EXCHANGE: self._on_exchange_timer,
            TimerKind.TRANSFER_IN: transfer.on_transfer_in_timer,
            TimerKind.TRANSFER_OUT: transfer.on_transfer_out_timer,
            TimerKind.TRANSFER_PAGE: transfer.on_transfer_page_timer,
            TimerKind.TRANSFER_TAKE: repair.on_transfer_take_timer,
            TimerKind.MAINTENANCE: parts.upkeep.on_maintenance_timer,
        }

    def run_due(self, now: float) -> None:
        """Do everything that is due. O(due log timers)."""
        timers, handlers = self._parts.timers, self.timer_handlers
        while (timer := timers.pop_due(now)) is not None:
            handlers[timer.kind](timer, now)

    def volatile(self) -> list[tuple[str, str, bytes]]:
        """Return received volatile messages as (sender, document, payload); drains."""
        if not self._volatile:
            return []
        messages = list(self._volatile)
        self._volatile.clear()
        return messages

    # What concerns two parts

    def _on_ping(self, message: PingRequest, header: FrameHeader, now: float) -> None:
        """Answer a probe; who asks is probed in the same frame, if its turn was to come."""
        self._parts.roster.on_ping(message, header, now)
        is_meant = message.target == self._parts.view.name
        if is_meant and self._parts.detector.probe_early(header.name, now):
            self._parts.anti_entropy.go_with_probe(header.name, now)

    def _on_probe_timer(self, timer: Timer, now: float) -> None:
        """Probe the next member, and exchange with it in the same frame if it is about time."""
        name = self._parts.detector.on_probe_timer(timer, now)
        if name is not None:
            self._parts.anti_entropy.go_with_probe(name, now)

    def _on_exchange_timer(self, timer: Timer, now: float) -> None:
        """Exchange with the next neighbour, and probe it in the same frame if that is to come."""
        name = self._parts.anti_entropy.on_exchange_timer(timer, now)
        if name is not None:
            self._parts.detector.probe_early(name, now)

    def _on_join_response(self, message: JoinResponse, header: FrameHeader, now: float) -> None:
        """Take a page of a peer's table: with the last one it is known whom there is."""
        self._parts.admission.on_join_response(message, header, now)
        if message.until is None:
            self._parts.beginning.note_entered()

    def _on_ping_response(self, message: PingResponse, header: FrameHeader, now: float) -> None:
        """Take an answer: to a claim to a name, a probe, or how this node's clock stands."""
        self._parts.admission.on_ping_response(message, header, now)
        self._parts.detector.on_ping_response(message, header, now)
        self._parts.early.settle(now)  # it may be the answer that was awaited
        self._parts.beginning.check_goal(now)

    def _on_entries(self, message: EntriesMessage, header: FrameHeader, now: float) -> None:
        """Take entries: with them this node may hold all that it waited for."""
        is_much = self._parts.dissemination.on_entries(message, header, now)
        if not message.is_pushed:
            goes_on = message.wants_acknowledgement
            self._parts.filling.note_given(header.name, now, is_much=is_much, goes_on=goes_on)
        self._parts.beginning.check_goal(now)

    def _on_gap_request(self, message: GapRequest, header: FrameHeader, now: float) -> None:
        """Fill a gap from the log, or by an exchange where that no longer reaches back."""
        if not self._parts.dissemination.on_gap_request(message, header):
            self._parts.anti_entropy.begin(header.name, now)

    def _on_volatile(self, message: VolatileMessage, header: FrameHeader, _now: float) -> None:
        """Keep part of a volatile document for whoever drives this engine; bounded."""
        if len(self._volatile) < EVENTS_QUEUED_MAX:
            self._volatile.append((header.name, message.document, message.payload))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how many volatile messages wait."""
        return {"volatile_count": len(self._volatile)}

    def _check(self) -> None:
        """Assert that no more wait than may."""
        require(self, len(self._volatile) <= EVENTS_QUEUED_MAX, "too many volatile messages wait")
