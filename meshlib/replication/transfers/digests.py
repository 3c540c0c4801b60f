"""Short answers to "do we have the same": of vectors, of content, of parts of documents.

The hash of a vector says what was absorbed, the content digest says what is there. The first is
compared at each exchange, the second now and then: it finds what the first cannot, a broken
invariant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meshlib.codec import pack
from meshlib.crdt import registry
from meshlib.hashing import HASH64_MASK, hash64
from meshlib.replication.document import HeldDocument

__all__ = ["DocumentDigests", "content_digest", "differing_buckets", "document_digests"]

DocumentDigests = Mapping[str, tuple[str, tuple[int, ...]]]
"""Document to its type tag and digests: one for each bucket, or one of the whole state."""

_empty_digests: dict[str, int] = {}


def content_digest(documents: Iterable[HeldDocument]) -> int:
    """Return 64 bits that are equal for equal live content, tombstones aside.

    A document without live content counts like one that is not there. O(documents) where the
    types keep their digests up.
    """
    total = 0
    for document in documents:
        tag = document.tag
        digest = document.state.digest()
        if tag not in _empty_digests:
            _empty_digests[tag] = registry.bottom(tag).digest()
        if digest != _empty_digests[tag]:
            total += hash64(pack((document.name, tag, digest)))
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
