"""The policies beside `cache_aware`: what each chooses, and where routers agree."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.states import StateCluster

from meshlib.errors import ConfigError, InvalidTypeError, InvalidValueError
from meshlib.routing import POLICIES, ExpectedTimeConfig, Question, RouteReason, TreeInsert
from meshlib.sync import MeshSyncManager

MODEL = "llama-3"
NAMES = (
    "cache_aware", "consistent_hash", "expected_time", "least_loaded", "power_of_two", "random",
    "rendezvous", "round_robin",
)  # fmt: skip
AGREEING = ("cache_aware", "consistent_hash", "expected_time", "least_loaded", "rendezvous")


@pytest.fixture
def manager(state_cluster: type[StateCluster]) -> MeshSyncManager:
    return state_cluster(1).managers[0]


def put_workers(manager: MeshSyncManager, **loads: float) -> None:
    for name, load in loads.items():
        manager.sync_worker_state(
            name, model_id=MODEL, url=f"http://{name}", health=True, load=load
        )


def set_policy(manager: MeshSyncManager, policy_type: str, **config: Any) -> None:
    manager.sync_policy_state(MODEL, policy_type=policy_type, config=json.dumps(config))


def chosen(manager: MeshSyncManager, count: int = 40) -> list[str | None]:
    return [
        manager.route(MODEL, f"{number} prompt of no other", now=0.0).worker_id
        for number in range(count)
    ]


def test_these_are_the_types_that_are_known(manager: MeshSyncManager) -> None:
    """Under the names that the field has for them."""
    assert list(NAMES) == sorted(POLICIES) == manager.policy_types.names()


@pytest.mark.parametrize("policy_type", NAMES)
def test_a_policy_with_one_worker_chooses_it(manager: MeshSyncManager, policy_type: str) -> None:
    """Whatever it looks at; and nobody when it is not healthy."""
    put_workers(manager, w1=3)
    set_policy(manager, policy_type)
    one = manager.route(MODEL, "Hello")
    empty = manager.route(MODEL, "")
    manager.sync_worker_state("w1", model_id=MODEL, url="u", health=False, load=0)

    assert ("w1", "w1") == (one.worker_id, empty.worker_id)
    assert RouteReason.NO_WORKER is manager.route(MODEL, "Hello").reason


@pytest.mark.parametrize("policy_type", NAMES)
def test_a_policy_that_is_not_told_of_loads_spreads(
    manager: MeshSyncManager, policy_type: str
) -> None:
    """Forty prompts over four idle workers: none gets more than half, and none nothing."""
    put_workers(manager, w1=0, w2=0, w3=0, w4=0)
    set_policy(manager, policy_type)
    counts = Counter(chosen(manager))

    assert 4 == len(counts)
    assert max(counts.values()) <= 20


@pytest.mark.parametrize("policy_type", AGREEING)
def test_routers_agree(state_cluster: type[StateCluster], policy_type: str) -> None:
    """Two that know the same choose the same, whatever each has routed before."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put_workers(here, w1=0, w2=1, w3=0, w4=0)
    set_policy(here, policy_type)
    cluster.exchange()
    for number in range(7):
        here.route(MODEL, f"only here, {number}", record=False)

    assert chosen(there) == chosen(here)


def test_round_robin_takes_turns(manager: MeshSyncManager) -> None:
    """Each worker as often as the others."""
    put_workers(manager, w1=9, w2=0, w3=0)
    set_policy(manager, "round_robin")

    assert {10} == set(Counter(chosen(manager, 30)).values())


def test_least_loaded_takes_the_least_loaded(manager: MeshSyncManager) -> None:
    """Reported, and with what is in flight."""
    put_workers(manager, w1=2, w2=1, w3=3)
    set_policy(manager, "least_loaded")
    before = manager.route(MODEL, "a").worker_id
    for _ in range(2):
        manager.load.begin("w2", now=0.0)

    assert ("w2", "w1") == (before, manager.route(MODEL, "a").worker_id)


def test_power_of_two_never_takes_the_most_loaded(manager: MeshSyncManager) -> None:
    """Whoever it is compared with is less loaded."""
    put_workers(manager, w1=5, w2=1, w3=2)
    set_policy(manager, "power_of_two")

    assert {"w2", "w3"} == set(chosen(manager))


