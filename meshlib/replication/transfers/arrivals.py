"""State transfers that come in: pages are gathered aside, and joined with the vector at the end.

Content and vector move together: a transfer that breaks off leaves nothing behind, so nothing is
ever here that the vector does not count and nobody else might have. Readers of a node that is not
ready may see maps of numbered entries sooner: beside the state and not in it, see `HeldDocument`.

What one side's vector covers and that side does not have is removed; that holds both ways. An
entry of the sender that this vector covers and that is not here is dead and not taken (by the
type, `absorb_transfer`); an entry here that the sender's vector covers and the sender does not
have is dead and dropped. The sender speaks of the parts that differ from the offer alone; what
came here since the offer, elsewhere in a document, and is dead to the sender, shows that the
offer was too old: then nothing is joined, and the next one names it.
Source: the optimized observed-remove set (Bieniusa et al., "An optimized conflict-free
replicated set", 2012), with numbered entries in place of dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import define, field

from meshlib.clock import Stamp
from meshlib.crdt import Paged, registry
from meshlib.errors import ClockSkewError, LimitExceeded, RemoteError
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import ACTORS_MAX
from meshlib.replication.document import HeldDocument, latest_stamp, size_of
from meshlib.replication.late_writes import Time
from meshlib.replication.page_content import PageContent
from meshlib.replication.parts import Parts
from meshlib.replication.records import ActorForgotten, Change, IdentityStolen, PageSkipped
from meshlib.replication.transfers.pages import TransferPage
from meshlib.replication.vector import BASE, Vector, is_mark, marked_number, vector_hash

__all__ = ["Arrivals"]

ARRIVALS_MAX: Final = 2
"""Transfers gathered at a time; the oldest makes way, having broken off."""

DOCUMENTS_REFUSED_MAX: Final = 4096

SHOWN_AT_ONCE_MAX: Final = 4096
"""Entries of one map that are shown in one step, when its sender has become ready meanwhile."""


@define(slots=True)
class _Gathered:
    """What came of one document.

    Args:
        document: holds the joined parts; not the replica's own.
        begun: buckets that came whole: what they lack the sender does not have.
        is_whole: whether nothing was passed over, here or at the sender.
    """

    document: HeldDocument
    begun: set[int] = field(factory=set)
    is_whole: bool = True


@define(slots=True, eq=False)
class _Arrival:
    """One transfer.

    Args:
        vector_hash: of the sender's vector.
        time: of the sender's hybrid clock.
        horizon: of the removals that the sender has dropped.
        is_repair: whether everything is joined, whatever vectors cover.
        is_shown: whether readers see what came.
        next_index: how many pages came, in order.
        is_last_in: whether the last one did.
        documents: what came of each; None for one that could not be read.
        offered: what this node had when it made the offer; None when there was none.
        entry_count: how many entries it has, about.
        vector: the sender's vector, once it came, when the pages wait for this node's own.
    """

    vector_hash: int
    time: Stamp
    horizon: Time
    is_repair: bool
    offered: Vector | None
    entry_count: int = 0
    is_shown: bool = False
    next_index: int = 0
    is_last_in: bool = False
    documents: dict[str, _Gathered | None] = field(factory=dict)
    vector: Vector | None = None


class Arrivals:
    """Gathers pages, and joins them into the parts of one replica.

    Args:
        parts: the replica's.
    """

    __slots__ = ("_arrivals", "_latest", "_offered", "_parts", "_refused")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._offered: Vector | None = None
        self._arrivals: dict[int, _Arrival] = {}
        self._latest = 0
        self._refused: dict[str, int] = {}

    def expect(self) -> None:
        """Note what this node has, before it is offered: see `Replica.begin_transfer`."""
        self._offered = self._absorbed()

    def gather(self, page: TransferPage, *, is_shown: bool = False) -> None:
        """Take a page: see `Replica.absorb_page`."""
        content = PageContent.decode(page.state, newest=self._parts.page_newest)
        arrival = self._arrivals.get(content.transfer)
        if arrival is None:
            time = Stamp(*content.time, BASE)
            offered, self._offered = self._offered, None
            arrival = _Arrival(
                content.vector_hash,
                time,
                content.horizon,
                content.is_repair,
                offered,
                content.entry_count,
            )
        try:
            part = self._gather(page.document, content, arrival)
            if is_shown and not arrival.is_repair:
                self._show_so_far(arrival)
                self._show(page.document, part, arrival)
        except RemoteError as error:
            self._refuse(page.document, error)
            arrival.documents[page.document] = None
        if content.index == arrival.next_index:
            arrival.next_index += 1
            arrival.is_last_in = content.is_last
            self._latest = content.transfer
        self._arrivals[content.transfer] = arrival
        if len(self._arrivals) > ARRIVALS_MAX:
            del self._arrivals[next(iter(self._arrivals))]

    def _gather(self, name: str, content: PageContent, arrival: _Arrival) -> Any:
        """Join a page into what came of its document; return what it holds."""
        part = registry.decode(content.part)
        # The replica's own document is looked at for its type, and that there is room for it.
        self._parts.documents.for_remote(name, part)
        if name not in arrival.documents:
            tag = registry.type_tag(part)
            state = type(part)()
            if isinstance(state, Paged):
                state.bucket_digests()  # made as the pages come, and not all at once at the end
            arrival.documents[name] = _Gathered(HeldDocument(name, tag=tag, state=state))
        gathered = arrival.documents[name]
        if gathered is not None:
            gathered.document.check_type(part)
            gathered.document.absorb(part)
            gathered.begun.update(content.begun)
            gathered.is_whole = gathered.is_whole and content.is_whole
        return part

    def _show_so_far(self, arrival: _Arrival) -> None:
        """Let readers see what came before its sender could be believed; large maps wait."""
        if arrival.is_shown:
            return
        arrival.is_shown = True
        for name, gathered in arrival.documents.items():
            if gathered is not None and size_of(gathered.document.state) <= SHOWN_AT_ONCE_MAX:
                self._show(name, gathered.document.state, arrival)

    def _show(self, name: str, part: Any, arrival: _Arrival) -> None:
        """Let readers see a page, unless it is from a future that this node does not believe."""
        parts = self._parts
        document = parts.documents.for_remote(name, part)
        if not document.traits.is_prunable or document.skipped:
            return
        stamps = (arrival.time, latest_stamp(part) or arrival.time)
        try:
            # What is written here from now on is to come after what was shown.
            parts.clock.observe(Stamp(*max(stamps)[:2], BASE))
        except ClockSkewError:
            return
        late = parts.late.find(document, part)
        new = document.show(part, covers=parts.vector.covers)
        parts.documents.put(document)
        parts.late.note(document, late)
        if not new.is_bottom():
            parts.journal.note(Change(name, new, False))

    def progress(self) -> tuple[int, int]:
        """Return how many entries of the latest transfer came, and of how many. O(documents)."""
        arrival = self._arrivals.get(self._latest)
        if arrival is None:
            return 0, 0
        gathered = [each for each in arrival.documents.values() if each is not None]
        count = sum(size_of(each.document.state) for each in gathered)
        return count, max(count, arrival.entry_count)

    def _refuse(self, name: str, error: RemoteError) -> None:
        """Pass over a document that could not be read several times, else raise.

        Otherwise one document that this node cannot read would keep it from ever taking a state.
        """
        count = self._refused.pop(name, 0) + 1
        self._refused[name] = count
        if len(self._refused) > DOCUMENTS_REFUSED_MAX:
            del self._refused[next(iter(self._refused))]
        if count < self._parts.config.rejections_max:
            raise error
        self._skip(name, error, is_told=count == self._parts.config.rejections_max)

    def _skip(self, name: str, error: RemoteError, *, is_told: bool = True) -> None:
        self._parts.documents.skip(name, BASE, 0)
        if is_told:
            self._parts.journal.emit(
                PageSkipped(document=name, reason=error.reason, detail=str(error))
            )

    def complete(self, vector: Vector) -> bool:
        """Join the pages of a transfer and its sender's vector.

        Returns:
            False when nothing was joined: the pages are stamped ahead of this node's clock and
            wait for it, or not all of them came, or the offer they answer was too old, and the
            transfer has to begin anew.

        Raises:
            LimitExceeded: the vector has more actors than allowed. State unchanged.
        """
        own = self._parts.vector.view
        if len(vector.keys() | own.keys()) > ACTORS_MAX:
            raise LimitExceeded("actors", size=len(vector), limit=ACTORS_MAX)
        sender_hash = vector_hash(vector)
        complete = {
            transfer: arrival
            for transfer, arrival in self._arrivals.items()
            if arrival.is_last_in and arrival.vector_hash == sender_hash
        }
        if not complete:
            return False
        for arrival in complete.values():
            if not self._observe(arrival):
                arrival.vector = dict(vector)
                return False
        if any(self._is_offer_too_old(arrival, vector) for arrival in complete.values()):
            for transfer in complete:
                del self._arrivals[transfer]
            return False
        for transfer, arrival in complete.items():
            del self._arrivals[transfer]
            for name, gathered in arrival.documents.items():
                if gathered is None:
                    continue
                try:
                    self._join_document(name, gathered, arrival, vector)
                except RemoteError as error:  # it was opened as another type since it came
                    self._skip(name, error)
            self._parts.late.join(arrival.horizon)
        for actor, sequence in vector.items():
            self._join_number(actor, sequence)
        return True

    def _is_offer_too_old(self, arrival: _Arrival, vector: Vector) -> bool:
        """Tell whether something came since the offer that the sender has had and dropped."""
        offered = arrival.offered
        if arrival.is_repair or offered is None:
            return False
        absorbed = self._absorbed().items()
        moved = {a: offered.get(a, 0) for a, n in absorbed if offered.get(a, 0) != n}
        if not moved:
            return False
        for document in self._parts.documents:
            gathered = arrival.documents.get(document.name)
            state, begun, theirs = document.state, frozenset[Any](), None
            if not document.traits.is_prunable:
                continue
            if gathered is not None:
                theirs = gathered.document.state
                begun = frozenset(key for key, _ in state.part(gathered.begun).entries())
            for key, actor, sequence in state.written_by(moved):
                if (
                    moved[actor] < sequence <= marked_number(vector.get(actor, 0))
                    and key not in begun
                    and (theirs is None or theirs.entry(key) is None)
                ):
                    return True
        return False

    def _absorbed(self) -> dict[ActorId, int]:
        """Return what was absorbed of each writer, those forgotten included. O(writers)."""
        vector = self._parts.vector
        return {**vector.forgotten, **vector.view}

    @property
    def is_waiting(self) -> bool:
        """Whether a transfer is whole and waits for this node's vector."""
        return any(arrival.vector is not None for arrival in self._arrivals.values())

    def release(self) -> bool:
        """Complete a transfer that waited; tell whether there was one."""
        for arrival in self._arrivals.values():
            if arrival.vector is not None and self._observe(arrival):
                return self.complete(arrival.vector)
        return False

    def _observe(self, arrival: _Arrival) -> bool:
        """Move this node's hybrid clock past the sender's; False when that is too far ahead."""
        for gathered in arrival.documents.values():
            stamp = None if gathered is None else latest_stamp(gathered.document.state)
            if stamp is not None:
                # A sender's clock is past all stamps that it has, unless it was made up.
                arrival.time = max(arrival.time, Stamp(*stamp[:2], BASE))
        try:
            self._parts.clock.observe(arrival.time)
        except ClockSkewError:
            return False
        return True

    def _join_document(
        self, name: str, gathered: _Gathered, arrival: _Arrival, vector: Vector
    ) -> None:
        parts, theirs = self._parts, gathered.document.state
        document = parts.documents.for_remote(name, theirs)
        is_proof = gathered.is_whole and not arrival.is_repair and not document.skipped
        dead = self._dead(document, gathered, vector) if is_proof else []
        late = parts.late.find(document, theirs)
        if document.take_over(theirs):
            parts.documents.put(document)
            parts.journal.note(Change(name, theirs, False, True))
            if gathered.is_whole:
                parts.documents.heal(name, vector)
            return
        if arrival.is_repair:
            new = document.absorb(theirs)
        else:
            new = document.absorb_known(theirs, covers=parts.vector.covers)
        parts.documents.put(document)
        parts.late.note(document, late)
        is_reset = any(document.state.entry(key).payload is not None for key in dead)
        if dead:
            document.state.drop(dead)
        if is_reset:
            parts.journal.note(Change(name, document.state, False, True))
        elif not new.is_bottom():
            parts.journal.note(Change(name, new, False))
        if gathered.is_whole:
            parts.documents.heal(name, vector)

    @staticmethod
    def _dead(document: HeldDocument, gathered: _Gathered, vector: Vector) -> list[Any]:
        """Return the keys here that the sender's vector covers and the sender does not have."""
        theirs = gathered.document.state
        if not gathered.begun or not document.traits.is_prunable:
            return []
        return [
            key
            for key, entry in document.state.part(gathered.begun).entries()
            if 0 < entry.sequence <= marked_number(vector.get(ActorId(entry.stamp.actor), 0))
            and theirs.entry(key) is None
        ]

    def _join_number(self, actor: ActorId, sequence: int) -> None:
        """Join one writer's number, or take over that it was forgotten."""
        parts, number = self._parts, marked_number(sequence)
        if number <= parts.vector.get(actor):
            return
        if actor in parts.vector.forgotten:
            if number > parts.vector.forgotten[actor]:
                parts.vector.recall(actor, number)
                parts.log.skip_to(actor, number)
        elif actor == parts.actor:
            if is_mark(sequence):
                parts.journal.emit(ActorForgotten(actor=actor))
            else:
                parts.journal.emit(IdentityStolen(actor=actor, sequence=sequence))
        elif is_mark(sequence) and not parts.vector.get(actor):
            parts.log.forget(actor)
            parts.gaps.drop(actor)
            parts.vector.forget(actor, number)
        else:
            parts.vector.set(actor, number)
            parts.log.skip_to(actor, number)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how far the transfers that come in are, and what could not be read."""
        return {
            "arrivals": {
                transfer: (arrival.next_index, arrival.is_last_in, tuple(arrival.documents))
                for transfer, arrival in self._arrivals.items()
            },
            "refused": MappingProxyType(self._refused),
        }

    def _check(self) -> None:
        """Assert that what is gathered is apart from what is held, and has a bound."""
        require(self, len(self._arrivals) <= ARRIVALS_MAX, "too many transfers are gathered")
        require(self, len(self._refused) <= DOCUMENTS_REFUSED_MAX, "too many refusals are counted")
        held = {id(document.state) for document in self._parts.documents}
        for arrival in self._arrivals.values():
            is_whole = arrival.is_last_in or arrival.vector is None
            require(self, is_whole, "a vector came before the last page")
            for name, gathered in arrival.documents.items():
                if gathered is not None:
                    is_its_own = gathered.document.name == name
                    require(self, is_its_own, "a document is gathered under another name")
                    is_apart = id(gathered.document.state) not in held
                    require(self, is_apart, "what is gathered is what is held")
