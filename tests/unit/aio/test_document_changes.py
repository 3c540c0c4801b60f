"""What becomes new in a document, for a reader that keeps something made of a large state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from meshlib import Document, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.crdt import ORSet
from meshlib.errors import ThreadError
from meshlib.gossip import GossipConfig
from meshlib.limits import DOCUMENT_CHANGES_MAX
from meshlib.replication import DocumentChanges

pytestmark = pytest.mark.anyio


def made(network: MemoryNetwork, name: str) -> MeshRuntime:
    """Return a node that is not started yet."""
    config = MeshConfig(name=name, gossip=GossipConfig.of("local"))
    return MeshRuntime(config, transport=network.transport(f"{name}:1"), seeds=["a:1"])


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is nothing that could tell of it
            await asyncio.sleep(0.01)


class Follower:
    """The elements of a set, kept by its deltas alone."""

    def __init__(self, document: Document[ORSet[int]]) -> None:
        self.document = document
        self.changes: DocumentChanges[ORSet[int]] = document.changes()
        self.by_dot: dict[object, int] = {}
        self.resets = 0

    @property
    def elements(self) -> set[int]:
        """Take what is new, and return the elements."""
        deltas = self.changes.take()
        if deltas is None:
            self.resets += 1
            self.by_dot = dict(self.document.state.additions())
        for delta in deltas or ():
            live = dict(delta.additions())
            for dot in delta.context:
                self.by_dot.pop(dot, None)
            self.by_dot.update(live)
        return set(self.by_dot.values())


def add(document: Document[ORSet[int]], *elements: int) -> None:
    """Add elements in one write."""
    document.write(lambda state, write: state.add_all(elements, first=write.dot()))


async def test_a_reader_has_the_state_by_what_is_new_alone() -> None:
    """Of its own writes and of others', additions and removals; all of it once, at first."""
    network = MemoryNetwork()
    async with made(network, "a") as one, made(network, "b") as other:
        await until(lambda: len(one.members()) == len(other.members()) == 2)
        mine, theirs = one.document("set", ORSet), other.document("set", ORSet)
        add(mine, 1, 2, 3)
        follower = Follower(mine)
        assert {1, 2, 3} == follower.elements
        add(theirs, 3, 4)
        mine.write(lambda state, _: state.discard(1))
        await until(lambda: theirs.state.value == {2, 3, 4} == mine.state.value)
        theirs.write(lambda state, _: state.discard_all([2, 4, 9]))
        add(theirs, 5)
        await until(lambda: mine.state.value == {3, 5})

        assert {3, 5} == follower.elements == follower.elements
        assert 1 == follower.resets


async def test_a_reader_that_is_slow_reads_all_of_it_again() -> None:
    """What waits for it is bounded, and it misses nothing."""
    async with made(MemoryNetwork(), "a") as mesh:
        await mesh.wait_ready()
        document = mesh.document("set", ORSet)
        follower = Follower(document)
        assert set() == follower.elements
        for number in range(DOCUMENT_CHANGES_MAX):
            add(document, number)
        assert DOCUMENT_CHANGES_MAX == len(follower.elements)
        assert 1 == follower.resets
        for number in range(DOCUMENT_CHANGES_MAX + 1):
            add(document, 1_000 + number)

        assert document.state.value == follower.elements
        assert 2 == follower.resets


async def test_a_closed_reader_hears_nothing_and_leaves_nothing_behind() -> None:
    """The others hear as before, and of other documents nobody."""
    async with made(MemoryNetwork(), "a") as mesh:
        await mesh.wait_ready()
        document, another = mesh.document("set", ORSet), mesh.document("another", ORSet)
        closed, open_ = document.changes(), document.changes()
        for changes in (closed, open_):
            assert changes.take() is None
        closed.close()
        closed.close()
        add(another, 7)
        add(document, 1)
        add(document, 2)

        assert [] == closed.take()
        assert [{1}, {2}] == [delta.value for delta in open_.take() or ()]


async def test_a_reader_is_of_the_event_loops_thread() -> None:
    """As whatever asks a node."""
    async with made(MemoryNetwork(), "a") as mesh:
        await mesh.wait_ready()
        changes = mesh.document("set", ORSet).changes()
        with pytest.raises(ThreadError):
            await asyncio.to_thread(changes.take)
