"""What nodes say while nothing happens: probes, answers and exchanges in few frames."""

from __future__ import annotations

from copy import copy

import pytest
from support.mini_network import MiniNetwork

REST_S = 20.0


@pytest.mark.parametrize("count", [3, 6, 10])
def test_a_node_at_rest_sends_under_600_bytes_a_second(network: MiniNetwork, count: int) -> None:
    """As many probes as ever, two a second, and an exchange about every second."""
    for index in range(count):
        network.start(f"n{index}")
    network.run(5.0)
    before = [copy(node.counters) for node in network.nodes.values()]
    network.run(REST_S)
    after = [node.counters for node in network.nodes.values()]
    share = 1 / REST_S / count

    def rate(name: str) -> float:
        """Return how much of something a node does in a second."""
        total: float = sum(
            getattr(late, name) - getattr(early, name)
            for early, late in zip(before, after, strict=True)
        )
        return share * total

    assert rate("bytes_sent") < 600
    assert rate("frames_sent") < 4.0
    assert 1.9 <= rate("probes_sent") <= 2.1
    assert 0.8 <= rate("exchanges_started") <= 1.2
