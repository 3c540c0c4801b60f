"""What the files of nodes say: a default, and never more than that."""

from __future__ import annotations

from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError, UnknownKeyError
from meshlib.gossip import GossipConfig
from meshlib.node import HealthStatus, MeshNode
from meshlib.ratelimit import PartitionMode, RateLimitConfig
from meshlib.state import DEFAULTS_DOCUMENT, ConfiguredDefaults, StoreName

KIND = "cache_aware"
WALL_S = 1.7e9


def file(config: str = "{}", **limits: int) -> ConfiguredDefaults:
    """Return a file with a policy of the model `m`, told apart by its configuration."""
    return ConfiguredDefaults(policies={"m": (KIND, config)}, limits=limits)


A = file('{"cache_threshold":0.1}', k=10)
B = file('{"cache_threshold":0.2}', k=20)
NAMED = {A.policies["m"][1]: "A", B.policies["m"][1]: "B"}


def in_force(network: MiniNetwork, *names: str) -> list[str | None]:
    """Return whose policy of `m` is in force on each node."""
    policies = [network.nodes[name].sync.get_policy_state("m") for name in names or network.nodes]
    return [None if p is None else NAMED.get(p.config, p.config) for p in policies]


def started(
    network: MiniNetwork, name: str, defaults: ConfiguredDefaults | None, **settings: Any
) -> MeshNode:
    """Start a node with a file, wait until it is ready, and let it be heard."""
    node = network.start(name, defaults=defaults, **settings)
    network.run_until(lambda: node.is_ready)
    network.run(2.0)
    return node


def write(node: MeshNode, network: MiniNetwork, config: str) -> None:
    """Write the policy of `m` as an operator does."""
    node.sync.sync_policy_state("m", policy_type=KIND, config=config)
    network.pump(node.name)
    network.run(2.0)


def test_a_default_is_in_force_everywhere_and_shows_as_one() -> None:
    """Also on nodes without a file; nobody has written it, so that it has no version."""
    network = MiniNetwork()
    started(network, "n0", A)
    started(network, "n1", None)
    for node in network.nodes.values():
        policy = node.sync.get_policy_state("m")
        assert policy is not None
        assert ("n0", 0) == (policy.default_of, policy.version)
        assert [policy] == node.sync.get_all_policy_states()
        assert node.sync.get_policy_state("m") is policy
        assert ("n0", 10, ["k"]) == (
            node.sync.limits.default_of("k"),
            node.sync.limits.configured("k"),
            node.sync.limits.keys(),
        )


@pytest.mark.parametrize("ahead_s", [-50.0, 0.0, 50.0])
def test_what_was_written_is_in_force_whoever_starts_later(ahead_s: float) -> None:
    """Whatever the clock of the later one shows; the one without a file goes on as well."""
    network = MiniNetwork()
    operator = started(network, "n0", None)
    write(operator, network, "{}")
    operator.sync.limits.set("k", 7)
    network.pump("n0")
    late = started(network, "n1", B, wall_offset_s=WALL_S + ahead_s)

    assert ["{}", "{}"] == in_force(network)
    assert (7, None) == (late.sync.limits.configured("k"), late.sync.limits.default_of("k"))
    policy = late.sync.get_policy_state("m")
    assert policy is not None
    assert (1, None) == (policy.version, policy.default_of)


@pytest.mark.parametrize("ahead_s", [-50.0, 0.0, 50.0])
def test_of_two_files_the_one_of_the_later_start_is_in_force(ahead_s: float) -> None:
    """A clock that is ahead within the tolerance does not change the order of starts."""
    network = MiniNetwork()
    started(network, "n0", A, wall_offset_s=WALL_S + ahead_s)
    before = in_force(network)
    started(network, "n1", B)

    assert ["A"] == before
    assert ["B", "B"] == in_force(network)


def test_a_rolled_change_takes_effect() -> None:
    """All are restarted one after the other with another file; the line is gone with the last."""
    network = MiniNetwork()
    for name in ("n0", "n1", "n2"):
        started(network, name, A)
    early = [node.health().problems for node in network.nodes.values()]
    lines = []
    for name in ("n2", "n1", "n0"):
        network.kill(name)
        network.run(20.0)
        started(network, name, B, seeds=("n0", "n1", "n2"))
        assert {"B"} == set(in_force(network))
        lines.append(network.nodes[name].health().problems)

    assert [()] * 3 == early
    assert [2, 2, 0] == [len(line) for line in lines]
    assert (
        "the files of n0, n1, n2 differ about the policy of 'm'; "
        "that of n2, which started last, is in force"
    ) == lines[0][1]