def test_a_hash_is_of_the_beginning(manager: MeshSyncManager) -> None:
    """What comes after it does not matter."""
    put_workers(manager, w1=0, w2=0, w3=0, w4=0)
    for policy_type in ("rendezvous", "consistent_hash"):
        set_policy(manager, policy_type, prefix_characters=10)
        decisions = {manager.route(MODEL, "0123456789" + "x" * n).worker_id for n in range(20)}

        assert 1 == len(decisions)


def test_consistent_hash_bounds_loads(manager: MeshSyncManager) -> None:
    """One prompt, over and over: it goes on to the next owner once the first has its share."""
    put_workers(manager, w1=0, w2=0, w3=0, w4=0)
    set_policy(manager, "consistent_hash", load_factor=1.25)
    for _ in range(40):
        decision = manager.route(MODEL, "always the same")
        assert decision.worker_id is not None
        manager.load.begin(decision.worker_id, now=0.0)

    assert max(manager.load.counts.values()) <= 13
    assert 4 == len(manager.load.counts)


@pytest.mark.parametrize("policy_type", ["round_robin", "random", "rendezvous", "least_loaded"])
def test_a_policy_that_looks_at_no_prefix_records_none(
    manager: MeshSyncManager, policy_type: str
) -> None:
    """The tree is not filled for nobody."""
    put_workers(manager, w1=0)
    set_policy(manager, policy_type)
    manager.route(MODEL, "Hello world")

    assert manager.get_tree_state(MODEL) is None


@pytest.mark.parametrize(
    ("policy_type", "config", "path"),
    [
        ("weighted", "{}", "policy_type: 'weighted' is not known"),
        ("random", '{"seed": 1}', "config.seed: unknown; known: none"),
        ("expected_time", '{"stick": -1}', "config.stick: expected a number of 0 or more"),
        ("expected_time", '{"stik": 1}', "config.stik: unknown; known: stick"),
        ("consistent_hash", '{"load_factor": 0.5}', "config.load_factor"),
        ("rendezvous", '{"prefix_characters": 0}', "config.prefix_characters"),
        ("cache_aware", '{"compat": "sglang"}', "config.compat: expected one of"),
        ("cache_aware", '{"min_match": 1.5}', "config.min_match: expected an integer"),
    ],
)
def test_a_configuration_that_would_be_passed_over_is_refused(
    manager: MeshSyncManager, policy_type: str, config: str, path: str
) -> None:
    """With the path of what is wrong."""
    with pytest.raises(InvalidValueError, match=path):
        manager.sync_policy_state(MODEL, policy_type=policy_type, config=config)
    assert manager.get_policy_state(MODEL) is None


def test_settings_of_a_program_are_checked() -> None:
    """As those of a policy that is written."""
    with pytest.raises(ConfigError):
        ExpectedTimeConfig(stick=-1.0)
    with pytest.raises(InvalidTypeError):
        ExpectedTimeConfig(stick="3")  # type: ignore[arg-type]


class Last:
    """A policy of an application: the last worker by name, or the one of its configuration."""

    policy_type: ClassVar[str] = "last"
    RANGES: ClassVar[Mapping[str, Any]] = {}
    records: ClassVar[bool] = False
    characters_per_token: ClassVar[float] = 4.0
    characters_max: int = 100
    refresh_s: float = 60.0

    def __init__(self, config: str) -> None:
        self._wanted = config

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        wanted = self._wanted if self._wanted in question.loads else max(question.loads)
        return wanted, RouteReason.IN_TURN


def test_a_policy_of_ones_own_decides(manager: MeshSyncManager) -> None:
    """Once its type is registered with what makes it, also for a model that is routed already."""
    put_workers(manager, w1=0, w2=0, w3=9)
    manager.policy_types.register("last")
    manager.sync_policy_state(MODEL, policy_type="last", config="")
    before = {manager.route(MODEL, f"{n} x", record=False).worker_id for n in range(20)}
    manager.policy_types.register("last", make=Last)
    after = {manager.route(MODEL, f"{n} x").worker_id for n in range(20)}
    manager.sync_policy_state(MODEL, policy_type="last", config="w1")

    assert ({"w1", "w2"}, {"w3"}) == (before, after)
    assert "w1" == manager.route(MODEL, "x").worker_id
    with pytest.raises(InvalidTypeError):
        manager.policy_types.register("last", make="Last")  # type: ignore[arg-type]


