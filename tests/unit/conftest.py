"""Clusters of rate limiters and of replicas, in time that moves by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.limiters import RateCluster
from support.states import FakeTime, StateCluster, make_replica

from meshlib.replication import Replica


@pytest.fixture(scope="session")
def rate_cluster() -> type[RateCluster]:
    return RateCluster


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture(scope="session")
def replica_of() -> Callable[..., Replica]:
    return make_replica


@pytest.fixture(scope="session")
def state_cluster() -> type[StateCluster]:
    return StateCluster
