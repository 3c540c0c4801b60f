"""Digests of a prefix cache, kept up with its changes: 256 for each tenant, and their sums.

Sums of 64-bit hashes do not depend on order, and an entry leaves them by subtraction. An entry's
hash covers its tenant's epoch, so entries of two epochs never look alike.
"""

from __future__ import annotations

import struct
from typing import Final

from meshlib.hashing import HASH64_MASK, hash64, hash64_text

__all__ = ["BUCKET_COUNT", "TenantDigests", "bucket_of_tenant"]

BUCKET_COUNT: Final = 256
"""Buckets of a cache and of each tenant: the top byte of a key's hash."""

_entry_bytes = struct.Struct(">QQQQ").pack
_generation_bytes = struct.Struct(">QQQ").pack


def bucket_of_tenant(tenant: str) -> int:
    """Return the bucket in which a tenant's epoch and floor are counted."""
    return hash64_text(tenant) >> 56


class TenantDigests:
    """The sums of the hashes of all entries, epochs and floors, by bucket."""

    __slots__ = ("_labels", "_sums", "_tenants")

    def __init__(self) -> None:
        self._sums = [0] * BUCKET_COUNT
        self._tenants: dict[str, dict[int, int]] = {}
        self._labels: dict[str, int] = {}

    def total(self) -> int:
        """Return one digest over everything. O(256)."""
        return sum(self._sums) & HASH64_MASK

    def sums(self) -> tuple[int, ...]:
        """Return the 256 digests over all tenants. O(256)."""
        return tuple(self._sums)

    def of_tenant(self, tenant: str) -> tuple[int, ...]:
        """Return the 256 digests of one tenant. O(256)."""
        digests = [0] * BUCKET_COUNT
        for bucket, digest in self._tenants.get(tenant, {}).items():
            digests[bucket] = digest
        return tuple(digests)

    def add_entry(self, tenant: str, epoch: int, key_hash: int, access: int) -> None:
        """Count an entry. O(1)."""
        label = self._label(tenant)
        self._add(tenant, key_hash >> 56, hash64(_entry_bytes(label, epoch, key_hash, access)))

    def drop_entry(self, tenant: str, epoch: int, key_hash: int, access: int) -> None:
        """Count an entry no more. O(1)."""
        label = self._label(tenant)
        self._add(tenant, key_hash >> 56, -hash64(_entry_bytes(label, epoch, key_hash, access)))

    def add_generation(self, tenant: str, epoch: int, floor: int) -> None:
        """Count a tenant's epoch and floor; the first epoch without a floor counts nothing."""
        if epoch or floor:
            label = self._label(tenant)
            self._add(tenant, label >> 56, hash64(_generation_bytes(label, epoch, floor)))

    def drop_generation(self, tenant: str, epoch: int, floor: int) -> None:
        """Count a tenant's epoch and floor no more."""
        if epoch or floor:
            label = self._label(tenant)
            self._add(tenant, label >> 56, -hash64(_generation_bytes(label, epoch, floor)))

    def drop_tenant(self, tenant: str) -> None:
        """Count nothing of a tenant any more. O(256), whatever it has."""
        for bucket, counted in self._tenants.pop(tenant, {}).items():
            self._sums[bucket] = (self._sums[bucket] - counted) & HASH64_MASK
        self._labels.pop(tenant, None)

    def copy(self) -> TenantDigests:
        """Return an independent copy. O(256 * tenants)."""
        other = TenantDigests()
        other._sums = self._sums.copy()
        other._tenants = {tenant: sums.copy() for tenant, sums in self._tenants.items()}
        other._labels = self._labels.copy()
        return other

    def _label(self, tenant: str) -> int:
        label = self._labels.get(tenant)
        if label is None:
            label = self._labels[tenant] = hash64_text(tenant)
            self._tenants[tenant] = {}
        return label

    def _add(self, tenant: str, bucket: int, hashed: int) -> None:
        self._sums[bucket] = (self._sums[bucket] + hashed) & HASH64_MASK
        sums = self._tenants[tenant]
        sums[bucket] = (sums.get(bucket, 0) + hashed) & HASH64_MASK
