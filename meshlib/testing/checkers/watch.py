"""What must hold at every moment of a simulation: one watch for each running node.

Rule: a watch knows what its node showed before and what was written anywhere, and nothing of
how the node works. It is asked after every event, so it looks first at numbers that are cheap
to compare, and into the state only when one of them moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from meshlib.clock import Stamp
from meshlib.crdt import LWWEntry, LWWMap
from meshlib.gossip import Packet
from meshlib.identity import ActorId
from meshlib.limits import FRAME_BYTES_MAX
from meshlib.membership import MemberRecord, MemberStatus
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.ledger import Ledger
from meshlib.testing.checkers.sometimes import Sometimes
from meshlib.testing.world.hosts import Host

__all__ = ["Broken", "ContentByVector", "Watch"]

TIMERS_PER_S_MAX: Final = 400
"""A node that wakes more often than this in one simulated second is in a storm."""

TIMERS_MAX: Final = 2_000
"""Deadlines that one node may have set in these small clusters."""

PACKETS_PER_EVENT_MAX: Final = 4_096

MAP_DOCUMENTS: Final = ("app", "policies", "workers")

_RANK: Final = {
    MemberStatus.ALIVE: 0,
    MemberStatus.SUSPECTED: 1,
    MemberStatus.DOWN: 2,
    MemberStatus.LEAVING: 3,
}


class Broken(AssertionError):  # noqa: N818 - what was found
    """A node showed what it never may.

    Args:
        rule: the name of the checker.
        detail: what was seen.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


class ContentByVector:
    """Rule R1 over the whole run: equal vectors mean equal live content.

    Writers that a node has forgotten by now count: it holds what they wrote.
    Pages of a state transfer may hold writes that the vector which comes with the last one does
    not count yet, and a transfer may break off; so nodes that took any are left out until the
    end, when all must agree.
    """

    def __init__(self) -> None:
        self._digests: dict[int, tuple[int, str]] = {}

    def compare(self, vector_hash: int, digest: int, label: str) -> None:
        """Take note of a node's content at a vector.

        Raises:
            Broken: another node had other content at the same vector.
        """
        known = self._digests.setdefault(vector_hash, (digest, label))
        if known[0] != digest:
            raise Broken("R1", f"{label} and {known[1]} have equal vectors and other content")


