"""Whole nodes over real servers of NATS that end, freeze, restart and are slow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve
from support.real_nats import RealNats, free_port, real_nats
from support.transports import Eventually, Recorder

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import LinkFault, NatsConfig, NatsTransport
from meshlib.crdt import LWWMap
from meshlib.errors import NotReadyError
from meshlib.gossip import GossipConfig, MemberDown
from meshlib.membership import MemberStatus

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

QUICK = NatsConfig(connect_timeout_s=1.0, retry_s=0.1, ping_interval_s=0.2, settle_s=1.5)
SUSPICION_S = 5.0
"""Well over what the profile of one machine waits before it takes a suspect for Down."""


class Cluster:
    """Three nodes, and what each has told of members that are Down."""

    def __init__(self) -> None:
        self.nodes: list[MeshRuntime] = []
        self.downs: list[tuple[str, str]] = []
        self.listening: list[asyncio.Task[None]] = []

    async def start(self, *servers: RealNats) -> None:
        """Start a node for each server, and return when all have met."""
        for number, server in enumerate(servers):
            name = f"n{number}"
            node = MeshRuntime(
                MeshConfig(name=name, address="replaced:1", gossip=GossipConfig.local()),
                transport=NatsTransport(f"{name}:7000", servers=[server.url], nats=QUICK),
                seeds=["n0:7000"],
                rng=random.Random(name),
            )
            self.nodes.append(node)
            self.listening.append(asyncio.create_task(self._listen(node)))
            await node.start()
        for node in self.nodes:
            await node.wait_ready()
            await node.wait_until(partial(self._has_met, node, len(servers)), timeout_s=10)

    @staticmethod
    def _has_met(node: MeshRuntime, count: int) -> bool:
        return len(node.node.members()) == count

    async def _listen(self, node: MeshRuntime) -> None:
        async for event in node.events():
            if isinstance(event, MemberDown):
                self.downs.append((node.node.name, event.member.name))

    def transports(self) -> list[NatsTransport]:
        """Return what carries the frames of each."""
        return [node.transport for node in self.nodes if isinstance(node.transport, NatsTransport)]

    async def exchange_a_write(self, writer: int, reader: int) -> None:
        """Write at one node, and return when another one has it."""
        replica, value = self.nodes[writer].node.replica, f"from {writer}"
        replica.open("app", type_tag="lww_map")
        is_written = False
        while not is_written:
            try:
                replica.write(
                    "app",
                    lambda state, context: state.set(
                        "key", value, stamp=context.stamp(), sequence=context.sequence
                    ),
                )
                is_written = True
            except NotReadyError as early:  # a node that was just met has not told its clock yet
                await asyncio.sleep(early.retry_after_s or 0.1)
        self.nodes[writer].wake()
        await self.nodes[reader].wait_until(
            lambda: self._read(self.nodes[reader]) == value, timeout_s=20
        )

    @staticmethod
    def _read(node: MeshRuntime) -> object:
        replica = node.node.replica
        state = replica.get("app") if "app" in replica.documents() else None
        return state.get("key") if isinstance(state, LWWMap) else None

    def statuses(self, of: MeshRuntime) -> set[MemberStatus]:
        """Return what a node holds of all."""
        return {member.status for member in of.node.members()}


@pytest.fixture
async def cluster(anyio_backend: str) -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    for task in cluster.listening:
        task.cancel()
    for node in cluster.nodes:
        await node.abort()


async def test_nobody_is_down_when_nats_is(
    cluster: Cluster, tmp_path: Path, eventually: Eventually
) -> None:
    """The server ends for longer than a suspicion lasts, and comes back; all go on as they were."""
    with real_nats(tmp_path) as server:
        await cluster.start(server, server, server)
        server.kill()
        await eventually(lambda: not any(n.is_up for n in cluster.transports()))
        await asyncio.sleep(SUSPICION_S)
        during = [cluster.statuses(node) for node in cluster.nodes]

        server.start()
        await cluster.exchange_a_write(0, 2)

        assert [{MemberStatus.ALIVE}] * 3 == during
        assert ([], [{MemberStatus.ALIVE}] * 3) == (
            cluster.downs, [cluster.statuses(node) for node in cluster.nodes]
        )  # fmt: skip


async def test_nobody_is_down_when_nats_is_frozen(
    cluster: Cluster, tmp_path: Path, eventually: Eventually
) -> None:
    """A server that takes connections and says nothing is as good as none."""
    with real_nats(tmp_path) as server:
        await cluster.start(server, server, server)
        server.freeze()
        await eventually(lambda: not any(n.is_up for n in cluster.transports()))
        await asyncio.sleep(SUSPICION_S)
        server.thaw()
        await cluster.exchange_a_write(1, 2)

        assert [] == cluster.downs


async def test_a_node_that_does_not_answer_is_down(
    cluster: Cluster, tmp_path: Path, eventually: Eventually
) -> None:
    """NATS is there, and the node is not."""
    with real_nats(tmp_path) as server:
        await cluster.start(server, server, server)
        await cluster.nodes[2].abort()
        await eventually(lambda: cluster.downs)

        assert {"n2"} == {down for _, down in cluster.downs}


async def test_a_node_is_down_whose_way_to_nats_is_cut_and_it_accuses_nobody(
    cluster: Cluster, tmp_path: Path, eventually: Eventually
) -> None:
    """Of a server that is joined to another by a leaf only its own nodes are cut off."""
    leaf_port = free_port()
    hub_config = [f"leafnodes {{ listen: 127.0.0.1:{leaf_port} }}"]
    with real_nats(tmp_path / "hub", config=hub_config) as hub:
        remote = f'leafnodes {{ remotes: [{{url: "nats://127.0.0.1:{leaf_port}"}}], '
        leaf_config = [remote + 'reconnect: "100ms" }']
        with real_nats(tmp_path / "leaf", config=leaf_config) as leaf:
            await eventually(lambda: "Leafnode connection created" in leaf.log())
            await cluster.start(hub, hub, leaf)
            leaf.kill()
            first = cluster.nodes[0]
            await eventually(lambda: ("n0", "n2") in cluster.downs)
            assert ({"n2"}, {MemberStatus.ALIVE}) == (
                {down for _, down in cluster.downs}, cluster.statuses(cluster.nodes[2])
            )  # fmt: skip

            leaf.start()
            await eventually(lambda: {MemberStatus.ALIVE} == cluster.statuses(first))
            await cluster.exchange_a_write(0, 2)


def has_heard(heard: Recorder, frame: bytes) -> bool:
    """Tell whether a frame came."""
    return frame in heard.frames


def is_told_up(heard: Recorder, count: int) -> bool:
    """Tell whether NATS was told to be back so often."""
    return heard.carrier.count(True) == count


async def test_links_end_with_the_connection_and_begin_anew(
    anyio_backend: str, tmp_path: Path, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A transport carries frames again after any number of restarts, and tells of each once."""
    with real_nats(tmp_path) as server:
        quick = evolve(QUICK, settle_s=0.0)
        one, other = (NatsTransport(f"{n}:1", servers=[server.url], nats=quick) for n in "ab")
        heard, heard_by_other = new_recorder(), new_recorder()
        await one.start(heard)
        await other.start(heard_by_other)
        for frame in (b"0", b"1", b"2"):
            await eventually(partial(one.send, "b:1", frame))
            await eventually(partial(has_heard, heard_by_other, frame))
            server.kill()
            await eventually(lambda: not (one.is_up or other.is_up))
            server.start()
            await eventually(partial(is_told_up, heard, int(frame) + 1))
            await eventually(lambda: other.is_up)
        await one.close(drain_s=0)
        await other.close(drain_s=0)

    assert [False, True] * 3 == heard.carrier
    assert {LinkFault.CARRIER} >= {f.fault for f in heard.failures if f is not None}


