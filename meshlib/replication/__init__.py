"""Replication: documents, a log, a clock, snapshots, and what the peers have seen."""

from __future__ import annotations

from meshlib.replication.config import ReplicationConfig
from meshlib.replication.records import (
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
    Received,
    Rejection,
    ReplicaEvent,
    WriteReceipt,
)
from meshlib.replication.replica import Replica, WriteContext
from meshlib.replication.snapshot import SnapshotPage, SnapshotPages
from meshlib.replication.stability import StabilityTracker

__all__ = [
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
    "Received",
    "Rejection",
    "Replica",
    "ReplicaEvent",
    "ReplicationConfig",
    "SnapshotPage",
    "SnapshotPages",
    "StabilityTracker",
    "WriteContext",
    "WriteReceipt",
]
