"""What two routers hear of an engine all know, and one takes over from the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from support.engine_publisher import BLOCK, Publisher, two_ports

from meshlib import ConsistentHashRing, GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.crdt import ORSet
from meshlib.prefix import token_chain
from meshlib.routing import TreeInsert
from meshlib_server.adapters.engines import Duty, Engine, EngineCache, EngineFollower

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROMPT = list(range(40))


@pytest.fixture
def anyio_backend() -> str:
    """Only asyncio."""
    return "asyncio"


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - there is nothing that could tell of it
            await asyncio.sleep(0.01)


def held(follower: EngineFollower) -> frozenset[int]:
    """Return what a router's index holds of the engine."""
    return frozenset(block for block, _ in follower.index.entry_hashes("w1"))


def text_of(tokens: list[int]) -> str:
    """Return a prompt of which each token has four characters."""
    return "".join(f"{token:03} " for token in tokens)


class Router:
    """One router: its node and its index."""

    def __init__(self, network: MemoryNetwork, name: str, engine: Engine) -> None:
        self.network = network
        self.mesh = MeshRuntime(
            MeshConfig(name=name, gossip=GossipConfig.of("local")),
            transport=network.transport(f"{name}:1"),
            seeds=["a:1", "b:1", "c:1"],
        )
        self.engines = EngineFollower(self.mesh, [engine], block_tokens=BLOCK)

    def route(self, tokens: list[int]) -> tuple[str | None, int]:
        """Return where a prompt of these tokens goes, and how much of it is cached there."""
        text = text_of(tokens)
        held = self.engines.held(text, tokens)
        decision = self.mesh.route("m", text, tokens=len(tokens), held=held, record=False)
        return decision.worker_id, decision.matched


@contextlib.asynccontextmanager
async def three_routers(publisher: Publisher) -> AsyncIterator[dict[Duty, Router]]:
    """Give three routers that follow one engine, by what they have to do with it."""
    network = MemoryNetwork()
    engine = Engine("w1", *publisher.endpoints)
    routers = [Router(network, name, engine) for name in "abc"]
    async with contextlib.AsyncExitStack() as stack:
        for router in routers:
            await stack.enter_async_context(router.mesh)
        for router in routers:
            await router.mesh.wait_ready()
            await until(lambda router=router: len(router.mesh.members()) == 3)  # type: ignore[misc]
            await stack.enter_async_context(router.engines)
        duties = {Duty.FIRST, Duty.SECOND, Duty.NONE}
        await until(lambda: {router.engines.duty("w1") for router in routers} == duties)
        yield {router.engines.duty("w1"): router for router in routers}


async def test_all_routers_know_what_two_of_them_hear() -> None:
    """What is stored and what is evicted."""
    async with Publisher(two_ports()) as publisher, three_routers(publisher) as routers:
        await publisher.store(PROMPT)
        for router in routers.values():
            await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]
        await publisher.evict(4)
        for router in routers.values():
            await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]


async def test_the_second_takes_over_and_no_index_is_ever_short_of_what_was_known() -> None:
    """The first dies without a word while the engine goes on."""
    async with Publisher(two_ports()) as publisher, three_routers(publisher) as routers:
        await publisher.store(PROMPT)
        known = publisher.blocks
        left = [routers[Duty.SECOND], routers[Duty.NONE]]
        for router in left:
            await until(lambda router=router: held(router.engines) == known)  # type: ignore[misc]

        await routers[Duty.FIRST].mesh.abort()
        await publisher.store([7] * 20)

        def is_told() -> bool:
            assert all(known <= held(router.engines) for router in left)
            return all(held(router.engines) == publisher.blocks for router in left)

        await until(is_told)
        await until(lambda: left[0].engines.duty("w1") is Duty.FIRST)


async def test_what_is_expected_stands_until_the_engine_says_otherwise() -> None:
    """A request's blocks are found at once, stay when they are stored, and go when evicted."""
    async with Publisher(two_ports()) as publisher, three_routers(publisher) as routers:
        engines = routers[Duty.NONE].engines
        chain = token_chain(PROMPT, block_tokens=BLOCK)
        engines.expect("w1", chain)
        assert (("w1",), 10) == engines.index.match(chain)

        await publisher.store(PROMPT)
        await until(lambda: held(routers[Duty.FIRST].engines) == publisher.blocks)
        await publisher.evict(3)

        await until(lambda: held(engines) == publisher.blocks)
        assert (("w1",), 7) == engines.index.match(chain)


