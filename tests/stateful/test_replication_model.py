"""Real replicas through random schedules: they must end equal, and with the last writes.

The schedules write, lose, repeat and reorder messages, exchange by log or by snapshot, trim,
collect tombstones, forget writers, and let nodes go away, come back and restart from an old
state. Each rule that the schedules need is broken once, to show that they would notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, evolve, field

from meshlib.clock import HybridClock
from meshlib.crdt import LWWMap
from meshlib.errors import MeshError
from meshlib.identity import ActorId, actor_id
from meshlib.replication import (
    LogEntry,
    Received,
    Replica,
    ReplicaState,
    ReplicationConfig,
    SnapshotPages,
    StabilityTracker,
    replica,
)
from meshlib.replication.arrivals import Arrivals
from meshlib.replication.intake import Intake
from meshlib.replication.log import ReplicationLog
from meshlib.replication.snapshot import PageContent


@define(eq=False)
class Node:
    """One node: its replica, what it knows of the others, and the last state it saved."""

    name: str
    replica: Replica
    tracker: StabilityTracker = field(factory=StabilityTracker)
    saved: ReplicaState | None = None

    @property
    def actor(self) -> ActorId:
        return self.replica.actor

    def map(self) -> Any:
        return self.replica.open("map", type_tag="lww_map")

    def tags(self) -> Any:
        return self.replica.open("tags", type_tag="or_set")

    def live(self) -> dict[str, Any]:
        return dict(self.map().items())


@define
class Message:
    """Something under way: entries, or a clock."""

    source: Node
    destination: Node
    entries: list[LogEntry] | None = None
    clock: dict[ActorId, int] | None = None
    actor: ActorId | None = None
    is_partial: bool = False


@define
class Transfer:
    """A snapshot under way."""

    source: Node
    destination: Node
    pages: SnapshotPages


class Cluster:
    """A cluster under one seed.

    Args:
        seed: of everything.
        is_dense: whether it only writes, exchanges and collects, as fast as it can: removals
            then often meet older writes that are still under way.
    """

    def __init__(self, seed: int, *, is_dense: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        # A start without what it knew may stamp as far back as clocks differ; what the grace
        # period is longer than. Here there is none, so it is one or the other.
        self.has_skew = self.rng.random() < 0.5
        # Each seed has its own mixture: what is rare in one is frequent in another.
        self.keys = "abcdef"[: self.rng.choice((1, 2, 6))]
        self.loss = self.rng.choice((0.05, 0.3, 0.8))
        self.clock_loss = self.rng.choice((0.0, 0.05, 0.3))
        self.reorder = self.rng.choice((1, 4, 1000))
        self.config = ReplicationConfig(
            log_bytes_max=self.rng.choice((1024, 4096, 65_536)), tombstone_grace_s=0.0
        )
        self.actions = list(ACTIONS)
        self.weights = [weight * self.rng.choice((0.1, 1.0, 3.0)) for weight in ACTIONS.values()]
        self.rounds, self.steps_max = 8, 80
        if is_dense:
            self.keys, self.loss, self.clock_loss, self.reorder = "abc", 0.5, 0.0, 4
            self.weights = [100, 0, 30, 60, 100, 15, 100, 0, 0, 0, 0]
            self.rounds, self.steps_max = 20, 60
        self.incarnation = 0
        self.nodes = [
            Node(f"n{index}", self.make_replica(f"n{index}"))
            for index in range(self.rng.randint(2, 5))
        ]
        self.flight: list[Message] = []
        self.transfers: list[Transfer] = []
        self.away: Node | None = None
        self.to_forget: list[tuple[Node, ActorId]] = []
        self.best: dict[str, tuple[Any, Any]] = {}
        self.is_exact = True

    # Making and replacing replicas

    def fresh_actor(self, name: str) -> ActorId:
        self.incarnation += 1
        return actor_id(name, self.incarnation)

    def make_replica(self, name: str) -> Replica:
        actor = self.fresh_actor(name)
        skew_s = self.rng.uniform(-20, 20) if self.has_skew else 0.0
        clock = HybridClock(actor, wall_clock=lambda: 1000.0 + self.now + skew_s)
        return Replica(actor=actor, clock=clock, config=self.config)

    def present(self) -> list[Node]:
        return [node for node in self.nodes if node is not self.away]

    # What happens in a step

    def write(self, node: Node) -> None:
        key, value = (
            self.rng.choice(self.keys),
            f"{self.seed}-{self.incarnation}-{self.rng.random()}",
        )
        node.map()
        if key in node.map() and self.rng.random() < 0.6:
            node.replica.write(
                "map", lambda s, c: s.remove(key, stamp=c.stamp(), sequence=c.sequence)
            )
        else:
            node.replica.write(
                "map", lambda s, c: s.set(key, value, stamp=c.stamp(), sequence=c.sequence)
            )
        self.remember(node, key)

    def remember(self, node: Node, key: str) -> None:
        """Keep the latest write of a key, whoever made it."""
        entry = node.map().entry(key)
        if key not in self.best or entry.stamp > self.best[key][0]:
            self.best[key] = entry.stamp, entry.payload

    def tag(self, node: Node) -> None:
        element = self.rng.choice(self.keys)
        if element in node.tags() and self.rng.random() < 0.4:
            node.replica.write("tags", lambda s, _: s.remove(element))
        else:
            node.replica.write("tags", lambda s, c: s.add(element, dot=c.dot()))

    def send(self, message: Message) -> None:
        if self.rng.random() >= (self.clock_loss if message.entries is None else self.loss):
            self.flight.append(message)
            if self.rng.random() < 0.1:
                self.flight.append(message)

    def flush(self, node: Node) -> None:
        entries = node.replica.flush()
        if entries and node is not self.away:
            for other in self.present():
                if other is not node:
                    self.send(Message(node, other, entries=entries))

    def exchange(self, source: Node, destination: Node) -> None:
        """Send what the other lacks, and both clocks: all of it may be late or lost."""
        self.flush(source)
        self.flush(destination)
        wanted = destination.replica.advertised_clock()
        self.send(Message(destination, source, clock=wanted, actor=destination.actor))
        lacking = source.replica.lacking(wanted, bytes_max=self.rng.choice((200, 2000)))
        if lacking.needs_snapshot:
            offer = destination.replica.snapshot_offer()
            pages = source.replica.snapshot_pages(offer, page_bytes_max=1100)
            self.transfers.append(Transfer(source, destination, pages))
        elif lacking.entries:
            entries = lacking.entries
            if self.rng.random() < 0.2:
                entries = self.rng.sample(entries, len(entries))
            self.send(Message(source, destination, entries=entries))
        clock = source.replica.advertised_clock()
        self.send(Message(source, destination, clock=clock, actor=source.actor))

    def deliver(self) -> None:
        """Deliver one of the newest messages; those left behind come later, if at all."""
        if self.flight:
            newest = min(len(self.flight), self.reorder)
            self.handle(self.flight.pop(-1 - self.rng.randrange(newest)))

    def handle(self, message: Message) -> None:
        node = message.destination
        if message.entries is not None:
            self.react(node, node.replica.receive(message.entries))
            self.acknowledge(message)
        if message.clock is not None and message.actor == message.source.actor:
            node.tracker.observe(
                message.source.name,
                message.clock,
                actor=message.actor,
                our_clock=node.replica.version_vector,
                now=self.now,
                is_partial=message.is_partial,
            )
            members = {other.actor for other in self.present()}
            node.replica.learn_forgotten(message.clock, keep=members)

    def acknowledge(self, message: Message) -> None:
        """Answer entries with the clock of their writers, as an engine does."""
        node, vector = message.destination, message.destination.replica.version_vector
        clock = {e.actor: vector[e.actor] for e in message.entries or () if e.actor in vector}
        answer = Message(node, message.source, clock=clock, actor=node.actor, is_partial=True)
        self.send(answer)

    def react(self, node: Node, received: Received) -> None:
        """Ask somebody for the gaps, and check that nothing was refused without a reason."""
        for gap in received.gaps:
            other = self.rng.choice(self.present())
            found = other.replica.entries_between(gap, bytes_max=2000)
            if found.entries and other is not node:
                self.send(Message(other, node, entries=found.entries))

    def pump(self) -> None:
        """Move one transfer on by a page; a few break off."""
        if not self.transfers:
            return
        transfer = self.rng.choice(self.transfers)
        page = next(transfer.pages, None)
        if page is not None:
            transfer.destination.replica.absorb_page(page)
            if self.rng.random() < 0.1:
                self.transfers.remove(transfer)
                if self.rng.random() < 0.5:  # an end that overtakes its pages is no end
                    transfer.destination.replica.complete_snapshot(transfer.pages.clock)
            return
        self.transfers.remove(transfer)
        transfer.destination.replica.complete_snapshot(transfer.pages.clock)

    def collect(self, node: Node) -> None:
        others = [other.name for other in self.present() if other is not node]
        ours = node.replica.version_vector
        settled = node.tracker.settled(others, our_clock=ours)
        node.replica.collect_tombstones(settled, now=self.now)
        node.replica.trim(node.tracker.stable(others, our_clock=ours))

    # Going away, coming back, restarting

    def cut(self, node: Node) -> None:
        """End everything under way with a node: what a grace period is longer than."""
        self.flight = [m for m in self.flight if node not in (m.source, m.destination)]
        self.transfers = [t for t in self.transfers if node not in (t.source, t.destination)]
        for other in self.nodes:
            if other is not node:
                other.replica._intake.forget(node.actor)

    def leave(self) -> None:
        """A node goes away for so long that the others, in contact, forget it."""
        node = self.rng.choice(self.nodes)
        self.cut(node)
        self.away = node
        node.saved = None
        self.settle(self.present())
        self.to_forget += [(other, node.actor) for other in self.present()]

    def forget_one(self) -> None:
        if self.to_forget:
            node, actor = self.to_forget.pop(self.rng.randrange(len(self.to_forget)))
            if node.actor != actor:
                node.replica.forget(actor)

    def come_back(self) -> None:
        node = self.away
        assert node is not None
        peer = self.rng.choice(self.present())
        node.replica.begin_rejoin(self.fresh_actor(node.name))
        self.away = None
        node.tracker = StabilityTracker()
        if self.rng.random() < 0.5:
            self.write(node)
        while not node.replica.reaches(peer.replica.advertised_clock()):
            self.bring(peer, node)
        report = node.replica.finish_rejoin()
        for key, entry in node.map().entries():
            if entry.actor == report.new:
                self.remember(node, key)

    def restart(self) -> None:
        """A node dies and starts from the state that it saved some time ago."""
        node = self.rng.choice(self.present())
        if node.saved is None or self.has_skew:
            return
        self.cut(node)
        self.is_exact = False
        replica = self.make_replica(node.name)
        replica.import_state(node.saved)
        node.replica, node.tracker = replica, StabilityTracker()

    # Without loss

    def bring(self, source: Node, destination: Node) -> None:
        """Bring one node what it lacks from another, and let both know."""
        wanted = destination.replica.advertised_clock()
        lacking = source.replica.lacking(wanted, bytes_max=1000)
        if lacking.needs_snapshot:
            pages = source.replica.snapshot_pages(destination.replica.snapshot_offer())
            for page in pages:
                destination.replica.absorb_page(page)
            destination.replica.complete_snapshot(pages.clock)
        destination.replica.receive(lacking.entries)
        for one, other in ((source, destination), (destination, source)):
            clock = other.replica.advertised_clock()
            self.handle(Message(other, one, clock=clock, actor=other.actor))

    def settle(self, nodes: list[Node]) -> None:
        for _ in range(6):
            for node in nodes:
                node.replica.flush()
                for other in nodes:
                    if other is not node:
                        self.bring(node, other)

    def step(self) -> None:
        self.now += self.rng.random() * 0.01
        (action,) = self.rng.choices(self.actions, self.weights)
        action(self)

    def some(self, action: Callable[[Cluster, Node], None], *, among_all: bool = False) -> None:
        action(self, self.rng.choice(self.nodes if among_all else self.present()))

    def some_pair(self) -> None:
        if len(self.present()) > 1:
            self.exchange(*self.rng.sample(self.present(), 2))

    def save(self, node: Node) -> None:
        node.saved = node.replica.export_state()

    def go_or_come(self) -> None:
        if self.away is not None:
            self.come_back()
        elif len(self.nodes) > 2:
            self.leave()

    def run(self) -> None:
        """Run some rounds; after each everyone present must be equal."""
        for _ in range(self.rounds):
            for _ in range(self.rng.randrange(self.steps_max)):
                self.step()
            self.settle(self.present())
            self.verify(self.present())
        if self.away is not None:
            self.come_back()
        while self.to_forget:
            self.forget_one()
        self.settle(self.nodes)
        self.verify(self.nodes)
        if self.is_exact:
            due = {key: payload for key, (_, payload) in self.best.items() if payload is not None}
            entries = self.nodes[0].map().entries()
            assert due == {key: entry.payload for key, entry in entries if entry.is_live}

    def verify(self, nodes: list[Node]) -> None:
        """Assert that nodes are equal, but for whom they have forgotten by now."""
        first = nodes[0]
        for node in nodes:
            node.replica._check()
            node.map()._check()
            assert first.live() == node.live()
            assert first.tags().value == node.tags().value
            assert first.replica.content_digest() == node.replica.content_digest()
            assert first.replica.reaches(node.replica.advertised_clock())
            if not self.to_forget:
                assert first.replica.clock_hash() == node.replica.clock_hash()
                assert first.replica.version_vector == node.replica.version_vector


ACTIONS: dict[Callable[[Cluster], None], float] = {
    lambda cluster: cluster.some(Cluster.write, among_all=True): 30,
    lambda cluster: cluster.some(Cluster.tag, among_all=True): 5,
    lambda cluster: cluster.some(Cluster.flush, among_all=True): 10,
    Cluster.some_pair: 25,
    Cluster.deliver: 50,
    Cluster.pump: 15,
    lambda cluster: cluster.some(Cluster.collect): 50,
    Cluster.forget_one: 1,
    lambda cluster: cluster.some(Cluster.save): 4,
    Cluster.restart: 3,
    Cluster.go_or_come: 1.5,
}


@pytest.mark.parametrize("is_dense", [False, True])
@pytest.mark.parametrize("seeds", [range(start, start + 20) for start in range(0, 100, 20)])
def test_replicas_end_equal_and_with_the_last_writes(seeds: range, *, is_dense: bool) -> None:
    """Whatever is lost, repeated, reordered, trimmed or collected, nothing is lost or undone."""
    for seed in seeds:
        Cluster(seed, is_dense=is_dense).run()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_thousands_of_schedules_end_equal_and_with_the_last_writes() -> None:
    """The same over many more seeds."""
    for seed in range(100, 4000):
        Cluster(seed, is_dense=seed % 2 == 0).run()


def fails(seed: int) -> bool:
    """Tell whether a schedule ends wrong."""
    try:
        Cluster(seed, is_dense=seed % 2 == 0).run()
    except (AssertionError, MeshError):
        return True
    return False


# What breaks a rule: each is one line of the real thing undone.


def naive_stability(patch: pytest.MonkeyPatch) -> None:
    """A removal counts as settled once all have seen it, whatever is still on its way here."""

    def settle(peer: Any, our_clock: Any) -> None:
        peer.settled = peer.newest

    patch.setattr(StabilityTracker, "_settle", staticmethod(settle))


def partial_clocks_count_as_whole(patch: pytest.MonkeyPatch) -> None:
    """What a peer said of a few writers counts as all that it had."""
    observe = StabilityTracker.observe

    def observe_whole(self: Any, peer: str, clock: Any, **rest: Any) -> None:
        known = self.clock(peer) or {} if rest.pop("is_partial") else {}
        observe(self, peer, {**known, **clock}, **rest)

    patch.setattr(StabilityTracker, "observe", observe_whole)


def collect_at_once(patch: pytest.MonkeyPatch) -> None:
    """A tombstone goes as soon as this node has it."""
    patch.setattr(StabilityTracker, "settled", lambda self, members, our_clock: dict(our_clock))


def return_without_rejoining(patch: pytest.MonkeyPatch) -> None:
    """A node that was away for too long goes on as if nothing had happened."""

    def come_back(self: Cluster) -> None:
        self.away = None

    patch.setattr(Cluster, "come_back", come_back)
    patch.setattr(Replica, "forget", lambda self, actor: None)


def lose_unsent_writes_when_rejoining(patch: pytest.MonkeyPatch) -> None:
    """A node that comes back takes a peer's state and writes nothing again."""
    patch.setattr(replica, "write_again", lambda former, parts, write: (0, []))


