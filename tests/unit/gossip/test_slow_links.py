"""A state that comes over a slow link: once, and in about the time that its bytes take."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest
from support.mini_network import PORT, MiniNetwork

from meshlib.gossip import MemberDown, MemberSuspected
from meshlib.replication import ReplicationConfig

SHORT_LOG = ReplicationConfig(log_bytes_max=20_000)
"""Whoever joins gets the state, and not the log."""


class SlowLink(MiniNetwork):
    """A network in which frames to and from one host queue for a link of so many bytes a second."""

    def __init__(self, host: str, bytes_per_s: float) -> None:
        super().__init__()
        self._host = host
        self._bytes_per_s = bytes_per_s
        self._free_at: dict[tuple[str, str], float] = {}
        self.carried: Counter[tuple[str, str]] = Counter()

    def pump(self, address: str) -> None:
        """Put a node's frames on their way, each behind those before it."""
        node = self.nodes[address]
        for packet in node.packets_to_send():
            self._order += 1
            target = packet.destination.removesuffix(PORT)
            way, due = (address, target), self.now + 0.002
            if self._host in way:
                begins = max(self.now, self._free_at.get(way, 0.0))
                self._free_at[way] = begins + len(packet.data) / self._bytes_per_s
                due += self._free_at[way] - self.now
                self.carried[way] += len(packet.data)
            heapq.heappush(self._frames, (due, self._order, target, address, packet.data))
        self.events[address] += node.events()


def fill(network: MiniNetwork, count: int, size: int) -> int:
    """Write values that cannot be made smaller; return how many bytes they have."""
    rng = random.Random(3)
    for number in range(count):
        network.put(
            "n0", f"key-{number}", "".join(chr(rng.randrange(33, 120)) for _ in range(size))
        )
        network.run(0.01)
    network.run(3.0)
    return count * size


@pytest.mark.parametrize(("count", "size"), [(150, 1_000), (20, 8_000), (5, 30_000)])
@pytest.mark.parametrize("bytes_per_s", [50_000, 500_000])
def test_a_state_comes_once_over_a_slow_link(count: int, size: int, bytes_per_s: int) -> None:
    """However long its first page takes; whoever asks again does not get it again."""
    network = SlowLink("n2", bytes_per_s)
    for name in ("n0", "n1"):
        network.start(name, replication=SHORT_LOG)
    network.run(3.0)
    state_bytes = fill(network, count, size)
    node = network.start("n2", replication=SHORT_LOG)
    took_s = network.run_until(lambda: node.is_ready, limit_s=60.0)

    assert took_s < 1.2 * state_bytes / bytes_per_s + 0.5
    assert sum(network.carried.values()) < 1.4 * state_bytes
    assert count == len(network.content("n2"))


@pytest.mark.parametrize("holders", [("n0",), ("n0", "n1")])
@pytest.mark.parametrize("log", [SHORT_LOG, ReplicationConfig()], ids=["pages", "entries"])
def test_what_fills_a_slow_link_leaves_room_for_probes(
    holders: tuple[str, ...], log: ReplicationConfig
) -> None:
    """Pages and entries come in small parts there: nobody is suspected, and nothing begins anew."""
    network = SlowLink("n2", 50_000)
    for name in holders:
        network.start(name, seeds=("n0",), replication=log)
    network.run(3.0)
    state_bytes = fill(network, 300, 1_000)
    node = network.start("n2", seeds=("n0",), replication=log)
    took_s = network.run_until(lambda: node.is_ready, limit_s=60.0)
    seen = [event for name in (*holders, "n2") for event in network.events[name]]

    assert took_s < 1.2 * state_bytes / 50_000 + 0.5
    assert sum(network.carried.values()) < 1.4 * state_bytes
    assert not [event for event in seen if isinstance(event, MemberSuspected | MemberDown)]
