"""The gossip engine: membership news and replicated entries between nodes, without IO.

engine.py         Engine: bytes, timers and verbs in; packets and events out
dispatch.py       which part takes which message, and which timer
parts.py          what an engine is made of
view.py           who is there, as this node sees it
timers.py         what is due, and when
outbox.py         what is to be sent
reports.py        what is told: events and counters
config.py         GossipConfig
events.py         the events
tables.py         tables of members that differ
clock_offsets.py  how far the wall clocks of members are from this one's
speech.py         in which format this node speaks to whom
acquaintances.py  whom this node has met; the one place where a member is forgotten
upkeep.py         what a node does for itself now and then
messages/         what nodes say to each other, and how it is laid out in a frame
members/          who is there: joining, leaving, probing, and the news of it
entries/          how replicated entries travel: pushed, repaired, or as whole states
"""

from meshlib.gossip.clock_offsets import ClockOffset
from meshlib.gossip.config import GossipConfig, GossipProfile
from meshlib.gossip.engine import Engine
from meshlib.gossip.entries.beginning import NodeState, SyncProgress
from meshlib.gossip.events import (
    Began,
    EntryRejected,
    Event,
    FormatChanged,
    IdentityRenewed,
    LeaveDelayed,
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
    WritesRestamped,
)
from meshlib.gossip.members.links import LinkEnd
from meshlib.gossip.messages.dialects import (
    DIALECTS,
    Dialect,
    HeaderField,
    Kind,
    MessageLayout,
    register_dialect,
)
from meshlib.gossip.messages.fields import record_from_wire, record_to_wire
from meshlib.gossip.messages.frames import FORMAT_VERSION, decode_frame
from meshlib.gossip.outbox import Packet
from meshlib.gossip.reports import Counters

__all__ = [
    "DIALECTS",
    "FORMAT_VERSION",
    "Began",
    "ClockOffset",
    "Counters",
    "Dialect",
    "Engine",
    "EntryRejected",
    "Event",
    "FormatChanged",
    "GossipConfig",
    "GossipProfile",
    "HeaderField",
    "IdentityRenewed",
    "Kind",
    "LeaveDelayed",
    "LinkEnd",
    "LocalPause",
    "MemberDown",
    "MemberForgotten",
    "MemberJoined",
    "MemberLeft",
    "MemberRecovered",
    "MemberSuspected",
    "MessageLayout",
    "MessageUnsendable",
    "NameConflict",
    "NodeState",
    "Packet",
    "PacketRejected",
    "Refuted",
    "Rejoined",
    "StateDiverged",
    "StateRestored",
    "SyncProgress",
    "WritesRestamped",
    "decode_frame",
    "record_from_wire",
    "record_to_wire",
    "register_dialect",
]
