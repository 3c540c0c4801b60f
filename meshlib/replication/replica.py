"""The replica: documents, this node's log of them, and its vector.

Everything that changes a document or moves the vector enters here, in one of three ways: a local
`write`, an entry that is `receive`d, a page of a peer's state. Invariants of the design:

- R1: equal vectors mean equal live state.
- R2: a transfer never resurrects: a numbered entry that one side's vector covers and that is not
  there is dead.
- R3: what cannot be kept is an event.
- R4: what is removed comes back by a later write only: see `LateWrites`.

No IO and no time of its own: stamps come from the injected `HybridClock`, and what waits for a
grace period takes `now`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from meshlib.codec import decode_value
from meshlib.errors import StateError
from meshlib.identity import ActorId
from meshlib.invariants import Inspectable, check_parts, require
from meshlib.replication.entries.restamping import SetBack, restamp_own_writes
from meshlib.replication.entries.shortening import ShortEntries
from meshlib.replication.exchanging import ExchangingReplica, ReplicaState
from meshlib.replication.journal import QuietJournal
from meshlib.replication.parts import Parts
from meshlib.replication.records import ActorForgotten, Change, RejoinReport
from meshlib.replication.rejoin import setter, write_again
from meshlib.replication.vector import BASE, Vector, is_mark, marked_number
from meshlib.replication.writes import OpenWrites

__all__ = ["Replica", "ReplicaState", "SetBack"]


class Replica(ExchangingReplica):
    """Named documents that converge with those of every other replica.

    Args:
        actor: the writer that this node is, fresh for every start.
        clock: mints and judges stamps; of the same actor.
        config: the limits.
        page_newest: the newest version of pages that is read.

    Raises:
        StateError: the clock is of another actor.
    """

    # Upkeep

    def trim(self, stable: Mapping[ActorId, int]) -> int:
        """Drop what every live member has from the log; return how many entries.

        Also joins neighbours in the log's older half, a bounded number at each call.

        Args:
            stable: by `StabilityTracker.stable`.
        """
        dropped = self._parts.log.trim(stable)
        self._parts.log.join_adjacent()
        return dropped

    def collect_tombstones(self, settled: Mapping[ActorId, int], *, now: float) -> int:
        """Drop the tombstones whose removal is settled and past its grace. O(documents).

        Args:
            settled: what is stable by both conditions, by `StabilityTracker.settled`.
            now: monotonic seconds.

        Returns:
            how many were dropped; none while `is_rejoining`, for what was removed meanwhile must
            still be known when this node writes again what it had.
        """
        if self.is_rejoining:
            return 0
        vector = self._parts.vector
        aged = self._grace.aged(vector.view, now=now)
        forgotten, late = vector.forgotten, self._parts.late

        def is_settled(entry: Any) -> bool:
            actor, sequence = entry.actor, entry.sequence
            upto = min(settled.get(actor, 0), aged.get(actor, 0))
            is_dropped = 0 < sequence <= max(upto, forgotten.get(actor, 0))
            if is_dropped:
                late.join(entry.stamp[:2])
            return bool(is_dropped)

        return sum(
            document.state.collect(is_settled)
            for document in self._parts.documents
            if document.traits.is_numbered
        )

    def write_late(self) -> int:
        """Write again what came after removals that it may come before were dropped: rule R4.

        To be called now and then; what came since the last call waits for the next one, and all
        of it while readers see a state that is coming still. O(what came late + documents).

        Returns:
            how many keys were written again.
        """
        if self.is_rejoining or self.has_early:
            return 0
        count = 0
        late = self._parts.late
        for name, key in late.drain():
            document: Any = self.get(name)
            entry = document.entry(key)
            if entry is not None and entry.payload is not None and late.is_late(entry.stamp):
                self._write(name, setter(key, decode_value(entry.payload)))
                count += 1
        return count

    def forget(self, actor: ActorId) -> None:
        """Take a writer out of the vector and refuse its entries from now on. O(its entries).

        For a writer whose node was forgotten, or has come back as another writer for so long.
        Its content stays. Every live node must have had time to get it.

        Raises:
            StateError: it is this node's own actor. State unchanged.
        """
        parts = self._parts
        if actor == parts.actor:
            raise StateError("a node cannot forget its own actor")
        sequence = parts.vector.get(actor)
        if sequence == 0 or actor == BASE:
            return
        self._intake.forget(actor)
        parts.log.forget(actor)
        parts.vector.forget(actor, sequence)
        if parts.vector.get(BASE) == 0:
            parts.vector.set(BASE, 1)
            parts.log.skip_to(BASE, 1)

    def learn_forgotten(
        self,
        peer_vector: Vector,
        *,
        keep: Collection[ActorId],
        is_lacking: Callable[[ActorId, int], bool] = lambda _actor, _sequence: False,
    ) -> list[ActorId]:
        """Forget the writers that a peer's vector marks as forgotten; return them.

        Args:
            peer_vector: as it was sent.
            keep: the actors of the members, which are not forgotten on a peer's word.
            is_lacking: `is_lacking(actor, sequence)`: whether a member has forgotten a writer with
                less. It must be counted until that member has it too.
        """
        learned: list[ActorId] = []
        for actor, sequence in peer_vector.items():
            if not is_mark(sequence):
                continue
            held = self._parts.vector.get(actor)
            if actor == self.actor or held > marked_number(sequence):
                self._served.journal.emit(ActorForgotten(actor=actor))
            elif (
                # With less than the peer has seen, the rest has to come from its state first.
                held == marked_number(sequence) > 0
                and actor not in keep
                and not is_lacking(actor, held)
            ):
                self.forget(actor)
                learned.append(actor)
        return learned

    # Stamping again

    def stamp_again(self, actor: ActorId, *, back_ms: int, set_back: SetBack | None = None) -> int:
        """Put all that was written here under earlier stamps, as another writer. O(content).

        For who learns that its clock was ahead, before anybody else has any of it and before
        anything of others was absorbed, but for an imported state, whose writes stay. See
        `entries/restamping.py`.

        Args:
            actor: the new writer, never used before.
            back_ms: by how much, in milliseconds; over 0.
            set_back: how the wall clock was set back, if it is because of that: what was
                written since is left as it is, or put to that time.

        Returns:
            by how much it was; 0 when nothing was changed.

        Raises:
            StateError: the actor is the present one, this node comes back from an absence, or
                readers are shown what is not joined yet. State unchanged.
        """
        parts, old = self._parts, self.actor
        if actor == old or self.is_rejoining or self.has_early:
            raise StateError("only what nobody else has is stamped again, as a new writer")
        self._close_writes()
        back_ms = restamp_own_writes(
            parts, actor, back_ms=back_ms, floor=self._floor, set_back=set_back
        )
        if back_ms:
            self._writes.take_unsent()  # they are in the log, as they are now
            parts.shorts = ShortEntries()
            for writer, later in self._former.items():
                if later == old:
                    self._former[writer] = actor
            self._former[old] = actor
        return back_ms

    # Coming back

    def begin_rejoin(self, actor: ActorId, *, was_present: bool = False) -> None:
        """Begin to come back as a new writer, after being out of contact for too long.

        From now on this replica is empty to its peers: entries and pages fill a second set of
        documents. Readers and writers are served from the former one until `finish_rejoin`.
        Beginning again starts over. What is open keeps its type: a peer's document of that name
        and of another type is refused.

        Args:
            actor: the new writer, never used before.
            was_present: whether this node was never out of contact: then all that it has and a
                peer lacks is written again, whatever that peer's vector covers.

        Raises:
            StateError: the actor is the present one. State unchanged.
        """
        served = self._served
        if actor == served.actor:
            raise StateError("a node comes back as a new actor")
        self._close_writes()
        for document in served.documents:
            # It goes on with what it had: what was on its way to it comes again.
            if document.hide():
                served.journal.note(Change(document.name, document.state, False, True))
        writes = self._writes
        journal = QuietJournal(served.journal)
        self._begin(Parts(actor, served.clock, self.config, journal, served.page_newest))
        for document in served.documents:
            self._parts.documents.open(document.name, document.tag)
        self._writes = writes
        self._served = served
        self._was_present = was_present

    def finish_rejoin(self) -> RejoinReport:
        """Take over what was adopted, and write again what only this node had. O(content).

        To be called once this replica `reaches` the vector of the peer it adopts, by a transfer
        or by entries. When that is the empty vector, the peer has nothing or is coming back
        itself: then this node goes on with what it had, as the new writer, and the two join as
        any two do. Subscribers get every document anew, as changes with `is_reset`.

        Raises:
            StateError: no `begin_rejoin` before. State unchanged.
        """
        if not self.is_rejoining:
            raise StateError("finish_rejoin without begin_rejoin")
        former, parts = self._served, self._parts
        old, new = former.actor, parts.actor
        former.clock.actor = new
        if not parts.vector.view:
            self._writes.close()
            unsent = self._writes.take_unsent()
            former.actor = new
            self._begin(former)
            self._writes.put_unsent(unsent)
            return RejoinReport(old, new, 0, ())
        parts.journal = former.journal
        self._served = parts
        self._writes = OpenWrites(parts)
        for document in parts.documents:
            parts.journal.note(Change(document.name, document.state, False, True))
        kept, lost = write_again(former, parts, self._write, was_present=self._was_present)
        parts.late.join(former.late.horizon)
        return RejoinReport(old, new, kept, tuple(lost))

    def inspectable(self) -> Mapping[str, Inspectable]:
        """Return every part that keeps something, this one included, by name.

        The same mapping until this replica begins again. O(1).
        """
        parts, known = self._parts, self._inspectable
        if known is None or known[0] is not parts or known[1] is not self._writes:
            found: Mapping[str, Inspectable] = {
                "replica": self, "vector": parts.vector, "log": parts.log,
                "gap_buffer": parts.gaps, "documents": parts.documents, "late_writes": parts.late,
                "journal": self._served.journal, "open_writes": self._writes,
                "intake": self._intake, "arrivals": self._arrivals, "grace_period": self._grace,
                "short_entries": parts.shorts,
            }  # fmt: skip
            known = self._inspectable = parts, self._writes, found
        return known[2]

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who writes here, and whether it comes back from a long absence."""
        return {
            "actor": self._parts.actor,
            "is_rejoining": self.is_rejoining,
            "numbers": self._parts.vector.view,
            "log_ends": self._parts.log.ends(),
            "reserved": self._writes.reserved,
        }

    def _check(self) -> None:
        """Assert what must hold in every part and between them."""
        check_parts({name: each for name, each in self.inspectable().items() if each is not self})
        parts, vector = self._parts, self._parts.vector
        if not self.is_rejoining:
            reserved = vector.get(parts.actor) + self._writes.group_count
            is_right = reserved == self._writes.reserved
            require(self, is_right, "reserved numbers and open groups do not agree")
        is_at_vector = all(end == vector.get(actor) for actor, end in parts.log.ends().items())
        require(self, is_at_vector, "the log ends elsewhere than the vector")
        names = parts.late.diagnostics()["waiting"]
        is_here = all(parts.documents.find(name) is not None for name in names)
        require(self, is_here, "a write came late to a document that is not here")
