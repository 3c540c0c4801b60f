"""State transfers that come in: pages are joined at once, the clock with the last one.

What one side's clock covers and that side does not have is removed; that holds both ways. An
entry in a page that this clock covers and that is not here is dead and not taken (by the type,
`absorb_snapshot`). An entry here that the sender's clock covers and the sender does not have is
dead too: it is *suspected* when the page of its bucket comes without it, and dropped when the
transfer is complete, together with the join of the clock that proves it.
Source: the optimized observed-remove set (Bieniusa et al., "An optimized conflict-free
replicated set", 2012), with numbered entries in place of dots.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import define, field

from meshlib.crdt import registry
from meshlib.errors import ClockSkewError, LimitExceeded, RemoteError
from meshlib.limits import ACTORS_MAX
from meshlib.replication.document import Document, Prunable, latest_stamp
from meshlib.replication.parts import Parts
from meshlib.replication.records import ActorForgotten, Change, IdentityStolen, PageSkipped
from meshlib.replication.snapshot import PageContent, SnapshotPage
from meshlib.replication.vector import BASE, Clock, clock_hash, is_mark, marked_number

__all__ = ["Arrivals"]

ARRIVALS_MAX: Final = 4
"""Transfers kept track of at a time; only what was suspected is lost of an older one."""

DOCUMENTS_REFUSED_MAX: Final = 4096


@define(slots=True, eq=False)
class _Arrival:
    """One transfer.

    Args:
        clock_hash: of the sender's clock.
        next_index: how many pages came, in order.
        is_last_in: whether the last one did.
        suspects: document to key to (stamp, number) of what the sender does not have.
        whole: documents of which nothing was passed over, here or at the sender.
        held: pages that wait for this node's clock.
        held_bytes: their size.
        clock: the sender's clock, when all pages are in but some wait.
    """

    clock_hash: int
    next_index: int = 0
    is_last_in: bool = False
    suspects: dict[str, dict[Any, tuple[Any, int]]] = field(factory=dict)
    whole: dict[str, bool] = field(factory=dict)
    held: list[tuple[str, PageContent]] = field(factory=list)
    held_bytes: int = 0
    clock: Clock | None = None


class Arrivals:
    """Absorbs pages into the parts of one replica.

    Args:
        parts: the replica's.
    """

    __slots__ = ("_arrivals", "_parts", "_refused")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._arrivals: dict[int, _Arrival] = {}
        self._refused: dict[str, int] = {}

    def absorb(self, page: SnapshotPage) -> None:
        """Join a page: see `Replica.absorb_page`."""
        content = PageContent.decode(page.state)
        arrival = self._arrivals.get(content.transfer)
        if arrival is None:
            arrival = _Arrival(content.clock_hash)
        is_next = content.index == arrival.next_index
        if arrival.held:
            if is_next:
                self._hold(page.document, content, arrival)
        else:
            try:
                self._absorb(page.document, content, arrival, is_next=is_next)
            except ClockSkewError:
                self._hold(page.document, content, arrival)
            except RemoteError as error:
                self._refuse(page.document, arrival, error)
        if is_next:
            arrival.next_index += 1
            arrival.is_last_in = content.is_last
        self._arrivals[content.transfer] = arrival
        if len(self._arrivals) > ARRIVALS_MAX:
            del self._arrivals[next(iter(self._arrivals))]

    def _hold(self, name: str, content: PageContent, arrival: _Arrival) -> None:
        """Keep a page until it is plausible, and those behind it: their order matters."""
        size = arrival.held_bytes + len(content.part)
        limit = self._parts.config.gap_buffer_bytes_max
        if size > limit:
            raise LimitExceeded("pages ahead of this clock", size=size, limit=limit)
        arrival.held.append((name, content))
        arrival.held_bytes = size

    def _absorb(self, name: str, content: PageContent, arrival: _Arrival, *, is_next: bool) -> None:
        parts = self._parts
        part = registry.decode(content.part)
        document = parts.documents.for_remote(name, part)
        stamp = latest_stamp(part)
        if stamp is not None:
            parts.clock.observe(stamp)
        is_whole = content.is_whole and arrival.whole.get(name, True)
        arrival.whole[name] = is_whole
        can_tell = is_next and is_whole and not content.is_repair and not document.skipped
        if content.begun and can_tell and isinstance(document.state, Prunable):
            self._suspect(document, content.begun, arrival)
        if content.is_repair:
            new = document.absorb(part)
        else:
            new = document.absorb_known(part, covers=parts.vector.covers)
        suspects = arrival.suspects.get(name)
        if suspects and isinstance(part, Prunable):
            for key, _ in part.entries():
                suspects.pop(key, None)
        parts.documents.put(document)
        if not new.is_bottom():
            parts.journal.note(Change(name, new, False))

    @staticmethod
    def _suspect(document: Document, begun: tuple[int, ...], arrival: _Arrival) -> None:
        suspects = arrival.suspects.setdefault(document.name, {})
        for key, entry in document.state.part(begun).entries():
            suspects[key] = entry.stamp, entry.sequence

    def _refuse(self, name: str, arrival: _Arrival, error: RemoteError) -> None:
        """Pass over a document that could not be read several times, else raise.

        Otherwise one document that this node cannot read would keep it from ever taking a state.
        """
        count = self._refused.pop(name, 0) + 1
        self._refused[name] = count
        if len(self._refused) > DOCUMENTS_REFUSED_MAX:
            del self._refused[next(iter(self._refused))]
        if count < self._parts.config.rejections_max:
            raise error
        arrival.whole[name] = False
        arrival.suspects.pop(name, None)
        self._parts.documents.skip(name, BASE, 0)
        if count == self._parts.config.rejections_max:
            self._parts.journal.emit(
                PageSkipped(document=name, reason=error.reason, detail=str(error))
            )

    def complete(self, clock: Clock) -> bool:
        """Join the sender's clock; False when pages wait for this node's clock first.

        Raises:
            LimitExceeded: the clock has more actors than allowed. State unchanged.
        """
        vector = self._parts.vector
        if len(clock.keys() | vector.view.keys()) > ACTORS_MAX:
            raise LimitExceeded("actors", size=len(clock), limit=ACTORS_MAX)
        sender_hash = clock_hash(clock)
        complete = [
            arrival
            for arrival in self._arrivals.values()
            if arrival.is_last_in and arrival.clock_hash == sender_hash
        ]
        for arrival in complete:
            if arrival.held:
                arrival.clock = dict(clock)
                return False
        for arrival in complete:
            self._bury(arrival, clock)
            for name, is_whole in arrival.whole.items():
                if is_whole:
                    self._parts.documents.heal(name, clock)
        self._arrivals = {
            transfer: arrival
            for transfer, arrival in self._arrivals.items()
            if arrival not in complete
        }
        for actor, sequence in clock.items():
            self._join(actor, sequence)
        return True

    def release(self) -> bool:
        """Join pages that have become plausible; tell whether a transfer was completed by it."""
        for arrival in list(self._arrivals.values()):
            waiting, arrival.held = arrival.held, []
            for position, (name, content) in enumerate(waiting):
                try:
                    self._absorb(name, content, arrival, is_next=True)
                except ClockSkewError:
                    arrival.held = waiting[position:]
                    break
                except RemoteError as error:  # it was read when it came, so state has changed
                    arrival.whole[name] = False
                    self._parts.documents.skip(name, BASE, 0)
                    self._parts.journal.emit(
                        PageSkipped(document=name, reason=error.reason, detail=str(error))
                    )
            arrival.held_bytes = sum(len(content.part) for _, content in arrival.held)
            if arrival.clock is not None and not arrival.held:
                return self.complete(arrival.clock)
        return False

    def _bury(self, arrival: _Arrival, clock: Clock) -> None:
        """Drop what the sender's clock covers and the sender does not have."""
        for name, suspects in arrival.suspects.items():
            document = self._parts.documents.get(name)
            dead, is_any_live = [], False
            for key, (stamp, sequence) in suspects.items():
                entry = document.state.entry(key)
                covered = marked_number(clock.get(stamp.actor, 0))
                if entry is None or entry.stamp != stamp or not 0 < sequence <= covered:
                    continue
                dead.append(key)
                is_any_live = is_any_live or entry.payload is not None
            if dead:
                document.state.drop(dead)
            if is_any_live:
                self._parts.journal.note(Change(name, document.state.copy(), False, True))

    def _join(self, actor: Any, sequence: int) -> None:
        """Join one writer's number, or take over that it was forgotten."""
        parts, number = self._parts, marked_number(sequence)
        forgotten = parts.vector.forgotten.get(actor)
        if number <= parts.vector.get(actor):
            return
        if forgotten is not None:
            parts.vector.forgotten[actor] = max(number, forgotten)
        elif actor == parts.actor:
            if is_mark(sequence):
                parts.journal.emit(ActorForgotten(actor=actor))
            else:
                parts.journal.emit(IdentityStolen(actor=actor, sequence=sequence))
        elif is_mark(sequence):
            parts.log.forget(actor)
            parts.gaps.drop(actor)
            parts.vector.forget(actor, number)
        else:
            parts.vector.set(actor, sequence)
            parts.log.skip_to(actor, sequence)