# Expected time

TEXT = "".join(f"{number:04d}" for number in range(1000))


@pytest.fixture
def timed(manager: MeshSyncManager) -> MeshSyncManager:
    put_workers(manager, w1=0, w2=0, w3=0)
    set_policy(manager, "expected_time")
    return manager


def begin(manager: MeshSyncManager, worker_id: str, tokens: float) -> None:
    manager.load.begin(worker_id, prefill_tokens=tokens, now=0.0)


def test_the_shortest_backlog_is_chosen(timed: MeshSyncManager) -> None:
    """For a prompt that nobody holds."""
    begin(timed, "w1", 5000)
    begin(timed, "w3", 3000)
    decision = timed.route(MODEL, TEXT, tokens=1000, now=0.0)

    assert ("w2", RouteReason.NO_MATCH) == (decision.worker_id, decision.reason)
    assert 1000 == decision.prefill_tokens


def test_the_holder_is_worth_a_wait(timed: MeshSyncManager) -> None:
    """Up to what the others lack, and `stick` times that on top."""
    set_policy(timed, "expected_time", stick=3)
    timed.sync_tree_operation(MODEL, TreeInsert(TEXT[:2000], "w1"))
    begin(timed, "w1", 1900)
    near = timed.route(MODEL, TEXT, tokens=1000, record=False, now=0.0)
    begin(timed, "w1", 200)
    far = timed.route(MODEL, TEXT, tokens=1000, record=False, now=0.0)

    assert ("w1", RouteReason.PREFIX_MATCH, 2000) == (near.worker_id, near.reason, near.matched)
    assert 500 == near.prefill_tokens
    assert (RouteReason.EXPECTED_SOONER, 1000) == (far.reason, far.prefill_tokens)
    assert "w1" != far.worker_id


def test_a_backlog_is_worked_off_in_time(timed: MeshSyncManager) -> None:
    """A second later the worker is through with it."""
    for worker_id in ("w1", "w2"):
        begin(timed, worker_id, 100_000)
    begin(timed, "w3", 20_000)
    now = timed.route(MODEL, "abc", tokens=10, now=0.0).worker_id
    begin(timed, "w3", 150_000)
    later = timed.route(MODEL, "xyz", tokens=10, now=5.0).worker_id

    assert ("w3", True) == (now, later in ("w1", "w2"))


def test_what_all_prompts_share_does_not_keep_them_together(timed: MeshSyncManager) -> None:
    """A system prompt is soon cached everywhere, and says nothing of a conversation."""
    system = "You are a helpful assistant. " * 4
    counts = Counter(
        timed.route(
            MODEL, f"{system}{number} is another question " + TEXT[number:], tokens=1200, now=0.0
        ).worker_id
        for number in range(60)
    )

    assert 3 == len(counts)
    assert max(counts.values()) <= 40


def test_a_conversation_stays(timed: MeshSyncManager) -> None:
    """Each turn goes where the last one was, while all are idle."""
    first = timed.route(MODEL, TEXT[:400], now=0.0).worker_id
    turns = [timed.route(MODEL, TEXT[:size], now=0.0).worker_id for size in range(800, 4000, 400)]

    assert {first} == set(turns)


def test_a_holder_that_is_gone_is_not_waited_for(timed: MeshSyncManager) -> None:
    """And the reason says so."""
    timed.sync_tree_operation(MODEL, TreeInsert(TEXT, "w9"))
    decision = timed.route(MODEL, TEXT, now=0.0)

    assert RouteReason.HOLDER_UNAVAILABLE is decision.reason
    assert decision.worker_id in ("w1", "w2", "w3")


def test_a_slow_worker_is_given_less(timed: MeshSyncManager) -> None:
    """Equal backlogs are not equal times."""
    load = timed.load
    for worker_id, took_s in (("w1", 0.5), ("w2", 0.5), ("w3", 5.0)):
        request_id = load.begin(worker_id, prefill_tokens=10_000, now=0.0)
        load.first_token(request_id, now=took_s)
        load.end(request_id, now=took_s)
    load.tick(10.0, others=[])
    counts = Counter(
        timed.route(MODEL, f"{n} of many" + TEXT[n:], tokens=1000, now=20.0).worker_id
        for n in range(30)
    )

    assert {"w1", "w2"} == set(counts)


