"""A service that is rolled while its callers go on: none of them notices."""

from __future__ import annotations

import collections
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx2
import pytest
from support.servers import TOKEN, Launcher, Node, eventually

LIMIT = 1_000_000
ROUNDS = 3
PAUSE_S = 0.005
"""Between two rounds of a caller: the nodes share the machine with their callers here."""

ACQUIRE = ("/mesh/rate-limit/acquire", {"key": "global"})
ROUTE = ("/mesh/route/m", {"text": "a prompt that goes somewhere"})


class Callers:
    """Call nodes from threads, and count what they are answered."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._is_over = threading.Event()
        self.faults: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call inside the block: two that follow `/readyz`, and one that looks at nothing."""
        work = [self._follow_readiness, self._follow_readiness, self._look_at_nothing]
        threads = [threading.Thread(target=target) for target in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def _clients(self) -> list[tuple[str, httpx2.Client]]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return [
            (
                node.name,
                httpx2.Client(
                    base_url=f"http://{node.address}", headers=headers, timeout=30.0,
                    trust_env=False, verify=False,
                ),
            )
            for node in self._nodes
        ]  # fmt: skip

    def _follow_readiness(self) -> None:
        """Call a node only right after it has said that it is ready, over kept connections."""
        clients = self._clients()
        while not self._is_over.wait(PAUSE_S):
            for name, client in clients:
                try:
                    if client.get("/readyz").status_code != 200:
                        continue
                    self._acquire(name, client)
                    answer = client.post(ROUTE[0], json=ROUTE[1])
                    self._count(answer.status_code == 200, f"route at {name}", answer)
                except httpx2.ConnectError:
                    continue  # nobody listens there now
                except httpx2.TransportError as error:
                    self.faults[f"{type(error).__name__} at {name}: {error}"] += 1
        for _, client in clients:
            client.close()

    def _look_at_nothing(self) -> None:
        """Call whoever listens: it may refuse, and never admit without a limit."""
        clients = self._clients()
        while not self._is_over.wait(PAUSE_S):
            for name, client in clients:
                try:
                    self._acquire(f"{name} in haste", client, may_refuse=True)
                except httpx2.TransportError:
                    continue  # it goes on calling one that has said that it ends
        for _, client in clients:
            client.close()

    def _acquire(self, name: str, client: httpx2.Client, *, may_refuse: bool = False) -> None:
        answer = client.post(ACQUIRE[0], json=ACQUIRE[1])
        if answer.status_code in {200, 429}:
            is_well = answer.json()["limit"] == LIMIT
        else:
            is_well = may_refuse and answer.status_code == 503
        self._count(is_well, f"acquire at {name}", answer)

    def _count(self, is_well: bool, what: str, answer: httpx2.Response) -> None:
        self.answered[what] += 1
        if not is_well:
            self.faults[f"{what}: {answer.status_code} {answer.text}"] += 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_callers_notice_nothing_of_a_roll(own_launcher: Launcher) -> None:
    """Three nodes, one after the other, each awaited by its `/readyz`."""
    ports = own_launcher.free_ports(3)
    nodes = [
        own_launcher.node(
            f"n{index}",
            port=port,
            peers=[other for other in ports if other != port],
            environment={"MESH_HTTP_GRACE_S": "1"},
        )
        for index, port in enumerate(ports)
    ]
    for node in nodes:
        node.spawn()
    for node in nodes:
        node.await_answer()
        eventually(node.is_ready, f"{node.name} is ready")
    nodes[0].request("POST", "/mesh/rate-limit", {"limit_per_second": LIMIT})
    worker = {"model_id": "m", "url": "http://w", "health": True, "load": 0.0}
    nodes[0].request("PUT", "/mesh/workers/w", worker)
    for node in nodes:
        eventually(
            partial(lambda n: n.client.get("/mesh/workers/w").is_success, node), "it is there"
        )
        eventually(partial(lambda n: n.client.get("/mesh/rate-limit").is_success, node), "likewise")

    callers = Callers(nodes)
    with callers.calling():
        for _ in range(ROUNDS):
            for node in nodes:
                node.started.send_signal(signal.SIGTERM)
                assert node.started.wait(30) == 0
                node.start()
                eventually(node.is_ready, f"{node.name} is ready")

    assert callers.faults == {}
    assert len(callers.answered) == 9