def test_removing_what_was_written_brings_the_default_back() -> None:
    """On all nodes; the default itself cannot be removed."""
    network = MiniNetwork()
    operator = started(network, "n0", None)
    started(network, "n1", A)
    write(operator, network, "{}")
    operator.sync.limits.set("k", 7)
    written = in_force(network)
    operator.sync.remove_policy_state("m")
    operator.sync.limits.remove("k")
    network.pump("n0")
    network.run(2.0)

    assert ["{}", "{}"] == written
    assert ["A", "A"] == in_force(network)
    assert [10, 10] == [node.sync.limits.configured("k") for node in network.nodes.values()]
    with pytest.raises(UnknownKeyError):
        operator.sync.remove_policy_state("m")
    with pytest.raises(UnknownKeyError):
        operator.sync.limits.remove("k")


def test_before_it_is_ready_a_nodes_own_file_is_in_force_on_it() -> None:
    """And nothing of it is said to the others, who may know of something that was written."""
    network = MiniNetwork()
    never = GossipConfig(bootstrap_after_s=0.0)
    operator = started(network, "n0", None)
    write(operator, network, "{}")
    network.cut_both("n0", "n1")
    late = network.start("n1", defaults=B, config=never)
    network.run(30.0)
    early = in_force(network), late.sync.defaults.said_by()
    network.cuts.clear()
    network.run_until(lambda: late.is_ready)
    network.run(2.0)

    assert (["{}", "B"], []) == early
    assert ["{}", "{}"] == in_force(network)


def test_a_node_that_began_alone_does_not_beat_what_was_written_elsewhere() -> None:
    """Both have begun, and the file was said long after the operator wrote."""
    network = MiniNetwork()
    operator = started(network, "n0", None)
    write(operator, network, "{}")
    network.cut_both("n0", "n1")
    late = network.start("n1", defaults=B, config=GossipConfig(bootstrap_after_s=1.0))
    network.run(30.0)
    alone = late.is_ready, in_force(network, "n1")
    network.cuts.clear()
    network.run(30.0)

    assert (True, ["B"]) == alone
    assert ["{}", "{}"] == in_force(network)


def test_differing_files_are_a_problem_of_every_node() -> None:
    """Each key is named, with whose file is in force."""
    network = MiniNetwork()
    started(network, "n0", A)
    started(network, "n1", B)
    for node in network.nodes.values():
        health = node.health()
        assert HealthStatus.DEGRADED is health.status
        assert (
            (
                "the files of n0, n1 differ about the limit 'k'; "
                "that of n1, which started last, is in force"
            ),
            (
                "the files of n0, n1 differ about the policy of 'm'; "
                "that of n1, which started last, is in force"
            ),
        ) == health.problems


def test_a_node_without_a_file_differs_from_nobody() -> None:
    """It says nothing of any key, as does a file for another model."""
    network = MiniNetwork()
    started(network, "n0", A)
    started(network, "n1", ConfiguredDefaults(limits={"other": 1}))
    started(network, "n2", None)

    assert [()] * 3 == [node.health().problems for node in network.nodes.values()]


def test_a_file_that_says_nothing_any_more_takes_back_what_it_said() -> None:
    """Once its node is ready again."""
    network = MiniNetwork()
    started(network, "n0", A)
    started(network, "n1", None)
    network.kill("n0")
    network.run(20.0)
    meanwhile = in_force(network)
    started(network, "n0", None, seeds=("n1",))

    assert ["A"] == meanwhile
    assert [None, None] == in_force(network)


def test_what_a_gone_node_said_holds_for_a_quarter_of_an_hour() -> None:
    """A restart changes nothing, and what is left of a dead one does not stay for ever."""
    network = MiniNetwork()
    for name, defaults in (("n0", None), ("n1", None), ("n2", A)):
        started(network, name, defaults)
    network.kill("n2")
    network.run(800.0)
    early = in_force(network)
    network.run(300.0)

    assert ["A", "A"] == early
    assert [None, None] == in_force(network)


def test_what_a_forgotten_node_said_is_removed() -> None:
    """Also by the survivor of two, who has no majority before that."""
    network = MiniNetwork()
    network.is_refusing = False  # it is silent: its process may live
    started(network, "n0", None)
    started(network, "n1", A)
    network.is_refusing = False  # or the refusal would tell that the process is gone
    network.kill("n1")
    network.run(1200.0)
    early = in_force(network)
    network.nodes["n0"].forget("n1")
    network.run(20.0)

    assert ["A"] == early
    assert [None] == in_force(network)