def test_what_is_decoded_counts_as_much_as_it_is_said_to(timed: MeshSyncManager) -> None:
    """Not at all by default; and never so much that a shorter backlog is passed over for it."""
    for worker_id in ("w1", "w2"):
        request_id = timed.load.begin(worker_id, now=0.0)
        timed.load.renew(request_id, decoded_tokens=8000, now=0.0)
    begin(timed, "w3", 1000)
    before = timed.select(MODEL, TEXT, tokens=1000, now=0.0).worker_id
    set_policy(timed, "expected_time", decode_weight=0.25)
    after = timed.select(MODEL, TEXT, tokens=1000, now=0.0).worker_id
    set_policy(timed, "expected_time", decode_weight=0.1)
    little = timed.select(MODEL, TEXT, tokens=1000, now=0.0).worker_id

    assert before in {"w1", "w2"}
    assert "w3" == after
    assert little in {"w1", "w2"}


def test_a_new_worker_starts_slowly(state_cluster: type[StateCluster]) -> None:
    """It is not given every prompt at once; ten seconds later it counts in full."""
    manager = state_cluster(1).managers[0]
    put_workers(manager, w1=0, w2=0)
    replica_changes: list[Any] = []
    manager.ages.follow(replica_changes, now=0.0, is_settled=True)
    set_policy(manager, "expected_time")
    begin(manager, "w1", 2000)
    begin(manager, "w2", 2000)
    put_workers(manager, new=0)
    manager.ages._came_at["new"] = 0.0
    cold = manager.route(MODEL, TEXT, tokens=1000, record=False, now=0.0).worker_id
    begin(manager, "w1", 300_000)
    begin(manager, "w2", 300_000)
    warm = manager.route(MODEL, TEXT, tokens=1000, record=False, now=11.0).worker_id

    assert (True, "new") == (cold in ("w1", "w2"), warm)


def test_expected_time_is_the_default_where_prefill_is_told(manager: MeshSyncManager) -> None:
    """And `cache_aware` where nobody tells of any."""
    before = manager.policy(MODEL).policy.policy_type
    manager.load.begin("w1", now=0.0)
    counted = manager.policy(MODEL).policy.policy_type
    manager.load.begin("w1", prefill_tokens=5, now=0.0)
    told = manager.policy(MODEL).policy.policy_type
    set_policy(manager, "cache_aware")

    assert ("cache_aware", "cache_aware", "expected_time") == (before, counted, told)
    assert "cache_aware" == manager.policy(MODEL).policy.policy_type


def test_counts_alone_choose_the_least_loaded(manager: MeshSyncManager) -> None:
    """Where routers tell of requests and not of what they prefill."""
    put_workers(manager, w1=0, w2=0, w3=0)
    set_policy(manager, "expected_time")
    manager.load.begin("w1", now=0.0)
    manager.load.begin("w3", now=0.0)

    assert {"w2"} == set(chosen(manager, 20))


loads = st.dictionaries(
    st.sampled_from(["w1", "w2", "w3"]), st.integers(0, 50_000), min_size=1, max_size=3
)


@settings(max_examples=60, deadline=None)
@given(told=loads, held=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3999)), max_size=4))
def test_two_nodes_with_equal_state_and_equal_load_choose_alike(
    state_cluster: type[StateCluster], told: dict[str, int], held: list[tuple[int, int]]
) -> None:
    """Though all of the load is in flight at one of them."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put_workers(here, w1=0, w2=0, w3=0)
    set_policy(here, "expected_time")
    for number, size in held:
        here.sync_tree_operation(MODEL, TreeInsert(TEXT[:size], f"w{number}"))
    cluster.exchange()
    for worker_id, tokens in told.items():
        here.load.begin(worker_id, prefill_tokens=tokens, now=0.0)
    for update in here.load.tick(0.02, others=["node2"]):
        there.load.receive(update.payload, sender="node1", now=0.02)

    ours = here.select(MODEL, TEXT, tokens=1000, now=0.02)
    theirs = there.select(MODEL, TEXT, tokens=1000, now=0.02)
    assert (ours.worker_id, ours.reason) == (theirs.worker_id, theirs.reason)
