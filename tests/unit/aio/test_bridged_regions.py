"""Two regions that speak TCP inside, with bridges over two servers of NATS and one link between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.bridged_lab import address_of
from support.bridged_lab import regions as lab_regions
from support.real_nats import RealNats, free_port, real_nats
from support.relays import Relay
from support.transports import Eventually

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import (
    BridgedTransport,
    MemoryNetwork,
    NatsConfig,
    NatsTransport,
    Regions,
    TcpTransport,
)
from meshlib.crdt import LWWMap
from meshlib.gossip import MemberDown
from meshlib.membership import MemberStatus

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EACH = 3
BRIDGES = 2
QUICK = NatsConfig(connect_timeout_s=1.0, retry_s=0.1, ping_interval_s=0.5, settle_s=1.5)
LOOKED_S = 6.0


class Watched:
    """Nodes that were started, and whom each of them held for Down."""

    def __init__(self) -> None:
        self.nodes: dict[str, MeshRuntime] = {}
        self.downs: list[tuple[str, str]] = []
        self._listening: list[asyncio.Task[None]] = []

    async def start_one(self, name: str, transport: BridgedTransport, seeds: list[str]) -> None:
        """Start a node of the region that its name begins with."""
        node = MeshRuntime(
            MeshConfig(
                name=name,
                address="replaced:1",
                region=name[0],
                zone=f"{name[0]}-1",
                full_mesh_threshold=1,
            ),
            transport=transport,
            seeds=seeds,
            rng=random.Random(name),
        )
        self.nodes[name] = node
        self._listening.append(asyncio.create_task(self._listen(node)))
        await node.start()

    async def have_met(self) -> None:
        """Return when all are ready, and hold all for alive."""
        for node in self.nodes.values():
            await node.wait_ready()
            await node.wait_until(lambda node=node: self.sees_all(node), timeout_s=30)  # type: ignore[misc]

    async def _listen(self, node: MeshRuntime) -> None:
        async for event in node.events():
            if isinstance(event, MemberDown):
                self.downs.append((node.node.name, event.member.name))

    def sees_all(self, node: MeshRuntime) -> bool:
        """Tell whether a node holds all that live for alive."""
        alive = {m.name for m in node.node.members() if m.status is MemberStatus.ALIVE}
        return alive == set(self.nodes)

    async def end(self) -> None:
        """End the nodes."""
        for task in self._listening:
            task.cancel()
        for node in self.nodes.values():
            await node.abort()


class TwoRegions(Watched):
    """Nodes of two regions, three each with two bridges, and whom they held for Down."""

    def __init__(self, link: Relay, servers: tuple[RealNats, RealNats]) -> None:
        super().__init__()
        self.link = link
        names = [f"{region}{number}" for region in "ab" for number in range(EACH)]
        self._addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
        self._told = Regions(
            {r: [self._addresses[name] for name in names if name[0] == r] for r in "ab"},
            bridges=[self._addresses[name] for name in names if int(name[1]) < BRIDGES],
        )
        self._urls = dict(zip("ab", (server.url for server in servers), strict=True))

    def _transport(self, name: str) -> BridgedTransport:
        address = self._addresses[name]
        between = None
        if self._told.is_bridge(address):
            between = NatsTransport(
                address, servers=[self._urls[name[0]]], token="secret", nats=QUICK
            )
        return BridgedTransport(
            TcpTransport(address, token="secret"),
            region=name[0],
            regions=self._told,
            between=between,
        )

    async def start(self, *names: str) -> None:
        """Start nodes, all at first, and return when all that live have met."""
        for name in names or self._addresses:
            seeds = [self._addresses[known] for known in self.nodes]
            await self.start_one(name, self._transport(name), seeds)
        await self.have_met()

    async def carry_a_write(self, writer: str, value: str, eventually: Eventually) -> None:
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
        await eventually(
            lambda: all(self._has(node, value) for node in self.nodes.values()), timeout_s=20
        )

    @staticmethod
    def _has(node: MeshRuntime, key: str) -> bool:
        replica = node.node.replica
        state = replica.get("app") if "app" in replica.documents() else None
        return isinstance(state, LWWMap) and state.get(key) is not None

    async def kill(self, name: str) -> None:
        """End a node without a word."""
        await self.nodes.pop(name).abort()

    def total(self, count: Callable[[BridgedTransport], int]) -> int:
        """Sum a count of all transports."""
        transports = [node.transport for node in self.nodes.values()]
        return sum(count(one) for one in transports if isinstance(one, BridgedTransport))


@pytest.fixture
async def regions(
    tmp_path: Path, anyio_backend: str, eventually: Eventually
) -> AsyncIterator[TwoRegions]:
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
            made = TwoRegions(link, (hub, leaf))
            try:
                await made.start()
                yield made
            finally:
                await made.end()
    await link.close()


async def test_all_meet_and_what_is_written_crosses_by_the_bridges_alone(
    regions: TwoRegions, eventually: Eventually
) -> None:
    """No node dials one of the other region."""
    for name in regions.nodes:
        await regions.carry_a_write(name, f"of {name}", eventually)

    assert regions.total(lambda one: one.bridging.frames_passed_on) > 0
    assert regions.total(lambda one: one.bridging.frames_dropped_stray) == 0
    assert regions.total(lambda one: one.counters.hellos_refused) == 0
    assert regions.downs == []


async def test_regions_that_are_cut_apart_go_on_and_meet_again(
    regions: TwoRegions, eventually: Eventually
) -> None:
    """Each holds the other for Down, nobody of its own, and all have what either wrote."""
    regions.link.cut()
    pairs = {(one, other) for one in regions.nodes for other in regions.nodes
             if one[0] != other[0]}  # fmt: skip
    await eventually(lambda: set(regions.downs) >= pairs, timeout_s=40)
    held = set(regions.downs)
    regions.link.mend()
    await eventually(lambda: all(map(regions.sees_all, regions.nodes.values())), timeout_s=60)
    await regions.carry_a_write("a2", "from a", eventually)
    await regions.carry_a_write("b2", "from b", eventually)

    assert held == pairs


async def test_a_killed_bridge_is_replaced_and_takes_nobody_with_it(
    regions: TwoRegions, eventually: Eventually
) -> None:
    """One of each region, one after the other; each is Down, and comes back."""
    for killed in ("a0", "b1"):
        await regions.kill(killed)
        await eventually(
            lambda killed=killed: (
                {(name, killed) for name in regions.nodes}  # type: ignore[misc]
                <= set(regions.downs)
            ),
            timeout_s=30,
        )
        await regions.carry_a_write("a2", f"without {killed}", eventually)
        await regions.carry_a_write("b2", f"too without {killed}", eventually)
        await regions.start(killed)
        await regions.carry_a_write(killed, f"{killed} again", eventually)

    assert {down for _, down in regions.downs} == {"a0", "b1"}


@pytest.mark.parametrize(("delay_s", "loss"), [(0.1, 0.0), (0.02, 0.25)], ids=["slow", "lossy"])
async def test_a_slow_or_lossy_link_between_regions_makes_nobody_down(
    regions: TwoRegions, eventually: Eventually, delay_s: float, loss: float
) -> None:
    """A fifth of a second there and back, or every fourth piece late by what TCP takes."""
    regions.link.delay_s, regions.link.loss = delay_s, loss
    for turn, name in enumerate(regions.nodes):
        await regions.carry_a_write(name, f"late {turn}", eventually)
    await asyncio.sleep(LOOKED_S)

    assert regions.downs == []


async def test_a_bridge_without_nats_is_passed_over_and_a_member_as_before(
    regions: TwoRegions, eventually: Eventually
) -> None:
    """It lives and answers inside: nobody is Down for it, on either side."""
    node = regions.nodes["a0"]
    assert isinstance(node.transport, BridgedTransport)
    await node.transport.parts[1].close(drain_s=0)
    for turn, name in enumerate(regions.nodes):
        await regions.carry_a_write(name, f"without {turn}", eventually)
    await asyncio.sleep(LOOKED_S)

    assert regions.downs == []


class SilentLab(Watched):
    """Two regions of three nodes in memory, whose frames are lost without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.between = MemoryNetwork()
        self.inside = {"a": MemoryNetwork(), "b": MemoryNetwork()}

    async def start(self) -> None:
        """Start all, and return when they have met."""
        told = lab_regions()
        for name in (f"{region}{number}" for region in "ab" for number in range(EACH)):
            address = address_of(name)
            transport = BridgedTransport(
                self.inside[name[0]].transport(address),
                region=name[0],
                regions=told,
                between=self.between.transport(address) if told.is_bridge(address) else None,
            )
            await self.start_one(name, transport, [address_of(known) for known in self.nodes])
        await self.have_met()

    def silence(self, name: str) -> None:
        """Lose what goes to a node, and what comes from it."""
        for network in (self.between, self.inside[name[0]]):
            network.partition([address_of(name)])

    def heal(self) -> None:
        """Lose nothing more."""
        for network in (self.between, *self.inside.values()):
            network.heal()

    def first_asked(self, name: str, other: str) -> str:
        """Return the bridge that a node asks first for another node."""
        transport = self.nodes[name].transport
        assert isinstance(transport, BridgedTransport)
        hearing = transport._hearing
        assert hearing is not None
        assert hearing.choice is not None
        return hearing.choice.hops(other[0], address_of(other))[0].bridge


async def test_a_bridge_that_falls_silent_takes_nobody_with_it(
    anyio_backend: str, eventually: Eventually
) -> None:
    """Frozen, it breaks no link: helpers ask by other bridges, and once it is Down so do all."""
    lab = SilentLab()
    try:
        await lab.start()
        pairs = [(f"{one}{i}", f"{two}2") for one, two in ("ab", "ba") for i in range(EACH)]
        before = [lab.first_asked(*pair) for pair in pairs]
        silent = max(("a0", "a1", "b0", "b1"), key=lambda name: before.count(address_of(name)))
        lab.silence(silent)
        others = set(lab.nodes) - {silent}
        await eventually(
            lambda: {(name, silent) for name in others} <= set(lab.downs), timeout_s=30
        )
        after = [lab.first_asked(*pair) for pair in pairs if pair[0] != silent]
        await asyncio.sleep(LOOKED_S / 2)
        held = {down for name, down in lab.downs if name != silent}
        lab.heal()
        await eventually(lambda: all(map(lab.sees_all, lab.nodes.values())), timeout_s=40)
    finally:
        await lab.end()

    assert before.count(address_of(silent)) > 1
    assert address_of(silent) not in after
    assert held == {silent}
