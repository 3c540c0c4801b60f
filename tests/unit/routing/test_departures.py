"""Workers that go while other nodes place prompts with them."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.states import StateCluster

from meshlib.crdt import absorb, decode, encode
from meshlib.errors import UnknownKeyError
from meshlib.replication import LogEntry
from meshlib.routing.records import RouteReason, TreeInsert, TreeRemove
from meshlib.sync import MeshSyncManager

MODELS: Final = ("llama-3", "qwen")
MODEL: Final = MODELS[0]
PROMPT: Final = "You are a helpful assistant."


def put(manager: MeshSyncManager, worker_id: str = "w1", model_id: str = MODEL) -> None:
    manager.sync_worker_state(worker_id, model_id=model_id, url="u", health=True, load=0.0)


def worker_model(manager: MeshSyncManager) -> str:
    worker = manager.get_worker_state("w1")
    assert worker is not None
    return worker.model_id


def test_a_worker_removed_during_its_first_prompt_comes_back_with_nothing(
    state_cluster: type[StateCluster],
) -> None:
    """The node that removed it had no entry of it to remove."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    assert "w1" == there.route(MODEL, PROMPT).worker_id
    here.remove_worker_state("w1")
    cluster.exchange()
    cluster.exchange()
    put(here)
    cluster.exchange()

    assert [RouteReason.NO_MATCH] * 2 == [
        manager.route(MODEL, PROMPT).reason for manager in (here, there)
    ]


def test_a_worker_that_changes_its_model_during_its_first_prompt_begins_anew(
    state_cluster: type[StateCluster],
) -> None:
    """In the tree of the model that it left, to which it may come back."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    there.route(MODEL, PROMPT)
    put(here, model_id=MODELS[1])
    cluster.exchange()
    put(here)
    cluster.exchange()

    assert RouteReason.NO_MATCH == there.route(MODEL, PROMPT).reason


def test_the_last_of_two_removals_beats_what_came_after_the_first(
    state_cluster: type[StateCluster],
) -> None:
    """One node removes the worker, takes it back and uses it; the other removes it later."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    here.remove_worker_state("w1")
    put(here)
    here.route(MODEL, PROMPT)
    cluster.time.now += 1.0
    there.remove_worker_state("w1")
    entries = cluster.replicas[0].flush()
    cluster.replicas[0].changes()  # its process ends here, and follows nothing any more
    cluster.replicas[1].receive(entries)

    assert [] == there.get_all_worker_states()
    assert 0 == there.trees.entry_count(MODEL)


def test_a_prompt_placed_between_the_parts_of_a_removal_is_taken_back(
    state_cluster: type[StateCluster],
) -> None:
    """A node that has the new epoch, and not yet the removal, places in the new epoch."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    here.remove_worker_state("w1")
    cluster.time.now += 1.0
    there.clear_worker("w1")
    there.route(MODEL, PROMPT)
    deliver(cluster, 1, cluster.replicas[0].flush())

    assert [] == there.get_all_worker_states()
    assert 0 == there.trees.entry_count(MODEL)


def test_who_knows_of_a_removal_by_the_tree_alone_places_nothing(
    state_cluster: type[StateCluster],
) -> None:
    """Pages of a tree may come before those of workers, and the node end before it hears more."""
    cluster = state_cluster(3)
    here, there, other = cluster.managers
    put(here)
    cluster.exchange()
    cluster.time.now += 1.0
    here.remove_worker_state("w1")
    removal = cluster.replicas[0].flush()
    take_tree(cluster, 1, of=0)
    there.route(MODEL, PROMPT)
    there.sync_tree_operation(MODEL, TreeInsert(PROMPT, "w1"))
    in_flight = cluster.replicas[1].flush()
    deliver(cluster, 2, removal)  # the second node ends here
    deliver(cluster, 0, in_flight)
    deliver(cluster, 2, in_flight)

    assert [0, 0] == [manager.trees.entry_count(MODEL) for manager in (here, other)]


def test_what_comes_after_the_removal_of_a_worker_is_dropped_by_whoever_gets_it(
    state_cluster: type[StateCluster],
) -> None:
    """The node that removed the worker ended before its tree had travelled, the placer as well."""
    cluster = state_cluster(3)
    here, there, other = cluster.managers
    put(here)
    cluster.exchange()
    there.route(MODEL, PROMPT)
    here.remove_worker_state("w1")
    removal = [entry for entry in cluster.replicas[0].flush() if entry.document == "workers"]
    deliver(cluster, 2, removal)
    deliver(cluster, 2, cluster.replicas[1].flush())

    assert 0 == other.trees.entry_count(MODEL)


def test_a_worker_cleared_by_who_has_not_heard_of_its_removal_is_in_no_tree(
    state_cluster: type[StateCluster],
) -> None:
    """Its new epoch beats that of the removal, and what is placed in it goes all the same."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    here.remove_worker_state("w1")
    here.publish(cluster.replicas[0].changes())
    cluster.time.now += 1.0
    there.clear_worker("w1")
    there.route(MODEL, PROMPT)
    deliver(cluster, 0, cluster.replicas[1].flush())  # and its process ends

    assert 0 == here.trees.entry_count(MODEL)


