"""Since when a problem is there."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig
from meshlib.node import HealthStatus, MeshNode

LATE_S = 2.0
"""How late a problem may be noticed."""

NEVER = GossipConfig(bootstrap_after_s=0.0)


def age_s(node: MeshNode, problem: str) -> float:
    """Return how old a problem is that the node tells of."""
    health = node.health()
    return dict(zip(health.problems, health.ages_s, strict=True))[problem]


def test_a_problem_is_as_old_as_it_is_though_nobody_asked() -> None:
    """A node that waits for its seed has done so since it began."""
    network = MiniNetwork()
    node = network.start("n1", config=NEVER)
    network.run(100.0)

    assert 100.0 - LATE_S <= age_s(node, "not ready: no peer was met yet") <= 100.0


def test_a_problem_that_comes_again_is_a_new_one() -> None:
    """It is told with since when it is there without a break."""
    network = MiniNetwork()
    nodes = [network.start(name) for name in ("n0", "n1", "n2")]
    network.run_until(lambda: all(node.is_ready for node in nodes))
    for _ in range(2):
        network.cut_both("n0", "n2")
        network.cut_both("n1", "n2")
        network.run(60.0)
        age = age_s(nodes[0], "n2 is down")
        network.cuts.clear()
        network.run(60.0)

        assert 40.0 < age < 60.0
        assert () == nodes[0].health().ages_s


@pytest.mark.parametrize("after_s", [1.0, 0.0])
def test_who_has_met_nobody_is_degraded(after_s: float) -> None:
    """Whether it has begun alone or waits for ever."""
    network = MiniNetwork()
    node = network.start("n1", config=GossipConfig(bootstrap_after_s=after_s))
    network.run(10.0)

    assert HealthStatus.DEGRADED is node.health().status
    assert 1 == len(node.health().problems)
    assert node.is_ready is bool(after_s)


def test_a_problem_noted_by_the_driver_has_its_age_too() -> None:
    """And is gone with it."""
    network = MiniNetwork()
    node = network.start("n0")
    network.run(5.0)
    node.note_problem("storage", "nothing is saved")
    network.run(50.0)

    assert 50.0 - LATE_S <= age_s(node, "nothing is saved") <= 50.0
    node.note_problem("storage", "")
    assert () == node.health().problems


def test_policies_that_have_not_changed_are_not_judged_again() -> None:
    """A look costs what has changed since the last one, not what there is."""
    judged: list[str] = []
    network = MiniNetwork()
    node = network.start("n0")
    node.sync.policy_types.register("mine", check=judged.append)
    for number in range(50):
        node.sync.sync_policy_state(f"m{number}", policy_type="mine", config=str(number))
    node.health()
    judged.clear()
    node.health()
    unchanged = list(judged)
    node.sync.sync_policy_state("m7", policy_type="mine", config="new")
    node.health()

    assert [] == unchanged
    assert {"new"} == set(judged)


def test_a_policy_that_somebody_removes_is_no_problem_any_more() -> None:
    """Also when the node that tells of it has not removed it itself."""
    network = MiniNetwork()
    nodes = [network.start(name) for name in ("n0", "n1")]
    network.run_until(lambda: all(node.is_ready for node in nodes))
    nodes[0].sync.policies.put("m", policy_type="unheard_of", config="")
    network.pump("n0")
    network.run(3.0)
    early = [len(node.health().problems) for node in nodes]
    nodes[0].sync.remove_policy_state("m")
    network.pump("n0")
    network.run(3.0)

    assert [1, 1] == early
    assert [(), ()] == [node.health().problems for node in nodes]
