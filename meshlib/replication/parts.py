"""What the parts of one replica share. Replaced as a whole when a replica begins again."""

from __future__ import annotations

from attrs import define, field

from meshlib.clock import HybridClock
from meshlib.identity import ActorId
from meshlib.replication.config import ReplicationConfig
from meshlib.replication.document import DocumentTable
from meshlib.replication.entries.gap_buffer import GapBuffer
from meshlib.replication.entries.log import ReplicationLog
from meshlib.replication.entries.shortening import ShortEntries
from meshlib.replication.journal import Journal
from meshlib.replication.late_writes import LateWrites
from meshlib.replication.page_content import PAGE_VERSION
from meshlib.replication.vector import VersionVector

__all__ = ["Parts"]


@define(slots=True)
class Parts:
    """The state of one replica.

    Args:
        actor: who writes here.
        clock: mints and judges stamps.
        config: the limits.
        journal: changes and events.
        page_newest: the newest version of pages that is read.
    """

    actor: ActorId
    clock: HybridClock
    config: ReplicationConfig
    journal: Journal
    page_newest: int = PAGE_VERSION
    documents: DocumentTable = field(factory=DocumentTable)
    vector: VersionVector = field(factory=VersionVector)
    late: LateWrites = field(factory=LateWrites)
    log: ReplicationLog = field(init=False)
    gaps: GapBuffer = field(init=False)
    shorts: ShortEntries = field(factory=ShortEntries)

    def __attrs_post_init__(self) -> None:
        """Make the parts that have limits."""
        self.log = ReplicationLog(bytes_max=self.config.log_bytes_max, seconds=self.clock.wall_s)
        self.gaps = GapBuffer(bytes_max=self.config.gap_buffer_bytes_max)
