"""Replication: documents, a log, a clock, snapshots, and what the peers have seen."""

from __future__ import annotations

from meshlib.replication.config import ReplicationConfig
from meshlib.replication.records import (
    ActorForgotten,
    Change,
    ChangesDropped,
    EntriesHeld,
    EntrySkipped,
    Gap,
    GapBufferFull,
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
    WriteReceipt,
)
from meshlib.replication.replica import Replica, ReplicaState
from meshlib.replication.stability import StabilityTracker
from meshlib.replication.transfers.pages import SnapshotPage, SnapshotPages
from meshlib.replication.vector import clock_hash
from meshlib.replication.writes import WriteContext

__all__ = [
    "ActorForgotten",
    "Change",
    "ChangesDropped",
    "EntriesHeld",
    "EntrySkipped",
    "Gap",
    "GapBufferFull",
    "IdentityStolen",
    "Lacking",
    "LogEntry",
    "LogShortened",
    "LostWrite",
    "PageSkipped",
    "Received",
    "Rejection",
    "RejoinReport",
    "Replica",
    "ReplicaEvent",
    "ReplicaState",
    "ReplicationConfig",
    "SnapshotPage",
    "SnapshotPages",
    "StabilityTracker",
    "WriteContext",
    "WriteReceipt",
    "clock_hash",
]
