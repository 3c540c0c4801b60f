"""Messages about state: log entries, vectors, state transfers, volatile documents.

A message is packed as a list: its code, then its fields in the order declared here, each as its
kind says (`fields.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import field, frozen

from meshlib.gossip.messages.fields import (
    DOCUMENT,
    ENTRIES,
    GAPS,
    HASH,
    HASH_OR_NONE,
    NUMBER,
    PAYLOAD,
    TRUTH,
    VECTOR,
    VECTOR_OR_NONE,
    kind,
)
from meshlib.gossip.messages.offers import OFFER, CompactOffer
from meshlib.identity import ActorId
from meshlib.limits import DOCUMENT_NAME_BYTES_MAX
from meshlib.reading import is_integer, read_integer, read_text, require
from meshlib.replication import LogEntry, ShortEntry

__all__ = [
    "NUMBERED_DOCUMENTS",
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


@frozen(slots=True)
class EntriesMessage:
    """Log entries.

    Args:
        entries: in the order of each actor's numbers; what is pushed may be short.
        wants_acknowledgement: whether the receiver is to answer with its vector for their actors
            at once.
        is_pushed: whether they were sent unasked, and are sent again unless the receiver tells
            that it has them; that may wait a little, so that one answer does for many.
    """

    code: ClassVar[int] = 9
    entries: tuple[LogEntry | ShortEntry, ...] = field(metadata=ENTRIES)
    wants_acknowledgement: bool = field(default=False, metadata=TRUTH)
    is_pushed: bool = field(default=False, metadata=TRUTH)


@frozen(slots=True)
class GapRequest:
    """Ask for entries that were skipped: (actor, first, last) ranges."""

    code: ClassVar[int] = 10
    gaps: tuple[tuple[ActorId, int, int], ...] = field(metadata=GAPS)


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
    vector_hash: int = field(metadata=HASH)
    table_hash: int = field(default=0, metadata=HASH)
    content_digest: int | None = field(default=None, metadata=HASH_OR_NONE)
    wants_whole: bool = field(default=False, metadata=TRUTH)


@frozen(slots=True)
class ExchangeEqual:
    """End an exchange: the vectors are equal."""

    code: ClassVar[int] = 12
    vector_hash: int = field(metadata=HASH)


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
    vector: Mapping[ActorId, int] = field(metadata=VECTOR)
    wants_reply: bool = field(default=False, metadata=TRUTH)
    is_partial: bool = field(default=False, metadata=TRUTH)
    rest_hash: int | None = field(default=None, metadata=HASH_OR_NONE)

    def check_read(self) -> None:
        """Check what was read: 0 names a writer that is in no vector, beside a `rest_hash` only."""
        require(self.rest_hash is not None or 0 not in self.vector.values(), "a number of 0")


@frozen(slots=True)
class TransferAvailable:
    """Tell a peer that what it lacks is no longer in the log: it should ask for the state."""

    code: ClassVar[int] = 14


@frozen(slots=True)
class TransferRequest:
    """Ask for the parts of the state that differ from one's own.

    Args:
        session: names the transfer; drawn at random by the asker.
        offer: what the asker has.
        is_repair: whether equal vectors were found to hold different content.
    """

    code: ClassVar[int] = 15
    session: int = field(metadata=NUMBER)
    offer: CompactOffer = field(metadata=OFFER)
    is_repair: bool = field(default=False, metadata=TRUTH)


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
    session: int = field(metadata=NUMBER)
    index: int = field(metadata=NUMBER)
    document: str = field(metadata=DOCUMENT)
    state: bytes = field(metadata=PAYLOAD)
    vector: Mapping[ActorId, int] | None = field(metadata=VECTOR_OR_NONE)


@frozen(slots=True)
class TransferNext:
    """Ask for a page of a running transfer, again if it did not come."""

    code: ClassVar[int] = 17
    session: int = field(metadata=NUMBER)
    index: int = field(metadata=NUMBER)


NUMBERED_DOCUMENTS: Final = (
    "rate_limit:question",
    "rate_limit:answer",
    "rate_limit:keep",
    "rate_limit:kept",
    "load:in_flight",
    "load:word",
    "workers:renewals",
)
"""Volatile documents that busy clusters speak of all the time: each travels as its place here,
counted from 1, and not by its name, which would be a fifth of a small frame."""

_NUMBERS: Final = {name: place for place, name in enumerate(NUMBERED_DOCUMENTS, start=1)}


def _volatile_document_to_wire(name: str) -> str | int:
    return _NUMBERS.get(name, name)


def _volatile_document(wire: Any) -> str:
    """Read a name, or the number that stands for it: whatever has one is told by that alone."""
    what = "a volatile document"
    if is_integer(wire):
        return NUMBERED_DOCUMENTS[read_integer(wire, what, minimum=1, maximum=len(_NUMBERS)) - 1]
    name = read_text(wire, what, bytes_max=DOCUMENT_NAME_BYTES_MAX)
    require(name not in _NUMBERS, "a volatile document that has a number must be told by it")
    return name


VOLATILE_NAME: Final = kind(_volatile_document, _volatile_document_to_wire)


@frozen(slots=True)
class VolatileMessage:
    """A part of a document that is not logged: it is cumulative and soon out of date."""

    code: ClassVar[int] = 18
    document: str = field(metadata=VOLATILE_NAME)
    payload: bytes = field(metadata=PAYLOAD)
