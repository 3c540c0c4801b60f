"""Replicas that share state without a store. What a program needs is named here.

The front
    MeshRuntime         one running node: acquire, route, document, call, wait_ready, events
    MeshNode            the same node without IO, for whoever drives it
    MeshSyncManager     `mesh.sync`: workers, policies, trees, configuration
    Document            a replicated state of a type of one's own choice
    ConsistentHashRing  who owns a key
    __version__         of this package

Settings
    MeshConfig          who a node is, with what follows inside
    GossipConfig        how often it probes, gossips and repairs; profiles lan, wan, local
    ReplicationConfig   how much it keeps
    RateLimitConfig     how long owners decide, and what a node does that is cut off
    Limit               units in a period, and how they are counted
    CacheAwareConfig    how prompts are routed
    StartupConfig       what is decided before a node is ready
    ConfiguredDefaults  what is in force for what nobody has written

Transports, discovery, snapshots
    Transport           what carries frames: TcpTransport, or those of a MemoryNetwork
    Discovery           where peers are: FixedSeeds, DnsSeeds, FileSeeds
    SnapshotFile        where a node's state is kept

Answers
    Decision            of a rate limit; RateLimitStats: what is used of it
    RouteDecision       of a prompt
    WriteReceipt        of a write; WriteContext: what marks one
    WorkerState         what is known of a worker
    Health              how the cluster is; NodeState: what a node is doing
    MemberRecord        who is in it
    Diagnosis           how far a node has come; SyncProgress: how much it has of the state

Events
    EventStream         an async iterator of what happens to a node; Event: any of what follows
    MemberJoined, MemberSuspected, MemberRecovered, MemberDown, MemberLeft, MemberForgotten
                        the others are in `meshlib.gossip`

Errors
    MeshError           all of them
    LocalError          the caller's: ConfigError, InvalidValueError, InvalidTypeError, LimitError,
                        UnknownKeyError, DocumentTypeError, StateError, ThreadError,
                        ForeignClockError, NameConflictError; others are in `meshlib.errors`
    NotReadyError       it took too long, or it is too early; with what was tried
    RemoteError         a peer's

Rooms, from the top of the house down; each imports only what stands below it
    aio/                the runtime, its transports, discovery and snapshots
    testing/            laws, machines and a simulator for one's own types and clusters
    node/, sync.py      one whole node, without IO; what a router reads and writes
    startup.py          what a node may decide before it is ready
    gossip/             members, news and entries between nodes, without IO
    ratelimit/          rate limits over the cluster
    routing/            which worker has the most of a prompt cached, and may take it
    state/              the stores: workers, policies, configuration, members
    replication/        documents, a log, a version vector, state transfers
    crdt/               the lattices; usable on their own
    membership/         the table of members, probes, suspicion, partitions, topology
    prefix/, ring.py    the radix tree, the block index, the hash ring; usable on their own
    clock.py, codec.py, identity.py, reading.py
                        hybrid and monotonic time, canonical bytes, who a node is, what a peer sent
    errors.py, arguments.py, invariants.py, limits.py, hashing.py
                        every error, checks of what callers pass and of what parts keep, every
                        bound, stable hashes

What is seldom written down, such as the words that an answer holds, is imported from its room:
`from meshlib.routing import RouteReason`. The names above are imported on first use, so that
`import meshlib.crdt` loads no more than it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.aio import (
        Diagnosis,
        Discovery,
        DnsSeeds,
        EventStream,
        FileSeeds,
        FixedSeeds,
        MemoryNetwork,
        MeshRuntime,
        SnapshotFile,
        TcpTransport,
        Transport,
    )
    from meshlib.errors import (
        ConfigError,
        DocumentTypeError,
        ForeignClockError,
        InvalidTypeError,
        InvalidValueError,
        LimitError,
        LocalError,
        MeshError,
        NameConflictError,
        NotReadyError,
        RemoteError,
        StateError,
        ThreadError,
        UnknownKeyError,
    )
    from meshlib.gossip import (
        Event,
        GossipConfig,
        MemberDown,
        MemberForgotten,
        MemberJoined,
        MemberLeft,
        MemberRecovered,
        MemberSuspected,
        SyncProgress,
    )
    from meshlib.membership import MemberRecord
    from meshlib.node import Health, MeshConfig, MeshNode, NodeState
    from meshlib.ratelimit import Decision, Limit, RateLimitConfig, RateLimitStats
    from meshlib.replication import Document, ReplicationConfig, WriteContext, WriteReceipt
    from meshlib.ring import ConsistentHashRing
    from meshlib.routing import CacheAwareConfig, RouteDecision
    from meshlib.startup import StartupConfig
    from meshlib.state import ConfiguredDefaults, WorkerState
    from meshlib.sync import MeshSyncManager

    __version__: str

__all__ = [
    "CacheAwareConfig",
    "ConfigError",
    "ConfiguredDefaults",
    "ConsistentHashRing",
    "Decision",
    "Diagnosis",
    "Discovery",
    "DnsSeeds",
    "Document",
    "DocumentTypeError",
    "Event",
    "EventStream",
    "FileSeeds",
    "FixedSeeds",
    "ForeignClockError",
    "GossipConfig",
    "Health",
    "InvalidTypeError",
    "InvalidValueError",
    "Limit",
    "LimitError",
    "LocalError",
    "MemberDown",
    "MemberForgotten",
    "MemberJoined",
    "MemberLeft",
    "MemberRecord",
    "MemberRecovered",
    "MemberSuspected",
    "MemoryNetwork",
    "MeshConfig",
    "MeshError",
    "MeshNode",
    "MeshRuntime",
    "MeshSyncManager",
    "NameConflictError",
    "NodeState",
    "NotReadyError",
    "RateLimitConfig",
    "RateLimitStats",
    "RemoteError",
    "ReplicationConfig",
    "RouteDecision",
    "SnapshotFile",
    "StartupConfig",
    "StateError",
    "SyncProgress",
    "TcpTransport",
    "ThreadError",
    "Transport",
    "UnknownKeyError",
    "WorkerState",
    "WriteContext",
    "WriteReceipt",
    "__version__",
]

_ROOMS = {
    "meshlib.aio": (
        "Diagnosis Discovery DnsSeeds EventStream FileSeeds FixedSeeds MemoryNetwork MeshRuntime "
        "SnapshotFile TcpTransport Transport"
    ),
    "meshlib.errors": (
        "ConfigError DocumentTypeError ForeignClockError InvalidTypeError InvalidValueError "
        "LimitError LocalError MeshError NameConflictError NotReadyError RemoteError StateError "
        "ThreadError UnknownKeyError"
    ),
    "meshlib.gossip": (
        "Event GossipConfig MemberDown MemberForgotten MemberJoined MemberLeft MemberRecovered "
        "MemberSuspected SyncProgress"
    ),
    "meshlib.membership": "MemberRecord",
    "meshlib.node": "Health MeshConfig MeshNode NodeState",
    "meshlib.ratelimit": "Decision Limit RateLimitConfig RateLimitStats",
    "meshlib.replication": "Document ReplicationConfig WriteContext WriteReceipt",
    "meshlib.ring": "ConsistentHashRing",
    "meshlib.routing": "CacheAwareConfig RouteDecision",
    "meshlib.startup": "StartupConfig",
    "meshlib.state": "ConfiguredDefaults WorkerState",
    "meshlib.sync": "MeshSyncManager",
}
"""Where each name lives, as the imports above say it to type checkers."""

_HOMES = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("meshlib-crdt")
    elif name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too."""
    return sorted({*globals(), *__all__})
