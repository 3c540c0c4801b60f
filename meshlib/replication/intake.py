"""Entries from peers: what is new is absorbed, what is early waits, what is bad is refused.

Rule: nothing a peer sends raises here, and the vector never moves over a number that was not
absorbed, but for one case: an entry that nobody can give in a form that can be read is passed
over, with an event, and its document is marked (`HeldDocument.skipped`). Holding the vector instead
would hold up everything else that writer does, for ever, for one document's sake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from meshlib.crdt import registry
from meshlib.errors import ClockSkewError, LimitExceeded, RejectReason, RemoteError
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import ACTORS_MAX
from meshlib.replication.parts import Parts
from meshlib.replication.records import (
    Change,
    EntriesHeld,
    EntrySkipped,
    Gap,
    GapBufferFull,
    IdentityStolen,
    LogEntry,
    LogShortened,
    Received,
    Rejection,
)

__all__ = ["Intake"]

REJECTIONS_KEPT_MAX = 4096
"""Entries whose refusals are counted; the count of the oldest begins anew beyond it."""


class Intake:
    """Absorbs entries into the parts of one replica.

    Args:
        parts: the replica's.
    """

    __slots__ = ("_held", "_parts", "_rejections")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rejections: dict[tuple[ActorId, int], int] = {}
        self._held: set[ActorId] = set()

    def receive(self, entries: Iterable[LogEntry]) -> Received:
        """Absorb a batch: see `Replica.receive`."""
        parts = self._parts
        received = Received()
        waiting: dict[ActorId, None] = {}
        for entry in entries:
            actor = entry.actor
            have = parts.vector.get(actor)
            if entry.last <= have:
                continue
            if actor == parts.actor or actor in parts.vector.forgotten:
                self._refuse_writer(entry, received)
            elif entry.first > have + 1:
                self._keep(entry)
                waiting[actor] = None
            elif not self._absorb(entry, have, received):
                waiting[actor] = None
            elif actor in parts.gaps:
                self._drain(actor, received)
                waiting[actor] = None
        return self._finish(received, waiting)

    def release(self) -> Received:
        """Absorb what waits and can be absorbed by now: see `Replica.release`."""
        received = Received()
        actors = self._parts.gaps.actors()
        for actor in actors:
            self._drain(actor, received)
        return self._finish(received, actors)

    def forget(self, actor: ActorId) -> None:
        """Drop what is kept about a writer."""
        self._held.discard(actor)
        self._parts.gaps.drop(actor)
        for key in [key for key in self._rejections if key[0] == actor]:
            del self._rejections[key]

    def _finish(self, received: Received, actors: Iterable[ActorId]) -> Received:
        parts = self._parts
        for actor in actors:
            received.gaps.extend(parts.gaps.gaps(actor, have=parts.vector.get(actor)))
        for rejection in received.rejected:
            entry = rejection.entry
            have = parts.vector.get(entry.actor)
            if rejection.reason is not RejectReason.IDENTITY and entry.last > have:
                received.gaps.append(Gap(entry.actor, have + 1, entry.last))
        if received.new:
            self.shorten_log()
        if self._held:
            # Of whom nothing waits any more, for want of room or because a state brought it.
            self._held.intersection_update(parts.gaps.actors())
        return received

    def shorten_log(self) -> None:
        """Bring the log under its limit, with an event when that drops entries."""
        parts = self._parts
        if parts.log.is_over:
            dropped = parts.log.shorten()
            if dropped:
                parts.journal.emit(LogShortened(entry_count=dropped))

    def _refuse_writer(self, entry: LogEntry, received: Received) -> None:
        """Refuse an entry of this node's own actor, or of one that was forgotten."""
        parts = self._parts
        if entry.actor == parts.actor:
            detail = "an entry of this node's own actor that it did not write"
            parts.journal.emit(IdentityStolen(actor=entry.actor, sequence=entry.last))
        elif entry.last <= parts.vector.forgotten[entry.actor]:
            return
        else:
            detail = "its writer was forgotten here: it has to come back as a new one"
        received.rejected.append(Rejection(entry, RejectReason.IDENTITY, detail))

    def _keep(self, entry: LogEntry) -> None:
        if not self._parts.gaps.put(entry):
            self._parts.journal.emit(GapBufferFull(actor=entry.actor, first=entry.first))

    def _drain(self, actor: ActorId, received: Received) -> None:
        """Absorb the writer's waiting entries that follow its number."""
        parts = self._parts
        while True:
            have = parts.vector.get(actor)
            entry = parts.gaps.pop_next(actor, have=have)
            if entry is None or not self._absorb(entry, have, received):
                return

    def _absorb(self, entry: LogEntry, have: int, received: Received) -> bool:
        """Absorb an entry that follows or overlaps `have`; tell whether the vector moved."""
        parts = self._parts
        try:
            if have == 0 and len(parts.vector) >= ACTORS_MAX:
                raise LimitExceeded("actors", size=ACTORS_MAX + 1, limit=ACTORS_MAX)
            delta: Any = registry.decode(entry.delta)
            document = parts.documents.for_remote(entry.document, delta)
            if document.traits.is_stamped:
                stamp = delta.latest_stamp()
                if stamp is not None:
                    parts.clock.observe(stamp)
            late = parts.late.find(document, delta)
            if entry.first <= have:
                # Some of it was absorbed before, and may have been removed since.
                new = document.absorb_known(delta, covers=parts.vector.covers)
            else:
                new = document.absorb(delta)
        except ClockSkewError as error:
            self._hold(entry, error)
            return False
        except RemoteError as error:
            return self._reject(entry, have, error, received)
        if self._rejections:
            self._rejections.pop((entry.actor, have + 1), None)
        parts.documents.put(document)
        if late:
            parts.late.note(document, late)
        self._advance(entry, received)
        if not new.is_bottom():
            parts.journal.note(Change(entry.document, new, False))
        return True

    def _advance(self, entry: LogEntry, received: Received) -> None:
        parts = self._parts
        parts.vector.set(entry.actor, entry.last)
        parts.log.append(entry)
        received.new.append(entry)
        if self._held:
            self._held.discard(entry.actor)

    def _hold(self, entry: LogEntry, error: ClockSkewError) -> None:
        if entry.actor not in self._held:
            self._held.add(entry.actor)
            self._parts.journal.emit(
                EntriesHeld(actor=entry.actor, first=entry.first, ahead_s=error.ahead_s)
            )
        self._keep(entry)

    def _reject(self, entry: LogEntry, have: int, error: RemoteError, received: Received) -> bool:
        """Refuse an entry, or pass over it once it was asked for often enough."""
        parts = self._parts
        received.rejected.append(Rejection(entry, error.reason, str(error)))
        if have == 0 and len(parts.vector) >= ACTORS_MAX:
            return False
        key = (entry.actor, have + 1)
        count = self._rejections.pop(key, 0) + 1
        if count < parts.config.rejections_max:
            self._rejections[key] = count
            if len(self._rejections) > REJECTIONS_KEPT_MAX:
                del self._rejections[next(iter(self._rejections))]
            return False
        parts.documents.skip(entry.document, entry.actor, entry.last)
        self._advance(entry, received)
        parts.journal.emit(
            EntrySkipped(
                actor=entry.actor,
                first=entry.first,
                last=entry.last,
                document=entry.document,
                reason=error.reason,
                detail=str(error),
            )
        )
        return True

    def diagnostics(self) -> Mapping[str, Any]:
        """Show which entries were refused how often, and whose wait for this node's clock."""
        return {
            "rejections": MappingProxyType(self._rejections),
            "held": frozenset(self._held),
        }

    def _check(self) -> None:
        """Assert that what is counted has a bound, and that who is held up has entries waiting."""
        parts = self._parts
        require(self, len(self._rejections) <= REJECTIONS_KEPT_MAX, "too many refusals are counted")
        limit = parts.config.rejections_max
        is_within = all(0 < count < limit for count in self._rejections.values())
        require(self, is_within, "an entry was refused too often and not passed over")
        require(self, all(actor in parts.gaps for actor in self._held), "nothing of a writer waits")
        for actor, ranges in parts.gaps.diagnostics()["ranges"].items():
            is_foreign = actor != parts.actor and actor not in parts.vector.forgotten
            require(self, is_foreign, "entries wait that are never absorbed")
            have = parts.vector.get(actor)
            is_ahead = all(last > have for _, last in ranges)
            require(self, is_ahead, "an entry waits that is in the vector")
