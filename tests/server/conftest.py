"""Real processes over real sockets: nodes that the conformance tests talk to."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import Agree, Eventually, Launcher, Node, agree, eventually


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Make nodes for the whole run."""
    made = Launcher(directory=tmp_path_factory.mktemp("nodes"))
    yield made
    made.stop()


@pytest.fixture
def own_launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Make nodes for one test, which may do with them what it likes."""
    made = Launcher(directory=tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def cluster(launcher: Launcher) -> list[Node]:
    """Three nodes that see each other; shared, so tests use names of their own.

    How soon the others answer depends on the machine. Whoever has waited half a second for the
    owner of a limit refuses by default, which is no answer to what these tests ask.
    """
    patient = {"MESH_RATE_LIMIT_CONFIRM_TIMEOUT_S": "8"}
    return launcher.cluster("node1", "node2", "node3", environment=patient)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Eventually:
    """Wait until something is so."""
    return eventually


@pytest.fixture(name="agree")
def agree_fixture() -> Agree:
    """Wait until nodes answer a path alike."""
    return agree


@pytest.fixture
def node(cluster: list[Node]) -> Node:
    """Return one node of the cluster."""
    return cluster[0]


@pytest.fixture(scope="session")
def disabled(launcher: Launcher) -> Node:
    """One process whose mesh is not enabled."""
    made = launcher.node("disabled", config="mesh: {enabled: false}")
    made.start()
    return made


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"n-{uuid.uuid4().hex[:12]}"
