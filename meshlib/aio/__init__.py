"""The asyncio room: the runtime of a node, its transports, discovery and snapshots.

runtime.py    MeshRuntime: a running node
front.py      its verbs: what a program calls
waiting.py    its coroutines: what a program waits for, and listens to
concurrency/  so many requests at once, over the cluster
gate.py       which thread may enter a node, and when
guarded.py    a node that may be kept: each use of it is judged
diagnosis.py  how far a node has come, and what its seeds answered
driver.py     drives one node, which has no IO, with a transport and a clock
events.py     events for whoever listens
storage/      a node's state in a file
discovery.py  where peers may be found
transport.py  what carries frames between nodes
memory.py     a network within one process
tcp.py, links.py, listener.py, framing.py
frames over TCP: the transport, its dialling side, its accepting side, lengths and the hello
websocket/    frames over WebSockets, as the server carries them; with the extra of that name
nats/         frames over NATS, where one network is outgrown; with the extra of that name
bridged/      frames between regions: one transport inside, another one between bridges
settings.py   checks of settings, and of the wall clock that a program passes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from meshlib.aio.bridged import BridgeCounters, BridgedTransport, Regions
from meshlib.aio.concurrency import ConcurrencyLimit, HeldSlot, LeasedSlot, LeasedSlots
from meshlib.aio.diagnosis import Diagnosis, SeedReport
from meshlib.aio.discovery import (
    Discovery,
    DnsSeeds,
    FileSeeds,
    FixedSeeds,
    SeveralSources,
    SrvSeeds,
    address_towards,
    is_same_endpoint,
)
from meshlib.aio.driver import DrivenNode, DriverCounters, NodeDriver
from meshlib.aio.events import EventStream
from meshlib.aio.framing import TokenJudge
from meshlib.aio.links import Connection, LinkConfig, OutgoingLinks, bound_silence
from meshlib.aio.listener import ListenerConfig
from meshlib.aio.memory import MemoryNetwork, MemoryTransport
from meshlib.aio.runtime import MeshRuntime
from meshlib.aio.storage import SavedState, SnapshotCounters, SnapshotFile, SnapshotRefusedError
from meshlib.aio.tcp import TcpTransport, dialled_socket
from meshlib.aio.transport import (
    LinkFailure,
    LinkFault,
    PeerRefusedError,
    QuietLog,
    Receiver,
    Transport,
    TransportCounters,
    is_unspecified,
    join_address,
    refusal_word,
    split_address,
)

if TYPE_CHECKING:
    from meshlib.aio.nats import NatsConfig, NatsCredentials, NatsTransport
    from meshlib.aio.websocket import (
        CLOSE_TIMEOUT_S,
        GOING_AWAY,
        GOSSIP_PATH,
        MESSAGE_TOO_BIG,
        POLICY_VIOLATION,
        TRY_AGAIN_LATER,
        UNSUPPORTED_DATA,
        DialledTls,
        WebSocketDialler,
        WebSocketTransport,
    )

__all__ = [
    "CLOSE_TIMEOUT_S",
    "GOING_AWAY",
    "GOSSIP_PATH",
    "MESSAGE_TOO_BIG",
    "POLICY_VIOLATION",
    "TRY_AGAIN_LATER",
    "UNSUPPORTED_DATA",
    "BridgeCounters",
    "BridgedTransport",
    "ConcurrencyLimit",
    "Connection",
    "Diagnosis",
    "DialledTls",
    "Discovery",
    "DnsSeeds",
    "DrivenNode",
    "DriverCounters",
    "EventStream",
    "FileSeeds",
    "FixedSeeds",
    "HeldSlot",
    "LeasedSlot",
    "LeasedSlots",
    "LinkConfig",
    "LinkFailure",
    "LinkFault",
    "ListenerConfig",
    "MemoryNetwork",
    "MemoryTransport",
    "MeshRuntime",
    "NatsConfig",
    "NatsCredentials",
    "NatsTransport",
    "NodeDriver",
    "OutgoingLinks",
    "PeerRefusedError",
    "QuietLog",
    "Receiver",
    "Regions",
    "SavedState",
    "SeedReport",
    "SeveralSources",
    "SnapshotCounters",
    "SnapshotFile",
    "SnapshotRefusedError",
    "SrvSeeds",
    "TcpTransport",
    "TokenJudge",
    "Transport",
    "TransportCounters",
    "WebSocketDialler",
    "WebSocketTransport",
    "address_towards",
    "bound_silence",
    "dialled_socket",
    "is_same_endpoint",
    "is_unspecified",
    "join_address",
    "refusal_word",
    "split_address",
]

_OF_WEBSOCKETS: Final = "meshlib.aio.websocket"
_OF_NATS: Final = "meshlib.aio.nats"

_BY_EXTRA: Final = {
    "CLOSE_TIMEOUT_S": _OF_WEBSOCKETS,
    "GOING_AWAY": _OF_WEBSOCKETS,
    "GOSSIP_PATH": _OF_WEBSOCKETS,
    "MESSAGE_TOO_BIG": _OF_WEBSOCKETS,
    "POLICY_VIOLATION": _OF_WEBSOCKETS,
    "TRY_AGAIN_LATER": _OF_WEBSOCKETS,
    "UNSUPPORTED_DATA": _OF_WEBSOCKETS,
    "DialledTls": _OF_WEBSOCKETS,
    "NatsConfig": _OF_NATS,
    "NatsCredentials": _OF_NATS,
    "NatsTransport": _OF_NATS,
    "WebSocketDialler": _OF_WEBSOCKETS,
    "WebSocketTransport": _OF_WEBSOCKETS,
}
"""Names that are imported on their first use, each with its room: they need an extra."""


def __getattr__(name: str) -> Any:
    """Import a name of a room with an extra on its first use."""
    room = _BY_EXTRA.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(room), name)
