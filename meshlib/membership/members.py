"""The table of members: who is in the cluster, and in which state.

Rule: a record changes only by `MemberTable.apply`, which joins. For each name the order is
(incarnation, status), with Alive < Suspected < Down < Leaving within one incarnation; versions
are joined by maximum. Two tables that were given the same records in any order are therefore
equal, and Down is final for one incarnation: only a higher one brings a name back.
Source: Das, Gupta, Motivala, "SWIM", DSN 2002, section 4.2, with Down kept apart from Leaving.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from attrs import evolve, field, frozen
from sortedcontainers import SortedDict

from meshlib.identity import ActorId, NodeId, actor_id
from meshlib.invariants import require
from meshlib.limits import FORMAT_MAX, FORMATS, MEMBERS_MAX

__all__ = [
    "VERSION_MAX",
    "MemberRecord",
    "MemberStatus",
    "MemberTable",
    "next_version",
    "place_of",
]


class MemberStatus(StrEnum):
    """What this node believes of a member. The values are the specification's words."""

    ALIVE = "Alive"
    SUSPECTED = "Suspected"
    DOWN = "Down"
    LEAVING = "Leaving"


_RANK = {
    MemberStatus.ALIVE: 0,
    MemberStatus.SUSPECTED: 1,
    MemberStatus.DOWN: 2,
    MemberStatus.LEAVING: 3,
}

VERSION_MAX = (1 << 63) - 1
"""The greatest version that travels."""

FORGOTTEN_MAX = 4096
"""Names that are remembered after they were forgotten, so that old news cannot bring them back."""


@frozen(slots=True, kw_only=True)
class MemberRecord:
    """What is known of one member.

    Args:
        name: the node's name, unique in the cluster.
        incarnation: minted at its start, raised by one for each refuted suspicion.
        status: Alive, Suspected, Down or Leaving.
        address: where it is reached, `host:port`.
        actor: the writer it is in this start; 16 bytes.
        region: for the sparse topology; may be empty.
        zone: availability zone inside the region; may be empty.
        version: counts the changes of this record, from 1; the same on every node.
        formats: the oldest and the newest format that it speaks, in this start.
    """

    name: str
    incarnation: int
    status: MemberStatus = MemberStatus.ALIVE
    address: str
    actor: ActorId
    region: str = ""
    zone: str = ""
    version: int = field(default=1)
    formats: tuple[int, int] = FORMATS

    @property
    def node_id(self) -> NodeId:
        """The name and the incarnation together."""
        return NodeId(self.name, self.incarnation)

    @property
    def is_reachable(self) -> bool:
        """Whether the member takes part: Alive, or merely Suspected."""
        return self.status in (MemberStatus.ALIVE, MemberStatus.SUSPECTED)

    def precedence(self) -> tuple[int, int]:
        """Return the record's place in the order of one name's records."""
        return (self.incarnation, _RANK[self.status])


def place_of(records: Sequence[MemberRecord], name: str) -> int:
    """Return where a name is, or would be, among records that are sorted by name. O(log n)."""
    return bisect_left(records, name, key=attrgetter("name"))


def next_version(version: int) -> int:
    """Return the version after one: the last is not passed, for no peer would read the next.

    Only a record that was damaged on the way gets there; from then on its changes go uncounted.
    """
    return min(version + 1, VERSION_MAX)


