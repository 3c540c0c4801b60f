"""A cluster of real replicas under random schedules, without an engine around them.

The schedules write, lose, repeat and reorder messages, exchange by log or by transfer, trim,
collect tombstones, forget writers, and let nodes go away, come back and restart from an old
state. The engine's part, which is to call the right thing at a good time, is drawn at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import define, field

from meshlib.clock import HybridClock
from meshlib.identity import ActorId, actor_id
from meshlib.replication import (
    LogEntry,
    Received,
    Replica,
    ReplicaState,
    ReplicationConfig,
    StabilityTracker,
    TransferPages,
)


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
    """Something under way: entries, or a vector."""

    source: Node
    destination: Node
    entries: list[LogEntry] | None = None
    vector: dict[ActorId, int] | None = None
    actor: ActorId | None = None
    is_partial: bool = False


@define
class Transfer:
    """A transfer under way."""

    source: Node
    destination: Node
    pages: TransferPages


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
        # A start without what it knew may stamp as far back as vectors differ; what the grace
        # period is longer than. Here there is none, so it is one or the other.
        self.has_skew = self.rng.random() < 0.5
        # Each seed has its own mixture: what is rare in one is frequent in another.
        self.keys = "abcdef"[: self.rng.choice((1, 2, 6))]
        self.loss = self.rng.choice((0.05, 0.3, 0.8))
        self.vector_loss = self.rng.choice((0.0, 0.05, 0.3))
        self.reorder = self.rng.choice((1, 4, 1000))
        self.config = ReplicationConfig(
            log_bytes_max=self.rng.choice((1024, 4096, 65_536)), tombstone_grace_s=0.0
        )
        self.actions = list(ACTIONS)
        self.weights = [weight * self.rng.choice((0.1, 1.0, 3.0)) for weight in ACTIONS.values()]
        self.rounds, self.steps_max = 8, 80
        if is_dense:
            self.keys, self.loss, self.vector_loss, self.reorder = "abc", 0.5, 0.0, 4
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
        if self.rng.random() >= (self.vector_loss if message.entries is None else self.loss):
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
        """Send what the other lacks, and both vectors: all of it may be late or lost."""
        self.flush(source)
        self.flush(destination)
        wanted = destination.replica.advertised_vector()
        self.send(Message(destination, source, vector=wanted, actor=destination.actor))
        lacking = source.replica.lacking(wanted, bytes_max=self.rng.choice((200, 2000)))
        if lacking.needs_transfer:
            offer = destination.replica.transfer_offer()
            pages = source.replica.transfer_pages(offer, page_bytes_max=1100)
            self.transfers.append(Transfer(source, destination, pages))
        elif lacking.entries:
            entries = lacking.entries
            if self.rng.random() < 0.2:
                entries = self.rng.sample(entries, len(entries))
            self.send(Message(source, destination, entries=entries))
        vector = source.replica.advertised_vector()
        self.send(Message(source, destination, vector=vector, actor=source.actor))

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
        if message.vector is not None and message.actor == message.source.actor:
            node.tracker.observe(
                message.source.name,
                message.vector,
                actor=message.actor,
                our_vector=node.replica.version_vector,
                now=self.now,
                is_partial=message.is_partial,
            )
            members = {other.actor for other in self.present()}
            node.replica.learn_forgotten(message.vector, keep=members)

    def acknowledge(self, message: Message) -> None:
        """Answer entries with the vector of their writers, as an engine does."""
        node, vector = message.destination, message.destination.replica.version_vector
        part = {e.actor: vector[e.actor] for e in message.entries or () if e.actor in vector}
        answer = Message(node, message.source, vector=part, actor=node.actor, is_partial=True)
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
            # Readers and writers of two nodes in three see what has not been joined yet.
            transfer.destination.replica.absorb_page(page, is_shown=self.seed % 3 > 0)
            if self.rng.random() < 0.1:
                self.transfers.remove(transfer)
                if self.rng.random() < 0.5:  # an end that overtakes its pages is no end
                    transfer.destination.replica.complete_transfer(transfer.pages.vector)
            return
        self.transfers.remove(transfer)
        transfer.destination.replica.complete_transfer(transfer.pages.vector)

    def collect(self, node: Node) -> None:
        others = [other.name for other in self.present() if other is not node]
        ours = node.replica.version_vector
        settled = node.tracker.settled(others, our_vector=ours)
        node.replica.collect_tombstones(settled, now=self.now)
        node.replica.trim(node.tracker.stable(others, our_vector=ours))

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
        while not node.replica.reaches(peer.replica.advertised_vector()):
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
        wanted = destination.replica.advertised_vector()
        lacking = source.replica.lacking(wanted, bytes_max=1000)
        if lacking.needs_transfer:
            pages = source.replica.transfer_pages(destination.replica.transfer_offer())
            for page in pages:
                destination.replica.absorb_page(page)
            destination.replica.complete_transfer(pages.vector)
        destination.replica.receive(lacking.entries)
        for one, other in ((source, destination), (destination, source)):
            vector = other.replica.advertised_vector()
            self.handle(Message(other, one, vector=vector, actor=other.actor))

    def settle(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.replica.keep_early()
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
            assert first.replica.reaches(node.replica.advertised_vector())
            if not self.to_forget:
                assert first.replica.vector_hash() == node.replica.vector_hash()
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
