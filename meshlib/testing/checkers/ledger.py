"""What was written during a run, and what must therefore be there at its end.

Rule: the ledger is told by the writer at the moment of the write and by nobody else; whatever a
node shows that is not in it was made up on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from meshlib.clock import Stamp
from meshlib.crdt import LWWEntry
from meshlib.identity import ActorId
from meshlib.testing.checkers.other_writes import OtherWrites

__all__ = ["Ledger", "Write"]

Place = tuple[str, str]
"""A document and a key."""


@frozen(slots=True)
class Write:
    """One acknowledged write.

    Args:
        stamp: its place in the order of writes.
        payload: the value's bytes; None for a removal.
        actor: who wrote it.
        sequence: the number under which it travels.
        at_s: when, in simulated seconds.
    """

    stamp: Stamp
    payload: bytes | None
    actor: ActorId
    sequence: int
    at_s: float


class Ledger:
    """Every write of a run to a document that is a map of last writers."""

    def __init__(self) -> None:
        self._writes: dict[Place, dict[Stamp, Write]] = {}
        self._pardoned: set[tuple[str, Any]] = set()
        self._collected: set[Place] = set()
        self._rejoined: set[ActorId] = set()
        self._renamed: dict[ActorId, ActorId] = {}
        self.others = OtherWrites()
        self.count = 0
        self.removal_count = 0
        self.concurrent_count = 0
        self.latest_wall_ms = 0

    def note(
        self,
        document: str,
        key: str,
        entry: LWWEntry,
        at_s: float,
        *,
        before: LWWEntry | None = None,
    ) -> None:
        """Take down a write as its writer holds it right afterwards.

        Args:
            document: what was written to.
            key: likewise.
            entry: what the writer holds now.
            at_s: when, in simulated seconds.
            before: what it held before.
        """
        write = Write(entry.stamp, entry.payload, entry.actor, entry.sequence, at_s)
        writes = self._writes.setdefault((document, key), {})
        if writes and (before is None or next(reversed(writes)) != before.stamp):
            self.concurrent_count += 1
        writes[entry.stamp] = write
        self.count += 1
        self.removal_count += entry.payload is None
        self.latest_wall_ms = max(self.latest_wall_ms, entry.stamp.wall_ms)

    def knows(self, document: str, key: str, entry: LWWEntry) -> bool:
        """Tell whether somebody wrote this entry."""
        write = self._writes.get((document, key), {}).get(entry.stamp)
        return write is not None and write.payload == entry.payload

    def knows_value(self, document: str, key: str, payload: bytes | None) -> bool:
        """Tell whether somebody wrote this value, or removed the key."""
        writes = self._writes.get((document, key), {}).values()
        return any(write.payload == payload for write in writes)

    def knows_removal(self, document: str, key: str, entry: LWWEntry) -> bool:
        """Tell whether an entry is a removal that was made at its time, by whomever.

        Whoever keeps one of a writer that nobody counts is its writer from then on.
        """
        writes = self._writes.get((document, key), {}).values()
        time = entry.stamp[:2]
        return entry.payload is None and any(
            write.payload is None and write.stamp[:2] == time for write in writes
        )

    def note_rejoined(self, actor: ActorId) -> None:
        """Note that a node came back as this writer, and wrote known values again as it did."""
        self._rejoined.add(actor)

    def note_restamped(self, old: ActorId, new: ActorId, *, back_ms: int) -> None:
        """Note that a node's writes travel under earlier stamps, as another writer's.

        They are known as they were before, too: a file may have them so.
        """
        for writes in self._writes.values():
            for write in [each for each in writes.values() if each.actor == old]:
                stamp = Stamp(write.stamp.wall_ms - back_ms, write.stamp.logical, new)
                writes[stamp] = evolve(write, stamp=stamp, actor=new)
        self.others.note_renamed(old, new)
        for writer, later in self._renamed.items():
            if later == old:
                self._renamed[writer] = new
        self._renamed[old] = new

    def renamed(self, vector: Mapping[ActorId, int]) -> dict[ActorId, int]:
        """Return a vector with the writers as they are now whose writes were stamped again."""
        return {self._renamed.get(actor, actor): number for actor, number in vector.items()}

    def has_rejoined(self, actor: ActorId) -> bool:
        """Tell whether a node came back as this writer.

        What it wrote again may be replaced before anyone looks at it, and travels all the same.
        """
        return actor in self._rejoined

    def was_removed_after(self, document: str, key: str, stamp: Stamp) -> bool:
        """Tell whether the key was removed later than a write."""
        writes = self._writes.get((document, key), {}).values()
        return any(write.payload is None and write.stamp > stamp for write in writes)

    def pardon(self, document: str, key: Any) -> None:
        """Note that a node reported a write as lost: it was not dropped silently.

        Args:
            document: where it was made.
            key: likewise; None for the whole document.
        """
        self._pardoned.add((document, key))
        self.others.pardon(document)

    def note_collected(self, document: str, key: str) -> None:
        """Note that a node has forgotten a removal, and the number of changes with it."""
        self._collected.add((document, key))

    def was_collected(self, document: str, key: str) -> bool:
        """Tell whether any node has forgotten a removal of a key."""
        return (document, key) in self._collected

    def certain(self, vectors: Iterable[Mapping[ActorId, int]]) -> dict[Place, Write]:
        """Return the latest write of each place that one of some nodes holds.

        Args:
            vectors: of the nodes that survive.
        """
        vectors = list(vectors)
        certain: dict[Place, Write] = {}
        for place, writes in self._writes.items():
            held = [
                write
                for write in writes.values()
                if any(vector.get(write.actor, 0) >= write.sequence for vector in vectors)
            ]
            if held and not self._pardoned & {place, (place[0], None)}:
                certain[place] = max(held, key=lambda write: write.stamp)
        return certain
