"""A session stays at its worker, whichever router is asked."""

from __future__ import annotations

import pytest
from support.states import StateCluster

from meshlib.errors import InvalidValueError, LimitError
from meshlib.routing import POLICIES, RouteReason
from meshlib.sync import MeshSyncManager

MODEL = "llama-3"
WORKERS = ("w1", "w2", "w3", "w4")


@pytest.fixture
def cluster(state_cluster: type[StateCluster]) -> StateCluster:
    cluster = state_cluster(2)
    for name in WORKERS:
        set_worker(cluster.managers[0], name)
    cluster.exchange()
    return cluster


def set_worker(manager: MeshSyncManager, name: str, *, health: bool = True) -> None:
    manager.sync_worker_state(name, model_id=MODEL, url=f"http://{name}", health=health, load=0)


def ask(
    manager: MeshSyncManager, text: str, session: str = "s", *, session_ttl_s: float = 600
) -> str | None:
    return manager.route(MODEL, text, session=session, session_ttl_s=session_ttl_s).worker_id


@pytest.mark.parametrize("policy_type", sorted(POLICIES))
def test_a_session_stays_at_one_worker_on_both_routers(
    cluster: StateCluster, policy_type: str
) -> None:
    """Under every policy, with prompts that have nothing in common."""
    here, there = cluster.managers
    here.sync_policy_state(MODEL, policy_type=policy_type, config="{}")
    cluster.exchange()
    first = ask(here, "the first prompt")
    cluster.exchange()
    later = {ask(manager, f"{n}: another") for n in range(10) for manager in (here, there)}

    assert {first} == later
    assert RouteReason.SESSION is there.route(MODEL, "x", session="s").reason


def test_sessions_are_spread_over_the_workers(cluster: StateCluster) -> None:
    """Each is at its own; the policy decides where it begins."""
    here = cluster.managers[0]
    first = {n: ask(here, f"{n} begins", f"session {n}") for n in range(40)}

    assert set(WORKERS) == set(first.values())
    assert first == {n: ask(here, "next", f"session {n}") for n in range(40)}


def test_a_session_ends_after_its_time(cluster: StateCluster) -> None:
    """A prompt within it renews it, on any router; the policy decides after it."""
    here, there = cluster.managers
    decided = here.select(MODEL, "a").worker_id
    other = next(name for name in WORKERS if name != decided)
    here.route(MODEL, "a", session="s", candidates=[other], session_ttl_s=100)
    cluster.exchange()
    for _ in range(4):
        cluster.time.now += 80
        assert other == ask(there, "b", session_ttl_s=100)
        cluster.exchange()
    cluster.time.now += 101
    late = here.route(MODEL, "unheard of", session="s", session_ttl_s=100)

    assert RouteReason.NO_MATCH is late.reason


@pytest.mark.parametrize("how", ["unhealthy", "removed", "cleared", "excluded"])
def test_a_session_moves_when_its_worker_cannot_have_it(cluster: StateCluster, how: str) -> None:
    """Once, for all routers, and stays where it went."""
    here, there = cluster.managers
    first = ask(here, "a")
    assert first is not None
    cluster.exchange()
    if how == "unhealthy":
        set_worker(there, first, health=False)
    elif how == "removed":
        there.remove_worker_state(first)
    elif how == "cleared":
        there.clear_worker(first)
    cluster.exchange()
    left = [name for name in WORKERS if name != first]
    moved = there.route(MODEL, "unheard of", session="s", candidates=left)
    cluster.exchange()
    set_worker(here, first)
    cluster.exchange()

    assert moved.reason is not RouteReason.SESSION
    assert moved.worker_id == ask(here, "c") == ask(there, "d")
    assert moved.worker_id != first


def test_a_session_that_moved_can_come_back(cluster: StateCluster) -> None:
    """The last one that it was given to is its worker, though both have had it."""
    here, there = cluster.managers
    for candidate in ("w1", "w2", "w1"):
        here.route(MODEL, "a", session="s", candidates=[candidate])
        cluster.exchange()
        assert candidate == ask(there, "b")


def test_two_routers_that_chose_differently_agree_afterwards(cluster: StateCluster) -> None:
    """A new session was asked for on both at once."""
    here, there = cluster.managers
    here.route(MODEL, "a", session="s", candidates=["w1"])
    there.route(MODEL, "a", session="s", candidates=["w2"])
    cluster.exchange()

    assert ask(here, "b") == ask(there, "c")


def test_a_shed_request_binds_no_session(cluster: StateCluster) -> None:
    """It was decided and never placed; once it is, the session is there."""
    here = cluster.managers[0]
    decision = here.select(MODEL, "a", session="s")
    assert here.get_tree_state(MODEL) is None
    here.placed(decision)

    assert RouteReason.SESSION is here.select(MODEL, "unheard of", session="s").reason


def test_sessions_of_two_salts_are_two(cluster: StateCluster) -> None:
    """A tenant that guesses a name finds nothing."""
    here = cluster.managers[0]
    here.route(MODEL, "a", session="s", salt="one")

    assert RouteReason.SESSION is not here.select(MODEL, "b", session="s", salt="two").reason
    assert RouteReason.SESSION is here.select(MODEL, "b", session="s", salt="one").reason


def test_the_tree_shows_no_name_of_a_session(cluster: StateCluster) -> None:
    """It may be a secret, and the tree can be read."""
    here = cluster.managers[0]
    decision = here.route(MODEL, "a", session="secret-cookie")

    assert "secret" not in f"{here.get_tree_state(MODEL)} {decision}"


def test_a_long_session_writes_now_and_then(cluster: StateCluster) -> None:
    """A prompt that follows at once says nothing new of its session."""
    here, there = cluster.managers
    ask(here, "a")
    cluster.exchange()
    before = here.get_tree_version(MODEL)
    for _ in range(100):
        ask(here, "a")

    assert [] == [entry for replica in cluster.replicas for entry in replica.flush()]
    assert before == here.get_tree_version(MODEL) == there.get_tree_version(MODEL)


@pytest.mark.parametrize("ttl_s", [0, -1, 0.5, 86_401, float("nan"), float("inf")])
def test_a_time_to_live_has_bounds(cluster: StateCluster, ttl_s: float) -> None:
    """From a second to a day."""
    with pytest.raises(InvalidValueError):
        cluster.managers[0].route(MODEL, "a", session="s", session_ttl_s=ttl_s)


def test_the_name_of_a_session_has_bounds(cluster: StateCluster) -> None:
    """A kilobyte, and Unicode."""
    with pytest.raises(LimitError):
        cluster.managers[0].route(MODEL, "a", session="s" * 1025)
    with pytest.raises(InvalidValueError):
        cluster.managers[0].route(MODEL, "a", session="\ud800")
