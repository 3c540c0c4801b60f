"""One router's index of what all engines have cached, whoever listens to them.

Two routers listen to each engine: the first on the ring and the second. The first writes what it
hears into a replicated set of blocks, one for each engine; every router's index follows these
sets. When the first is gone, the second has heard everything already, and writes on.

Rule: an engine's set is written only by a router that is first and has all that it could get.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Final, Self

from attrs import frozen

from meshlib import Document, MeshRuntime, WriteContext
from meshlib.crdt import ORSet
from meshlib.errors import StateError
from meshlib.prefix import BlockIndex
from meshlib_server.adapters.engines.cache import EngineCache
from meshlib_server.adapters.engines.duty import Duty, duty_of
from meshlib_server.adapters.engines.feed import EngineFeed
from meshlib_server.adapters.engines.subscriber import EngineSubscriber

__all__ = ["Engine", "EngineFollower"]

TICK_S: Final = 0.05
"""How often a router writes what it has heard, and looks what others have written."""

BLOCKS_PER_WRITE: Final = 4_000
"""Blocks that are added, and removed, in one write: what is more goes with the next tick."""


@frozen
class Engine:
    """One engine, and where it tells of its cache.

    Args:
        worker_id: its name among the workers.
        endpoint: where it publishes, such as `tcp://w1:5557`.
        replay: where it answers who missed something; None: nowhere.
        topic: what is subscribed to; empty for everything.
    """

    worker_id: str
    endpoint: str
    replay: str | None = None
    topic: str = ""


class EngineFollower:
    """Keeps one index of the blocks of all engines. The same engines on every router.

        engines = EngineFollower(mesh, [Engine("w1", "tcp://w1:5557", "tcp://w1:5558")])
        async with engines:
            match = engines.index.match(token_chain(tokens, block_tokens=16))
            engines.expect("w1", chain)

    Args:
        mesh: this router's node.
        engines: those of one model, all with blocks of one size.
        index: where their blocks go; a new one unless given.
    """

    def __init__(
        self, mesh: MeshRuntime, engines: Iterable[Engine], *, index: BlockIndex | None = None
    ) -> None:
        self.index = BlockIndex(is_by_block=True) if index is None else index
        self._watches = {engine.worker_id: _Watch(mesh, engine, self.index) for engine in engines}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for watch in self._watches.values():
            self._tasks.append(asyncio.create_task(watch.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def duty(self, worker_id: str) -> Duty:
        """Return what this router has to do with an engine, as of the last tick."""
        return self._watches[worker_id].duty

    def expect(self, worker_id: str, chain: Sequence[int]) -> None:
        """Take for cached what a request that was sent to an engine will leave there.

        Args:
            worker_id: the engine.
            chain: the blocks of its prompt, as `token_chain` makes them.

        Raises:
            LocalError: as `BlockIndex.insert`; nothing is expected.
        """
        self._watches[worker_id].view.expect(chain, now=time.monotonic())


def _discard(blocks: ORSet[int], _context: WriteContext, *, block: int) -> ORSet[int]:
    return blocks.discard(block)


class _Watch:
    """One engine, as one router follows it."""

    def __init__(self, mesh: MeshRuntime, engine: Engine, index: BlockIndex) -> None:
        self._mesh, self._engine = mesh, engine
        self.duty = Duty.NONE
        self.view = EngineCache(index, worker_id=engine.worker_id)
        self._feed: EngineFeed | None = None
        self._listening = contextlib.AsyncExitStack()
        self._seen: object = None

    async def run(self) -> None:
        """Listen, write and follow as the ring says, until cancelled or the node has ended."""
        try:
            while self._mesh.is_running:
                await self._step()
                await asyncio.sleep(TICK_S)
        except StateError:
            if self._mesh.is_running:
                raise
        finally:
            await self._listening.aclose()

    async def _step(self) -> None:
        worker_id, name = self._engine.worker_id, self._mesh.config.name
        self.duty = duty_of(worker_id, name=name, members=self._mesh.members())
        if self.duty is Duty.NONE:
            await self._listening.aclose()
            self._feed = None
        elif self._feed is None:
            await self._listen()
        if self._mesh.is_ready:
            if self.duty is Duty.FIRST:
                self._write()
            self._follow()
        self.view.tick(time.monotonic())

    async def _listen(self) -> None:
        engine = self._engine
        heard = BlockIndex(is_by_block=True)
        self._feed = EngineFeed(EngineCache(heard, worker_id=engine.worker_id))
        subscriber = EngineSubscriber(
            self._feed, endpoint=engine.endpoint, replay=engine.replay, topic=engine.topic
        )
        await self._listening.enter_async_context(subscriber)

    def _write(self) -> None:
        """Tell the others what is different from what they were told. O(blocks)."""
        feed = self._feed
        if feed is None or not feed.is_synced:
            return
        told = self._document()
        heard, known = feed.cache.blocks, told.state.value
        added = list(islice(heard - known, BLOCKS_PER_WRITE))
        removed = list(islice(known - heard, BLOCKS_PER_WRITE))
        if added:
            told.write(lambda blocks, w: blocks.add_all(added, first=w.dot()))
        for block in removed:
            told.write(partial(_discard, block=block))

    def _follow(self) -> None:
        """Let the index have what the routers were told. O(blocks), where that has changed."""
        state = self._document().state
        seen = len(state), tuple(sorted(state.context.vector.items()))
        if seen == self._seen:
            return
        self._seen = seen
        told, held = state.value, self.view.blocks
        self.view.adopt(told - held, held - told, now=time.monotonic())

    def _document(self) -> Document[ORSet[int]]:
        return self._mesh.document(f"engine:{self._engine.worker_id}", ORSet)
