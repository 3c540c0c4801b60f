"""Regions in memory: a network inside of each, and one between that only bridges are on."""

from __future__ import annotations

import random
from collections.abc import Collection

from attrs import define, field

from meshlib.aio import BridgedTransport, MemoryNetwork, MemoryTransport, Regions
from support.transports import Recorder

__all__ = ["BRIDGES", "BridgedLab", "address_of", "regions"]

BRIDGES = ("a0", "a1", "b0", "b1")


def address_of(name: str) -> str:
    """Return the address of a node."""
    return f"{name}.{name[0]}.example:7000"


def regions(bridges: Collection[str] = BRIDGES, *, names: str = "ab") -> Regions:
    """Return regions that are each a domain."""
    return Regions(
        {name: [f"*.{name}.example"] for name in names}, bridges=[address_of(b) for b in bridges]
    )


@define
class BridgedLab:
    """Nodes of two regions: two bridges each, and any others.

    Args:
        told: the regions, as every node is told.
        inside: the network of each region.
        between: that of the bridges.
        nodes: by their names, with what each has heard.
    """

    told: Regions = field(factory=regions)
    inside: dict[str, MemoryNetwork] = field(factory=dict)
    between: MemoryNetwork = field(factory=MemoryNetwork)
    nodes: dict[str, tuple[BridgedTransport, Recorder]] = field(factory=dict)

    async def start(self, *names: str) -> None:
        """Start nodes, `a2` for one of region `a`; those that are among the bridges as such."""
        for name in names:
            network = self.inside.setdefault(name[0], MemoryNetwork())
            address = address_of(name)
            node = BridgedTransport(
                network.transport(address),
                region=name[0],
                regions=self.told,
                between=self.between.transport(address) if self.told.is_bridge(address) else None,
                rng=random.Random(name),
            )
            heard = Recorder()
            await node.start(heard)
            self.nodes[name] = (node, heard)

    def node(self, name: str) -> BridgedTransport:
        """Return a node's transport."""
        return self.nodes[name][0]

    def heard(self, name: str) -> Recorder:
        """Return what a node has heard."""
        return self.nodes[name][1]

    def send(self, origin: str, destination: str, data: bytes) -> bool:
        """Send one frame."""
        return self.node(origin).send(address_of(destination), data)

    def inner(self, name: str) -> MemoryTransport:
        """Return the transport of a node within its region."""
        part = self.node(name).parts[0]
        assert isinstance(part, MemoryTransport)
        return part

    async def kill(self, name: str) -> None:
        """End a node without a word."""
        await self.node(name).close(drain_s=0)

    async def end(self) -> None:
        """End all."""
        for node, _ in self.nodes.values():
            await node.close(drain_s=0)
