"""Three nodes, three real Envoys before them, and one limit for all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import pytest
from attrs import define, field
from support.paced import Paced, two_letters
from support.real_envoy import ROOT, envoy_binary, real_envoy
from support.servers import Launcher, Node, eventually

EXAMPLE = ROOT / "examples" / "envoy" / "limits.yaml"
BUSY, CALM = "busy", "calm"

pytestmark = pytest.mark.slow


@define
class Fronts:
    """Nodes, an Envoy beside each that asks all of them, and what is offered there.

    Args:
        limit: a second, of each API key.
        nodes: the nodes, by name.
        ports: where each Envoy listens.
        worker: where the worker that they share has to listen.
        loads: what is offered, once it is.
    """

    limit: int
    nodes: dict[str, Node]
    ports: list[int]
    worker: int
    loads: list[Paced] = field(factory=list)

    def living(self) -> list[Node]:
        """Return the nodes that run."""
        return [node for node in self.nodes.values() if node.started.poll() is None]

    def used(self, node: Node, key: str) -> int:
        """Return what a node says is used of a key in this second; -1 when it knows no limit."""
        path = f"/mesh/rate-limit/stats?key={self.limit}/second:llm/api_key={key}"
        answer = node.client.get(path)
        return int(answer.json()["current_count"]) if answer.status_code == 200 else -1

    def seen(self, key: str) -> Counter[tuple[int, int, int]]:
        """Return the answers of a key at all Envoys."""
        return sum((load.seen for load in self.loads if load.key == key), Counter())

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be able to offer inside the block, once all nodes have met both keys."""
        rates = {BUSY: self.limit, CALM: self.limit / 9}
        self.loads = [Paced(port, key, rates[key]) for port in self.ports for key in rates]
        async with two_letters(self.worker):
            try:
                for load in self.loads:
                    await load.open()
                for key in rates:
                    await self.agree(key)
                for load in self.loads:
                    load.seen.clear()
                yield
            finally:
                await asyncio.gather(*(load.close() for load in self.loads))

    async def offer(self, during: Awaitable[None]) -> tuple[int, int]:
        """Offer thrice the limit under one key and a third under another until something is done.

        Returns:
            The first whole second of it, and the one after the last.
        """
        begins = int(time.time()) + 1
        ended = asyncio.Event()
        tasks = [asyncio.create_task(load.offer(begins=begins, until=ended)) for load in self.loads]
        await asyncio.sleep(begins - time.time())
        await during
        ended.set()
        ends = int(time.time())
        await asyncio.gather(*tasks)
        return begins, ends

    async def agree(self, key: str) -> None:
        """Ask for some until the counts of all nodes are what passed, within one second."""
        loads = [load for load in self.loads if load.key == key]
        deadline = time.monotonic() + 30
        counts: list[int] = []
        while True:
            await asyncio.sleep(1.0 - time.time() % 1.0)
            second = int(time.time())
            await asyncio.gather(*(load.burst(7) for load in loads))
            passed = self.seen(key)[second, second, 200]
            while int(time.time()) == second:
                counts = [await asyncio.to_thread(self.used, node, key) for node in self.living()]
                if {passed} == set(counts) == {21}:
                    return
            assert time.monotonic() < deadline, counts


@contextlib.contextmanager
def three(launcher: Launcher, folder: Path, *, limit: int, timeout: str) -> Iterator[Fronts]:
    """Run three nodes and three Envoys inside the block."""
    envoy_binary()
    rules = folder / "rules.yaml"
    rules.write_text(
        "domain: llm\ndescriptors: "
        f"[{{key: api_key, rate_limit: {{unit: second, requests_per_unit: {limit}}}}}]\n"
    )
    ports = launcher.free_ports(13)
    http, grpc, fronts, admins, worker = ports[:3], ports[3:6], ports[6:9], ports[9:12], ports[12]
    nodes = {}
    for number, (port, grpc_port) in enumerate(zip(http, grpc, strict=True)):
        environment = {
            "MESH_ENVOY_LISTEN": f"127.0.0.1:{grpc_port}",
            "MESH_ENVOY_RULES": str(rules),
        }
        peers = [other for other in http if other != port]
        node = launcher.node(f"n{number}", port=port, peers=peers, environment=environment)
        node.spawn()
        nodes[node.name] = node
    for node in nodes.values():
        node.await_answer()
        eventually(node.is_ready, f"{node.name} is ready")
    eventually(
        lambda: all(list(one.statuses().values()) == ["Alive"] * 3 for one in nodes.values()),
        "all see all",
    )

    def edit(text: str) -> str:
        (line,) = [one for one in text.splitlines() if f"port_value: {grpc[0]}}}" in one]
        every = [line.replace(f"{grpc[0]}}}", f"{port}}}") for port in grpc]
        text = text.replace(line, "\n".join(every)).replace("timeout: 0.1s", f"timeout: {timeout}")
        return text.replace("failure_mode_deny: false", "failure_mode_deny: true")

    with contextlib.ExitStack() as stack:
        for front, admin in zip(fronts, admins, strict=True):
            named = {10000: front, 9901: admin, 8081: grpc[0], 8001: worker}
            stack.enter_context(real_envoy(EXAMPLE, folder, ports=named, admin=admin, edit=edit))
        yield Fronts(limit, nodes, fronts, worker)


