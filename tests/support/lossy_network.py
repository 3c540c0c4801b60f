"""A small network whose links lose packets and send them again, as TCP does."""

from __future__ import annotations

import heapq
import random
from collections import Counter

from support.mini_network import PORT, MiniNetwork

FIRST_RETRY_S = 0.2
"""Linux waits no less before it sends again what was not acknowledged."""

STALL_S = 10.0
"""See `LinkConfig.stall_s`: a link on which nothing was acknowledged for so long is broken."""

NODES = 5


class LossyNetwork(MiniNetwork):
    """Five nodes; a try that is lost is made again after twice the time, and holds up the rest.

    With `loss` at 0.35 this is as real links are with a quarter of the packets lost each way, for
    acknowledgements are lost as well: 450 suspicions in 25 minutes of nodes and 6 times Down, where
    nodes in network namespaces had 530 and 12.

    Args:
        seed: of all chance.
        loss: probability that a try is lost, once the nodes have met; 0 to 1.
        retry_max_s: the longest wait between two tries.
    """

    def __init__(self, seed: int, *, loss: float, retry_max_s: float = 120.0) -> None:
        super().__init__()
        self._rng = random.Random(seed)
        self._loss = 0.0
        self._retry_max_s = retry_max_s
        self._free_at: dict[tuple[str, str], float] = {}
        self.is_refusing = False
        for index in range(NODES):
            self.start(f"n{index}")
        self.run(3.0)
        self._loss = loss

    def pump(self, address: str) -> None:
        """Put a node's frames behind those that its links still carry, and keep its events."""
        node = self.nodes[address]
        for packet in node.packets_to_send():
            target = packet.destination.removesuffix(PORT)
            arrival = max(self.now, self._free_at.get((address, target), 0.0))
            wait_s = FIRST_RETRY_S
            while self._rng.random() < self._loss:
                arrival += wait_s
                wait_s = min(self._retry_max_s, 2 * wait_s)
            self._free_at[address, target] = min(arrival, self.now + STALL_S)
            if arrival > self.now + STALL_S:
                continue  # the link breaks, and what waits on it is lost
            self._order += 1
            due = arrival + 0.001 + self._rng.random() * 0.002
            heapq.heappush(self._frames, (due, self._order, target, address, packet.data))
        self.events[address] += node.events()

    def counts(self) -> Counter[str]:
        """Return how often each kind of event was told, on all nodes together."""
        return Counter(kind for name in self.nodes for kind in self.kinds(name))

    def run_until_down(self, name: str) -> float:
        """End a node without a word; return after how many seconds it is Down on all others."""
        self.kill(name)
        return self.run_until(
            lambda: all(self.view(other)[name] == "Down" for other in self.nodes), limit_s=60.0
        )
