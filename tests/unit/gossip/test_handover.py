"""A node that leaves does not take along what nobody else has."""

from __future__ import annotations

from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig, LeaveDelayed, NodeState
from meshlib.node import MeshNode

PAIR = ("n0", "n1")


def drain(network: MiniNetwork, name: str) -> MeshNode:
    """Let a node say that it is about to leave."""
    node = network.nodes[name]
    node.drain(now=network.now)
    network.pump(name)
    return node


def hold_all(network: MiniNetwork, name: str) -> MeshNode:
    """Start a node alone that has 40 keys of 60,000 bytes."""
    node = network.start(name, seeds=())
    for index in range(40):
        network.put(name, f"key-{index}", "x" * 60_000)
    return node


def count(network: MiniNetwork, name: str) -> int:
    """Return how many keys a node has."""
    return len(network.content(name))


def test_a_node_alone_may_go_at_once(network: MiniNetwork) -> None:
    """There is nobody to hand anything to."""
    hold_all(network, "n0")

    assert drain(network, "n0").has_handed_over


def test_a_node_with_nothing_may_go_at_once(network: MiniNetwork) -> None:
    """There is nothing to hand over."""
    for name in PAIR:
        network.start(name, seeds=PAIR)
    network.run(1.0)

    assert drain(network, "n1").has_handed_over


def test_a_node_whose_peers_have_all_goes_after_one_round_trip(trio: MiniNetwork) -> None:
    """They are asked, for what they said before may be of another time."""
    trio.put("n0", "key", 1)
    trio.run(1.0)
    node = drain(trio, "n0")
    at_once = node.has_handed_over
    trio.run(0.05)

    assert (at_once, node.has_handed_over, node.state) == (False, True, NodeState.DRAINING)


def test_what_a_node_writes_while_it_leaves_is_handed_over_too(trio: MiniNetwork) -> None:
    """What it mends itself, or took at the last moment, is nowhere else."""
    trio.put("n0", "key", 1)
    trio.run(1.0)
    node = drain(trio, "n0")
    trio.is_lost = lambda frame: b"late" in frame
    trio.put("n0", "late", 2)
    at_once = node.has_handed_over
    trio.run(2.0)
    while_lost = node.has_handed_over
    trio.is_lost = lambda _frame: False
    trio.run_until(lambda: node.has_handed_over)

    assert (at_once, while_lost) == (False, False)
    assert trio.content("n1").get("late") == trio.content("n2").get("late") == 2


def test_the_only_holder_waits_for_a_newcomer_that_is_not_ready(network: MiniNetwork) -> None:
    """It says so, and goes once all is there and the other is ready."""
    hold_all(network, "n0")
    network.is_lost = lambda frame: b"app" in frame  # neither entries nor pages arrive
    network.start("n1", seeds=PAIR)
    network.run(1.0)
    node = drain(network, "n0")
    network.run(5.0)
    waits = not node.has_handed_over
    network.is_lost = lambda _frame: False
    network.run_until(lambda: node.has_handed_over)

    assert waits
    assert [e for e in network.events["n0"] if isinstance(e, LeaveDelayed)] == [
        LeaveDelayed(peers=("n1",))
    ]
    assert (count(network, "n1"), network.nodes["n1"].is_ready) == (40, True)


def test_ready_peers_that_have_less_are_no_reason_to_go(network: MiniNetwork) -> None:
    """Two began beside a third that could not be reached; it leaves as soon as it can."""
    names = ("n0", "n1", "n2")
    hold_all(network, "n2")
    for other in names[:2]:
        network.cut_both("n2", other)
    for name in names[:2]:
        network.start(name, seeds=names)
    network.run(13.0)
    network.cuts.clear()
    network.run_until(lambda: len(network.nodes["n2"].members()) == 3)
    node = drain(network, "n2")
    early = node.has_handed_over
    network.run_until(lambda: node.has_handed_over)

    assert not early
    assert max(count(network, name) for name in names[:2]) == 40


def test_two_that_leave_at_once_do_not_count_on_each_other(network: MiniNetwork) -> None:
    """The third one, which is not ready yet, is waited for by both."""
    names = ("n0", "n1", "n2")
    hold_all(network, "n0")
    network.start("n1", seeds=names)
    network.run(3.0)
    network.is_lost = lambda frame: b"app" in frame
    network.start("n2", seeds=names)
    network.run(1.0)
    leaving = [drain(network, name) for name in names[:2]]
    network.run(3.0)
    early = [node.has_handed_over for node in leaving]
    network.is_lost = lambda _frame: False
    network.run_until(lambda: all(node.has_handed_over for node in leaving))

    assert early == [False, False]
    assert count(network, "n2") == 40


def test_all_that_leave_at_once_wait_for_nobody(trio: MiniNetwork) -> None:
    """The whole cluster ends: there is nobody to leave anything to."""
    trio.put("n0", "key", 1)
    trio.run(1.0)
    leaving = [drain(trio, name) for name in ("n0", "n1", "n2")]
    trio.run(0.05)

    assert [node.has_handed_over for node in leaving] == [True] * 3


def test_a_peer_that_died_is_waited_for_until_it_is_down_and_no_longer(
    network: MiniNetwork,
) -> None:
    """Its silence is found out by the failure detector."""
    for name in PAIR:
        network.start(name, seeds=("n0",))
    network.run(3.0)
    network.put("n0", "key", 1)
    network.kill("n1")
    network.is_refusing = False
    node = drain(network, "n0")
    early = node.has_handed_over
    network.run_until(lambda: node.has_handed_over, limit_s=6.0)

    assert not early


def test_a_leaving_node_can_still_be_synced_from(network: MiniNetwork) -> None:
    """A newcomer that meets only it takes its state, and is ready."""
    config = GossipConfig(bootstrap_after_s=0)
    hold_all(network, "n0")
    drain(network, "n0")
    network.start("n1", seeds=PAIR, config=config)
    network.run(2.0)

    assert network.nodes["n1"].is_ready
    assert count(network, "n1") == 40


def test_a_survivor_that_comes_back_from_being_alone_leaves_nothing_behind(
    network: MiniNetwork,
) -> None:
    """It is told to leave while it is a new writer that waits for the others' state."""
    config = GossipConfig(forget_after_s=40.0)
    for name in PAIR:
        network.start(name, seeds=("n0",), config=config)
    network.run(3.0)
    network.put("n0", "key", 1)
    network.run(1.0)
    network.kill("n1")
    network.run(30.0)
    network.start("n1", seeds=PAIR, config=config)
    network.run(0.5)
    node = drain(network, "n0")
    early = node.has_handed_over
    network.run_until(lambda: node.has_handed_over)

    assert "IdentityRenewed" in network.kinds("n0")
    assert not early
    assert network.values("key") == [1, 1]
