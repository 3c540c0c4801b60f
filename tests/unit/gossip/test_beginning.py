"""Who may begin, in virtual time: a node is ready with what its cluster has, or by the rule."""

from __future__ import annotations

from typing import Any

import pytest
from support.mini_network import PORT, MiniNetwork

from meshlib.errors import ConfigError
from meshlib.gossip import Began, GossipConfig, LinkEnd, NodeState
from meshlib.gossip.entries.beginning import DENIED_S
from meshlib.node import HealthStatus
from meshlib.replication import ReplicaState

AFTER_S = GossipConfig().bootstrap_after_s
SOON_S = 2.5
"""For the others to see that one has begun, and to take its state."""

ALL = ("n0", "n1", "n2")


def start_all(network: MiniNetwork, *names: str, **settings: Any) -> None:
    """Start nodes that know each other, at one instant."""
    for name in names:
        network.start(name, seeds=names, **settings)


def ready(network: MiniNetwork) -> list[str]:
    """Return who says that it is ready."""
    return sorted(name for name, node in network.nodes.items() if node.is_ready)


def beginners(network: MiniNetwork) -> list[str]:
    """Return who began by its own decision after waiting for others."""
    return sorted(
        name for name, events in network.events.items() if any(isinstance(e, Began) for e in events)
    )


def keep(network: MiniNetwork, name: str) -> ReplicaState:
    """Return a node's state as it would be kept on disk."""
    return network.nodes[name].replica.export_state()


def test_a_node_that_is_told_of_nobody_begins_at_once(network: MiniNetwork) -> None:
    """It is its own cluster, and no news."""
    node = network.start("n0", seeds=("n0",))

    assert (node.state, node.is_ready, beginners(network)) == (NodeState.READY, True, [])
    assert node.health().status is HealthStatus.HEALTHY


def test_two_that_start_beside_a_third_have_what_it_has_once_they_are_ready(
    network: MiniNetwork,
) -> None:
    """They do not take each other's nothing for everything."""
    network.start("n2", seeds=())
    for index in range(40):
        network.put("n2", f"key-{index}", "x" * 60_000)
    start_all(network, *ALL[:2])
    for name in ALL[:2]:
        network.nodes[name].join([name + PORT for name in ALL], now=network.now)
        network.pump(name)
    at_ready: dict[str, int] = {}

    def look() -> bool:
        for name in ALL[:2]:
            if network.nodes[name].is_ready and name not in at_ready:
                at_ready[name] = len(network.content(name))
        return len(at_ready) == 2

    network.run_until(look)

    assert at_ready == {"n0": 40, "n1": 40}
    assert beginners(network) == []


def test_of_three_empty_nodes_the_lowest_name_begins_and_the_others_follow(
    network: MiniNetwork,
) -> None:
    """After the time to wait, and not before it."""
    start_all(network, *ALL)
    network.run(AFTER_S - 0.01)
    assert ready(network) == []
    network.run(SOON_S)

    assert ready(network) == list(ALL)
    assert beginners(network) == ["n0"]


def test_of_three_with_stored_state_the_newest_begins(network: MiniNetwork) -> None:
    """Whatever its name; the others sync from it, and all have all."""
    start_all(network, *ALL)
    network.run(AFTER_S + SOON_S)
    network.put("n0", "old", 1)
    network.run(1.0)
    states = {name: keep(network, name) for name in ALL}
    for name in ALL:
        network.kill(name)
    for name, age_s in zip(ALL, (9.0, 3.0, 6.0), strict=True):
        network.start(name, seeds=ALL, state=states[name], age_s=age_s)
        network.events[name].clear()
    network.run(AFTER_S + SOON_S)

    assert ready(network) == list(ALL)
    assert beginners(network) == ["n1"]
    assert network.values("old") == [1, 1, 1]