def test_what_one_placed_that_was_overruled_and_killed_is_in_no_tree(
    state_cluster: type[StateCluster],
) -> None:
    """It had moved the worker to another model; a later write of its model came from elsewhere."""
    cluster = state_cluster(3)
    here, there, other = cluster.managers
    put(here)
    cluster.exchange()
    put(there, model_id=MODELS[1])
    there.route(MODELS[1], PROMPT)
    moved = cluster.replicas[1].flush()  # and its process ends
    cluster.time.now += 1.0
    put(here)
    overruled = cluster.replicas[0].flush()
    deliver(cluster, 2, overruled)
    for at in (0, 2):
        deliver(cluster, at, moved)

    assert [MODEL] * 2 == [worker_model(manager) for manager in (here, other)]
    assert [0, 0] == [manager.trees.entry_count(MODELS[1]) for manager in (here, other)]


def test_it_is_dropped_too_when_only_a_later_write_of_the_worker_shows_it(
    state_cluster: type[StateCluster],
) -> None:
    """What it placed is of later than the write that overruled it; the worker is written again."""
    cluster = state_cluster(3)
    here, there, other = cluster.managers
    put(here)
    cluster.exchange()
    put(there, model_id=MODELS[1])
    cluster.time.now += 1.0
    put(here)
    deliver(cluster, 2, cluster.replicas[0].flush())
    cluster.time.now += 1.0
    there.clear_worker("w1")
    there.route(MODELS[1], PROMPT)
    deliver(cluster, 2, cluster.replicas[1].flush())  # and its process ends
    held = other.trees.entry_count(MODELS[1])
    cluster.time.now += 1.0
    put(here)
    deliver(cluster, 2, cluster.replicas[0].flush())

    assert (1, 0) == (held, other.trees.entry_count(MODELS[1]))


def test_what_is_placed_by_who_has_heard_of_a_move_stays_with_who_has_not(
    state_cluster: type[StateCluster],
) -> None:
    """The move is under way: the tree tells of something newer than what is known here."""
    cluster = state_cluster(3)
    here, there, other = cluster.managers
    put(here)
    cluster.exchange()
    cluster.time.now += 1.0
    put(here, model_id=MODELS[1])
    move = cluster.replicas[0].flush()
    deliver(cluster, 1, move)
    there.route(MODELS[1], PROMPT)
    placed = cluster.replicas[1].flush()
    take_tree(cluster, 2, of=0, model_id=MODELS[1])
    deliver(cluster, 2, placed)
    known = worker_model(other)
    deliver(cluster, 2, move)

    assert (MODEL, MODELS[1]) == (known, worker_model(other))
    assert 1 == other.trees.entry_count(MODELS[1])


def test_a_worker_that_is_removed_before_its_prompt_is_placed_is_in_no_tree(
    state_cluster: type[StateCluster],
) -> None:
    """It was chosen, and went while the prompt was on its way to it."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    decision = there.select(MODEL, PROMPT)
    here.remove_worker_state("w1")
    cluster.exchange()
    there.placed(decision)
    cluster.exchange()

    assert [0, 0] == [manager.trees.entry_count(MODEL) for manager in cluster.managers]


@pytest.mark.parametrize("behind_s", [0.0, 5.0])
def test_a_worker_that_comes_back_is_placed_with_again(
    state_cluster: type[StateCluster], behind_s: float
) -> None:
    """In the very millisecond of its removal, and by a clock that is behind; empty at first."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    here.route(MODEL, PROMPT)
    here.remove_worker_state("w1")
    cluster.exchange()
    cluster.set_clock(1, behind_s=behind_s)
    put(there)

    assert RouteReason.NO_MATCH == there.route(MODEL, PROMPT).reason
    assert RouteReason.PREFIX_MATCH == there.route(MODEL, PROMPT).reason


