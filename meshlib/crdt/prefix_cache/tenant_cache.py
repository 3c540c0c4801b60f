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

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, Final, Self

from meshlib.clock import Stamp
from meshlib.crdt.prefix_cache.digests import bucket_of_tenant
from meshlib.crdt.prefix_cache.entries import KeyT, StoreT, TenantEntries
from meshlib.crdt.prefix_cache.epochs import restamped_epoch
from meshlib.crdt.prefix_cache.store import ORIGIN, Generation
from meshlib.crdt.wire import cannot_join
from meshlib.errors import InvalidValueError, LimitError, LimitExceeded
from meshlib.limits import PREFIX_HELD_FACTOR, TENANTS_MAX
from meshlib.prefix import check_access, check_tenant
from meshlib.reading import require

__all__ = ["EPOCH_MAX", "TenantCache"]

EPOCH_MAX: Final = (1 << 63) - 1
"""The highest epoch of a tenant."""

_BLOCK_SIZE: Final = 128
_REPEATED_SIZE: Final = 128
"""What a block, and another tenant's entry of the same text, count for in characters: few bytes."""

_PART_COST_MAX: Final = 128 * 1024
_TEXT_COST: Final = 512
_REPEATED_COST: Final = 128
_BLOCK_COST: Final = 192
"""A part ends at a cost, too: that of a text beside its characters, of another tenant's entry of
it, and of a block. To take one in takes as long as so many characters."""


