"""Who talks to whom: everybody in a small cluster, a sparse graph by region and zone above.

Rule: the graph is a pure function of the membership, computed by each node alone, and it is
symmetric: if A counts B as a neighbour then B counts A. Nothing is negotiated.

Sparse graph. Each zone's members stand on a ring in the order of their names' hashes, and each
is joined to those at distances 1, 2, 4, ... in both directions: degree and diameter O(log n).
Zones of a region are joined in a ring of zones with the same doubling distances, and regions
likewise; a bridge between two groups joins their members at equal fractions of their rings, a
fixed number for a pair of zones (`ZONE_BRIDGES`) and fewer for a pair of regions.
Source: Stoica et al., "Chord", SIGCOMM 2001, for fingers at doubling distances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from meshlib.errors import ConfigError
from meshlib.hashing import hash64_text
from meshlib.membership.members import MemberRecord

__all__ = ["TopologyManager"]

FULL_MESH_THRESHOLD = 10
"""The specification's default: up to this many nodes everybody talks to everybody."""

ZONE_BRIDGES = 2
"""Links between two joined zones of one region: one may fail."""

REGION_BRIDGES = 1
"""Links between two joined regions; anti-entropy and healing dials cover its loss."""


def _fingers(count: int) -> list[int]:
    """Return the doubling distances on a ring of `count` places, below `count`."""
    distances = []
    distance = 1
    while distance < count:
        distances.append(distance)
        distance *= 2
    return distances


def _ring_pairs(count: int) -> Iterable[tuple[int, int]]:
    """Yield the pairs of places that are joined on a ring of `count` places."""
    for place in range(count):
        for distance in _fingers(count):
            yield place, (place + distance) % count


class TopologyManager:
    """Compute this node's neighbours from the membership.

    Args:
        name: this node's name.
        full_mesh_threshold: up to this many reachable members, itself included, all are
            neighbours; at least 1.
    """

    __slots__ = ("_cache", "_cache_key", "_name", "full_mesh_threshold")

    def __init__(self, name: str, *, full_mesh_threshold: int = FULL_MESH_THRESHOLD) -> None:
        if full_mesh_threshold < 1:
            raise ConfigError(f"full_mesh_threshold must be at least 1, got {full_mesh_threshold}")
        self._name = name
        self.full_mesh_threshold = full_mesh_threshold
        self._cache: tuple[str, ...] = ()
        self._cache_key: int | None = None

    def neighbours(self, members: Iterable[MemberRecord], *, revision: int) -> tuple[str, ...]:
        """Return the names this node talks to, sorted. O(n log n), O(1) while nothing changed.

        Args:
            members: the whole table, this node included.
            revision: the table's revision: the same number promises the same members.
        """
        if revision != self._cache_key:
            reachable = [
                member for member in members if member.is_reachable or member.name == self._name
            ]
            if len(reachable) <= self.full_mesh_threshold:
                names = {member.name for member in reachable}
            else:
                names = sparse_graph(reachable).get(self._name, set())
            self._cache = tuple(sorted(names - {self._name}))
            self._cache_key = revision
        return self._cache

    def is_full_mesh(self, reachable_count: int) -> bool:
        """Tell whether a cluster of this size is a full mesh."""
        return reachable_count <= self.full_mesh_threshold


def sparse_graph(members: Sequence[MemberRecord]) -> dict[str, set[str]]:
    """Return the neighbours of every member in the sparse graph. O(n log n).

    It is connected for every membership. With logarithms to base 2, rounded up: a member has at
    most `2 log(largest zone) + 4 log(most zones of a region) + 2 log(regions)` neighbours, and
    in every membership up to 300 that was tried any two are within `2 (log n + 1)` hops.
    """
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        groups[member.region][member.zone].append(member.name)
    graph: dict[str, set[str]] = {member.name: set() for member in members}
    regions: list[list[str]] = []
    for region in sorted(groups):
        zones = []
        for zone in sorted(groups[region]):
            ring = sorted(groups[region][zone], key=lambda name: (hash64_text(name), name))
            zones.append(ring)
            for here, there in _ring_pairs(len(ring)):
                _join(graph, ring[here], ring[there])
        for here, there in _ring_pairs(len(zones)):
            _bridge(graph, zones[here], zones[there], ZONE_BRIDGES)
        regions.append([name for ring in zones for name in ring])
    for here, there in _ring_pairs(len(regions)):
        _bridge(graph, regions[here], regions[there], REGION_BRIDGES)
    return graph


def _join(graph: dict[str, set[str]], left: str, right: str) -> None:
    if left != right:
        graph[left].add(right)
        graph[right].add(left)


def _bridge(graph: dict[str, set[str]], left: list[str], right: list[str], count: int) -> None:
    """Join two groups at `count` equal fractions, shifted by the pair so that load spreads."""
    shift = hash64_text(left[0] + "\n" + right[0]) % 4096 / 4096
    for index in range(count):
        fraction = (index / count + shift) % 1.0
        _join(graph, left[int(fraction * len(left))], right[int(fraction * len(right))])
