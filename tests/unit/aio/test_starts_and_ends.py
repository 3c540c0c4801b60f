"""Whoever starts or ends a runtime, wherever and however often: it ends once, and whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from meshlib.aio import Discovery, EventStream, MemoryNetwork, MeshRuntime, TcpTransport
from meshlib.errors import InvalidTypeError, StateError, ThreadError
from meshlib.gossip import GossipConfig
from meshlib.node import MeshConfig, NodeState

pytestmark = pytest.mark.anyio

LIMIT_S = 20.0
"""Longer than any end takes: what is not over by then never is."""

ENDS: list[Callable[[MeshRuntime], Coroutine[Any, Any, None]]] = [
    MeshRuntime.stop,
    MeshRuntime.abort,
]


class SlowSource(Discovery):
    """A source of seeds that answers when it is told to."""

    is_fixed = False

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def addresses(self) -> tuple[str, ...]:
        """Wait, and know nobody."""
        self.asked.set()
        await self.answer.wait()
        return ()


def new(name: str, network: MemoryNetwork, **settings: Any) -> MeshRuntime:
    """Make a runtime at `name:1` that is not started."""
    config = MeshConfig(name=name, gossip=GossipConfig.local())
    return MeshRuntime(config, transport=network.transport(f"{name}:1"), **settings)


@pytest.fixture
async def mesh(anyio_backend: str) -> AsyncIterator[MeshRuntime]:
    """Yield one running node, alone; it is stopped at the end, which must come."""
    runtime = new("node", MemoryNetwork())
    await runtime.start()
    yield runtime
    async with asyncio.timeout(LIMIT_S):
        await runtime.stop()


def in_a_loop_of_its_own(work: Callable[[], Coroutine[Any, Any, object]]) -> BaseException | None:
    """Run a coroutine in a new loop of this thread, and return what it raised."""

    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await work()

    try:
        asyncio.run(bounded())
    except BaseException as error:  # noqa: BLE001 - which one it is, is what is asked
        return error
    return None


streams: dict[MeshRuntime, EventStream] = {}
"""A stream of each node that was made in the node's own loop."""


async def next_event(mesh: MeshRuntime) -> None:
    """Wait for an event of a stream that was made before."""
    await anext(streams[mesh])


@pytest.mark.parametrize(
    "work",
    [
        *ENDS,
        MeshRuntime.wait_stopped,
        MeshRuntime.wait_ready,
        lambda mesh: mesh.wait_until(lambda: False),
        next_event,
    ],
    ids=["stop", "abort", "wait_stopped", "wait_ready", "wait_until", "events"],
)
async def test_a_node_is_waited_for_in_its_own_loop_only(
    mesh: MeshRuntime, work: Callable[[MeshRuntime], Coroutine[Any, Any, object]]
) -> None:
    """Elsewhere nobody would be woken; it is refused, and the node goes on and can be stopped."""
    streams[mesh] = mesh.events()
    error = await asyncio.to_thread(in_a_loop_of_its_own, lambda: work(mesh))

    assert isinstance(error, ThreadError), error
    assert mesh.acquire("global").allowed
    async with asyncio.timeout(LIMIT_S):
        await mesh.stop()
    assert mesh.state is NodeState.STOPPED


async def test_ended_is_ended_in_every_loop(mesh: MeshRuntime) -> None:
    """What has ended may be stopped, aborted and waited for from anywhere."""
    await mesh.stop()
    for work in (*ENDS, MeshRuntime.wait_stopped):
        assert await asyncio.to_thread(in_a_loop_of_its_own, lambda w=work: w(mesh)) is None  # type: ignore[misc]


@pytest.mark.parametrize("turns", range(12))
async def test_a_stop_that_is_cancelled_ends_the_node_all_the_same(turns: int) -> None:
    """At whichever of its waits: the next stop returns, and the address is free."""
    network = MemoryNetwork()
    async with new("first", network) as first, asyncio.timeout(LIMIT_S):
        second = new("second", network, seeds=["first:1"])
        await second.start()
        await second.wait_ready()
        second.sync.set_config("key", b"value")
        stopping = asyncio.create_task(second.stop())
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait((stopping,))
        await second.stop()

        assert second.state is NodeState.STOPPED
        assert first.is_running
        async with new("second", network):
            pass


