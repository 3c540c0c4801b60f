"""A node whose process seldom gets a processor, and finds what came meanwhile: whom it accuses.

In virtual time: a production node behind a production driver, among nodes that have all the time
they want. The driver's steps cost time, and now and then there is no processor for them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.aio import NodeDriver, TransportCounters
from meshlib.gossip import Event, Packet

pytestmark = pytest.mark.anyio

FRAME_COST_S = 0.01
"""What a frame takes a slow machine."""


class Starved:
    """Stands in a `MiniNetwork` where a node does, and drives it when there is a processor.

    Args:
        network: supplies the time.
        node: what is driven.
        turns: draws for how long there is a processor, and then none, in seconds.
    """

    def __init__(self, network: MiniNetwork, node: Any, turns: random.Random) -> None:
        self._network = network
        self._node = node
        self._turns = turns
        self._spent_s = 0.0
        self._free_at = network.now
        self._ends_at = network.now + 1.0
        self._packets: list[Packet] = []
        self._events: list[Event] = []
        self.waiting_max = 0
        self.address = ""
        self.counters = TransportCounters()
        self.driver = NodeDriver(self, on_step=self._on_step, clock=self._clock)
        self.driver.attach(node)
        self._receive, node.receive = node.receive, self._receive_slowly

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def _clock(self) -> float:
        return self._network.now + self._spent_s

    def _receive_slowly(self, data: bytes, *, sender: str, now: float) -> None:
        self._spent_s += FRAME_COST_S
        self._receive(data, sender=sender, now=now)

    # What the network asks of a node

    def receive(self, data: bytes, *, sender: str, now: float) -> None:
        self.driver.frame_received(data, sender)
        self.waiting_max = max(self.waiting_max, len(self.driver._frames))

    def connection_lost(self, *_given: Any, **_more: Any) -> None:
        """Nobody ends here."""

    def next_deadline(self) -> float | None:
        due = self._network.now if self.driver._wake.is_set() else self._node.next_deadline()
        return None if due is None else max(due, self._free_at)

    def handle_timer(self, now: float) -> None:
        self._spent_s = 0.0
        self.driver.step()
        self._free_at = now + self._spent_s
        if self._free_at >= self._ends_at:
            self._free_at += self._turns.uniform(0.1, 0.5)
            self._ends_at = self._free_at + self._turns.uniform(0.2, 0.6)

    def packets_to_send(self) -> list[Packet]:
        packets, self._packets = self._packets, []
        return packets

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # What the driver asks of a transport

    def send(self, address: str, data: bytes) -> bool:
        self._packets.append(Packet(address, data))
        return True

    def drop_link(self, address: str) -> None: ...

    def end_pause(self, address: str) -> None: ...

    def close_sender(self, sender: str, *, reason: object = None) -> None: ...

    def _on_step(self, events: Sequence[Event]) -> None:
        self._events += events


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
async def test_a_starved_node_that_is_behind_accuses_nobody(seed: int) -> None:
    """Answers wait among hundreds of frames: they are heard before their senders are judged."""
    network = MiniNetwork()
    *others, name = names = ("n0", "n1", "n2", "n3")
    for each in names:
        network.start(each)
    network.run(3.0)
    starved = Starved(network, network.nodes[name], random.Random(seed))
    network.nodes[name] = starved  # type: ignore[assignment]
    for _ in range(6):
        for number in range(150):
            network.put(others[number % 3], f"key-{number % 50}", number)
            network.run(0.005)
        network.run(3.25)

    network.run_until(lambda: network.content("n0") == network.content(name))

    assert starved.waiting_max > 200
    assert "MemberSuspected" not in network.kinds(name)
    assert [] == [each for each in names if "MemberDown" in network.kinds(each)]