class TenantCache(TenantEntries[KeyT, StoreT]):
    """What the prefix cache types share. A container; not hashable.

    A subclass says where its entries are stored, how many it may hold, and how they are written.
    """

    __hash__ = None  # type: ignore[assignment]  # typeshed declares __hash__ as a method
    __slots__ = ()

    _what: ClassVar[str] = "entries"
    _size_max: ClassVar[int] = 0

    @abstractmethod
    def to_wire(self) -> Any:
        """Return the canonical tree of this state. O(n log n)."""

    # Writes: pure, each returns its delta.

    def _insert(self, keys: Iterable[KeyT], *, tenant: str, access: int) -> Self:
        """Return the delta of entries that are new or younger than what is held."""
        self._check_insertion(tenant, access)
        generation = self._generations.get(tenant, ORIGIN)
        delta = type(self)()
        if access > generation.floor:
            older = self._older(keys, tenant=tenant, access=access)
            delta._place_all(
                [(key, access) for key in older], tenant=tenant, epoch=generation.epoch
            )
        return delta

    def _check_insertion(self, tenant: str, access: int) -> None:
        check_access(access)
        if not access:
            raise InvalidValueError("an access must be at least 1")
        if tenant not in self._generations:
            check_tenant(tenant)
            self._check_tenant_count(1)

    def _older(self, keys: Iterable[KeyT], *, tenant: str, access: int) -> list[KeyT]:
        """Return the keys that are not held, or were used before. O(keys)."""
        get = self._store.access
        found: list[KeyT] = []
        for key in keys:
            held = get(key, tenant=tenant)
            if held is None or held < access:
                found.append(key)
        return found

    def _check_tenant_count(self, added: int) -> None:
        size = len(self._generations) + added
        if size > TENANTS_MAX:
            raise LimitError("tenants", size=size, limit=TENANTS_MAX)

    def remove_tenant(self, tenant: str, *, epoch: int = 1) -> Self:
        """Return the delta that removes a tenant with everything it has. O(1).

        It also beats every insertion that has not seen it yet: the worker restarted and its
        cache is gone. It does so also when the tenant has nothing here: another replica may be
        inserting its first entry.

        Args:
            tenant: who goes; 1 byte to 1 KiB in UTF-8.
            epoch: what the tenant's epoch becomes, 1 to 2**63 - 1, or one more than it is when
                that is higher. With epochs in the order of the removals' stamps the last removal
                beats all that was inserted before it, after other removals too.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty tenant, or an epoch out of range.
            LimitError: a tenant too many, or one at the highest epoch.
        """
        check_tenant(tenant)
        check_access(epoch)
        if not epoch:
            raise InvalidValueError("an epoch must be at least 1")
        generation = self._generations.get(tenant)
        if generation is None:
            self._check_tenant_count(1)
            generation = ORIGIN
        epoch = max(epoch, generation.epoch + 1)
        if epoch > EPOCH_MAX:
            raise LimitError("epoch", size=epoch, limit=EPOCH_MAX)
        delta = type(self)()
        delta._generations[tenant] = Generation(epoch, 0)
        return delta

    def restamp(self, change: Callable[[Stamp], Stamp]) -> Self:
        """Put removals under other stamps, in place; see `Restampable`. O(tenants)."""
        for tenant, (epoch, floor) in self._generations.items():
            changed = restamped_epoch(epoch, change)
            if changed != epoch:
                self._generations[tenant] = Generation(changed, floor)
                self._digests = None  # all of the tenant's entries are counted with its epoch
        return self

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

    def evict_here(self, tenant: str, *, floor: int) -> Self:
        """Drop what a tenant last used at or before `floor` from this very state. O(what goes).

        The same as to `absorb` what `evict` returns, for whoever makes a write of its own.
        Arguments, errors and what comes back as of `evict`.
        """
        delta = self.evict(tenant, floor=floor)
        if delta._generations:
            self._raise_floor(tenant, delta._generations[tenant])
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

    # The lattice.

    def absorb(self, delta: Self, /) -> Self:
        """Join a state into this one and return exactly the part that was new. O(delta).

        Raises:
            InvalidTypeError: the delta is of another class. State unchanged.
            LimitExceeded: this state could become larger than 4 times its limit, or hold too
                many tenants. State unchanged.
        """
        if delta.__class__ is not self.__class__:
            raise cannot_join(self, delta)
        if delta is self:
            return type(self)()
        self._check_growth(delta)
        new = type(self)()
        taken: list[tuple[str, KeyT, int]] = []
        is_all_new = len(delta) <= self._light_max
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
                has_entries = delta.entry_count(tenant) > 0
                is_all_new = is_all_new and has_entries and not theirs.floor
            if theirs.epoch < mine.epoch:
                continue
            epoch, floor = self._generations.get(tenant, theirs)
            entries = delta._entries_of(tenant)
            if floor:
                entries = ((key, access) for key, access in entries if access > floor)
            for group in _groups_of(entries, self._light_max):
                placed = self._place_all(group, tenant=tenant, epoch=epoch)
                taken.extend([(tenant, key, access) for key, access in placed])
                if len(taken) > self._light_max:
                    new._put_all(taken, delta)
                    taken.clear()
        if is_all_new and len(taken) == len(delta):
            return delta
        new._put_all(taken, delta)
        return new

    def _read_row(
        self, tenant: str, generation: Generation, entries: Iterable[tuple[KeyT, int]]
    ) -> None:
        """Put in a tenant that a peer sent; the entries are checked while they are read."""
        if generation != ORIGIN:
            self._generations[tenant] = generation
        try:
            for group in _groups_of(entries, self._light_max):
                self._place_all(group, tenant=tenant, epoch=generation.epoch)
        except LimitError as error:
            raise LimitExceeded(error.what, size=error.size, limit=error.limit) from error
        require(tenant in self._generations, "a tenant of which nothing is known")

    def _put_all(self, entries: list[tuple[str, KeyT, int]], source: Self) -> None:
        by_tenant: dict[str, list[tuple[KeyT, int]]] = {}
        for tenant, key, access in entries:
            by_tenant.setdefault(tenant, []).append((key, access))
        for tenant, group in by_tenant.items():
            self._place_all(group, tenant=tenant, epoch=source._generations[tenant].epoch)

    def _check_growth(self, delta: Self) -> None:
        limit = self._size_max * PREFIX_HELD_FACTOR
        if self._size_at_most() + delta._size_at_most() > limit:
            size = self.size + delta.size
            if size > limit:
                raise LimitExceeded(self._what, size=size, limit=limit)
        added = sum(tenant not in self._generations for tenant in delta._generations)
        size = len(self._generations) + added
        if size > TENANTS_MAX:
            raise LimitExceeded("tenants", size=size, limit=TENANTS_MAX)

    def _place_all(
        self, entries: Sequence[tuple[KeyT, int]], *, tenant: str, epoch: int
    ) -> list[tuple[KeyT, int]]:
        """Store checked entries of a tenant; return those that are new or were raised."""
        if not entries:
            return []
        placed = None if self._built is not None else self._place_light(entries, tenant)
        if placed is None:
            digests = self._digests
            stored = self._store_all(entries, tenant)
            if digests is not None and stored:
                for key_hash, previous, _, access in stored:
                    self._note_placed(tenant, epoch, key_hash, previous, access)
            placed = [(key, access) for _, _, key, access in stored]
        if placed and tenant not in self._generations:
            self._set_generation(tenant, Generation(epoch, 0))
        return placed

    def _note_placed(
        self, tenant: str, epoch: int, key_hash: int, previous: int | None, access: int
    ) -> None:
        """Take note of an entry that the store has taken. O(1)."""
        if tenant not in self._generations:
            self._set_generation(tenant, Generation(epoch, 0))
        digests = self._digests
        if digests is not None:
            if previous is not None:
                digests.drop_entry(tenant, epoch, key_hash, previous)
            digests.add_entry(tenant, epoch, key_hash, access)

    def _place_light(
        self, entries: Sequence[tuple[KeyT, int]], tenant: str
    ) -> list[tuple[KeyT, int]] | None:
        """Place entries without a store, or none of them where that is not possible."""
        if self._light_count + len(entries) > self._light_max or self._digests is not None:
            return None
        held = self._light.setdefault(tenant, {})
        before = len(held)
        placed = [pair for pair in entries if held.get(pair[0], -1) < pair[1]]
        held.update(placed)
        self._light_count += len(held) - before
        return placed

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
            for key, access in self._entries_of(tenant):
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
            for tenant in self._generations
            for key, access in self._entries_of(tenant)
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
                part._place_all([(key, access)], tenant=tenant, epoch=epoch)
                yield part
            if floor or not self.entry_count(tenant):
                part = type(self)()
                part._generations[tenant] = Generation(epoch, floor)
                yield part

    def copy(self) -> Self:
        """Return an independent copy. O(n); texts are shared."""
        other = type(self)()
        other._built = None if self._built is None else self._built.copy()
        other._light = {tenant: held.copy() for tenant, held in self._light.items()}
        other._light_count = self._light_count
        other._generations = self._generations.copy()
        other._digests = None if self._digests is None else self._digests.copy()
        return other

    def copy_content(self) -> Self:
        """Return an independent state that has the same entries, to be read and not changed.

        O(n) as `copy`, without what can be made again, which is most of it: for use on another
        thread. It makes its digests anew when they are asked for, and answers no match.
        """
        other = type(self)()
        other._built = None if self._built is None else self._built.copy_content()
        other._light = {tenant: held.copy() for tenant, held in self._light.items()}
        other._light_count = self._light_count
        other._generations = self._generations.copy()
        return other

    def bucket_parts(
        self, buckets: Collection[int], *, size_max: Callable[[], int]
    ) -> Iterator[Self]:
        """Return states whose join is the `part` of some buckets, made as they are asked for.

        O(n + size of these entries) for all of them, where a `part` for every few buckets takes
        that much each time. This state must not change meanwhile.

        Args:
            buckets: which.
            size_max: returns the characters after which a part ends; a block counts for 128. It
                ends as well once it takes long to take in: with 256 short texts, or 682 blocks.
        """
        wanted = frozenset(buckets)
        rows = (
            (tenant, generation, self._store.entries(tenant, buckets=wanted))
            for tenant, generation in self._generations.items()
        )
        return self._parts_of(rows, size_max)

    @classmethod
    def _parts_of(
        cls,
        rows: Iterable[tuple[str, Generation, Iterable[tuple[KeyT, int]]] | None],
        size_max: Callable[[], int],
    ) -> Iterator[Self]:
        """Yield the parts that rows make; None among them ends one: it was long in coming."""
        part, size, cost = cls(), 0, 0
        previous: KeyT | None = None
        for row in rows:
            if row is None:
                yield part
                part, size, cost, previous = cls(), 0, 0, None
                continue
            tenant, generation, entries = row
            if generation != ORIGIN:
                part._generations[tenant] = generation
            for key, access in entries:
                if size >= size_max() or cost >= _PART_COST_MAX:
                    yield part
                    part, size, cost, previous = cls(), 0, 0, None
                part._place_all([(key, access)], tenant=tenant, epoch=generation.epoch)
                part._generations[tenant] = generation
                if not isinstance(key, str):
                    size += _BLOCK_SIZE
                    cost += _BLOCK_COST
                elif key is previous:
                    size += _REPEATED_SIZE
                    cost += _REPEATED_COST
                else:
                    size += len(key)
                    cost += _TEXT_COST + len(key)
                previous = key
        yield part

    # Parts.

    def part(self, buckets: Collection[int]) -> Self:
        """Return the entries of some buckets, with their tenants' epochs and floors.

        O(n + size of these entries).
        """
        part = type(self)()
        wanted = frozenset(buckets)
        for tenant, generation in self._generations.items():
            for group in _groups_of(self._store.entries(tenant, buckets=wanted), self._light_max):
                part._place_all(group, tenant=tenant, epoch=generation.epoch)
            is_known = tenant in part._generations or bucket_of_tenant(tenant) in wanted
            if is_known and generation != ORIGIN:
                part._generations[tenant] = generation
        return part

    def _check(self) -> None:
        """Assert every invariant. O(n)."""
        assert self._light_count == sum(map(len, self._light.values())), self
        assert self._light_count <= self._light_max, self
        assert self._built is None or not self._light, self
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


def _groups_of(entries: Iterable[tuple[KeyT, int]], size: int) -> Iterator[list[tuple[KeyT, int]]]:
    """Cut entries into lists of a size that is fit to be placed at once."""
    iterator = iter(entries)
    while group := list(islice(iterator, size)):
        yield group
