"""A radix tree over text: who has which prefix cached.

Rule: who holds what, and the counting of characters, must live in this file; what changes the
shape of the tree is in `nodes.py`.

An entry is a text of one tenant with the access at which it was last used. A tenant holds every
prefix of its entries. Each node carries, for each tenant that holds it, the highest access of
that tenant's entries at or below it, so a shared prefix is as young as its youngest user and
never goes before what hangs below it.

Speed comes from comparing whole edges with `str.startswith` (one `memcmp`) and from finding the
point of a mismatch by doubling and halving slices; no loop runs over characters.
Source: the semantics of the string tree in sglang's router (a match may end inside an edge,
tenants on every node of a path), whose inner nodes have no access of their own; ours do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from meshlib.errors import InvalidValueError, LimitError
from meshlib.hashing import hash64_text
from meshlib.limits import PREFIX_HELD_FACTOR, TENANTS_MAX, TREE_CHARACTERS_MAX
from meshlib.prefix.nodes import (
    Holding,
    Node,
    check_shape,
    common_length,
    copy_below,
    known_hash,
    split,
    tidy,
    youngest_edges,
)
from meshlib.prefix.records import (
    ACCESS_MAX,
    NO_MATCH,
    Entry,
    Match,
    Placement,
    check_access,
    check_tenant,
    check_text,
)

__all__ = ["RadixTree"]


class RadixTree:
    """Texts by prefix, each with the tenants that hold it and when they last used it.

    For any Unicode, lone surrogates included. The shape follows from the entries alone: every
    node but the root ends an entry or parts two. In the complexities, d is the number of nodes
    on a path (not of characters) and m the number of characters compared, in C.

    Args:
        characters_max: how many characters the tree may hold, 67,108,864 by default, and up to
            4 times that; an insertion that would cross it is refused.

    Raises:
        InvalidValueError: `characters_max` under 1.
        LimitError: `characters_max` over 4 times 67,108,864.
    """

    __slots__ = ("_characters", "_characters_max", "_entry_count", "_holdings", "_root")

    def __init__(self, *, characters_max: int = TREE_CHARACTERS_MAX) -> None:
        if characters_max < 1:
            raise InvalidValueError(f"characters_max must be at least 1, got {characters_max}")
        if characters_max > TREE_CHARACTERS_MAX * PREFIX_HELD_FACTOR:
            raise LimitError(
                "tree characters",
                size=characters_max,
                limit=TREE_CHARACTERS_MAX * PREFIX_HELD_FACTOR,
            )
        self._characters_max = characters_max
        self._characters = 0
        self._entry_count = 0
        self._holdings: dict[str, Holding] = {}
        self._root = Node("", None)
        self._root.entries = {}

    # Reading

    @property
    def characters_max(self) -> int:
        """How many characters the tree may hold."""
        return self._characters_max

    @property
    def characters_total(self) -> int:
        """How many characters the tree holds; a shared prefix counts once. O(1)."""
        return self._characters

    @property
    def size(self) -> int:
        """The same as `characters_total`: what `characters_max` limits."""
        return self._characters

    def characters(self, tenant: str) -> int:
        """Count the characters of the nodes that a tenant holds; 0 when unknown. O(1)."""
        holding = self._holdings.get(tenant)
        return 0 if holding is None else holding.characters

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

    def access(self, text: str, *, tenant: str) -> int | None:
        """Return the last access of exactly this entry, or None. O(d + m)."""
        node = self._find(text)
        return None if node is None else node.entries.get(tenant)

    def match(self, text: str) -> Match:
        """Find the longest prefix of `text` that anybody holds, and all who hold it. O(d + m).

        The match may end inside an edge: a text of which only the beginning is shared is a
        match of that beginning. The tenants are those that hold the deepest matched point.
        """
        node = self._root
        position = 0
        length = len(text)
        while position < length:
            child = node.children.get(text[position])
            if child is None:
                break
            node = child
            edge = child.edge
            if not text.startswith(edge, position):
                position += common_length(edge, text, position)
                break
            position += len(edge)
        if position == 0:
            return NO_MATCH
        return Match(tuple(sorted(node.tenants)), position)

    def match_tenant(self, text: str, *, tenant: str) -> int:
        """Return how many characters of `text` one tenant holds. O(d + m)."""
        node = self._root
        position = 0
        length = len(text)
        while position < length:
            child = node.children.get(text[position])
            if child is None or tenant not in child.tenants:
                break
            node = child
            edge = child.edge
            if not text.startswith(edge, position):
                return position + common_length(edge, text, position)
            position += len(edge)
        return position

    def match_each(self, text: str) -> dict[str, int]:
        """Return how many characters of `text` each tenant holds, sorted by tenant.

        Tenants that hold none are left out. O(d + m + t log t) for t tenants on the path; this
        is what a router needs that may not choose everybody.
        """
        node = self._root
        position = 0
        length = len(text)
        reached: dict[str, int] = {}
        while position < length:
            child = node.children.get(text[position])
            if child is None:
                break
            node = child
            edge = child.edge
            is_whole = text.startswith(edge, position)
            position += len(edge) if is_whole else common_length(edge, text, position)
            for tenant in child.tenants:
                reached[tenant] = position
            if not is_whole:
                break
        return {tenant: reached[tenant] for tenant in sorted(reached)}

    def entries(
        self, tenant: str, *, buckets: Collection[int] | None = None
    ) -> Iterator[tuple[str, int]]:
        """Yield the (text, access) pairs of a tenant, in no particular order.

        Each text is built when it is asked for. The tree must not change meanwhile.

        Args:
            tenant: whose.
            buckets: only texts whose hash has one of these as its top byte; all without it.
        """
        holding = self._holdings.get(tenant)
        if holding is not None:
            for node in holding.recency.items():
                if buckets is None or known_hash(node) >> 56 in buckets:
                    yield node.text(), node.entries[tenant]

    def entry_hashes(self, tenant: str) -> Iterator[tuple[int, int]]:
        """Yield the (text hash, access) pairs of a tenant without building the texts."""
        holding = self._holdings.get(tenant)
        if holding is not None:
            for node in holding.recency.items():
                yield known_hash(node), node.entries[tenant]

    def oldest(self, tenant: str | None = None) -> Entry | None:
        """Return the least recently used entry, of one tenant or of all; None without any.

        Ties go to the smaller tenant, then to the entry that came first. Amortised O(log n) for
        one tenant, that for each tenant for all.
        """
        if tenant is None:
            found = [entry for name in self._holdings if (entry := self.oldest(name)) is not None]
            return min(found, key=lambda entry: (entry.access, entry.tenant), default=None)
        holding = self._holdings.get(tenant)
        oldest = None if holding is None else holding.recency.oldest()
        return None if oldest is None else Entry(tenant, oldest[0].text(), oldest[1])

    def floor_for(self, size_max: int) -> int:
        """Return the lowest floor whose eviction of every tenant leaves `size_max` characters.

        Or fewer; 0 when there are no more than that. O(n log n) for n nodes with all their
        tenants, for an eviction now and then.
        """
        if self._characters <= size_max:
            return 0
        remaining = self._characters
        floor = 0
        for access, length in sorted(youngest_edges(self._root)):
            if remaining <= size_max and access > floor:
                break
            floor = access
            remaining -= length
        return floor

    def oldest_access(self, tenant: str) -> int | None:
        """Return the access of a tenant's least recently used entry. Amortised O(log n)."""
        holding = self._holdings.get(tenant)
        oldest = None if holding is None else holding.recency.oldest()
        return None if oldest is None else oldest[1]

    def _find(self, text: str) -> Node | None:
        node = self._root
        position = 0
        length = len(text)
        while position < length:
            child = node.children.get(text[position])
            if child is None or not text.startswith(child.edge, position):
                return None
            node = child
            position += len(child.edge)
        return node

    # Inserting

    def insert(self, text: str, *, tenant: str, access: int) -> bool:
        """Insert an entry, or raise its access. O(d + m), and O(len(text)) when it is new.

        Args:
            text: 1 to 262,144 characters.
            tenant: who holds it; 1 byte to 1 KiB in UTF-8.
            access: when it was used, 0 to 2**63 - 1 in a unit of the caller's. Accesses may come
                in any order; an entry keeps the highest.

        Returns:
            Whether the entry is new or its access rose.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty text or tenant, or an access out of range.
            LimitError: a text too long, a tenant too many, or more characters than
                `characters_max`. The tree is unchanged after any of these.
        """
        previous = self.place(text, tenant=tenant, access=access).previous
        return previous is None or previous < access

    def place(self, text: str, *, tenant: str, access: int) -> Placement:
        """Do as `insert` does, and tell what was there before. Same arguments, cost and errors."""
        check_text(text)
        check_access(access)
        if tenant not in self._holdings:
            check_tenant(tenant)
            if len(self._holdings) >= TENANTS_MAX:
                raise LimitError("tenants", size=len(self._holdings) + 1, limit=TENANTS_MAX)
        node = self._root
        path: list[Node] = []
        position = 0
        length = len(text)
        while position < length:
            child = node.children.get(text[position])
            if child is None:
                break
            edge = child.edge
            if not text.startswith(edge, position):
                common = common_length(edge, text, position)
                self._check_room(length - position - common)
                node = split(child, common)
                path.append(node)
                position += common
                break
            node = child
            path.append(node)
            position += len(edge)
        if position < length:
            self._check_room(length - position)
            node = self._grow(node, text[position:])
            path.append(node)
        if node.text_hash is None:
            node.text_hash = hash64_text(text)
        previous = node.entries.get(tenant)
        if previous is None or previous < access:
            self._raise_access(path, tenant, access, is_new=previous is None)
        return Placement(node.text_hash, previous)

    def _check_room(self, added: int) -> None:
        size = self._characters + added
        if size > self._characters_max:
            raise LimitError("tree characters", size=size, limit=self._characters_max)

    def _grow(self, node: Node, edge: str) -> Node:
        """Hang a new leaf under `node`, which stops being a leaf if it was one."""
        if node.entries is node.tenants:
            node.entries = dict(node.tenants)
        leaf = Node(edge, node)
        node.children[edge[0]] = leaf
        self._characters += len(edge)
        return leaf

    def _raise_access(self, path: list[Node], tenant: str, access: int, *, is_new: bool) -> None:
        holding = self._holdings.get(tenant)
        if holding is None:
            holding = self._holdings[tenant] = Holding(tenant)
        for node in path:
            held = node.tenants.get(tenant)
            if held is None:
                holding.characters += len(node.edge)
                node.tenants[tenant] = access
            elif held < access:
                node.tenants[tenant] = access
        end = path[-1]
        end.entries[tenant] = access
        if is_new:
            holding.recency.add(end, access=access)
            self._entry_count += 1

    # Removing

    def remove(self, text: str, *, tenant: str) -> bool:
        """Remove one entry; tell whether it was there. O(d * (m + children on the path))."""
        node = self._find(text)
        if node is None or tenant not in node.entries:
            return False
        holding = self._holdings[tenant]
        del node.entries[tenant]
        changed = [node]
        step: Node = node
        while step.parent is not None:
            highest = max(
                (child.tenants.get(tenant, -1) for child in step.children.values()),
                default=-1,
            )
            highest = max(highest, step.entries.get(tenant, -1))
            if highest == step.tenants.get(tenant):
                break
            if highest >= 0:
                step.tenants[tenant] = highest
            else:
                step.tenants.pop(tenant, None)
                holding.characters -= len(step.edge)
                changed.append(step)
            step = step.parent
        holding.recency.discard()
        self._settle(tenant, changed, count=1)
        return True

    def remove_tenant(self, tenant: str) -> int:
        """Remove a tenant with all its entries; return how many. O(its entries * d)."""
        return len(self.evict(tenant, floor=ACCESS_MAX))

    def evict(self, tenant: str, *, floor: int) -> list[tuple[int, int]]:
        """Drop the entries of a tenant that were last used at or before `floor`.

        O((k + touched since) * (d + log n)) for k dropped of n; the texts are not built.

        Returns:
            The (text hash, access) pairs of what was dropped, oldest first.
        """
        holding = self._holdings.get(tenant)
        if holding is None:
            return []
        dropped: list[tuple[int, int]] = []
        changed: list[Node] = []
        for node, access in holding.recency.take_up_to(floor):
            dropped.append((known_hash(node), access))
            changed.append(node)
            del node.entries[tenant]
            step = node
            while step.parent is not None:
                # A dropped entry is no younger than the floor, so what is younger has other
                # entries below it, and what is not has none that stay: no child is looked at.
                held = floor if step.entries is step.tenants else step.tenants.get(tenant)
                if held is None or held > floor:
                    break
                step.tenants.pop(tenant, None)
                holding.characters -= len(step.edge)
                changed.append(step)
                step = step.parent
        self._settle(tenant, changed, count=len(dropped))
        dropped.sort(key=lambda pair: (pair[1], pair[0]))
        return dropped

    def _settle(self, tenant: str, changed: list[Node], *, count: int) -> None:
        """Count `count` entries out, and give the tree its shape back around what changed."""
        self._entry_count -= count
        holding = self._holdings[tenant]
        if not holding.recency.count:
            del self._holdings[tenant]
        self._characters -= tidy(changed)

    def copy(self) -> RadixTree:
        """Return an independent tree with the same entries. O(nodes); texts are shared."""
        twin = RadixTree(characters_max=self._characters_max)
        twins = copy_below(self._root, twin._root)
        for tenant, holding in self._holdings.items():
            copied = twin._holdings[tenant] = Holding(tenant)
            copied.characters = holding.characters
            copied.recency.copy_from(holding.recency, twins)
        twin._characters = self._characters
        twin._entry_count = self._entry_count
        return twin

    def _check(self) -> None:
        """Assert every invariant; shows the entries when one is broken. O(n)."""
        try:
            characters, held, ended = check_shape(self._root)
            assert characters == self._characters, (characters, self._characters)
            assert characters <= self._characters_max
            assert sum(ended.values()) == self._entry_count, (ended, self._entry_count)
            assert sorted(held) == sorted(ended) == list(self.tenants()), (held, ended)
            for tenant, holding in self._holdings.items():
                assert holding.characters == held[tenant], (tenant, holding.characters, held)
                assert holding.recency.count == ended[tenant], (tenant, ended)
                holding.recency._check()  # noqa: SLF001 - one structure, one check
        except AssertionError:
            for tenant in self._holdings:
                print(tenant, sorted(self.entries(tenant)))
            raise