class Watch:
    """Watches one process from its start to its end.

    Args:
        host: where it runs.
        ledger: what was written.
        contents: what others had at their vectors.
        sometimes: counts what was seen.
        is_partitioned: tells whether links are cut now.
        check_period: every how many events `_check()` of all structures is asked. After every
            other event one part of the node is, in its turn.
        look_at_others: looks at the documents that are no maps, as often.
        vector_moved: is told when the vector moved, with the own number if it is that.
    """

    def __init__(
        self,
        host: Host,
        *,
        ledger: Ledger,
        contents: ContentByVector,
        sometimes: Sometimes,
        is_partitioned: Callable[[], bool],
        check_period: int,
        look_at_others: Callable[..., None],
        vector_moved: Callable[[Host, int], None] | None = None,
    ) -> None:
        self._host = host
        self._ledger = ledger
        self._contents = contents
        self._sometimes = sometimes
        self._is_partitioned = is_partitioned
        self._check_period = check_period
        self._look_at_others = look_at_others
        self._vector_moved = vector_moved
        self._packet_bytes_max = inside.packet_bytes_max(host.node)
        self._events = 0
        self._checks = 0
        self._second = -1
        self._wakes = 0
        self._vector: dict[ActorId, int] = {}
        self._vector_hash = 0
        self._actor: ActorId = host.node.replica.actor
        self._incarnation = 0
        self._revision = -1
        self._members: dict[str, MemberRecord] = {}
        self._ended: dict[str, int] = {}
        self._digests: dict[str, tuple[int, int]] = {}
        self._entries: dict[str, dict[Any, LWWEntry]] = {}
        self._highest: dict[tuple[str, Any], Stamp] = {}
        self._was_receiving = False
        self._had_early = False
        self._has_taken_pages = bool(host.node.replica.version_vector)
        self._transfers = 0

    @property
    def has_taken_pages(self) -> bool:
        """Whether parts of a peer's state came to this process, beside the vector that counts them.

        A whole transfer may have come within the event that is going on.
        """
        if not self._has_taken_pages:
            node = self._host.node
            self._has_taken_pages = (
                inside.is_receiving_state(node) or node.counters.transfers_received > 0
            )
        return self._has_taken_pages

    def after_event(self, packets: list[Packet]) -> None:
        """Look at the node after anything that happened to it.

        Raises:
            Broken: names the rule.
        """
        node = self._host.node
        replica = node.replica
        for packet in packets:
            if len(packet.data) > self._packet_bytes_max:
                self._look_at_large(packet)
        if len(packets) > PACKETS_PER_EVENT_MAX:
            raise Broken("packet storm", f"{len(packets):,} packets after one event")
        if node.members_revision != self._revision:
            self._look_at_members()
        if replica.is_rejoining and self._had_early:
            self._hide()
        self._had_early = replica.has_early
        for document in MAP_DOCUMENTS:
            state = inside.find_state(node, document)
            if state is not None:
                content = (state.digest(), inside.entry_count(state))
                if content != self._digests.get(document):
                    self._digests[document] = content
                    self._look_at_map(document, state)
        self._look_at_transfer()
        vector_hash = replica.vector_hash()
        if vector_hash != self._vector_hash:
            self._vector_hash = vector_hash
            self._look_at_vector(replica)
        self.check_queues()
        self._events += 1
        if self._events % self._check_period == 0:
            self.check_structures(only_one=True)
        else:
            self._check_node(turn=self._events)

    def check_structures(self, *, only_one: bool = False) -> None:
        """Ask every structure to check itself.

        Args:
            only_one: the node, and one document after another: a whole check reads everything.

        Raises:
            Broken: one of them found itself broken.
        """
        node = self._host.node
        documents = node.replica.documents()
        if only_one and documents:
            self._checks += 1
            documents = [documents[self._checks % len(documents)]]
        self._check_node()
        try:
            for document in documents:
                check = getattr(node.replica.get(document), "_check", None)
                if check is not None:
                    check()
        except Exception as error:
            raise Broken("_check", f"{type(error).__name__}: {error}") from error
        self._look_at_others(only_one=only_one)

    def _check_node(self, *, turn: int | None = None) -> None:
        """Ask every part of the node to check itself, or one of them in its turn."""
        try:
            self._host.node._check(turn)  # noqa: SLF001 - that is what it is for
        except Exception as error:
            raise Broken("_check", f"{type(error).__name__}: {error}") from error

    def _look_at_large(self, packet: Packet) -> None:
        """Look whether a packet over the limit of the settings had to be so: one message alone."""
        size = len(packet.data)
        if size > FRAME_BYTES_MAX:
            raise Broken("packet size", f"{size:,} bytes")
        count = inside.message_count(packet.data)
        if count > 1:
            raise Broken(
                "packet size",
                f"{size:,} bytes of {count} messages, over {self._packet_bytes_max:,}",
            )

    def after_timer(self, now: float, deadline: float | None, local_now: float) -> None:
        """Look whether timers fire in a storm.

        Raises:
            Broken: the next deadline is not in the future, or the node wakes too often.
        """
        if deadline is not None and deadline <= local_now:
            raise Broken("timer", f"due again at {deadline:.6f}, handled at {local_now:.6f}")
        second = int(now)
        if second != self._second:
            self._second, self._wakes = second, 0
        self._wakes += 1
        if self._wakes > TIMERS_PER_S_MAX:
            raise Broken("timer storm", f"over {TIMERS_PER_S_MAX} wakes within a second")

    def renew(self) -> None:
        """Note that the node came back as another writer: it may have adopted a peer's state."""
        self._actor = self._host.node.replica.actor
        self._vector = {}
        for document, entries in self._entries.items():
            for key in entries:
                self._ledger.note_collected(document, key)
        self._entries = {}
        self._highest = {}
        self._digests = {}

    def _hide(self) -> None:
        """Note that the node comes back with what it had: what was shown early comes again."""
        self._entries = {}
        self._highest = {}
        self._digests = {}

    def _look_at_transfer(self) -> None:
        """Note whether a peer's state is coming here, and whether that broke off."""
        is_receiving = inside.is_receiving_state(self._host.node)
        if is_receiving:
            self._has_taken_pages = True
        elif self._was_receiving:
            received = self._host.node.counters.transfers_received
            if received == self._transfers:
                self._sometimes.count("transfer_interrupted")
            self._transfers = received
        self._was_receiving = is_receiving

    def _look_at_vector(self, replica: Any) -> None:
        if replica.is_rejoining:
            self._vector = {}  # that of what is adopted, until it is complete
            return
        if replica.actor != self._actor:
            raise Broken("identity", "the actor changed without an event")
        vector = replica.version_vector
        for actor, sequence in self._vector.items():
            now = vector.get(actor, 0)
            if now < sequence and (actor == self._actor or now):
                who = "its own" if actor == self._actor else actor.hex()
                raise Broken("vector", f"{who} number went from {sequence} back to {now}")
        self._look_at_way(vector)
        own = vector.get(self._actor, 0)
        has_written = own > self._vector.get(self._actor, 0)
        self._vector = dict(vector)
        if self._vector_moved is not None:
            self._vector_moved(self._host, own if has_written else 0)
        is_even = not replica.has_open_writes and not inside.has_late_writes(self._host.node)
        if is_even and not self.has_taken_pages:
            # With the writers that it has forgotten: without them, the vector is again what it was
            # before they wrote, and the content is not.
            numbers = inside.covered_hash(self._host.node)
            self._contents.compare(numbers, replica.content_digest(), self._host.label)

    def _look_at_way(self, vector: Mapping[ActorId, int]) -> None:
        """Count entries that came through a third node, by their writers."""
        moved = {
            actor for actor, sequence in vector.items() if sequence > self._vector.get(actor, 0)
        }
        neighbours = inside.neighbour_actors(self._host.node)
        if neighbours is not None and not self._was_receiving:
            far = moved - neighbours - {self._actor}
            self._sometimes.count("sparse_forwarding", int(bool(far)))

    def _look_at_map(self, document: str, state: LWWMap[Any, Any]) -> None:
        entries: dict[Any, LWWEntry] = inside.map_entries(state)
        seen = self._entries.get(document, {})
        for key, entry in entries.items():
            before = seen.get(key)
            if entry is not before:
                self._look_at_entry(document, key, entry, before)
        for key, before in seen.items():
            if key not in entries:
                self._look_at_loss(document, key, before)
        self._entries[document] = dict(entries)

    def _look_at_entry(
        self, document: str, key: Any, entry: LWWEntry, before: LWWEntry | None
    ) -> None:
        if not entry.stamp.actor:
            return  # counts of changes alone, without a write
        place = (document, key)
        highest = self._highest.get(place)
        if highest is None or entry.stamp >= highest:
            self._highest[place] = entry.stamp
        elif not self._may_be_older(document, key, entry, before):
            what = "a removed key came back" if before is None else "an entry went back"
            raise Broken("growth", f"{what}: {document}/{key} {entry.stamp} after {highest}")
        if (
            before is not None
            and entry.version < before.version
            and before.payload is not None
            and not self._ledger.was_removed_after(document, key, before.stamp)
        ):
            raise Broken("version", f"{document}/{key} went from {before} to {entry}")
        known = self._ledger
        if not known.knows(document, key, entry) and not known.knows_removal(document, key, entry):
            is_again = entry.actor == self._actor or self._ledger.has_rejoined(entry.actor)
            if not (is_again and self._ledger.knows_value(document, key, entry.payload)):
                raise Broken("made up", f"{document}/{key} {entry} was written by nobody")
            self._ledger.note(document, key, entry, self._host.simulated_now)
        if before is not None and before.payload is None and entry.payload is not None:
            self._sometimes.count("removed_then_written_again")

    def _may_be_older(
        self, document: str, key: Any, entry: LWWEntry, before: LWWEntry | None
    ) -> bool:
        """Tell whether an entry may be older than one that was seen before.

        One removal may be, where a newer one was dropped; and a write that is to be written
        again. `check_growth` looks whether it was.
        """
        if entry.payload is None:
            return before is None or before.payload is None or before.stamp < entry.stamp
        return inside.is_to_be_written_again(self._host.node, document, key)

    def check_growth(self) -> None:
        """Look whether what came late has been written again by now.

        Raises:
            Broken: an entry is there that is older than one that was seen before.
        """
        replica = self._host.node.replica
        for (document, key), highest in self._highest.items():
            state: Any = replica.get(document)
            entry = state.entry(key)
            if entry is not None and entry.payload is not None and entry.stamp < highest:
                raise Broken("growth", f"{document}/{key} is at {entry.stamp} after {highest}")

    def _look_at_loss(self, document: str, key: Any, before: LWWEntry) -> None:
        if before.payload is None:
            self._sometimes.count("tombstone_collected")
            self._ledger.note_collected(document, key)
            if self._is_partitioned():
                self._sometimes.count("tombstone_collected_during_partition")
        elif self._ledger.was_removed_after(document, key, before.stamp):
            self._sometimes.count("removal_learnt_from_transfer")
        else:
            raise Broken("vanished", f"{document}/{key} {before.stamp} is gone, unremoved")

    def _look_at_members(self) -> None:
        node = self._host.node
        self._revision = node.members_revision
        incarnation = node.node_id.incarnation
        if incarnation < self._incarnation:
            raise Broken("incarnation", f"its own went back to {incarnation:x}")
        self._incarnation = incarnation
        members = {member.name: member for member in node.members()}
        for name, member in members.items():
            before = self._members.get(name)
            if before is member:
                continue
            self._look_for_ghost(member)
            if before is None:
                continue
            if (member.incarnation, _RANK[member.status]) < (
                before.incarnation,
                _RANK[before.status],
            ):
                raise Broken(
                    "membership",
                    f"{name} went from {before.status} {before.incarnation:x} "
                    f"to {member.status} {member.incarnation:x}",
                )
            if member.version < before.version:
                raise Broken("membership", f"the version of {name} went back")
        own = members.get(node.name)
        if own is None or (own.status is not MemberStatus.ALIVE and not self._host.is_leaving):
            raise Broken("membership", f"it takes itself for {own and own.status}")
        self._members = members

    def _look_for_ghost(self, member: MemberRecord) -> None:
        """Look whether an incarnation that ended here has come back, forgotten or not."""
        ended = self._ended.get(member.name, -1)
        if member.is_reachable:
            if member.incarnation <= ended:
                raise Broken(
                    "ghost", f"{member.name} {member.incarnation:x} was over and is {member.status}"
                )
        else:
            self._ended[member.name] = max(ended, member.incarnation)

    def check_queues(self) -> None:
        """Look whether what the node queues stays within its limits.

        Raises:
            Broken: names the queue.
        """
        node = self._host.node
        replica = node.replica
        _require_at_most(replica.config.log_bytes_max, inside.log_bytes(node), "in the log")
        _require_at_most(replica.config.gap_buffer_bytes_max, inside.gap_bytes(node), "behind gaps")
        _require_at_most(TIMERS_MAX, inside.timer_count(node), "timers")


def _require_at_most(limit: int, size: int, what: str) -> None:
    if size > limit:
        raise Broken("queue", f"{size:,} {what}, {limit:,} are allowed")
