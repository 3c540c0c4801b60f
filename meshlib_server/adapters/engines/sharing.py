"""One router's index of what all engines have cached, whoever listens to them.

Two routers listen to each engine: the first on the ring and the second. The first writes what it
hears into a replicated set of blocks, one for each engine; every router's index follows these
sets. When the first is gone, the second has heard everything already, and writes on.

A router that has just come may be first and not have the whole cache: the engine keeps only its
last messages. Who has it whole says so in a small replicated set, and while the first is not in it
and the second is, the second writes: it was the first before.

Rule: an engine's set is written only by the first of the two that has all, or else by the first,
and by neither before it has all that it could get.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Self

from attrs import frozen

from meshlib import Document, MeshRuntime
from meshlib.crdt import ORSet
from meshlib.errors import StateError
from meshlib.identity import ActorId
from meshlib.prefix import BLOCK_TOKENS, BlockIndex, token_chain
from meshlib.replication import DocumentChanges
from meshlib_server.adapters.engines.cache import EngineCache
from meshlib_server.adapters.engines.duty import Duties, Duty
from meshlib_server.adapters.engines.feed import EngineFeed
from meshlib_server.adapters.engines.subscriber import EngineSubscriber

__all__ = ["Engine", "EngineFollower"]

TICK_S: Final = 0.05
"""How often a router writes what it has heard, and looks what others have written."""

BLOCKS_PER_STEP: Final = 1_000
"""Blocks that are written in one tick, and that the index is given in one turn of the loop."""


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
        self._untold: set[int] | None = None
        self._changes: DocumentChanges[ORSet[int]] | None = None
        self._additions: dict[tuple[ActorId, int], int] = {}
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
            if self._changes is not None:
                self._changes.close()
            await self._listening.aclose()

    async def _step(self) -> None:
        self.duty = self._duties.of(self._engine.worker_id)
        if self.duty is Duty.NONE:
            await self._listening.aclose()
            self._feed = None
        elif self._feed is None:
            await self._listen()
        if self._mesh.is_ready:
            is_telling = self._is_telling()
            await self._follow()
            self._write(is_telling=is_telling)
            await self._follow()
        self.view.tick(time.monotonic())

    async def _listen(self) -> None:
        engine = self._engine
        heard = BlockIndex(is_by_block=True)
        self._feed = EngineFeed(EngineCache(heard, worker_id=engine.worker_id, has_changes=True))
        self._untold = None
        subscriber = EngineSubscriber(
            self._feed, endpoint=engine.endpoint, replay=engine.replay, topic=engine.topic
        )
        await self._listening.enter_async_context(subscriber)

    def _is_telling(self) -> bool:
        """Say whether this router has the whole cache, and tell whether it is to write. O(1)."""
        mesh, worker_id = self._mesh, self._engine.worker_id
        name, feed = mesh.config.name, self._feed
        those = mesh.document(f"engine_whole:{worker_id}", ORSet)
        whole: ORSet[str] = those.state
        was_whole = name in whole
        is_whole = feed is not None and feed.is_whole and (feed.is_synced or was_whole)
        if is_whole and not was_whole:
            those.write(lambda names, w: names.add(name, dot=w.dot()))
        elif was_whole and not is_whole:
            those.write(lambda names, _: names.discard(name))
        owners = self._duties.owners(worker_id)
        if self.duty is Duty.NONE:
            return False
        if self.duty is Duty.FIRST:
            return is_whole or len(owners) < 2 or owners[1] not in whole
        return is_whole and owners[0] not in whole

    def _write(self, *, is_telling: bool) -> None:
        """Tell the others what is different from what they were told. O(changes).

        All of it is compared once, where this router has just become the one that tells.
        """
        feed = self._feed
        if feed is None:
            return
        changed = feed.cache.take_changes()
        if not is_telling or not feed.is_synced:
            self._untold = None
            return
        told = self._document()
        if self._untold is None:
            self._untold = set(feed.cache.blocks ^ told.state.value)
        else:
            self._untold |= changed
        if not self._untold:
            return
        step = list(islice(self._untold, BLOCKS_PER_STEP))
        added: list[int] = []
        removed: list[int] = []
        for block in step:
            if feed.cache.holds(block) != (block in told.state):
                (added if feed.cache.holds(block) else removed).append(block)
        if added:
            told.write(lambda blocks, w: blocks.add_all(added, first=w.dot()))
        if removed:
            told.write(lambda blocks, _: blocks.discard_all(removed))
        # A new set, since one that was large is slow to walk through however little is in it.
        self._untold = self._untold.difference(step)

    async def _follow(self) -> None:
        """Let the index have what the routers were told. O(changes), and O(blocks) at first."""
        touched = self._told_blocks()
        while touched:
            step = [touched.pop() for _ in range(min(len(touched), BLOCKS_PER_STEP))]
            state = self._document().state
            added = [block for block in step if block in state]
            removed = [block for block in step if block not in state]
            self.view.adopt(added, removed, now=time.monotonic())
            await asyncio.sleep(0)

    def _told_blocks(self) -> set[int]:
        """Return the blocks of which this router was told something since the last call."""
        told = self._document()
        if self._changes is None:
            self._changes = told.changes()
        deltas = self._changes.take()
        state = told.state
        self.is_known = not state.is_bottom()
        if deltas is None:
            self._additions = dict(state.additions())
            self._untold = None
            return set(state.value ^ self.view.blocks)
        touched = self._touched(deltas)
        if self._untold is not None and self._feed is not None:
            holds = self._feed.cache.holds  # another router may have told something else
            self._untold.update(block for block in touched if holds(block) != (block in state))
        return touched

    def _touched(self, deltas: Iterable[ORSet[int]]) -> set[int]:
        """Return the blocks that deltas add or remove. O(deltas).

        A removal names the additions that it has seen, so these are kept: some 100 bytes a block.
        """
        touched: set[int] = set()
        for delta in deltas:
            live = dict(delta.additions())
            for dot in delta.context:
                if dot not in live and (block := self._additions.pop(dot, None)) is not None:
                    touched.add(block)
            self._additions.update(live)
            touched.update(live.values())
        return touched

    def _document(self) -> Document[ORSet[int]]:
        return self._mesh.document(f"engine:{self._engine.worker_id}", ORSet)
