"""What a replica does with its peers: entries and whole states, taken and given.

Rule: what a peer lacks is found from vectors and digests alone, and what it sends is joined
through `Intake` and `Arrivals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from attrs import frozen

from meshlib.crdt import LWWMap, text_named
from meshlib.errors import DecodeError, RejectReason, StateError
from meshlib.identity import ActorId
from meshlib.limits import ENTRY_BYTES_MAX, TRANSFER_PAGE_BYTES_MAX
from meshlib.replication.entries.shortening import whole
from meshlib.replication.local import LocalReplica
from meshlib.replication.page_content import PAGE_VERSION
from meshlib.replication.records import Change, Gap, Lacking, LogEntry, Received, ShortEntry
from meshlib.replication.transfers import digests
from meshlib.replication.transfers.arrivals import Arrivals
from meshlib.replication.transfers.pages import TransferPage, TransferPages
from meshlib.replication.transfers.paging import encoded_pieces
from meshlib.replication.vector import Vector
from meshlib.replication.writes import WriteContext

__all__ = ["ExchangingReplica", "ReplicaState"]


@frozen(slots=True)
class ReplicaState:
    """A whole replica, to keep on disk.

    Args:
        actor: who wrote it; never to be used again.
        vector: its vector, marks included.
        pages: its documents.
    """

    actor: ActorId
    vector: Mapping[ActorId, int]
    pages: tuple[TransferPage, ...]


def _taken_over(delta: Any, state: Any, context: WriteContext) -> Any:
    """Return what was another's as it is, but for removals: of those this node is the writer now.

    Of a value it does not matter whether anybody counts its writer; a tombstone stays until all
    are known to have seen it.
    """
    if isinstance(delta, LWWMap):
        return delta.with_removals_by(context.actor, sequence=context.sequence, unless=state)
    return delta


class ExchangingReplica(LocalReplica):
    """Documents that converge with those of peers: see `Replica`, which has the rest."""

    # Vectors

    @property
    def version_vector(self) -> Mapping[ActorId, int]:
        """The vector: writer to the highest number absorbed without a gap. A live view.

        While `is_rejoining` it is the vector of what was adopted so far.
        """
        return self._parts.vector.view

    # Entries from peers

    def receive(self, entries: Iterable[LogEntry]) -> Received:
        """Absorb entries of peers. O(size); never raises on what they hold.

        An entry is dropped as a duplicate by its number alone, absorbed, or kept until the gap
        before it is filled. One that cannot be read is rejected and the vector stays, so that it
        is asked for again, perhaps from another peer; after `rejections_max` times it is passed
        over with an `EntrySkipped` event, forwarded as it is, and the writer's later entries go
        on: one bad entry harms its document here and not everything its writer does.
        An entry stamped further ahead than the clock allows waits, with what follows it, for
        `release`.

        Returns:
            what was new, which gaps to ask for, and what was refused.
        """
        if self._writes:
            self._close_writes()
        return self._intake.receive(entries)

    def shortest(self, entry: LogEntry) -> LogEntry | ShortEntry:
        """Return an entry as it is to be pushed: without what its readers are likely to have. O(1).

        The entry itself where nothing is known of it, or it is no longer new.
        """
        return self._parts.shorts.get(entry)

    def whole(self, short: ShortEntry) -> LogEntry | None:
        """Return the entry that a short one stands for, by what is here; None without all of it.

        Then it is asked for as one that was lost. O(size); never raises on what it holds.
        """
        document = self._parts.documents.find(short.document)
        if document is None:
            return None
        entry = whole(short, partial(text_named, document.state))
        if entry is not None:
            self._parts.shorts.put(short)
        return entry

    def release(self) -> Received:
        """Absorb what waited for this node's clock and has become plausible. O(what waits)."""
        self._close_writes()
        is_complete = self._arrivals.release()
        received = self._intake.release()
        if is_complete and not self.is_rejoining:
            self.keep_early()
        return received

    # What peers lack

    def lacking(self, peer_vector: Vector, *, bytes_max: int) -> Lacking:
        """Return what a peer lacks, from the log. O(actors + entries returned).

        Writers it does not know come first, then small documents.

        Args:
            peer_vector: the peer's vector, as it sent it.
            bytes_max: of the entries together; a single one may be over it.
        """
        parts = self._parts
        found = parts.log.lacking(parts.vector.view, peer_vector, bytes_max=bytes_max)
        if parts.vector.lacks_forgotten(peer_vector):
            return Lacking(found.entries, True, False)
        return found

    def entries_between(self, gap: Gap, *, bytes_max: int) -> Lacking:
        """Return the entries that fill a peer's gap, from the log. O(entries returned)."""
        return self._parts.log.between(gap, bytes_max=bytes_max)

    def advertised_vector(
        self, *, named: Iterable[ActorId] = (), is_complete: bool = False
    ) -> dict[ActorId, int]:
        """Return the vector to send to peers: `version_vector`, and marks. O(actors).

        A mark tells that a writer was forgotten here and nothing of it is needed. A vector
        without marks is understood too, and costs a needless transfer while peers differ in
        whom they have forgotten.

        Args:
            named: writers that are marked as well, if they were forgotten: those of the vector
                that this one answers.
            is_complete: mark all of the forgotten, and not the newest alone.
        """
        return self._parts.vector.advertised(named=named, is_complete=is_complete)

    def marks(self, actors: Iterable[ActorId]) -> dict[ActorId, int]:
        """Return the marks of those among some writers that were forgotten. O(those)."""
        return self._parts.vector.marks(actors)

    def latest_vector(self, count: int) -> dict[ActorId, int]:
        """Return the numbers of the vector that moved last, `count` at most. O(count)."""
        return self._parts.vector.latest(count)

    def rest_hash(self, actors: Iterable[ActorId]) -> int:
        """Return the hash of the vector without some writers; marks do not count. O(those)."""
        return self._parts.vector.rest_hash(actors)

    def names_forgotten(self, peer_vector: Vector) -> bool:
        """Tell whether a peer counts writers that were forgotten here, and lacks nothing of them.

        Then the marks in this node's vector are all that it needs. O(peer's actors).
        """
        vector = self._parts.vector
        return vector.names_forgotten(peer_vector) and not vector.lacks_forgotten(peer_vector)

    def reaches(self, peer_vector: Vector) -> bool:
        """Tell whether all that a peer's vector names was absorbed here. O(actors)."""
        return self._parts.vector.reaches(peer_vector)

    def vector_hash(self) -> int:
        """Return 64 bits that are equal for equal vectors. O(1)."""
        return self._parts.vector.hash()

    def content_digest(self) -> int:
        """Return 64 bits that are equal for equal live content. O(documents).

        Compare it only when no writes are open here: they are in the content and in no vector.
        """
        return digests.content_digest(self._parts.documents)

    # State transfers

    def begin_transfer(self) -> None:
        """Note that a peer's state is about to be asked for, before the first offer. O(actors).

        Entries of others may come between the offer and the last page; should one of them be
        dead to the peer, `complete_transfer` joins nothing, and the next transfer settles it.
        """
        self._arrivals.expect()

    def transfer_offer(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return what this node has: document to type tag and bucket digests. O(buckets)."""
        return {
            document.name: (document.tag, digests.document_digests(document.state))
            for document in self._parts.documents
        }

    def transfer_pages(
        self,
        their_offer: digests.DocumentDigests,
        *,
        page_bytes_max: int = TRANSFER_PAGE_BYTES_MAX,
        is_repair: bool = False,
        page_version: int = PAGE_VERSION,
    ) -> TransferPages:
        """Return the pages that a peer needs, written one by one as they are asked for.

        They are of the state as it is now, and so is `TransferPages.vector`, which goes with the
        last page and no earlier. O(content that differs) for a copy of it.

        Args:
            their_offer: the peer's `transfer_offer`.
            page_bytes_max: of a page's `state`; one value that cannot be cut may be over it.
            is_repair: both have equal vectors and different content, which is a broken
                invariant: join everything, rather keeping what was removed than losing a write.
            page_version: one that the peer reads.
        """
        self._close_writes()
        self._transfers += 1
        return TransferPages(
            self._parts,
            their_offer,
            page_bytes_max=page_bytes_max,
            number=self._transfers,
            is_repair=is_repair,
            version=page_version,
        )

    def absorb_page(self, page: TransferPage, *, is_shown: bool = False) -> None:
        """Take a page of a peer's state. Idempotent. O(size).

        Pages are gathered aside and joined by `complete_transfer`, so that a transfer that
        breaks off leaves nothing behind. A document that could not be read in `rejections_max`
        pages is passed over with a `PageSkipped` event.

        Args:
            page: made by the peer's `transfer_pages`.
            is_shown: whether readers are to see at once what it holds, where it is of a map of
                numbered entries: for a node that knows less than its peer, and has to decide. It
                is not joined sooner: what is shown is in no vector, digest, page or file here,
                until a transfer is complete or `keep_early` is called.

        Raises:
            RemoteError: the page cannot be read; the transfer has to begin anew.
        """
        self._arrivals.gather(page, is_shown=is_shown)

    def keep_early(self) -> int:
        """Write what was shown early and came in no other way; from now on the state is shown.

        What readers have seen does not go back so, and what a sender that is gone had is not lost.
        The entries stay what they are, with their writer's stamps and numbers: only what carries
        them here is a write of this node, and removals, with the time they had. Those that came
        late are written again after that, by `write_late`. What the vector covers is here already,
        or dead. O(documents), and O(entries) of those that were shown.

        Returns:
            how many entries were written.
        """
        count = 0
        for document in list(self._parts.documents):
            if not document.is_early:
                continue
            shown, held = document.view, document.state
            wanted: set[Any] = set()
            # After a transfer that came whole the two are the same, which is told at once.
            for key, entry in shown.entries() if shown != held else ():
                mine = held.entry(key)
                if mine is None:
                    is_wanted = not self._parts.vector.covers(entry.stamp.actor, entry.sequence)
                else:
                    is_wanted = mine != entry  # a later one, or one that counts more changes
                if is_wanted:
                    wanted.add(key)
            document.hide()
            self._parts.journal.note(Change(document.name, held, False, True))
            if wanted:
                shown.drop([key for key, _ in shown.entries() if key not in wanted])
                # Removals may have been dropped since it was shown.
                late = self._parts.late.find(document, shown)
                for piece, _ in encoded_pieces([shown], bytes_max=ENTRY_BYTES_MAX // 2):
                    self._write(document.name, partial(_taken_over, piece))
                self._parts.late.note(document, late)
                count += len(wanted)
        return count

    def arrived(self) -> tuple[int, int]:
        """Return how many entries of a transfer came, and how many it has in all, about. O(1).

        Of the one whose pages came last; (0, 0) while none is under way.
        """
        return self._arrivals.progress()

    def complete_transfer(self, vector: Vector) -> Received:
        """Join a peer's state and its vector, once every page was taken. O(size).

        The log starts anew behind it, and entries that waited are absorbed. Pages stamped
        further ahead than the clock allows wait, and their vector with them, for `release`.
        When a page is missing nothing happens: the vector does not reach the sender's.

        Args:
            vector: `TransferPages.vector` of the sender.

        Raises:
            LimitExceeded: the vector has more actors than allowed. State unchanged.
        """
        self._close_writes()
        if not self._arrivals.complete(vector):
            return Received()
        received = self._intake.release()
        if not self.is_rejoining:
            self.keep_early()
        return received

    def export_pages(
        self, *, page_bytes_max: int = TRANSFER_PAGE_BYTES_MAX, page_version: int = PAGE_VERSION
    ) -> TransferPages:
        """Return the pages of everything that is served, of the state as it is now.

        O(content) for a copy of it. The pages are made as they are asked for, from that copy
        alone: that may be on another thread, and takes most of the time.
        """
        # While this node comes back too: what is here must be in the vector that goes with it.
        self._writes.close()
        return TransferPages(
            self._served,
            None,
            page_bytes_max=page_bytes_max,
            number=0,
            is_repair=False,
            version=page_version,
        )

    def export_state(
        self, *, page_bytes_max: int = TRANSFER_PAGE_BYTES_MAX, page_version: int = PAGE_VERSION
    ) -> ReplicaState:
        """Return everything that is served, to be kept on disk. O(content)."""
        pages = self.export_pages(page_bytes_max=page_bytes_max, page_version=page_version)
        return ReplicaState(self.actor, pages.vector, tuple(pages))

    def import_state(self, state: ReplicaState) -> None:
        """Begin with a state that an earlier start of this node, or another node, exported.

        A state older than half the time after which this node is forgotten must not be imported
        but be the `begin_rejoin` of a replica that has imported it.

        Raises:
            StateError: something is in this replica already, or the state is of its own actor,
                which is never used again. State unchanged.
            RemoteError: a page cannot be read or is missing, or the state is from further in the
                future than the clock allows (`RejectReason.CLOCK`). State unchanged.
        """
        vector = self._parts.vector
        if vector.view or self._writes or state.actor == self.actor:
            raise StateError("a state is imported by a new writer, before anything else")
        if not state.pages:
            return
        arrivals = Arrivals(self._parts)
        for page in state.pages:
            arrivals.gather(page)
        if not arrivals.complete(state.vector):
            reason = RejectReason.CLOCK if arrivals.is_waiting else RejectReason.MALFORMED
            raise DecodeError("the state is not whole, or from the future", reason=reason)
        self._floor = self.clock.latest
