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
from collections.abc import Iterable, Mapping, Sequence

from meshlib.errors import RejectReason, RemoteError, VersionMismatch
from meshlib.gossip.clock_offsets import ClockOffset
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.dispatch import FROM_ANYONE, OF_ENTRIES, Dispatch, without_repeats
from meshlib.gossip.entries.beginning import NodeState, SyncProgress
from meshlib.gossip.events import Event, FormatChanged, PacketRejected
from meshlib.gossip.members.links import LinkEnd
from meshlib.gossip.messages.frames import decode_frame
from meshlib.gossip.messages.kinds import VolatileMessage
from meshlib.gossip.outbox import Packet
from meshlib.gossip.parts import Parts
from meshlib.gossip.reports import Counters
from meshlib.invariants import Inspectable
from meshlib.limits import FRAME_CLOSED_BYTES
from meshlib.membership import MemberRecord, MemberSet, PartitionView, TopologyManager
from meshlib.replication import Replica, ReplicaState, StabilityTracker

__all__ = ["Engine"]


class Engine:
    """Membership and replication of one node, without IO.

    Args:
        cluster: the cluster's name: frames of another are refused.
        record: this node's own record.
        config: the settings.
        replica: the documents.
        tracker: keeps the peers' vectors.
        topology: who talks to whom.
        written_off: of whom an operator has said that they do not come back.
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
        written_off: MemberSet = (),
        rng: random.Random,
        now: float,
    ) -> None:
        self._cluster = cluster
        self._config = config
        self._written_off = written_off
        self._parts = Parts(
            cluster=cluster,
            record=record,
            config=config,
            replica=replica,
            tracker=tracker,
            topology=topology,
            written_off=written_off,
            rng=rng,
            now=now,
        )
        self._dispatch = Dispatch(self._parts)
        self._inspected: tuple[Mapping[str, Inspectable], Mapping[str, Inspectable]] | None = None
        self._message_handlers = self._dispatch.message_handlers

    # What the driver calls

    @property
    def record(self) -> MemberRecord:
        """This node's own record."""
        return self._parts.view.record

    @property
    def counters(self) -> Counters:
        """What happened so far, as numbers that only grow."""
        return self._parts.counters

    @property
    def members_revision(self) -> int:
        """Grows with every change of the member table, and of who counts."""
        parts = self._parts
        return parts.view.members.revision + parts.electorate.revision + parts.told.revision

    @property
    def standing(self) -> tuple[int, bool, NodeState]:
        """The members' revision, whether it is ready, and its state: what others decide by."""
        beginning = self._parts.beginning
        return self.members_revision, beginning.is_ready, beginning.state

    def members(self) -> tuple[MemberRecord, ...]:
        """Return every known member, this node included, sorted by name. O(n)."""
        return tuple(self._parts.view.members)

    def reachable_names(self) -> list[str]:
        """Return the names of the members in reach, this node included, sorted. O(n)."""
        return [member.name for member in self._parts.view.members.reachable()]

    def partition(self) -> PartitionView:
        """Judge whether this node reaches a majority. O(n)."""
        return self._parts.electorate.judge()

    def unmet_seeds(self) -> tuple[str, ...]:
        """Return the addresses of seeds where nobody was ever met. O(members)."""
        return self._parts.told.unmet()

    def counted_members(self) -> tuple[MemberRecord, ...]:
        """Return who counts beside this node, to be kept for its next start. O(n)."""
        counted = self._parts.electorate.counted()
        return tuple(member for member in counted if member.name != self.record.name)

    def since(self, name: str) -> float:
        """Return since when (monotonic seconds) a known member is in its status. O(1)."""
        return self._parts.view.members.since(name)

    @property
    def state(self) -> NodeState:
        """What this node is doing, in one word."""
        return self._parts.beginning.state

    def state_problem(self) -> str:
        """Say in one line why the state is not `ready`; empty when it is. O(members)."""
        return self._parts.beginning.problem()

    def progress(self) -> SyncProgress | None:
        """Return how much is in of what this node waits for; None unless it is `syncing`."""
        return self._parts.beginning.progress()

    @property
    def is_ready(self) -> bool:
        """Whether this node holds what a ready peer held when they met, or has begun itself."""
        return self._parts.beginning.is_ready

    def clock_offsets(self, now: float) -> Sequence[ClockOffset]:
        """Return how far the clocks of the members in reach are from this node's. O(members)."""
        return self._parts.offsets.of_peers(now)

    def round_trips_s(self) -> Mapping[str, float]:
        """Return how long members take to answer a probe, in seconds, by name. O(1)."""
        return self._parts.offsets.round_trips_s()

    def is_listening(self, now: float) -> bool:
        """Tell whether this node began with nobody, and waits for members that may know it."""
        return self._parts.beginning.is_listening(now)

    def is_comparing_clocks(self, now: float) -> bool:
        """Tell whether peers that were met are about to say how this node's clock stands."""
        return self._parts.beginning.is_comparing_clocks(now)

    def is_about_to_compare(self, now: float) -> bool:
        """Tell the same, or whether seeds were just asked who may say it."""
        return self._parts.beginning.is_about_to_compare(now)

    @property
    def has_joined(self) -> bool:
        """Whether a peer was met, or there is none to meet."""
        return self._parts.roster.has_joined

    @property
    def format_spoken(self) -> int:
        """The newest format that this node and all members speak."""
        return self._parts.speech.spoken

    def refused_releases(self, now: float) -> list[str]:
        """Say who was refused of late for its formats, in one line each."""
        return self._parts.speech.problems(now)

    def agree_on_format(self) -> None:
        """Speak what all members speak by now, and tell when that has changed. Mostly O(1)."""
        parts = self._parts
        before = parts.speech.look(
            parts.view.members,
            is_ready=parts.beginning.is_ready,
            is_written_off=self._written_off.__contains__,
            now=parts.timers.now,
        )
        if before is not None:
            parts.events.emit(FormatChanged(before=before, spoken=parts.speech.spoken))

    def diverged_from(self) -> list[str]:
        """Return the members whose content differed at equal vectors, sorted. O(n log n)."""
        return sorted(self._parts.anti_entropy.diverged_from)

    def request_acknowledgements(self, *, is_wanted: bool) -> None:
        """Ask peers to acknowledge entries at once instead of with the next exchange."""
        self._parts.dissemination.wants_acknowledgement = is_wanted

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
        self._parts.told.tell(given, own=self.record.address, may_find_more=may_find_more)
        self._parts.admission.join(given, now)
        self._parts.beginning.start(given, now, may_find_more=may_find_more)

    def restore(
        self,
        state: ReplicaState,
        *,
        age_s: float,
        now: float,
        members: Iterable[MemberRecord] = (),
    ) -> None:
        """Begin with a state that was kept on disk; before `join`, and once.

        One that is older than half the time after which this node is forgotten is taken as
        after a long absence: a peer's state is adopted, and what only this one holds is written
        again.

        Args:
            state: what a replica exported.
            age_s: how long ago, in seconds of the wall clock.
            now: monotonic seconds.
            members: what `counted_members` returned then: they are out of reach until heard of.

        Raises:
            StateError: something was written or received already. State unchanged.
            RemoteError: a page cannot be read. What was read before stays.
        """
        self._enter(now)
        self._parts.replica.import_state(state)
        others = [member for member in members if member.name != self.record.name]
        if others:
            self._parts.roster.recall(others, now)
            self._parts.beginning.note_others()
        self._parts.beginning.note_stored(age_s)
        if age_s > self._config.forget_after_s / 2:
            self._parts.upkeep.rejoin(now, contact_at=now - age_s)

    def drain(self, *, now: float) -> None:
        """Say that this node is about to leave, and see to it that others have what it has.

        It takes part as before until `leave`, which is to follow once `has_handed_over`, or when
        that takes too long. Idempotent.
        """
        self._enter(now)
        parts = self._parts
        if parts.view.is_draining or parts.view.is_leaving:
            return
        parts.early.release(now)
        parts.dissemination.publish()
        parts.view.is_draining = True
        parts.beginning.drain(now)
        parts.handover.start(now)

    @property
    def has_handed_over(self) -> bool:
        """Whether a node that drains may leave: see `entries/handover.py`. O(members)."""
        return self._parts.handover.is_done()

    def leave(self, *, now: float) -> None:
        """Flush what was written and say goodbye to every peer."""
        self._enter(now)
        if not self._parts.view.is_leaving:
            self._parts.early.release(now)
            self._parts.dissemination.publish()
            self._parts.own.leave(now)

    def receive(self, data: bytes, *, sender: str, now: float) -> None:
        """Take in one frame. Never raises on what a peer sent. O(size).

        Args:
            data: the frame.
            sender: where it came from, for events.
            now: monotonic seconds.
        """
        self._enter(now)
        parts = self._parts
        counters, speech, early = parts.counters, parts.speech, parts.early
        counters.frames_received += 1
        counters.bytes_received += len(data)
        try:
            frame = decode_frame(data, cluster=self._cluster, formats=speech.formats)
        except RemoteError as error:
            told = error.peer_formats if isinstance(error, VersionMismatch) else None
            if told is not None and not speech.shares(told):
                speech.refuse(sender, told, now)
            self.reject(error.reason, sender=sender, size=len(data), detail=str(error))
            return
        header, messages = frame.header, frame.messages
        parts.lost.note_heard(header.address)
        counters.messages_skipped += frame.skipped_count
        is_current = parts.roster.on_header(header, now)
        if speech.has_choice:
            speech.hear(header.address, frame.formats, is_current=is_current)
        is_peer = is_current and header.name != parts.view.name
        if is_peer:
            parts.upkeep.note_contact(now)
        if not is_current:
            messages = tuple(m for m in messages if isinstance(m, FROM_ANYONE))
        for message in without_repeats(messages):
            if not early.is_over and isinstance(message, OF_ENTRIES) and early.settle(now):
                continue  # as if it had been lost: the exchanges that follow make it good
            try:
                self._message_handlers[type(message)](message, header, now)
            except RemoteError as error:  # a page of a transfer, which is read when it is taken
                self.reject(error.reason, sender=sender, size=len(data), detail=str(error))
        if is_peer and parts.beginning.hear(header, now):
            parts.dialler.greet(header.address, now)
        if not is_current:
            parts.roster.on_past_header(header)
            if not messages:
                detail = f"{header.name} in an incarnation that is over"
                self.reject(RejectReason.IDENTITY, sender=sender, size=len(data), detail=detail)

    def reject(self, reason: RejectReason, *, sender: str, size: int, detail: str) -> None:
        """Count and tell that something a peer sent was dropped, with nothing changed."""
        self._parts.counters.frames_rejected += 1
        self._parts.events.emit(
            PacketRejected(reason=reason, sender=sender, size=size, detail=detail)
        )

    def handle_timer(self, now: float) -> None:
        """Do everything that is due. O(due log timers)."""
        self._enter(now)
        if not self._parts.early.is_over:
            self._parts.early.note_time(now)
        self._dispatch.run_due(now)

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` is to be called next, in monotonic seconds."""
        return self._parts.timers.next_deadline()

    def packets_to_send(self) -> list[Packet]:
        """Return the frames to send, local writes flushed; drains. O(size)."""
        parts = self._parts
        now = parts.timers.now
        met = parts.acquaintances.just_met()
        if met:
            parts.anti_entropy.greet(met, now)
            parts.detector.compare_clocks(met, now)
        is_held = not parts.early.is_over and parts.early.settle(now)
        if (renewed := parts.early.take_renewed()) is not None:
            parts.news.spread(renewed, now)
        if parts.early.take_released():
            parts.anti_entropy.greet(parts.view.peer_names(), now)
        if is_held:
            parts.replica.flush()  # into the log, which keeps its limit; the exchanges bring it
        else:
            parts.dissemination.publish()
        header = parts.beginning.header()
        if not len(parts.outbox):
            return []
        bytes_max = min(self._config.packet_bytes_max, FRAME_CLOSED_BYTES)
        packets = parts.outbox.drain(header, bytes_max=bytes_max)
        parts.counters.frames_sent += len(packets)
        parts.counters.bytes_sent += sum([len(packet.data) for packet in packets])
        return packets

    def events(self) -> list[Event]:
        """Return what happened since the last call; drains."""
        parts = self._parts
        for event in parts.replica.events():
            parts.upkeep.on_replica_event(event, parts.timers.now)
        return parts.events.drain()

    def volatile(self) -> list[tuple[str, str, bytes]]:
        """Return received volatile messages as (sender, document, payload); drains."""
        return self._dispatch.volatile()

    def send_volatile(self, name: str, document: str, payload: bytes) -> bool:
        """Send part of a volatile document to one member.

        Returns:
            False when the member is not known or its queue is full.
        """
        return self._parts.outbox.send_to_member(name, VolatileMessage(document, payload))

    def connection_lost(self, address: str, *, now: float, end: LinkEnd = LinkEnd.BROKEN) -> None:
        """Learn that a link broke or could not be made: the member is probed at once.

        Args:
            address: the peer's.
            now: monotonic seconds.
            end: what is known of why.
        """
        self._enter(now)
        self._parts.lost.note_lost(address)
        self._parts.speech.doubt(address)
        if end is LinkEnd.DENIED:
            self._parts.beginning.deny(now)
        if not self._parts.view.is_leaving:
            is_refused = end is LinkEnd.REFUSED
            self._parts.roster.on_connection_lost(address, now, is_refused=is_refused)

    def heard_again(self) -> list[str]:
        """Return the addresses that could not be reached, and from where a frame came; drains."""
        return self._parts.lost.heard_again()

    def link_state(self, address: str, *, is_busy: bool, now: float) -> None:
        """Learn that a link has more to carry than it takes, or is free again."""
        self._enter(now)
        for name in self._parts.dissemination.on_link_state(address, is_busy=is_busy):
            self._parts.anti_entropy.begin(name, now)

    def excuse_all(self, now: float) -> None:
        """Hold nobody's silence until now against them: what carries all frames was gone.

        Probes under way are dropped, and suspicions start anew. O(suspicions log timers).

        Args:
            now: monotonic seconds.
        """
        self._enter(now)
        self._parts.roster.excuse_all(now)

    # Inside

    def _enter(self, now: float) -> None:
        """Note the time; a timer that is far too late means that this process was stopped."""
        timers = self._parts.timers
        if now > timers.now:
            timers.now = now
        deadline = timers.next_deadline()
        if deadline is not None and now - deadline > self._config.pause_threshold_s:
            self._parts.roster.on_pause(now - deadline, now)
            self._parts.beginning.on_pause(now)
            # Whatever is overdue now is done by the timer that follows, without accusing.
            self._dispatch.run_due(now)

    def inspectable(self) -> Mapping[str, Inspectable]:
        """Return every part that shows and checks itself, by its name. O(1).

        The same object until the replica has other parts.
        """
        of_replica = self._parts.replica.inspectable()
        known = self._inspected
        if known is None or known[0] is not of_replica:
            found = {**self._parts.inspectable(), **of_replica, "dispatch": self._dispatch}
            known = self._inspected = of_replica, found
        return known[1]
