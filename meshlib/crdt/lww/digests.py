"""Digests of a large map, kept up with its changes.

A shadow of the map, by bucket, remembers what each digest has counted, so a change costs its
own hashes and no walk, and a bucket's entries are found without one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from meshlib.codec import pack
from meshlib.crdt.lww.entries import Row
from meshlib.hashing import HASH64_MASK, hash64

__all__ = ["BUCKET_COUNT", "BucketDigests", "bucket_of"]

BUCKET_COUNT: Final = 256
"""Buckets of a map: one difference in 100,000 entries is found with 2 KiB of digests."""


def bucket_of(key: Any) -> int:
    """Return the bucket of a key: the top byte of its hash."""
    return hash64(pack(key)) >> 56


class BucketDigests:
    """One sum of entry hashes for each bucket, and one over what is live.

    What is live counts by its write alone, not by the history of its changes.

    Sums of 64-bit hashes do not depend on order, and an entry leaves them by subtraction.
    """

    __slots__ = ("_shadow", "_sums", "live")

    def __init__(self) -> None:
        self._shadow: list[dict[Any, Row]] = [{} for _ in range(BUCKET_COUNT)]
        self._sums = [0] * BUCKET_COUNT
        self.live = 0

    def put(self, key: Any, entry: Row | None) -> None:
        """Count an entry in place of what was counted for its key; None for no entry. O(1)."""
        packed: bytes = pack(key)
        bucket = hash64(packed) >> 56
        shadow = self._shadow[bucket]
        held = shadow.get(key)
        difference = 0
        if held is not None:
            difference -= hash64(packed + pack(held))
            if held[4] is not None:
                self.live -= hash64(packed + pack(held[:5]))
            if entry is None:
                del shadow[key]
        if entry is not None:
            difference += hash64(packed + pack(entry))
            if entry[4] is not None:
                self.live += hash64(packed + pack(entry[:5]))
            shadow[key] = entry
        self.live &= HASH64_MASK
        self._sums[bucket] = (self._sums[bucket] + difference) & HASH64_MASK

    def sums(self) -> tuple[int, ...]:
        """Return the digest of each bucket."""
        return tuple(self._sums)

    def entries(self, buckets: Collection[int]) -> Iterator[tuple[Any, Any]]:
        """Yield the keys and entries of some buckets. O(their entries)."""
        for bucket in sorted(set(buckets)):
            if 0 <= bucket < BUCKET_COUNT:
                yield from self._shadow[bucket].items()

    def copy(self) -> BucketDigests:
        """Return an independent copy. O(n)."""
        other = BucketDigests.__new__(BucketDigests)
        other._shadow = [shadow.copy() for shadow in self._shadow]
        other._sums = self._sums.copy()
        other.live = self.live
        return other
