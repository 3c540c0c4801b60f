"""How new entries spread: at once, one hop in a full mesh, from neighbour to neighbour else.

Rules this file owns:
- An entry is forwarded only by a node to which it was new, and never back to where it came from.
- In a sparse topology a node pushes to a few neighbours only; anti-entropy is what guarantees
  coverage, so the push may stay cheap.
- What a link that is busy cannot take is not queued twice: the peer is marked as behind, and the
  log, which joins what belongs together, is what it is sent from when the link is free again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshlib.gossip.context import Context, Timer
from meshlib.gossip.events import EntryRejected
from meshlib.gossip.messages import ClockExchange, EntriesMessage, GapRequest
from meshlib.gossip.wire import FrameHeader
from meshlib.identity import ActorId
from meshlib.replication import Gap, LogEntry, Received

__all__ = ["Dissemination"]

ENTRY_OVERHEAD_BYTES = 64
"""What an entry needs on the wire beside its delta and its document's name."""

GAP_WAIT_S = 0.05
"""A gap is often closed by a frame that was merely overtaken; after this it is asked for."""

GAP_BYTES_MAX = 1 << 20
"""Entries sent in answer to one request for gaps; the rest is asked for again."""

GAPS_MAX = 1024
"""Gaps that one peer is asked to fill at a time."""


def batches(entries: Iterable[LogEntry], bytes_max: int) -> Iterable[tuple[LogEntry, ...]]:
    """Yield the entries in groups that fit a packet, in order. O(n)."""
    batch: list[LogEntry] = []
    size = 0
    for entry in entries:
        entry_size = len(entry.delta) + len(entry.document) * 4 + ENTRY_OVERHEAD_BYTES
        if batch and size + entry_size > bytes_max:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(entry)
        size += entry_size
    if batch:
        yield tuple(batch)


class Dissemination:
    """Send own entries, forward others', ask for what was skipped.

    Args:
        context: the engine's shared state.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._busy: set[str] = set()
        self._behind: set[str] = set()
        self._gaps: dict[str, dict[ActorId, tuple[int, int]]] = {}
        self.wants_acknowledgement = False

    def publish(self) -> None:
        """Close the open groups of local writes and send them. O(neighbours) frames."""
        entries = self._context.replica.flush()
        if entries:
            self._push(entries, without=())

    def _push(self, entries: Sequence[LogEntry], *, without: Sequence[str]) -> None:
        context = self._context
        messages = [
            EntriesMessage(batch, self.wants_acknowledgement)
            for batch in batches(entries, context.config.packet_bytes_max)
        ]
        for name in self._targets(without):
            if self.is_busy(name):
                self._behind.add(name)
                continue
            for message in messages:
                if not context.send_to_member(name, message):
                    self._behind.add(name)
            context.counters.entries_sent += len(entries)

    def _targets(self, without: Sequence[str]) -> list[str]:
        """Choose whom to push to: all in a full mesh, a few neighbours in a sparse one.

        The few reach almost everybody within a handful of hops at about `gossip_fanout` copies
        for each node; exchanges with the other neighbours bring the rest.
        """
        context = self._context
        names = [name for name in context.neighbours() if name not in without]
        if context.topology.is_full_mesh(context.reachable_count()):
            return names
        return context.rng.sample(names, min(context.config.gossip_fanout, len(names)))

    def is_busy(self, name: str) -> bool:
        """Tell whether the link to a member has more to carry than it takes."""
        member = self._context.members.get(name)
        return member is not None and member.address in self._busy

    def on_link_state(self, address: str, *, is_busy: bool) -> list[str]:
        """Take note of a link's state.

        Returns:
            The members at that address that are behind and can be sent to again.
        """
        if is_busy:
            self._busy.add(address)
            return []
        self._busy.discard(address)
        free = [
            member.name
            for member in self._context.peers()
            if member.address == address and member.name in self._behind
        ]
        self._behind.difference_update(free)
        return free

    def on_entries(self, message: EntriesMessage, header: FrameHeader, now: float) -> None:
        """Absorb entries, forward what was new, and ask for what was skipped."""
        context = self._context
        context.counters.entries_received += len(message.entries)
        received = context.replica.receive(message.entries)
        self.report(received)
        if received.gaps:
            waiting = self._gaps.setdefault(header.name, {})
            if not waiting:
                context.timers.set(now + GAP_WAIT_S, Timer("gap", header.name))
            for gap in received.gaps:
                if len(waiting) < GAPS_MAX:
                    waiting[gap.actor] = (gap.first, gap.last)
        if received.new and not context.topology.is_full_mesh(context.reachable_count()):
            self._push(received.new, without=(header.name,))
        if message.wants_acknowledgement:
            vector = context.replica.version_vector
            actors = {entry.actor for entry in message.entries}
            clock = {actor: vector[actor] for actor in sorted(actors) if actor in vector}
            context.send(header.address, ClockExchange(clock, is_partial=True))

    def report(self, received: Received) -> None:
        """Tell the driver of entries that were refused."""
        for refused in received.rejected:
            entry = refused.entry
            event = EntryRejected(
                document=entry.document,
                actor=entry.actor,
                sequence=entry.first,
                reason=refused.reason,
                detail=refused.detail,
            )
            self._context.emit(event)

    def on_gap_timer(self, name: str) -> None:
        """Ask a member for the gaps that are still open."""
        context = self._context
        vector = context.replica.version_vector
        gaps = tuple(
            (actor, max(first, vector.get(actor, 0) + 1), last)
            for actor, (first, last) in self._gaps.pop(name, {}).items()
            if vector.get(actor, 0) < last
        )
        if gaps:
            context.counters.gaps_requested += len(gaps)
            context.send_to_member(name, GapRequest(gaps))

    def on_gap_request(self, message: GapRequest, header: FrameHeader) -> bool:
        """Send a member the entries it skipped.

        Returns:
            False when some are no longer in the log: the peer needs a whole exchange.
        """
        context = self._context
        entries: list[LogEntry] = []
        is_whole = True
        bytes_left = GAP_BYTES_MAX
        for actor, first, last in message.gaps:
            found = context.replica.entries_between(Gap(actor, first, last), bytes_max=bytes_left)
            is_whole = is_whole and not found.needs_snapshot
            entries += found.entries
            bytes_left -= sum(len(entry.delta) for entry in found.entries)
            if bytes_left <= 0:
                break
        for batch in batches(entries, context.config.packet_bytes_max):
            context.send(header.address, EntriesMessage(batch))
        return is_whole

    def forget(self, name: str) -> None:
        """Drop what is kept about a member."""
        self._behind.discard(name)
        self._gaps.pop(name, None)
