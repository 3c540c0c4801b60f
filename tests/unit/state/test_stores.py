"""The stores, one node and two: what is kept, what is refused, and in which order it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.states import FakeTime, StateCluster

from meshlib.errors import (
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    LocalError,
    UnknownKeyError,
)
from meshlib.identity import actor_id
from meshlib.replication import Replica
from meshlib.state.documents import ReadChecks
from meshlib.state.records import PolicyState, WorkerState
from meshlib.state.stores import MembershipStore
from meshlib.sync import MeshSyncManager

GOOD: dict[str, Any] = {
    "worker_id": "w1",
    "model_id": "m1",
    "url": "http://w1:8000",
    "health": True,
    "load": 0.75,
}


@pytest.fixture
def manager(state_cluster: type[StateCluster]) -> MeshSyncManager:
    return state_cluster(1).managers[0]


def version_of(manager: MeshSyncManager) -> int:
    worker = manager.get_worker_state("w1")
    assert worker is not None
    return worker.version


def put_worker(manager: MeshSyncManager, **changed: Any) -> Any:
    values = {**GOOD, **changed}
    return manager.sync_worker_state(values.pop("worker_id"), **values)


def test_a_worker_comes_back_as_it_was_written(manager: MeshSyncManager) -> None:
    """With version 1."""
    put_worker(manager)

    assert WorkerState(**GOOD, version=1) == manager.get_worker_state("w1")


def test_each_change_adds_one_to_the_version(manager: MeshSyncManager) -> None:
    """Also on the node that did not make it, and whoever makes it."""
    for load in (0.1, 0.2, 0.3):
        put_worker(manager, load=load)

    assert 3 == version_of(manager)


def test_versions_are_the_same_on_every_node(state_cluster: type[StateCluster]) -> None:
    """Though both have written."""
    cluster = state_cluster(2)
    first, second = cluster.managers
    put_worker(first, load=0.1)
    cluster.exchange()
    put_worker(second, load=0.2)
    put_worker(first, load=0.3)
    cluster.exchange()

    assert first.get_all_worker_states() == second.get_all_worker_states()
    assert 3 == version_of(first)


def test_a_version_does_not_go_back_with_a_removal(manager: MeshSyncManager) -> None:
    """The removal counts, and so does the return."""
    put_worker(manager)
    manager.remove_worker_state("w1")
    put_worker(manager)

    assert 3 == version_of(manager)


def test_workers_come_sorted(manager: MeshSyncManager) -> None:
    """By id, whatever the order in which they came."""
    for name in ("w2", "w10", "w1"):
        put_worker(manager, worker_id=name)

    assert ["w1", "w10", "w2"] == [worker.worker_id for worker in manager.get_all_worker_states()]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"worker_id": ""}, InvalidValueError),
        ({"worker_id": 7}, InvalidTypeError),
        ({"worker_id": "w" * 1025}, LimitError),
        ({"model_id": ""}, InvalidValueError),
        ({"url": b"http://w1"}, InvalidTypeError),
        ({"url": "\ud800"}, InvalidValueError),
        ({"url": "u" * 300_000}, LimitError),
        ({"health": 1}, InvalidTypeError),
        ({"health": "true"}, InvalidTypeError),
        ({"load": -1}, InvalidValueError),
        ({"load": float("nan")}, InvalidValueError),
        ({"load": True}, InvalidTypeError),
    ],
)
def test_a_bad_worker_is_refused_and_changes_nothing(
    manager: MeshSyncManager, changed: dict[str, Any], error: type[LocalError]
) -> None:
    """With an error that a caller can tell apart."""
    put_worker(manager)
    before = manager.get_all_worker_states()
    with pytest.raises(error):
        put_worker(manager, **changed)
    assert before == manager.get_all_worker_states()


def test_what_is_not_there_is_none(manager: MeshSyncManager) -> None:
    """Reading asks; it does not demand."""
    assert manager.get_worker_state("w9") is None
    assert manager.get_policy_state("m9") is None
    assert manager.get_config("k9") is None
    assert manager.get_tree_state("m9") is None


def test_removing_what_is_not_there_is_an_error(manager: MeshSyncManager) -> None:
    """For each store, and with nothing to send."""
    for remove in (manager.remove_worker_state, manager.remove_policy_state, manager.delete_config):
        with pytest.raises(UnknownKeyError):
            remove("nobody")
    assert [] == manager.workers._table._documents.replica.flush()


def test_a_removed_worker_is_removed_everywhere(state_cluster: type[StateCluster]) -> None:
    """And it can be removed on a node that did not write it."""
    cluster = state_cluster(2)
    put_worker(cluster.managers[0])
    cluster.exchange()
    cluster.managers[1].remove_worker_state("w1")
    cluster.exchange()

    assert [[], []] == [manager.get_all_worker_states() for manager in cluster.managers]


def test_a_policy_keeps_its_configuration_to_the_letter(manager: MeshSyncManager) -> None:
    """White space, the order of its fields and the form of its numbers."""
    config = '{"max_tree_size" : 9 ,\n "cache_threshold": 0.70}'
    manager.sync_policy_state("m1", policy_type="cache_aware", config=config)
    expected = PolicyState(model_id="m1", policy_type="cache_aware", config=config, version=1)

    assert [expected] == manager.get_all_policy_states()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"policy_type": "", "config": ""}, InvalidValueError),
        ({"policy_type": "cache_aware", "config": {"a": 1}}, InvalidTypeError),
        ({"policy_type": "weighted", "config": ""}, InvalidValueError),
        ({"policy_type": "cache_aware", "config": '{"treshold": 1}'}, InvalidValueError),
        ({"policy_type": None, "config": ""}, InvalidTypeError),
    ],
)
def test_a_bad_policy_is_refused(
    manager: MeshSyncManager, values: dict[str, Any], error: type[LocalError]
) -> None:
    """And nothing is written."""
    with pytest.raises(error):
        manager.sync_policy_state("m1", **values)
    assert [] == manager.get_all_policy_states()


def test_configuration_is_bytes(manager: MeshSyncManager) -> None:
    """Any bytes, the empty ones too."""
    manager.set_config("a/b", b"\x00\xff")
    manager.set_config("empty", b"")

    assert b"\x00\xff" == manager.get_config("a/b")
    assert b"" == manager.get_config("empty")
    assert ["a/b", "empty"] == manager.config_keys()


@pytest.mark.parametrize("value", ["text", bytearray(b"x"), None, 7])
def test_configuration_of_another_type_is_refused(manager: MeshSyncManager, value: Any) -> None:
    """A text would come back as bytes or not at all."""
    with pytest.raises(InvalidTypeError):
        manager.set_config("key", value)


def test_a_value_over_the_limit_is_refused(manager: MeshSyncManager) -> None:
    """256 KiB, its header included."""
    with pytest.raises(LimitError):
        manager.set_config("key", bytes(256 * 1024 + 1))
    assert manager.get_config("key") is None


def test_any_unicode_can_be_a_key(manager: MeshSyncManager) -> None:
    """Slashes, control characters, and what lies beyond the first plane."""
    for key in ("a/b/../c", "line\nfeed", "😀", " "):
        manager.set_config(key, key.encode())
        assert key.encode() == manager.get_config(key)


def test_every_write_is_told_to_the_driver(
    replica_of: Callable[..., Replica], fake_time: FakeTime
) -> None:
    """So that it is sent without waiting for a timer."""
    from meshlib.sync import MeshSyncManager

    calls: list[int] = []
    replica = replica_of("node1", fake_time)
    replica.on_write = lambda: calls.append(1)
    manager = MeshSyncManager(replica)
    put_worker(manager)
    manager.set_config("key", b"value")
    manager.set_global_rate_limit(5)
    manager.get_all_worker_states()

    assert 3 == len(calls)


@pytest.mark.parametrize(
    "value",
    [
        7,
        {"url": "u"},
        {"model_id": "m", "url": "u", "health": 1, "load": 0.5},
        {"model_id": "m", "url": "u", "health": True, "load": -1.0},
        {"model_id": "", "url": "u", "health": True, "load": 1.0},
    ],
)
def test_what_a_peer_wrote_and_is_no_worker_is_left_out(
    state_cluster: type[StateCluster], value: Any
) -> None:
    """And named among the problems; the others are still there."""
    cluster = state_cluster(2)
    put_worker(cluster.managers[0])
    cluster.managers[0].workers._table.put("bad", value)
    cluster.exchange()
    manager = cluster.managers[1]

    assert ["w1"] == [worker.worker_id for worker in manager.get_all_worker_states()]
    assert manager.get_worker_state("bad") is None
    assert 1 == len(manager.problems())


def test_a_policy_is_the_same_record_until_it_is_written(manager: MeshSyncManager) -> None:
    """Each decision asks for it."""
    manager.sync_policy_state("m1", policy_type="cache_aware", config="")
    first, again = manager.get_policy_state("m1"), manager.get_policy_state("m1")
    manager.sync_policy_state("m1", policy_type="least_loaded", config="")
    other = manager.get_policy_state("m1")

    assert first is not None
    assert first is again
    assert other is not None
    assert "least_loaded" == other.policy_type


def test_an_older_write_that_comes_late_counts_in_a_policys_version(
    state_cluster: type[StateCluster],
) -> None:
    """It changes nothing else, and no digest."""
    cluster = state_cluster(2)
    early, late = cluster.managers
    early.sync_policy_state("m1", policy_type="least_loaded", config="")
    cluster.time.now += 1.0
    late.sync_policy_state("m1", policy_type="cache_aware", config="")
    before = late.get_policy_state("m1")
    cluster.exchange()
    after = late.get_policy_state("m1")

    assert before is not None
    assert after is not None
    assert (1, 2) == (before.version, after.version)
    assert early.get_policy_state("m1") == after


@pytest.mark.parametrize("document", ["app", "workers", "policies"])
@pytest.mark.parametrize("is_back", [False, True], ids=["running", "coming back"])
def test_a_store_cannot_become_another_type(
    state_cluster: type[StateCluster],
    replica_of: Callable[..., Replica],
    document: str,
    is_back: bool,
) -> None:
    """A peer's document of that name is refused, also while a peer's state is adopted."""
    cluster = state_cluster(1)
    replica, manager = cluster.replicas[0], cluster.managers[0]
    peer = replica_of("peer", cluster.time)
    peer.open(document, type_tag="g_counter")
    peer.write(document, lambda state, context: state.increment(by=context.actor))
    if is_back:
        replica.begin_rejoin(actor_id("node1", 2))
    received = replica.receive(peer.flush())
    if is_back:
        replica.finish_rejoin()

    assert 1 == len(received.rejected)
    assert () == manager.problems()
    assert [] == manager.get_all_worker_states()


def test_fields_of_later_versions_are_passed_over(state_cluster: type[StateCluster]) -> None:
    """A newer peer may write more than this node knows."""
    cluster = state_cluster(2)
    value = {"model_id": "m", "url": "u", "health": True, "load": 1.0, "region": "eu"}
    cluster.managers[0].workers._table.put("w1", value)
    cluster.exchange()

    worker = cluster.managers[1].get_worker_state("w1")
    assert worker is not None
    assert "m" == worker.model_id


def test_what_cannot_be_read_can_be_removed(manager: MeshSyncManager) -> None:
    """Or it would stay a problem for ever."""
    manager.workers._table.put("bad", 7)
    manager.remove_worker_state("bad")

    assert () == manager.problems()


def test_workers_of_a_model_are_found_at_once_after_a_change(
    state_cluster: type[StateCluster],
) -> None:
    """Though they are kept ready between changes."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    for name in ("w2", "w1"):
        put_worker(here, worker_id=name)
    put_worker(here, worker_id="w3", model_id="m2")
    assert ["w1", "w2"] == [worker.worker_id for worker in here.workers.of_model("m1")]
    cluster.exchange()
    put_worker(there, worker_id="w1", load=9.0)
    cluster.exchange()

    assert [9.0, 0.75] == [worker.load for worker in here.workers.of_model("m1")]
    assert () == here.workers.of_model("m9")


