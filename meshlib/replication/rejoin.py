"""Coming back after being away for too long.

Meanwhile the others may have dropped tombstones without this node having seen the removals, so
what it still has cannot simply be joined with theirs. It comes back as a new writer: it takes a
peer's state whole, and writes again, as new writes with new stamps, what no peer had and
nothing newer has replaced. New stamps, because a removal may still be held by one peer and
dropped by another, and only a write after all of them is the same to both.

Not only its own writes are written again: it may be the only survivor that has another's. And
not only what it has: it may be the only one that knows of a removal.

A node that was never away comes back too, when somebody else's writes bear its actor. Then the
numbers of the adopted vector prove less: no removal was dropped that this node has not seen, so
whatever it has and the peer has not is missing there, and is written again, covered or not. An
invented number must not make anybody forget a write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.codec import decode_value
from meshlib.crdt import NO_WRITE, Lattice, LWWMap
from meshlib.identity import ActorId
from meshlib.limits import ENTRY_BYTES_MAX
from meshlib.replication.document import HeldDocument
from meshlib.replication.parts import Parts
from meshlib.replication.records import LostWrite
from meshlib.replication.transfers.paging import encoded_pieces
from meshlib.replication.writes import Mutator, WriteContext

__all__ = ["setter", "write_again"]

Write = Callable[[str, Mutator], Any]


def write_again(
    former: Parts, parts: Parts, write: Write, *, was_present: bool = False
) -> tuple[int, list[LostWrite]]:
    """Write what only the former documents hold to the adopted ones. O(content).

    Args:
        former: the documents of before, and the vector that tells what had been seen.
        parts: the adopted ones, and the vector that tells what the peers had.
        write: writes to an adopted document.
        was_present: whether this node was never out of contact, so that no peer can have dropped
            a removal that is not known here.

    Returns:
        how many writes were made again, and those that could not be kept.
    """
    kept, lost = 0, list[LostWrite]()
    for document in former.documents:
        adopted = parts.documents.find(document.name)
        if adopted is not None and type(adopted.state) is not type(document.state):
            lost.append(LostWrite(document.name, None))
            continue
        if adopted is None:
            if document.state.is_bottom():
                continue
            adopted = parts.documents.open(document.name, document.tag)
        if isinstance(document.state, LWWMap):
            unseen = _unseen(document, adopted, parts, former.actor if was_present else None)
            kept += _write_entries(document, adopted, unseen, write, lost)
            kept += _remove_again(document, adopted, former, parts, write)
        else:
            kept += _write_difference(document, adopted, write, lost)
    return kept, lost


def _unseen(
    former: HeldDocument, adopted: HeldDocument, parts: Parts, present: ActorId | None
) -> list[tuple[Any, Any]]:
    """Return the entries of a map that the peers have not seen, with their keys. O(entries).

    Those whose number the adopted vector does not cover; and of a node that was present as
    `present`, what it has alone, whatever the vector says. Only a removal by another writer may
    be dropped by the peers already.
    """
    unseen = []
    for key, entry in former.state.entries():
        if entry.stamp == NO_WRITE:
            continue
        if parts.vector.covers(entry.actor, entry.sequence):
            held = adopted.state.entry(key)
            is_newer = held is None or held.stamp < entry.stamp
            is_kept = held is not None or entry.payload is not None or entry.actor == present
            if present is None or not is_newer or not is_kept:
                continue
        unseen.append((entry, key))
    return unseen


def _write_entries(
    former: HeldDocument,
    adopted: HeldDocument,
    unseen: list[tuple[Any, Any]],
    write: Write,
    lost: list[LostWrite],
) -> int:
    """Write again the entries of a map that the peers have not seen."""
    kept = 0
    for entry, key in sorted(unseen, key=lambda pair: pair[0].stamp):
        held = adopted.state.entry(key)
        if held is not None and held.stamp >= entry.stamp:
            if held.stamp != entry.stamp:
                lost.append(LostWrite(former.name, key))
        elif entry.payload is not None:
            write(former.name, setter(key, decode_value(entry.payload)))
            kept += 1
        else:
            write(former.name, _remover(key))
            kept += 1
    return kept


def _remove_again(
    former: HeldDocument, adopted: HeldDocument, seen: Parts, parts: Parts, write: Write
) -> int:
    """Remove again what had been removed here, and write again what may have been (R4).

    The former vector covers a write of which the former map has nothing: it was removed, and the
    tombstone is dropped. The peer, which has it still, never heard of that.
    """
    if former.skipped or adopted.skipped:
        return 0
    own = seen.actor
    # Another process wrote under the same name: those numbers prove nothing.
    is_stolen = parts.vector.number(own) > seen.vector.number(own)
    removed, late = [], []
    for key, entry in adopted.state.entries():
        if entry.payload is None or former.state.entry(key) is not None:
            continue
        is_proof = not (is_stolen and entry.actor == own)
        if is_proof and seen.vector.covers(ActorId(entry.actor), entry.sequence):
            removed.append(key)
        elif seen.late.is_late(entry.stamp):
            late.append((key, entry.payload))
    for key in removed:
        write(former.name, _remover(key))
    for key, payload in late:
        write(former.name, setter(key, decode_value(payload)))
    return len(removed) + len(late)


def setter(key: Any, value: Any) -> Mutator:
    """Return what sets a key of a map."""
    return lambda state, context: state.set(
        key, value, stamp=context.stamp(), sequence=context.sequence
    )


def _remover(key: Any) -> Mutator:
    """Remove a key, one that is not there too: another peer may still have an older value."""

    def mutate(state: Any, context: WriteContext) -> Any:
        held = state
        if key not in state:
            held = state.set(key, None, stamp=context.stamp(), sequence=context.sequence)
        return held.remove(key, stamp=context.stamp(), sequence=context.sequence)

    return mutate


def _write_difference(
    former: HeldDocument, adopted: HeldDocument, write: Write, lost: list[LostWrite]
) -> int:
    """Write again what a plain join adds: right for types that never drop a removal."""
    missing = [part for part in former.state.decompose() if not part <= adopted.state]
    if not missing:
        return 0
    kept = 0
    for delta, data in encoded_pieces(missing, bytes_max=ENTRY_BYTES_MAX // 2):
        if len(data) > ENTRY_BYTES_MAX:
            lost.append(LostWrite(former.name, None))
        else:
            write(former.name, _returning(delta))
            kept += 1
    return kept


def _returning(delta: Lattice) -> Mutator:
    return lambda _state, _context: delta
