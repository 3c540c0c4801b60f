"""Nodes as processes, ended by their id whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.processes import Cluster, Connection
from support.servers import Launcher

from meshlib_server.commands.demo import Node, make_nodes


@pytest.fixture
def connect() -> Iterator[Callable[[Node], Connection]]:
    """Return a function that connects to a node; all connections are closed at the end."""
    made: list[Connection] = []

    def make(node: Node) -> Connection:
        made.append(Connection(node))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Yield three nodes that have met."""
    made = Cluster(make_nodes(tmp_path))
    try:
        for node in made.nodes:
            node.start()
        made.await_all_alive()
        yield made
    finally:
        for node in made.nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait()


@pytest.fixture
def own_launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Make nodes for one test, which may do with them what it likes."""
    made = Launcher(directory=tmp_path)
    yield made
    made.stop()