async def test_prompts_go_by_what_the_engine_has_and_not_by_what_was_sent_to_it() -> None:
    """Stored for others: warm. Evicted: not, though the tree says that it was sent there."""
    async with Publisher(two_ports()) as publisher, three_routers(publisher) as routers:
        mesh, size = routers[Duty.NONE].mesh, len(text_of(PROMPT))
        for name in ("w1", "w2"):
            mesh.sync.sync_worker_state(name, model_id="m", url=name, health=True, load=0.0)
        mesh.sync.sync_tree_operation("m", TreeInsert(text_of(PROMPT), "w2"))
        for router in routers.values():
            known = partial(router.route, PROMPT)
            await until(lambda known=known: known() == ("w2", size))  # type: ignore[misc]
        unheard = [200 + token for token in PROMPT]

        await publisher.store(unheard)  # no router has sent it there
        for router in routers.values():
            await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]
            assert ("w1", size) == router.route(unheard)
            assert ("w2", size) == router.route(PROMPT)  # it says nothing, and the tree does

        mesh.sync.sync_tree_operation("m", TreeInsert(text_of(unheard), "w1"))
        await publisher.clear()
        for router in routers.values():
            tree = router.mesh.sync
            await until(lambda tree=tree: tree.match_tree("m", text_of(unheard)).matched == size)  # type: ignore[misc]
            await until(lambda router=router: not held(router.engines))  # type: ignore[misc]
            assert 0 == router.route(unheard)[1]


async def test_what_others_have_told_wrongly_is_put_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the first, who looks at what has changed and never again at all that is there."""
    async with Publisher(two_ports()) as publisher, three_routers(publisher) as routers:
        await publisher.store(PROMPT)
        for router in routers.values():
            await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]

        def walk(_cache: EngineCache) -> frozenset[int]:
            raise AssertionError("all that is there is looked at again")

        monkeypatch.setattr(EngineCache, "blocks", property(walk))

        told = routers[Duty.SECOND].mesh.document("engine:w1", ORSet)
        told.write(lambda blocks, _: blocks.discard_all(list(publisher.blocks)[:5]))
        told.write(lambda blocks, write: blocks.add(123, dot=write.dot()))
        await publisher.store([7] * 20)
        await publisher.evict(2)

        def is_right() -> bool:
            value = routers[Duty.NONE].mesh.document("engine:w1", ORSet).state.value
            return bool(value == publisher.blocks)

        await until(is_right)
        for router in routers.values():
            await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]


async def test_a_router_that_comes_later_has_all_of_it() -> None:
    """What was told before it came, and what is evicted from then on."""
    async with Publisher(two_ports()) as publisher, three_routers(publisher) as routers:
        await publisher.store(PROMPT)
        one = routers[Duty.NONE]
        await until(lambda: held(one.engines) == publisher.blocks)
        late = Router(one.network, "d", Engine("w1", *publisher.endpoints))
        async with late.mesh:
            await late.mesh.wait_ready()
            async with late.engines:
                await until(lambda: held(late.engines) == publisher.blocks)
                await publisher.evict(4)
                for router in (*routers.values(), late):
                    await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]


async def test_a_router_that_comes_first_on_the_ring_takes_nothing_away() -> None:
    """It cannot have what the engine keeps no more: who was first before goes on until it has."""
    async with (
        Publisher(two_ports(), buffer_steps=3) as publisher,
        three_routers(publisher) as routers,
    ):
        for number in range(10):
            await publisher.store([number] * 8)
        former, names = (
            routers[Duty.FIRST],
            [router.mesh.config.name for router in routers.values()],
        )
        for router in routers.values():
            await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]
        known = publisher.blocks
        rings = {name: ConsistentHashRing([*names, name]) for name in (f"r{n}" for n in range(100))}
        name = next(name for name, ring in rings.items() if ring.owner("w1") == name)
        late = Router(former.network, name, Engine("w1", *publisher.endpoints))
        everybody = [*routers.values(), late]
        async with late.mesh:
            await late.mesh.wait_ready()
            async with late.engines:
                await until(lambda: late.engines.duty("w1") is Duty.FIRST)
                await until(lambda: former.engines.duty("w1") is Duty.SECOND)
                await publisher.store([99] * 8)

                def is_told() -> bool:
                    assert all(known <= held(router.engines) for router in routers.values())
                    return all(held(router.engines) == publisher.blocks for router in everybody)

                await until(is_told)
                await publisher.evict_first(4)  # of which the new one has never heard
                for router in everybody:
                    await until(lambda router=router: held(router.engines) == publisher.blocks)  # type: ignore[misc]
                await publisher.clear()  # and now it has the whole cache
                await publisher.store(PROMPT)
                await former.mesh.abort()
                await publisher.store([5] * 8)
                left = [router for router in everybody if router is not former]
                await until(lambda: all(held(each.engines) == publisher.blocks for each in left))
