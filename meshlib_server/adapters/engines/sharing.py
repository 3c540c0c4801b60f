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
from meshlib.prefix import BLOCK_TOKENS, BlockIndex, token_chain
from meshlib_server.adapters.engines.cache import EngineCache
from meshlib_server.adapters.engines.duty import Duties, Duty
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
            held = engines.held(text, tokens)
            decision = mesh.route("llama-3", text, tokens=len(tokens), held=held, record=False)
            ...  # it is sent to decision.url, and the worker has taken it
            mesh.placed(decision)
            engines.expect(decision.worker_id, token_chain(tokens, block_tokens=16))

    Args:
        mesh: this router's node.
        engines: those of one model, all with blocks of one size.
        index: where their blocks go; a new one unless given.
        block_tokens: the size of their blocks, at least 1.

    Raises:
        InvalidValueError: a size under 1.
    """

    def __init__(
        self,
        mesh: MeshRuntime,
        engines: Iterable[Engine],
        *,
        index: BlockIndex | None = None,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        token_chain((), block_tokens=block_tokens)  # refuses a size that cannot be
        self._block_tokens = block_tokens
        self.index = BlockIndex(is_by_block=True) if index is None else index
        duties = Duties(mesh)
        self._watches = {
            engine.worker_id: _Watch(mesh, engine, self.index, duties) for engine in engines
        }
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

    def held(self, text: str, tokens: Sequence[int]) -> dict[str, int]:
        """Tell how much of a prompt each engine has; for `held` of `MeshRuntime.route`.

        By the engines' own word, and by what is expected of them. O(tokens + engines); never waits.

        Args:
            text: the prompt.
            tokens: the same as the engines see it, from its beginning on.

        Returns:
            characters, by worker: as large a part of the text as that of the tokens that is there.
            Engines that have said nothing yet are left out: of these the tree knows more.

        Raises:
            InvalidValueError: a token out of range.
        """
        chain = token_chain(tokens, block_tokens=self._block_tokens)
        matched = self.index.match_each(chain)
        per_block = self._block_tokens * len(text) / len(tokens) if matched else 0.0
        return {
            worker_id: int(matched.get(worker_id, 0) * per_block)
            for worker_id, watch in self._watches.items()
            if watch.is_known
        }

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

    def __init__(
        self, mesh: MeshRuntime, engine: Engine, index: BlockIndex, duties: Duties
    ) -> None:
        self._mesh, self._engine, self._duties = mesh, engine, duties
        self.duty = Duty.NONE
        self.view = EngineCache(index, worker_id=engine.worker_id)
        self._feed: EngineFeed | None = None
        self._listening = contextlib.AsyncExitStack()
        self._seen: object = None
        self.is_known = False
        """Whether the engine has said anything, as far as this router has heard."""

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
        self.duty = self._duties.of(self._engine.worker_id)
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
        self.is_known = not state.is_bottom()
        told, held = state.value, self.view.blocks
        self.view.adopt(told - held, held - told, now=time.monotonic())

    def _document(self) -> Document[ORSet[int]]:
        return self._mesh.document(f"engine:{self._engine.worker_id}", ORSet)
