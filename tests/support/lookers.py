"""Three nodes in this process whose links break one way, and a server that shows one of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import attrs
from attrs import define, field

from meshlib import GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.aio import MemoryTransport
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.dashboard import tell_unheard
from meshlib_server.http import HttpServer, HttpSettings
from meshlib_server.service import Service

TIMING = attrs.evolve(GossipConfig.of("local"), bootstrap_after_s=0.3, exchange_interval_s=0.1)


@define
class Lab:
    """Three nodes that are ready and hear each other.

    Args:
        broken: pairs of addresses: what the first sends to the second is lost.
    """

    broken: set[tuple[str, str]] = field(factory=set)
    nodes: list[MeshRuntime] = field(factory=list)
    _tasks: list[asyncio.Task[None]] = field(factory=list)

    @property
    def limit_s(self) -> float:
        """After how long a silence somebody counts as not heard."""
        return 10 * TIMING.exchange_interval_s * 1.5

    def _transport(self, network: MemoryNetwork, address: str) -> MemoryTransport:
        broken = self.broken

        class Breaking(MemoryTransport):
            def send(self, target: str, data: bytes) -> bool:
                return (self.address, target) in broken or super().send(target, data)

        made = network.transport(address)
        made.__class__ = Breaking
        return made

    async def __aenter__(self) -> Self:
        network = MemoryNetwork()
        self.nodes = [
            MeshRuntime(
                MeshConfig(name=name, gossip=TIMING),
                transport=self._transport(network, f"{name}:1"),
                seeds=["a:1", "b:1", "c:1"],
            )
            for name in "abc"
        ]
        for mesh in self.nodes:
            await mesh.start()
        for mesh in self.nodes:
            await mesh.wait_ready(20)
        self._tasks = [asyncio.create_task(tell_unheard(mesh)) for mesh in self.nodes]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        for task in self._tasks:
            task.cancel()
        for mesh in self.nodes:
            await mesh.abort()


@contextmanager
def shown(lab: Lab) -> Iterator[str]:
    """Run a laboratory in a thread of its own, and serve its last node; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    is_over = threading.Event()

    async def run() -> None:
        async with lab:
            service = Service(lab.nodes[2], shut_down=lambda: None)
            secrets = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)
            app = build_app(service, secrets=secrets)
            server = HttpServer(app, settings=HttpSettings(), connections_max=100)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not is_over.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.05)
            service.is_draining = True
            server.should_exit = True
            await serving

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield address
    finally:
        is_over.set()
        thread.join(30)
