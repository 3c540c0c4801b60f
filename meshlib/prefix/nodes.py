"""The nodes of a prefix tree: how they are let go and joined, and what must hold of them.

Rule: what takes nodes away must live in this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from meshlib.prefix.columns import (
    ABSENT,
    BELOW_MASK,
    ENTRY_SHIFT,
    NOBODY,
    ROOT,
    THIN,
    UNSHARED,
    GrowingNodes,
)

__all__ = ["Nodes"]


class Nodes(GrowingNodes):
    """The nodes of a tree: `GrowingNodes` that shrink as well."""

    __slots__ = ()

    # Shrinking

    def drop(self, node: int, tenant: int, changed: list[int]) -> tuple[int, int]:
        """Take out a tenant's entry, and the nodes that nobody holds any more.

        O(nodes that the tenant holds no more). `tidy` must follow with what was put in `changed`.

        Returns:
            How many units the tenant holds no more, and how many nobody does.
        """
        if self.owners[node] == tenant:
            self.accesses[node] = ABSENT
        else:
            self._held(node)[tenant] &= BELOW_MASK
        units = left = 0
        while node:
            if self.owners[node] == tenant:
                if self.accesses[node] >= 0 or self.below[node] is not None:
                    break
                left += self.counts[node]
                node = self._unlink(node)
            else:
                held = self._held(node)
                if held[tenant]:
                    self._make_thin(node)
                    break
                units += self.counts[node]
                self._leave(node, held, tenant)
                changed.append(node)
                node = self.parents[node]
            if node and self.owners[node] != tenant:
                self._held(node)[tenant] -= 1
        changed.append(node)
        return units + left, left

    def _leave(self, node: int, held: dict[int, int], tenant: int) -> None:
        del held[tenant]
        self.named.pop(node, None)
        if len(held) == 1:
            [(owner, known)] = held.items()
            self.owners[node] = owner
            self.accesses[node] = (known >> ENTRY_SHIFT) - 1
            self.shared[node] = UNSHARED

    def _unlink(self, node: int) -> int:
        parent = self.parents[node]
        below = self.below[parent]
        if isinstance(below, dict):
            del below[self.first(self.edges[node])]
            if len(below) == 1 and parent:
                [self.below[parent]] = below.values()
        else:
            self.below[parent] = None
        self._release(node)
        return parent

    def _release(self, node: int) -> None:
        self.edges[node] = b""
        self.below[node] = None
        self.owners[node] = NOBODY
        self.accesses[node] = ABSENT
        self.hashes[node] = 0
        self.shared[node] = UNSHARED
        self.named.pop(node, None)
        self.free.append(node)

    def tidy(self, changed: Iterable[int]) -> None:
        """Join each node that neither ends nor parts anything with the one below it.

        A whole row of such nodes is joined at once. O(changed nodes + edges joined).
        """
        for node in changed:
            if not self._is_passing(node):
                continue
            while self._is_passing(self.parents[node]):
                node = self.parents[node]
            self._join_down(node)

    def _is_passing(self, node: int) -> bool:
        if node == ROOT or not isinstance(self.below[node], int):
            return False
        return self.owners[node] != NOBODY and not self.has_entry(node)

    def _join_down(self, top: int) -> None:
        parent, edges, count = self.parents[top], list[bytes](), 0
        key, node = self.first(self.edges[top]), top
        while self._is_passing(node):
            edges.append(self.edges[node])
            count += self.counts[node]
            below = self.below[node]
            assert isinstance(below, int), below
            self._release(node)
            node = below
        edges.append(self.edges[node])
        self.edges[node] = b"".join(edges)
        self.counts[node] += count
        self.parents[node] = parent
        above = self.below[parent]
        if isinstance(above, dict):
            above[key] = node
        else:
            self.below[parent] = node

    def check(self) -> tuple[int, Counter[int], Counter[int]]:
        """Assert what must hold at each node, and count. O(nodes * tenants).

        Returns:
            The units of the tree, those that each tenant holds, and its entries.
        """
        seen, held, ended, units = {ROOT}, Counter[int](), Counter[int](), 0
        waiting = [ROOT]
        for node in waiting:
            below = self.below[node]
            children: list[int] = [] if below is None else [below]  # type: ignore[list-item]
            if isinstance(below, dict):
                children = list(below.values())
            assert node == ROOT or not isinstance(below, dict) or len(below) > 1, node
            for child in children:
                assert child is not None
                assert self.edges[child], "an empty edge"
                assert self.parents[child] == node, (child, node)
                if isinstance(below, dict):
                    assert below[self.first(self.edges[child])] == child, child
                waiting.append(child)
                assert child not in seen, child
                seen.add(child)
            if node == ROOT:
                continue
            assert children or self.has_entry(node), f"{node} ends nothing"
            assert len(children) != 1 or self.has_entry(node), f"{node} neither ends nor parts"
            self._check_holders(node, children, held, ended)
            units += self.counts[node]
        assert seen.isdisjoint(self.free)
        assert len(seen) + len(self.free) == len(self.edges)
        shared = {node for node in seen if self.owners[node] < 0}
        for node, held_there in enumerate(self.shared):
            assert bool(held_there) == (node in shared - {ROOT}), node
        assert set(self.named) <= shared
        return units, held, ended

    def _check_holders(
        self, node: int, children: list[int], held: Counter[int], ended: Counter[int]
    ) -> None:
        counted: Counter[int] = Counter()
        for child in children:
            counted.update(self.holders(child))
        owner, shared = self.owners[node], self.shared[node]
        assert owner != NOBODY, node
        assert owner >= 0 or len(shared) > 1, node
        assert owner > THIN or (len(children) == 1 and self.has_entry(node)), node
        for tenant in self.holders(node):
            held[tenant] += self.counts[node]
            if self.access(node, tenant) >= 0:
                ended[tenant] += 1
            else:
                assert counted[tenant], (node, tenant)
            if owner < 0:
                assert shared[tenant] & BELOW_MASK == counted[tenant], node
        assert set(counted) <= set(self.holders(node)), node
