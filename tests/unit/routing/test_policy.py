"""Cache-aware routing: who is chosen and why, and what is recorded of it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.states import StateCluster

from meshlib.errors import InvalidTypeError, InvalidValueError, StateError
from meshlib.prefix import RadixTree
from meshlib.routing.policy import CacheAwareConfig, choose_worker
from meshlib.routing.records import RouteReason, TreeInsert, TreeMatch
from meshlib.sync import MeshSyncManager

MODEL = "llama-3"
DEFAULTS = CacheAwareConfig()


@pytest.fixture
def manager(state_cluster: type[StateCluster]) -> MeshSyncManager:
    return state_cluster(1).managers[0]


def put_workers(manager: MeshSyncManager, **loads: float) -> None:
    for name, load in loads.items():
        manager.sync_worker_state(
            name, model_id=MODEL, url=f"http://{name}", health=True, load=load
        )


def set_health(manager: MeshSyncManager, name: str, health: bool) -> None:
    worker = manager.get_worker_state(name)
    assert worker is not None
    manager.sync_worker_state(
        name, model_id=worker.model_id, url=worker.url, health=health, load=worker.load
    )


def set_policy(manager: MeshSyncManager, **config: Any) -> None:
    manager.sync_policy_state(MODEL, policy_type="cache_aware", config=json.dumps(config))


def insert(manager: MeshSyncManager, text: str, *tenants: str) -> None:
    for tenant in tenants:
        manager.sync_tree_operation(MODEL, TreeInsert(text, tenant))


def test_the_longest_prefix_wins(manager: MeshSyncManager) -> None:
    """Though another worker is less loaded."""
    put_workers(manager, w1=5, w2=0)
    insert(manager, "The quick brown fox", "w1")
    decision = manager.route(MODEL, "The quick brown")

    assert ("w1", "http://w1") == (decision.worker_id, decision.url)
    assert 15 == decision.matched
    assert RouteReason.PREFIX_MATCH is decision.reason


def test_a_longer_prefix_beats_a_shorter_one(manager: MeshSyncManager) -> None:
    """Both are above the threshold."""
    put_workers(manager, w1=0, w2=5)
    insert(manager, "The quick", "w1")
    insert(manager, "The quick brown", "w2")

    assert "w2" == manager.route(MODEL, "The quick brown fox").worker_id


def test_of_several_holders_the_least_loaded_is_chosen(manager: MeshSyncManager) -> None:
    """All of them have it."""
    put_workers(manager, w1=5, w2=3, w3=9, w4=0)
    prompts = [f"{number} Hello" for number in range(8)]
    for prompt in prompts:
        insert(manager, prompt, "w1", "w2", "w3")

    assert {"w2"} == {manager.route(MODEL, prompt).worker_id for prompt in prompts}


def test_the_threshold_itself_is_not_enough(manager: MeshSyncManager) -> None:
    """More than half is asked for, and half is there."""
    put_workers(manager, w1=5, w2=0)
    set_policy(manager, cache_threshold=0.5)
    insert(manager, "Hell", "w1")

    assert RouteReason.NO_MATCH is manager.route(MODEL, "Hello wo").reason
    assert RouteReason.PREFIX_MATCH is manager.route(MODEL, "Hello w").reason


def test_what_nobody_holds_goes_to_the_least_loaded(manager: MeshSyncManager) -> None:
    """By the loads that are reported."""
    put_workers(manager, w1=5, w2=1, w3=4)
    decision = manager.route(MODEL, "Hello world")

    assert "w2" == decision.worker_id
    assert RouteReason.NO_MATCH is decision.reason
    assert 0 == decision.matched


def test_ties_do_not_all_go_to_one_worker(manager: MeshSyncManager) -> None:
    """Forty prompts over four idle workers."""
    put_workers(manager, w1=0, w2=0, w3=0, w4=0)
    chosen = Counter(manager.route(MODEL, f"{number} prompt").worker_id for number in range(40))

    assert 4 == len(chosen)
    assert max(chosen.values()) <= 20


def test_a_beginning_that_all_share_does_not_bind_them_together(manager: MeshSyncManager) -> None:
    """Where a prompt goes is decided by what comes after what is already known."""
    put_workers(manager, w1=0, w2=0, w3=0, w4=0)
    system = "You are a helpful assistant. " * 40
    set_policy(manager, cache_threshold=0.9)
    chosen = {
        manager.route(MODEL, system + f"{number} " + "x" * 2000).worker_id for number in range(40)
    }

    assert 4 == len(chosen)


def test_a_placement_is_recorded_everywhere(state_cluster: type[StateCluster]) -> None:
    """Forty prompts through one node go to the same workers through the others."""
    cluster = state_cluster(3)
    put_workers(cluster.managers[0], w1=0, w2=0, w3=0, w4=0)
    cluster.exchange()
    prompts = [f"{number} is the number of this prompt" for number in range(40)]
    first = [cluster.managers[0].route(MODEL, prompt).worker_id for prompt in prompts]
    cluster.exchange()
    others = [
        [manager.route(MODEL, prompt).worker_id for prompt in prompts]
        for manager in cluster.managers[1:]
    ]

    assert [first, first] == others


def test_what_is_held_already_is_no_new_operation(manager: MeshSyncManager) -> None:
    """The specification's third node: a beginning of what is there."""
    put_workers(manager, w1=0)
    manager.route(MODEL, "Hello world")
    manager.route(MODEL, "Hello")

    tree = manager.get_tree_state(MODEL)
    assert tree is not None
    assert 1 == tree.version


