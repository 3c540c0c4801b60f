"""A radix tree over anything that is a string of bytes cut into units: who has which prefix.

Rule: the counting of units, tenants and entries must live in this file; what a unit is belongs to
the types in `radix_tree` and `token_tree`, and the shape of the tree to `nodes`.

An entry is a key of one tenant with the access at which it was last used. A tenant holds every
prefix of its entries, so a shared prefix is held as long as one of its users is and never goes
before what hangs below it.

Speed comes from comparing whole edges with `bytes.startswith` (one `memcmp`); no loop runs over
units. An insertion that extends or repeats the last one starts where that one ended, so a
conversation given turn by turn is not walked from the root each time.
Source: the semantics of the string tree in sglang's router (a match may end inside an edge,
tenants on every node of a path), whose inner nodes have no access of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappush
from typing import Self

from meshlib.errors import LimitError
from meshlib.hashing import hash64
from meshlib.limits import TENANTS_MAX
from meshlib.prefix.columns import ABSENT, NOBODY, ROOT
from meshlib.prefix.nodes import Nodes
from meshlib.prefix.recency import ACCESS_SHIFT, STEP, Recency
from meshlib.prefix.records import (
    ACCESS_MAX,
    NO_MATCH,
    Match,
    Placement,
    check_access,
    check_tenant,
)
from meshlib.prefix.tree_reads import Holding, KeyT, Place, TreeReads, new_tuple

__all__ = ["PrefixTree"]


class PrefixTree(TreeReads[KeyT]):
    """What the trees share; arguments as of `TreeReads`."""

    __slots__ = ()

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
            match = new_tuple(Match, (self._nodes.names(below or node, self._names), units))
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
            if self._text_names is not None:
                self._text_names.note(node)
        self._finger, self._finger_data, self._finger_units = node, data, len(key)
        if previous >= 0:
            return new_tuple(Placement, (key_hash, previous))
        self._entry_count += 1
        holding.units += held
        recency = holding.recency
        recency.count += 1
        recency.order = order = recency.order + STEP
        heappush(recency.heap, (access << ACCESS_SHIFT) + order + node)
        if access < recency.bound:
            self._eldest.lower(tenant, recency, access=access, tenant_count=len(self._names))
        return new_tuple(Placement, (key_hash, None))

    def _check_tenant(self, tenant: str) -> None:
        check_tenant(tenant)
        if len(self._holdings) >= TENANTS_MAX:
            raise LimitError("tenants", size=len(self._holdings) + 1, limit=TENANTS_MAX)

    def _add_tenant(self, tenant: str) -> Holding:
        if self._tenants_free:
            number = self._tenants_free.pop()
            self._names[number] = tenant
            self._nodes.sets.clear()
        else:
            number = len(self._names)
            self._names.append(tenant)
        recency = Recency(partial(_access_of, self._nodes, number))
        holding = self._holdings[tenant] = Holding(number, recency)
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

    def _settle(self, tenant: str, holding: Holding, changed: list[int]) -> None:
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

    def copy_content(self) -> Self:
        """Return a tree that has the same `entries` and can be asked for nothing else. O(nodes).

        Some five times quicker than `copy`, and it must not be changed: for whoever reads all
        that a tree holds, on another thread too.
        """
        twin = type(self)(**{f"{self._what}_max": self._units_max})
        twin._take_content(self)  # noqa: SLF001 - of the same class
        return twin

    def _take_content(self, other: PrefixTree[KeyT]) -> None:
        self._nodes = other._nodes.copy_content()
        self._names = other._names.copy()
        self._entry_count = other._entry_count
        for tenant, holding in other._holdings.items():
            recency = Recency(partial(self._nodes.access, tenant=holding.number))
            recency.copy_from(holding.recency)
            self._holdings[tenant] = Holding(holding.number, recency)

    def _take_over(self, other: PrefixTree[KeyT]) -> None:
        self._nodes = other._nodes.copy()
        self._units = other._units
        self._entry_count = other._entry_count
        self._names = other._names.copy()
        self._tenants_free = other._tenants_free.copy()
        for tenant, holding in other._holdings.items():
            recency = Recency(partial(_access_of, self._nodes, holding.number))
            recency.copy_from(holding.recency)
            copied = self._holdings[tenant] = Holding(holding.number, recency)
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


def _access_of(nodes: Nodes, tenant: int, node: int) -> int:
    return nodes.access(node, tenant)
