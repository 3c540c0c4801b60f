"""A cluster of processes is upgraded, and taken back, one after the other and under writes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.children import Child, Start

from meshlib.limits import FORMAT_NEWEST
from meshlib.testing.world.next_format import NEXT_FORMAT

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

NAMES = ("one", "two", "three")


class Cluster:
    """Three nodes at addresses of their own, each with a file, and what was written to them.

    Args:
        start: starts a process.
        folder: of the files.
    """

    def __init__(self, start: Start, folder: Path) -> None:
        self._start = start
        self._folder = folder
        self.nodes: dict[str, Child] = {}
        self.written: set[str] = set()
        self._is_away = ""
        self._turn = asyncio.Lock()

    async def begin(self, releases: dict[str, bool]) -> None:
        """Start all nodes: of the next release where that is said."""
        for name, is_next in releases.items():
            seeds = list(self.nodes.values())
            file = self._folder / f"{name}.db"
            self.nodes[name] = await self._start(name, *seeds, file=file, is_next=is_next)
        await self.await_all()

    async def await_all(self) -> None:
        """Wait until each node sees all of them alive."""
        for child in self.nodes.values():
            await child.until(lambda m: list(m.values()).count("Alive") == len(NAMES), members=1)

    async def restart(self, name: str, *, is_next: bool) -> None:
        """Let a node leave, and start it at its address as one of a release."""
        async with self._turn:  # nothing may be on its way to a process that ends
            self._is_away = name
        child = self.nodes[name]
        assert 0 == await child.leave()
        seeds = [other for key, other in self.nodes.items() if key != name]
        file = self._folder / f"{name}.db"
        self.nodes[name] = await self._start(
            name, *seeds, listen=child.address, file=file, is_next=is_next
        )
        self._is_away = ""
        await self.await_all()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write to all nodes in turn, but for the one that is away, as long as this lasts."""
        is_over = asyncio.Event()
        task = asyncio.create_task(self._write(is_over))
        try:
            yield
        finally:
            is_over.set()
            await task

    async def _write(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            async with self._turn, asyncio.timeout(30):
                number = len(self.written)
                name = NAMES[number % len(NAMES)]
                if name == self._is_away:
                    name = next(other for other in NAMES if other != name)
                key = f"key-{number}"
                self.written.add(key)
                await self.nodes[name].ask(put={key: number})
            await asyncio.sleep(0.005)

    async def look(self, *, spoken: int) -> None:
        """Wait until each node speaks a format, and has all that was written."""
        for child in self.nodes.values():
            await child.until(lambda format_spoken: format_spoken == spoken, formats=1)
            await child.until(lambda content: set(content) == self.written, content=1)

    async def await_versions(self, version: int) -> None:
        """Wait until each file is of a version."""
        async with asyncio.timeout(30):
            while {self.version(name) for name in NAMES} != {version}:  # noqa: ASYNC110 - files
                await asyncio.sleep(0.05)

    async def problems(self, name: str) -> list[str]:
        """Return what a node tells of its storage and of formats."""
        lines: list[str] = await self.nodes[name].ask(problems=1)
        return [line for line in lines if "aside" in line or "formats" in line]

    def version(self, name: str) -> int:
        """Return the version that a node's file says it is of."""
        with sqlite3.connect(f"file:{self._folder / name}.db?mode=ro", uri=True) as database:
            version: int = database.execute("PRAGMA user_version").fetchone()[0]
        database.close()
        return version


@pytest.fixture
def cluster(start: Start, tmp_path: Path) -> Cluster:
    """Return three nodes that were not started."""
    return Cluster(start, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("newer", [("one",), ("two", "three")], ids="+".join)
async def test_processes_of_both_releases_have_what_each_of_them_wrote(
    cluster: Cluster, newer: tuple[str, ...]
) -> None:
    """As long as one is of this release all speak as it does."""
    await cluster.begin({name: name in newer for name in NAMES})
    async with cluster.writing():
        await asyncio.sleep(0.5)

    await cluster.look(spoken=FORMAT_NEWEST)
    assert [[], [], []] == [await cluster.problems(name) for name in NAMES]


@pytest.mark.slow
async def test_a_roll_to_the_next_release_and_back_loses_nothing(cluster: Cluster) -> None:
    """All switch with the last, and go back with the first; files follow, and none is lost."""
    await cluster.begin(dict.fromkeys(NAMES, False))
    async with cluster.writing():
        for name in NAMES[:2]:
            await cluster.restart(name, is_next=True)
    await cluster.look(spoken=FORMAT_NEWEST)
    halfway = [cluster.version(name) for name in NAMES]
    async with cluster.writing():
        await cluster.restart("three", is_next=True)
    await cluster.look(spoken=NEXT_FORMAT)
    await cluster.await_versions(2)
    async with cluster.writing():
        await cluster.restart("one", is_next=False)
    await cluster.look(spoken=FORMAT_NEWEST)
    told = await cluster.problems("one")
    async with cluster.writing():
        for name in NAMES[1:]:
            await cluster.restart(name, is_next=False)
    await cluster.look(spoken=FORMAT_NEWEST)

    assert [1, 1, 1] == halfway
    assert any("a later release wrote it; it was set aside as one.db.aside-1" in t for t in told)
    assert [[], []] == [await cluster.problems(name) for name in NAMES[1:]]
    assert [1, 1, 1] == [cluster.version(name) for name in NAMES]
    assert len(cluster.written) > 100