async def test_a_second_server_takes_over(
    anyio_backend: str, tmp_path: Path, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Of two that are one cluster of NATS, one may end."""
    with real_nats(tmp_path / "x") as x, real_nats(tmp_path / "y") as y:
        urls = [x.url, y.url]
        one = NatsTransport("a:1", servers=urls, nats=QUICK)
        await one.start(new_recorder())
        for server in (x, y):
            server.kill()
            await eventually(lambda: one.is_up)
            server.start()
        await one.close(drain_s=0)


async def test_a_slow_consumer_is_waited_for_and_never_cut_off(
    anyio_backend: str, tmp_path: Path, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Though NATS would cut off who has two megabytes waiting: no link sends beyond its window."""
    with real_nats(tmp_path, config=["max_pending: 2MB"]) as server:
        one, other = (NatsTransport(f"{n}:1", servers=[server.url], nats=QUICK) for n in "ab")
        heard = new_recorder()
        await one.start(new_recorder())
        await other.start(heard)
        heard.room.clear()
        for number in range(80):
            one.send("b:1", number.to_bytes(2) + b"x" * 100_000)
        await eventually(lambda: heard.frames)
        await asyncio.sleep(0.5)
        held_at = len(heard.frames)
        heard.room.set()
        await eventually(lambda: len(heard.frames) == 80)
        await one.close(drain_s=0)
        await other.close(drain_s=0)
        log = server.log()

    assert held_at < 5
    assert list(range(80)) == [int.from_bytes(frame[:2]) for frame in heard.frames]
    assert "Slow Consumer" not in log
