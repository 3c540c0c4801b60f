"""Contents that differ at equal vectors, as a transfer that broke off leaves them: evened out."""

from __future__ import annotations

from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.crdt import LWWMap
from meshlib.gossip import GossipConfig

NAMES = ("n0", "n1", "n2")
EACH_TIME = GossipConfig(content_check_period=1)


def values(network: MiniNetwork) -> list[dict[str, Any]]:
    """Return what each node holds."""
    return [network.nodes[name].replica.get("app").value for name in NAMES]  # type: ignore[attr-defined]


def slip_in(network: MiniNetwork, name: str, key: str, value: object) -> None:
    """Put a write that another node made into a node's content, and into no vector."""
    maker = network.nodes["n2" if name != "n2" else "n1"].replica
    stamp = maker.clock.tick()
    delta: LWWMap[str, Any] = LWWMap[str, Any]().set(key, value, stamp=stamp, sequence=10_000)
    network.nodes[name].replica._served.documents.get("app").absorb(delta)


@pytest.mark.parametrize("name", NAMES)
def test_content_that_no_vector_counts_is_everywhere_soon(name: str) -> None:
    """It is told as a difference, repaired, and no difference any more."""
    network = MiniNetwork()
    for each in NAMES:
        network.start(each, seeds=NAMES, config=EACH_TIME)
    network.run_until(lambda: all(node.is_ready for node in network.nodes.values()))
    network.put("n0", "key", 1)
    network.run(2.0)
    slip_in(network, name, "slipped in", 2)
    network.run(20.0)

    assert [{"key": 1, "slipped in": 2}] * 3 == values(network)
    assert any("StateDiverged" in network.kinds(each) for each in NAMES)
    assert all(not node._engine.diverged_from() for node in network.nodes.values())


def test_equal_content_is_no_difference() -> None:
    """However often it is compared."""
    network = MiniNetwork()
    for each in NAMES:
        network.start(each, seeds=NAMES, config=EACH_TIME)
    network.put("n1", "key", 1)
    network.run(20.0)

    assert all("StateDiverged" not in network.kinds(each) for each in NAMES)
