"""A small cluster in virtual time, on the simulator's network, and a peer that sends it rubbish.

The simulator's checkers of histories are left out: a peer that lies about writes breaks what they
are told. What must hold all the same is asked by the tests.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import evolve, frozen

from meshlib.codec import unpack
from meshlib.gossip import Event, GossipConfig, PacketRejected
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import PREFIX_BYTES, FrameHeader, FrameWriter
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    GapRequest,
    IndirectPingFailed,
    IndirectPingRequest,
    MemberNews,
    MemberUpdates,
    Message,
)
from meshlib.limits import FRAME_BYTES_MAX
from meshlib.membership import MemberStatus
from meshlib.node import MeshConfig, MeshNode
from meshlib.ratelimit import RateLimitConfig
from meshlib.replication import ReplicationConfig
from meshlib.routing import TreeInsert
from meshlib.testing.world.network import SimulatedNetwork
from meshlib.testing.world.scenario import NetworkFaults
from support.damage import Mutator

__all__ = [
    "Flood",
    "Flooded",
    "complete",
    "corpus_of",
    "flood",
    "open_documents",
    "places_of",
    "values_of",
    "write_every_kind",
]

EPOCH_S: Final = 1_750_000_000.0
GOSSIP: Final = GossipConfig(
    probe_interval_s=0.5,
    exchange_interval_s=1.0,
    heal_interval_s=2.0,
    content_check_period=2,
    bootstrap_after_s=0.5,
)


class Flooded:
    """Nodes that know each other and hold documents of several kinds.

    Args:
        count: how many.
        seed: of all chance.
    """

    def __init__(self, count: int = 4, *, seed: int) -> None:
        self.now = 0.0
        self.nodes: dict[str, MeshNode] = {}
        self.events: dict[str, list[Event]] = {}
        self.seen: dict[bytes, str] = {}
        """Frames that travelled, and whom each was for."""
        self.seed = seed
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._armed: dict[str, float] = {}
        self.network = SimulatedNetwork(
            NetworkFaults(),
            rng=random.Random(f"{seed}/network"),
            schedule=self.schedule,
            deliver=self._deliver,
            refused=self._refused,
            busy=lambda *_: None,
        )
        for index in range(count):
            self.start(index)
            self.run(1.0)
            self._write(index)
        self.run(3.0)

    def start(self, index: int) -> None:
        """Start a node and let it join."""
        address = f"10.0.0.{index}:7946"
        node = MeshNode(
            MeshConfig(
                name=f"node-{index}",
                address=address,
                gossip=GOSSIP,
                replication=ReplicationConfig(log_bytes_max=2048),
                rate_limit=RateLimitConfig(),
            ),
            rng=random.Random(f"{self.seed}/{index}"),
            wall_clock=lambda: EPOCH_S + self.now,
            now=self.now,
        )
        open_documents(node)
        self.nodes[address] = node
        self.events[address] = []
        node.join(["10.0.0.0:7946", "10.0.0.1:7946"], now=self.now)
        self.pump(address)

    def _write(self, index: int) -> None:
        """Write something of every kind on one node."""
        address = f"10.0.0.{index}:7946"
        write_every_kind(self.nodes[address], index, now=self.now)
        self.pump(address)

    # Time and frames

    def schedule(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Run an action at a virtual time."""
        self._order += 1
        heapq.heappush(self._heap, (max(at_s, self.now), self._order, action, arguments))

    def run(self, duration_s: float) -> None:
        """Let virtual time pass."""
        until = self.now + duration_s
        while self._heap and self._heap[0][0] <= until:
            at_s, _, action, arguments = heapq.heappop(self._heap)
            self.now = at_s
            action(at_s, *arguments)
        self.now = until

    def pump(self, address: str) -> None:
        """Put a node's frames on their way, keep its events, and arm its timer."""
        node = self.nodes[address]
        for packet in node.packets_to_send():
            self.seen.setdefault(packet.data, packet.destination)
            self.network.send(address, packet.destination, packet.data, self.now)
        self.events[address] += node.events()
        deadline = node.next_deadline()
        if deadline is not None and deadline < self._armed.get(address, float("inf")):
            self._armed[address] = deadline
            self.schedule(deadline, self._fire, address, deadline)

    def _fire(self, now: float, address: str, deadline: float) -> None:
        if self._armed.get(address) == deadline:
            del self._armed[address]
            self.nodes[address].handle_timer(now)
            self.pump(address)

    def _deliver(self, now: float, address: str, data: bytes, sender: str) -> bool:
        if address not in self.nodes:
            return False
        self.nodes[address].receive(data, sender=sender, now=now)
        self.pump(address)
        return True

    def _refused(self, now: float, sender: str, address: str) -> None:
        self.nodes[sender].connection_lost(address, now=now)
        self.pump(sender)

    def hit(self, address: str, data: bytes) -> bool:
        """Give a node a frame from the flooding peer; tell whether it was refused."""
        node = self.nodes[address]
        node.receive(data, sender="flood", now=self.now)
        events = node.events()
        self.events[address] += events
        self.pump(address)
        return any(isinstance(e, PacketRejected) and e.sender == "flood" for e in events)

    # What must stay as it is

    def state(self, address: str) -> Any:
        """Return all that a frame can change: members, vector, content, and what is told."""
        node = self.nodes[address]
        return (
            node.members(),
            dict(node.replica.version_vector),
            node.replica.content_digest(),
            node.has_joined,
        )


