"""What a prefix cache holds, however it is held: the entries of tenants, their ages, their digests.

A cache begins light, its entries in dictionaries, and becomes a store when it has more than
`_light_max` of them or is asked what only a store can answer: a delta is made, written and
absorbed without a store of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, TypeVar

from meshlib.crdt.prefix_cache.digests import TenantDigests
from meshlib.crdt.prefix_cache.store import ORIGIN, Generation, PrefixStore

__all__ = ["KeyT", "StoreT", "TenantEntries"]

KeyT = TypeVar("KeyT", str, int)
StoreT = TypeVar("StoreT", bound=PrefixStore[Any])


class TenantEntries(ABC, Generic[KeyT, StoreT]):
    """The entries of a `TenantCache`, which says how two of them join."""

    __slots__ = ("_built", "_digests", "_generations", "_light", "_light_count")

    _light_max: ClassVar[int] = 64
    """Entries that stay light, and that are remembered and placed at once in an `absorb`.

    So few that they are within the limit of the size, whatever they are.
    """

    def __init__(self) -> None:
        self._built: StoreT | None = None
        self._light: dict[str, dict[KeyT, int]] = {}
        self._light_count = 0
        self._generations: dict[str, Generation] = {}
        # Made at their first use and kept up from then on: a delta never needs them.
        self._digests: TenantDigests | None = None

    @staticmethod
    @abstractmethod
    def _new_store() -> StoreT:
        """Return an empty store."""

    @staticmethod
    @abstractmethod
    def _size_of(key: KeyT, /) -> int:
        """Return what a key alone adds to the size at most. O(1)."""

    @property
    def _store(self) -> StoreT:
        """The store of the entries, made of the light form if need be."""
        store = self._built
        return self._build() if store is None else store

    def _build(self) -> StoreT:
        """Give up the light form. O(entries)."""
        store = self._built = self._new_store()
        for tenant, entries in self._light.items():
            self._store_all(entries.items(), tenant)
        self._light = {}
        self._light_count = 0
        return store

    def _entries_of(self, tenant: str) -> Iterable[tuple[KeyT, int]]:
        """Return the (key, access) pairs of a tenant, in no particular order."""
        if self._built is None:
            return self._light.get(tenant, {}).items()
        return self._built.entries(tenant)

    def _size_at_most(self) -> int:
        """Return a bound of the size that needs no store. O(light entries)."""
        if self._built is None:
            return sum(self._size_of(key) for held in self._light.values() for key in held)
        return self._built.size

    def _store_all(
        self, entries: Iterable[tuple[KeyT, int]], tenant: str
    ) -> list[tuple[int, int | None, KeyT, int]]:
        """Put entries into the store.

        Returns:
            For each that is new or was raised: its key's hash, its access before, the key, and
            its access.
        """
        place = self._store.place
        stored: list[tuple[int, int | None, KeyT, int]] = []
        for key, access in entries:
            key_hash, previous = place(key, tenant=tenant, access=access)
            if previous is None or previous < access:
                stored.append((key_hash, previous, key, access))
        return stored

    # Reads.

    @property
    def size(self) -> int:
        """How much is held, in the unit of the type's limit. O(1)."""
        return self._store.size

    def __len__(self) -> int:
        """Count the entries of all tenants. O(1)."""
        return self._light_count if self._built is None else len(self._built)

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that have entries, sorted. O(n log n) for n tenants."""
        return self._store.tenants()

    def tenant_count(self, added: Iterable[str] = ()) -> int:
        """Count what the limit counts: tenants, removed ones too, and new ones of `added`."""
        return len(self._generations) + sum(name not in self._generations for name in set(added))

    def entry_count(self, tenant: str) -> int:
        """Count the entries of a tenant. O(1)."""
        if self._built is None:
            return len(self._light.get(tenant, ()))
        return self._built.entry_count(tenant)

    def generation(self, tenant: str) -> Generation:
        """Return how often a tenant was removed, and up to which access it was evicted. O(1)."""
        return self._generations.get(tenant, ORIGIN)

    def known_tenants(self) -> tuple[str, ...]:
        """Return the tenants of which anything is known, removed ones too, in no order. O(n)."""
        return tuple(self._generations)

    def removed_tenants(self) -> list[str]:
        """Return the tenants that were removed at some time, sorted. O(tenants)."""
        return sorted(name for name, one in self._generations.items() if one.epoch)

    def oldest_access(self, tenant: str) -> int | None:
        """Return the access of a tenant's least recently used entry. Amortised O(log n)."""
        return self._store.oldest_access(tenant)

    def oldest_tenant(self) -> tuple[str, int] | None:
        """Return whose the least recently used entry of all is, and its access.

        Ties go to the smaller tenant. Amortised O(log n), whatever the number of tenants.
        """
        return self._store.oldest_tenant()

    def entries(self, tenant: str) -> list[tuple[KeyT, int]]:
        """Return the (key, access) pairs of a tenant in canonical order. O(n log n)."""
        return sorted(self._entries_of(tenant))

    @property
    def value(self) -> dict[str, dict[KeyT, int]]:
        """Tenant -> key -> last access, in canonical order."""
        return {tenant: dict(self.entries(tenant)) for tenant in self.tenants()}

    # Digests.

    def _current_digests(self) -> TenantDigests:
        digests = self._digests
        if digests is None:
            digests = self._digests = TenantDigests()
            for tenant, generation in self._generations.items():
                digests.add_generation(tenant, *generation)
                for key_hash, access in self._store.entry_hashes(tenant):
                    digests.add_entry(tenant, generation.epoch, key_hash, access)
        return digests

    def digest(self) -> int:
        """Hash the state to 64 bits. O(1), but for O(n) at first."""
        return self._current_digests().total()

    def bucket_digests(self) -> tuple[int, ...]:
        """Return 256 digests over everything, removed tenants included. As `digest`."""
        return self._current_digests().sums()

    def tenant_digests(self, tenant: str) -> tuple[int, ...]:
        """Return the 256 digests of one tenant. As `digest`."""
        return self._current_digests().of_tenant(tenant)

    def __repr__(self) -> str:
        count = len(self._generations)
        return f"{type(self).__name__}({len(self)} entries, {count} tenants)"
