"""The nodes of the radix tree, and how they are parted, joined and copied.

Rule: comparing edges, and every change of the tree's shape, must live in this file.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Final

from meshlib.hashing import hash64_text
from meshlib.prefix.recency import Recency

__all__ = [
    "Holding",
    "Node",
    "check_shape",
    "common_length",
    "common_prefix_length",
    "copy_below",
    "known_hash",
    "split",
    "tidy",
    "youngest_edges",
]

_GALLOP_START: Final = 64
_GALLOP_FACTOR: Final = 8


class Node:
    """A point at which texts end or part. Its whole text never changes, its edge may.

    `entries` are the texts that end here, `tenants` all who hold the point with the highest
    access of their entries at or below it. In a leaf the two are one and the same dict, because
    nothing hangs below that could make them differ; the root alone is never a leaf.

    Args:
        edge: the characters between the parent and this point.
        parent: the node above; None for the root, and for a node that left the tree.
    """

    __slots__ = ("children", "edge", "entries", "parent", "tenants", "text_hash")

    def __init__(self, edge: str, parent: Node | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[str, Node] = {}
        self.tenants: dict[str, int] = {}
        self.entries: dict[str, int] = self.tenants
        self.text_hash: int | None = None

    def text(self) -> str:
        """Build the whole text from the root to this point. O(nodes above + characters)."""
        edges: list[str] = []
        node: Node | None = self
        while node is not None:
            edges.append(node.edge)
            node = node.parent
        edges.reverse()
        return "".join(edges)


class Holding:
    """What one tenant has: its entries by last access, and the characters of its nodes.

    Args:
        tenant: the tenant.
    """

    __slots__ = ("characters", "recency")

    def __init__(self, tenant: str) -> None:
        self.characters = 0
        self.recency: Recency[Node] = Recency(partial(_entry_access, tenant))


def _entry_access(tenant: str, node: Node) -> int | None:
    return node.entries.get(tenant)


def known_hash(node: Node) -> int:
    """Return the hash of the text of a node that ends an entry."""
    assert node.text_hash is not None, "an entry without a hash"
    return node.text_hash


def common_length(edge: str, text: str, position: int) -> int:
    """Return how many characters of `edge` stand in `text` at `position`; the first one does.

    Growing steps from the start keep the cost with what matches, not with the edge's length.
    """
    limit = min(len(edge), len(text) - position)
    low = 1
    step = _GALLOP_START
    while True:
        high = min(low + step, limit)
        if not text.startswith(edge[low:high], position + low):
            break
        low = high
        if low == limit:
            return limit
        step *= _GALLOP_FACTOR
    while high - low > 1:
        middle = (low + high) // 2
        if text.startswith(edge[low:middle], position + low):
            low = middle
        else:
            high = middle
    return low


def common_prefix_length(one: str, other: str) -> int:
    """Return how many leading characters two texts share. O(what they share), in C."""
    if not one or not other or one[0] != other[0]:
        return 0
    return common_length(one, other, 0)


def split(node: Node, length: int) -> Node:
    """Part a node `length` characters down its edge, and return the new point above it.

    The node keeps its identity, its entries and its text. O(edge + tenants of the node).
    """
    parent = node.parent
    assert parent is not None, "the root has no edge to part"
    upper = Node(node.edge[:length], parent)
    upper.tenants = dict(node.tenants)
    upper.entries = {}
    parent.children[upper.edge[0]] = upper
    node.edge = node.edge[length:]
    node.parent = upper
    upper.children[node.edge[0]] = node
    return upper


def tidy(changed: list[Node]) -> int:
    """Give the tree its shape back around nodes that lost entries or tenants.

    Nodes that nobody holds leave, a node that neither ends nor parts texts joins its child, and
    what has become a leaf has one dict. O(changed nodes + edges joined).

    Returns:
        How many characters left the tree.
    """
    characters = 0
    around: dict[Node, None] = dict.fromkeys(changed)
    for node in changed:
        if not node.tenants and node.parent is not None:
            del node.parent.children[node.edge[0]]
            characters += len(node.edge)
            around[node.parent] = None
            node.parent = None
    for node in around:
        if node.parent is None:
            continue
        if not node.children:
            node.entries = node.tenants
        elif len(node.children) == 1 and not node.entries:
            _join_with_child(node, node.parent)
    return characters


def _join_with_child(node: Node, parent: Node) -> None:
    (child,) = node.children.values()
    child.edge = node.edge + child.edge
    child.parent = parent
    parent.children[child.edge[0]] = child
    node.parent = None


def copy_below(root: Node, other_root: Node) -> dict[Node, Node]:
    """Copy all nodes below `root` to below `other_root`; return which became which. O(nodes)."""
    twins = {root: other_root}
    waiting = [root]
    for node in waiting:
        waiting.extend(node.children.values())
        for key, child in node.children.items():
            twin = twins[child] = twins[node].children[key] = Node(child.edge, twins[node])
            twin.tenants = dict(child.tenants)
            twin.entries = twin.tenants if not child.children else dict(child.entries)
            twin.text_hash = child.text_hash
    return twins


def youngest_edges(root: Node) -> list[tuple[int, int]]:
    """Return for each node its highest access and the length of its edge. O(nodes * tenants)."""
    waiting = list(root.children.values())
    found: list[tuple[int, int]] = []
    for node in waiting:
        waiting.extend(node.children.values())
        found.append((max(node.tenants.values()), len(node.edge)))
    return found


def check_shape(root: Node) -> tuple[int, Counter[str], Counter[str]]:
    """Assert what must hold at each node below `root`, and count. O(nodes * tenants).

    Returns:
        The characters of the tree, those of each tenant, and the entries of each tenant.
    """
    characters = 0
    held: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    assert not root.edge
    assert not root.entries
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting.extend(node.children.values())
        for key, child in node.children.items():
            assert child.edge, "an empty edge"
            assert key == child.edge[0], (key, child.edge)
            assert child.parent is node, child.text()
        if node is root:
            continue
        text = node.text()
        assert node.tenants, f"nobody holds {text!r}"
        assert node.entries or len(node.children) > 1, f"{text!r} neither ends nor parts"
        assert (node.entries is node.tenants) == (not node.children), f"leaf or not: {text!r}"
        below = [*(child.tenants for child in node.children.values()), node.entries]
        for tenant in sorted(set().union(*below) | set(node.tenants)):
            highest = max(accesses.get(tenant, -1) for accesses in below)
            assert node.tenants.get(tenant) == highest, (text, tenant, node.tenants, highest)
            held[tenant] += len(node.edge)
        for tenant in node.entries:
            ended[tenant] += 1
        assert not node.entries or node.text_hash == hash64_text(text), f"hash of {text!r}"
        characters += len(node.edge)
    return characters, held, ended