def test_two_beside_a_silent_third_begin_and_join_it_once_it_answers(network: MiniNetwork) -> None:
    """Nothing that it holds is lost."""
    network.start("n2", seeds=())
    network.put("n2", "held", "by the third")
    for other in ALL[:2]:
        network.cut_both("n2", other)
    for name in ALL[:2]:
        network.start(name, seeds=ALL)
    network.run(AFTER_S + SOON_S)
    assert ready(network) == list(ALL)
    network.put("n0", "meanwhile", "by the two")
    network.cuts.clear()
    network.run(8.0)

    assert network.values("held") == ["by the third"] * 3
    assert network.values("meanwhile") == ["by the two"] * 3


def test_one_whose_seed_never_answers_begins_isolated_and_says_so(network: MiniNetwork) -> None:
    """It works, and stays a problem until it has met somebody."""
    node = network.start("n0", seeds=("nobody",))
    network.run(AFTER_S - 0.1)
    waiting = node.state, node.health().problems
    network.run(0.5)
    isolated = node.state, node.health().status, node.health().problems
    network.start("n1", seeds=("n0",))
    network.run(SOON_S)

    assert waiting == (NodeState.JOINING, ("not ready: no peer was met yet",))
    assert isolated[:2] == (NodeState.ISOLATED, HealthStatus.DEGRADED)
    assert isolated[2][0].startswith("isolated: ")
    assert (node.state, node.health().status) == (NodeState.READY, HealthStatus.HEALTHY)
    assert ready(network) == ["n0", "n1"]


def test_an_isolated_node_that_meets_a_cluster_takes_its_state_before_it_is_ready_again(
    network: MiniNetwork,
) -> None:
    """Who counts on its being ready must not lose what the cluster has."""
    network.start("n1", seeds=())
    for index in range(40):
        network.put("n1", f"key-{index}", "x" * 60_000)
    network.cut_both("n0", "n1")
    node = network.start("n0", seeds=("n1",))
    network.run(AFTER_S + 1.0)
    assert node.state is NodeState.ISOLATED
    network.put("n0", "own", 1)
    network.cuts.clear()
    seen = []

    def look() -> bool:
        seen.append(node.state)
        return node.state is NodeState.READY

    network.run_until(look)

    assert NodeState.SYNCING in seen
    assert len(network.content("n0")) == 41
    network.run(1.0)
    assert network.values("own") == [1, 1]


def test_two_halves_that_both_began_join_once_they_meet(network: MiniNetwork) -> None:
    """Both are ready then, and each has what the other wrote."""
    names = ("a0", "a1", "b0", "b1")
    for left in names[:2]:
        for right in names[2:]:
            network.cut_both(left, right)
    start_all(network, *names)
    network.run(AFTER_S + SOON_S)
    assert (ready(network), beginners(network)) == (list(names), ["a0", "b0"])
    network.put("a1", "left", 1)
    network.put("b1", "right", 2)
    network.cuts.clear()
    network.run(8.0)

    assert ready(network) == list(names)
    assert network.values("left") == [1] * 4
    assert network.values("right") == [2] * 4


def test_fewer_than_expected_never_begin(network: MiniNetwork) -> None:
    """And say how many are here; the third lets them go on."""
    config = GossipConfig(bootstrap_expect=3)
    start_all(network, *ALL[:2], config=config)
    network.run(4 * AFTER_S)
    problems = network.nodes["n1"].health().problems
    assert ready(network) == []
    network.start("n2", seeds=ALL, config=config)
    network.run(AFTER_S + SOON_S)

    assert problems == ("not ready: 2 of the 3 nodes that it takes to begin are here",)
    assert ready(network) == list(ALL)


def test_a_node_alone_that_expects_others_does_not_begin_either(network: MiniNetwork) -> None:
    """Without seeds, too."""
    node = network.start("n0", seeds=(), config=GossipConfig(bootstrap_expect=2))
    network.run(3 * AFTER_S)

    assert (node.state, node.is_ready) == (NodeState.JOINING, False)


def test_zero_means_that_nobody_begins_beside_others(network: MiniNetwork) -> None:
    """A ready peer still lets them go on, without a majority as well."""
    config = GossipConfig(bootstrap_after_s=0)
    start_all(network, *ALL[:2], config=config)
    network.run(5 * AFTER_S)
    assert ready(network) == []
    network.start("n2", seeds=())
    network.nodes["n2"].join([name + PORT for name in ALL], now=network.now)
    network.run(SOON_S + 4.0)

    assert ready(network) == list(ALL)


