"""Nodes in processes that are restarted one by one, some at once, or all but one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from attrs import define, field

from support.servers import Launcher, Node, eventually

__all__ = [
    "PATIENT",
    "Kept",
    "await_all",
    "end",
    "fill",
    "is_healthy",
    "is_ready",
    "keys_of",
    "nodes_of",
    "start_ready",
    "timed_restart",
]


PATIENT: Final = {"MESH_GOSSIP_BOOTSTRAP_AFTER_S": "5"}
"""Longer than processes that start together differ on a busy machine: then one alone begins."""


def nodes_of(
    launcher: Launcher,
    count: int,
    prefix: str = "n",
    *,
    environment: dict[str, str] | None = None,
) -> list[Node]:
    """Make nodes that know each other, not started."""
    ports = launcher.free_ports(count)
    return [
        launcher.node(
            f"{prefix}{index}",
            port=port,
            peers=[other for other in ports if other != port],
            environment=environment,
        )
        for index, port in enumerate(ports)
    ]


def fill(node: Node, count: int, size: int, *, prefix: str = "key") -> set[str]:
    """Write keys that cannot be made smaller, and return their names."""
    keys = {f"{prefix}{number}" for number in range(count)}
    for key in keys:
        node.request("POST", "/mesh/config", {"key": key, "value": os.urandom(size).hex()})
    return keys


def keys_of(node: Node) -> set[str]:
    """Return the keys that a node has."""
    return set(node.get("/mesh/config")["keys"])


def is_ready(node: Node) -> bool:
    """Tell whether a process that runs says that it is ready."""
    assert node.process is not None
    assert node.process.poll() is None, node.log.read_text()
    return node.is_ready()


def is_healthy(node: Node) -> bool:
    """Tell whether a node says that all is well."""
    return bool(node.get("/mesh/health")["status"] == "healthy")


def await_all(nodes: Sequence[Node], keys: set[str]) -> None:
    """Wait until each node has just these keys."""
    for node in nodes:
        eventually(partial(lambda n: keys_of(n) == keys, node), f"{node.name} has {len(keys)} keys")


def end(nodes: Sequence[Node], number: signal.Signals) -> None:
    """End processes at once, by a signal, and see to it that they end well if it asks them to."""
    processes = [node.process for node in nodes]
    for process in processes:
        assert process is not None
        process.send_signal(number)
    codes = [process.wait(30) for process in processes if process is not None]
    assert codes == [0 if number is signal.SIGTERM else -number] * len(nodes)


def start_ready(nodes: Sequence[Node]) -> None:
    """Start processes together, and wait until all say that they are ready."""
    for node in nodes:
        node.spawn()
    for node in nodes:
        node.await_answer()
    for node in nodes:
        eventually(partial(is_ready, node), f"{node.name} is ready", deadline_s=60.0)


@define
class Kept:
    """What was written into a cluster, and must be in each node of it that says it is ready.

    Args:
        rng: chooses values of which a few are looked at each time.
    """

    rng: random.Random
    values: dict[str, str] = field(factory=dict)

    def write(self, nodes: Sequence[Node], count: int, size: int) -> None:
        """Write keys, each at a node that chance chooses."""
        for _ in range(count):
            key, value = f"key-{len(self.values)}", self.rng.randbytes(size).hex()
            node = self.rng.choice(nodes)
            node.request("POST", "/mesh/config", {"key": key, "value": value})
            self.values[key] = value

    def await_at(self, nodes: Sequence[Node]) -> None:
        """Wait until nodes that are ready have what the last of them was given to write."""
        await_all(nodes, set(self.values))

    def check(self, nodes: Sequence[Node], what: str) -> None:
        """See that each node has every key, and some of the values as they were written."""
        for node in nodes:
            missing = sorted(set(self.values) - keys_of(node))
            assert not missing, f"{what}: {node.name} lacks {len(missing)}, {missing[:5]}"
            for key in self.rng.sample(sorted(self.values), min(5, len(self.values))):
                found = node.get(f"/mesh/config/{key}")["value"]
                assert found == self.values[key], f"{what}: {node.name} has another {key}"


def timed_restart(nodes: Sequence[Node], number: signal.Signals) -> str:
    """End nodes at once and start them together; tell what was done and how long it took."""
    began_at = time.monotonic()
    end(nodes, number)
    ended_at = time.monotonic()
    start_ready(nodes)
    names = "+".join(node.name for node in nodes)
    ready_s = time.monotonic() - ended_at
    return f"{names} {number.name} ended {ended_at - began_at:.1f} s ready {ready_s:.1f} s"