def test_what_a_forgotten_node_said_is_removed_at_once() -> None:
    """And not after the time that others have to come back."""
    network = MiniNetwork()
    for name, defaults in (("n0", None), ("n1", None), ("n2", A)):
        started(network, name, defaults)
    network.kill("n2")
    network.run(60.0)
    early = in_force(network)
    network.nodes["n1"].forget("n2")
    network.pump("n1")
    network.run(20.0)

    assert ["A", "A"] == early
    assert [None, None] == in_force(network)


def test_what_a_node_said_before_its_restart_does_not_beat_its_file() -> None:
    """What it kept on the disk is of the file of then."""
    network = MiniNetwork()
    started(network, "n0", A, seeds=())
    state = network.nodes["n0"].replica.export_state()
    network.kill("n0")
    never = GossipConfig(bootstrap_after_s=0.0)
    node = network.start("n0", defaults=B, state=state, seeds=("n1",), config=never)
    network.run(5.0)

    assert (False, ["B"]) == (node.is_ready, in_force(network))


@pytest.mark.slow
def test_a_node_that_was_out_of_reach_says_it_again_in_its_old_place() -> None:
    """Its start is no later than it was: the file of who started after it stays in force."""
    network = MiniNetwork()
    started(network, "n0", None)
    started(network, "n1", None)
    started(network, "n2", A)
    started(network, "n1x", B)
    for other in ("n0", "n1", "n1x"):
        network.cut_both("n2", other)
    network.run(1200.0)
    removed = network.nodes["n0"].sync.defaults.said_by()
    network.cuts.clear()
    network.run(60.0)

    assert ["n1x"] == removed
    assert ["n1x", "n2"] == network.nodes["n0"].sync.defaults.said_by()
    assert {"B"} == set(in_force(network))


def test_whoever_is_alone_after_a_restart_removes_nothing() -> None:
    """It does not know yet who else there is."""
    network = MiniNetwork()
    started(network, "n0", None)
    started(network, "n1", A)
    state = network.nodes["n0"].replica.export_state()
    network.kill("n0")
    network.kill("n1")
    alone = started(network, "n0", None, state=state, seeds=("n1",))
    network.run(2000.0)

    assert alone.is_ready
    assert ["A"] == in_force(network)


def test_a_file_whose_node_is_ahead_over_the_tolerance_counts_on_that_node_alone() -> None:
    """Nobody takes its entries before the clocks agree again."""
    network = MiniNetwork()
    started(network, "n0", A)
    network.start("n1", defaults=B, wall_offset_s=WALL_S + 500.0)
    network.run(30.0)
    early = in_force(network)

    assert ["A", "B"] == early


def test_a_fact_counts_as_of_no_later_than_it_was_written() -> None:
    """A start that was never could hold its file in force for good."""
    network = MiniNetwork()
    odd = started(network, "n0", A)
    table = odd.sync.defaults._table()
    assert table is not None
    fact = {"started": [1 << 60, 0], "policies": {"m": [KIND, A.policies["m"][1]]}, "limits": {}}
    table.put("gone", fact)
    network.pump("n0")
    network.run(1.0)
    started(network, "n1", B)

    assert {"B"} == set(in_force(network))


@pytest.mark.parametrize(
    "said",
    [
        1,
        {},
        {"started": [1], "policies": {}, "limits": {}},
        {"started": [1, 0], "policies": {"m": "x"}, "limits": {}},
        {"started": [1, 0], "policies": {}, "limits": {"k": -1}},
        {"started": [1, 0], "policies": {}, "limits": {"k": True}},
        {"started": [-1, 0], "policies": {}, "limits": {}},
        {"started": [1, 0], "policies": [], "limits": {}},
    ],
)
def test_what_cannot_be_read_is_a_problem_and_no_end(said: Any) -> None:
    """A peer of another version may say anything."""
    network = MiniNetwork()
    node = started(network, "n0", A)
    table = node.sync.defaults._table()
    assert table is not None
    table.put("odd", said)
    network.pump("n0")

    assert ["A"] == in_force(network)
    assert ("the defaults of files holds 'odd', which cannot be read",) == node.health().problems


def test_what_somebody_removed_is_said_again() -> None:
    """What a file says is true for as long as its node runs."""
    network = MiniNetwork()
    started(network, "n0", None)
    started(network, "n1", A)
    network.nodes["n0"].sync.defaults.remove("n1")
    network.pump("n0")
    network.run(2.0)

    assert ["A", "A"] == in_force(network)


