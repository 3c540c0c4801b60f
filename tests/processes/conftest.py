"""Nodes as processes, ended by their id whatever happens."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.children import Child, Start
from support.processes import Cluster, Connection
from support.servers import Launcher

from meshlib_server.commands.demo import Node, make_nodes

CHILD = Path(__file__).with_name("mesh_child.py")


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


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def start(anyio_backend: str) -> AsyncIterator[Start]:
    """Start nodes by name; their processes are killed at the end."""
    made: list[Child] = []

    async def start(
        name: str,
        *seeds: Child,
        listen: str = "127.0.0.1:0",
        file: str | Path = "",
        is_next: bool = False,
    ) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), name, listen, str(file), *(seed.address for seed in seeds),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
            env={**os.environ, "NEXT_RELEASE": "1" if is_next else ""},
        )  # fmt: skip
        child = Child(process)
        made.append(child)
        child.address = await child.read()
        return child

    yield start
    for child in made:
        if child.process.returncode is None:
            child.process.kill()
        await child.process.communicate()