async def test_a_stop_that_may_take_so_long_is_over_by_then() -> None:
    """A node that nobody takes anything from waits long; who limits that has it ended."""
    network = MemoryNetwork()
    gossip = GossipConfig.local()
    config = MeshConfig(name="far", gossip=gossip)
    far = MeshRuntime(config, transport=network.transport("far:1"), seeds=["near:1"])
    async with new("near", network, seeds=["far:1"]), asyncio.timeout(LIMIT_S):
        await far.start()
        await far.wait_until(lambda: len(far.members()) == 2)
        network.partition({"far:1"})
        far.sync.set_config("key", b"value")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await far.stop()

        assert far.state is NodeState.STOPPED


@pytest.mark.parametrize("end", ENDS, ids=["stop", "abort"])
async def test_a_node_that_is_still_starting_is_given_up(
    end: Callable[[MeshRuntime], Coroutine[Any, Any, None]],
) -> None:
    """The start says so, nothing is left running, and the address is free."""
    network, source, before = MemoryNetwork(), SlowSource(), asyncio.all_tasks()
    mesh = new("node", network, seeds=source)
    starting = asyncio.create_task(mesh.start())
    async with asyncio.timeout(LIMIT_S):
        await source.asked.wait()
        await end(mesh)
        with pytest.raises(StateError, match="ended while it started"):
            await starting
        await mesh.stop()
        async with new("node", network):
            pass

    assert mesh.state is NodeState.STOPPED
    assert before == asyncio.all_tasks()


@pytest.mark.parametrize("end", ENDS, ids=["stop", "abort"])
async def test_a_node_that_has_not_begun_to_start_is_given_up_too(
    end: Callable[[MeshRuntime], Coroutine[Any, Any, None]],
) -> None:
    """Its socket is opened in a turn of its own, and closed again."""
    mesh = MeshRuntime(MeshConfig(name="node"), transport=TcpTransport("127.0.0.1:0"))
    starting = asyncio.create_task(mesh.start())
    await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT_S):
        await end(mesh)
        with pytest.raises(StateError, match="ended while it started"):
            await starting

    assert mesh.state is NodeState.STOPPED


async def test_a_start_that_is_cancelled_is_cancelled() -> None:
    """And nothing is left: whoever cancels a task is answered with that."""
    source = SlowSource()
    mesh = new("node", MemoryNetwork(), seeds=source)
    starting = asyncio.create_task(mesh.start())
    await source.asked.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert mesh.state is NodeState.STOPPED


async def test_a_node_whose_tasks_are_cancelled_has_ended(mesh: MeshRuntime) -> None:
    """It would admit everything, send nothing, and say nothing of it."""
    waiting = asyncio.create_task(mesh.wait_until(lambda: False))
    await asyncio.sleep(0)
    for task in mesh._tasks:
        task.cancel()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(StateError, match="tasks were cancelled"):
            await waiting
        with pytest.raises(StateError, match="tasks were cancelled"):
            await mesh.wait_stopped()
    with pytest.raises(StateError, match="has ended"):
        mesh.acquire("global")


def test_a_node_whose_loop_has_ended_has_ended() -> None:
    """A program that starts it in one loop and uses it in another is told."""
    mesh = new("node", MemoryNetwork())
    asyncio.run(mesh.start())

    with pytest.raises(StateError, match="has ended"):
        mesh.acquire("global")


async def test_what_is_called_is_a_function(mesh: MeshRuntime) -> None:
    """And is named where it is none."""
    with pytest.raises(InvalidTypeError, match="function must be a function, not int"):
        mesh.call(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def raise_stop_iteration() -> bool:
    """Do what a `next` in a condition does."""
    return bool(next(iter(())))


def raise_cancelled() -> bool:
    """Do what the result of a cancelled task does."""
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (raise_stop_iteration, RuntimeError),
        (raise_cancelled, asyncio.CancelledError),
        (lambda: bool(1 / 0), ZeroDivisionError),
    ],
    ids=["StopIteration", "CancelledError", "another"],
)
async def test_a_condition_that_raises_ends_its_wait_and_no_node(
    mesh: MeshRuntime, fail: Callable[[], bool], error: type[BaseException]
) -> None:
    """Whatever it raises: it is told where the wait is."""
    looks = iter([lambda: False, lambda: False, fail])
    waiting = asyncio.create_task(mesh.wait_until(lambda: next(looks)()))
    while not waiting.done():
        mesh.wake()
        await asyncio.sleep(0)
    with pytest.raises(error):
        await waiting

    assert mesh.is_running
    assert mesh.acquire("global").allowed


async def test_a_condition_is_no_coroutines_function(mesh: MeshRuntime) -> None:
    """What it returns is true whatever it would say."""

    async def never() -> bool:
        return False

    with pytest.raises(InvalidTypeError, match="condition must be an ordinary function"):
        await mesh.wait_until(never)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
