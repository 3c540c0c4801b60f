"""Who is in, as one node sees it, and whose each key then is."""

from __future__ import annotations

from collections.abc import Collection

from meshlib.hashing import hash64
from meshlib.ring import ConsistentHashRing

__all__ = ["View"]


class View:
    """One set of members, and the owners of the keys that follow from it.

    Args:
        names: the members in reach; at least one.
        member_count: the members that a majority is one of, those out of reach included.
    """

    __slots__ = ("_ring", "member_count", "names", "view_id")

    def __init__(self, names: Collection[str], *, member_count: int) -> None:
        self.names = tuple(sorted(set(names)))
        self.member_count = max(member_count, len(self.names))
        self.view_id = hash64("\0".join(self.names).encode("utf-8", "surrogatepass"))
        """The same on every node that sees the same members in reach."""
        self._ring: ConsistentHashRing | None = None

    def owner(self, key: str) -> str:
        """Return the name of a key's owner. O(log points), and O(points) once."""
        if len(self.names) == 1:
            return self.names[0]
        if self._ring is None:
            # Not before it is asked for: a thousand members stand at 150,000 points.
            self._ring = ConsistentHashRing(self.names)
        return self._ring.owner(key)

    def is_majority(self, count: int) -> bool:
        """Tell whether so many of the members are more than half of them."""
        return 2 * count > self.member_count