def test_a_match_that_goes_on_is_recorded_in_full(manager: MeshSyncManager) -> None:
    """The next request may go on from there."""
    put_workers(manager, w1=0)
    manager.route(MODEL, "Hello world")
    manager.route(MODEL, "Hello world, and more")

    assert 21 == manager.match_tree(MODEL, "Hello world, and more").matched


def test_loads_far_apart_outweigh_the_cache(manager: MeshSyncManager) -> None:
    """And the placement is recorded, so the least loaded has it from then on."""
    put_workers(manager, w1=100, w2=10)
    insert(manager, "Hello world", "w1")
    decision = manager.route(MODEL, "Hello world")

    assert "w2" == decision.worker_id
    assert RouteReason.IMBALANCE is decision.reason
    assert ("w1", "w2") == manager.match_tree(MODEL, "Hello world").tenants


@pytest.mark.parametrize(
    ("loads", "is_imbalanced"),
    [
        ({"w1": 74, "w2": 10}, False),  # 64 apart, and more is asked for
        ({"w1": 75, "w2": 10}, True),
        ({"w1": 300, "w2": 200}, False),  # 1.5 times, and more is asked for
        ({"w1": 301, "w2": 200}, True),
    ],
)
def test_both_bounds_of_the_balance_must_be_crossed(
    manager: MeshSyncManager, loads: dict[str, float], is_imbalanced: bool
) -> None:
    """The difference and the factor, each strictly."""
    put_workers(manager, **loads)
    insert(manager, "Hello", "w1")

    assert is_imbalanced == (manager.route(MODEL, "Hello").reason is RouteReason.IMBALANCE)


def test_an_unhealthy_worker_does_not_count_for_the_balance(manager: MeshSyncManager) -> None:
    """A dead worker's load of 0 would otherwise switch the cache off."""
    put_workers(manager, w1=100, w2=99, w3=0)
    set_health(manager, "w3", False)
    insert(manager, "Hello", "w1")

    assert "w1" == manager.route(MODEL, "Hello").worker_id


def test_the_next_best_holder_stands_in_for_an_unhealthy_one(manager: MeshSyncManager) -> None:
    """Its prefix is shorter, and still above the threshold."""
    put_workers(manager, w1=0, w2=5, w3=0)
    insert(manager, "The quick brown fox", "w1")
    insert(manager, "The quick brown", "w2")
    set_health(manager, "w1", False)
    decision = manager.route(MODEL, "The quick brown fox")

    assert ("w2", 15, RouteReason.PREFIX_MATCH) == (
        decision.worker_id,
        decision.matched,
        decision.reason,
    )


def test_when_no_holder_can_take_it_the_least_loaded_does(manager: MeshSyncManager) -> None:
    """And the reason says so."""
    put_workers(manager, w1=0, w2=5, w3=2)
    insert(manager, "Hello", "w1")
    set_health(manager, "w1", False)
    decision = manager.route(MODEL, "Hello")

    assert ("w3", RouteReason.HOLDER_UNAVAILABLE) == (decision.worker_id, decision.reason)


def test_a_worker_that_is_gone_is_not_chosen(manager: MeshSyncManager) -> None:
    """Though the tree was told of it after it went."""
    put_workers(manager, w1=0, w2=5)
    manager.remove_worker_state("w1")
    insert(manager, "Hello", "w1")

    assert "w2" == manager.route(MODEL, "Hello").worker_id


def test_a_worker_of_another_model_is_not_chosen(manager: MeshSyncManager) -> None:
    """However idle it is."""
    put_workers(manager, w1=5)
    manager.sync_worker_state("w2", model_id="other", url="u", health=True, load=0)

    assert "w1" == manager.route(MODEL, "Hello").worker_id