def test_one_that_should_begin_and_never_does_holds_nobody_up(network: MiniNetwork) -> None:
    """The next in line waits twice as long, and no longer."""
    network.start("n0", seeds=ALL, config=GossipConfig(bootstrap_after_s=0))
    for name in ALL[1:]:
        network.start(name, seeds=ALL)
    network.run(2 * AFTER_S - 0.1)
    assert ready(network) == []
    network.run(SOON_S)

    assert (ready(network), beginners(network)) == (list(ALL), ["n1"])


def test_a_ready_peer_in_reach_is_waited_for_however_long_its_state_takes(
    network: MiniNetwork,
) -> None:
    """Nobody begins beside it while it lives."""
    network.start("n2", seeds=())
    network.put("n2", "key", "x")
    start_all(network, "n0")
    network.is_lost = lambda frame: b"app" in frame  # neither entries nor pages arrive
    network.nodes["n0"].join([name + PORT for name in ALL], now=network.now)
    network.pump("n0")
    network.run(4 * AFTER_S)
    problem = network.nodes["n0"].health().problems
    network.is_lost = lambda _frame: False
    network.run(SOON_S + 2.0)

    assert problem == ("not ready: the state of the cluster is still on its way",)
    assert network.values("key") == ["x", "x"]
    assert beginners(network) == []


def test_a_node_that_waits_for_seeds_to_be_found_does_not_begin_at_once(
    network: MiniNetwork,
) -> None:
    """Names that are not there yet are no proof of being alone."""
    node = network.start("n0", seeds=(), may_find_more=True)
    early = node.state
    network.run(AFTER_S + 0.5)

    assert (early, node.state) == (NodeState.JOINING, NodeState.ISOLATED)


def test_a_node_away_for_too_long_does_not_rule_over_what_it_may_have_missed(
    network: MiniNetwork,
) -> None:
    """Cut off at its start it serves what it had; the cluster's removals win once they meet."""
    config = GossipConfig(forget_after_s=60.0)
    start_all(network, *ALL, config=config)
    network.run(AFTER_S + SOON_S)
    network.put("n0", "gone", 1)
    network.put("n0", "kept", 1)
    network.run(1.0)
    state = keep(network, "n1")
    network.kill("n1")
    network.nodes["n0"].replica.write(
        "app", lambda s, c: s.remove("gone", stamp=c.stamp(), sequence=c.sequence)
    )
    network.pump("n0")
    network.run(65.0)  # n1 is forgotten, and the removal with it
    network.cut_both("n0", "n1")
    network.cut_both("n2", "n1")
    node = network.start("n1", seeds=ALL, config=config, state=state, age_s=66.0)
    network.run(AFTER_S + 1.0)
    alone = node.state, network.content("n1").get("gone")
    network.cuts.clear()
    network.run(8.0)

    assert alone == (NodeState.ISOLATED, 1)
    assert network.values("gone") == [None, None, None]
    assert network.values("kept") == [1, 1, 1]


def test_a_whole_cluster_that_was_away_for_too_long_comes_back(network: MiniNetwork) -> None:
    """The newest state begins, and the others adopt it."""
    config = GossipConfig(forget_after_s=60.0)
    start_all(network, *ALL, config=config)
    network.run(AFTER_S + SOON_S)
    network.put("n0", "key", 1)
    network.run(1.0)
    states = {name: keep(network, name) for name in ALL}
    for name in ALL:
        network.kill(name)
    for name, age_s in zip(ALL, (90.0, 70.0, 80.0), strict=True):
        network.start(name, seeds=ALL, config=config, state=states[name], age_s=age_s)
        network.events[name].clear()
    network.run(AFTER_S + SOON_S)

    assert (ready(network), beginners(network)) == (list(ALL), ["n1"])
    assert network.values("key") == [1, 1, 1]
    assert not any(node.replica.is_rejoining for node in network.nodes.values())


