"""Nodes of a small network whose wall clocks a test sets."""

from __future__ import annotations

from functools import partial

from meshlib.gossip import WritesRestamped
from meshlib.node import MeshNode
from support.mini_network import MiniNetwork

RIGHT_S = 1.7e9


class Clocks:
    """Nodes whose clocks a test sets while they run: seconds ahead of the right time, by name."""

    def __init__(self) -> None:
        self.network = MiniNetwork()
        self.ahead_s: dict[str, float] = {}

    def read(self, name: str) -> float:
        """Return what a node's clock shows, in seconds since 1970."""
        return RIGHT_S + self.network.now + self.ahead_s.get(name, 0.0)

    def start(self, *names: str) -> list[MeshNode]:
        """Start nodes that read these clocks."""
        return [self.network.start(name, wall_clock=partial(self.read, name)) for name in names]


def events_of(clocks: Clocks, name: str) -> list[WritesRestamped]:
    """Return what a node told of writes that it stamped again."""
    return [e for e in clocks.network.events[name] if isinstance(e, WritesRestamped)]


def value_on_each(clocks: Clocks, key: str) -> list[bytes | None]:
    """Return a key's value on every node, by their names."""
    nodes = clocks.network.nodes
    return [nodes[name].sync.get_config(key) for name in sorted(nodes)]


def start_apart(clocks: Clocks, name: str, ahead_s: float) -> MeshNode:
    """Start a node that reaches nobody, with such a clock."""
    for other in clocks.network.nodes:
        clocks.network.cut_both(name, other)
    clocks.ahead_s[name] = ahead_s
    return clocks.start(name)[0]
