"""A cluster of production nodes under a virtual clock: what `bench_gossip.py` measures in.

The nodes are `MeshNode`s as they run in production, each with its own seeded chance. A frame
takes 0.5 ms and an exponential 1 ms more on average, or 1.5 ms evenly, and is lost with a given
probability; nothing else is simulated, and nothing of a node is replaced. No checkers run: that
is what `python -m meshlib.testing` is for.

Caveat: everyone is let in by one seed that knows them all, each by the very join response that
it would get; how a cluster of a thousand gathers one by one is not measured here.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgpack
from attrs import define, field

from meshlib.gossip import Event, GossipConfig, MemberDown, MemberSuspected
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import PREFIX_BYTES, FrameHeader, FrameWriter
from meshlib.gossip.messages.kinds import table_pages
from meshlib.node import MeshConfig, MeshNode
from meshlib.replication import WriteReceipt

__all__ = ["DOCUMENT", "Followed", "Traffic", "World"]

DOCUMENT: Final = "app"
DELAY_MIN_S: Final = 0.0005
DELAY_MEAN_S: Final = 0.001
EPOCH_S: Final = 1_750_000_000.0
PROBE_CODES: Final = frozenset((1, 2, 3, 4))
"""Pings, their answers, requests to ping for others, and those helpers' refusals."""

ENTRIES_CODE: Final = 9


@define(slots=True)
class Traffic:
    """Bytes and frames that were sent, frame headers included.

    A frame that carries probes alone counts as probes; in a mixed one the header counts with
    the rest.
    """

    frames: int = 0
    probe_bytes: int = 0
    other_bytes: int = 0
    by_code: Counter[int] = field(factory=Counter)

    def count(self, data: bytes) -> list[bytes]:
        """Take one frame into account; return its messages."""
        messages: list[bytes] = msgpack.unpackb(data[PREFIX_BYTES:])[-1]
        probes = 0
        for message in messages:
            code = message[1]
            self.by_code[code] += len(message)
            if code in PROBE_CODES:
                probes += len(message)
        if probes and all(message[1] in PROBE_CODES for message in messages):
            probes = len(data)
        self.frames += 1
        self.probe_bytes += probes
        self.other_bytes += len(data) - probes
        return messages


@define(slots=True)
class Followed:
    """One write on its way: when each node had it first, and every copy that arrived.

    Args:
        receipt: the write.
        at_s: when it was made.
        arrived_s: for each node how long it took.
        copies: (source, target, rounds): a copy that a node sent on within the interval in which
            it got it took one round; one that waited for a repetition or an exchange, as many
            rounds as intervals passed.
    """

    receipt: WriteReceipt
    at_s: float
    arrived_s: dict[str, float]
    copies: list[tuple[str, str, int]] = field(factory=list)

    def rounds(self) -> dict[str, int]:
        """Return in which round each node had it, as the models count.

        There a hop is a round, and everyone passes on in the next one what it got in this one.
        That is the shortest way over the copies that arrived, and not the quickest: a long way
        around over quick links is quicker than waiting for a repetition, but more hops.
        """
        onward: dict[str, list[tuple[str, int]]] = {}
        for source, target, rounds in self.copies:
            onward.setdefault(source, []).append((target, rounds))
        found: dict[str, int] = {}
        heap = [(0, next(iter(self.arrived_s)))]
        while heap:
            at, name = heapq.heappop(heap)
            if name in found:
                continue
            found[name] = at
            for target, rounds in onward.get(name, ()):
                if target not in found:
                    heapq.heappush(heap, (at + rounds, target))
        return found


