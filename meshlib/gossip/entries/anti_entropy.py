"""How what was lost is repaired: vectors are compared, then the log or a state transfer fills in.

Rule this file owns: an exchange between equals costs one hash each way. One between vectors that
differ costs what they differ in, as long as that is among the writers that moved last, and the
vectors else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import frozen

from meshlib.gossip.clock_offsets import ClockOffsets
from meshlib.gossip.config import GossipConfig
from meshlib.gossip.entries.beginning import Beginning
from meshlib.gossip.entries.dissemination import Dissemination, batches
from meshlib.gossip.entries.early_writes import EarlyWrites
from meshlib.gossip.entries.filling import Filling
from meshlib.gossip.entries.state_transfer import StateTransfer
from meshlib.gossip.entries.ways import Ways
from meshlib.gossip.events import StateDiverged
from meshlib.gossip.messages.frames import FrameHeader
from meshlib.gossip.messages.kinds import (
    EntriesMessage,
    ExchangeEqual,
    ExchangeRequest,
    TransferAvailable,
    TransferPageMessage,
    VectorExchange,
)
from meshlib.gossip.outbox import Outbox
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.tables import TableComparison
from meshlib.gossip.timers import Timer, TimerKind, TimerQueue, jittered
from meshlib.gossip.view import MembershipView
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.membership import ProbeOrder
from meshlib.replication import Replica, StabilityTracker, vector_hash

__all__ = ["AntiEntropy"]

EXCHANGE_BYTES_MAX = 1 << 20
"""Entries sent in answer to one vector, where the way there holds as much; the rest follows once
they have come."""

ENTRIES_BYTES_MIN = 16 * 1024
"""Entries sent at once over any way: what a joined entry holds, and what is worth asking for."""

ASKED_PER_INTERVAL = 8
"""By how many, on average, a member is asked in an interval whom all of them wait for."""

WITH_PROBE_AFTER = 0.75
ALONE_AFTER = 1.25
"""In a full mesh an exchange is made in the frame of a probe, if there is one to a peer whose turn
it may be while so many intervals have passed since the last exchange; else by itself after that."""

REPAIR_INTERVALS = 16
"""For how many exchanges after a difference was found each of them compares content."""


@frozen(slots=True)
class _Sent:
    """Entries that a peer lacked and that are on their way to it.

    Args:
        actor: who wrote the last of them.
        last: its number.
        size: in bytes, all of them.
        at: when they were sent, in monotonic seconds.
        lost_at: when they count as lost.
        goes_on: whether there are more.
    """

    actor: ActorId
    last: int
    size: int
    at: float
    lost_at: float
    goes_on: bool


class AntiEntropy:
    """Compare vectors with one peer after another, and repair the difference.

    Where the log no longer reaches back, a whole state fills in.

    Args:
        config: the settings.
        rng: with whom, and when.
        replica: has the entries and the vector.
        tracker: keeps the peers' vectors.
        dissemination: sends what was not sent yet; knows which links are busy.
        transfer: brings whole states.
        beginning: is told what peers have, and decides when this node is ready.
        early: knows whether entries are held back yet.
        filling: knows who sends what this node lacks.
        offsets: know how long a peer takes to answer.
        tables: the member tables are compared on the same occasion.
        view: knows who is there.
        timers: let it begin again.
        ways: know how much may be on its way to whom.
        outbox: takes what it asks and answers.
        events: hears of states that differ.
        counters: counts exchanges.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        replica: Replica,
        tracker: StabilityTracker,
        dissemination: Dissemination,
        transfer: StateTransfer,
        beginning: Beginning,
        early: EarlyWrites,
        filling: Filling,
        offsets: ClockOffsets,
        tables: TableComparison,
        view: MembershipView,
        timers: TimerQueue,
        ways: Ways,
        outbox: Outbox,
        events: EventQueue,
        counters: Counters,
    ) -> None:
        self._config = config
        self._rng = rng
        self._replica = replica
        self._tracker = tracker
        self._dissemination = dissemination
        self._transfer = transfer
        self._beginning = beginning
        self._early = early
        self._filling = filling
        self._offsets = offsets
        self._tables = tables
        self._view = view
        self._timers = timers
        self._ways = ways
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._order = ProbeOrder(rng)
        self._far_order = ProbeOrder(rng)
        self._round = 0
        self._begun_at = -math.inf
        self._diverged_at = -math.inf
        self._catching_up: dict[str, _Sent] = {}
        self._told: dict[str, int] = {}
        self.diverged_from: dict[str, float] = {}
        self._compared: dict[str, float] = {}

    def start(self, now: float) -> None:
        """Begin to exchange, at a random time within the first interval."""
        wait_s = self._rng.random() * self._config.exchange_interval_s
        self._timers.set(now + wait_s, Timer(TimerKind.EXCHANGE))

    def on_exchange_timer(self, _timer: Timer, now: float) -> str | None:
        """Begin an exchange with the next neighbour, unless one went with a probe meanwhile.

        Returns:
            With whom, if with anybody.
        """
        interval_s = self._config.exchange_interval_s
        is_full_mesh = self._view.is_full_mesh()
        begun_at, name = now, None
        if is_full_mesh and now - self._begun_at < WITH_PROBE_AFTER * interval_s:
            begun_at = self._begun_at
        elif not self._view.is_leaving:
            self._round += 1
            name = self._pick_peer()
            if name is not None:
                self._begin_turn(name, now)
        wait_s = jittered(interval_s * (ALONE_AFTER if is_full_mesh else 1.0), self._rng)
        self._timers.set(begun_at + wait_s, Timer(TimerKind.EXCHANGE))
        return name

    def go_with_probe(self, name: str, now: float) -> None:
        """Begin an exchange with a member that is probed just now, if it is about time. O(n).

        Both go in one frame, and so do their answers. Each neighbour has its turn as ever.
        """
        view, interval_s = self._view, self._config.exchange_interval_s
        if view.is_leaving or not view.is_full_mesh():
            return
        if self._beginning.wants_goal and self._beginning.ready_peers():
            return  # those have their turns before others
        is_time = now - self._begun_at >= WITH_PROBE_AFTER * interval_s
        if is_time and self._order.take(name):
            self._round += 1
            self._begin_turn(name, now)

    def _begin_turn(self, name: str, now: float) -> None:
        # What differed at one peer is looked for at each, so that it is soon repaired.
        interval_s = self._config.exchange_interval_s
        has_differed = now - self._diverged_at < REPAIR_INTERVALS * interval_s
        is_due = self._round % self._config.content_check_period == 0
        self._begun_at = now
        self.begin(name, now, check_content=is_due or has_differed)

    def _pick_peer(self) -> str | None:
        """Return whom to exchange with: the neighbours in turn, and all members in turn.

        In a sparse graph every other exchange is with a member anywhere: what is stable is known
        only from everyone's own vector, and links across the graph heal what cut it.
        """
        if self._beginning.wants_goal and (ready := self._beginning.ready_peers()):
            return self._order.pick(ready)
        neighbours = self._view.neighbours()
        if self._round % 2 and not self._view.is_full_mesh():
            return self._far_order.pick(self._view.peer_names())
        return self._order.pick(neighbours)

    def begin(self, name: str, now: float, *, check_content: bool = False) -> None:
        """Begin an exchange with one member."""
        if self._dissemination.is_busy(name) or self._early.settle(now):
            return
        self._dissemination.publish()
        self._counters.exchanges_started += 1
        digest = self._replica.content_digest() if check_content else None
        request = ExchangeRequest(self._replica.vector_hash(), self._tables.hash(now), digest)
        self._outbox.send_to_member(name, request)

    def greet(self, names: Iterable[str], now: float) -> None:
        """Begin an exchange with those who have just come into reach.

        In a sparse graph with the neighbours among them, or with one: when a thousand meet a
        thousand, each of them would have a thousand exchanges otherwise.
        """
        met = list(names)
        if not self._view.is_full_mesh():
            neighbours = set(self._view.neighbours())
            met = [name for name in met if name in neighbours] or met[:1]
        for name in met:
            self.begin(name, now)

    def _may_ask(self, name: str, now: float) -> bool:
        """Tell whether to let a peer know what this node lacks, or may; else it is asked later."""
        if self._beginning.wants_goal and self._beginning.ready_peers():
            return True  # it waits for what those have, each of them
        round_trip_s = self._offsets.round_trips_s().get(name, 0.0)
        return self._filling.ask(name, now, round_trip_s=round_trip_s)

    def on_filled_timer(self, _timer: Timer, now: float) -> None:
        """Compare with those who would have sent the same, and with those who may lack it."""
        for name in self._filling.take_over(now):
            self.begin(name, now)

    def on_tell_ready_timer(self, _timer: Timer, now: float) -> None:
        """Let those know who wait for somebody ready."""
        for name in self._beginning.waiting_peers():
            self.begin(name, now)

    def on_exchange_request(
        self, message: ExchangeRequest, header: FrameHeader, now: float
    ) -> None:
        """Answer with one hash when the vectors are equal, with the vector when they are not.

        The member tables are compared as well.
        """
        self._tables.compare(message.table_hash, header.address, now)
        replica = self._replica
        self._dissemination.publish()
        if message.vector_hash != replica.vector_hash():
            if not self._may_ask(header.name, now):
                return
            is_whole = message.wants_whole
            self._outbox.send(header.address, self._own_vector(is_whole=is_whole, wants_reply=True))
            return
        self._counters.exchanges_equal += 1
        digest = message.content_digest
        # Before this node learns that it is whole: one that comes back writes again what it had.
        is_same = digest is None or digest == replica.content_digest()
        self._learn_equal(header, now)
        self._outbox.send(header.address, ExchangeEqual(message.vector_hash))
        if digest is not None:
            if is_same:
                self.diverged_from.pop(header.name, None)
            elif header.name in self._view.members:
                self._on_divergence(header.name, now)

    def _on_divergence(self, name: str, now: float) -> None:
        """Take what a peer has and this node has not, and let it look likewise.

        A repair comes after the vectors were compared whole and neither side lacked anything: marks
        do not count in their hashes, and who has forgotten a writer with less than the other gets
        the rest by an ordinary transfer, which tells removals from additions. A repair cannot.
        """
        interval_s = self._config.exchange_interval_s
        before = self.diverged_from.get(name, -math.inf)
        self._diverged_at = now
        self._events.emit(StateDiverged(peer=name))
        if now - before <= interval_s:
            return  # what was begun then is under way
        self.diverged_from[name] = now
        if self._transfer.is_under_way(name, now):
            return  # an ordinary transfer may be all that it takes
        is_compared = self._compared.get(name, -math.inf) >= before - interval_s
        if is_compared and now - before <= REPAIR_INTERVALS * interval_s:
            self._transfer.request(name, now, is_repair=True)
        else:
            vector = self._replica.advertised_vector(is_complete=True)
            self._outbox.send_to_member(name, VectorExchange(vector, wants_reply=True))
        self.begin(name, now, check_content=True)

    def on_exchange_equal(self, message: ExchangeEqual, header: FrameHeader, now: float) -> None:
        """Take note that a peer has what this node has, if nothing has changed meanwhile."""
        if message.vector_hash == self._replica.vector_hash():
            self._learn_equal(header, now)

    def _learn_equal(self, header: FrameHeader, now: float) -> None:
        self._observe(header, self._replica.version_vector, now)
        self._dissemination.caught_up(header.name)
        self._beginning.on_equal(header, now)

    def _observe(
        self,
        header: FrameHeader,
        vector: Mapping[ActorId, int],
        now: float,
        *,
        is_partial: bool = False,
    ) -> None:
        """Take note of what a peer says of itself; nothing is kept of who is no member."""
        if header.name not in self._view.members:
            return
        self._tracker.observe(
            header.name,
            vector,
            actor=header.actor,
            our_vector=self._replica.version_vector,
            now=now,
            is_partial=is_partial,
        )

    def on_vector(self, message: VectorExchange, header: FrameHeader, now: float) -> None:
        """Send a peer what it lacks, and let it know what this node lacks."""
        replica = self._replica
        if message.is_partial:
            self._observe(header, message.vector, now, is_partial=True)
            if self._have_come(header.name, message.vector, now):
                self._send_lacking(self._tracker.vector(header.name) or {}, header, now)
            return
        self._dissemination.publish()
        vector = self._whole_vector(message)
        if vector is None:
            if not message.wants_reply:
                return  # it has moved on the way: the next exchange is soon enough
            request = ExchangeRequest(
                replica.vector_hash(), self._tables.hash(now), wants_whole=True
            )
            self._outbox.send(header.address, request)
            return
        self._observe(header, vector, now)
        self._learn_forgotten(vector, now)
        self._beginning.on_vector(vector, header, now)
        tells_marks = message.wants_reply and self._has_marks_for(header.name, vector)
        self._have_come(header.name, vector, now)
        lacks = self._send_lacking(vector, header, now, offers_state=not tells_marks)
        has_all = replica.reaches(vector)
        if tells_marks:
            self._outbox.send(header.address, self._own_vector(peer_vector=vector, is_whole=True))
        elif message.wants_reply and not has_all and self._may_ask(header.name, now):
            self._outbox.send(header.address, self._own_vector(peer_vector=vector))
        if has_all and not lacks and header.name in self._view.members:
            self._compared[header.name] = now
        self._beginning.check_goal(now)

    def _learn_forgotten(self, vector: Mapping[ActorId, int], now: float) -> None:
        """Forget whom a peer has forgotten, unless a member has done so with less.

        What that member said last may be old: in a sparse graph its turn to be asked comes once
        in as many exchanges as there are members. So it is asked sooner; one member at a time,
        the one heard longest ago, and no member by everybody at once.
        """
        tracker = self._tracker
        reachable = [member.name for member in self._view.peers()]
        lacking: set[str] = set()

        def is_lacking(actor: ActorId, sequence: int) -> bool:
            names = tracker.forgot_with_less(reachable, actor, sequence)
            lacking.update(names)
            return bool(names)

        keep = {member.actor for member in self._view.members}
        self._replica.learn_forgotten(vector, keep=keep, is_lacking=is_lacking)
        heard = [
            (heard_at, name) for name in lacking if (heard_at := tracker.heard_at(name)) is not None
        ]
        if heard:
            heard_at, name = min(heard)
            intervals = max(1.0, len(reachable) / ASKED_PER_INTERVAL)
            if now - heard_at >= intervals * self._config.exchange_interval_s:
                self.begin(name, now)

    def _has_marks_for(self, name: str, vector: Mapping[ActorId, int]) -> bool:
        """Tell whether a peer may learn from this node's vector whom to forget.

        Then it needs no state for that; once told and no wiser, it may need it after all.
        """
        if not self._replica.names_forgotten(vector):
            return False
        hashed = vector_hash(vector)
        was_told = self._told.get(name) == hashed
        if name in self._view.members:
            self._told[name] = hashed
        return not was_told

    def _own_vector(
        self,
        *,
        peer_vector: Mapping[ActorId, int] | None = None,
        is_whole: bool = False,
        wants_reply: bool = False,
    ) -> VectorExchange:
        """Return this node's vector as it is sent: whole while it is short, or else in part.

        Args:
            peer_vector: the receiver's, if it is known: then what differs is named, and whom of
                it this node has forgotten. Otherwise the writers that moved last are, which is
                what differs as a rule.
            is_whole: name them all.
            wants_reply: as in the message.
        """
        replica, count_max = self._replica, self._config.vector_entries_max
        numbers = replica.version_vector
        if is_whole or len(numbers) <= count_max:
            return VectorExchange(replica.advertised_vector(named=peer_vector or ()), wants_reply)
        if peer_vector is None:
            named = replica.latest_vector(count_max)
        else:
            named = {a: n for a, n in numbers.items() if peer_vector.get(a) != n}
            named |= {actor: 0 for actor in peer_vector if actor not in numbers}
            named |= replica.marks(peer_vector)
        return VectorExchange(named, wants_reply, rest_hash=replica.rest_hash(named))

    def _whole_vector(self, message: VectorExchange) -> Mapping[ActorId, int] | None:
        """Return a peer's whole vector; None when it differs in more than was named. O(actors)."""
        replica = self._replica
        if message.rest_hash is None:
            return message.vector
        if message.rest_hash != replica.rest_hash(message.vector):
            return None
        whole = {**replica.version_vector, **message.vector}
        return {actor: number for actor, number in whole.items() if number}

    def _have_come(self, name: str, vector: Mapping[ActorId, int], now: float) -> bool:
        """Take note of what a peer has got of what was sent; tell whether more is to follow."""
        sent = self._catching_up.get(name)
        if sent is None or vector.get(sent.actor, 0) < sent.last:
            return False
        del self._catching_up[name]
        self._ways.to(name).note_come(sent.size, now - sent.at)
        return sent.goes_on

    def _send_lacking(
        self,
        vector: Mapping[ActorId, int],
        header: FrameHeader,
        now: float,
        *,
        offers_state: bool = True,
    ) -> bool:
        """Send what a peer lacks, or let it know that it needs the state; tell if it is so.

        As much as the way there holds, and the rest once that has come: what was sent just now is
        not sent again.
        """
        name = header.name
        sent = self._catching_up.pop(name, None)
        way = self._ways.to(name)
        if name in self._view.members:
            if sent is not None and now < sent.lost_at:
                self._catching_up[name] = sent
                return True
            if sent is not None:
                way.note_lost()
        bytes_max = min(EXCHANGE_BYTES_MAX, max(ENTRIES_BYTES_MIN, way.window_bytes))
        lacking = self._replica.lacking(vector, bytes_max=bytes_max)
        groups = list(batches(lacking.entries, self._config.packet_bytes_max))
        for place, batch in enumerate(groups, 1):
            goes_on = place == len(groups) and not lacking.is_complete
            self._outbox.send(header.address, EntriesMessage(batch, goes_on))
        if groups and name in self._view.members:
            # Other entries are acknowledged meanwhile; these are in when the last one is.
            size = sum(len(entry.delta) + len(entry.document) for entry in lacking.entries)
            lost_at, last = now + way.wait_s(size), lacking.entries[-1]
            goes_on = not lacking.is_complete
            self._catching_up[name] = _Sent(last.actor, last.last, size, now, lost_at, goes_on)
        self._counters.entries_sent += len(lacking.entries)
        if lacking.needs_transfer and offers_state:
            self._outbox.send(header.address, TransferAvailable())
        return lacking.needs_transfer or bool(lacking.entries)

    def on_transfer_page(
        self, message: TransferPageMessage, header: FrameHeader, now: float
    ) -> None:
        """Take a page of a state; once all of it is in, look what came after it.

        Raises:
            RemoteError: the page is malformed, and the transfer is over.
        """
        if self._transfer.take_page(message, header, now):
            self._look_further(header.name, now)

    def on_transfer_take_timer(self, timer: Timer, now: float) -> None:
        """Take a page that waited for its turn."""
        if self._transfer.take_waiting(timer, now):
            self._look_further(timer.key, now)

    def _look_further(self, name: str, now: float) -> None:
        self._beginning.check_goal(now)
        self.begin(name, now)

    def restart(self) -> None:
        """Break off what goes on: this node comes back as a new writer."""
        self._catching_up.clear()
        self._compared.clear()
        self._filling.restart()

    def forget(self, name: str) -> None:
        """Drop what is kept about a member that is gone."""
        self._catching_up.pop(name, None)
        self._told.pop(name, None)
        self._compared.pop(name, None)
        self.diverged_from.pop(name, None)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show with whom vectors are compared, and whose content differs."""
        return {
            "round": self._round,
            "begun_at": self._begun_at,
            "catching_up": MappingProxyType(self._catching_up),
            "told": MappingProxyType(self._told),
            "compared": MappingProxyType(self._compared),
            "diverged_from": MappingProxyType(self.diverged_from),
            "diverged_at": self._diverged_at,
        }

    def _check(self) -> None:
        """Assert that exchanges go on, one chain of them, and nothing is kept of who is gone."""
        require(self, len(self._timers.of(TimerKind.EXCHANGE)) == 1, "no exchange is due, or two")
        members = self._view.members
        kept = {*self._catching_up, *self._told, *self._compared, *self.diverged_from}
        kept.update(self._tracker.peers())
        require(self, all(name in members for name in kept), "a member is gone and kept")
        awaited = self._catching_up.values()
        require(self, all(sent.last > 0 for sent in awaited), "a peer is to get to nothing")
        times = self.diverged_from.values()
        require(self, all(at <= self._diverged_at for at in times), "a difference is forgotten")
