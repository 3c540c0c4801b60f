"""Replicas that share state without a store.

    node.py          MeshNode: one whole node, without IO
    aio/             MeshRuntime: a node on asyncio, and its transports
    state/           the stores, the rate limiter and the routing policy of a node
    crdt/            the lattices; usable on their own
    prefix/, ring.py the radix tree and the hash ring; usable on their own
    testing/         laws, machines and a simulator for one's own types and clusters

The names below are imported on first use, so that `import meshlib.crdt` loads no more than it
needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.aio import MeshRuntime
    from meshlib.node import Health, HealthStatus, MeshConfig, MeshNode
    from meshlib.ring import ConsistentHashRing

__all__ = [
    "ConsistentHashRing",
    "Health",
    "HealthStatus",
    "MeshConfig",
    "MeshNode",
    "MeshRuntime",
]

_HOMES = {
    "ConsistentHashRing": "meshlib.ring",
    "Health": "meshlib.node",
    "HealthStatus": "meshlib.node",
    "MeshConfig": "meshlib.node",
    "MeshNode": "meshlib.node",
    "MeshRuntime": "meshlib.aio",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    """List the public names too."""
    return sorted({*globals(), *__all__})
