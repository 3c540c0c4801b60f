"""Load and health of engines: what is read of their metrics, and who asks whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from support.mini_network import PORT, MiniNetwork

from meshlib import GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.errors import StateError
from meshlib_server.adapters.engines import (
    Duties,
    Duty,
    EngineLoad,
    EnginePoller,
    duty_of,
    read_load,
)
from meshlib_server.adapters.engines.poller import LOOK_S

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 3.0
vllm:num_requests_running{engine="1",model_name="a} b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a} b"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="a} b"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a} b"} 0.5
vllm:num_requests_running_created{engine="0"} 99.0
"""
SGLANG = """sglang:num_running_reqs{model_name="m"} 5.0 1700000000000
sglang:num_queue_reqs{model_name="m"} 1.0
sglang:token_usage{model_name="m"} 0.28
"""


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (VLLM, EngineLoad(5.0, 4.0, 0.5)),
        (SGLANG, EngineLoad(5.0, 1.0, 0.28)),
        ("vllm:num_requests_running 1\n", EngineLoad(1.0, 0.0, 0.0)),
        ("vllm:num_requests_running NaN\nvllm:num_requests_running{\n", None),
        ("up 1\n", None),
        ("", None),
    ],
)
def test_metrics_are_read_as_they_are_documented(text: str, load: EngineLoad | None) -> None:
    """Ranks are added up; what is no load is none."""
    assert load == read_load(text)


class FakeEngine:
    """An engine's metrics, and who has asked for them."""

    def __init__(self) -> None:
        self.text: str | None = VLLM
        self.asked: list[str] = []

    def client(self, name: str) -> httpx2.AsyncClient:
        """Return a client of one router, which reaches this engine and nothing else."""

        def answer(_request: httpx2.Request) -> httpx2.Response:
            self.asked.append(name)
            if self.text is None:
                raise httpx2.ConnectError("gone")
            return httpx2.Response(200, text=self.text)

        return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - there is nothing that could tell of it
            await asyncio.sleep(0.01)


async def end(task: asyncio.Task[None]) -> None:
    """End a task, whatever became of it."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def two_routers(engine: FakeEngine) -> AsyncIterator[dict[str, MeshRuntime]]:
    """Give two routers, each with a poller."""
    network = MemoryNetwork()
    async with contextlib.AsyncExitStack() as stack:
        meshes = {}
        for name in ("a", "b"):
            config = MeshConfig(name=name, gossip=GossipConfig.of("local"))
            transport = network.transport(f"{name}:1")
            mesh = MeshRuntime(config, transport=transport, seeds=["a:1", "b:1"])
            meshes[name] = await stack.enter_async_context(mesh)
        for name, mesh in meshes.items():
            await until(lambda mesh=mesh: len(mesh.members()) == 2)  # type: ignore[misc]
            client = await stack.enter_async_context(engine.client(name))
            workers = {"w1": "http://w1:8000"}
            poller = EnginePoller(mesh, client, workers, model_id="m", interval_s=0.02)
            task = asyncio.create_task(poller.run())
            stack.push_async_callback(end, task)
        yield meshes


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_router_asks_all_know_and_another_takes_over(anyio_backend: str) -> None:
    """Of its load, of its end, of its return; and after the death of who has asked."""
    engine = FakeEngine()
    async with two_routers(engine) as meshes:

        def state(mesh: MeshRuntime) -> tuple[bool, float] | None:
            worker = mesh.sync.get_worker_state("w1")
            return None if worker is None else (worker.health, worker.load)

        async def until_all_know(wanted: tuple[bool, float]) -> None:
            for mesh in meshes.values():
                await until(lambda mesh=mesh: state(mesh) == wanted)  # type: ignore[misc]

        await until_all_know((True, 9.0))
        engine.text = None
        await until_all_know((False, 0.0))
        engine.text = SGLANG
        await until_all_know((True, 6.0))
        [first] = set(engine.asked)
        await meshes.pop(first).abort()
        engine.text = VLLM
        await until_all_know((True, 9.0))
        assert {"a", "b"} == set(engine.asked)


def first_of(network: MiniNetwork, worker_id: str) -> list[str]:
    """Return the nodes that take themselves for the one that asks a worker."""
    return [
        name
        for name, node in network.nodes.items()
        if duty_of(worker_id, name=name, members=node.members()) is Duty.FIRST
    ]


@pytest.mark.parametrize("count", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_when_a_router_dies_another_asks_its_workers_within_a_second(count: int) -> None:
    """In virtual time: each of its workers has one that asks, and that one has looked by then."""
    network, names = MiniNetwork(), [f"n{number}" for number in range(count)]
    for name in names:
        network.start(name)
    network.run(3.0)
    workers = [f"w{number}" for number in range(40)]
    assert all(len(first_of(network, worker)) == 1 for worker in workers)
    dead = "n1"
    orphans = [worker for worker in workers if first_of(network, worker) == [dead]]
    network.kill(dead)
    for name in network.nodes:  # what its system does with the connections of a process
        network.nodes[name].connection_lost(dead + PORT, now=network.now)
        network.pump(name)

    def are_asked() -> bool:
        return all(len(first_of(network, worker)) == 1 for worker in orphans)

    assert orphans
    assert not any(first_of(network, worker) for worker in orphans)
    assert network.run_until(are_asked, limit_s=3.0) + LOOK_S < 1.0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_duties_are_those_of_the_ring_as_members_come_and_go(anyio_backend: str) -> None:
    """And are worked out when the members change, not whenever they are asked for."""
    network, workers = MemoryNetwork(), [f"w{number}" for number in range(20)]

    def made(name: str) -> MeshRuntime:
        config = MeshConfig(name=name, gossip=GossipConfig.of("local"))
        return MeshRuntime(config, transport=network.transport(f"{name}:1"), seeds=["a:1"])

    async with made("a") as mesh:
        await mesh.wait_ready()
        duties = Duties(mesh)
        counts = [duties.change_count(), duties.change_count()]
        assert {Duty.FIRST} == {duties.of(worker) for worker in workers}
        async with made("b"):
            await until(lambda: len(mesh.members()) == 2)
            assert {Duty.FIRST, Duty.SECOND} == {duties.of(worker) for worker in workers}
            for worker in workers:
                wanted = duty_of(worker, name="a", members=mesh.members())
                assert wanted is duties.of(worker)
        await until(lambda: duties.change_count() == 3)
        assert {Duty.FIRST} == {duties.of(worker) for worker in workers}

    assert [1, 1] == counts
    with pytest.raises(StateError):
        duties.of("w1")
