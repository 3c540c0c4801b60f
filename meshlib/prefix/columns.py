"""The columns in which the nodes of a prefix tree are, and how they are parted and held.

Rule: what a node is made of, and each way in which the tree grows, must live in this file.

A node is a number, and what belongs to it stands at that number in lists and arrays: the bytes of
its edge, the node above, what hangs below. There is no object for a node, so the garbage
collector has a few lists to follow however many nodes there are, and a node costs some 60 bytes
beside its edge and its record in the order of eviction.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final, Self

__all__ = [
    "ABSENT",
    "BELOW_MASK",
    "ENTRY_SHIFT",
    "NOBODY",
    "ROOT",
    "SHARED",
    "THIN",
    "UNSHARED",
    "Below",
    "GrowingNodes",
]

ROOT: Final = 0
"""The node that ends nothing: the empty text."""

ABSENT: Final = -1
"""No access: the tenant has no entry there."""

NOBODY: Final = -2
"""The owner of a node that is free to be used again."""

SHARED: Final = -1
"""The owner of a node that several tenants hold."""

THIN: Final = -3
"""Less the number of the tenant whose entry ends there: the owner of a thin node."""

ENTRY_SHIFT: Final = 32
BELOW_MASK: Final = (1 << ENTRY_SHIFT) - 1

_GROWTH_MIN: Final = 16
_GROWTH_MAX: Final = 1024
_SETS_MAX: Final = 1024
_PATTERNS_MAX: Final = 4096
_THIN_HOLDERS_MAX: Final = 8

UNSHARED: Final[dict[int, int]] = {}

_EDGES: Final = [b""] * 4
_ZEROS: Final = array("i", [0] * 4)
_OWNERS: Final = array("i", [SHARED, NOBODY, NOBODY, NOBODY])
_ACCESSES: Final = array("q", [ABSENT] * 4)
_HASHES: Final = array("Q", [0] * 4)
_SHARES: Final = [UNSHARED] * 4
_FREE: Final = array("i", [3, 2, 1])

Below = dict[Any, int] | int | None
"""What hangs below a node: nothing, one node, or nodes by the first unit of their edges."""


class GrowingNodes:
    """The columns of a tree.

    A node that one tenant holds has it as its owner, and the access of the owner's entry that
    ends there, or `ABSENT`. A node that several hold is in `shared`: for each of them how many
    nodes right below it holds, and from bit 32 on one more than the access of its entry there.
    A tenant holds a node as long as that number is not 0.

    A thin node is one of a conversation that went to several workers: one entry ends there, one
    node hangs below, few hold it. Its entry is kept as that of a sole owner, and what is left in
    `shared`, how many nodes below each holds, is the same object for all nodes like it and must
    not be changed: `_held` makes a node of the other kind of it first.

    Args:
        first: returns the unit that an edge begins with: what `below` has it under.
    """

    __slots__ = (
        "accesses",
        "below",
        "counts",
        "edges",
        "first",
        "free",
        "hashes",
        "named",
        "owners",
        "parents",
        "patterns",
        "sets",
        "shared",
    )

    def __init__(self, first: Any) -> None:
        self.first = first
        # Copies of columns for three nodes: many a tree is made to hold one entry and dropped.
        self.edges = _EDGES[:]
        self.below: list[Below] = [{}, None, None, None]
        self.parents = _ZEROS[:]
        self.counts = _ZEROS[:]
        self.owners = _OWNERS[:]
        self.accesses = _ACCESSES[:]
        self.hashes = _HASHES[:]
        self.shared = _SHARES[:]
        self.free = _FREE[:]
        self.patterns: dict[frozenset[tuple[int, int]], dict[int, int]] = {}
        # The sorted names of who holds a node, and of tenants that hold some node together:
        # sorting takes longer than all else in a match.
        self.named: dict[int, tuple[str, ...]] = {}
        self.sets: dict[frozenset[int], tuple[str, ...]] = {}

    def copy(self) -> Self:
        """Return independent columns; the edges' bytes are shared. O(nodes)."""
        twin = type(self)(self.first)
        twin.edges = self.edges.copy()
        twin.below = [dict(each) if isinstance(each, dict) else each for each in self.below]
        for name in ("parents", "counts", "owners", "accesses", "hashes", "free"):
            setattr(twin, name, getattr(self, name)[:])
        twin.shared = [
            dict(held) if owner == SHARED else held
            for owner, held in zip(self.owners, self.shared, strict=True)
        ]
        return twin

    def copy_content(self) -> Self:
        """Return a `copy` in which nothing hangs below a node: it can be read by number alone.

        O(nodes), of which little is done one by one: some 3 ms for 30,000 nodes.
        """
        twin = type(self)(self.first)
        for name in ("edges", "parents", "owners", "accesses", "hashes", "shared"):
            setattr(twin, name, getattr(self, name)[:])
        shared = twin.shared
        for node, owner in enumerate(twin.owners):
            if owner == SHARED:
                shared[node] = shared[node].copy()
        return twin

    # Reading

    def data(self, node: int) -> bytes:
        """Build the bytes from the root to the end of a node. O(nodes above + bytes)."""
        edges: list[bytes] = []
        while node:
            edges.append(self.edges[node])
            node = self.parents[node]
        edges.reverse()
        return b"".join(edges)

    def holders(self, node: int) -> Iterable[int]:
        """Return the tenants that hold a node, by number, in no particular order."""
        owner = self.owners[node]
        return (owner,) if owner >= 0 else self.shared[node].keys()

    def holds(self, node: int, tenant: int) -> bool:
        """Tell whether a tenant holds a node. O(1)."""
        owner = self.owners[node]
        return owner == tenant or (owner < 0 and tenant in self.shared[node])

    def access(self, node: int, tenant: int) -> int:
        """Return the access of a tenant's entry that ends at a node, or `ABSENT`. O(1)."""
        owner = self.owners[node]
        if owner == tenant:
            return self.accesses[node]
        if owner == SHARED:
            return (self.shared[node].get(tenant, 0) >> ENTRY_SHIFT) - 1
        return self.accesses[node] if owner == THIN - tenant else ABSENT

    def names(self, node: int, names: list[str]) -> tuple[str, ...]:
        """Return the names of those that hold a node, sorted. O(1) if asked before."""
        owner = self.owners[node]
        if owner >= 0:
            return (names[owner],)
        found = self.named.get(node)
        if found is None:
            together = frozenset(self.shared[node])
            found = self.sets.get(together)
            if found is None:
                if len(self.sets) >= _SETS_MAX:
                    self.sets.clear()
                found = self.sets[together] = tuple(sorted([names[each] for each in together]))
            self.named[node] = found
        return found

    def child_count(self, node: int) -> int:
        """Count the nodes right below. O(1)."""
        below = self.below[node]
        return 0 if below is None else len(below) if isinstance(below, dict) else 1

    def has_entry(self, node: int) -> bool:
        """Tell whether any entry ends at a node. O(tenants that hold it)."""
        if self.owners[node] != SHARED:
            return self.accesses[node] >= 0
        return max(self.shared[node].values()) > BELOW_MASK

    # Growing

    def _grow(self) -> None:
        """Make room for some more nodes. Amortised O(1) a node, as the columns grow."""
        first = len(self.edges)
        count = min(max(_GROWTH_MIN, first >> 3), _GROWTH_MAX)
        self.edges.extend([b""] * count)
        self.below.extend([None] * count)
        self.shared.extend([UNSHARED] * count)
        zeros = bytes(count * self.hashes.itemsize)
        self.hashes.frombytes(zeros)
        self.accesses.extend(array("q", [ABSENT]) * count)
        for column in (self.parents, self.counts):
            column.frombytes(zeros[: count * column.itemsize])
        self.owners.extend(array("i", [NOBODY]) * count)
        self.free.extend(range(first + count - 1, first - 1, -1))

    def split(self, node: int, length: int, count: int, unit: Any) -> int:
        """Part a node `length` bytes and `count` units down its edge; return the part above.

        The node keeps its number, its entries and what hangs below. O(edge + its tenants).
        `unit` is what the edge begins with.
        """
        if not self.free:
            self._grow()
        upper = self.free.pop()
        edges, counts, parents, below = self.edges, self.counts, self.parents, self.below
        edge, owner = edges[node], self.owners[node]
        edges[upper] = edge[:length]
        edges[node] = edge[length:]
        counts[upper] = count
        counts[node] -= count
        parents[upper] = parent = parents[node]
        parents[node] = upper
        below[upper] = node
        self.owners[upper] = owner if owner >= 0 else SHARED
        above = below[parent]
        if isinstance(above, dict):
            above[unit] = upper
        else:
            below[parent] = upper
        if owner < 0:
            self.shared[upper] = dict.fromkeys(self.shared[node], 1)
        return upper

    def hang(self, edge: bytes, parent: int, count: int, owner: int, unit: Any) -> int:
        """Hang a new node of `count` units below one that `owner` was counted at. O(1).

        `unit` is what the edge begins with.
        """
        if not self.free:
            self._grow()
        node = self.free.pop()
        self.edges[node] = edge
        self.counts[node] = count
        self.parents[node] = parent
        self.owners[node] = owner
        below = self.below[parent]
        if isinstance(below, dict):
            below[unit] = node
        elif below is None:
            self.below[parent] = node
            if self.owners[parent] == SHARED:
                self._make_thin(parent)
        else:
            self.below[parent] = {self.first(self.edges[below]): below, unit: node}
            if self.owners[parent] <= THIN:
                self._held(parent)
        return node

    def branch(
        self,
        node: int,
        length: int,
        count: int,
        unit: Any,
        edge: bytes,
        rest: int,
        tenant: int,
        fork: Any,
    ) -> tuple[int, int]:
        """`split`, `hold` at the part above, and `hang` a node of `rest` units there, in one.

        `unit` is what the parted edge begins with, `fork` what the new edge begins with.

        Returns:
            The new node, and how many units the tenant holds that it did not hold before.
        """
        free = self.free
        if len(free) < 2:
            self._grow()
        upper, leaf = free.pop(), free.pop()
        edges, counts, parents, owners = self.edges, self.counts, self.parents, self.owners
        whole, owner, parent = edges[node], owners[node], parents[node]
        lower = whole[length:]
        edges[upper], edges[node], edges[leaf] = whole[:length], lower, edge
        counts[upper] = count
        counts[node] -= count
        counts[leaf] = rest
        parents[upper] = parent
        parents[node] = parents[leaf] = upper
        owners[leaf] = tenant
        below = self.below
        above = below[parent]
        if isinstance(above, dict):
            above[unit] = upper
        else:
            below[parent] = upper
        below[upper] = {self.first(lower): node, fork: leaf}
        if owner == tenant:
            owners[upper] = owner
            return leaf, rest
        owners[upper] = SHARED
        if owner >= 0:
            self.shared[upper] = {owner: 1, tenant: 1}
        else:
            held = self.shared[upper] = dict.fromkeys(self.shared[node], 1)
            if tenant in held:
                held[tenant] = 2
                return leaf, rest
            held[tenant] = 1
        return leaf, rest + count + self.hold(parent, tenant)

    def end(self, node: int, tenant: int, access: int) -> int:
        """Let an entry of a tenant end at a node, or raise its access.

        Returns:
            How many units the tenant holds that it did not hold before.
        """
        owner = self.owners[node]
        if owner == tenant:
            self.accesses[node] = access
            return 0
        if owner == THIN - tenant:
            self.accesses[node] = access
            return 0
        held = self._held(node)
        known = held.get(tenant, 0)
        held[tenant] = (access + 1 << ENTRY_SHIFT) | (known & BELOW_MASK)
        self._make_thin(node)
        if known:
            return 0
        self.named.pop(node, None)
        return self.counts[node] + self.hold(self.parents[node], tenant)

    def hold(self, node: int, tenant: int) -> int:
        """Count one more node below for a tenant; where it is the first, above as well.

        To be called before that node hangs there. O(nodes that the tenant did not hold).

        Returns:
            How many units the tenant holds that it did not hold before.
        """
        units = 0
        while node:
            owner = self.owners[node]
            if owner == tenant:
                break
            held = self.shared[node] if owner == SHARED else self._held(node)
            known = held.get(tenant)
            if known is not None:
                held[tenant] = known + 1
                if owner != SHARED:
                    self._make_thin(node)
                break
            held[tenant] = 1
            self._make_thin(node)
            self.named.pop(node, None)
            units += self.counts[node]
            node = self.parents[node]
        return units

    def _held(self, node: int) -> dict[int, int]:
        """Return who holds a node in the form that can be changed. O(its tenants)."""
        owner = self.owners[node]
        if owner == SHARED:
            return self.shared[node]
        entry = self.accesses[node] + 1 << ENTRY_SHIFT
        if owner >= 0:
            held = {owner: entry + self.child_count(node)}
        else:
            held = dict(self.shared[node])
            held[THIN - owner] += entry
        self.shared[node] = held
        self.owners[node] = SHARED
        return held

    def _make_thin(self, node: int) -> None:
        """Give a node the smaller form, if it has one entry and one node below. O(8)."""
        held = self.shared[node]
        if len(held) > _THIN_HOLDERS_MAX or not isinstance(self.below[node], int):
            return
        ending = [tenant for tenant, known in held.items() if known > BELOW_MASK]
        if len(ending) != 1:
            return
        [tenant] = ending
        self.accesses[node] = (held[tenant] >> ENTRY_SHIFT) - 1
        self.owners[node] = THIN - tenant
        held[tenant] &= BELOW_MASK
        if len(self.patterns) >= _PATTERNS_MAX:
            self.patterns.clear()
        self.shared[node] = self.patterns.setdefault(frozenset(held.items()), held)
