"""The first decisions of a cluster whose nodes start together: its owners have no votes yet."""

from __future__ import annotations

from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig

NAMES = ("n0", "n1", "n2")
SOON = GossipConfig(bootstrap_after_s=0.2)


def test_the_first_confirmed_calls_of_a_cluster_are_admitted() -> None:
    """They wait until owners can have their first votes, and are no refusals of nobody's."""
    network = MiniNetwork()
    for name in NAMES:
        network.start(name, seeds=NAMES, config=SOON)
    network.run_until(lambda: all(node.is_ready for node in network.nodes.values()))
    for number in range(12):
        network.nodes["n0"].sync.limits.set(f"key-{number}", 7)
    network.run_until(
        lambda: all(len(node.sync.limits.keys()) >= 12 for node in network.nodes.values())
    )
    tickets = [
        network.nodes[name].limiter.ask(f"key-{number}", now=network.now)
        for number in range(12)
        for name in NAMES
    ]
    for name in NAMES:
        network.pump(name)
    network.run(4.0)

    decisions = [ticket.decision for ticket in tickets]
    assert [(True, True)] * len(tickets) == [
        (decision.allowed, decision.confirmed) for decision in decisions if decision is not None
    ]


def test_a_node_whose_peers_are_gone_waits_no_longer_than_configured() -> None:
    """Once its first moments are over: then it is cut off, and says so."""
    network = MiniNetwork()
    for name in NAMES:
        network.start(name, seeds=NAMES, config=SOON)
    network.nodes["n0"].sync.limits.set("key", 7)
    network.run(5.0)
    network.cut_both("n0", "n1")
    network.cut_both("n0", "n2")
    network.run(3.0)
    ticket = network.nodes["n0"].limiter.ask("key", now=network.now)
    network.pump("n0")
    network.run(0.6)

    assert ticket.decision is not None
    assert not ticket.decision.confirmed
