"""Starts under a name server that lists what there is, and nothing else: as Kubernetes has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import attrs
import pytest
from support.servers import Launcher, Node, eventually

from meshlib import DnsSeeds, GossipConfig, MemoryNetwork, MeshConfig, MeshRuntime

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
PORT = 8000


class World:
    """Pods that come and go, and the name that lists those that run, ready or not."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.running: dict[str, MeshRuntime] = {}

    async def look_up(self, _host: str, _port: int) -> Sequence[str]:
        """Answer as a name server does: an unknown name, while nothing runs, is an error."""
        if not self.running:
            raise OSError("no such name")
        return list(self.running)

    async def start(self, address: str, *, expect: int = 1) -> MeshRuntime:
        """Start one pod; its name is in the list from then on."""
        timing = attrs.evolve(
            GossipConfig.of("local"), bootstrap_after_s=0.3, bootstrap_expect=expect
        )
        mesh = MeshRuntime(
            MeshConfig(name=f"pod-{address[-1]}", gossip=timing),
            transport=self.network.transport(f"{address}:{PORT}"),
            seeds=DnsSeeds([f"nodes:{PORT}"], resolver=self.look_up),
            seeds_refresh_s=0.2,
        )
        self.running[address] = mesh
        await mesh.start()
        return mesh

    async def stop_all(self) -> None:
        """End every pod without a goodbye, as a power cut does."""
        for mesh in self.running.values():
            await mesh.abort()
        self.running.clear()


def sees(mesh: MeshRuntime, count: int) -> bool:
    """Tell whether a node has so many members in reach, itself included."""
    return count == sum(member.is_reachable for member in mesh.members())


async def ready_together(nodes: Sequence[MeshRuntime]) -> None:
    """Wait until each is ready and sees all."""
    async with asyncio.timeout(30):
        for mesh in nodes:
            await mesh.wait_ready(None)
            await mesh.wait_until(partial(sees, mesh, len(nodes)))


def test_three_that_start_at_once_are_one_cluster() -> None:
    """Each finds the others though none is ready."""

    async def run() -> None:
        world = World()
        nodes = [await world.start(address) for address in ADDRESSES]
        await ready_together(nodes)
        await world.stop_all()

    anyio.run(run)


def test_one_that_starts_alone_begins_and_takes_in_those_that_come() -> None:
    """In an ordered set the first would have to: nobody else is there yet."""

    async def run() -> None:
        world = World()
        first = await world.start(ADDRESSES[0])
        await ready_together([first])
        first.sync.set_config("written", b"before")
        others = [await world.start(address) for address in ADDRESSES[1:]]
        await ready_together([first, *others])
        assert [b"before"] * 2 == [mesh.sync.get_config("written") for mesh in others]
        await world.stop_all()

    anyio.run(run)


def test_all_that_are_restarted_at_once_are_one_cluster_again() -> None:
    """The list is empty for a moment, and whoever asks then asks again."""

    async def run() -> None:
        world = World()
        await ready_together([await world.start(address) for address in ADDRESSES])
        await world.stop_all()
        await ready_together([await world.start(address) for address in reversed(ADDRESSES)])
        await world.stop_all()

    anyio.run(run)


def test_one_that_expects_others_does_not_begin_without_them() -> None:
    """A pod with a wrong network is not ready, instead of being a cluster of its own."""

    async def run() -> None:
        world = World()
        first = await world.start(ADDRESSES[0], expect=2)
        await asyncio.sleep(1.0)
        assert not first.is_ready
        second = await world.start(ADDRESSES[1], expect=2)
        await ready_together([first, second])
        await world.stop_all()

    anyio.run(run)


@pytest.mark.slow
def test_processes_find_each_other_by_a_file_and_by_a_name(
    own_launcher: Launcher, tmp_path: Path
) -> None:
    """Neither knows of the other at its start: a file is written later, a name is looked up."""
    known = tmp_path / "peers"
    refresh = {"MESH_DISCOVERY_REFRESH_S": "0.2"}
    first = own_launcher.node("one", environment={**refresh, "MESH_DISCOVERY_FILE": str(known)})
    second = own_launcher.node("two", environment=refresh)
    named = f"localhost:{second.port}"
    third = own_launcher.node("three", environment={**refresh, "MESH_DISCOVERY_DNS_NAMES": named})
    for node in (first, second, third):
        node.start()

    known.write_text(f"127.0.0.1:{second.port}\n")

    def sees_all(node: Node) -> bool:
        return set(node.statuses()) == {"one", "two", "three"}

    for node in (first, second, third):
        eventually(partial(sees_all, node), f"{node.name} sees all")