def test_a_node_that_was_stopped_reads_what_came_before_it_begins(network: MiniNetwork) -> None:
    """Its waiting begins anew: who was ready meanwhile it could not hear."""
    network.start("n1", seeds=())
    network.put("n1", "key", 1)
    network.cut_both("n0", "n1")
    node = network.start("n0", seeds=ALL)
    network.run(AFTER_S - 1.0)
    network.run(5.0, frozen=("n0",))
    network.cuts.clear()
    network.run_until(lambda: node.is_ready, limit_s=AFTER_S)

    assert beginners(network) == []
    assert network.values("key") == [1, 1]


def test_a_survivor_that_was_alone_for_long_stays_ready_when_another_comes(
    network: MiniNetwork,
) -> None:
    """It serves what it has; the newcomer waits for its turn, and has all of it then."""
    config = GossipConfig(forget_after_s=40.0)
    start_all(network, *ALL[:2], config=config)
    network.run(AFTER_S + SOON_S)
    network.put("n0", "key", 1)
    network.run(1.0)
    network.kill("n1")
    network.run(30.0)
    network.start("n1", seeds=ALL[:2], config=config)
    seen = set()

    def look() -> bool:
        seen.add(network.nodes["n0"].is_ready)
        return bool(network.nodes["n1"].is_ready)

    network.run_until(look)

    assert "IdentityRenewed" in network.kinds("n0")
    assert (seen, network.values("key")) == ({True}, [1, 1])


