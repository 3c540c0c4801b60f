"""A radix tree over anything that is a string of bytes cut into units: who has which prefix.

Rule: the counting of units, tenants and entries must live in this file; what a unit is belongs to
the types in `radix_tree` and `token_tree`, and the shape of the tree to `nodes`.

An entry is a key of one tenant with the access at which it was last used. A tenant holds every
prefix of its entries, so a shared prefix is held as long as one of its users is and never goes
before what hangs below it.

Speed comes from comparing whole edges with `bytes.startswith` (one `memcmp`); no loop runs over
units. An insertion that extends or repeats the last one starts where that one ended, so a
conversation given turn by turn is not walked from the root each time. Where the text last asked
for led is remembered until the tree changes, so that to match, to look up and to insert one and
the same object is one descent.
Source: the semantics of the string tree in sglang's router (a match may end inside an edge,
tenants on every node of a path), whose inner nodes have no access of their own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, partial
from heapq import heappush
from typing import Any, ClassVar, Generic, Self, TypeVar

from meshlib.errors import InvalidValueError, LimitError
from meshlib.hashing import hash64
from meshlib.limits import PREFIX_HELD_FACTOR, TENANTS_MAX, TREE_CHARACTERS_MAX
from meshlib.prefix.nodes import ABSENT, NOBODY, ROOT, Nodes, common_bytes
from meshlib.prefix.recency import ACCESS_SHIFT, STEP, Eldest, Recency
from meshlib.prefix.records import (
    ACCESS_MAX,
    NO_MATCH,
    Entry,
    Match,
    Placement,
    check_access,
    check_tenant,
)

__all__ = ["PrefixTree"]

KeyT = TypeVar("KeyT", bound=Sequence[Any])
Place = tuple[int, int, int, int, int, int]
"""Where a descent ended: the last node that matched whole, how many bytes and units that is, the
node below it that matched in part or 0, and how many bytes and units of that one."""

_new_tuple = tuple.__new__


class _Holding:
    """What one tenant has: its number, its entries by last access, the units of its nodes."""

    __slots__ = ("number", "recency", "units")

    def __init__(self, number: int, recency: Recency) -> None:
        self.number = number
        self.recency = recency
        self.units = 0


class PrefixTree(ABC, Generic[KeyT]):
    """What the trees share.

    In the complexities, d is the number of nodes on a path (not of units) and m the number of
    bytes compared, in C.

    Args:
        units_max: how many units the tree may hold; 1 to 4 times 67,108,864.
    """

    __slots__ = (
        "_eldest",
        "_entry_count",
        "_finger",
        "_finger_data",
        "_finger_units",
        "_holdings",
        "_names",
        "_nodes",
        "_sought",
        "_sought_data",
        "_sought_place",
        "_tenants_free",
        "_units",
        "_units_max",
    )

    _what: ClassVar[str]
    _width: ClassVar[int]
    """Bytes of a unit; of the narrowest where they differ."""

    def __init__(self, units_max: int) -> None:
        if units_max < 1:
            raise InvalidValueError(f"{self._what}_max must be at least 1, got {units_max}")
        limit = TREE_CHARACTERS_MAX * PREFIX_HELD_FACTOR
        if units_max > limit:
            raise LimitError(f"tree {self._what}", size=units_max, limit=limit)
        self._units_max = units_max
        self._units = 0
        self._entry_count = 0
        # The columns are made at the first insertion: many a tree is made and dropped empty.
        self._nodes = _empty_nodes(self._first)
        self._holdings: dict[str, _Holding] = {}
        self._names: list[str] = []
        self._tenants_free: list[int] = []
        self._eldest = Eldest(self._recency_of)
        self._finger, self._finger_data, self._finger_units = ROOT, b"", 0
        self._sought: KeyT | None = None
        self._sought_data = b""
        self._sought_place: Place = (ROOT, 0, 0, ROOT, 0, 0)

    # What a unit is

    @staticmethod
    @abstractmethod
    def _check_key(key: object) -> None:
        """Raise what is wrong with the key of an entry."""

    @staticmethod
    @abstractmethod
    def _encoded(key: KeyT) -> bytes:
        """Return the bytes of a request, which may be empty or longer than an entry."""

    @staticmethod
    @abstractmethod
    def _decoded(data: bytes) -> KeyT:
        """Return the key whose bytes these are."""

    @staticmethod
    @abstractmethod
    def _first(edge: bytes) -> Any:
        """Return the unit that an edge begins with, as it stands in a key."""

    @staticmethod
    def _whole_units(edge: bytes, common: int) -> tuple[int, int]:
        """Return how many bytes of `common` are whole units, and how many units these are.

        Asked only where units differ in width.
        """
        raise NotImplementedError

    # Reading

    @property
    def size(self) -> int:
        """How much the tree holds: what its limit counts. A shared prefix counts once. O(1)."""
        return self._units

    def __len__(self) -> int:
        """Count the entries of all tenants. O(1)."""
        return self._entry_count

    def entry_count(self, tenant: str) -> int:
        """Count the entries of a tenant; 0 when unknown. O(1)."""
        holding = self._holdings.get(tenant)
        return 0 if holding is None else holding.recency.count

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that have entries, sorted. O(n log n) for n tenants."""
        return tuple(sorted(self._holdings))

    def access(self, key: KeyT, *, tenant: str) -> int | None:
        """Return the last access of exactly this entry, or None. O(d + m)."""
        holding = self._holdings.get(tenant)
        node = self._find(key)
        if holding is None or node is None:
            return None
        access = self._nodes.access(node, holding.number)
        return None if access < 0 else access

    def match(self, key: KeyT) -> Match:
        """Find the longest prefix of `key` that anybody holds, and all who hold it. O(d + m).

        The match may end inside an edge: a key of which only the beginning is shared is a match
        of that beginning. The tenants are those that hold the deepest matched point.
        """
        # As `_descend`, without what only an insertion needs: this is asked most often.
        data = self._encoded(key)
        nodes = self._nodes
        edges, below, counts = nodes.edges, nodes.below, nodes.counts
        node, at, units, size = ROOT, 0, 0, len(data)
        while at < size:
            hanging = below[node]
            if hanging is None:
                break
            child = hanging.get(key[units]) if isinstance(hanging, dict) else hanging
            if child is None:
                break
            edge = edges[child]
            if not data.startswith(edge, at):
                _, count = self._partial(key, data, edge, at)
                if count:
                    node = child
                    units += count
                break
            at += len(edge)
            units += counts[child]
            node = child
        if not units:
            return NO_MATCH
        return _new_tuple(Match, (nodes.names(node, self._names), units))

    def match_tenant(self, key: KeyT, *, tenant: str) -> int:
        """Return how many units of `key` one tenant holds. O(d + m)."""
        holding = self._holdings.get(tenant)
        if holding is not None:
            for node, units in self._path(key):
                if self._nodes.holds(node, holding.number):
                    return units
        return 0

    def match_each(self, key: KeyT) -> dict[str, int]:
        """Return how many units of `key` each tenant holds, sorted by tenant.

        Tenants that hold none are left out. O(d + m + t log t) for t tenants on the path; this
        is what a router needs that may not choose everybody.
        """
        reached: dict[int, int] = {}
        for node, units in self._path(key):
            for tenant in self._nodes.holders(node):
                reached.setdefault(tenant, units)
        names = self._names
        if len(reached) == 1:
            return {names[tenant]: units for tenant, units in reached.items()}
        return dict(sorted([(names[tenant], units) for tenant, units in reached.items()]))

    def entries(
        self, tenant: str, *, buckets: Collection[int] | None = None
    ) -> Iterator[tuple[KeyT, int]]:
        """Yield the (key, access) pairs of a tenant, in no particular order.

        Each key is built when it is asked for. The tree must not change meanwhile.

        Args:
            tenant: whose.
            buckets: only keys whose hash has one of these as its top byte; all without it.
        """
        holding = self._holdings.get(tenant)
        if holding is not None:
            nodes, number = self._nodes, holding.number
            for node in holding.recency.items():
                if buckets is None or nodes.hashes[node] >> 56 in buckets:
                    yield self._decoded(nodes.data(node)), nodes.access(node, number)

    def entry_hashes(self, tenant: str) -> Iterator[tuple[int, int]]:
        """Yield the (hash of the key, access) pairs of a tenant without building the keys."""
        holding = self._holdings.get(tenant)
        if holding is not None:
            for node in holding.recency.items():
                yield self._nodes.hashes[node], self._nodes.access(node, holding.number)

    def oldest(self, tenant: str | None = None) -> Entry[KeyT] | None:
        """Return the least recently used entry, of one tenant or of all; None without any.

        Ties go to the smaller tenant, then to the entry that came first. Amortised O(log n) for
        one tenant and O(log n + log t) for t tenants, and building the key.
        """
        if tenant is None:
            eldest = self._eldest.oldest()
            if eldest is None:
                return None
            tenant, node, access = eldest
        else:
            holding = self._holdings.get(tenant)
            found = None if holding is None else holding.recency.oldest()
            if found is None:
                return None
            node, access = found
        return Entry(tenant, self._decoded(self._nodes.data(node)), access)

    def oldest_access(self, tenant: str) -> int | None:
        """Return the access of a tenant's least recently used entry. Amortised O(log n)."""
        holding = self._holdings.get(tenant)
        oldest = None if holding is None else holding.recency.oldest()
        return None if oldest is None else oldest[1]

    def oldest_tenant(self) -> tuple[str, int] | None:
        """Return whose the least recently used entry of all is, and its access.

        Ties go to the smaller tenant. Amortised O(log n + log t): the others are not asked.
        """
        eldest = self._eldest.oldest()
        return None if eldest is None else (eldest[0], eldest[2])

    def floor_for(self, size_max: int) -> int:
        """Return the lowest floor whose eviction of every tenant leaves `size_max` units.

        Or fewer; 0 when there are no more than that. O(n log n) for n entries, for an eviction
        now and then.
        """
        if self._units <= size_max:
            return 0
        nodes = self._nodes
        entries = [
            (nodes.access(node, holding.number), node)
            for holding in self._holdings.values()
            for node in holding.recency.items()
        ]
        entries.sort(reverse=True)
        kept: set[int] = {ROOT}
        remaining = size_max
        for access, node in entries:
            while node not in kept:
                kept.add(node)
                remaining -= nodes.counts[node]
                node = nodes.parents[node]
            if remaining < 0:
                return access
        return 0

    def _recency_of(self, tenant: str) -> Recency | None:
        holding = self._holdings.get(tenant)
        return None if holding is None else holding.recency

    # Walking

    def _descend(self, key: KeyT, data: bytes) -> Place:
        """Follow a key as far as anybody holds it."""
        nodes = self._nodes
        edges, below, counts = nodes.edges, nodes.below, nodes.counts
        node, at, units = ROOT, 0, 0
        if data.startswith(self._finger_data):
            node, at, units = self._finger, len(self._finger_data), self._finger_units
        size = len(data)
        while at < size:
            hanging = below[node]
            if hanging is None:
                break
            child = hanging.get(key[units]) if isinstance(hanging, dict) else hanging
            if child is None:
                break
            edge = edges[child]
            if not data.startswith(edge, at):
                common = common_bytes(edge, data, at)
                if size == len(key) * self._width:
                    count = common // self._width
                    common = count * self._width
                else:
                    common, count = self._whole_units(edge, common)
                return node, at, units, child if common else ROOT, common, count
            at += len(edge)
            units += counts[child]
            node = child
        return node, at, units, ROOT, 0, 0

    def _partial(self, key: KeyT, data: bytes, edge: bytes, at: int) -> tuple[int, int]:
        """Return how many bytes and units of an edge that does not match whole do."""
        common = common_bytes(edge, data, at)
        if len(data) == len(key) * self._width:
            count = common // self._width
            return count * self._width, count
        return self._whole_units(edge, common)

    def _seek(self, key: KeyT) -> tuple[bytes, Place]:
        """Return the bytes of a key, and where it leads. O(1) if it is the one last sought."""
        if key is self._sought:
            return self._sought_data, self._sought_place
        data = self._encoded(key)
        place = self._descend(key, data)
        if type(key) is str:
            # By identity, which is enough for what cannot change.
            self._sought, self._sought_data, self._sought_place = key, data, place
        return data, place

    def _path(self, key: KeyT) -> Iterator[tuple[int, int]]:
        """Yield the nodes that a key reaches, the deepest first, and the units up to each."""
        node, _, units, below, _, count = self._seek(key)[1]
        if below and count:
            yield below, units + count
        counts, parents = self._nodes.counts, self._nodes.parents
        while node:
            yield node, units
            units -= counts[node]
            node = parents[node]

    def _find(self, key: KeyT) -> int | None:
        data, (node, at, _, _, _, _) = self._seek(key)
        return node if at == len(data) else None

    # Inserting

    def insert(self, key: KeyT, *, tenant: str, access: int) -> bool:
        """Insert an entry, or raise its access. O(d + m), and O(len(key)) when it is new.

        An entry that extends or repeats the one inserted last takes O(m).

        Args:
            key: what the tenant holds; not empty.
            tenant: who holds it; 1 byte to 1 KiB in UTF-8.
            access: when it was used, 0 to 2**63 - 1 in a unit of the caller's. Accesses may come
                in any order; an entry keeps the highest.

        Returns:
            Whether the entry is new or its access rose.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty key or tenant, or a number out of range.
            LimitError: a key too long, a tenant too many, or more units than the tree may hold.
                The tree is unchanged after any of these; nothing is evicted to make room.
        """
        previous = self.place(key, tenant=tenant, access=access).previous
        return previous is None or previous < access

    def place(self, key: KeyT, *, tenant: str, access: int) -> Placement:
        """Do as `insert` does, and tell what was there before. Same arguments, cost and errors."""
        self._check_key(key)
        if type(access) is not int or not 0 <= access <= ACCESS_MAX:
            check_access(access)
        data, place = self._seek(key)
        return self._put(key, data, place, tenant, access)

    def match_and_insert(
        self, key: KeyT, choose: Callable[[Match], str | None], *, access: int
    ) -> tuple[Match, Placement | None]:
        """Match, let the caller choose a tenant, and insert for it: all in one descent.

        Args:
            key: as of `insert`.
            choose: is given the match as `match` finds it, and returns the tenant to insert for,
                or None to insert nothing. It must not change the tree.
            access: as of `insert`.

        Returns:
            The match before the insertion, and what the insertion found, if there was one.

        Raises:
            InvalidTypeError, InvalidValueError, LimitError: as of `insert`, and what `choose`
                raises. The tree is unchanged after any of these.
        """
        self._check_key(key)
        if type(access) is not int or not 0 <= access <= ACCESS_MAX:
            check_access(access)
        data, place = self._seek(key)
        node, _, units, below, _, count = place
        units += count
        match = NO_MATCH
        if units:
            match = _new_tuple(Match, (self._nodes.names(below or node, self._names), units))
        tenant = choose(match)
        if tenant is None:
            return match, None
        return match, self._put(key, data, place, tenant, access)

    def _put(self, key: KeyT, data: bytes, place: Place, tenant: str, access: int) -> Placement:
        holding = self._holdings.get(tenant)
        if holding is None:
            self._check_tenant(tenant)
        node, at, units, below, common, count = place
        nodes = self._nodes
        rest = len(key) - units - count
        held = 0
        if rest and self._units + rest > self._units_max:
            total = self._units + rest
            raise LimitError(f"tree {self._what}", size=total, limit=self._units_max)
        self._sought = None
        if holding is None:
            if not self._names:
                self._nodes = nodes = Nodes(self._first)
            holding = self._add_tenant(tenant)
        number = holding.number
        if below and rest:
            unit, fork = key[units], key[units + count]
            node, held = nodes.branch(
                below, common, count, unit, data[at + common :], rest, number, fork
            )
        elif below:
            node = nodes.split(below, common, count, key[units])
        elif rest:
            held = rest + nodes.hold(node, number)
            node = nodes.hang(data[at:], node, rest, number, key[units])
        if rest:
            nodes.accesses[node] = access
            self._units += rest
            previous = ABSENT
        else:
            previous = nodes.access(node, number)
            held = nodes.end(node, number, access) if previous < access else 0
        key_hash = nodes.hashes[node]
        if not key_hash:
            key_hash = nodes.hashes[node] = hash64(data)
        self._finger, self._finger_data, self._finger_units = node, data, len(key)
        if previous >= 0:
            return _new_tuple(Placement, (key_hash, previous))
        self._entry_count += 1
        holding.units += held
        recency = holding.recency
        recency.count += 1
        recency.order = order = recency.order + STEP
        heappush(recency.heap, (access << ACCESS_SHIFT) + order + node)
        if access < recency.bound:
            self._eldest.lower(tenant, recency, access=access, tenant_count=len(self._names))
        return _new_tuple(Placement, (key_hash, None))

    def _check_tenant(self, tenant: str) -> None:
        check_tenant(tenant)
        if len(self._holdings) >= TENANTS_MAX:
            raise LimitError("tenants", size=len(self._holdings) + 1, limit=TENANTS_MAX)

    def _add_tenant(self, tenant: str) -> _Holding:
        if self._tenants_free:
            number = self._tenants_free.pop()
            self._names[number] = tenant
            self._nodes.sets.clear()
        else:
            number = len(self._names)
            self._names.append(tenant)
        recency = Recency(partial(_access_of, self._nodes, number))
        holding = self._holdings[tenant] = _Holding(number, recency)
        return holding

    # Removing

    def remove(self, key: KeyT, *, tenant: str) -> bool:
        """Remove one entry; tell whether it was there. O(d + m + edges joined)."""
        holding = self._holdings.get(tenant)
        node = self._find(key)
        if holding is None or not node or self._nodes.access(node, holding.number) < 0:
            return False
        changed: list[int] = []
        holding.units -= self._drop(node, holding.number, changed)
        holding.recency.discard()
        self._settle(tenant, holding, changed)
        return True

    def remove_tenant(self, tenant: str) -> int:
        """Remove a tenant with all its entries; return how many. O(its nodes)."""
        return len(self.evict(tenant, floor=ACCESS_MAX))

    def evict(self, tenant: str, *, floor: int) -> list[tuple[int, int]]:
        """Drop the entries of a tenant that were last used at or before `floor`.

        O((k + touched since) * log n + nodes it holds no more) for k dropped of n, whatever the
        number of tenants; the keys are not built.

        Returns:
            The (hash of the key, access) pairs of what was dropped, oldest first.
        """
        holding = self._holdings.get(tenant)
        if holding is None:
            return []
        dropped: list[tuple[int, int]] = []
        changed: list[int] = []
        hashes, number = self._nodes.hashes, holding.number
        for node, access in holding.recency.take_up_to(floor):
            dropped.append((hashes[node], access))
            holding.units -= self._drop(node, number, changed)
        if dropped:
            self._settle(tenant, holding, changed)
            dropped.sort(key=lambda pair: (pair[1], pair[0]))
        return dropped

    def _drop(self, node: int, number: int, changed: list[int]) -> int:
        self._entry_count -= 1
        units, left = self._nodes.drop(node, number, changed)
        self._units -= left
        return units

    def _settle(self, tenant: str, holding: _Holding, changed: list[int]) -> None:
        """Give the tree its shape back around what changed, and forget who has nothing."""
        if not holding.recency.count:
            del self._holdings[tenant]
            self._names[holding.number] = ""
            self._tenants_free.append(holding.number)
        self._nodes.tidy(changed)
        self._sought = None
        self._finger, self._finger_data, self._finger_units = ROOT, b"", 0

    def copy(self) -> Self:
        """Return an independent tree with the same entries. O(nodes); edges are shared."""
        twin = type(self)(**{f"{self._what}_max": self._units_max})
        twin._take_over(self)  # noqa: SLF001 - of the same class
        return twin

    def _take_over(self, other: PrefixTree[KeyT]) -> None:
        self._nodes = other._nodes.copy()
        self._units = other._units
        self._entry_count = other._entry_count
        self._names = other._names.copy()
        self._tenants_free = other._tenants_free.copy()
        for tenant, holding in other._holdings.items():
            recency = Recency(partial(_access_of, self._nodes, holding.number))
            recency.copy_from(holding.recency)
            copied = self._holdings[tenant] = _Holding(holding.number, recency)
            copied.units = holding.units
        self._eldest.copy_from(other._eldest)

    def _check(self) -> None:
        """Assert every invariant; shows the entries when one is broken. O(n)."""
        try:
            self._check_nodes()
            self._eldest._check(self.tenants())  # noqa: SLF001 - one structure, one check
            assert len(self._names) == len(self._holdings) + len(self._tenants_free)
            if self._sought is not None:
                assert self._descend(self._sought, self._sought_data) == self._sought_place
            if self._finger:
                assert self._nodes.data(self._finger) == self._finger_data
                assert len(self._decoded(self._finger_data)) == self._finger_units
        except AssertionError:
            for tenant in self._holdings:
                print(tenant, sorted(self.entries(tenant)))
            raise

    def _check_nodes(self) -> None:
        nodes = self._nodes
        units, held, ended = nodes.check()
        assert units == self._units, (units, self._units)
        assert units <= self._units_max
        assert sum(ended.values()) == self._entry_count, (ended, self._entry_count)
        numbers = {holding.number for holding in self._holdings.values()}
        assert set(held) == set(ended) == numbers, (held, ended, numbers)
        for tenant, holding in self._holdings.items():
            assert self._names[holding.number] == tenant, tenant
            assert holding.units == held[holding.number], (tenant, holding.units, held)
            assert holding.recency.count == ended[holding.number], (tenant, ended)
            holding.recency._check()  # noqa: SLF001 - one structure, one check
            for node in holding.recency.items():
                data = nodes.data(node)
                assert nodes.hashes[node] == hash64(data), self._decoded(data)
        for node, edge in enumerate(nodes.edges):
            if node and nodes.owners[node] != NOBODY:
                assert nodes.counts[node] == len(self._decoded(edge)), edge
        for together, names in nodes.sets.items():
            if numbers.issuperset(together):
                assert list(names) == sorted(self._names[tenant] for tenant in together), names
        for node, names in nodes.named.items():
            holders = sorted(self._names[tenant] for tenant in nodes.holders(node))
            assert list(names) == holders, (names, holders)


@cache
def _empty_nodes(first: Callable[[bytes], Any]) -> Nodes:
    """Return the columns of a tree that never held anything; nothing writes to them."""
    return Nodes(first)


def _access_of(nodes: Nodes, tenant: int, node: int) -> int:
    return nodes.access(node, tenant)
