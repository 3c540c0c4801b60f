"""The asyncio room: the runtime of a node, its transports, discovery and snapshots."""

from meshlib.aio.discovery import (
    Discovery,
    DnsSeeds,
    FileSeeds,
    FixedSeeds,
    SeveralSources,
    address_towards,
    is_same_endpoint,
)
from meshlib.aio.driver import DrivenNode, DriverCounters, NodeDriver
from meshlib.aio.events import EventStream
from meshlib.aio.links import Connection, LinkConfig, OutgoingLinks, bound_silence
from meshlib.aio.listener import ListenerConfig
from meshlib.aio.memory import MemoryNetwork, MemoryTransport
from meshlib.aio.runtime import MeshRuntime
from meshlib.aio.snapshots import SavedState, SnapshotCounters, SnapshotFile
from meshlib.aio.tcp import TcpTransport
from meshlib.aio.transport import (
    QuietLog,
    Receiver,
    Transport,
    TransportCounters,
    is_unspecified,
    join_address,
    split_address,
)

__all__ = [
    "Connection",
    "Discovery",
    "DnsSeeds",
    "DrivenNode",
    "DriverCounters",
    "EventStream",
    "FileSeeds",
    "FixedSeeds",
    "LinkConfig",
    "ListenerConfig",
    "MemoryNetwork",
    "MemoryTransport",
    "MeshRuntime",
    "NodeDriver",
    "OutgoingLinks",
    "QuietLog",
    "Receiver",
    "SavedState",
    "SeveralSources",
    "SnapshotCounters",
    "SnapshotFile",
    "TcpTransport",
    "Transport",
    "TransportCounters",
    "address_towards",
    "bound_silence",
    "is_same_endpoint",
    "is_unspecified",
    "join_address",
    "split_address",
]