@pytest.mark.parametrize(
    "settings",
    [
        {"bootstrap_after_s": -1.0},
        {"bootstrap_after_s": float("inf")},
        {"bootstrap_expect": 0},
        {"leave_handover_s": -0.1},
        {"leave_handover_s": float("nan")},
    ],
)
def test_settings_that_cannot_hold_are_refused(settings: dict[str, Any]) -> None:
    """With the name of the setting."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GossipConfig(**settings)


def test_nobody_begins_beside_a_peer_that_does_not_let_it_in(network: MiniNetwork) -> None:
    """It waits as long as it is told so, and for a minute after that."""
    node = network.start("n0", seeds=("n0", "n1"))
    for _ in range(4):
        node.connection_lost("n1:1", now=network.now, end=LinkEnd.DENIED)
        network.run(AFTER_S)
    waited = node.state, node.is_ready, node.state_problem()
    network.run(DENIED_S)

    problem = "not ready: a peer was reached that does not let this node in"
    assert waited == (NodeState.JOINING, False, problem)
    assert (node.state, node.is_ready) == (NodeState.ISOLATED, True)


def test_one_that_began_alone_is_ready_no_longer_once_it_is_not_let_in(
    network: MiniNetwork,
) -> None:
    """There is a cluster after all, and this node is none of it."""
    node = network.start("n0", seeds=("n0", "n1"))
    network.run(2 * AFTER_S)
    before = node.state
    node.connection_lost("n1:1", now=network.now, end=LinkEnd.DENIED)

    assert (before, node.state, node.is_ready) == (NodeState.ISOLATED, NodeState.JOINING, False)


def test_one_that_has_met_somebody_goes_on_whoever_else_lets_it_not_in(
    network: MiniNetwork,
) -> None:
    """A seed with another token is a mistake in a list, and this node has its cluster."""
    start_all(network, "n0", "n1")
    network.run_until(lambda: ready(network) == ["n0", "n1"])
    for node in network.nodes.values():
        node.connection_lost("n2:1", now=network.now, end=LinkEnd.DENIED)

    assert ready(network) == ["n0", "n1"]


def test_one_that_is_its_own_cluster_stays_it(network: MiniNetwork) -> None:
    """Nobody was named whom it could be a member with."""
    node = network.start("n0", seeds=())
    node.connection_lost("n1:1", now=network.now, end=LinkEnd.DENIED)

    assert (node.state, node.is_ready) == (NodeState.READY, True)


def test_one_that_comes_back_waits_for_nobody_once_all_others_have_left(
    network: MiniNetwork,
) -> None:
    """It is the last, and what it had kept aside is what there is."""
    hasty = GossipConfig(forget_after_s=8.0, bootstrap_after_s=1.0)
    for name in ("n0", "n1"):
        network.start(name, config=hasty)
    network.run(3.0)
    network.put("n1", "kept", 1)
    network.cut_both("n0", "n1")
    network.run(6.0)
    network.put("n1", "written alone", 2)
    network.cuts.clear()
    while "IdentityRenewed" not in network.kinds("n1"):
        network.run(0.001)
    network.nodes["n0"].leave(now=network.now)
    network.pump("n0")
    network.kill("n0")
    network.run(0.5)
    is_waiting = network.nodes["n1"].replica.is_rejoining
    network.run(30.0)

    assert is_waiting
    assert "Rejoined" in network.kinds("n1")
    assert {"kept": 1, "written alone": 2} == network.content("n1")
    assert "" == network.nodes["n1"].state_problem()


def roll_of_the_first(network: MiniNetwork, *, waits: bool) -> int:
    """Restart the first and the second together, then end the third; return what is left."""
    network.start("n0", seeds=())
    for name in ALL[1:]:
        network.start(name, seeds=("n0",))
    network.run(2.0)
    for index in range(40):
        network.put("n2", f"key-{index}", "x" * 2_000)
    network.run(2.0)
    for name in ALL[:2]:
        network.kill(name)
    network.run(4.0)
    first = network.start("n0", seeds=())
    second = network.start("n1", seeds=("n0",))

    def are_back() -> bool:
        return all(node.is_ready and not (waits and node.is_listening) for node in (first, second))

    network.run_until(are_back)
    network.kill("n2")
    network.run(2.0)
    return len(network.content("n0"))


def test_the_first_of_a_cluster_is_rolled_without_a_loss(network: MiniNetwork) -> None:
    """It is told of nobody, begins with nothing, and lets others in: none says that it is back."""
    assert roll_of_the_first(network, waits=True) == 40


def test_who_does_not_wait_for_the_first_to_listen_loses_all(network: MiniNetwork) -> None:
    """So that the test above would fail without it."""
    assert roll_of_the_first(network, waits=False) == 0


def test_a_node_that_begins_with_nobody_listens_for_a_while(network: MiniNetwork) -> None:
    """It decides meanwhile, and so does who joins it; later ones have nothing to wait for."""
    first = network.start("n0", seeds=())
    second = network.start("n1", seeds=("n0",))
    network.run(1.0)
    listening = first.is_listening, second.is_listening
    are_ready = first.is_ready and second.is_ready
    network.run(GossipConfig().bootstrap_listen_s)
    third = network.start("n2", seeds=("n1",))
    network.run(1.0)

    assert (listening, are_ready) == ((True, True), True)
    assert [first.is_listening, second.is_listening, third.is_listening] == [False] * 3
    assert third.is_ready


def test_the_first_stays_ready_when_it_hears_first_of_who_joined_at_another(
    network: MiniNetwork,
) -> None:
    """What it has is its cluster's: those that others let in are no proof of another one."""
    first = network.start("n0", seeds=())
    network.start("n1", seeds=("n0",))
    network.run(5.0)
    network.cut_both("n0", "n2")
    third = network.start("n2", seeds=("n1",))
    network.run_until(lambda: third.is_ready)
    network.put("n2", "key", 1)
    network.cuts.clear()
    seen = set()

    def look() -> bool:
        seen.add(first.is_ready)
        return network.values("key") == [1, 1, 1]

    network.run_until(look)
    network.run(2.0)

    assert (seen, first.is_ready) == ({True}, True)


@pytest.mark.parametrize("away_s", [3.0, 70.0, 400.0])
@pytest.mark.parametrize("names", [ALL[:2], ALL])
def test_the_first_comes_back_with_all_however_long_it_was_away(
    network: MiniNetwork, names: tuple[str, ...], away_s: float
) -> None:
    """It is told of nobody: the others find it while it listens, before it says that it is back."""
    network.start("n0", seeds=())
    for name in names[1:]:
        network.start(name, seeds=names)
    network.run(2.0)
    for index in range(10):
        network.put("n1", f"key-{index}", index)
    network.run(2.0)
    network.kill("n0")
    network.run(away_s)
    first = network.start("n0", seeds=())
    network.run_until(lambda: first.is_ready and not first.is_listening)

    assert len(network.content("n0")) == 10
