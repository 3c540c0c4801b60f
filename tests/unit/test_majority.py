"""Who counts for the majority in whole clusters, and what limits do where there is none."""

from __future__ import annotations

import pytest
from support.mini_network import PORT, MiniNetwork

from meshlib.errors import UnknownKeyError
from meshlib.gossip import GossipConfig, NodeState
from meshlib.node import HealthStatus, MeshNode
from meshlib.state import ConfiguredDefaults

LIMIT = 60
SOON = GossipConfig(bootstrap_after_s=1.0)


def start(
    network: MiniNetwork, *names: str, seeds: tuple[str, ...], config: GossipConfig = SOON
) -> None:
    """Start nodes with a limit in their files."""
    defaults = ConfiguredDefaults(limits={"k": LIMIT})
    for name in names:
        network.start(name, seeds=seeds, config=config, defaults=defaults)


def whole(network: MiniNetwork, *names: str) -> bool:
    """Tell whether each of some nodes sees a majority."""
    return all(network.nodes[name].health().partition.has_quorum for name in names)


def confirmed(network: MiniNetwork, *names: str) -> int:
    """Ask at each of some nodes for more than the limit within one window; return what passes."""
    network.run(2.0 - network.now % 1.0)
    tickets = []
    for _ in range(8):
        for name in names:
            node = network.nodes[name]
            tickets += [node.limiter.ask("k", now=network.now) for _ in range(LIMIT // 4)]
            network.pump(name)
        network.run(0.05)
    decided = [ticket.decision for ticket in tickets if ticket.decision is not None]
    return sum(decision.allowed and decision.confirmed for decision in decided)


def at_once(network: MiniNetwork, name: str) -> int:
    """Ask a node that reaches nobody for more than the limit; return what passes."""
    node: MeshNode = network.nodes[name]
    return sum(node.acquire("k", now=network.now).allowed for _ in range(2 * LIMIT))


def test_a_node_whose_seed_never_answers_admits_its_part() -> None:
    """It was told of two, itself and one; it says that it is alone, and is not called cut off."""
    network = MiniNetwork()
    start(network, "n1", seeds=("n0",))
    early = at_once(network, "n1")
    network.run(5.0)
    node = network.nodes["n1"]

    assert (LIMIT // 2, LIMIT // 2) == (early, at_once(network, "n1"))
    assert NodeState.ISOLATED is node.state
    assert HealthStatus.DEGRADED is node.health().status
    assert 0 == confirmed(network, "n1")


def test_a_node_without_seeds_admits_the_whole_limit() -> None:
    """It is the cluster."""
    network = MiniNetwork()
    start(network, "n0", seeds=())
    network.run(1.0)

    assert LIMIT == at_once(network, "n0")


def test_two_of_three_confirm_while_the_third_has_not_started() -> None:
    """The limit, and no more; the third joins them later."""
    names = ("n0", "n1", "n2")
    network = MiniNetwork()
    start(network, "n0", "n1", seeds=names)
    network.run(8.0)
    two = confirmed(network, "n0", "n1")
    start(network, "n2", seeds=names)
    network.run(8.0)

    assert LIMIT == two
    assert LIMIT == confirmed(network, *names)


def test_seeds_that_are_other_names_of_members_are_met() -> None:
    """This node's own among them: three nodes know themselves for whole."""
    network = MiniNetwork()
    names = ("n0", "n1", "n2")
    network.other_names = {f"router-{name}": name for name in names}
    start(network, *names, seeds=tuple(network.other_names))
    network.run(8.0)
    counts = [network.nodes[name].health().partition.quorum_of for name in names]
    network.kill("n2")
    network.run(8.0)

    assert [3, 3, 3] == counts
    assert whole(network, "n0", "n1")


def test_a_service_before_all_is_met_once_anybody_answers() -> None:
    """Whoever it is."""
    network = MiniNetwork()
    start(network, "n0", seeds=())
    network.other_names = {"service": "n0"}
    start(network, "n1", "n2", seeds=("service",))
    network.run(8.0)

    assert [3, 3, 3] == [n.health().partition.quorum_of for n in network.nodes.values()]


def test_a_side_that_began_anew_behind_a_cut_is_no_majority() -> None:
    """Its nodes have forgotten the others, and were told of them."""
    network = MiniNetwork()
    names = ("n0", "n1", "n2", "n3", "n4")
    start(network, *names, seeds=names)
    network.run(8.0)
    for left in names[:2]:
        for right in names[2:]:
            network.cut_both(left, right)
    for name in names[:2]:
        network.kill(name)
    start(network, *names[:2], seeds=names)
    network.run(10.0)

    assert [False, True] == [whole(network, *names[:2]), whole(network, *names[2:])]
    assert ["ready", "ready"] == [network.nodes[name].state.value for name in names[:2]]
    assert "no majority: 3 of 5" in network.nodes["n0"].health().problems[-1]
    assert LIMIT == confirmed(network, *names)


def test_nodes_that_expect_more_than_are_there_are_no_majority() -> None:
    """Also when they know of nobody else any more."""
    network = MiniNetwork()
    expecting = GossipConfig(bootstrap_after_s=1.0, bootstrap_expect=3)
    names = ("n0", "n1", "n2")
    start(network, *names, seeds=("n0",), config=expecting)
    network.run(8.0)
    network.kill("n1")
    network.kill("n2")
    network.run(30.0)
    network.nodes["n0"].forget("n1")
    network.nodes["n0"].forget("n2")
    network.run(1.0)

    assert not whole(network, "n0")
    assert 0 == confirmed(network, "n0")


def test_a_seed_that_is_forgotten_is_not_awaited_any_longer() -> None:
    """On no node; a member that comes from there after all is one like any other."""
    network = MiniNetwork()
    names = ("n0", "n1", "n2", "n3")
    start(network, "n0", "n1", seeds=names)
    network.run(8.0)
    early = whole(network, "n0")
    for name in ("n2", "n3"):
        network.nodes["n0"].forget(name + PORT)
    network.pump("n0")
    network.run(1.0)
    later = whole(network, "n0", "n1")
    start(network, "n2", seeds=names)
    network.run(8.0)

    assert (False, True) == (early, later)
    assert [3] * 3 == [n.health().partition.quorum_of for n in network.nodes.values()]


def test_only_a_seed_that_was_never_met_can_be_forgotten() -> None:
    """Not one whose member is there."""
    network = MiniNetwork()
    start(network, "n0", "n1", seeds=("n0", "n1"))
    network.run(8.0)

    with pytest.raises(UnknownKeyError):
        network.nodes["n0"].forget("n1" + PORT)


def test_a_seed_is_asked_who_it_is_only_until_that_is_known() -> None:
    """Whoever is dialled later is not asked."""
    network = MiniNetwork()
    start(network, "n0", "n1", seeds=("n0", "n1"))
    network.run(8.0)

    assert () == network.nodes["n1"].diagnostics()["told"]["unmet"]
    assert ["n0" + PORT] == list(network.nodes["n1"].diagnostics()["told"]["met"])


def restart(network: MiniNetwork, *names: str, seeds: tuple[str, ...] = ("n0",)) -> None:
    """End nodes without a word, and start them with what they had kept."""
    kept = {name: network.nodes[name] for name in names}
    for name in names:
        network.kill(name)
    for name, node in kept.items():
        state, members = node.export_state(), node.counted_members()
        network.start(name, seeds=seeds, config=SOON, state=state, members=members)


def five(network: MiniNetwork) -> tuple[str, ...]:
    """Start five nodes that know each other by one seed."""
    names = ("n0", "n1", "n2", "n3", "n4")
    start(network, *names, seeds=("n0",))
    network.run(8.0)
    return names


def test_a_side_that_restarts_as_a_whole_behind_a_cut_has_no_majority() -> None:
    """It remembers the others; once they have met, all of them are whole."""
    network = MiniNetwork()
    names = five(network)
    sides = names[:2], names[2:]
    for left in sides[0]:
        for right in sides[1]:
            network.cut_both(left, right)
    network.run(20.0)
    restart(network, *sides[0])
    network.run(20.0)
    apart = [whole(network, name) for name in names]
    network.cuts.clear()
    network.run(20.0)

    assert [False, False, True, True, True] == apart
    assert [True] * 5 == [whole(network, name) for name in names]
    assert all(not node.health().problems for node in network.nodes.values())


def test_a_whole_cluster_that_restarts_at_once_is_whole_again() -> None:
    """Whoever is remembered is met; nobody is suspected on the way, and each counts once."""
    network = MiniNetwork()
    names = five(network)
    restart(network, *names)
    network.run(8.0)

    assert [5] * 5 == [network.nodes[name].health().partition.quorum_of for name in names]
    assert all(whole(network, name) for name in names)
    kinds = {type(event).__name__ for name in names for event in network.events[name]}
    assert not kinds & {"MemberDown", "MemberSuspected"}


def test_a_node_without_seeds_finds_those_that_it_remembers() -> None:
    """They are dialled, as is everybody who is out of reach."""
    network = MiniNetwork()
    start(network, "n0", seeds=())
    start(network, "n1", seeds=("n0",))
    network.run(5.0)
    restart(network, "n0", seeds=())
    network.run(30.0)

    assert network.view("n0") == {"n0": "Alive", "n1": "Alive"}


def test_who_is_remembered_and_does_not_come_back_is_written_off_by_name() -> None:
    """Until then it is awaited, as if it had gone while the node ran."""
    network = MiniNetwork()
    names = ("n0", "n1", "n2")
    start(network, *names, seeds=("n0",))
    network.run(8.0)
    network.is_refusing = False
    network.kill("n1")
    network.kill("n2")
    restart(network, "n0")
    network.run(5.0)
    node = network.nodes["n0"]
    before = node.health().partition
    node.forget("n1")
    node.forget("n2")
    after = node.health().partition

    assert (False, 3, ("n1", "n2")) == (before.has_quorum, before.quorum_of, before.unreachable)
    assert (True, 1) == (after.has_quorum, after.quorum_of)
    with pytest.raises(UnknownKeyError):
        node.forget("nobody")


def test_who_left_while_a_node_was_down_is_not_awaited_by_it() -> None:
    """Who is met knows how they went."""
    network = MiniNetwork()
    five(network)
    state, members = network.nodes["n4"].export_state(), network.nodes["n4"].counted_members()
    network.kill("n4")
    network.run(3.0)
    for name in ("n1", "n2", "n3"):
        network.nodes[name].leave(now=network.now)
        network.pump(name)
        network.run(0.1)
        network.kill(name)
    network.run(5.0)
    network.start("n4", seeds=("n0",), config=SOON, state=state, members=members)
    network.run(5.0)

    assert ("n0", "n1", "n2", "n3") == tuple(member.name for member in members)
    assert 2 == network.nodes["n4"].health().partition.quorum_of
    assert whole(network, "n0", "n4")


def test_who_was_replaced_by_others_is_not_awaited() -> None:
    """As many are in reach as were known."""
    network = MiniNetwork()
    start(network, "n0", "n1", "n2", seeds=("n0",))
    network.run(8.0)
    network.kill("n2")
    network.run(3.0)
    restart(network, "n0", seeds=("n1",))
    start(network, "n3", seeds=("n1",))
    network.run(8.0)

    assert 3 == network.nodes["n0"].health().partition.quorum_of


def test_a_seed_under_another_name_and_who_is_remembered_there_count_once() -> None:
    """Of three of which one does not come back, two are a majority."""
    network = MiniNetwork()
    names = ("n0", "n1", "n2")
    aliases = tuple(f"alias-{name}" for name in names)
    network.other_names = dict(zip(aliases, names, strict=True))
    start(network, *names, seeds=aliases)
    network.run(8.0)
    network.kill("n2")
    restart(network, "n0", "n1", seeds=aliases)
    network.run(8.0)

    assert [3, 3] == [network.nodes[name].health().partition.quorum_of for name in names[:2]]
    assert whole(network, "n0", "n1")