def test_a_worker_that_comes_back_to_its_first_model_is_placed_with_again(
    state_cluster: type[StateCluster],
) -> None:
    """It was removed from that tree when it changed its model."""
    manager = state_cluster(1).managers[0]
    for model_id in (MODEL, MODELS[1], MODEL):
        put(manager, model_id=model_id)
        assert RouteReason.NO_MATCH == manager.route(model_id, PROMPT).reason
        assert RouteReason.PREFIX_MATCH == manager.route(model_id, PROMPT).reason


def test_what_is_put_under_the_name_of_a_former_worker_stays(
    state_cluster: type[StateCluster],
) -> None:
    """On purpose, by who knows that it is gone; also after somebody removed that, too."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    here.remove_worker_state("w1")
    cluster.exchange()
    for operation in (TreeInsert("other", "w1"), TreeRemove("w1"), TreeInsert(PROMPT, "w1")):
        there.sync_tree_operation(MODEL, operation)
        cluster.exchange()

    assert [1, 1] == [manager.trees.entry_count(MODEL) for manager in cluster.managers]


def take_tree(cluster: StateCluster, number: int, *, of: int, model_id: str = MODEL) -> None:
    """Bring a node the tree of another one as it stands, and nothing else."""
    copy = decode(encode(cluster.replicas[of].get(f"tree:{model_id}")))
    absorb(cluster.replicas[number].open(f"tree:{model_id}", type_tag="record:tree"), copy)


def deliver(cluster: StateCluster, number: int, entries: list[LogEntry]) -> None:
    cluster.replicas[number].receive(entries)
    cluster.managers[number].publish(cluster.replicas[number].changes())


def test_a_cleared_worker_stays_and_has_nothing(state_cluster: type[StateCluster]) -> None:
    """It has restarted, and says so."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    put(here)
    cluster.exchange()
    there.route(MODEL, PROMPT)
    here.clear_worker("w1")
    cluster.exchange()
    version = here.get_all_worker_states()[0].version

    assert (1, RouteReason.NO_MATCH) == (version, there.route(MODEL, PROMPT).reason)


def test_a_worker_that_nobody_knows_cannot_be_cleared(state_cluster: type[StateCluster]) -> None:
    """And no tree is made for it."""
    manager = state_cluster(1).managers[0]
    with pytest.raises(UnknownKeyError):
        manager.clear_worker("w1")
    assert [] == manager.trees.models()


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["put", "move", "remove", "route", "clear", "flush", "wait"]),
        st.integers(0, 2),
    ),
    max_size=40,
)


def step(manager: MeshSyncManager, action: str) -> None:
    known = manager.get_worker_state("w1")
    if action == "put":
        put(manager, model_id=MODEL if known is None else known.model_id)
    elif action == "move":
        put(manager, model_id=MODELS[known is not None and known.model_id == MODEL])
    elif action == "remove" and known is not None:
        manager.remove_worker_state("w1")
    elif action == "clear" and known is not None:
        manager.clear_worker("w1")
    elif action == "route":
        for model_id in MODELS:
            manager.route(model_id, PROMPT)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_once_all_agree_a_worker_is_in_no_tree_but_its_own(
    state_cluster: type[StateCluster], steps: list[tuple[int, str, int]]
) -> None:
    """Whatever three nodes do with it, and whenever each hears of it."""
    cluster = state_cluster(3)
    under_way: list[tuple[int, Any]] = []
    for number, action, other in steps:
        cluster.time.now += 0.001
        if action == "flush":
            entries = cluster.replicas[number].flush()
            under_way += [(to, entries) for to in range(3) if to != number]
        elif action == "wait":
            due = [entries for to, entries in under_way if to == other]
            under_way = [item for item in under_way if item[0] != other]
            for entries in due:
                deliver(cluster, other, entries)
        else:
            step(cluster.managers[number], action)
    for to, entries in under_way:
        deliver(cluster, to, entries)
    for _ in range(4):
        cluster.exchange()

    for manager in cluster.managers:
        worker = manager.get_worker_state("w1")
        serves = None if worker is None else worker.model_id
        assert {serves} >= {model for model in MODELS if manager.trees.holds(model, "w1")}
