"""What is asked of a tree: matches, accesses, entries, and who has the oldest.

Rule: what changes no entry must live in this file.

Where the text last asked for led is remembered until the tree changes, so that to match, to look
up and to insert one and the same object is one descent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any, ClassVar, Final, Generic, TypeVar

from meshlib.errors import InvalidValueError, LimitError
from meshlib.limits import PREFIX_HELD_FACTOR, TREE_CHARACTERS_MAX
from meshlib.prefix.columns import ROOT
from meshlib.prefix.comparing import common_bytes
from meshlib.prefix.naming import TextNames
from meshlib.prefix.nodes import Nodes
from meshlib.prefix.recency import Eldest, Recency
from meshlib.prefix.records import NO_MATCH, Entry, Match

__all__ = ["Holding", "KeyT", "Place", "TreeReads", "new_tuple"]

KeyT = TypeVar("KeyT", bound=Sequence[Any])
Place = tuple[int, int, int, int, int, int]
"""Where a descent ended: the last node that matched whole, how many bytes and units that is, the
node below it that matched in part or 0, and how many bytes and units of that one."""

new_tuple = tuple.__new__

_PASSED_OVER_MAX: Final = 16_384
"""Entries that are only looked at in one step: some milliseconds."""


class Holding:
    """What one tenant has: its number, its entries by last access, the units of its nodes."""

    __slots__ = ("number", "recency", "units")

    def __init__(self, number: int, recency: Recency) -> None:
        self.number = number
        self.recency = recency
        self.units = 0


class TreeReads(ABC, Generic[KeyT]):
    """What a tree has, and all that is asked of it.

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
        "_text_names",
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
        self._holdings: dict[str, Holding] = {}
        self._names: list[str] = []
        self._tenants_free: list[int] = []
        self._eldest = Eldest(self._recency_of)
        # Made when it is first asked for: most trees are never asked.
        self._text_names: TextNames | None = None
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
        if key is self._sought:
            reached, _, units, deeper, _, count = self._sought_place
            if not units + count:
                return NO_MATCH
            names = self._nodes.names(deeper or reached, self._names)
            return new_tuple(Match, (names, units + count))
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
        return new_tuple(Match, (nodes.names(node, self._names), units))

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
        node, _, units, below, _, count = self._seek(key)[1]
        nodes = self._nodes
        reached: dict[int, int] = {}
        owners, shared, counts, parents = nodes.owners, nodes.shared, nodes.counts, nodes.parents
        if below and count:
            reached = dict.fromkeys(nodes.holders(below), units + count)
        while node:
            owner = owners[node]
            # Who holds a node holds what is above it: others there are only where there are more.
            if owner >= 0:
                if not reached:
                    reached[owner] = units
            elif len(shared[node]) > len(reached):
                for tenant in shared[node]:
                    reached.setdefault(tenant, units)
            units -= counts[node]
            node = parents[node]
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

    def entries_by_key(
        self, *, buckets: Collection[int]
    ) -> Iterator[tuple[KeyT, list[tuple[str, int]]] | None]:
        """Yield each key once, with the (tenant, access) pairs of all that have it, unordered.

        As `entries` otherwise: each key is built when it is asked for, and the tree must not
        change meanwhile. A step costs with the tenants that hold one key, or with the few
        thousand entries that were passed over where None is yielded.
        """
        nodes, names = self._nodes, self._names
        shared, passed_over = set[int](), 0
        for holding in self._holdings.values():
            for node in holding.recency.items():
                if node in shared or nodes.hashes[node] >> 56 not in buckets:
                    passed_over += 1
                    if passed_over % _PASSED_OVER_MAX == 0:
                        yield None
                    continue
                held = [
                    (names[tenant], access)
                    for tenant in nodes.holders(node)
                    if (access := nodes.access(node, tenant)) >= 0
                ]
                if len(held) > 1:
                    shared.add(node)
                yield self._decoded(nodes.data(node)), held

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

    # Keys by the hashes of their bytes

    def known_beginning(self, key: KeyT) -> tuple[bytes, int, int]:
        """Return a key's bytes, the name of a key that begins as it does, and how far. O(d + m).

        A name is the 64-bit hash of a key's bytes, as of `Placement.text_hash`.

        Returns:
            the bytes; the name, 0 without one; and how many bytes the two share, 0 likewise.
        """
        data, (node, at, _, below, common, _) = self._seek(key)
        size = at + common
        if not size:
            return data, 0, 0
        name = (self._text_names or self._naming()).below(below or node)
        return data, name, size if name else 0

    def data_named(self, name: int) -> bytes | None:
        """Return the bytes of a key by its name; None where it is not found. O(d + bytes).

        What is found is right; of two keys that share a place in the table one is not found.
        """
        node = self._naming().find(name)
        return None if node is None else self._nodes.data(node)

    def _naming(self) -> TextNames:
        """Return the table of names. O(1), and O(nodes), at most 65,536, the first time."""
        if self._text_names is None:
            names = TextNames(self._nodes)
            if not self._names:
                return names  # of no nodes of this tree's own
            self._text_names = names
        return self._text_names

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


@cache
def _empty_nodes(first: Callable[[bytes], Any]) -> Nodes:
    """Return the columns of a tree that never held anything; nothing writes to them."""
    return Nodes(first)
