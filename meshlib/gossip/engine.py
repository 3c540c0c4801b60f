"""The gossip engine: bytes, timers and local verbs in; packets and events out.

Contract, which everything that drives an engine relies on:
- `receive` never raises on remote bytes; what it rejects becomes a `PacketRejected` event and
  leaves the state as it was.
- `now` is monotonic seconds, given by the caller; nothing in here reads a clock.
- After any call the driver drains `packets_to_send` and `events` and arms one timer for
  `next_deadline`. Timers are never cancelled, and a late one is how a pause is noticed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from meshlib.errors import RejectReason, RemoteError
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.context import Context, Counters, Packet, Timer
from meshlib.gossip.entries.anti_entropy import AntiEntropy
from meshlib.gossip.entries.beginning import Beginning, NodeState
from meshlib.gossip.entries.dissemination import Dissemination
from meshlib.gossip.entries.handover import Handover
from meshlib.gossip.events import Event, PacketRejected
from meshlib.gossip.members.roster import Roster
from meshlib.gossip.messages.frames import FrameHeader, decode_frame
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
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)
from meshlib.gossip.upkeep import Upkeep
from meshlib.limits import EVENTS_QUEUED_MAX, MEMBERS_MAX
from meshlib.membership import MemberRecord, PartitionView, TopologyManager
from meshlib.replication import (
    Replica,
    ReplicaState,
    StabilityTracker,
)

__all__ = ["Engine"]

_FROM_ANYONE = (JoinRequest, ConflictNotice, PingRequest)
"""Read whoever sends them: a claim to a name comes from a start that is not known yet, its
refusal may come from the very node that has the name, and a question whether one lives is
answered to anyone, or two nodes of one name could never settle which of them goes on."""


class Engine:
    """Membership and replication of one node, without IO.

    Args:
        cluster: the cluster's name: frames of another are refused.
        record: this node's own record.
        config: the settings.
        replica: the documents.
        tracker: keeps the peers' vectors.
        topology: who talks to whom.
        rng: all chance of this engine.
        now: monotonic seconds.
    """

    def __init__(
        self,
        *,
        cluster: str,
        record: MemberRecord,
        config: GossipConfig,
        replica: Replica,
        tracker: StabilityTracker,
        topology: TopologyManager,
        rng: random.Random,
        now: float,
    ) -> None:
        self._context = Context(
            cluster=cluster,
            config=config,
            rng=rng,
            replica=replica,
            tracker=tracker,
            record=record,
            topology=topology,
            now=now,
        )
        self._met: dict[str, None] = {}
        self._lost: dict[str, None] = {}
        """Addresses that could not be reached, and from where nothing was heard since."""
        self._heard_again: dict[str, None] = {}
        self.roster = Roster(self._context, on_member_met=self._on_member_met)
        self.dissemination = Dissemination(self._context)
        self.beginning = Beginning(self._context, now=now)
        self._handover = Handover(self._context, self.beginning)
        self.anti_entropy = AntiEntropy(
            self._context, self.dissemination, self.beginning, table_hash=self.roster.table_hash
        )
        self.upkeep = Upkeep(
            self._context,
            dissemination=self.dissemination,
            anti_entropy=self.anti_entropy,
            beginning=self.beginning,
            news=self.roster.news,
            now=now,
        )
        self._volatile: deque[tuple[str, str, bytes]] = deque()
        self.is_written_off: Callable[[MemberRecord], bool] = lambda _member: False
        """Whether an operator has said that a member does not come back; for `partition`."""
        self._timer_handlers = self._make_timer_handlers()
        self._message_handlers = self._make_message_handlers()
        self.roster.start(now)
        self.anti_entropy.start(now)

    def _make_timer_handlers(self) -> dict[str, Callable[[Timer, float], Any]]:
        roster, detector = self.roster, self.roster.detector
        repair, spread = self.anti_entropy, self.dissemination
        transfer, dialler = repair.transfer, roster.dialler
        return {
            "probe": lambda _, now: detector.on_probe_timer(now),
            "probe_direct": lambda timer, now: detector.on_direct_timer(timer.token, now),
            "probe_final": lambda timer, now: detector.on_final_timer(timer.token, now),
            "relay": lambda timer, now: detector.on_relay_timer(timer.token, now),
            "suspicion": lambda t, now: detector.on_suspicion_timer(t.key, t.token, now),
            "join": lambda _, now: dialler.on_join_timer(now),
            "heal": lambda _, now: dialler.on_heal_timer(now),
            "claim": lambda timer, now: roster.on_claim_timer(timer.key, timer.token, now),
            "gossip": lambda _, now: roster.news.on_gossip_timer(now),
            "forget": lambda timer, _: self._on_forget_timer(timer),
            "gap": lambda timer, _: spread.on_gap_timer(timer.key),
            "push": lambda _, __: spread.on_push_timer(),
            "acknowledge": lambda timer, _: spread.on_acknowledge_timer(timer.key),
            "begin": lambda _, now: self.beginning.on_begin_timer(now),
            "handover": lambda _, now: self._on_handover_timer(now),
            "tell_ready": lambda _, now: self._on_tell_ready_timer(now),
            "exchange": lambda _, now: repair.on_exchange_timer(now),
            "transfer_in": lambda t, now: transfer.on_transfer_in_timer(t.key, t.token, now),
            "transfer_out": lambda t, now: transfer.on_transfer_out_timer(t.key, t.token, now),
            "maintenance": lambda _, now: self.upkeep.on_maintenance_timer(now),
        }

    def _make_message_handlers(self) -> dict[type, Callable[[Any, FrameHeader, float], Any]]:
        roster, detector, repair = self.roster, self.roster.detector, self.anti_entropy
        transfer = repair.transfer
        return {
            PingRequest: self._on_ping,
            PingResponse: self._on_ping_response,
            IndirectPingRequest: lambda m, h, now: detector.on_indirect_request(m, h.address, now),
            IndirectPingFailed: lambda m, h, now: detector.on_indirect_failed(
                m.sequence, h.name, now
            ),
            JoinRequest: lambda message, _, now: roster.on_join_request(message, now),
            JoinResponse: roster.on_join_response,
            ConflictNotice: lambda message, _, now: roster.on_conflict_notice(message, now),
            MemberUpdates: roster.on_updates,
            EntriesMessage: self._on_entries,
            GapRequest: self._on_gap_request,
            ExchangeRequest: self._on_exchange_request,
            ExchangeEqual: repair.on_exchange_equal,
            VectorExchange: repair.on_vector,
            TransferAvailable: lambda _, header, now: transfer.on_transfer_available(header, now),
            TransferRequest: transfer.on_transfer_request,
            TransferPageMessage: transfer.on_transfer_page,
            TransferNext: transfer.on_transfer_next,
            VolatileMessage: self._on_volatile,
        }

    # What the driver calls

    @property
    def record(self) -> MemberRecord:
        """This node's own record."""
        return self._context.record

    @property
    def counters(self) -> Counters:
        """What happened so far, as numbers that only grow."""
        return self._context.counters

    @property
    def members_revision(self) -> int:
        """Grows with every change of the member table."""
        return self._context.members.revision

    def members(self) -> tuple[MemberRecord, ...]:
        """Return every known member, this node included, sorted by name. O(n)."""
        return tuple(self._context.members)

    def reachable_names(self) -> list[str]:
        """Return the names of the members in reach, this node included, sorted. O(n)."""
        return [member.name for member in self._context.members.reachable()]

    def partition(self) -> PartitionView:
        """Judge whether this node reaches a majority. O(n)."""
        members = self._context.members
        return self._context.detector.judge(
            members, peak_count=members.peak_count, is_written_off=self.is_written_off
        )

    def since(self, name: str) -> float:
        """Return since when (monotonic seconds) a known member is in its status. O(1)."""
        return self._context.members.since(name)

    @property
    def state(self) -> NodeState:
        """What this node is doing, in one word."""
        return self.beginning.state

    def join(self, seeds: Iterable[str], *, now: float, may_find_more: bool = False) -> None:
        """Ask seeds to let this node in, until one does; dial them for ever after.

        A node that is given nobody else is its own cluster, and ready at once.

        Args:
            seeds: addresses, `host:port`; this node's own is skipped.
            now: monotonic seconds.
            may_find_more: whether others may be given later: then a node that is given nobody
                waits for them as it would wait for seeds.
        """
        self._enter(now)
        given = tuple(seeds)
        self.roster.join(given, now)
        self.beginning.start(given, now, may_find_more=may_find_more)

    def restore(self, state: ReplicaState, *, age_s: float, now: float) -> None:
        """Begin with a state that was kept on disk; before `join`, and once.

        One that is older than half the time after which this node is forgotten is taken as
        after a long absence: a peer's state is adopted, and what only this one holds is written
        again.

        Args:
            state: what a replica exported.
            age_s: how long ago, in seconds of the wall clock.
            now: monotonic seconds.

        Raises:
            StateError: something was written or received already. State unchanged.
            RemoteError: a page cannot be read. What was read before stays.
        """
        self._enter(now)
        self._context.replica.import_state(state)
        self.beginning.note_stored(age_s)
        if age_s > self._context.config.forget_after_s / 2:
            self.upkeep.rejoin(now, contact_at=now - age_s)

    def drain(self, *, now: float) -> None:
        """Say that this node is about to leave, and see to it that others have what it has.

        It takes part as before until `leave`, which is to follow once `has_handed_over`, or when
        that takes too long. Idempotent.
        """
        self._enter(now)
        context = self._context
        if context.is_draining or context.is_leaving:
            return
        self.dissemination.publish()
        context.is_draining = True
        self.beginning.drain(now)
        self._handover.start(now)
        for name in context.peer_names() if context.is_full_mesh() else context.neighbours():
            self.anti_entropy.begin(name, now)

    @property
    def has_handed_over(self) -> bool:
        """Whether a node that drains may leave: see `entries/handover.py`. O(members)."""
        return self._handover.is_done()

    def leave(self, *, now: float) -> None:
        """Flush what was written and say goodbye to every peer."""
        self._enter(now)
        if not self._context.is_leaving:
            self.dissemination.publish()
            self.roster.leave(now)

    def receive(self, data: bytes, *, sender: str, now: float) -> None:
        """Take in one frame. Never raises on what a peer sent. O(size).

        Args:
            data: the frame.
            sender: where it came from, for events.
            now: monotonic seconds.
        """
        self._enter(now)
        counters = self._context.counters
        counters.frames_received += 1
        counters.bytes_received += len(data)
        try:
            frame = decode_frame(data, cluster=self._context.cluster)
        except RemoteError as error:
            self.reject(error.reason, sender=sender, size=len(data), detail=str(error))
            return
        header = frame.header
        if header.address in self._lost:
            del self._lost[header.address]
            if len(self._heard_again) < MEMBERS_MAX:
                self._heard_again[header.address] = None
        is_current = self.roster.on_header(header, now)
        if is_current and header.name != self._context.name:
            self.upkeep.note_contact(now)
        readable = [m for m in frame.messages if is_current or isinstance(m, _FROM_ANYONE)]
        for message in readable:
            try:
                self._handle(message, header, now)
            except RemoteError as error:  # a page of a transfer, which is read when it is taken
                self.reject(error.reason, sender=sender, size=len(data), detail=str(error))
        if is_current and header.name != self._context.name:
            self.beginning.hear(header, now)
        if not is_current:
            self.roster.on_past_header(header)
        if not is_current and not readable:
            detail = f"{header.name} in an incarnation that is over"
            self.reject(RejectReason.IDENTITY, sender=sender, size=len(data), detail=detail)

    def _handle(self, message: Message, header: FrameHeader, now: float) -> None:
        self._message_handlers[type(message)](message, header, now)

    def reject(self, reason: RejectReason, *, sender: str, size: int, detail: str) -> None:
        """Count and tell that something a peer sent was dropped, with nothing changed."""
        self._context.counters.frames_rejected += 1
        self._context.emit(PacketRejected(reason=reason, sender=sender, size=size, detail=detail))

    def handle_timer(self, now: float) -> None:
        """Do everything that is due. O(due log timers)."""
        self._enter(now)
        timers = self._context.timers
        while (timer := timers.pop_due(now)) is not None:
            self._timer_handlers[timer.kind](timer, now)

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` is to be called next, in monotonic seconds."""
        return self._context.timers.next_deadline()

    def packets_to_send(self) -> list[Packet]:
        """Return the frames to send, local writes flushed; drains. O(size)."""
        context = self._context
        self._greet()
        self.dissemination.publish()
        header = self.beginning.header()
        if not len(context.outbox):
            return []
        packets = context.outbox.drain(header, bytes_max=context.config.packet_bytes_max)
        context.counters.frames_sent += len(packets)
        context.counters.bytes_sent += sum(len(packet.data) for packet in packets)
        return packets

    def events(self) -> list[Event]:
        """Return what happened since the last call; drains."""
        context = self._context
        for event in context.replica.events():
            self.upkeep.on_replica_event(event, context.now)
        events = list(context.events)
        context.events.clear()
        return events

    def volatile(self) -> list[tuple[str, str, bytes]]:
        """Return received volatile messages as (sender, document, payload); drains."""
        messages = list(self._volatile)
        self._volatile.clear()
        return messages

    def send_volatile(self, name: str, document: str, payload: bytes) -> bool:
        """Send part of a volatile document to one member.

        Returns:
            False when the member is not known or its queue is full.
        """
        return self._context.send_to_member(name, VolatileMessage(document, payload))

    def connection_lost(self, address: str, *, now: float) -> None:
        """Learn that a link broke or a dial was refused: the member is probed at once."""
        self._enter(now)
        if len(self._lost) >= MEMBERS_MAX:
            del self._lost[next(iter(self._lost))]
        self._lost[address] = None
        if not self._context.is_leaving:
            self.roster.detector.on_connection_lost(address, now)

    def heard_again(self) -> list[str]:
        """Return the addresses that could not be reached, and from where a frame came; drains."""
        addresses, self._heard_again = self._heard_again, {}
        return list(addresses)

    def link_state(self, address: str, *, is_busy: bool, now: float) -> None:
        """Learn that a link has more to carry than it takes, or is free again."""
        self._enter(now)
        for name in self.dissemination.on_link_state(address, is_busy=is_busy):
            self.anti_entropy.begin(name, now)

    # Inside

    def _enter(self, now: float) -> None:
        """Note the time; a timer that is far too late means that this process was stopped."""
        self._context.now = max(self._context.now, now)
        deadline = self._context.timers.next_deadline()
        late_s = 0.0 if deadline is None else now - deadline
        if late_s > self._context.config.pause_threshold_s:
            self.roster.on_pause(late_s, now)
            self.beginning.on_pause(now)
            # Whatever is overdue now is done by the timer that follows, without accusing.
            while (timer := self._context.timers.pop_due(now)) is not None:
                self._timer_handlers[timer.kind](timer, now)

    def _on_member_met(self, name: str, _now: float) -> None:
        self.dissemination.forget(name)
        self.anti_entropy.forget(name)
        self.beginning.on_member_met(name)
        self._met[name] = None

    def _greet(self) -> None:
        """Begin an exchange with those who have just come into reach.

        In a sparse graph with the neighbours among them, or with one: when a thousand meet a
        thousand, each of them would have a thousand exchanges otherwise.
        """
        if not self._met:
            return
        context = self._context
        met, self._met = list(self._met), {}
        if not context.is_full_mesh():
            neighbours = set(context.neighbours())
            met = [name for name in met if name in neighbours] or met[:1]
        for name in met:
            self.anti_entropy.begin(name, context.now)

    def _on_forget_timer(self, timer: Timer) -> None:
        self.roster.on_forget_timer(timer.key, timer.token)
        if self._context.members.get(timer.key) is None:
            self.dissemination.forget(timer.key)
            self.anti_entropy.forget(timer.key)
            self.beginning.forget(timer.key)

    def _on_handover_timer(self, now: float) -> None:
        """Ask again who has what this node is to leave behind."""
        for name in self._handover.on_timer(now):
            self.anti_entropy.begin(name, now)

    def _on_tell_ready_timer(self, now: float) -> None:
        """Let those know who wait for somebody ready."""
        for name in self.beginning.waiting_peers():
            self.anti_entropy.begin(name, now)

    def _on_ping(self, message: PingRequest, header: FrameHeader, now: float) -> None:
        if message.sender.name == header.name != self._context.name:
            self.roster.on_ping_from(message.sender, header.address, now)
        self.roster.detector.on_ping(message, header.address)

    def _on_ping_response(self, message: PingResponse, header: FrameHeader, now: float) -> None:
        self.roster.on_claim_answered(message.sequence, header, now)
        self.roster.detector.on_ping_response(message.sequence, header.name, now)

    def _on_entries(self, message: EntriesMessage, header: FrameHeader, now: float) -> None:
        self.dissemination.on_entries(message, header, now)
        self.beginning.check_goal(now)

    def _on_gap_request(self, message: GapRequest, header: FrameHeader, now: float) -> None:
        if not self.dissemination.on_gap_request(message, header):
            self.anti_entropy.begin(header.name, now)

    def _on_exchange_request(
        self, message: ExchangeRequest, header: FrameHeader, now: float
    ) -> None:
        self.roster.compare_table(message.table_hash, header.address, now)
        self.anti_entropy.on_exchange_request(message, header, now)

    def _on_volatile(self, message: VolatileMessage, header: FrameHeader, _now: float) -> None:
        if len(self._volatile) < EVENTS_QUEUED_MAX:
            self._volatile.append((header.name, message.document, message.payload))

    def _check(self) -> None:
        """Assert the invariants of everything inside."""
        self.roster._check()  # noqa: SLF001 - invariants reach inside on purpose
        self.beginning._check()  # noqa: SLF001 - likewise
        self._context.replica._check()  # noqa: SLF001 - likewise
