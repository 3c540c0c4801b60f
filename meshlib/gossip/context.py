"""What the parts of one engine share: identity, members, timers, what is to be sent and told.

Rule: timers are values. A part sets one with a key and a token; when it fires the part looks
whether the token still means something. Nothing is ever cancelled.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, evolve, field, frozen

from meshlib.gossip.config import GossipConfig
from meshlib.gossip.events import Event, MessageUnsendable
from meshlib.gossip.messages.frames import FrameHeader, FrameWriter
from meshlib.gossip.messages.kinds import Message, encode_message
from meshlib.identity import ActorId
from meshlib.limits import EVENTS_QUEUED_MAX, PEER_QUEUE_BYTES_MAX
from meshlib.membership import (
    MemberRecord,
    MemberTable,
    PartitionDetector,
    TopologyManager,
    next_version,
)
from meshlib.replication import Replica, StabilityTracker

__all__ = ["Context", "Counters", "Outbox", "Packet", "Timer", "TimerQueue"]


@frozen(slots=True)
class Packet:
    """A frame and where it goes."""

    destination: str
    data: bytes


@frozen(slots=True)
class Timer:
    """One deadline.

    Args:
        kind: what is due; the engine's table of handlers is keyed by it.
        key: what it is due for: a name, a session; empty when there is only one.
        token: what it was set for; a stale one is ignored by its handler.
    """

    kind: str
    key: str = ""
    token: int = 0


class TimerQueue:
    """Deadlines in order. Push and pop O(log n)."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due: float, timer: Timer) -> None:
        """Let a timer fire at `due` (monotonic seconds)."""
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, timer))

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, or None."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Timer | None:
        """Return the next timer that is due, or None."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None


class Outbox:
    """Messages that wait for the driver, by destination; bounded for each."""

    __slots__ = ("_bytes", "_waiting", "dropped_count", "on_unsendable")

    def __init__(self) -> None:
        self.on_unsendable: Callable[[str, int], None] | None = None
        """Called with the destination and the bytes of a message that fits no frame."""
        self._waiting: dict[str, list[bytes]] = {}
        self._bytes: dict[str, int] = {}
        self.dropped_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, address: str, data: bytes) -> bool:
        """Queue one packed message. O(1).

        Returns:
            False when the destination's queue is full: the message was dropped and counted;
            anti-entropy repairs what it carried.
        """
        size = self._bytes.get(address, 0) + len(data)
        if size > PEER_QUEUE_BYTES_MAX:
            self.dropped_count += 1
            return False
        self._bytes[address] = size
        self._waiting.setdefault(address, []).append(data)
        return True

    def drain(self, header: FrameHeader, *, bytes_max: int) -> list[Packet]:
        """Pack everything that waits into frames. O(size)."""
        packets: list[Packet] = []
        for address, messages in self._waiting.items():
            writer = FrameWriter(header, bytes_max=bytes_max)
            for message in messages:
                if not writer.add(message):
                    self.dropped_count += 1
                    if self.on_unsendable is not None:
                        self.on_unsendable(address, len(message))
            packets += (Packet(address, frame) for frame in writer.frames())
        self._waiting = {}
        self._bytes = {}
        return packets


@define(slots=True)
class Counters:
    """What happened, as plain numbers for metrics. Each only grows."""

    frames_received: int = 0
    frames_rejected: int = 0
    frames_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    probes_sent: int = 0
    probes_failed: int = 0
    indirect_probes_saved: int = 0
    suspicions_raised: int = 0
    refutations: int = 0
    local_pauses: int = 0
    exchanges_started: int = 0
    exchanges_equal: int = 0
    gaps_requested: int = 0
    transfers_sent: int = 0
    transfers_received: int = 0
    entries_sent: int = 0
    entries_repeated: int = 0
    entries_received: int = 0
    events_dropped: int = 0
    messages_unsendable: int = 0


@define(slots=True, kw_only=True)
class Context:
    """The state that the parts of one engine share.

    Args:
        cluster: the cluster's name.
        config: the settings.
        rng: all chance of this engine.
        replica: the replicated documents.
        tracker: the peers' vectors.
        record: this node's own record; the one place where its identity is kept.
        now: monotonic seconds, as the driver gave them last.
        is_draining: whether this node is about to leave, and still takes part.
        is_leaving: whether it has said goodbye.
        is_ready_told: whether it was ready after its frames were packed last.
        stored_at_ms: of when the state is that it began with; see `FrameHeader`.
    """

    cluster: str
    config: GossipConfig
    rng: random.Random
    replica: Replica
    tracker: StabilityTracker
    record: MemberRecord
    topology: TopologyManager
    now: float = 0.0
    members: MemberTable = field(factory=MemberTable)
    detector: PartitionDetector = field(factory=PartitionDetector)
    timers: TimerQueue = field(factory=TimerQueue)
    outbox: Outbox = field(factory=Outbox)
    events: deque[Event] = field(factory=deque)
    counters: Counters = field(factory=Counters)
    is_draining: bool = False
    is_leaving: bool = False
    is_ready_told: bool = False
    stored_at_ms: int = 0
    _peers: tuple[MemberRecord, ...] = ()
    _peers_revision: int = -1
    _peer_names: tuple[str, ...] = ()
    _names_revision: int = -1

    def __attrs_post_init__(self) -> None:
        """Hear of messages that cannot be sent."""
        self.outbox.on_unsendable = self._note_unsendable

    @property
    def name(self) -> str:
        """This node's name."""
        return self.record.name

    @property
    def actor(self) -> ActorId:
        """The writer that this node is."""
        return self.record.actor

    def emit(self, event: Event) -> None:
        """Tell the driver. The oldest event goes, counted, when nobody drains them."""
        if len(self.events) >= EVENTS_QUEUED_MAX:
            self.events.popleft()
            self.counters.events_dropped += 1
        self.events.append(event)

    def _note_unsendable(self, destination: str, size: int) -> None:
        """Count and tell: what the message carried will not arrive by trying again."""
        self.counters.messages_unsendable += 1
        self.emit(MessageUnsendable(destination=destination, size=size))

    def send(self, address: str, message: Message) -> bool:
        """Queue one message for an address. O(size)."""
        return self.outbox.put(address, encode_message(message))

    def send_to_all(self, addresses: Iterable[str], message: Message) -> list[str]:
        """Queue one message for several addresses, packed once. O(size + addresses).

        Returns:
            The addresses whose queues are full.
        """
        data = encode_message(message)
        return [address for address in addresses if not self.outbox.put(address, data)]

    def send_to_member(self, name: str, message: Message) -> bool:
        """Queue one message for a member; False when it is not known or its queue is full."""
        member = self.members.get(name)
        if member is None or name == self.name:
            return False
        return self.send(member.address, message)

    def header(self) -> FrameHeader:
        """Return the header of this node's frames."""
        record = self.record
        return FrameHeader(
            self.cluster,
            record.name,
            record.incarnation,
            record.actor,
            record.address,
            is_leaving=self.is_draining or self.is_leaving,
            stored_at_ms=self.stored_at_ms,
        )

    def jittered(self, duration_s: float) -> float:
        """Return a time around `duration_s`, a quarter more or less, so that nodes fall apart."""
        return duration_s * (0.75 + 0.5 * self.rng.random())

    def peers(self) -> tuple[MemberRecord, ...]:
        """Return the members in reach but this one, sorted by name. O(n) after a change."""
        members = self.members
        if self._peers_revision != members.revision:
            name = self.name
            self._peers = tuple(m for m in members.reachable() if m.name != name)
            self._peers_revision = members.revision
        return self._peers

    def peer_names(self) -> tuple[str, ...]:
        """Return the names of `peers()`, the same tuple until one comes or goes."""
        members = self.members
        if self._names_revision != members.reachable_revision:
            self._peer_names = tuple(member.name for member in self.peers())
            self._names_revision = members.reachable_revision
        return self._peer_names

    def reachable_count(self) -> int:
        """Return how many members are in reach, this node included. O(1)."""
        return self.members.reachable_count

    def is_full_mesh(self) -> bool:
        """Tell whether all members talk to all. O(1)."""
        return self.topology.is_full_mesh(self.members.reachable_count)

    def neighbours(self) -> tuple[str, ...]:
        """Return the names this node exchanges state with, sorted."""
        members = self.members
        return self.topology.neighbours(members.reachable(), revision=members.reachable_revision)

    def push_targets(self) -> tuple[str, ...]:
        """Return the names this node sends new entries to, sorted."""
        members = self.members
        return self.topology.push_targets(
            members.reachable(),
            revision=members.reachable_revision,
            fanout=self.config.gossip_fanout,
        )

    def update_own_record(self, **changes: object) -> MemberRecord:
        """Change this node's own record, count the change, and keep it in the table."""
        known = self.members.get(self.name)
        version = max(self.record.version, known.version if known else 0)
        self.record = evolve(self.record, version=next_version(version), **changes)  # type: ignore[arg-type]
        return self.record
