"""How new entries spread: at once, one hop in a full mesh, from neighbour to neighbour else.

Rules this file owns:
- An entry is forwarded only by a node to which it was new, and never back to where it came from.
- In a sparse topology a node pushes along the few links of the push graph, which reach everyone.
- What is not acknowledged is pushed again a few times, from the log. Anti-entropy is what
  guarantees coverage, so the push may stay cheap.
- What a link that is busy cannot take is not queued twice: the peer is marked as behind, and the
  log, which joins what belongs together, is what it is sent from when the link is free again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attrs import define

from meshlib.gossip.config import GossipConfig
from meshlib.gossip.entries.filling import TOLD_ON_BYTES_MIN
from meshlib.gossip.events import EntryRejected
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import EntriesMessage, GapRequest, VectorExchange
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue
from meshlib.gossip.view import MembershipView
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import FRAME_CLOSED_BYTES
from meshlib.replication import Gap, LogEntry, Received, Replica, ShortEntry, StabilityTracker

__all__ = ["Dissemination"]

ENTRY_OVERHEAD_BYTES = 64
"""What an entry needs on the wire beside its delta and its document's name."""

HOLE_BYTES = 24
"""What a hole in an entry needs on the wire."""

GAP_WAIT_S = 0.05
"""A gap is often closed by a frame that was merely overtaken; after this it is asked for."""

GAP_BYTES_MAX = 1 << 20
"""Entries sent in answer to one request for gaps; the rest is asked for again."""

GAPS_MAX = 1024
"""Gaps that one peer is asked to fill at a time."""

PUSH_WAITS = (0, 0, 1, 3, 7)
"""How many looks are passed over before entries are pushed again, the first time and so on: soon
while it is a lost packet, and less and less often when the peer is busy or gone. With half of all
packets lost, all six go astray for one in 64; an exchange brings those."""

PUSH_INTERVALS = 0.5
"""What is pushed has one to two of this many gossip intervals to be acknowledged."""

ACKNOWLEDGE_WAIT_S = 0.02
"""An acknowledgement waits so long for others that go to the same peer."""


@define(slots=True)
class _Pushed:
    """Entries of one writer that a peer has not acknowledged: a range of their numbers."""

    first: int
    last: int
    push_count: int = 0
    wait: int = PUSH_WAITS[0]


Unacknowledged = dict[str, dict[ActorId, _Pushed]]
"""By the name of the peer."""


def batches(
    entries: Iterable[LogEntry | ShortEntry], bytes_max: int
) -> Iterable[tuple[LogEntry | ShortEntry, ...]]:
    """Yield the entries in groups that fit a frame, in order; one too large goes alone. O(n)."""
    bytes_max = min(bytes_max, FRAME_CLOSED_BYTES)
    batch: list[LogEntry | ShortEntry] = []
    size = 0
    for entry in entries:
        if isinstance(entry, LogEntry):
            entry_size = len(entry.delta)
        else:
            entry_size = len(entry.rest) + HOLE_BYTES * len(entry.holes)
        entry_size += len(entry.document) * 4 + ENTRY_OVERHEAD_BYTES
        if batch and size + entry_size > bytes_max:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(entry)
        size += entry_size
    if batch:
        yield tuple(batch)


def _is_much(entries: Sequence[LogEntry]) -> bool:
    return sum(len(entry.delta) + ENTRY_OVERHEAD_BYTES for entry in entries) >= TOLD_ON_BYTES_MIN


