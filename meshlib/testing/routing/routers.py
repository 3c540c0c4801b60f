"""A cluster of routers under a virtual clock: real nodes over the simulated network."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any, Final

from meshlib.node import MeshConfig, MeshNode
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.network import Cut, SimulatedNetwork
from meshlib.testing.world.scenario import NetworkFaults

__all__ = ["RouterCluster"]

READY_WITHIN_S: Final = 60.0


class RouterCluster:
    """Routers, their network and their clock.

    Args:
        count: how many routers.
        seed: all chance comes from it.
        loss: share of the packets between routers that are lost.
    """

    def __init__(self, count: int, *, seed: int = 0, loss: float = 0.0) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._seed = seed
        self._loss = loss
        self.network = SimulatedNetwork(
            NetworkFaults(),
            rng=random.Random(f"{seed}/network"),
            schedule=self.schedule,
            deliver=self._deliver,
            refused=self._refused,
            busy=self._busy,
        )
        self.hosts = [
            Host(f"r{number}", f"r{number}", f"10.0.0.{number}:7946", origin_s=0.0, index=number)
            for number in range(count)
        ]
        self._by_address = {host.address: host for host in self.hosts}

    # Time

    def schedule(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action(now, *arguments)` at a simulated time; not before the present one."""
        self._order += 1
        heapq.heappush(self._heap, (max(at_s, self.now), self._order, action, arguments))

    def advance(self, until_s: float) -> None:
        """Let everything happen up to a simulated time."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            at_s, _, action, arguments = heapq.heappop(heap)
            self.now = at_s
            action(at_s, *arguments)
        self.now = until_s

    def start(self) -> None:
        """Start all routers, wait until they know each other, and let the loss begin."""
        for host in self.hosts:
            self.start_router(host)
        while not all(host.node is not None and host.node.is_ready for host in self.hosts):
            if self.now > READY_WITHIN_S:
                raise RuntimeError("the routers did not become ready")
            self.advance(self.now + 0.5)
        self.advance(self.now + 1.0)
        self.network.faults = NetworkFaults(loss=self._loss)

    # Routers

    def start_router(self, host: Host) -> None:
        """Start a router's process."""
        host.start_count += 1
        host.simulated_now = self.now
        host.node = MeshNode(
            MeshConfig(name=host.name, address=host.address),
            rng=host.rng(self._seed),
            wall_clock=host.wall_clock,
            now=host.monotonic(self.now),
        )
        self.network.add_address(host.address)
        seeds = [self.hosts[0].address, self.hosts[-1].address]
        self.use(host, lambda node, local: node.join(seeds, now=local))

    def crash(self, host: Host) -> None:
        """End a router's process at once."""
        senders = self.network.close_links(host.address)
        host.stop()
        for sender in senders:
            self.schedule(self.now + 0.001, self._refused, sender, host.address)

    def partition(self, side: list[Host]) -> tuple[Cut, Cut]:
        """Cut some routers off from the others; return what `heal` takes."""
        inside = frozenset(host.address for host in side)
        outside = frozenset(self._by_address) - inside
        return self.network.cut(inside, outside), self.network.cut(outside, inside)

    def heal(self, cuts: tuple[Cut, Cut]) -> None:
        """End a partition."""
        for cut in cuts:
            self.network.heal(cut)

    def use(self, host: Host, action: Callable[[MeshNode, float], Any]) -> Any:
        """Do something with a router's node, and send what comes of it; return its result."""
        host.simulated_now = self.now
        node: MeshNode = host.node
        result = action(node, host.monotonic(self.now))
        for packet in node.packets_to_send():
            self.network.send(host.address, packet.destination, packet.data, self.now)
        node.events()
        self._arm(host)
        return result

    def _arm(self, host: Host) -> None:
        deadline = host.node.next_deadline()
        if deadline is None:
            return
        due = host.simulated(deadline)
        if host.armed_at is None or due < host.armed_at:
            host.armed_at = max(due, self.now)
            self.schedule(due, self._timer, host, host.start_count, host.armed_at)

    def _timer(self, now: float, host: Host, start_count: int, armed_at: float) -> None:
        if host.start_count != start_count or host.node is None or host.armed_at != armed_at:
            return
        host.armed_at = None
        deadline = host.node.next_deadline()
        due = now if deadline is None or deadline - now > 1e-6 else max(now, deadline)
        self.use(host, lambda node, _: node.handle_timer(due))

    def _deliver(self, _now: float, address: str, data: bytes, sender: str) -> bool:
        host = self._by_address[address]
        if host.node is None:
            return False
        self.use(host, lambda node, local: node.receive(data, sender=sender, now=local))
        return True

    def _refused(self, _now: float, sender: str, address: str) -> None:
        host = self._by_address[sender]
        if host.node is not None:
            self.use(host, lambda node, local: node.connection_lost(address, now=local))

    def _busy(self, _now: float, sender: str, address: str, is_busy: bool) -> None:
        host = self._by_address[sender]
        if host.node is not None:
            self.use(host, lambda node, local: node.link_state(address, is_busy=is_busy, now=local))
