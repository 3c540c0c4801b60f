"""Events of engines: whatever is lost, the index becomes the engine's truth."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest
from support.engine_publisher import BLOCK, Publisher, two_ports

from meshlib.prefix import BlockIndex, token_chain
from meshlib_server.adapters.engines import EngineCache, EngineFeed, EngineSubscriber

pytestmark = pytest.mark.anyio

PROMPT = list(range(40))


@pytest.fixture
def anyio_backend() -> str:
    """Only asyncio."""
    return "asyncio"


@pytest.fixture
def ports() -> tuple[int, int]:
    """Return two ports that nobody listens on."""
    return two_ports()


def new_feed() -> EngineFeed:
    """Return a feed into an index of its own."""
    return EngineFeed(EngineCache(BlockIndex(is_by_block=True), worker_id="w1"))


def held(feed: EngineFeed) -> frozenset[int]:
    """Return what the index holds of the engine, and check all of it."""
    feed.cache._check()
    feed.cache.index._check()
    return frozenset(block for block, _ in feed.cache.index.entry_hashes("w1"))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is nothing that could tell of it
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(publisher: Publisher, *, has_replay: bool = True) -> AsyncIterator[EngineFeed]:
    """Follow a publisher inside the block."""
    feed = new_feed()
    endpoint, replay = publisher.endpoints
    async with EngineSubscriber(feed, endpoint=endpoint, replay=replay if has_replay else None):
        yield feed


async def test_what_was_said_before_and_after_is_known(ports: tuple[int, int]) -> None:
    """Who comes late asks for the beginning; a prompt matches as far as the engine has it."""
    async with Publisher(ports) as publisher:
        await publisher.store(PROMPT[:20])
        async with following(publisher) as feed:
            await until(lambda: held(feed) == publisher.blocks and feed.is_whole)
            await publisher.store(PROMPT)
            await until(lambda: held(feed) == publisher.blocks)
            match = feed.cache.index.match(token_chain([*PROMPT, 7, 7], block_tokens=BLOCK))
            assert (("w1",), 10) == match
            await publisher.evict(3)
            await until(lambda: held(feed) == publisher.blocks)
            assert (("w1",), 7) == feed.cache.index.match(token_chain(PROMPT, block_tokens=BLOCK))


async def test_what_was_lost_is_asked_for(ports: tuple[int, int]) -> None:
    """Once the next message shows that something was; each is applied once and in order."""
    async with Publisher(ports) as publisher, following(publisher) as feed:
        await publisher.store(PROMPT[:8])
        await until(lambda: held(feed) == publisher.blocks)
        await publisher.store(PROMPT, is_lost=True)
        await publisher.evict(2, is_lost=True)
        await publisher.store([1, 1, 1, 1])
        await until(lambda: held(feed) == publisher.blocks)
        assert (0, True) == (feed.epoch, feed.is_whole)


async def test_a_new_start_forgets_what_was_before(ports: tuple[int, int]) -> None:
    """Also where the new engine has said as much as the old one, so that no number tells."""
    async with contextlib.AsyncExitStack() as stack:
        first = Publisher(ports, seed="first")
        await first.__aenter__()
        feed = await stack.enter_async_context(following(first))
        for end in (8, 16, 24):
            await first.store(PROMPT[:end])
        await until(lambda: held(feed) == first.blocks)
        await first.__aexit__()
        second = await stack.enter_async_context(Publisher(ports, seed="second"))
        for end in (12, 16, 20):
            await second.store([9, *PROMPT[:end]])
        await until(lambda: held(feed) == second.blocks)
        assert 1 <= feed.epoch
        await second.store([9, *PROMPT])
        await until(lambda: held(feed) == second.blocks)
        assert feed.is_whole


async def test_what_is_kept_no_more_is_lost_and_said_to_be(ports: tuple[int, int]) -> None:
    """Nothing is then believed that may be gone; a cleared cache is whole again."""
    async with Publisher(ports, buffer_steps=1) as publisher:
        await publisher.store(PROMPT[:20])
        await publisher.store([1] * 8)
        await publisher.store([2] * 8)
        async with following(publisher) as feed:
            await until(lambda: feed.next_sequence == 3)
            assert held(feed) < publisher.blocks
            assert not feed.is_whole
            await publisher.clear()
            await publisher.store(PROMPT)
            await until(lambda: held(feed) == publisher.blocks)
            assert feed.is_whole


async def test_without_a_replay_what_was_lost_is_forgotten(ports: tuple[int, int]) -> None:
    """The index is then part of what the engine has, and never more than that."""
    async with Publisher(ports) as publisher, following(publisher, has_replay=False) as feed:
        while not feed.next_sequence:  # it sends nothing to who has not yet subscribed
            await publisher.publish([])
            await asyncio.sleep(0.01)
        before = publisher.sent_count
        await publisher.store(PROMPT)
        await publisher.evict(2, is_lost=True)
        await publisher.store([5] * 8)
        await until(lambda: feed.next_sequence == before + 3)
        assert held(feed) < publisher.blocks
        assert not feed.is_whole


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_the_index_is_the_truth_in_the_end(
    ports: tuple[int, int], seed: int
) -> None:
    """Drawn stores, evictions, losses and starts; and a second listener who comes late."""
    rng = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        publisher = Publisher(ports, seed="0")
        await publisher.__aenter__()
        feed = await stack.enter_async_context(following(publisher))
        for step in range(120):
            is_lost = rng.random() < 0.3
            draw = rng.random()
            if draw < 0.7:
                await publisher.store([rng.randrange(3) for _ in range(24)], is_lost=is_lost)
            elif draw < 0.95:
                await publisher.evict(rng.randrange(1, 8), is_lost=is_lost)
            elif draw < 0.98:
                await publisher.clear(is_lost=is_lost)
            else:
                await publisher.__aexit__()
                publisher = Publisher(ports, seed=str(step))
                await publisher.__aenter__()
            await asyncio.sleep(0)
        second = await stack.enter_async_context(following(publisher))
        await publisher.store(PROMPT)
        await until(lambda: held(feed) == publisher.blocks)
        await until(lambda: held(second) == publisher.blocks)
        assert feed.is_whole
        assert second.is_whole
        await publisher.__aexit__()


async def test_what_has_changed_is_told_once(ports: tuple[int, int]) -> None:
    """What was stored, removed, or both: nobody need compare all of it."""
    cache = EngineCache(BlockIndex(is_by_block=True), worker_id="w1", has_changes=True)
    async with Publisher(ports) as publisher:
        endpoint, replay = publisher.endpoints
        feed = EngineFeed(cache)
        async with EngineSubscriber(feed, endpoint=endpoint, replay=replay):
            await publisher.store(PROMPT)
            await until(lambda: held(feed) == publisher.blocks)
            stored = publisher.blocks
            assert stored == cache.take_changes()
            assert set() == cache.take_changes()
            await publisher.evict(3)
            await until(lambda: held(feed) == publisher.blocks)
            assert stored - publisher.blocks == cache.take_changes()
            assert all(cache.holds(block) == (block in publisher.blocks) for block in stored)
            await publisher.clear()
            await until(lambda: not held(feed))
            assert 7 == len(cache.take_changes())