class Dissemination:
    """Send own entries, forward others', ask for what was skipped.

    Args:
        config: the settings.
        replica: has the entries.
        tracker: knows what the peers have.
        view: knows whom to push to.
        timers: let it push, ask and acknowledge again.
        outbox: takes the entries.
        events: hears of entries that were refused.
        counters: counts entries.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        replica: Replica,
        tracker: StabilityTracker,
        view: MembershipView,
        timers: TimerQueue,
        outbox: Outbox,
        events: EventQueue,
        counters: Counters,
    ) -> None:
        self._config = config
        self._replica = replica
        self._tracker = tracker
        self._view = view
        self._timers = timers
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._busy: set[str] = set()
        self._behind: set[str] = set()
        self._gaps: dict[str, dict[ActorId, tuple[int, int]]] = {}
        self._pushed: Unacknowledged = {}
        self._overdue: Unacknowledged = {}
        self._is_push_armed = False
        self._owed: dict[str, dict[ActorId, None]] = {}
        self.wants_acknowledgement = False

    def publish(self) -> None:
        """Close the open groups of local writes and send them. O(neighbours) frames."""
        entries = self._replica.flush()
        if entries:
            self._push(entries, without=())

    def _push(self, entries: Sequence[LogEntry], *, without: Sequence[str]) -> None:
        free: list[str] = []
        for name in self._view.push_targets():
            if self.is_busy(name):
                self._behind.add(name)
            elif name not in without and not self._is_known_to_have(name, entries):
                free.append(name)
        addresses = {
            member.address: member.name
            for member in map(self._view.members.get, free)
            if member is not None
        }
        shortest = map(self._replica.shortest, entries)
        for batch in batches(shortest, self._config.packet_bytes_max):
            message = EntriesMessage(batch, self.wants_acknowledgement, is_pushed=True)
            full = self._outbox.send_to_all(addresses, message)
            self._behind.update(addresses[address] for address in full)
        self._counters.entries_sent += len(entries) * len(free)
        for name in free:
            self._expect(name, entries)

    def _is_known_to_have(self, name: str, entries: Sequence[LogEntry]) -> bool:
        """Tell whether a peer has said itself that it has all of them."""
        vector = self._tracker.vector(name)
        return vector is not None and all(
            entry.last <= vector.get(entry.actor, 0) for entry in entries
        )

    # Pushing again what was lost

    def _expect(self, name: str, entries: Sequence[LogEntry]) -> None:
        """Take note of what a peer has to acknowledge."""
        waiting = self._pushed.setdefault(name, {})
        for entry in entries:
            pushed = waiting.get(entry.actor)
            if pushed is None:
                waiting[entry.actor] = _Pushed(entry.first, entry.last)
            else:
                pushed.first = min(pushed.first, entry.first)
                pushed.last = max(pushed.last, entry.last)
        self._arm_push()

    def _arm_push(self) -> None:
        if not self._is_push_armed:
            self._is_push_armed = True
            wait_s = PUSH_INTERVALS * self._config.gossip_interval_s
            self._timers.set(self._timers.now + wait_s, Timer(TimerKind.PUSH))

    def on_push_timer(self, _timer: Timer, _now: float) -> None:
        """Push again what was pushed before the last interval and is not acknowledged yet."""
        self._is_push_armed = False
        again: Unacknowledged = {}
        targets = set(self._view.push_targets())
        for name, waiting in self._overdue.items():
            if name in targets and not self.is_busy(name):
                left = self._push_again(name, waiting)
                if left:
                    again[name] = left
        for name, waiting in self._pushed.items():
            overdue = again.setdefault(name, {})
            for actor, pushed in waiting.items():
                former = overdue.get(actor)
                if former is not None:
                    # What is new has to wait with the old, or a peer that cannot take it would
                    # be sent all of it again at every look.
                    pushed.first = min(pushed.first, former.first)
                    pushed.push_count, pushed.wait = former.push_count, former.wait
                overdue[actor] = pushed
        self._overdue, self._pushed = again, {}
        if again:
            self._arm_push()

    def _push_again(self, name: str, waiting: Mapping[ActorId, _Pushed]) -> dict[ActorId, _Pushed]:
        """Push to one peer what it has not acknowledged; return what is to be looked at again."""
        vector = self._tracker.vector(name) or {}
        left: dict[ActorId, _Pushed] = {}
        entries: list[LogEntry] = []
        bytes_left = GAP_BYTES_MAX
        for actor, pushed in waiting.items():
            first = max(pushed.first, vector.get(actor, 0) + 1)
            if first > pushed.last or pushed.push_count == len(PUSH_WAITS):
                continue
            if pushed.wait or bytes_left <= 0:
                pushed.wait = max(0, pushed.wait - 1)
                left[actor] = pushed
                continue
            gap = Gap(actor, first, pushed.last)
            found = self._replica.entries_between(gap, bytes_max=bytes_left)
            if found.entries:
                entries += found.entries
                bytes_left -= sum(len(entry.delta) for entry in found.entries)
                count = pushed.push_count + 1
                wait = PUSH_WAITS[count] if count < len(PUSH_WAITS) else 0
                left[actor] = _Pushed(first, pushed.last, count, wait)
        for batch in batches(entries, self._config.packet_bytes_max):
            self._outbox.send_to_member(name, EntriesMessage(batch, is_pushed=True))
        self._counters.entries_sent += len(entries)
        self._counters.entries_repeated += len(entries)
        return left

    def _owe(self, address: str, entries: Sequence[LogEntry | ShortEntry]) -> None:
        """Remember to acknowledge entries soon."""
        owed = self._owed.get(address)
        if owed is None:
            owed = self._owed[address] = {}
            self._timers.set(
                self._timers.now + ACKNOWLEDGE_WAIT_S, Timer(TimerKind.ACKNOWLEDGE, address)
            )
        for entry in entries:
            owed[entry.actor] = None

    def on_acknowledge_timer(self, timer: Timer, _now: float) -> None:
        """Tell a peer what has arrived of what it pushed."""
        self._acknowledge(timer.key, self._owed.pop(timer.key, {}))

    def _acknowledge(self, address: str, actors: Iterable[ActorId]) -> None:
        vector = self._replica.version_vector
        part = {actor: vector[actor] for actor in sorted(actors) if actor in vector}
        if part:
            self._outbox.send(address, VectorExchange(part, is_partial=True))

    # Busy links

    def is_busy(self, name: str) -> bool:
        """Tell whether the link to a member has more to carry than it takes."""
        member = self._view.members.get(name)
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
            for member in self._view.peers()
            if member.address == address and member.name in self._behind
        ]
        # One that is out of reach by now is sent all it lacks when it is met again.
        self._behind.difference_update(
            member.name for member in self._view.members if member.address == address
        )
        return free

    def caught_up(self, name: str) -> None:
        """Take note that a peer has all that is here: it may have got it another way. O(1)."""
        self._behind.discard(name)

    def on_entries(self, message: EntriesMessage, header: FrameHeader, now: float) -> bool:
        """Absorb entries, forward what was new, and ask for what was skipped.

        Returns:
            Whether much was new that was not pushed: it is for others to ask for, once they hear
            that it is here. Forwarded it would reach each of them from several sides.
        """
        self._counters.entries_received += len(message.entries)
        unknown: list[Gap] = []
        received = self._replica.receive(self._whole(message.entries, unknown))
        self.report(received)
        gaps = received.gaps + unknown
        if gaps:
            waiting = self._gaps.setdefault(header.name, {})
            if not waiting:
                self._timers.set(now + GAP_WAIT_S, Timer(TimerKind.GAP, header.name))
            for gap in gaps:
                first, last = waiting.get(gap.actor, (gap.first, gap.last))
                if gap.actor in waiting or len(waiting) < GAPS_MAX:
                    waiting[gap.actor] = (min(first, gap.first), max(last, gap.last))
        is_much = not message.is_pushed and _is_much(received.new)
        if received.new and not is_much and not self._view.is_full_mesh():
            self._push(received.new, without=(header.name,))
        if message.wants_acknowledgement:
            self._acknowledge(header.address, {entry.actor for entry in message.entries})
            vector = self._replica.version_vector
            if any(vector.get(entry.actor, 0) < entry.last for entry in message.entries):
                # It overtook others that are on their way: told again once those are in.
                self._owe(header.address, message.entries)
        elif message.is_pushed:
            self._owe(header.address, message.entries)
        return is_much

    def _whole(
        self, entries: Sequence[LogEntry | ShortEntry], unknown: list[Gap]
    ) -> Iterator[LogEntry]:
        """Yield entries as they were before they were made short, those in `unknown` left out.

        One by one, as they are absorbed: what one brings the next may leave out.
        """
        for entry in entries:
            if isinstance(entry, LogEntry):
                yield entry
            elif entry.last > self._replica.version_vector.get(entry.actor, 0):
                whole = self._replica.whole(entry)
                self._counters.entries_shortened += whole is not None
                self._counters.entries_unknown += whole is None
                if whole is not None:
                    yield whole
                else:
                    unknown.append(Gap(entry.actor, entry.first, entry.last))

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
            self._events.emit(event)

    def on_gap_timer(self, timer: Timer, _now: float) -> None:
        """Ask a member for the gaps that are still open."""
        name = timer.key
        vector = self._replica.version_vector
        gaps = tuple(
            (actor, max(first, vector.get(actor, 0) + 1), last)
            for actor, (first, last) in self._gaps.pop(name, {}).items()
            if vector.get(actor, 0) < last
        )
        if gaps:
            self._counters.gaps_requested += len(gaps)
            self._outbox.send_to_member(name, GapRequest(gaps))

    def on_gap_request(self, message: GapRequest, header: FrameHeader) -> bool:
        """Send a member the entries it skipped.

        Returns:
            False when some are no longer in the log: the peer needs a whole exchange.
        """
        entries: list[LogEntry] = []
        is_whole = True
        bytes_left = GAP_BYTES_MAX
        for actor, first, last in message.gaps:
            found = self._replica.entries_between(Gap(actor, first, last), bytes_max=bytes_left)
            is_whole = is_whole and not found.needs_transfer
            entries += found.entries
            bytes_left -= sum(len(entry.delta) for entry in found.entries)
            if bytes_left <= 0:
                break
        groups = list(batches(entries, self._config.packet_bytes_max))
        for place, batch in enumerate(groups, 1):
            self._outbox.send(header.address, EntriesMessage(batch, place == len(groups)))
        self._counters.entries_sent += len(entries)
        return is_whole

    def forget(self, name: str) -> None:
        """Drop what is kept about a member."""
        self._behind.discard(name)
        self._gaps.pop(name, None)
        self._pushed.pop(name, None)
        self._overdue.pop(name, None)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what was pushed and not acknowledged, what is asked for, and who is behind."""
        return {
            "gaps": MappingProxyType(self._gaps),
            "pushed": MappingProxyType(self._pushed),
            "overdue": MappingProxyType(self._overdue),
            "owed": MappingProxyType(self._owed),
            "behind": frozenset(self._behind),
            "busy": frozenset(self._busy),
            "is_push_armed": self._is_push_armed,
        }

    def _check(self) -> None:
        """Assert that nothing is kept of who is gone, and that what waits has its timer."""
        members, timers = self._view.members, self._timers
        kept = {*self._behind, *self._pushed, *self._overdue}
        require(self, all(name in members for name in kept), "a member is gone and kept")
        pushes = len(timers.of(TimerKind.PUSH))
        require(self, pushes == self._is_push_armed, "pushing again is not due once")
        waits = self._pushed or self._overdue
        require(self, self._is_push_armed or not waits, "what was pushed is never looked at again")
        for pushed in self._ranges():
            require(self, 0 < pushed.first <= pushed.last, "what was pushed is no range")
            is_within = 0 <= pushed.push_count <= len(PUSH_WAITS) and pushed.wait >= 0
            require(self, is_within, "something was pushed too often")
        asked = {timer.key for timer in timers.of(TimerKind.GAP)}
        for name, gaps in self._gaps.items():
            require(self, 0 < len(gaps) <= GAPS_MAX, "no gaps are asked for, or too many")
            require(self, name in asked, "a gap is never asked for")
            is_right = all(0 < first <= last for first, last in gaps.values())
            require(self, is_right, "a gap is no range")
        told = {timer.key for timer in timers.of(TimerKind.ACKNOWLEDGE)}
        require(self, self._owed.keys() <= told, "an acknowledgement is never sent")

    def _ranges(self) -> Iterator[_Pushed]:
        for waiting in (*self._pushed.values(), *self._overdue.values()):
            yield from waiting.values()
