"""Who talks to whom: everybody in a small cluster, a sparse graph by region and zone above.

Rule: the graph is a pure function of the membership, computed by each node alone, and it is
symmetric: if A counts B as a neighbour then B counts A. Nothing is negotiated.

Sparse graph. Each zone's members stand on a ring in the order of their names' hashes, and each
is joined to those at distances 1, 2, 4, ... in both directions: degree and diameter O(log n).
Zones of a region are joined in a ring of zones with the same doubling distances, and regions
likewise; a bridge between two groups joins their members at equal fractions of their rings, a
fixed number for a pair of zones (`ZONE_BRIDGES`) and fewer for a pair of regions.
Source: Stoica et al., "Chord", SIGCOMM 2001, for fingers at doubling distances.

Push graph. New entries travel along fewer, directed links. Inside a zone, member `i` of a ring of
m sends to the places `-(d i + r) mod m` for r = 1 to d: everyone has d senders and d receivers
whatever m is, and everyone is reached within `ceil(log_d m)` hops, which no graph of that degree
can better by more than one. A random choice of as many receivers misses one member in twenty.
Between zones and regions entries cross the bridges of the sparse graph.
Source: Imase and Itoh, "Design to Minimize Diameter on Building-Block Network", IEEE Transactions
on Computers, 1981; "A Design for Directed Graphs with Minimum Diameter", 1983.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from meshlib.errors import ConfigError
from meshlib.hashing import hash64_text
from meshlib.membership.members import MemberRecord

__all__ = ["TopologyManager", "push_receivers", "sparse_graph", "sparse_neighbours"]

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

    __slots__ = (
        "_name",
        "_neighbours",
        "_neighbours_key",
        "_targets",
        "_targets_key",
        "full_mesh_threshold",
    )

    def __init__(self, name: str, *, full_mesh_threshold: int = FULL_MESH_THRESHOLD) -> None:
        if full_mesh_threshold < 1:
            raise ConfigError(f"full_mesh_threshold must be at least 1, got {full_mesh_threshold}")
        self._name = name
        self.full_mesh_threshold = full_mesh_threshold
        self._neighbours: tuple[str, ...] = ()
        self._neighbours_key: int | None = None
        self._targets: tuple[str, ...] = ()
        self._targets_key: tuple[int, int] | None = None

    def neighbours(self, members: Iterable[MemberRecord], *, revision: int) -> tuple[str, ...]:
        """Return the names this node talks to, sorted. O(n log n), O(1) while nothing changed.

        Args:
            members: the whole table, this node included.
            revision: of those in reach: the same number promises the same members.
        """
        if revision != self._neighbours_key:
            reachable = self._in_reach(members)
            if len(reachable) <= self.full_mesh_threshold:
                names = {member.name for member in reachable}
            else:
                names = sparse_neighbours(reachable, self._name)
            self._neighbours = tuple(sorted(names - {self._name}))
            self._neighbours_key = revision
        return self._neighbours

    def push_targets(
        self, members: Iterable[MemberRecord], *, revision: int, fanout: int
    ) -> tuple[str, ...]:
        """Return the names this node sends new entries to, sorted. Cost as `neighbours`.

        Args:
            members: the whole table, this node included.
            revision: of those in reach: the same number promises the same members.
            fanout: receivers of each node inside its zone; 1 is taken as 2, which is the least
                that reaches everyone.
        """
        if (revision, fanout) != self._targets_key:
            reachable = self._in_reach(members)
            neighbours = self.neighbours(reachable, revision=revision)
            if len(reachable) <= self.full_mesh_threshold:
                names = set(neighbours)
            else:
                place = {member.name: (member.region, member.zone) for member in reachable}
                own = place.get(self._name)
                ring = _ring(name for name, where in place.items() if where == own)
                names = {name for name in neighbours if place[name] != own}
                names |= push_receivers(ring, self._name, fanout=fanout) if ring else set()
            self._targets = tuple(sorted(names - {self._name}))
            self._targets_key = (revision, fanout)
        return self._targets

    def _in_reach(self, members: Iterable[MemberRecord]) -> list[MemberRecord]:
        return [member for member in members if member.is_reachable]

    def is_full_mesh(self, reachable_count: int) -> bool:
        """Tell whether a cluster of this size is a full mesh."""
        return reachable_count <= self.full_mesh_threshold


def _ring(names: Iterable[str]) -> list[str]:
    """Return the names of one zone in their order on its ring."""
    return sorted(names, key=lambda name: (hash64_text(name), name))


def push_receivers(ring: Sequence[str], name: str, *, fanout: int) -> set[str]:
    """Return whom a member of a zone's ring sends new entries to. O(m) to find its place.

    Args:
        ring: the zone's members in the order of the ring.
        name: one of them.
        fanout: how many; 1 is taken as 2.
    """
    count, degree = len(ring), max(2, fanout)
    if count <= degree + 1:
        return set(ring) - {name}
    place = ring.index(name)
    return {ring[-(degree * place + step) % count] for step in range(1, degree + 1)} - {name}


def sparse_graph(members: Sequence[MemberRecord]) -> dict[str, set[str]]:
    """Return the neighbours of every member in the sparse graph. O(n log n).

    It is connected for every membership, has degree at most `2 log2(zone) + 4 (log2(zones) +
    log2(regions) + 1)` and diameter O(log n).
    """
    graph: dict[str, set[str]] = {member.name: set() for member in members}
    for left, right in _links(_regions(members), lambda _: True):
        if left != right:
            graph[left].add(right)
            graph[right].add(left)
    return graph


def sparse_neighbours(members: Sequence[MemberRecord], name: str) -> set[str]:
    """Return one member's neighbours in the sparse graph. O(n log n), for the order of the rings.

    Args:
        members: the whole membership.
        name: one of them.
    """
    links = _links(_regions(members), lambda ring: name in ring)
    return {right if left == name else left for left, right in links if name in (left, right)} - {
        name
    }


def _regions(members: Iterable[MemberRecord]) -> list[list[list[str]]]:
    """Return the members' names by region and by zone, each zone in the order of its ring."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        groups[member.region][member.zone].append(member.name)
    return [
        [_ring(groups[region][zone]) for zone in sorted(groups[region])]
        for region in sorted(groups)
    ]


