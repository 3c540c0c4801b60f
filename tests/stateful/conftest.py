"""The cluster of real replicas that the schedules drive."""

from __future__ import annotations

import pytest
from support.schedules import Cluster


@pytest.fixture
def cluster_class() -> type[Cluster]:
    """The cluster under random schedules: `cluster_class(seed, is_dense=...).run()`."""
    return Cluster
