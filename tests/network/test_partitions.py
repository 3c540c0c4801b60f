"""Links that carry nothing, in both directions or in one: what each side sees, and how it ends."""

from __future__ import annotations

import random

import pytest
from support.namespaces import Cluster, Traffic

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]

FEW, MANY = (0, 1), (2, 3, 4)


def await_two_sides(cluster: Cluster) -> None:
    """Wait until each side sees itself Alive and the other Down, and says what that means."""
    few, many = ([cluster.nodes[index] for index in side] for side in (FEW, MANY))
    cluster.await_health(few, "partitioned", len(few))
    cluster.await_health(many, "degraded", len(many))
    for side in (few, many):
        names = {node.name for node in side}
        expected = {node.name: "Alive" if node.name in names else "Down" for node in cluster.nodes}
        for node in side:
            assert cluster.seen(node) == expected


def test_two_sides_that_were_cut_go_on_and_become_one_again(
    whole: Cluster, traffic: Traffic
) -> None:
    """Two nodes and three: both sides take writes all the time, and all of them are kept."""
    traffic.start()
    traffic.await_more(50)
    whole.lab.cut(FEW, MANY)
    await_two_sides(whole)
    traffic.await_more(100)
    whole.lab.heal()
    whole.await_all_alive()
    traffic.await_more(50)
    traffic.finish()

    whole.await_whole(traffic)


def test_a_side_that_is_heard_but_does_not_hear_is_cut_off_and_comes_back(
    whole: Cluster, traffic: Traffic
) -> None:
    """Two nodes hear nothing of three, which hear them: as good as cut, for an answer is lost."""
    traffic.start()
    traffic.await_more(50)
    whole.lab.deafen(FEW, to=MANY)
    await_two_sides(whole)
    traffic.await_more(100)
    whole.lab.heal()
    whole.await_all_alive()
    traffic.await_more(50)
    traffic.finish()

    whole.await_whole(traffic)


def test_a_link_that_carries_one_way_costs_neither_end_its_life(
    whole: Cluster, traffic: Traffic
) -> None:
    """The others vouch for both ends and carry the writes between them, while it lasts."""
    whole.lab.deafen([0], to=[1])
    traffic.start()
    traffic.await_more(1000)  # for longer than a silent connection is kept
    traffic.finish()
    whole.await_whole(traffic)
    downs = [event for node in whole.nodes for event in whole.events(node, "MemberDown")]

    assert downs == []
    whole.lab.heal()
    whole.await_whole(traffic)


def test_a_node_whose_link_flaps_is_whole_again_when_it_holds(
    whole: Cluster, traffic: Traffic, rng: random.Random
) -> None:
    """Cut and healed again and again, for less than it takes to be given up, and for more."""
    first, *_, flapping = whole.nodes
    traffic.start()
    for is_given_up in (False, False, True, False, True, False, False, False):
        whole.lab.cut([4], [0, 1, 2, 3])
        if is_given_up:
            whole.wait_until(
                lambda: whole.seen(first)[flapping.name] == "Down", "the node is given up"
            )
        traffic.await_more(rng.randint(5, 60))
        whole.lab.heal()
        traffic.await_more(rng.randint(5, 60))
    traffic.finish()

    whole.await_whole(traffic)