def _links(
    regions: list[list[list[str]]], is_wanted: Callable[[list[str]], bool]
) -> Iterator[tuple[str, str]]:
    """Yield the pairs that are joined, but for those of groups that are all not wanted."""
    wholes = []
    for zones in regions:
        wanted = [is_wanted(ring) for ring in zones]
        for ring, is_ring_wanted in zip(zones, wanted, strict=True):
            if is_ring_wanted:
                yield from ((ring[here], ring[there]) for here, there in _ring_pairs(len(ring)))
        for here, there in _ring_pairs(len(zones)):
            if wanted[here] or wanted[there]:
                yield from _bridges(zones[here], zones[there], ZONE_BRIDGES)
        wholes.append(([name for ring in zones for name in ring], any(wanted)))
    for here, there in _ring_pairs(len(wholes)):
        (left, is_left_wanted), (right, is_right_wanted) = wholes[here], wholes[there]
        if is_left_wanted or is_right_wanted:
            yield from _bridges(left, right, REGION_BRIDGES)


def _bridges(left: list[str], right: list[str], count: int) -> Iterator[tuple[str, str]]:
    """Join two groups at `count` equal fractions, shifted by the pair so that load spreads."""
    shift = hash64_text(left[0] + "\n" + right[0]) % 4096 / 4096
    for index in range(count):
        fraction = (index / count + shift) % 1.0
        yield left[int(fraction * len(left))], right[int(fraction * len(right))]