class World:
    """Nodes, frames under way, and the time.

    Args:
        count: nodes.
        seed: of all chance.
        loss: share of frames lost.
        is_even: whether every frame takes equally long.
        config: the gossip settings of all; the defaults unless given.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int = 1,
        loss: float = 0.0,
        is_even: bool = False,
        config: GossipConfig | None = None,
    ) -> None:
        self.now = 0.0
        self.loss = loss
        self.is_even = is_even
        self.config = config or GossipConfig()
        self.rng = random.Random(f"{seed}/world")
        self.traffic = Traffic()
        self.nodes: dict[str, MeshNode] = {}
        self.dead: set[str] = set()
        self.stalled: dict[str, list[tuple[str, bytes]]] = {}
        self.suspicions: list[tuple[float, str, MemberSuspected]] = []
        self.deaths: list[tuple[float, str, MemberDown]] = []
        self.side: dict[str, int] = {}
        self.followed: Followed | None = None
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = 0
        self._armed: dict[str, float] = {}
        for index in range(count):
            self._make(f"node-{index:04}", f"10.0.{index >> 8}.{index & 255}:7946", seed)
        self.names = list(self.nodes)
        self.by_address = {node.address: name for name, node in self.nodes.items()}
        self._let_in()

    def _make(self, name: str, address: str, seed: int) -> None:
        node = MeshNode(
            MeshConfig(name=name, address=address, gossip=self.config),
            rng=random.Random(f"{seed}/{name}"),
            wall_clock=lambda: EPOCH_S + self.now,
            now=self.now,
        )
        node.replica.open(DOCUMENT, type_tag="lww_map")
        self.nodes[name] = node

    def _let_in(self) -> None:
        """Give everyone the join response of a seed that knows all."""
        records = [node.members()[0] for node in self.nodes.values()]
        for name, node in self.nodes.items():
            giver = records[0] if name != records[0].name else records[-1]
            header = FrameHeader("mesh", giver.name, giver.incarnation, giver.actor, giver.address)
            writer = FrameWriter(header, bytes_max=self.config.packet_bytes_max)
            if giver.name != name:
                for page in table_pages(records, bytes_max=self.config.packet_bytes_max):
                    writer.add(encode_message(page))
            for frame in writer.frames():
                node.receive(frame, sender=giver.address, now=self.now)
            self._drain(name)

    # Time

    def schedule(self, at_s: float, action: Callable[..., None], *arguments: object) -> None:
        """Run `action(*arguments)` at a time."""
        self._order += 1
        heapq.heappush(self._heap, (at_s, self._order, action, arguments))

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        self.run_until(lambda: False, limit_s=duration_s)

    def run_until(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        """Let time pass until a condition holds, looked at after each action; tell if it did."""
        until = self.now + limit_s
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            at_s, _, action, arguments = pop(heap)
            self.now = at_s
            action(*arguments)
            if condition():
                return True
        self.now = until
        return False

    # Nodes

    def _drain(self, name: str) -> None:
        node = self.nodes[name]
        for packet in node.packets_to_send():
            self._send(name, packet.destination, packet.data)
        self._note(name, node.events())
        deadline = node.next_deadline()
        if deadline is not None and deadline < self._armed.get(name, math.inf):
            self._armed[name] = deadline
            self.schedule(max(deadline, self.now), self._fire, name, deadline)

    def _note(self, name: str, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, MemberSuspected):
                self.suspicions.append((self.now, name, event))
            elif isinstance(event, MemberDown):
                self.deaths.append((self.now, name, event))

    def _fire(self, name: str, deadline: float) -> None:
        if self._armed.get(name) != deadline or name in self.dead or name in self.stalled:
            return
        del self._armed[name]
        self.nodes[name].handle_timer(self.now)
        self._drain(name)

    def _send(self, source: str, address: str, data: bytes) -> None:
        messages = self.traffic.count(data)
        rng = self.rng
        if self.loss and rng.random() < self.loss:
            return
        delay_s = DELAY_MIN_S + (1.0 if self.is_even else rng.expovariate(1.0)) * DELAY_MEAN_S
        rounds = self._rounds_of_copy(source, messages) if self.followed is not None else 0
        self.schedule(self.now + delay_s, self._arrive, source, address, data, rounds)

    def _arrive(self, source: str, address: str, data: bytes, rounds: int) -> None:
        target = self.by_address.get(address)
        if target is None or target in self.dead:
            return
        if self.side and self.side.get(source) != self.side.get(target):
            return
        if target in self.stalled:
            self.stalled[target].append((source, data))
        else:
            self._receive(target, source, data, rounds)

    def _receive(self, target: str, source: str, data: bytes, rounds: int = 0) -> None:
        node = self.nodes[target]
        node.receive(data, sender=self.nodes[source].address, now=self.now)
        followed = self.followed
        if followed is not None:
            if rounds:
                followed.copies.append((source, target, rounds))
            receipt = followed.receipt
            if target not in followed.arrived_s and (
                node.replica.version_vector.get(receipt.actor, 0) >= receipt.sequence
            ):
                followed.arrived_s[target] = self.now - followed.at_s
        self._drain(target)

    def _rounds_of_copy(self, source: str, messages: list[bytes]) -> int:
        """Return how many rounds a copy of the followed write takes; 0 for any other frame."""
        followed = self.followed
        if followed is None or source not in followed.arrived_s:
            return 0
        actor = bytes(followed.receipt.actor)
        if not any(message[1] == ENTRIES_CODE and actor in message for message in messages):
            return 0
        waited_s = self.now - followed.at_s - followed.arrived_s[source]
        return max(1, math.ceil(waited_s / self.config.gossip_interval_s))

    # What is done to them

    def put(self, name: str, key: str, value: object) -> WriteReceipt:
        """Write on one node; what comes of it is sent at once."""
        receipt = self.nodes[name].replica.write(
            DOCUMENT,
            lambda state, c: state.set(key, value, stamp=c.stamp(), sequence=c.sequence),
        )
        self._drain(name)
        return receipt

    def follow(self, name: str, key: str, value: object) -> Followed:
        """Write on one node, and follow the write to all others."""
        node = self.nodes[name]
        sequence = node.replica.version_vector.get(node.actor, 0) + 1
        followed = Followed(WriteReceipt(node.actor, sequence), self.now, {name: 0.0})
        self.followed = followed
        self.put(name, key, value)
        return followed

    def kill(self, name: str) -> None:
        """End a node without a word; nobody's link to it breaks."""
        self.dead.add(name)

    def stall(self, name: str, duration_s: float) -> None:
        """Stop a node as a busy machine does: frames wait, timers are late."""
        if name in self.stalled or name in self.dead:
            return
        self.stalled[name] = []
        self.schedule(self.now + duration_s, self._go_on, name)

    def _go_on(self, name: str) -> None:
        waiting = self.stalled.pop(name)
        self._armed.pop(name, None)
        self.nodes[name].handle_timer(self.now)
        self._drain(name)
        for source, data in waiting:
            self._receive(name, source, data)

    def live(self) -> list[str]:
        """Return the names of those that run."""
        return [name for name in self.names if name not in self.dead]

    def entries_sent(self) -> int:
        """Return how many copies of entries were sent so far."""
        return sum(node.counters.entries_sent for node in self.nodes.values())
