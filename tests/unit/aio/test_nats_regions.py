"""Two regions, each with a server of NATS of its own, joined by a leaf node over one link."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.real_nats import RealNats, free_port, real_nats
from support.relays import Relay
from support.transports import Eventually

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import NatsConfig, NatsTransport
from meshlib.crdt import LWWMap
from meshlib.gossip import MemberDown
from meshlib.membership import MemberStatus

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EACH = 2
QUICK = NatsConfig(connect_timeout_s=1.0, retry_s=0.1, ping_interval_s=0.5, settle_s=1.5)
LOOKED_S = 6.0


class Regions:
    """Nodes of two regions, the link between them, and whom they held for Down."""

    def __init__(self, link: Relay) -> None:
        self.link = link
        self.nodes: list[MeshRuntime] = []
        self.downs: list[tuple[str, str]] = []
        self.listening: list[asyncio.Task[None]] = []

    async def start(self, *servers: RealNats) -> None:
        """Start the nodes of a region at each server, and return when all have met."""
        for region, server in zip("ab", servers, strict=True):
            for number in range(EACH):
                name = f"{region}{number}"
                node = MeshRuntime(
                    MeshConfig(
                        name=name,
                        address="replaced:1",
                        region=region,
                        zone=f"{region}-1",
                        full_mesh_threshold=1,
                    ),
                    transport=NatsTransport(f"{name}:7000", servers=[server.url], nats=QUICK),
                    seeds=["a0:7000"],
                    rng=random.Random(name),
                )
                self.nodes.append(node)
                self.listening.append(asyncio.create_task(self._listen(node)))
                await node.start()
        for node in self.nodes:
            await node.wait_ready()
        for node in self.nodes:
            await node.wait_until(lambda node=node: self.sees_all(node), timeout_s=20)  # type: ignore[misc]

    async def _listen(self, node: MeshRuntime) -> None:
        async for event in node.events():
            if isinstance(event, MemberDown):
                self.downs.append((node.node.name, event.member.name))

    def sees_all(self, node: MeshRuntime) -> bool:
        """Tell whether a node holds all for alive."""
        alive = [m for m in node.node.members() if m.status is MemberStatus.ALIVE]
        return len(alive) == 2 * EACH

    async def carry_a_write(self, writer: int, value: str, eventually: Eventually) -> None:
        """Write at one node, and return when all have it."""
        replica = self.nodes[writer].node.replica
        replica.open("app", type_tag="lww_map")
        replica.write(
            "app",
            lambda state, context: state.set(
                value, value, stamp=context.stamp(), sequence=context.sequence
            ),
        )
        self.nodes[writer].wake()
        await eventually(lambda: all(self._has(node, value) for node in self.nodes), timeout_s=20)

    @staticmethod
    def _has(node: MeshRuntime, key: str) -> bool:
        replica = node.node.replica
        state = replica.get("app") if "app" in replica.documents() else None
        return isinstance(state, LWWMap) and state.get(key) is not None

    async def end(self) -> None:
        """End the nodes."""
        for task in self.listening:
            task.cancel()
        for node in self.nodes:
            await node.abort()


@pytest.fixture
async def regions(
    tmp_path: Path, anyio_backend: str, eventually: Eventually
) -> AsyncIterator[Regions]:
    leaf_port = free_port()
    # Told of the hub's own port, the leaf would go round a link that is cut.
    hub_config = [f"leafnodes {{ listen: 127.0.0.1:{leaf_port}, no_advertise: true }}"]
    link = Relay(leaf_port)
    await link.start()
    with real_nats(tmp_path / "hub", config=hub_config) as hub:
        remote = f'leafnodes {{ remotes: [{{url: "nats://127.0.0.1:{link.port}"}}], '
        leaf_config = [remote + 'reconnect: "100ms" }']
        with real_nats(tmp_path / "leaf", config=leaf_config) as leaf:
            await eventually(lambda: "Leafnode connection created" in leaf.log())
            made = Regions(link)
            try:
                await made.start(hub, leaf)
                yield made
            finally:
                await made.end()
    await link.close()


async def test_regions_that_are_cut_apart_go_on_and_meet_again(
    regions: Regions, eventually: Eventually
) -> None:
    """Each holds the other for Down, nobody of its own, and all have what either wrote."""
    regions.link.cut()
    pairs = {(f"{one}{i}", f"{other}{j}") for one, other in ("ab", "ba")
             for i in range(EACH) for j in range(EACH)}  # fmt: skip
    await eventually(lambda: set(regions.downs) >= pairs, timeout_s=30)
    held = set(regions.downs)
    regions.link.mend()
    await eventually(lambda: all(map(regions.sees_all, regions.nodes)), timeout_s=40)
    await regions.carry_a_write(0, "from a", eventually)
    await regions.carry_a_write(-1, "from b", eventually)

    assert held == pairs


async def test_a_slow_link_between_regions_makes_nobody_down(
    regions: Regions, eventually: Eventually
) -> None:
    """A fifth of a second there and back."""
    regions.link.delay_s = 0.1
    for turn in range(5):
        await regions.carry_a_write(turn % len(regions.nodes), f"slow {turn}", eventually)
    await asyncio.sleep(LOOKED_S)

    assert regions.downs == []


async def test_a_lossy_link_between_regions_makes_nobody_down(
    regions: Regions, eventually: Eventually
) -> None:
    """Every fourth piece is late by what TCP takes to send it again."""
    regions.link.delay_s, regions.link.loss = 0.02, 0.25
    for turn in range(5):
        await regions.carry_a_write(turn % len(regions.nodes), f"lossy {turn}", eventually)
    await asyncio.sleep(LOOKED_S)

    assert regions.downs == []


async def test_entries_cross_between_regions_by_bridges_alone(regions: Regions) -> None:
    """Two links at most, of the four that there could be."""
    crossing = [
        (node.node.name, target)
        for node in regions.nodes
        for target in node.node._engine._parts.view.push_targets()
        if target[0] != node.node.name[0]
    ]

    assert sorted(crossing) == sorted((target, name) for name, target in crossing)
    assert len(crossing) in (2, 4)
