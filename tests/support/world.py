"""Replicas with a clock that the test sets, and short words for what tests do with them."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from meshlib.clock import HybridClock
from meshlib.identity import ActorId, actor_id
from meshlib.replication import LogEntry, Received, Replica, ReplicationConfig

CONFIG = ReplicationConfig(tombstone_grace_s=0.0)


@define
class World:
    """Makes replicas; `wall_s` is the time on all their clocks, but for each one's offset."""

    wall_s: float = 1_000.0
    offsets: dict[str, float] = field(factory=dict)

    def clock(self, actor: ActorId, name: str) -> HybridClock:
        return HybridClock(actor, wall_clock=lambda: self.wall_s + self.offsets.get(name, 0.0))

    def replica(
        self, name: str, *, incarnation: int = 1, config: ReplicationConfig = CONFIG
    ) -> Replica:
        actor = actor_id(name, incarnation)
        return Replica(actor=actor, clock=self.clock(actor, name), config=config)

    def put(self, replica: Replica, key: str, value: Any, *, document: str = "m") -> LogEntry:
        """Set a key of a map, flush, and return the entry."""
        self.wall_s += 0.01
        replica.open(document, type_tag="lww_map")
        replica.write(
            document, lambda s, c: s.set(key, value, stamp=c.stamp(), sequence=c.sequence)
        )
        (entry,) = replica.flush()
        return entry

    def remove(self, replica: Replica, key: str, *, document: str = "m") -> LogEntry:
        """Remove a key of a map, flush, and return the entry."""
        self.wall_s += 0.01
        replica.write(document, lambda s, c: s.remove(key, stamp=c.stamp(), sequence=c.sequence))
        (entry,) = replica.flush()
        return entry

    def increment(self, replica: Replica, *, document: str = "n") -> LogEntry:
        """Add one to a counter, flush, and return the entry."""
        replica.open(document, type_tag="g_counter")
        replica.write(document, lambda s, c: s.increment(by=c.actor))
        (entry,) = replica.flush()
        return entry

    def live(self, replica: Replica, *, document: str = "m") -> dict[str, Any]:
        """Return what a map holds."""
        state: Any = replica.open(document, type_tag="lww_map")
        return dict(state.items())

    def transfer(self, source: Replica, destination: Replica, **settings: Any) -> Received:
        """Bring the whole state from one to the other."""
        pages = source.transfer_pages(destination.transfer_offer(), **settings)
        for page in pages:
            destination.absorb_page(page)
        return destination.complete_transfer(pages.vector)
