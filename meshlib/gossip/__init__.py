"""The gossip engine: membership news and replicated entries between nodes, without IO."""

from meshlib.gossip.config import GossipConfig
from meshlib.gossip.context import Counters, Packet
from meshlib.gossip.engine import Engine
from meshlib.gossip.events import (
    EntryRejected,
    Event,
    IdentityRenewed,
    LocalPause,
    MemberDown,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRecovered,
    MemberSuspected,
    MessageUnsendable,
    NameConflict,
    PacketRejected,
    Refuted,
    Rejoined,
    StateDiverged,
    StateRestored,
)
from meshlib.gossip.messages.frames import FORMAT_VERSION, decode_frame

__all__ = [
    "FORMAT_VERSION",
    "Counters",
    "Engine",
    "EntryRejected",
    "Event",
    "GossipConfig",
    "IdentityRenewed",
    "LocalPause",
    "MemberDown",
    "MemberForgotten",
    "MemberJoined",
    "MemberLeft",
    "MemberRecovered",
    "MemberSuspected",
    "MessageUnsendable",
    "NameConflict",
    "Packet",
    "PacketRejected",
    "Refuted",
    "Rejoined",
    "StateDiverged",
    "StateRestored",
    "decode_frame",
]
