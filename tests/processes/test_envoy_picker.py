"""A real Envoy that asks three pickers before four workers with caches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest
from attrs import frozen
from support.mock_workers import MockWorker
from support.real_envoy import ROOT, envoy_binary, real_envoy
from support.servers import Launcher, Node, eventually
from support.transports import poll_until

EXAMPLE = ROOT / "examples" / "envoy" / "picker.yaml"
STREAMED = ROOT / "examples" / "envoy" / "picker-streamed.yaml"
CONVERSATIONS = 24
TURNS = 5
AT_ONCE = 8

pytestmark = pytest.mark.slow


@frozen
class Picked:
    """Three nodes, and two Envoys: one that asks all of them, and one that asks the first.

    Args:
        nodes: the nodes.
        workers: the ports of the workers.
        all_front: the port of the Envoy that asks all three.
        one_front: of the one that asks the first.
    """

    nodes: list[Node]
    workers: list[int]
    all_front: int
    one_front: int


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Make nodes for the tests of this file, which kill some."""
    made = Launcher(directory=tmp_path_factory.mktemp("picked"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def picked(launcher: Launcher) -> Picked:
    """Three nodes that are ready and know the workers of two models; the ports of two Envoys."""
    envoy_binary()
    ports = launcher.free_ports(12)
    nodes = []
    for number in range(3):
        environment = {"MESH_ENVOY_LISTEN": f"127.0.0.1:{ports[3 + number]}"}
        peers = [port for port in ports[:3] if port != ports[number]]
        node = launcher.node(f"n{number}", port=ports[number], peers=peers, environment=environment)
        node.spawn()
        nodes.append(node)
    for node in nodes:
        node.await_answer()
    for node in nodes:
        eventually(node.is_ready, f"{node.name} is ready")
    workers = ports[6:10]
    policy = {"policy_type": "cache_aware", "config": "{}"}
    for model in ("all", "one"):
        nodes[0].request("PUT", f"/mesh/policies/{model}", policy)
        for port in workers:
            worker = {
                "model_id": model,
                "url": f"http://127.0.0.1:{port}",
                "health": True,
                "load": 0.0,
            }
            nodes[0].request("PUT", f"/mesh/workers/{model}-{port}", worker)
    for node in nodes:
        eventually(partial(_knows_workers, node), f"{node.name} knows the workers")
    return Picked(nodes, workers, ports[10], ports[11])


def _knows_workers(node: Node) -> bool:
    return len(node.get("/mesh/workers")) == 8


@contextlib.contextmanager
def envoy(
    picked: Picked,
    folder: Path,
    launcher: Launcher,
    front: int,
    asked: int,
    example: Path = EXAMPLE,
) -> Iterator[None]:
    """Run an Envoy before the workers that asks so many of the nodes."""
    grpc_ports = [int(n.environment["MESH_ENVOY_LISTEN"].rpartition(":")[2]) for n in picked.nodes]
    admin = launcher.free_ports(1)[0]
    ports = {10000: front, 9901: admin, 8081: grpc_ports[0]}
    ports |= {8001 + at: port for at, port in enumerate(picked.workers)}

    def more(text: str) -> str:
        (line,) = [one for one in text.splitlines() if f"port_value: {grpc_ports[0]}}}" in one]
        others = [
            line.replace(f"port_value: {grpc_ports[0]}}}", f"port_value: {port}}}")
            for port in grpc_ports[1:asked]
        ]
        return text.replace(line, "\n".join([line, *others]))

    with real_envoy(example, folder, ports=ports, admin=admin, edit=more):
        yield


@contextlib.asynccontextmanager
async def workers_on(ports: list[int]) -> AsyncIterator[list[MockWorker]]:
    """Run a worker on each port."""
    async with contextlib.AsyncExitStack() as stack:
        made = [MockWorker() for _ in ports]
        for worker, port in zip(made, ports, strict=True):
            await stack.enter_async_context(worker.listening(port))
        yield made


def turn(conversation: int, number: int) -> str:
    """Return what a conversation is up to a turn: each turn adds some blocks to it."""
    return "".join(f"[{conversation}:{at}]".ljust(256, ".") for at in range(number + 1))


async def converse(client: httpx2.AsyncClient, model: str, *, at_once: int = 1) -> list[int]:
    """Have all conversations, turn by turn, so many at once; return the statuses but 200.

    An answer that breaks off is 0.
    """
    failed = []
    room = asyncio.Semaphore(at_once)

    async def say(conversation: int, number: int) -> None:
        async with room:
            body = {"model": model, "prompt": turn(conversation, number)}
            try:
                answer = await client.post("/v1/completions", json=body)
            except httpx2.RemoteProtocolError:  # it broke off
                failed.append(0)
            else:
                if answer.status_code != 200:
                    failed.append(answer.status_code)

    for number in range(TURNS):
        await asyncio.gather(*(say(one, number) for one in range(CONVERSATIONS)))
    return failed


def client_of(front: int) -> httpx2.AsyncClient:
    """Return a client of an Envoy."""
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{front}", trust_env=False, timeout=20.0)


def test_three_pickers_hit_the_caches_as_one_does(
    picked: Picked, launcher: Launcher, tmp_path: Path
) -> None:
    """What one of them has placed, the others know before the next turn of a conversation."""

    async def hit_rate(front: int, model: str) -> float:
        async with workers_on(picked.workers) as workers, client_of(front) as client:
            assert await converse(client, model) == []
            assert sum(worker.requests for worker in workers) == CONVERSATIONS * TURNS
            assert min(worker.requests for worker in workers) > 0
            return sum(one.hits for one in workers) / sum(one.asked for one in workers)

    with envoy(picked, tmp_path, launcher, picked.all_front, 3):
        of_all = asyncio.run(hit_rate(picked.all_front, "all"))
    with envoy(picked, tmp_path, launcher, picked.one_front, 1):
        of_one = asyncio.run(hit_rate(picked.one_front, "one"))
    most = sum(range(TURNS)) / sum(range(1, TURNS + 1))

    assert of_one > most - 0.05
    assert abs(of_all - of_one) <= 0.01


async def kill_under_load(picked: Picked, client: httpx2.AsyncClient) -> tuple[list[int], int]:
    """Kill the second node with requests under way; return the statuses but 200, and the broken."""
    async with workers_on(picked.workers) as workers:
        talking = asyncio.create_task(converse(client, "all", at_once=AT_ONCE))
        await poll_until(lambda: sum(one.requests for one in workers) > CONVERSATIONS, 60.0)
        await asyncio.to_thread(picked.nodes[1].kill)
        failed = await talking
        # And from then on nobody: the others have its share.
        assert [] == await converse(client, "all", at_once=AT_ONCE)
    return [one for one in failed if one], failed.count(0)


def test_a_picker_that_is_killed_fails_no_request(
    picked: Picked, launcher: Launcher, tmp_path: Path
) -> None:
    """What it had under way goes on to some worker; the others have its share."""

    async def case() -> None:
        async with client_of(picked.all_front) as client:
            assert ([], 0) == await kill_under_load(picked, client)

    with envoy(picked, tmp_path, launcher, picked.all_front, 3):
        asyncio.run(case())


def test_in_full_duplex_only_what_is_under_way_fails_with_its_picker(
    picked: Picked, launcher: Launcher, tmp_path: Path
) -> None:
    """Envoy has kept nothing to go on with: 503, or an answer that breaks off."""
    restart(picked.nodes[1])

    async def case() -> None:
        async with client_of(picked.all_front) as client:
            failed, broken_count = await kill_under_load(picked, client)
            print(f"{len(failed)} and {broken_count} of {AT_ONCE} under way failed")
            assert {503} >= set(failed)
            assert AT_ONCE >= len(failed) + broken_count

    with envoy(picked, tmp_path, launcher, picked.all_front, 3, STREAMED):
        asyncio.run(case())


def test_callers_do_not_choose_and_a_large_body_passes(
    picked: Picked, launcher: Launcher, tmp_path: Path
) -> None:
    """The prompt's worker has it whatever endpoint is named; beyond the buffer it goes by load."""

    async def case() -> None:
        async with workers_on(picked.workers), client_of(picked.all_front) as client:
            body = {"model": "all", "prompt": turn(99, 3)}
            first = (await client.post("/v1/completions", json=body)).json()["port"]
            for port in picked.workers:
                named = {"x-gateway-destination-endpoint": f"127.0.0.1:{port}"}
                answer = await client.post("/v1/completions", json=body, headers=named)
                assert first == answer.json()["port"]
            large = {"model": "all", "user": "x" * 3_000_000, "prompt": "large"}
            for _ in range(3):
                answer = await client.post("/v1/completions", json=large)
                assert 200 == answer.status_code

    with envoy(picked, tmp_path, launcher, picked.all_front, 3):
        asyncio.run(case())


def test_streams_end_well_though_every_picker_is_killed(
    picked: Picked, launcher: Launcher, tmp_path: Path
) -> None:
    """An answer passes while it is made, also through a picker that dies meanwhile."""
    restart(picked.nodes[1])

    async def case() -> None:
        async with workers_on(picked.workers) as workers, client_of(picked.all_front) as client:
            body = {"model": "all", "prompt": "streamed", "stream": True}
            async with contextlib.AsyncExitStack() as stack:
                answers = []
                for _ in range(6):
                    asked = client.stream("POST", "/v1/completions", json=body)
                    answers.append((await stack.enter_async_context(asked)).aiter_bytes())
                assert {b"data: 1\n\n"} == {await anext(answer) for answer in answers}
                for node in picked.nodes:
                    await asyncio.to_thread(node.kill)
                for worker in workers:
                    worker.may_finish.set()
                for answer in answers:
                    assert b"data: 2\n\n" == b"".join([part async for part in answer])
            # Where nobody picks, Envoy's fallback does.
            assert [] == await converse(client, "all", at_once=AT_ONCE)

    with envoy(picked, tmp_path, launcher, picked.all_front, 3):
        asyncio.run(case())


def restart(node: Node) -> None:
    """Have a node there that was killed, unless it is."""
    if node.started.poll() is not None:
        node.start()
    eventually(node.is_ready, f"{node.name} is ready")
    eventually(partial(_knows_workers, node), f"{node.name} knows the workers")
