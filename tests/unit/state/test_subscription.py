"""Hearing of changes."""

from __future__ import annotations

import pytest
from support.states import StateCluster

from meshlib.errors import InvalidValueError
from meshlib.routing.records import TreeInsert
from meshlib.state.records import StateChange, StoreName
from meshlib.state.subscription import Subscription


def test_a_subscriber_hears_of_changes_of_all_nodes(state_cluster: type[StateCluster]) -> None:
    """And which of them were made here."""
    cluster = state_cluster(2)
    subscription = cluster.managers[0].subscribe()
    cluster.managers[0].set_config("mine", b"")
    cluster.managers[1].set_config("yours", b"")
    cluster.managers[1].sync_tree_operation("m1", TreeInsert("Hello", "w1"))
    cluster.exchange()
    expected = [
        StateChange(StoreName.APP, "mine", True),
        StateChange(StoreName.APP, "yours", False),
        StateChange(StoreName.TREES, "m1", False),
    ]

    assert expected == subscription.take()
    assert [] == subscription.take()


def test_a_subscriber_hears_of_the_stores_it_asked_for(state_cluster: type[StateCluster]) -> None:
    """And of no other."""
    cluster = state_cluster(1)
    subscription = cluster.managers[0].subscribe(stores=[StoreName.POLICIES])
    cluster.managers[0].set_config("key", b"")
    cluster.managers[0].sync_policy_state("m1", policy_type="cache_aware", config="")
    cluster.exchange()

    assert [StateChange(StoreName.POLICIES, "m1", True)] == subscription.take()


def test_changes_of_one_key_that_wait_are_one(state_cluster: type[StateCluster]) -> None:
    """The store tells what it is now."""
    cluster = state_cluster(1)
    subscription = cluster.managers[0].subscribe()
    for value in (b"1", b"2", b"3"):
        cluster.managers[0].set_config("key", value)
        cluster.exchange()

    assert 1 == len(subscription)


def test_a_full_queue_is_replaced_by_read_it_all_again(state_cluster: type[StateCluster]) -> None:
    """One change without a key for each store; nothing is lost silently."""
    cluster = state_cluster(1)
    stores = [StoreName.APP, StoreName.WORKERS]
    subscription = cluster.managers[0].subscribe(stores=stores, queue_max=2)
    for key in ("a", "b", "c", "d"):
        cluster.managers[0].set_config(key, b"")
    cluster.exchange()
    expected = [
        StateChange(StoreName.WORKERS, None, False),
        StateChange(StoreName.APP, None, False),
    ]

    assert expected == subscription.take()
    assert 3 == subscription.dropped_count


def test_a_closed_subscription_hears_nothing(state_cluster: type[StateCluster]) -> None:
    """And is forgotten by the manager."""
    cluster = state_cluster(1)
    subscription = cluster.managers[0].subscribe()
    subscription.close()
    cluster.managers[0].set_config("key", b"")
    cluster.exchange()

    assert [] == subscription.take()
    assert [] == cluster.managers[0]._subscriptions


def test_changes_that_the_replica_dropped_are_told(state_cluster: type[StateCluster]) -> None:
    """As if the queue had been full."""
    manager = state_cluster(1).managers[0]
    subscription = manager.subscribe(stores=[StoreName.APP])
    manager.publish_loss()

    assert [StateChange(StoreName.APP, None, False)] == subscription.take()


@pytest.mark.parametrize("queue_max", [0, 65_537])
def test_a_queue_has_a_bound(queue_max: int) -> None:
    """From 1 to the limit."""
    with pytest.raises(InvalidValueError):
        Subscription(queue_max=queue_max)


def test_a_subscription_to_nothing_is_refused() -> None:
    """It would never hear of anything."""
    with pytest.raises(InvalidValueError):
        Subscription(stores=[])