def open_documents(node: MeshNode) -> None:
    """Give a node documents beside those that every node has."""
    node.replica.open("tags", type_tag="or_set")
    node.replica.open("hits", type_tag="pn_counter")


def write_every_kind(node: MeshNode, index: int, *, now: float) -> None:
    """Write something of every kind on the node of a number."""
    sync = node.sync
    sync.set_config(f"key-{index}", b"value" * 20)
    sync.set_config("shared", b"%d" % index)
    sync.set_config("gone", b"x")
    sync.delete_config("gone")
    sync.set_global_rate_limit(1000)
    sync.sync_worker_state(f"worker-{index}", model_id="m", url="http://w:1", health=True, load=0.5)
    sync.sync_policy_state("m", policy_type="cache_aware", config="{}")
    sync.sync_tree_operation("m", TreeInsert(text="a prompt " * 5, tenant=f"worker-{index}"))
    node.replica.write("tags", lambda state, c: state.add(f"tag-{index}", dot=c.dot()))
    node.replica.write("hits", lambda state, c: state.increment(3, by=c.actor))
    for _ in range(20):
        node.limiter.acquire("global", now=now)


def values_of(node: MeshNode) -> Any:
    """Return what a user reads on a node."""
    sync, replica = node.sync, node.replica
    tags: Any = replica.get("tags")
    hits: Any = replica.get("hits")
    tree = sync.get_tree_state("m")
    return {
        "config": {key: sync.get_config(key) for key in sync.config_keys()},
        "workers": [(w.worker_id, w.url, w.health, w.load) for w in sync.get_all_worker_states()],
        "policies": [(p.model_id, p.policy_type) for p in sync.get_all_policy_states()],
        "limit": sync.get_global_rate_limit(),
        "tree": None if tree is None else sorted(map(str, tree.operations)),
        "tags": sorted(tags.value),
        "hits": hits.value,
    }


def places_of(node: MeshNode) -> list[tuple[str, str, MemberStatus]]:
    """Return whom a node knows, where, and in which state."""
    return [(m.name, m.address, m.status) for m in node.members()]


def corpus_of(frames: dict[bytes, str], *, each_max: int = 40) -> list[tuple[bytes, str]]:
    """Choose frames so that every kind of message is there, rare ones first."""
    chosen: dict[tuple[int, ...], list[tuple[bytes, str]]] = {}
    for frame, address in frames.items():
        kinds = tuple(sorted({unpack(m)[0] for m in unpack(frame[PREFIX_BYTES:])[-1]}))
        kept = chosen.setdefault(kinds, [])
        if len(kept) < each_max:
            kept.append((frame, address))
    return [pair for kinds in sorted(chosen) for pair in chosen[kinds]]


def complete(
    corpus: list[tuple[bytes, str]], first: MeshNode, second: MeshNode
) -> list[tuple[bytes, str]]:
    """Add frames from one node to another with messages that a calm cluster does not send."""
    header = FrameHeader(
        "mesh", first.name, first.node_id.incarnation, first.actor, first.address, is_ready=True
    )
    own = next(m for m in second.members() if m.name == second.name)
    rare: tuple[Message, ...] = (
        ConflictNotice(second.name, first.address, own.incarnation),
        ConflictNotice(second.name, second.address, own.incarnation),
        IndirectPingRequest(7, "node-2"),
        IndirectPingFailed(7),
        GapRequest(((first.actor, 1, 3),)),
        MemberUpdates((MemberNews(evolve(own, status=MemberStatus.SUSPECTED), first.name),)),
    )
    added = []
    for message in rare:
        writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
        writer.add(encode_message(message))
        added += [(frame, second.address) for frame in writer.frames()]
    return corpus + 3 * added


@frozen(kw_only=True)
class Flood:
    """What came of a flood: frames sent, refused at once, and made but put away as forged."""

    sent_count: int
    refused_count: int
    forged_count: int


def flood(world: Flooded, corpus: Sequence[tuple[bytes, str]], *, count: int, seed: int) -> Flood:
    """Send damaged frames, 500 a second, mostly to whom the good one went.

    Of every eighth the whole state is compared: one that is refused has changed nothing.
    """
    mutator = Mutator(seed)
    refused = 0
    addresses = sorted(world.nodes)
    for number in range(count):
        frame, address = mutator.rng.choice(corpus)
        if mutator.rng.random() < 0.2:
            address = mutator.rng.choice(addresses)
        data = mutator.damage(frame)
        before = None if number % 8 else world.state(address)
        is_refused = world.hit(address, data)
        refused += is_refused
        assert before is None or not is_refused or world.state(address) == before, data.hex()
        if not number % 5:
            world.run(0.01)
    return Flood(sent_count=count, refused_count=refused, forged_count=mutator.forged_count)
