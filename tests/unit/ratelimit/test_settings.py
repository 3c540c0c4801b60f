"""Limits as they are kept in the application store."""

from __future__ import annotations

from typing import Any

import pytest
from support.states import StateCluster

from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, UnknownKeyError
from meshlib.sync import MeshSyncManager


@pytest.fixture
def manager(state_cluster: type[StateCluster]) -> MeshSyncManager:
    return state_cluster(1).managers[0]


def test_the_global_limit_is_a_configuration_key(manager: MeshSyncManager) -> None:
    """As JSON, so that a person can read it."""
    manager.set_global_rate_limit(1000)

    assert b'{"limit_per_second": 1000}' == manager.get_config("global_rate_limit")
    assert 1000 == manager.get_global_rate_limit()


def test_before_it_is_set_there_is_no_global_limit(manager: MeshSyncManager) -> None:
    """None, and not 0, which someone may have set."""
    assert manager.get_global_rate_limit() is None


def test_a_limit_of_zero_is_a_limit(manager: MeshSyncManager) -> None:
    """It switches limiting off, and is reported as 0."""
    manager.set_global_rate_limit(0)

    assert 0 == manager.get_global_rate_limit()


@pytest.mark.parametrize("limit", [-1, 2**60])
def test_a_limit_out_of_range_is_refused(manager: MeshSyncManager, limit: int) -> None:
    """And nothing is written."""
    with pytest.raises(InvalidValueError):
        manager.set_global_rate_limit(limit)
    assert manager.get_global_rate_limit() is None


@pytest.mark.parametrize("limit", [True, 1.0, "5", None])
def test_a_limit_of_another_type_is_refused(manager: MeshSyncManager, limit: Any) -> None:
    """And nothing is written."""
    with pytest.raises(InvalidTypeError):
        manager.set_global_rate_limit(limit)
    assert manager.get_global_rate_limit() is None


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"12", b"[]", b"{}", b'{"limit_per_second": -1}', b'{"limit_per_second": true}'],
)
def test_a_value_that_is_no_limit_is_an_error(manager: MeshSyncManager, value: bytes) -> None:
    """It may have been stored by a peer that checks nothing."""
    manager.app.set("global_rate_limit", value)
    with pytest.raises(DecodeError):
        manager.get_global_rate_limit()


@pytest.mark.parametrize("key", ["global_rate_limit", "rate_limit:alice"])
@pytest.mark.parametrize(
    "value",
    [
        b"", b"\x00", b"12", b"[]", b"{}", b'{"limit_per_second": -1}', b'"limit_per_second"',
        b'{"limit_per_second": 5, "burst": 9}',
    ],
)  # fmt: skip
def test_raw_configuration_under_the_key_of_a_limit_is_a_limit(
    manager: MeshSyncManager, key: str, value: bytes
) -> None:
    """What the reader of the key could not read is refused, and nothing is written."""
    with pytest.raises(InvalidValueError):
        manager.set_config(key, value)
    assert [] == manager.config_keys()


@pytest.mark.parametrize("key", ["rate_limit:", "rate_limit:global"])
def test_a_key_that_no_limit_is_read_from_is_refused(manager: MeshSyncManager, key: str) -> None:
    """A limit there would never be in force."""
    with pytest.raises(InvalidValueError):
        manager.set_config(key, b'{"limit_per_second": 5}')


def test_raw_configuration_may_set_a_limit(manager: MeshSyncManager) -> None:
    """As documented for keys other than the global one."""
    manager.set_config("rate_limit:alice", b'{"limit_per_second": 5}')

    assert 5 == manager.limits.configured("alice")


def test_a_limit_reaches_the_other_nodes(state_cluster: type[StateCluster]) -> None:
    """As any configuration does."""
    cluster = state_cluster(2)
    cluster.managers[0].set_global_rate_limit(7)
    cluster.exchange()

    assert 7 == cluster.managers[1].get_global_rate_limit()


def test_keys_with_limits_are_listed(manager: MeshSyncManager) -> None:
    """The global one under its own name; other configuration is none."""
    manager.set_global_rate_limit(7)
    manager.limits.set("tenant/b", 2)
    manager.limits.set("tenant/a", 1)
    manager.set_config("feature", b"")

    assert ["global", "tenant/a", "tenant/b"] == manager.limits.keys()


def test_removing_a_limit_that_is_not_set_is_an_error(manager: MeshSyncManager) -> None:
    """Of a key that never had one."""
    with pytest.raises(UnknownKeyError):
        manager.limits.remove("tenant/a")