def covers_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    """An entry of a snapshot is taken although its key was removed here."""
    patch.setattr(LWWMap, "absorb_snapshot", lambda self, part, covers: self.absorb(part))


def absence_proves_nothing(patch: pytest.MonkeyPatch) -> None:
    """What a sender's clock covers and the sender does not have is kept."""
    patch.setattr(Arrivals, "_dead", staticmethod(lambda document, gathered, clock: []))


def clock_moves_over_a_gap(patch: pytest.MonkeyPatch) -> None:
    """An entry ahead of a gap is absorbed, and counted with all before it."""

    def keep(self: Any, entry: LogEntry) -> None:
        self._absorb(entry, entry.first - 1, Received())

    patch.setattr(Intake, "_keep", keep)


def pages_may_be_missing(patch: pytest.MonkeyPatch) -> None:
    """A snapshot counts as complete with any page."""
    encode = PageContent.encode
    patch.setattr(PageContent, "encode", lambda self: encode(evolve(self, is_last=True)))


def writes_stay_open_while_receiving(patch: pytest.MonkeyPatch) -> None:
    """A peer's removal may be in the clock before an older write of this node is."""
    patch.setattr(Replica, "_close_writes", lambda self: None)


def log_has_holes(patch: pytest.MonkeyPatch) -> None:
    """What is dropped from the log does not raise its mark."""
    drop = ReplicationLog._drop_front

    def drop_front(self: Any, log: Any, count: int) -> None:
        trimmed = log.trimmed
        drop(self, log, count)
        log.trimmed = trimmed

    patch.setattr(ReplicationLog, "_drop_front", drop_front)


def time_does_not_travel(patch: pytest.MonkeyPatch) -> None:
    """A snapshot does not move the hybrid clock: a write may be older than what was collected."""
    patch.setattr(Arrivals, "_observe", lambda self, arrival: True)


MUTANTS = (
    collect_at_once,
    return_without_rejoining,
    lose_unsent_writes_when_rejoining,
    clock_moves_over_a_gap,
    log_has_holes,
    naive_stability,
    time_does_not_travel,
    *(
        pytest.param(mutant, marks=pytest.mark.long)
        for mutant in (
            absence_proves_nothing,
            covers_is_not_checked,
            pages_may_be_missing,
            partial_clocks_count_as_whole,
            writes_stay_open_while_receiving,
        )
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rule broken, some schedule ends with nodes that differ or have lost a write."""
    mutant(monkeypatch)
    assert any(fails(seed) for seed in range(2000))
