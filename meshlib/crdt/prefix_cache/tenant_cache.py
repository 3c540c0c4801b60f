"""The lattice of a prefix cache: tenant -> (epoch, floor, {key: last access}).

Rule: how two prefix caches join must live in this file; what a key is, and where the entries are
stored, belongs to the types in `prefix_cache`.

A higher epoch replaces a tenant, so removing one is a dozen bytes and beats whatever was
inserted concurrently into the old epoch. Equal epochs take the higher floor and the highest
access of each key, and drop what is at or under the floor, so evicting any number of the least
recently used entries is a dozen bytes too. No dots, no tombstones of entries, nothing to prune.

Source: a lexicographic product over a chain, Almeida, Shoker, Baquero, "Delta state replicated
data types", JPDC 2018, whose second part is truncated by a growing floor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from meshlib.crdt.prefix_cache.digests import TenantDigests, bucket_of_tenant
from meshlib.crdt.prefix_cache.store import ORIGIN, Generation, PrefixStore
from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError, LimitExceeded
from meshlib.limits import PREFIX_HELD_FACTOR, TENANTS_MAX
from meshlib.prefix import check_access, check_tenant
from meshlib.reading import require

__all__ = ["EPOCH_MAX", "TenantCache"]

EPOCH_MAX: Final = (1 << 63) - 1
"""The highest epoch of a tenant."""

KeyT = TypeVar("KeyT", str, int)
StoreT = TypeVar("StoreT", bound=PrefixStore[Any])


GROUP_ENTRIES_MAX: Final = 64
"""Entries of a delta that are remembered while it is absorbed; more are built up at once."""


class TenantCache(ABC, Generic[KeyT, StoreT]):
    """What the prefix cache types share. A container; not hashable.

    A subclass says where its entries are stored, how many it may hold, and how they are written.
    """

    __hash__ = None  # type: ignore[assignment]  # typeshed declares __hash__ as a method
    __slots__ = ("_digests", "_generations", "_store")

    _what: ClassVar[str] = "entries"
    _size_max: ClassVar[int] = 0

    def __init__(self) -> None:
        self._store: StoreT = self._new_store()
        self._generations: dict[str, Generation] = {}
        # Made at their first use and kept up from then on: a delta never needs them.
        self._digests: TenantDigests | None = None

    @staticmethod
    @abstractmethod
    def _new_store() -> StoreT:
        """Return an empty store."""

    @abstractmethod
    def to_wire(self) -> Any:
        """Return the canonical tree of this state. O(n log n)."""

    # Writes: pure, each returns its delta.

    def _insert(self, keys: Iterable[KeyT], *, tenant: str, access: int) -> Self:
        """Return the delta of entries that are new or younger than what is held."""
        check_access(access)
        if not access:
            raise InvalidValueError("an access must be at least 1")
        check_tenant(tenant)
        generation = self._generations.get(tenant)
        if generation is None:
            self._check_tenant_count(1)
            generation = ORIGIN
        delta = type(self)()
        if access > generation.floor:
            for key in keys:
                held = self._store.access(key, tenant=tenant)
                if held is None or held < access:
                    delta._place(key, tenant=tenant, epoch=generation.epoch, access=access)
        return delta

    def _check_tenant_count(self, added: int) -> None:
        size = len(self._generations) + added
        if size > TENANTS_MAX:
            raise LimitError("tenants", size=size, limit=TENANTS_MAX)

    def remove_tenant(self, tenant: str) -> Self:
        """Return the delta that removes a tenant with everything it has. O(1).

        It also beats every insertion that has not seen it yet: the worker restarted and its
        cache is gone. The bottom when the tenant has no entries, so that removing a worker on
        each node that sees it fail does not remove what it has cached since.

        Raises:
            LimitError: the tenant was removed 2**63 - 1 times.
        """
        delta = type(self)()
        if self._store.entry_count(tenant):
            epoch = self._generations[tenant].epoch + 1
            if epoch > EPOCH_MAX:
                raise LimitError("epoch", size=epoch, limit=EPOCH_MAX)
            delta._generations[tenant] = Generation(epoch, 0)
        return delta

    def evict(self, tenant: str, *, floor: int) -> Self:
        """Return the delta that drops what a tenant last used at or before `floor`. O(1).

        Later insertions at or before it are dropped too. The bottom when nothing held is that
        old.

        Raises:
            InvalidTypeError: `floor` is no integer.
            InvalidValueError: `floor` is not 0 to 2**63 - 1.
        """
        check_access(floor)
        delta = type(self)()
        oldest = self._store.oldest_access(tenant)
        if oldest is not None and oldest <= floor:
            delta._generations[tenant] = Generation(self._generations[tenant].epoch, floor)
        return delta

    def evict_to(self, size_max: int) -> Self:
        """Return the delta that drops the least recently used entries of all tenants.

        As many as it takes to come down to `size_max` in the unit of `size`, and those that
        were last used at the same time. O(n log n): evict some way below the limit, now and
        then.
        """
        delta = type(self)()
        if self.size > size_max:
            floor = self._store.floor_for(size_max)
            for tenant in self._store.tenants():
                delta.absorb(self.evict(tenant, floor=floor))
        return delta

    # Reads.

    @property
    def size(self) -> int:
        """How much is held, in the unit of the type's limit. O(1)."""
        return self._store.size

    def __len__(self) -> int:
        """Count the entries of all tenants. O(1)."""
        return len(self._store)

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that have entries, sorted. O(n log n) for n tenants."""
        return self._store.tenants()

    def tenant_count(self, added: Iterable[str] = ()) -> int:
        """Count what the limit counts: tenants, removed ones too, and new ones of `added`."""
        return len(self._generations) + sum(name not in self._generations for name in set(added))

    def entry_count(self, tenant: str) -> int:
        """Count the entries of a tenant. O(1)."""
        return self._store.entry_count(tenant)

    def generation(self, tenant: str) -> Generation:
        """Return how often a tenant was removed, and up to which access it was evicted. O(1)."""
        return self._generations.get(tenant, ORIGIN)

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
        return sorted(self._store.entries(tenant))

    @property
    def value(self) -> dict[str, dict[KeyT, int]]:
        """Tenant -> key -> last access, in canonical order."""
        return {tenant: dict(self.entries(tenant)) for tenant in self.tenants()}

    # The lattice.

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new. O(delta).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
            LimitExceeded: this state could become larger than 4 times its limit, or hold too
                many tenants. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise InvalidTypeError(f"a {type(self).__name__} cannot join a {type(delta).__name__}")
        if delta is self:
            return type(self)()
        self._check_growth(delta)
        new = type(self)()
        taken: list[tuple[str, KeyT, int]] = []
        is_all_new = len(delta) <= GROUP_ENTRIES_MAX
        for tenant, theirs in delta._generations.items():
            mine = self._generations.get(tenant, ORIGIN)
            if theirs.epoch > mine.epoch:
                self._drop_tenant(tenant)
                self._set_generation(tenant, theirs)
                new._generations[tenant] = theirs
            elif theirs.epoch == mine.epoch and theirs.floor > mine.floor:
                self._raise_floor(tenant, theirs)
                new._generations[tenant] = theirs
            else:
                has_entries = delta._store.entry_count(tenant) > 0
                is_all_new = is_all_new and has_entries and not theirs.floor
            if theirs.epoch < mine.epoch:
                continue
            for key, access in self._take(delta, tenant):
                taken.append((tenant, key, access))
                if len(taken) > GROUP_ENTRIES_MAX:
                    new._put_all(taken, delta)
                    taken.clear()
        if is_all_new and len(taken) == len(delta):
            return delta
        new._put_all(taken, delta)
        return new

    def _take(self, delta: Self, tenant: str) -> Iterator[tuple[KeyT, int]]:
        """Take over the entries of a tenant whose epoch is this one's; yield the new ones."""
        epoch, floor = self._generations.get(tenant, delta._generations[tenant])
        for key, access in delta._store.entries(tenant):
            if access > floor and self._place(key, tenant=tenant, epoch=epoch, access=access):
                yield key, access

    def _read_row(
        self, tenant: str, generation: Generation, entries: Iterable[tuple[KeyT, int]]
    ) -> None:
        """Put in a tenant that a peer sent; the entries are checked while they are read."""
        if generation != ORIGIN:
            self._generations[tenant] = generation
        try:
            for key, access in entries:
                self._place(key, tenant=tenant, epoch=generation.epoch, access=access)
        except LimitError as error:
            raise LimitExceeded(error.what, size=error.size, limit=error.limit) from error
        require(tenant in self._generations, "a tenant of which nothing is known")

    def _put_all(self, entries: list[tuple[str, KeyT, int]], source: Self) -> None:
        for tenant, key, access in entries:
            epoch = source._generations[tenant].epoch
            self._place(key, tenant=tenant, epoch=epoch, access=access)

    def _check_growth(self, delta: Self) -> None:
        size, limit = self.size + delta.size, self._size_max * PREFIX_HELD_FACTOR
        if size > limit:
            raise LimitExceeded(self._what, size=size, limit=limit)
        added = sum(tenant not in self._generations for tenant in delta._generations)
        size = len(self._generations) + added
        if size > TENANTS_MAX:
            raise LimitExceeded("tenants", size=size, limit=TENANTS_MAX)

    def _place(self, key: KeyT, *, tenant: str, epoch: int, access: int) -> bool:
        """Store an entry; tell whether it is new or was raised."""
        key_hash, previous = self._store.place(key, tenant=tenant, access=access)
        if previous is not None and previous >= access:
            return False
        if tenant not in self._generations:
            self._set_generation(tenant, Generation(epoch, 0))
        if self._digests is not None:
            if previous is not None:
                self._digests.drop_entry(tenant, epoch, key_hash, previous)
            self._digests.add_entry(tenant, epoch, key_hash, access)
        return True

    def _set_generation(self, tenant: str, generation: Generation) -> None:
        if self._digests is not None:
            self._digests.drop_generation(tenant, *self._generations.get(tenant, ORIGIN))
            self._digests.add_generation(tenant, *generation)
        self._generations[tenant] = generation

    def _raise_floor(self, tenant: str, generation: Generation) -> None:
        dropped = self._store.evict(tenant, floor=generation.floor)
        if self._digests is not None:
            for key_hash, access in dropped:
                self._digests.drop_entry(tenant, generation.epoch, key_hash, access)
        self._set_generation(tenant, generation)

    def _drop_tenant(self, tenant: str) -> None:
        self._store.remove_tenant(tenant)
        self._generations.pop(tenant, None)
        if self._digests is not None:
            self._digests.drop_tenant(tenant)

    def __or__(self, other: Self, /) -> Self:
        if other.__class__ is not self.__class__:
            return NotImplemented
        joined = self.copy()
        joined.absorb(other)
        return joined

    def __le__(self, other: Self, /) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        for tenant, mine in self._generations.items():
            theirs = other._generations.get(tenant)
            if theirs is None or mine.epoch > theirs.epoch:
                return False
            if mine.epoch < theirs.epoch:
                continue
            if mine.floor > theirs.floor:
                return False
            for key, access in self._store.entries(tenant):
                if access > theirs.floor:
                    held = other._store.access(key, tenant=tenant)
                    if held is None or held < access:
                        return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TenantCache) or other.__class__ is not self.__class__:
            return NotImplemented
        if self._generations != other._generations or len(self) != len(other):
            return False
        return all(
            access == other._store.access(key, tenant=tenant)
            for tenant in self._store.tenants()
            for key, access in self._store.entries(tenant)
        )

    def is_bottom(self) -> bool:
        """Tell whether nothing was ever written. O(1)."""
        return not self._generations

    def decompose(self) -> Iterator[Self]:
        """Yield for each tenant each entry, the floor, or the epoch where there is no more."""
        for tenant in sorted(self._generations):
            epoch, floor = self._generations[tenant]
            for key, access in self.entries(tenant):
                part = type(self)()
                part._place(key, tenant=tenant, epoch=epoch, access=access)
                yield part
            if floor or not self._store.entry_count(tenant):
                part = type(self)()
                part._generations[tenant] = Generation(epoch, floor)
                yield part

    def copy(self) -> Self:
        """Return an independent copy. O(n); texts are shared."""
        other = type(self)()
        other._store = self._store.copy()
        other._generations = self._generations.copy()
        other._digests = None if self._digests is None else self._digests.copy()
        return other

    # Digests and parts.

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

    def part(self, buckets: Collection[int]) -> Self:
        """Return the entries of some buckets, with their tenants' epochs and floors.

        O(n + size of these entries).
        """
        part = type(self)()
        wanted = frozenset(buckets)
        for tenant, generation in self._generations.items():
            for key, access in self._store.entries(tenant, buckets=wanted):
                part._place(key, tenant=tenant, epoch=generation.epoch, access=access)
            is_known = tenant in part._generations or bucket_of_tenant(tenant) in wanted
            if is_known and generation != ORIGIN:
                part._generations[tenant] = generation
        return part

    def __repr__(self) -> str:
        count = len(self._generations)
        return f"{type(self).__name__}({len(self)} entries, {count} tenants)"

    def _check(self) -> None:
        """Assert every invariant. O(n)."""
        self._store._check()
        assert set(self._store.tenants()) <= self._generations.keys(), self
        for tenant, generation in self._generations.items():
            oldest = self._store.oldest_access(tenant)
            assert generation != ORIGIN or oldest is not None, tenant
            assert oldest is None or oldest > generation.floor, (tenant, oldest, generation)
        if self._digests is not None:
            again = self.copy()
            again._digests = None
            assert again.bucket_digests() == self.bucket_digests(), self
            for tenant in self._generations:
                assert again.tenant_digests(tenant) == self.tenant_digests(tenant), tenant
