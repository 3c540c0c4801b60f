"""Five namespaces on a bridge, a server in each, and the writes that go on meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lab import CommandFailed, Lab, run
from support.namespaces import NODE_COUNT, Cluster, Traffic


@pytest.fixture(scope="session")
def namespaces() -> None:
    """See that this machine can do what the lab needs; its lack is told by name.

    With MESHLIB_NETWORK_REQUIRED set a lack is a failure: who asks for these tests and is not
    served must not read that all is well.
    """
    try:
        lab = Lab(1)
        try:
            lab.build()
            lab.lose(10)
            lab.slow(0, kbytes_per_s=100)
            run(*lab.launcher(0), "true")
        finally:
            lab.remove()
    except CommandFailed as lack:
        reason = f"no network namespaces here: {lack}"
        if os.environ.get("MESHLIB_NETWORK_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def lab(namespaces: None) -> Iterator[Lab]:
    """Yield five namespaces on a bridge, without faults."""
    made = Lab(NODE_COUNT)
    try:
        made.build()
        yield made
    finally:
        made.remove()


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path) -> Iterator[Cluster]:
    """Yield five nodes, not started."""
    made = Cluster(lab, tmp_path)
    try:
        yield made
    finally:
        made.kill_all()


@pytest.fixture
def whole(cluster: Cluster) -> Cluster:
    """Return five nodes that have met."""
    cluster.start(*cluster.nodes)
    cluster.await_all_alive()
    return cluster


@pytest.fixture
def traffic(cluster: Cluster) -> Iterator[Traffic]:
    """Yield what writes through all nodes; it is ended at the end."""
    made = Traffic(cluster.nodes)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def rng() -> random.Random:
    """Return chance that is the same on every run."""
    return random.Random(2026)
