"""What a replica takes and gives: entries, gaps, receipts, changes, and its events."""

from __future__ import annotations

from typing import Any, NamedTuple

from attrs import field, frozen

from meshlib.crdt import Lattice
from meshlib.errors import RejectReason
from meshlib.identity import ActorId

__all__ = [
    "ActorForgotten",
    "Change",
    "ChangesDropped",
    "EntriesHeld",
    "EntrySkipped",
    "Gap",
    "GapBufferFull",
    "Hole",
    "IdentityStolen",
    "Lacking",
    "LogEntry",
    "LogShortened",
    "LostWrite",
    "PageSkipped",
    "Received",
    "Rejection",
    "RejoinReport",
    "ReplicaEvent",
    "ShortEntry",
    "WriteReceipt",
]


@frozen(slots=True)
class LogEntry:
    """Writes of one actor to one document, as they travel. Forwarded as they came.

    Args:
        actor: the writer.
        first: the number of its first write in here, from 1.
        last: the number of its last; the same as `first` unless entries were joined.
        document: what was written to.
        delta: the joined changes, by `crdt.registry.encode`.
    """

    actor: ActorId
    first: int
    last: int
    document: str
    delta: bytes


class Hole(NamedTuple):
    """Bytes of an entry that were left out: those of a text that its readers are likely to have.

    Args:
        after: how many bytes of the rest stand between the hole before and this one.
        name: the 64-bit hash of the text.
        start: where the bytes begin in the text.
        end: where they end there.
    """

    after: int
    name: int
    start: int
    end: int


@frozen(slots=True)
class ShortEntry:
    """A log entry as it is pushed, without what its readers are likely to have.

    Args:
        actor: whose entry it is.
        first: the entry's first number.
        last: its last one.
        document: the document that it changes.
        rest: the delta without its holes.
        digest: the hash of the whole delta.
        holes: what was left out, in order; at least one.
    """

    actor: ActorId
    first: int
    last: int
    document: str
    rest: bytes
    digest: int
    holes: tuple[Hole, ...]


@frozen(slots=True)
class Gap:
    """Numbers of one writer that are missing here, both ends included."""

    actor: ActorId
    first: int
    last: int


@frozen(slots=True)
class Rejection:
    """An entry that was refused, with nothing changed.

    Args:
        entry: what was refused.
        reason: why; the metric label.
        detail: for the log.
    """

    entry: LogEntry
    reason: RejectReason
    detail: str


@frozen(slots=True)
class Received:
    """The outcome of a batch.

    Args:
        new: what this node did not have, in the order it was absorbed, released entries
            included: what is to be forwarded.
        gaps: what is missing before entries that wait; to be asked for.
        rejected: what was refused.
    """

    new: list[LogEntry] = field(factory=list)
    gaps: list[Gap] = field(factory=list)
    rejected: list[Rejection] = field(factory=list)


@frozen(slots=True)
class Lacking:
    """What a peer lacks, from the log.

    Args:
        entries: in each actor's order, as far as the log and the budget reach; also with
            `needs_transfer`, for what is new does not wait for a transfer of what is old.
        needs_transfer: whether the log no longer reaches back far enough for some actor.
        is_complete: whether the peer has everything once it has the entries.
    """

    entries: list[LogEntry]
    needs_transfer: bool
    is_complete: bool


@frozen(slots=True)
class WriteReceipt:
    """Names a write, so that one can ask who has seen it.

    Args:
        actor: the writer.
        sequence: its number; a write that changed nothing names the latest one before it.
        is_new: whether anything changed.
    """

    actor: ActorId
    sequence: int
    is_new: bool = True


@frozen(slots=True)
class LostWrite:
    """A write that was made or received while away and could not be kept.

    Args:
        document: where it was made.
        key: of a map; None where the whole document could not be kept.
    """

    document: str
    key: Any


@frozen(slots=True)
class RejoinReport:
    """What became of the writes that no peer had when this node came back.

    Args:
        old: the actor until then.
        new: the actor from now on.
        kept: how many were written again.
        lost: those that something newer had replaced meanwhile.
    """

    old: ActorId
    new: ActorId
    kept: int
    lost: tuple[LostWrite, ...]


@frozen(slots=True)
class Change:
    """What became new in a document.

    Args:
        document: its name.
        delta: the new part; with `is_reset` the whole state.
        is_local: whether this node wrote it.
        is_reset: whether something vanished without a removal, so that `delta` replaces what
            the subscriber knew.
    """

    document: str
    delta: Lattice
    is_local: bool
    is_reset: bool = False


@frozen(slots=True, kw_only=True)
class EntriesHeld:
    """Entries of a writer whose clock is ahead wait until they are plausible."""

    actor: ActorId
    first: int
    ahead_s: float


@frozen(slots=True, kw_only=True)
class EntrySkipped:
    """An entry that could not be read was passed over after it was asked for several times.

    The document may differ from the peers' until a transfer of it is absorbed.
    """

    actor: ActorId
    first: int
    last: int
    document: str
    reason: RejectReason
    detail: str


@frozen(slots=True, kw_only=True)
class IdentityStolen:
    """Somebody else writes under this node's actor: it must take a new one.

    Args:
        actor: the actor.
        sequence: the number that was met, beyond this node's own.
    """

    actor: ActorId
    sequence: int


@frozen(slots=True, kw_only=True)
class PageSkipped:
    """A document of a peer's state could not be read several times, and is done without."""

    document: str
    reason: RejectReason
    detail: str


@frozen(slots=True, kw_only=True)
class ActorForgotten:
    """Peers have forgotten this node's actor, or another of which this node has more.

    It has been away for too long, or began with too old a state, and must come back as a new
    actor: see `Replica.begin_rejoin`.
    """

    actor: ActorId


@frozen(slots=True, kw_only=True)
class GapBufferFull:
    """An entry ahead of a gap was not kept; it will be asked for again."""

    actor: ActorId
    first: int


@frozen(slots=True, kw_only=True)
class LogShortened:
    """Entries that some peer may lack were dropped for space: it will get a state transfer."""

    entry_count: int


@frozen(slots=True, kw_only=True)
class ChangesDropped:
    """Changes that nobody had drained were dropped: subscribers must read the state again."""

    change_count: int


ReplicaEvent = (
    ActorForgotten
    | ChangesDropped
    | EntriesHeld
    | EntrySkipped
    | GapBufferFull
    | IdentityStolen
    | LogShortened
    | PageSkipped
)
"""Everything a replica reports. Drained, never called back."""
