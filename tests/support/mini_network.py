"""A small network of whole nodes in virtual time, for scenarios."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from meshlib.gossip import Event, GossipConfig, LinkEnd
from meshlib.limits import FORMATS
from meshlib.membership import MemberRecord
from meshlib.node import MeshConfig, MeshNode
from meshlib.ratelimit import RateLimitConfig
from meshlib.replication import ReplicaState, ReplicationConfig
from meshlib.routing import PrefixSync
from meshlib.state import ConfiguredDefaults

PORT = ":1"


class MiniNetwork:
    """Nodes at hosts called by their names, frames that take 1 to 3 ms, cuts at will.

    A node's address is its host's name with `PORT`; everything here is asked for by the host.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.nodes: dict[str, MeshNode] = {}
        self.events: dict[str, list[Event]] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.other_names: dict[str, str] = {}
        """Other names under which a host is reached, to its own."""
        self.is_refusing = True
        self.is_lost: Callable[[bytes], bool] = lambda _frame: False
        self._rng = random.Random(7)
        self._frames: list[tuple[float, int, str, str, bytes]] = []
        self._order = 0
        self._deliver: Callable[[str, str, bytes], None] = self._carry

    def start(
        self,
        name: str,
        *,
        address: str | None = None,
        seeds: tuple[str, ...] = ("n0",),
        cluster: str = "mesh",
        config: GossipConfig | None = None,
        replication: ReplicationConfig | None = None,
        wall_offset_s: float = 1.7e9,
        state: ReplicaState | None = None,
        age_s: float = 0.0,
        members: tuple[MemberRecord, ...] = (),
        may_find_more: bool = False,
        formats: tuple[int, int] = FORMATS,
        defaults: ConfiguredDefaults | None = None,
        rate_limit: RateLimitConfig | None = None,
        wall_clock: Callable[[], float] | None = None,
        prefix_sync: PrefixSync = PrefixSync.TEXT,
    ) -> MeshNode:
        """Start a node and let it join."""
        where = address or name
        node = MeshNode(
            MeshConfig(
                name=name,
                address=where + PORT,
                cluster_name=cluster,
                gossip=config or GossipConfig(),
                replication=replication or ReplicationConfig(),
                formats=formats,
                defaults=defaults or ConfiguredDefaults(),
                rate_limit=rate_limit or RateLimitConfig(),
                prefix_sync=prefix_sync,
            ),
            rng=random.Random(f"{name} {where} {self.now}"),
            wall_clock=wall_clock or (lambda: self.now + wall_offset_s),
            now=self.now,
        )
        self.nodes[where] = node
        self.events.setdefault(where, [])
        if state is not None:
            node.restore(state, age_s=age_s, now=self.now, members=members)
        node.replica.open("app", type_tag="lww_map")
        where_from = [seed + PORT for seed in seeds]
        node.join(where_from, now=self.now, may_find_more=may_find_more)
        self.pump(where)
        return node

    def kill(self, address: str) -> None:
        """End a node without a word."""
        del self.nodes[address]

    def cut(self, left: str, right: str) -> None:
        """Drop what one side sends to the other."""
        self.cuts.add((left, right))

    def cut_both(self, left: str, right: str) -> None:
        """Drop what either side sends to the other."""
        self.cuts |= {(left, right), (right, left)}

    def pump(self, address: str) -> None:
        """Put a node's frames on their way and keep its events."""
        node = self.nodes[address]
        for packet in node.packets_to_send():
            if self.is_lost(packet.data):
                continue
            self._order += 1
            due = self.now + 0.001 + self._rng.random() * 0.002
            named = packet.destination.removesuffix(PORT)
            target = self.other_names.get(named, named)
            frame = (due, self._order, target, address, packet.data)
            heapq.heappush(self._frames, frame)
        self.events[address] += node.events()

    def _carry(self, target: str, source: str, data: bytes) -> None:
        if (source, target) in self.cuts:
            return
        if target in self.nodes:
            self.nodes[target].receive(data, sender=source, now=self.now)
            self.pump(target)
        elif source in self.nodes and self.is_refusing:
            self.nodes[source].connection_lost(target + PORT, now=self.now, end=LinkEnd.REFUSED)
            self.pump(source)

    def run(self, duration_s: float, *, frozen: tuple[str, ...] = ()) -> None:
        """Let virtual time pass; frozen nodes neither fire timers nor take frames."""
        until = self.now + duration_s
        held = []
        while True:
            deadlines = [
                (deadline, address)
                for address, node in self.nodes.items()
                if address not in frozen and (deadline := node.next_deadline()) is not None
            ]
            due, address = min(deadlines, default=(until, ""))
            if self._frames and self._frames[0][0] <= min(due, until):
                at, order, target, source, data = heapq.heappop(self._frames)
                self.now = max(self.now, at)
                if target in frozen:
                    held.append((until, order, target, source, data))
                else:
                    self._deliver(target, source, data)
            elif due < until:
                self.now = max(self.now, due)
                self.nodes[address].handle_timer(self.now)
                self.pump(address)
            else:
                break
        self.now = until
        for frame in held:
            heapq.heappush(self._frames, frame)

    def run_until(self, condition: Callable[[], bool], *, limit_s: float = 30.0) -> float:
        """Let time pass until a condition holds; return how long it took."""
        start = self.now
        while not condition():
            assert self.now - start < limit_s, "the condition did not come true"
            self.run(0.01)
        return self.now - start

    def view(self, address: str) -> dict[str, str]:
        """Return a node's view: name to status."""
        return {m.name: m.status.value for m in self.nodes[address].members()}

    def versions(self) -> list[dict[str, int]]:
        """Return every node's versions of all members."""
        return [{m.name: m.version for m in n.members()} for n in self.nodes.values()]

    def kinds(self, address: str) -> list[str]:
        """Return the kinds of a node's events, in order."""
        return [type(event).__name__ for event in self.events[address]]

    def put(self, address: str, key: str, value: object) -> None:
        """Write on one node."""
        replica = self.nodes[address].replica
        replica.write(
            "app", lambda state, c: state.set(key, value, stamp=c.stamp(), sequence=c.sequence)
        )
        self.pump(address)

    def content(self, address: str) -> dict[str, object]:
        """Return what a node has of all that was written."""
        state: Any = self.nodes[address].replica.get("app")
        return dict(state.value)

    def values(self, key: str) -> list[object]:
        """Return every node's value of a key, in the order of their addresses."""
        return [self.content(address).get(key) for address in sorted(self.nodes)]
