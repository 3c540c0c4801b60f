"""Messages about state: log entries, vectors, state transfers, volatile documents.

A message is packed as a tuple: its code, then its fields in the order declared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from attrs import frozen

from meshlib.errors import DecodeError
from meshlib.gossip.messages.fields import (
    actor,
    binary,
    boolean,
    fixed,
    integer,
    sequence,
    text,
    vector_from_wire,
    vector_to_wire,
)
from meshlib.gossip.messages.offers import GROUPS, CompactOffer
from meshlib.identity import ActorId
from meshlib.limits import (
    ACTORS_MAX,
    DOCUMENT_NAME_BYTES_MAX,
    DOCUMENTS_MAX,
    ENTRY_BYTES_MAX,
    FRAME_BYTES_MAX,
)
from meshlib.replication import LogEntry

__all__ = [
    "EntriesMessage",
    "ExchangeEqual",
    "ExchangeRequest",
    "GapRequest",
    "TransferAvailable",
    "TransferNext",
    "TransferPageMessage",
    "TransferRequest",
    "VectorExchange",
    "VolatileMessage",
]

BUCKETS_MAX = 65_536


@frozen(slots=True)
class EntriesMessage:
    """Log entries.

    Args:
        entries: in the order of each actor's numbers.
        wants_acknowledgement: whether the receiver is to answer with its vector for their actors
            at once.
        is_pushed: whether they were sent unasked, and are sent again unless the receiver tells
            that it has them; that may wait a little, so that one answer does for many.
    """

    code: ClassVar[int] = 9
    entries: tuple[LogEntry, ...]
    wants_acknowledgement: bool = False
    is_pushed: bool = False

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (
            [(e.actor, e.first, e.last, e.document, e.delta) for e in self.entries],
            self.wants_acknowledgement,
            self.is_pushed,
        )

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        items, wants, is_pushed = fixed(wire, 3)
        entries = []
        for item in sequence(items, length_max=FRAME_BYTES_MAX):
            writer, first, last, document, delta = fixed(item, 5)
            lowest = integer(first, least=1)
            entries.append(
                LogEntry(
                    actor=actor(writer),
                    first=lowest,
                    last=integer(last, least=lowest),
                    document=text(document, bytes_max=DOCUMENT_NAME_BYTES_MAX),
                    delta=binary(delta, bytes_max=ENTRY_BYTES_MAX),
                )
            )
        return cls(tuple(entries), boolean(wants), boolean(is_pushed))


@frozen(slots=True)
class GapRequest:
    """Ask for entries that were skipped: (actor, first, last) ranges."""

    code: ClassVar[int] = 10
    gaps: tuple[tuple[ActorId, int, int], ...]

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (list(self.gaps),)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        (items,) = fixed(wire, 1)
        gaps = []
        for item in sequence(items, length_max=ACTORS_MAX):
            writer, first, last = fixed(item, 3)
            lowest = integer(first, least=1)
            gaps.append((actor(writer), lowest, integer(last, least=lowest)))
        return cls(tuple(gaps))


@frozen(slots=True)
class ExchangeRequest:
    """Begin an anti-entropy exchange: equal hashes end it.

    Args:
        vector_hash: hash of the version vector.
        table_hash: hash of the members in reach; 0 while news may still be on its way.
        content_digest: digest of the live content, now and then; None otherwise.
        wants_whole: whether a vector that names only the latest writers would not do.
    """

    code: ClassVar[int] = 11
    vector_hash: int
    table_hash: int = 0
    content_digest: int | None = None
    wants_whole: bool = False

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (self.vector_hash, self.table_hash, self.content_digest, self.wants_whole)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        vector_hash, table_hash, digest, wants_whole = fixed(wire, 4)
        return cls(
            integer(vector_hash, most=(1 << 64) - 1),
            integer(table_hash, most=(1 << 64) - 1),
            None if digest is None else integer(digest, most=(1 << 64) - 1),
            boolean(wants_whole),
        )


@frozen(slots=True)
class ExchangeEqual:
    """End an exchange: the vectors are equal."""

    code: ClassVar[int] = 12
    vector_hash: int

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (self.vector_hash,)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        (vector_hash,) = fixed(wire, 1)
        return cls(integer(vector_hash, most=(1 << 64) - 1))


@frozen(slots=True)
class VectorExchange:
    """One's version vector, whole or in part.

    Args:
        vector: actor to the highest contiguous number absorbed; 0, beside a `rest_hash`, for one
            of which nothing was.
        wants_reply: whether the receiver is to answer with its own if it lacks something.
        is_partial: whether only some actors are named, in acknowledgement of their entries.
        rest_hash: the hash of one's vector without the writers named; None when all are named.
            A receiver whose vector has the same one differs in those that are named alone.
    """

    code: ClassVar[int] = 13
    vector: Mapping[ActorId, int]
    wants_reply: bool = False
    is_partial: bool = False
    rest_hash: int | None = None

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (vector_to_wire(self.vector), self.wants_reply, self.is_partial, self.rest_hash)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        vector, wants_reply, is_partial, rest = fixed(wire, 4)
        return cls(
            vector_from_wire(vector, least=1 if rest is None else 0),
            boolean(wants_reply),
            boolean(is_partial),
            None if rest is None else integer(rest, most=(1 << 64) - 1),
        )


@frozen(slots=True)
class TransferAvailable:
    """Tell a peer that what it lacks is no longer in the log: it should ask for the state."""

    code: ClassVar[int] = 14

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return ()

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        fixed(wire, 0)
        return cls()


@frozen(slots=True)
class TransferRequest:
    """Ask for the parts of the state that differ from one's own.

    Args:
        session: names the transfer; drawn at random by the asker.
        offer: what the asker has.
        is_repair: whether equal vectors were found to hold different content.
    """

    code: ClassVar[int] = 15
    session: int
    offer: CompactOffer
    is_repair: bool = False

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields: the digests of a document as one run of 8-byte numbers."""
        return (
            self.session,
            [
                (document, tag, _pack_digests(digests))
                for document, (tag, digests) in sorted(self.offer.documents.items())
            ],
            _pack_digests(self.offer.groups),
            self.is_repair,
        )

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        session, items, groups, is_repair = fixed(wire, 4)
        documents = {}
        for item in sequence(items, length_max=DOCUMENTS_MAX):
            document, tag, packed = fixed(item, 3)
            digests = _unpack_digests(packed, count_max=BUCKETS_MAX)
            name = text(document, bytes_max=DOCUMENT_NAME_BYTES_MAX)
            documents[name] = (text(tag, bytes_max=1024), digests)
        offer = CompactOffer(documents, _unpack_digests(groups, count_max=GROUPS))
        return cls(integer(session), offer, boolean(is_repair))


