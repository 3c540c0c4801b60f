"""What is not sent, because it need not be: suspicions, states, greetings."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig, decode_frame
from meshlib.gossip.messages.kinds import ExchangeRequest
from meshlib.replication.vector import MARK


def test_a_probe_asks_again_before_it_suspects(trio: MiniNetwork) -> None:
    """The first pings and those of the helper get lost; a later one is answered in time."""
    for prober in ("n0", "n1"):
        trio.cut(prober, "n2")
    detector = trio.nodes["n0"]._engine._parts.detector
    detector.probe("n2", trio.now)
    trio.pump("n0")
    trio.run(0.25)
    trio.cuts.clear()
    trio.run(0.4)

    assert trio.nodes["n0"].counters.probes_failed == 0
    assert trio.nodes["n0"].counters.suspicions_raised == 0


def test_a_peer_learns_whom_to_forget_before_it_is_sent_state(trio: MiniNetwork) -> None:
    """One forgets a writer that is gone, and asks the others first: none needs its state."""
    trio.put("n2", "key", 1)
    trio.run(2.0)
    gone = trio.nodes["n2"].actor
    trio.kill("n2")
    trio.start("n2")
    trio.run(3.0)
    before = sum(node.counters.transfers_sent for node in trio.nodes.values())
    trio.nodes["n0"].replica.forget(gone)
    for other in ("n1", "n2"):
        trio.nodes["n0"]._engine._parts.anti_entropy.begin(other, trio.now)
    trio.pump("n0")
    trio.run(0.05)

    assert [gone in node.replica.version_vector for node in trio.nodes.values()] == [False] * 3
    assert sum(node.counters.transfers_sent for node in trio.nodes.values()) == before
    assert trio.values("key") == [1, 1, 1]


@pytest.mark.slow
def test_a_newcomer_to_a_large_cluster_greets_its_neighbours_only(network: MiniNetwork) -> None:
    """It does not begin an exchange with each of forty."""
    for index in range(40):
        network.start(f"n{index}")
        network.run(0.05)
    network.run(4.0)
    asked: set[str] = set()
    deliver = network._deliver

    def noting(target: str, source: str, data: bytes) -> None:
        messages = decode_frame(data, cluster="mesh").messages
        if source == "zz" and any(isinstance(message, ExchangeRequest) for message in messages):
            asked.add(target)
        deliver(target, source, data)

    network._deliver = noting
    newcomer = network.start("zz")
    network.run(0.02)

    assert len(newcomer.members()) == 41
    assert asked
    assert asked <= {*newcomer._engine._parts.view.neighbours(), "n0"}
    assert len(asked) < 20


def test_whom_a_node_waits_for_before_it_forgets_a_writer_is_asked(network: MiniNetwork) -> None:
    """It forgot the writer with less, long ago: it may have more by now, so its turn is now."""
    quiet = GossipConfig(exchange_interval_s=1000.0)
    for name in ("n0", "n1", "n2"):
        network.start(name, config=quiet)
    network.put("n2", "key", 1)
    network.run(2.0)
    gone = network.nodes["n2"].actor
    network.kill("n2")
    network.start("n2", config=quiet)
    network.run(3.0)
    node = network.nodes["n0"]
    tracker, vector = node._engine._parts.tracker, dict(node.replica.version_vector)
    tracker.observe(
        "n2",
        {gone: MARK | vector[gone] - 1},
        actor=network.nodes["n2"].actor,
        our_vector=vector,
        now=network.now - 1000.0,
    )
    assert tracker.forgot_with_less(["n2"], gone, vector[gone]) == ("n2",)
    network.nodes["n1"].replica.forget(gone)
    network.nodes["n1"]._engine._parts.anti_entropy.begin("n0", network.now)
    network.pump("n1")
    network.run(0.05)

    assert tracker.forgot_with_less(["n2"], gone, vector[gone]) == ()
