"""Who owns a key: a consistent hash ring, and rendezvous hashing for a few candidates.

Rule: a ring's answers follow from its membership alone. Nodes added in any order, on any process
and Python version, own the same keys.
Source: Karger and others, "Consistent Hashing and Random Trees", STOC 1997; Thaler and
Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 1998.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from meshlib.arguments import check_count, check_text
from meshlib.errors import (
    EmptyRingError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    UnknownKeyError,
    check_several,
)
from meshlib.hashing import hash64, hash64_text
from meshlib.limits import MEMBERS_MAX, VIRTUAL_NODES_MAX

__all__ = ["VIRTUAL_NODES", "ConsistentHashRing", "rendezvous"]

VIRTUAL_NODES = 150
"""Points of one node unless said otherwise: the specification's figure. The load of the nodes
then spreads by about 8 % around its mean."""

OWNERS = 3
"""Owners of one key unless said otherwise."""


def _name_bytes(node: object) -> bytes:
    if not isinstance(node, str):
        raise InvalidTypeError(f"a node must be named by text, not {type(node).__name__}")
    if not node:
        raise InvalidValueError("a node's name must not be empty")
    return node.encode("utf-8", "surrogatepass")


class ConsistentHashRing:
    """Spreads keys over nodes so that a change of membership moves only the keys it must.

    Each node stands at `virtual_nodes` points of a circle of 64 bits; a key belongs to the first
    nodes found clockwise from its own hash. Adding or removing one of n nodes moves about 1/n
    of the keys.

    Args:
        nodes: the names that are in from the start.
        virtual_nodes: points of each node, 1 to 4,096. More spread the load more evenly.

    Raises:
        InvalidTypeError: a name that is no text, one text in place of the names, or
            `virtual_nodes` that is no integer.
        InvalidValueError: an empty name, or `virtual_nodes` under 1.
        LimitError: more than 4,096 virtual nodes, or more than 4,096 nodes.
    """

    __slots__ = ("_nodes", "_owners", "_points", "_virtual_nodes")

    def __init__(self, nodes: Iterable[str] = (), *, virtual_nodes: int = VIRTUAL_NODES) -> None:
        check_count("virtual_nodes", virtual_nodes, least=1)
        if virtual_nodes > VIRTUAL_NODES_MAX:
            raise LimitError("virtual nodes", size=virtual_nodes, limit=VIRTUAL_NODES_MAX)
        self._virtual_nodes = virtual_nodes
        self._nodes: set[str] = set()
        self._points = array("Q")
        self._owners: list[str] = []
        self.update(nodes)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names on the ring, sorted. O(n log n)."""
        return tuple(sorted(self._nodes))

    @property
    def virtual_nodes(self) -> int:
        """How many points each node has."""
        return self._virtual_nodes

    def __len__(self) -> int:
        """Count the nodes. O(1)."""
        return len(self._nodes)

    def __contains__(self, node: object) -> bool:
        """Tell whether a node is on the ring. O(1)."""
        return isinstance(node, str) and node in self._nodes

    def add(self, node: str) -> None:
        """Put a node on the ring; one that is there already stays. O(points).

        Raises:
            InvalidTypeError: the name is not text. Nothing changed.
            InvalidValueError: the name is empty. Nothing changed.
            LimitError: more than 4,096 nodes. Nothing changed.
        """
        self.update((*self._nodes, node))

    def remove(self, node: str) -> None:
        """Take a node off the ring. O(points).

        Raises:
            InvalidTypeError: the name is no text. Nothing changed.
            UnknownKeyError: it is not there. Nothing changed.
        """
        _name_bytes(node)
        if node not in self._nodes:
            raise UnknownKeyError("node", node)
        self.update(self._nodes - {node})

    def update(self, nodes: Iterable[str]) -> None:
        """Make these the nodes of the ring. O(points), and O(n log n) in those of new nodes.

        Raises:
            InvalidTypeError: a name that is not text, or one text in place of the names.
            InvalidValueError: an empty name.
            LimitError: more than 4,096 nodes. Nothing changed in any case.
        """
        check_several("the nodes of a ring", nodes)
        wanted = {node: _name_bytes(node) for node in nodes}
        if len(wanted) > MEMBERS_MAX:
            raise LimitError("ring nodes", size=len(wanted), limit=MEMBERS_MAX)
        pairs = [
            (point, owner)
            for point, owner in zip(self._points, self._owners, strict=True)
            if owner in wanted
        ]
        for node in sorted(wanted.keys() - self._nodes):
            name = wanted[node]
            pairs.extend(
                # The number has a fixed width, so no two nodes' points are of the same bytes.
                (hash64(name + number.to_bytes(4, "big")), node)
                for number in range(self._virtual_nodes)
            )
        pairs.sort()
        self._nodes = set(wanted)
        self._points = array("Q", (point for point, _ in pairs))
        self._owners = [owner for _, owner in pairs]

    def owners(self, key: str, *, count: int = OWNERS) -> tuple[str, ...]:
        """Return the owners of a key: distinct nodes, clockwise from the key's hash.

        O(log points + count) expected.

        Args:
            key: the key, any text.
            count: how many owners, at least 1; all nodes when there are fewer.

        Raises:
            InvalidTypeError: the key is no text, or `count` no integer.
            InvalidValueError: `count` under 1.
            EmptyRingError: there are no nodes.
        """
        check_text("key", key)
        check_count("count", count, least=1)
        if not self._nodes:
            raise EmptyRingError("a ring without nodes has no owners")
        wanted = min(count, len(self._nodes))
        owners = self._owners
        index = bisect_left(self._points, hash64_text(key))
        found: dict[str, None] = {}
        while len(found) < wanted:
            if index == len(owners):
                index = 0
            found[owners[index]] = None
            index += 1
        return tuple(found)

    def owner(self, key: str) -> str:
        """Return the first owner of a key. O(log points).

        Raises:
            InvalidTypeError: the key is no text.
            EmptyRingError: there are no nodes.
        """
        return self.owners(key, count=1)[0]


def rendezvous(key: str, candidates: Iterable[str]) -> list[str]:
    """Order candidates by how much they are meant for a key, best first. O(n log n).

    Each process makes the same order, and taking a candidate away leaves the order of the
    others as it was. For a few candidates that change often, where a ring would be rebuilt
    each time.

    Args:
        key: the key, any text.
        candidates: names; one named twice counts once.

    Raises:
        InvalidTypeError: a key or a name that is no text, or one text in place of the names.
        InvalidValueError: an empty name.
    """
    check_text("key", key)
    check_several("the candidates", candidates)
    prefix = hash64_text(key).to_bytes(8, "big")
    weights = {name: hash64(prefix + _name_bytes(name)) for name in candidates}
    return sorted(weights, key=lambda name: (-weights[name], name))