def _pack_digests(digests: tuple[int, ...]) -> bytes:
    return b"".join(digest.to_bytes(8, "big") for digest in digests)


def _unpack_digests(packed: Any, *, count_max: int) -> tuple[int, ...]:
    run = binary(packed, bytes_max=8 * count_max)
    if len(run) % 8:
        raise DecodeError("digests of odd length")
    return tuple(int.from_bytes(run[start : start + 8], "big") for start in range(0, len(run), 8))


@frozen(slots=True)
class TransferPageMessage:
    """One page of a state transfer.

    Args:
        session: the transfer.
        index: the page's place, from 0.
        document: the document; empty on a last page that carries the vector alone.
        state: the encoded part of the document's state.
        vector: on the last page the sender's vector as it was before the first page; else None.
    """

    code: ClassVar[int] = 16
    session: int
    index: int
    document: str
    state: bytes
    vector: Mapping[ActorId, int] | None

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        vector = None if self.vector is None else vector_to_wire(self.vector)
        return (self.session, self.index, self.document, self.state, vector)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        session, index, document, state, vector = fixed(wire, 5)
        return cls(
            integer(session),
            integer(index),
            text(document, bytes_max=DOCUMENT_NAME_BYTES_MAX),
            binary(state, bytes_max=FRAME_BYTES_MAX),
            None if vector is None else vector_from_wire(vector),
        )


@frozen(slots=True)
class TransferNext:
    """Ask for a page of a running transfer, again if it did not come."""

    code: ClassVar[int] = 17
    session: int
    index: int

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (self.session, self.index)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        session, index = fixed(wire, 2)
        return cls(integer(session), integer(index))


@frozen(slots=True)
class VolatileMessage:
    """A part of a document that is not logged: it is cumulative and soon out of date."""

    code: ClassVar[int] = 18
    document: str
    payload: bytes

    def to_wire(self) -> tuple[Any, ...]:
        """Lay out the fields."""
        return (self.document, self.payload)

    @classmethod
    def from_wire(cls, wire: tuple[Any, ...]) -> Self:
        """Check and read the fields."""
        document, payload = fixed(wire, 2)
        return cls(
            text(document, bytes_max=DOCUMENT_NAME_BYTES_MAX),
            binary(payload, bytes_max=FRAME_BYTES_MAX),
        )
