"""Replication: documents, a log, a version vector, state transfers, and what peers have seen.

replica.py      Replica: everything that changes a document or moves the vector enters here
exchanging.py   what it does with its peers: entries and whole states, taken and given
local.py        its local face: what an application reads, writes and is told
typed.py        Document: a state with its type, as an application holds it
writes.py       local writes: the open groups of a flush
document.py     one document: a state, its type, and what its type can do
vector.py       the version vector: for each writer the highest number without a gap
intake.py       entries from peers: absorbed, held back or refused
entries/        log entries: kept, and waited for
transfers/      whole states from node to node
page_content.py what a page of one holds, and its layout in each version
stability.py    what the peers have seen, by their vectors
rejoin.py       coming back after too long
late_writes.py  writes that come that late
journal.py      what a replica has to tell
parts.py        what the parts of one replica share
records.py      what goes in and comes out: entries, receipts, changes, events
config.py       ReplicationConfig
"""

from __future__ import annotations

from meshlib.replication.config import ReplicationConfig
from meshlib.replication.page_content import (
    PAGE_LAYOUTS,
    PAGE_VERSION,
    PageContent,
    PageLayout,
)
from meshlib.replication.records import (
    ActorForgotten,
    Change,
    ChangesDropped,
    EntriesHeld,
    EntrySkipped,
    Gap,
    GapBufferFull,
    Hole,
    IdentityStolen,
    Lacking,
    LogEntry,
    LogShortened,
    LostWrite,
    PageSkipped,
    Received,
    Rejection,
    RejoinReport,
    ReplicaEvent,
    ShortEntry,
    WriteReceipt,
)
from meshlib.replication.replica import Replica, ReplicaState, SetBack
from meshlib.replication.stability import StabilityTracker
from meshlib.replication.transfers.digests import DocumentDigests
from meshlib.replication.transfers.pages import TransferPage, TransferPages
from meshlib.replication.typed import Document, DocumentChanges
from meshlib.replication.vector import marked_number, vector_hash
from meshlib.replication.writes import WriteContext

__all__ = [
    "PAGE_LAYOUTS",
    "PAGE_VERSION",
    "ActorForgotten",
    "Change",
    "ChangesDropped",
    "Document",
    "DocumentChanges",
    "DocumentDigests",
    "EntriesHeld",
    "EntrySkipped",
    "Gap",
    "GapBufferFull",
    "Hole",
    "IdentityStolen",
    "Lacking",
    "LogEntry",
    "LogShortened",
    "LostWrite",
    "PageContent",
    "PageLayout",
    "PageSkipped",
    "Received",
    "Rejection",
    "RejoinReport",
    "Replica",
    "ReplicaEvent",
    "ReplicaState",
    "ReplicationConfig",
    "SetBack",
    "ShortEntry",
    "StabilityTracker",
    "TransferPage",
    "TransferPages",
    "WriteContext",
    "WriteReceipt",
    "marked_number",
    "vector_hash",
]
