"""The asyncio room: the runtime of a node, its transports, discovery and snapshots."""

from meshlib.aio.links import Connection, LinkConfig, OutgoingLinks
from meshlib.aio.listener import ListenerConfig
from meshlib.aio.memory import MemoryNetwork, MemoryTransport
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
    "LinkConfig",
    "ListenerConfig",
    "MemoryNetwork",
    "MemoryTransport",
    "OutgoingLinks",
    "QuietLog",
    "Receiver",
    "TcpTransport",
    "Transport",
    "TransportCounters",
    "is_unspecified",
    "join_address",
    "split_address",
]