def test_without_a_healthy_worker_there_is_no_decision(manager: MeshSyncManager) -> None:
    """And nothing is recorded."""
    put_workers(manager, w1=0)
    set_health(manager, "w1", False)
    decision = manager.route(MODEL, "Hello")

    assert (None, None, RouteReason.NO_WORKER) == (
        decision.worker_id,
        decision.url,
        decision.reason,
    )
    assert manager.get_tree_state(MODEL) is None


def test_the_empty_text_is_routed_and_not_recorded(manager: MeshSyncManager) -> None:
    """Everybody holds it."""
    put_workers(manager, w1=5, w2=1)

    assert "w2" == manager.route(MODEL, "").worker_id
    assert manager.get_tree_state(MODEL) is None


@pytest.mark.parametrize(("text", "error"), [(7, InvalidTypeError), ("\ud800", InvalidValueError)])
def test_a_bad_text_is_refused(manager: MeshSyncManager, text: Any, error: type[Exception]) -> None:
    """And nothing is recorded."""
    put_workers(manager, w1=0)
    with pytest.raises(error):
        manager.route(MODEL, text)
    assert manager.get_tree_state(MODEL) is None


@pytest.mark.parametrize(("size_max", "count"), [(1000, 1), (30, 2)])
def test_a_prompt_is_looked_for_once(
    manager: MeshSyncManager, monkeypatch: pytest.MonkeyPatch, size_max: int, count: int
) -> None:
    """And once more where others have to make room for it, since that changes the tree."""
    put_workers(manager, w1=0)
    set_policy(manager, max_tree_size=size_max)
    manager.route(MODEL, "one that was there before")
    encode, text, asked = RadixTree._encoded, "a new prompt", list[str]()

    def counting(key: str) -> bytes:
        asked.append(key)
        return encode(key)

    monkeypatch.setattr(RadixTree, "_encoded", staticmethod(counting))
    manager.route(MODEL, text)

    assert [text] * count == [key for key in asked if key == text]


@pytest.mark.parametrize(
    ("size_max", "prompt_count", "has_problem"),
    [(10_000, 5, True), (10_000, 500, True), (1_000_000, 5, False), (1_000_000, 500, False)],
)
def test_a_tree_that_has_room_for_few_prompts_is_a_problem(
    manager: MeshSyncManager, *, size_max: int, prompt_count: int, has_problem: bool
) -> None:
    """As the specification's 10,000 characters are: each prompt pushes out the one before."""
    put_workers(manager, w1=0)
    set_policy(manager, max_tree_size=size_max)
    before = manager.small_trees()
    for number in range(prompt_count):
        manager.route(MODEL, f"{number} " * 1000)

    assert before == []
    assert has_problem == any(f"{size_max:,}" in line for line in manager.small_trees())


def test_a_tree_of_short_prompts_may_be_small(manager: MeshSyncManager) -> None:
    """What counts is how many have room."""
    put_workers(manager, w1=0)
    set_policy(manager, max_tree_size=10_000)
    for number in range(400):
        manager.route(MODEL, f"{number} is short")

    assert manager.small_trees() == []


def test_requests_that_were_begun_here_count_as_load(manager: MeshSyncManager) -> None:
    """Until they end."""
    put_workers(manager, w1=0, w2=1)
    policy = manager.policy(MODEL)
    before = policy.select("first").worker_id
    policy.begin("w1")
    policy.begin("w1")
    during = policy.select("second").worker_id
    policy.end("w1")
    policy.end("w1")

    assert ["w1", "w2", "w1"] == [before, during, policy.select("third").worker_id]


def test_what_was_not_begun_cannot_end(manager: MeshSyncManager) -> None:
    """A load below nothing would draw everything."""
    with pytest.raises(StateError):
        manager.policy(MODEL).end("w1")


def test_a_changed_policy_holds_at_once(manager: MeshSyncManager) -> None:
    """No restart, and on the same object."""
    put_workers(manager, w1=5, w2=0)
    insert(manager, "Hello", "w1")
    policy = manager.policy(MODEL)
    before = policy.select("Hello world").worker_id
    set_policy(manager, cache_threshold=0.9)
    after = policy.select("Hello there").worker_id

    assert ["w1", "w2"] == [before, after]


def test_a_policy_of_another_type_leaves_the_defaults(manager: MeshSyncManager) -> None:
    """Its configuration is not ours to read."""
    manager.policy_types.register("ours")
    manager.sync_policy_state(MODEL, policy_type="ours", config='{"cache_threshold": 0.9}')

    assert DEFAULTS == manager.policy(MODEL).config