def test_a_document_of_the_same_name_and_another_type_does_no_harm() -> None:
    """An application may have taken the name; then files count on their own nodes alone."""
    network = MiniNetwork()
    node = network.start("n0", defaults=A, config=GossipConfig(bootstrap_after_s=0.0), seeds=("x",))
    node.replica.open(DEFAULTS_DOCUMENT, type_tag="g_counter")
    node.replica.write(DEFAULTS_DOCUMENT, lambda state, c: state.increment(by=c.actor))
    network.pump("n0")
    started(network, "n1", None, config=GossipConfig(bootstrap_after_s=0.5))
    network.run_until(lambda: node.is_ready)

    assert ["A", None] == in_force(network)
    assert "the defaults of files holds another type of document, which cannot be read" in (
        node.health().problems
    )


def test_subscribers_hear_of_what_comes_into_force() -> None:
    """As of what is written, under the keys where that would stand."""
    network = MiniNetwork()
    node = started(network, "n0", None)
    subscription = node.sync.subscribe()
    started(network, "n1", A)

    heard = [(change.store, change.key, change.is_local) for change in subscription.take()]
    assert [
        (StoreName.APP, "rate_limit:k", False),
        (StoreName.POLICIES, "m", False),
    ] == heard


def test_a_policy_that_no_node_understands_is_a_problem_until_its_type_is_known() -> None:
    """A file of the library's user may come before the user's registration."""
    network = MiniNetwork()
    node = started(network, "n0", ConfiguredDefaults(policies={"m": ("mine", "x")}))
    early = node.health().problems
    node.sync.policy_types.register("mine", check=lambda _config: None)

    assert 1 == len(early)
    assert () == node.health().problems


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"k": -1}, InvalidValueError), ({"k": True}, InvalidTypeError), ({"": 1}, InvalidValueError)],
)
def test_a_default_that_could_not_be_written_is_refused(
    limits: dict[str, Any], error: type[Exception]
) -> None:
    """Before anything starts."""
    with pytest.raises(error):
        ConfiguredDefaults(limits=limits)


def test_a_file_of_more_than_can_be_said_is_refused() -> None:
    """All of it is one entry, of 256 KiB at most."""
    with pytest.raises(LimitError):
        ConfiguredDefaults(limits={f"key-{number}": 1 for number in range(50_000)})


def test_the_largest_file_is_said() -> None:
    """What is taken at the start fits into an entry."""
    network = MiniNetwork()
    largest = ConfiguredDefaults(policies={"m": (KIND, " " * 262_000)})
    started(network, "n0", None)
    started(network, "n1", largest)

    assert [" " * 262_000] * 2 == in_force(network)


def admitted(node: MeshNode, network: MiniNetwork, *, asked: int = 200) -> int:
    """Ask for units of the key `k` within one moment, and return how many pass."""
    return sum(bool(node.acquire("k", now=network.now)) for _ in range(asked))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(PartitionMode.STATIC, 33), (PartitionMode.CLOSED, 0), (PartitionMode.OPEN, 100)],
)
def test_before_anybody_was_met_a_limit_is_in_force_by_the_nodes_part(
    mode: PartitionMode, expected: int
) -> None:
    """Two seeds and itself are three nodes, which may all start now; or as the mode says."""
    network = MiniNetwork()
    node = network.start(
        "n0",
        defaults=ConfiguredDefaults(limits={"k": 100}),
        seeds=("n0", "n1", "n2"),
        config=GossipConfig(bootstrap_after_s=10.0),
        rate_limit=RateLimitConfig(partition_mode=mode),
    )
    network.run(1.0)
    counts = [admitted(node, network)]
    network.run(2.0)
    counts.append(admitted(node, network))

    assert not node.is_ready
    assert [expected, expected] == counts


def test_a_node_that_began_alone_admits_its_part_still() -> None:
    """Of what it was told of: all may have begun so, each for itself."""
    network = MiniNetwork()
    node = network.start(
        "n0",
        defaults=ConfiguredDefaults(limits={"k": 100}),
        seeds=("n0", "n1", "n2"),
        config=GossipConfig(bootstrap_after_s=1.0),
    )
    network.run(0.5)
    early = admitted(node, network)
    network.run_until(lambda: node.is_ready)
    network.run(3.0)

    assert 33 == early
    assert 33 == admitted(node, network)


def test_one_that_leaves_as_the_last_collects_nothing() -> None:
    """Nobody is in reach then, itself neither: what others do for all is left to who comes next."""
    network = MiniNetwork()
    node = started(network, "n0", A)
    node.leave(now=network.now)
    network.pump("n0")
    network.run(30.0)

    assert ["A"] == in_force(network)