class MemberTable:
    """All members by name, joined; bounded; remembers the forgotten.

    Args:
        members_max: how many names are kept; at least 1.
    """

    __slots__ = (
        "_by_name",
        "_forgotten",
        "_members_max",
        "_newest_counts",
        "_peak_count",
        "_peaked",
        "_reachable",
        "_reachable_revision",
        "_recalled",
        "_revision",
        "_since",
    )

    def __init__(self, *, members_max: int = MEMBERS_MAX) -> None:
        self._by_name: SortedDict = SortedDict()
        self._since: dict[str, float] = {}
        self._forgotten: OrderedDict[str, MemberRecord] = OrderedDict()
        self._peak_count = 0
        self._peaked: set[str] = set()
        self._recalled: dict[str, int] = {}
        self._members_max = members_max
        self._revision = 0
        self._reachable: tuple[MemberRecord, ...] = ()
        self._reachable_revision = 0
        # Of each newest format, how many members speak it that are in reach, and that are Down.
        self._newest_counts: dict[tuple[int, bool], int] = {}

    @property
    def revision(self) -> int:
        """Grows with every change: for caches that are built from the table."""
        return self._revision

    @property
    def reachable_revision(self) -> int:
        """Grows when a member comes into reach or goes, or moves to another region or zone.

        Suspicions and refutations leave it alone: for what depends on who is there, and where.
        """
        return self._reachable_revision

    @property
    def reachable_count(self) -> int:
        """How many members are in reach. O(1)."""
        return len(self._reachable)

    def reachable(self) -> tuple[MemberRecord, ...]:
        """Return the members in reach, sorted by name, the same tuple until the next change. O(1).

        A change makes another tuple, in a few calls however many there are: a thousand that come
        with one message must not have each of them looked at a thousand times.
        """
        return self._reachable

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def is_full(self) -> bool:
        """Whether there is room for no other name: somebody must be forgotten first. O(1)."""
        return len(self._by_name) >= self._members_max

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[MemberRecord]:
        """Iterate over the records, sorted by name."""
        return iter(self._by_name.values())

    def get(self, name: str) -> MemberRecord | None:
        """Return the record of a name, or None. O(1)."""
        record: MemberRecord | None = self._by_name.get(name)
        return record

    def since(self, name: str) -> float:
        """Return since when (monotonic seconds) the member is in its status."""
        return self._since[name]

    def is_forgotten(self, record: MemberRecord) -> bool:
        """Tell whether a record is old news of a name that was forgotten."""
        forgotten = self.forgotten(record.name)
        return forgotten is not None and record.incarnation <= forgotten.incarnation

    def forgotten(self, name: str) -> MemberRecord | None:
        """Return the record with which a name was forgotten, None when it was not. O(1)."""
        return None if name in self._by_name else self._forgotten.get(name)

    @property
    def peak_count(self) -> int:
        """Members that were in reach at once, as far as none has left or was forgotten since.

        The size that the cluster is to have: when nodes come back under new names, and a
        majority is in reach, nothing is missing. Nobody is counted out of it twice, who was
        replaced and is forgotten later.
        """
        return self._peak_count

    def shared_format(self, is_written_off: Callable[[MemberRecord], bool]) -> int:
        """Return the newest format that every member speaks: who has left does not count.

        Who is Down does, until it is forgotten or written off: it comes back as it was, as a
        rule. O(formats); O(n) while one that is Down holds up the others.
        """
        counts = self._newest_counts
        shared = min((newest for newest, is_here in counts if is_here), default=FORMAT_MAX)
        if any(newest < shared for newest, _ in counts):
            gone = (m for m in self._by_name.values() if m.status is MemberStatus.DOWN)
            held = (m.formats[1] for m in gone if not is_written_off(m))
            shared = min(shared, min(held, default=shared))
        return shared

    def apply(self, record: MemberRecord, *, now: float) -> MemberRecord | None:
        """Join a record into the table. O(log n).

        Args:
            record: news of one member, from itself or from a peer.
            now: monotonic seconds.

        Returns:
            The record now kept, when it changed; None when the news was old, the table is
            full, or the name was forgotten at this incarnation or a later one.
        """
        known = self.get(record.name)
        if known is None:
            if self.is_full or self.is_forgotten(record):
                return None
            self._forgotten.pop(record.name, None)
            return self._store(record, now, is_new_status=True)
        version = max(known.version, record.version)
        if record.precedence() > known.precedence():
            is_new_status = record.status is not known.status
            return self._store(evolve(record, version=version), now, is_new_status=is_new_status)
        if version > known.version:
            return self._store(evolve(known, version=version), now, is_new_status=False)
        return None

    def _store(self, record: MemberRecord, now: float, *, is_new_status: bool) -> MemberRecord:
        before = self.get(record.name)
        self._by_name[record.name] = record
        self._note(before, record)
        if is_new_status:
            self._since[record.name] = now
            if record.status is MemberStatus.LEAVING:
                self._lower_peak(record.name)
        if record.is_reachable:
            self._peaked.add(record.name)
        self._peak_count = max(self._peak_count, self.reachable_count)
        return record

    def _note(self, before: MemberRecord | None, after: MemberRecord | None) -> None:
        """Keep what is counted and cached up with one record that changed."""
        self._revision += 1
        self._count_format(before, -1)
        self._count_format(after, 1)
        was = before if before is not None and before.is_reachable else None
        here = after if after is not None and after.is_reachable else None
        if named := was or here:
            place = place_of(self._reachable, named.name)
            new = () if here is None else (here,)
            behind = place if was is None else place + 1
            self._reachable = (*self._reachable[:place], *new, *self._reachable[behind:])
        if was is None or here is None:
            self._reachable_revision += was is not here
        elif (was.region, was.zone) != (here.region, here.zone):
            self._reachable_revision += 1

    def _count_format(self, record: MemberRecord | None, change: int) -> None:
        if record is not None and record.status is not MemberStatus.LEAVING:
            key = (record.formats[1], record.is_reachable)
            count = self._newest_counts.pop(key, 0) + change
            if count:
                self._newest_counts[key] = count

    def recall(self, members: Iterable[MemberRecord], *, now: float) -> list[MemberRecord]:
        """Take in those who counted before this node began again. O(members).

        They are Down until they are heard of, in an incarnation below the one that they had then:
        whatever anybody knows of them is newer. They count for the peak, as they did.

        Args:
            members: as they were then; a name that is known already, or has no room, is left out.
            now: monotonic seconds.

        Returns:
            the records now kept.
        """
        recalled = []
        for member in members:
            earlier = member.incarnation - 1
            if member.name in self or self.is_full or earlier < 0:
                continue
            actor = actor_id(member.name, earlier)
            ghost = evolve(member, status=MemberStatus.DOWN, incarnation=earlier, actor=actor)
            recalled.append(self._store(ghost, now, is_new_status=True))
            self._recalled[member.name] = earlier
            self._peaked.add(member.name)
        self._peak_count = max(self._peak_count, len(self._peaked))
        return recalled

    def recalled(self) -> list[MemberRecord]:
        """Return those of them of whom nothing was heard yet. O(members recalled)."""
        known = ((self.get(name), incarnation) for name, incarnation in self._recalled.items())
        return [m for m, incarnation in known if m is not None and m.incarnation == incarnation]

    def forget(self, name: str) -> MemberRecord | None:
        """Drop a member and remember its incarnation, so that old news cannot bring it back.

        Returns:
            The record that was dropped, or None when the name is not kept.
        """
        record: MemberRecord | None = self._by_name.pop(name, None)
        if record is None:
            return None
        del self._since[name]
        self._recalled.pop(name, None)
        self._note(record, None)
        self._forgotten[name] = record
        self._lower_peak(name)
        while len(self._forgotten) > FORGOTTEN_MAX:
            self._forgotten.popitem(last=False)
        return record

    def note_replaced(self, name: str) -> None:
        """Take note that others have taken a member's place: the peak stays when it goes. O(1)."""
        self._peaked.discard(name)

    def _lower_peak(self, name: str) -> None:
        """Count a member out of the peak, once: who was never in reach, or replaced, is not in."""
        if name in self._peaked:
            self._peaked.discard(name)
            self._peak_count = max(self.reachable_count, self._peak_count - 1)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who is there, since when they are as they are, and who was forgotten."""
        return {
            "records": tuple(self._by_name.values()),
            "since": MappingProxyType(self._since),
            "forgotten": tuple(self._forgotten),
            "peak_count": self._peak_count,
        }

    def _check(self) -> None:
        """Assert the invariants of the table."""
        require(self, len(self._by_name) <= self._members_max, "there are too many members")
        require(self, set(self._since) == set(self._by_name), "a member is in no status")
        require(self, len(self._forgotten) <= FORGOTTEN_MAX, "too many are known to be forgotten")
        is_apart = not any(name in self._by_name for name in self._forgotten)
        require(self, is_apart, "a member is there and forgotten")
        reachable = tuple(record for record in self._by_name.values() if record.is_reachable)
        require(self, self.reachable() == reachable, "those in reach are not those of the table")
        require(self, self._peaked <= set(self._by_name), "who is gone counts for the peak")
        require(self, self._peak_count >= len(reachable), "more are in reach than ever were")
        counted = [
            (m.formats[1], m.is_reachable)
            for m in self._by_name.values()
            if m.status is not MemberStatus.LEAVING
        ]
        counts = {key: counted.count(key) for key in counted}
        require(self, self._newest_counts == counts, "the newest formats are miscounted")
        for name, record in self._by_name.items():
            require(self, record.name == name, "a record is kept under another name")
            require(self, record.version >= 1, "a record was never written")
            require(self, len(record.actor) == 16, "a record has no writer")