def admitted(seen: Counter[tuple[int, int, int]], second: int) -> tuple[int, int]:
    """Return what passed in a second for certain, and what may have passed in it at most.

    A request was decided between the second in which it was asked and that of its answer.
    """
    may = sum(
        count
        for (asked, told, status), count in seen.items()
        if status == 200 and asked <= second <= told
    )
    return seen[second, second, 200], may


def whole(seen: Counter[tuple[int, int, int]], limit: int) -> list[int]:
    """Return the seconds in which thrice the limit was asked and answered.

    In others the machine had something else to do: what a node holds that does not run, nobody
    else may admit in that second.
    """
    answered: Counter[int] = Counter()
    for (asked, told, _), count in seen.items():
        answered[asked] += count if asked == told else 0
    return [second for second, count in answered.items() if count >= 0.95 * 3 * limit]


def show(fronts: Fronts, begins: int, ends: int) -> None:
    """Print what became of each second."""
    for key in (BUSY, CALM):
        seen = fronts.seen(key)
        for second in range(begins, ends):
            told: Counter[int] = Counter()
            for (_, answered_in, status), count in seen.items():
                told[status] += count if answered_in == second else 0
            print(f"{key} {second - begins:2}: {dict(sorted((+told).items()))}")
    print(f"not sent, for the machine was behind: {sum(load.unsent for load in fronts.loads)}")


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        (60, 3),
        pytest.param(300, 10, marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
def test_one_limit_holds_over_three_envoys(
    own_launcher: Launcher, tmp_path: Path, limit: int, seconds: int
) -> None:
    """Thrice a limit is admitted up to it in each second, a third of it passes whole."""

    async def watch(fronts: Fronts) -> None:
        deadline = time.monotonic() + 20 * seconds
        await asyncio.sleep(seconds)
        while len(whole(fronts.seen(BUSY), limit)) < seconds:
            assert time.monotonic() < deadline, "the machine never kept up"
            await asyncio.sleep(0.25)

    async def case(fronts: Fronts) -> tuple[int, int]:
        async with fronts.open():
            found = await fronts.offer(watch(fronts))
            await fronts.agree(CALM)
            return found

    # Envoys wait for as long as it takes: what a busy machine is late with is no refusal.
    with three(own_launcher, tmp_path, limit=limit, timeout="10s") as fronts:
        begins, ends = asyncio.run(case(fronts))
    show(fronts, begins, ends)
    busy, calm = fronts.seen(BUSY), fronts.seen(CALM)

    assert {200} == {status for _, _, status in calm}
    assert {200, 429} == {status for _, _, status in busy}
    assert all(admitted(busy, second)[0] <= limit for second in range(begins, ends + 2))
    assert all(admitted(busy, second)[1] >= 0.99 * limit for second in whole(busy, limit))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["n0", "n1", "n2"])
def test_a_killed_node_lets_nothing_pass_beyond_the_limit(
    own_launcher: Launcher, tmp_path: Path, victim: str
) -> None:
    """Not until it is Down and one window more, nor afterwards; what is lost is printed."""
    limit = 300
    times: list[float] = []

    async def kill(fronts: Fronts) -> None:
        await asyncio.sleep(3)
        await asyncio.to_thread(fronts.nodes[victim].kill)
        times.append(time.time())

        def are_sure() -> bool:
            return all(one.statuses()[victim] == "Down" for one in fronts.living())

        await asyncio.to_thread(eventually, are_sure, f"{victim} is Down")
        times.append(time.time())
        deadline = time.monotonic() + 60
        await asyncio.sleep(2.0)  # one window more at least
        while admitted(fronts.seen(BUSY), int(time.time()) - 1)[0] < 0.99 * limit:
            assert time.monotonic() < deadline, "what is left admits the limit again"
            await asyncio.sleep(0.1)

    async def case(fronts: Fronts) -> tuple[int, int]:
        async with fronts.open():
            found = await fronts.offer(kill(fronts))
            await fronts.agree(CALM)
            return found

    with three(own_launcher, tmp_path, limit=limit, timeout="1s") as fronts:
        begins, ends = asyncio.run(case(fronts))
    show(fronts, begins, ends)
    busy = fronts.seen(BUSY)
    killed, down = (int(one) for one in times)
    lost = {at - begins: limit - admitted(busy, at)[1] for at in range(killed, ends)}
    print(f"killed in second {killed - begins}, Down in {down - begins}; lost: {lost}")

    assert all(admitted(busy, second)[0] <= limit for second in range(begins, ends + 2))
