"""Short answers to "do we have the same": of clocks, of content, of parts of documents.

The hash of a clock is a sum, so that it is kept up in O(1) with each number that moves. It says
what was absorbed; the content digest says what is there. The first is compared at each
exchange, the second now and then: it finds what the first cannot, a broken invariant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meshlib.codec import pack
from meshlib.crdt import registry
from meshlib.hashing import HASH64_MASK, hash64
from meshlib.identity import ActorId

__all__ = ["clock_hash", "clock_term", "content_digest", "differing_buckets", "document_digests"]

Offer = Mapping[str, tuple[str, tuple[int, ...]]]
"""Document to its type tag and digests: one for each bucket, or one of the whole state."""

_empty_digests: dict[str, int] = {}


def clock_term(actor: ActorId, sequence: int) -> int:
    """Return what one actor's number adds to the hash of a clock; 0 adds nothing. O(1)."""
    return hash64(actor + sequence.to_bytes(8, "big")) if sequence else 0


def clock_hash(clock: Mapping[ActorId, int]) -> int:
    """Return 64 bits that are equal for equal clocks. O(actors)."""
    return sum(clock_term(actor, sequence) for actor, sequence in clock.items()) & HASH64_MASK


def content_digest(documents: Iterable[tuple[str, Any]]) -> int:
    """Return 64 bits that are equal for equal live content, tombstones aside.

    A document without live content counts like one that is not there. O(documents) where the
    types keep their digests up.
    """
    total = 0
    for name, state in documents:
        tag = registry.type_tag(state)
        digest = state.digest()
        if tag not in _empty_digests:
            _empty_digests[tag] = registry.bottom(tag).digest()
        if digest != _empty_digests[tag]:
            total += hash64(pack((name, tag, digest)))
    return total & HASH64_MASK


def document_digests(state: Any) -> tuple[int, ...]:
    """Return a document's bucket digests, or the one digest of a type without buckets."""
    if hasattr(state, "bucket_digests"):
        digests: tuple[int, ...] = state.bucket_digests()
        return digests
    return (state.digest(),)


def differing_buckets(ours: tuple[int, ...], theirs: tuple[int, ...]) -> list[int]:
    """Return the buckets that differ: all of them when the counts do. O(buckets)."""
    if len(ours) != len(theirs):
        return list(range(len(ours)))
    return [index for index, digest in enumerate(ours) if digest != theirs[index]]
