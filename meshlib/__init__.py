"""Replicas that share state without a store.

The rooms, from the top of the house down; each imports only what stands below it:

    aio/             MeshRuntime: a node on asyncio, its transports, discovery and snapshots
    testing/         laws, machines and a simulator for one's own types and clusters
    node.py          MeshNode: one whole node, without IO
    sync.py          MeshSyncManager: what a router reads and writes
    gossip/          members, news and entries between nodes, without IO
    ratelimit/       rate limits over the cluster, decided locally
    routing/         which worker has the most of a prompt cached, and may take it
    state/           the stores: workers, policies, configuration, members
    replication/     documents, a log, a version vector, state transfers
    crdt/            the lattices; usable on their own
    membership/      the table of members, probes, suspicion, partitions, topology
    prefix/          the radix tree and the block index; usable on their own
    ring.py          the hash ring; usable on its own
    clock.py, codec.py, identity.py
                     hybrid clocks, canonical bytes, who a node is
    errors.py, limits.py, hashing.py
                     every error, every bound, stable hashes

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