def test_an_interval_of_zero_switches_eviction_off(manager: MeshSyncManager) -> None:
    """The tree's own limit stays."""
    put_workers(manager, w1=0)
    set_policy(manager, eviction_interval_secs=0, max_tree_size=10)
    manager.route(MODEL, "longer than ten characters")

    assert 26 == manager.trees.characters(MODEL)


def test_a_removed_worker_is_forgotten_in_the_tree(state_cluster: type[StateCluster]) -> None:
    """On all nodes; a worker of that name that comes later begins with nothing."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put_workers(here, w1=0)
    here.route(MODEL, "Hello")
    cluster.exchange()
    there.remove_worker_state("w1")
    cluster.exchange()

    assert TreeMatch(tenants=(), matched=0, input_length=5) == here.match_tree(MODEL, "Hello")


def test_a_worker_that_changes_its_model_is_forgotten_in_the_old_tree(
    manager: MeshSyncManager,
) -> None:
    """It has loaded other weights, and its cache is gone."""
    put_workers(manager, w1=0)
    manager.route(MODEL, "Hello")
    manager.sync_worker_state("w1", model_id="other", url="u", health=True, load=0)

    assert 0 == manager.match_tree(MODEL, "Hello").matched


def test_a_new_node_knows_the_tree_once_it_has_the_state(state_cluster: type[StateCluster]) -> None:
    """There is nothing to apply: the replicated tree decides."""
    cluster = state_cluster(2)
    put_workers(cluster.managers[0], w1=0, w2=0)
    for prompt in ("one prompt", "another prompt"):
        cluster.managers[0].route(MODEL, prompt)
    before = cluster.managers[1].policy(MODEL).restore_tree_state_from_mesh()
    cluster.exchange()

    assert (0, 2) == (before, cluster.managers[1].policy(MODEL).restore_tree_state_from_mesh())


def test_choosing_among_nobody_is_an_error() -> None:
    """The policy never asks."""
    with pytest.raises(StateError):
        choose_worker("text", loads={}, held={}, config=DEFAULTS)


workers = st.dictionaries(
    st.sampled_from([f"w{number}" for number in range(6)]),
    st.tuples(st.booleans(), st.floats(0, 300)),
    max_size=6,
)
prompts = st.text("abc", max_size=8)


@settings(max_examples=100, deadline=None)
@given(workers=workers, held=st.lists(st.tuples(prompts, st.integers(0, 7))), prompt=prompts)
def test_only_a_healthy_worker_of_the_model_is_ever_chosen(
    state_cluster: type[StateCluster], workers: Any, held: Any, prompt: str
) -> None:
    """Whatever the tree says, and there is a choice whenever there is one."""
    manager = state_cluster(1).managers[0]
    for name, (health, load) in workers.items():
        manager.sync_worker_state(name, model_id=MODEL, url="u", health=health, load=load)
    for text, number in held:
        if text:
            insert(manager, text, f"w{number}")
    healthy = {name for name, (health, _) in workers.items() if health}
    chosen = manager.route(MODEL, prompt).worker_id

    assert chosen in healthy if healthy else chosen is None


@settings(max_examples=100, deadline=None)
@given(workers=workers, held=st.lists(st.tuples(prompts, st.integers(0, 5))), prompt=prompts)
def test_equal_states_decide_equally(
    state_cluster: type[StateCluster], workers: Any, held: Any, prompt: str
) -> None:
    """Though one was written here and the other came by entries, in another order."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    for name, (health, load) in workers.items():
        here.sync_worker_state(name, model_id=MODEL, url="u", health=health, load=load)
    for number, (text, tenant) in enumerate(held):
        if text:
            insert((here, there)[number % 2], text, f"w{tenant}")
    cluster.exchange()

    assert here.route(MODEL, prompt) == there.route(MODEL, prompt)


@given(
    loads=st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1e6), min_size=1),
    held=st.dictionaries(st.text("abc", min_size=1), st.integers(0, 20)),
    text=st.text(min_size=20, max_size=20),
)
def test_a_choice_does_not_depend_on_the_order_of_the_workers(
    loads: dict[str, float], held: dict[str, int], text: str
) -> None:
    """Neither of the workers nor of the holders."""
    backwards = dict(reversed(loads.items()))
    held_backwards = dict(reversed(held.items()))

    assert choose_worker(text, loads=loads, held=held, config=DEFAULTS) == choose_worker(
        text, loads=backwards, held=held_backwards, config=DEFAULTS
    )
