"""Members that are gone: how long they worry, and how they are forgotten."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.errors import MemberInReachError, UnknownKeyError
from meshlib.node import HealthStatus


def cluster(count: int) -> MiniNetwork:
    network = MiniNetwork()
    for number in range(count):
        network.start(f"n{number}")
    network.run_until(lambda: all(node.is_ready for node in network.nodes.values()))
    network.run(2.0)
    return network


def statuses(network: MiniNetwork) -> list[HealthStatus]:
    return [node.health().status for node in network.nodes.values()]


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
    network.kill("n1")
    network.run(1000.0)

    assert [HealthStatus.PARTITIONED] == statuses(network)


def test_the_survivor_of_two_is_whole_once_the_other_is_forgotten() -> None:
    """And does not list it any more."""
    network = cluster(2)
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
    for left in ("n0", "n1"):
        for right in ("n2", "n3"):
            network.cut_both(left, right)
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