def test_counts_are_of_what_is_there(manager: MeshSyncManager) -> None:
    """Removed ones and trees do not count."""
    put_worker(manager)
    put_worker(manager, worker_id="w2")
    manager.remove_worker_state("w2")
    manager.sync_policy_state("m1", policy_type="cache_aware", config="")
    manager.set_config("key", b"")
    manager.route("m1", "Hello")

    assert (1, 1, 1) == (len(manager.workers), len(manager.policies), len(manager.app))


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_the_membership_store_shows_the_members_sorted() -> None:
    """It is a view: gossip alone changes it."""
    members = [Named("b"), Named("a")]
    store = MembershipStore(lambda: members)

    assert ["a", "b"] == [member.name for member in store.all()]
    assert members[0] is store.get("b")
    assert store.get("c") is None
    assert 2 == len(store)


def test_a_store_reads_what_changed_and_not_all_it_holds(
    state_cluster: type[StateCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is told after every write, and a store may hold 100,000 keys."""
    cluster = state_cluster(2)
    writer, reader = cluster.managers
    for number in range(300):
        writer.set_config(f"k{number}", b"v")
    writer.app._table.put("bad", 7)
    cluster.exchange()
    bad = ("the app store holds 'bad', which cannot be read",)
    assert bad == reader.problems()
    read: list[str] = []
    monkeypatch.setattr(
        "meshlib.state.documents.RecordTable._read",
        lambda _table, key, _entry: read.append(key),
    )

    writer.app._table.put("other", 7)
    cluster.exchange()
    problems = reader.problems()

    assert ["the app store holds 'bad', which cannot be read",
            "the app store holds 'other', which cannot be read"] == sorted(problems)  # fmt: skip
    assert ["other"] == read


def test_of_many_unreadable_keys_some_are_named(state_cluster: type[StateCluster]) -> None:
    """Whoever asks for the health reads the first, and how many there are, not 300 lines."""
    cluster = state_cluster(1)
    (manager,) = cluster.managers
    for number in range(300):
        manager.app._table.put(f"k{number:03}", 7)

    problems = manager.problems()

    assert "the app store holds 'k000', which cannot be read" == problems[0]
    assert "the app store holds 290 more keys that cannot be read" == problems[-1]
    assert 11 == len(problems)


def test_what_becomes_readable_again_is_no_problem_any_more(
    state_cluster: type[StateCluster],
) -> None:
    """Written anew by another node, or removed by it."""
    cluster = state_cluster(2)
    writer, reader = cluster.managers
    writer.app._table.put("a", 7)
    writer.app._table.put("b", 7)
    writer.app._table.put("global_rate_limit", b"no limit")
    cluster.exchange()
    assert 3 == len(reader.problems())

    writer.set_config("a", b"v")
    writer.app._table.remove("b")
    writer.set_global_rate_limit(5)
    cluster.exchange()

    assert () == reader.problems()


def test_a_burst_of_changes_is_read_in_parts() -> None:
    """Each look is bounded, and nothing that was noted is forgotten."""
    count = 3 * ReadChecks.CHECKED_EACH_TIME
    asked: list[int] = []

    def is_readable(key: int) -> bool:
        asked.append(key)
        return key != count - 1

    checks = ReadChecks(is_readable, all_keys=lambda: range(count))
    assert [] == asked  # nothing is read before somebody wants to know
    assert [] == checks.unreadable()
    assert len(asked) == ReadChecks.CHECKED_EACH_TIME

    while not checks.unreadable():
        pass

    assert [count - 1] == checks.unreadable()
    assert set(range(count)) == set(asked)
