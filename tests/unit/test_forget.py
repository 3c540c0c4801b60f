"""Members that are gone: how long they worry, and how they are forgotten."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.errors import MemberInReachError, UnknownKeyError
from meshlib.gossip import GossipConfig, LinkEnd
from meshlib.membership import MemberStatus
from meshlib.node import HealthStatus


def cluster(count: int, config: GossipConfig | None = None) -> MiniNetwork:
    network = MiniNetwork()
    for number in range(count):
        network.start(f"n{number}", config=config)
    network.run_until(lambda: all(node.is_ready for node in network.nodes.values()))
    network.run(2.0)
    return network


def statuses(network: MiniNetwork) -> list[HealthStatus]:
    return [node.health().status for node in network.nodes.values()]


def cut_apart(network: MiniNetwork, left: tuple[str, ...], right: tuple[str, ...]) -> None:
    for one in left:
        for other in right:
            network.cut_both(one, other)


def test_a_member_that_is_long_gone_does_not_degrade_a_majority() -> None:
    """It does for a quarter of an hour."""
    network = cluster(3)
    network.kill("n2")
    network.run(600.0)
    early = statuses(network)
    network.run(400.0)

    assert [HealthStatus.DEGRADED] * 2 == early
    assert [HealthStatus.HEALTHY] * 2 == statuses(network)
    assert "Down" == network.view("n0")["n2"]


def test_time_does_not_make_a_minority_whole() -> None:
    """Its members may all be alive on the other side."""
    network = cluster(2)
    network.is_refusing = False
    network.kill("n1")
    network.run(1000.0)

    assert [HealthStatus.PARTITIONED] == statuses(network)


def test_the_survivor_of_two_is_whole_once_the_other_is_forgotten() -> None:
    """And does not list it any more."""
    network = cluster(2)
    network.is_refusing = False
    network.kill("n1")
    network.run(60.0)
    survivor = network.nodes["n0"]
    before = survivor.members_revision
    survivor.forget("n1")

    assert [HealthStatus.HEALTHY] == statuses(network)
    assert ["n0"] == [member.name for member in survivor.members()]
    assert survivor.members_revision > before
    with pytest.raises(UnknownKeyError):
        survivor.forget("n1")


def test_what_one_node_forgets_all_forget() -> None:
    """Also one that starts later with the state of one of them."""
    network = cluster(3)
    network.kill("n2")
    network.run(60.0)
    network.nodes["n1"].forget("n2")
    network.pump("n1")
    network.run(1.0)

    assert [HealthStatus.HEALTHY] * 2 == statuses(network)


def test_two_halves_do_not_both_become_whole_by_forgetting_one() -> None:
    """Of five, one is gone and forgotten; of the four that are left two are no majority."""
    network = cluster(5)
    network.kill("n4")
    network.run(60.0)
    network.nodes["n0"].forget("n4")
    network.pump("n0")
    network.run(1.0)
    cut_apart(network, ("n0", "n1"), ("n2", "n3"))
    network.run(60.0)

    assert [HealthStatus.PARTITIONED] * 4 == statuses(network)


def test_a_forgotten_member_that_comes_back_is_one_like_any_other() -> None:
    """It rises above what was said of it, and counts again when it is gone once more."""
    network = cluster(2)
    network.cut_both("n0", "n1")
    network.run(60.0)
    network.nodes["n0"].forget("n1")
    network.pump("n0")
    network.cuts.clear()
    network.run(120.0)
    assert ["n0", "n1"] == [member.name for member in network.nodes["n0"].members()]
    assert [HealthStatus.HEALTHY] * 2 == statuses(network)
    network.is_refusing = False
    network.kill("n1")
    network.run(60.0)

    assert [HealthStatus.PARTITIONED] == statuses(network)


def test_only_members_that_are_gone_can_be_forgotten() -> None:
    """Not one that is there, not this node, and nobody unknown."""
    network = cluster(2)
    for name in ("n0", "n1"):
        with pytest.raises(MemberInReachError):
            network.nodes["n0"].forget(name)
    with pytest.raises(UnknownKeyError):
        network.nodes["n0"].forget("n9")


# Without a majority


FORGETFUL = GossipConfig(forget_after_s=30.0, leave_forget_s=5.0)


def test_two_halves_do_not_become_whole_by_forgetting_each_other() -> None:
    """However often the time after which a member is forgotten passes."""
    network = cluster(4, FORGETFUL)
    cut_apart(network, ("n0", "n1"), ("n2", "n3"))
    network.run(300.0)

    assert [HealthStatus.PARTITIONED] * 4 == statuses(network)
    assert all(len(node.members()) == 4 for node in network.nodes.values())


def test_a_side_with_a_majority_forgets_and_one_without_does_not() -> None:
    """And once they meet again they are the cluster that they were."""
    network = cluster(3, FORGETFUL)
    cut_apart(network, ("n0", "n1"), ("n2",))
    network.run(60.0)
    assert ["n0", "n1"] == [member.name for member in network.nodes["n0"].members()]
    assert ["n0", "n1", "n2"] == [member.name for member in network.nodes["n2"].members()]
    network.cuts.clear()
    network.run(60.0)

    assert [HealthStatus.HEALTHY] * 3 == statuses(network)
    assert all(len(node.members()) == 3 for node in network.nodes.values())


def test_a_minority_forgets_who_left() -> None:
    """It said so itself."""
    network = cluster(4, FORGETFUL)
    network.nodes["n1"].leave(now=network.now)
    network.pump("n1")
    network.run(0.1)
    network.kill("n1")
    cut_apart(network, ("n0",), ("n2", "n3"))
    network.run(60.0)

    assert [HealthStatus.PARTITIONED] == statuses(network)[:1]
    assert {"n0": "Alive", "n2": "Down", "n3": "Down"} == network.view("n0")


def test_whoever_has_a_majority_again_forgets_who_was_kept_for_want_of_one() -> None:
    """Not before, and soon after."""
    network = cluster(4, FORGETFUL)
    network.kill("n3")
    cut_apart(network, ("n0",), ("n1", "n2"))
    network.run(200.0)
    assert "n3" in network.view("n0")
    network.cuts.clear()
    network.run(60.0)

    assert all(["n0", "n1", "n2"] == sorted(network.view(name)) for name in network.nodes)


def test_a_full_table_gives_the_place_of_the_longest_gone_to_who_is_there() -> None:
    """Every part forgets that one, and it is told."""
    network = cluster(3)
    network.kill("n2")
    network.run(30.0)
    for node in network.nodes.values():
        node._engine._parts.view.members._members_max = 3
    network.start("n3")
    network.run(5.0)

    assert {"n0": "Alive", "n1": "Alive", "n3": "Alive"} == network.view("n0")
    assert "MemberForgotten" in network.kinds("n0")
    network.nodes["n0"]._check()


def test_a_full_table_of_a_minority_keeps_those_who_count() -> None:
    """There is no room for a newcomer until an operator forgets somebody."""
    network = cluster(3)
    cut_apart(network, ("n0",), ("n1", "n2"))
    network.run(30.0)
    network.nodes["n0"]._engine._parts.view.members._members_max = 3
    cut_apart(network, ("n3",), ("n1", "n2"))
    network.start("n3")
    network.run(5.0)
    assert {"n0": "Alive", "n1": "Down", "n2": "Down"} == network.view("n0")
    network.nodes["n0"].forget("n1")
    network.pump("n0")
    network.run(5.0)

    assert {"n0": "Alive", "n2": "Down", "n3": "Alive"} == network.view("n0")


# Two replicas


def test_of_two_the_survivor_of_a_crash_is_whole_at_once() -> None:
    """Its dial is refused: the process of the other is gone, and not the network."""
    network = cluster(2)
    network.kill("n1")
    took_s = network.run_until(lambda: network.view("n0")["n1"] == "Down", limit_s=1.0)
    health = network.nodes["n0"].health()

    assert took_s < 1.0
    assert (health.status, health.partition.has_quorum) == (HealthStatus.DEGRADED, True)
    assert ("n1 is down",) == health.problems
    network.run(1000.0)
    assert [HealthStatus.HEALTHY] == statuses(network)


def test_of_two_a_refusal_after_silence_makes_the_other_whole() -> None:
    """The machine is there again, and nothing listens on it."""
    network = cluster(2)
    network.is_refusing = False
    network.kill("n1")
    network.run(60.0)
    assert [HealthStatus.PARTITIONED] == statuses(network)
    before = network.nodes["n0"].members_revision
    network.is_refusing = True
    network.run(10.0)

    assert network.nodes["n0"].health().partition.has_quorum
    assert network.nodes["n0"].members_revision > before


def test_of_two_that_are_cut_apart_neither_is_whole() -> None:
    """Each hears nothing, and nothing is refused."""
    network = cluster(2)
    network.cut_both("n0", "n1")
    network.run(1000.0)

    assert [HealthStatus.PARTITIONED] * 2 == statuses(network)


def test_of_two_that_are_cut_apart_a_setting_makes_both_whole() -> None:
    """That is what it risks, and what it says."""
    network = cluster(2, GossipConfig(is_silence_an_end=True))
    network.cut_both("n0", "n1")
    network.run(30.0)

    assert all(node.health().partition.has_quorum for node in network.nodes.values())


def test_of_two_the_one_that_stays_is_whole_at_once_when_the_other_leaves() -> None:
    """It said goodbye."""
    network = cluster(2)
    network.nodes["n1"].leave(now=network.now)
    network.pump("n1")
    network.run(0.1)
    network.kill("n1")
    network.run(0.1)

    assert [HealthStatus.HEALTHY] == statuses(network)


def test_a_link_that_breaks_is_no_refusal() -> None:
    """Nor is one that is lost and made again: whoever is there answers."""
    network = cluster(2)
    survivor = network.nodes["n0"]
    for _ in range(3):
        survivor.connection_lost("n1:1", now=network.now)
        network.pump("n0")
    network.run(5.0)

    assert {"n0": "Alive", "n1": "Alive"} == network.view("n0")
    assert "MemberDown" not in network.kinds("n0")


def test_a_refusal_that_is_late_does_not_end_the_next_start() -> None:
    """It was made before the one that is there now was asked anything."""
    network = cluster(2)
    network.kill("n1")
    network.run_until(lambda: network.view("n0")["n1"] == "Down", limit_s=1.0)
    network.start("n1")
    network.run_until(lambda: network.view("n0")["n1"] == "Alive", limit_s=5.0)
    network.run_until(lambda: not network.nodes["n0"].diagnostics()["failure_detector"]["probed"])
    network.nodes["n0"].connection_lost("n1:1", now=network.now, end=LinkEnd.REFUSED)

    assert "Alive" == network.view("n0")["n1"]
    network.run(5.0)
    assert [HealthStatus.HEALTHY] * 2 == statuses(network)


def test_the_survivor_of_two_takes_in_a_third_as_a_pair() -> None:
    """Who has ended does not count beside it: then that one may go as well."""
    network = cluster(2)
    network.kill("n1")
    network.run(5.0)
    network.start("n2")
    network.run(5.0)
    network.kill("n0")
    network.run(10.0)

    health = network.nodes["n2"].health()
    assert health.partition.has_quorum, health
    records = {member.name: member.status for member in network.nodes["n2"].members()}
    assert records["n0"] is records["n1"] is MemberStatus.DOWN


def test_one_that_can_send_and_not_be_reached_is_not_taken_for_ended_for_long() -> None:
    """Its address is not the one that it listens on: what it sends tells that it lives."""
    network = cluster(2)
    carry = network._carry

    def refuse(target: str, source: str, data: bytes) -> None:
        if (source, target) == ("n0", "n1"):
            network.nodes["n0"].connection_lost("n1:1", now=network.now, end=LinkEnd.REFUSED)
            network.pump("n0")
        else:
            carry(target, source, data)

    network._deliver = refuse
    network.run(60.0)

    assert not network.nodes["n0"].health().partition.has_quorum
    assert "n1" in network.nodes["n0"].diagnostics()["refusals"]["alive"]
    network._deliver = carry
    network.run(30.0)
    assert [HealthStatus.HEALTHY] * 2 == statuses(network)


def test_one_that_ends_after_its_restart_is_taken_for_ended() -> None:
    """What was heard of the next start says nothing of the one that had refused."""
    network = cluster(2)
    for _ in range(3):
        network.kill("n1")
        network.run(3.0)
        assert network.nodes["n0"].health().partition.has_quorum
        network.start("n1")
        network.run_until(lambda: statuses(network) == [HealthStatus.HEALTHY] * 2, limit_s=20.0)

    assert () == network.nodes["n0"].diagnostics()["refusals"]["alive"]
