"""Whether this node stands on the larger side of its cluster, and who counts for that.

A node cannot tell crashed members from members behind a cut; what it can tell is whether it
reaches a majority of those it knows, and of those it was told of.

Rules this file owns:
- A member counts until it leaves, an operator writes it off, or this node forgets it; and only
  with a majority in reach does a node leave anybody out of the count by itself. The one exception
  is a cluster of two whose other process has ended, which a refused dial shows and silence does
  not.
- Whom a node was told of and has never met counts as absent: see `told.py`. So a few that begin
  beside others whom they do not reach are no majority, however many others there may be besides.
- So does who counted before this node began again, and was kept with its state: see
  `MemberTable.recall`. Those who restart together behind a cut are no majority without the others.
- A majority is one of no fewer than it takes to begin (`bootstrap_expect`).
- Whoever is left out counts again when it comes back.
- So two nodes that count the same members never both have a majority and nobody in common. Those
  whose counts differ may: one side of a cut met newcomers, or an operator forgot the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

from attrs import frozen

from meshlib.invariants import require
from meshlib.membership.members import MemberRecord, MemberStatus, MemberTable
from meshlib.membership.told import ToldAddresses, ToldSeed

__all__ = ["Electorate", "MemberSet", "PartitionDetector", "PartitionState", "PartitionView"]


class MemberSet(Protocol):
    """Members of whom something holds as they are now."""

    def __contains__(self, member: MemberRecord | ToldSeed, /) -> bool:
        """Tell whether it holds of a member, in its incarnation, or of a seed that is awaited."""
        ...


class PartitionState(StrEnum):
    """What this node reaches of its cluster. The value is a metric label."""

    NORMAL = "normal"
    WITH_QUORUM = "partitioned_with_quorum"
    WITHOUT_QUORUM = "partitioned_without_quorum"


@frozen(slots=True, kw_only=True)
class PartitionView:
    """A judgement of the partition detector.

    Args:
        state: normal, or partitioned with or without a majority in reach.
        reachable_count: members in reach, this node included.
        known_count: members that have not left, but for those an operator wrote off.
        quorum_of: nodes that count: a majority is more than half of them.
        unreachable: the names out of reach, sorted.
        unmet_count: nodes among them that this one was told of and has never met.
    """

    state: PartitionState
    reachable_count: int
    known_count: int
    quorum_of: int
    unreachable: tuple[str, ...]
    unmet_count: int = 0

    @property
    def has_quorum(self) -> bool:
        """Whether more than half of those that count are in reach."""
        return self.state is not PartitionState.WITHOUT_QUORUM


class PartitionDetector:
    """Judge a membership table; stateless, O(n).

    A Suspected member still counts as reachable: it has not had its chance to refute. Half of
    the members is no majority, so that two halves never both believe to be the larger one.
    """

    __slots__ = ()

    def judge(
        self,
        members: Iterable[MemberRecord],
        *,
        written_off: MemberSet = (),
        left_out: MemberSet = (),
        unmet_count: int = 0,
        expected_count: int = 1,
    ) -> PartitionView:
        """Return what the members' states say of this node's side.

        Args:
            members: the whole table, this node included.
            written_off: members of whom an operator has said, in this incarnation, that they do
                not come back; while one is Down it is not even known.
            left_out: members that do not count while they are Down.
            unmet_count: nodes that this one was told of and has never met: each is absent.
            expected_count: how many it takes to begin a cluster: a majority is one of no fewer.
        """
        known = [
            member
            for member in members
            if member.status is not MemberStatus.LEAVING
            and not (member.status is MemberStatus.DOWN and member in written_off)
        ]
        down = [member for member in known if member.status is MemberStatus.DOWN]
        reachable_count = len(known) - len(down)
        counted_count = sum(member not in left_out for member in down)
        quorum_of = max(reachable_count + counted_count + unmet_count, expected_count)
        if 2 * reachable_count <= quorum_of:
            state = PartitionState.WITHOUT_QUORUM
        else:
            state = PartitionState.WITH_QUORUM if down else PartitionState.NORMAL
        return PartitionView(
            state=state,
            reachable_count=reachable_count,
            known_count=len(known),
            quorum_of=quorum_of,
            unreachable=tuple(sorted(member.name for member in down)),
            unmet_count=unmet_count,
        )


class _LeftOut:
    """Names, each with the incarnation that is meant and none that is later."""

    __slots__ = ("incarnations",)

    def __init__(self) -> None:
        self.incarnations: dict[str, int] = {}

    def __contains__(self, member: MemberRecord | ToldSeed) -> bool:
        return member.incarnation <= self.incarnations.get(member.name, -1)

    def add(self, member: MemberRecord) -> None:
        """Mean a member as it is now."""
        self.incarnations[member.name] = member.incarnation


class Electorate:
    """Who counts for the majority, as one node sees it.

    Args:
        members: the table.
        told: whom this node was told of; None: of nobody.
        expected_count: how many nodes it takes to begin.
        written_off: of whom an operator has said that they do not come back.
        is_silence_an_end: whether one of two that is Down through silence counts as ended, too;
            see `GossipConfig.is_silence_an_end`.
    """

    __slots__ = (
        "_detector", "_ended", "_expected_count", "_is_silence_an_end", "_left_out", "_members",
        "_told", "_written_off", "revision",
    )  # fmt: skip

    def __init__(
        self,
        members: MemberTable,
        *,
        told: ToldAddresses | None = None,
        expected_count: int = 1,
        written_off: MemberSet = (),
        is_silence_an_end: bool = False,
    ) -> None:
        self._members = members
        self._told = told if told is not None else ToldAddresses(members)
        self._expected_count = expected_count
        self._written_off = written_off
        self._is_silence_an_end = is_silence_an_end
        self._detector = PartitionDetector()
        self._ended = _LeftOut()
        self._left_out = _LeftOut()
        self.revision = 0
        """Grows with what this node learns of the end of others: for caches."""

    def judge(self) -> PartitionView:
        """Return what this node reaches of those who count. O(members)."""
        view = self._judge()
        gone = self._newly_left_out(view)
        for member in gone:
            self._left_out.add(member)
            if view.has_quorum:
                self._members.note_replaced(member.name)
        return self._judge() if gone else view

    def _judge(self) -> PartitionView:
        return self._detector.judge(
            self._members,
            written_off=self._written_off,
            left_out=self._left_out,
            unmet_count=self._told.unmet_count(self._written_off),
            expected_count=self._expected_count,
        )

    def _newly_left_out(self, view: PartitionView) -> list[MemberRecord]:
        """Return who need not count any longer, from what is in reach of those who do."""
        if view.state is PartitionState.NORMAL:
            return []
        known = (self._members.get(name) for name in view.unreachable)
        down = [member for member in known if member is not None and member not in self._left_out]
        if view.has_quorum:
            # As many are in reach as ever were at once: others have taken the places of these.
            return down if view.reachable_count >= self._members.peak_count else []
        if view.quorum_of == 2:
            return [m for m in down if self._is_silence_an_end or m in self._ended]
        return []

    @property
    def is_pair(self) -> bool:
        """Whether exactly two count. O(members)."""
        return self.judge().quorum_of == 2

    def note_ended(self, member: MemberRecord) -> None:
        """Take note that the process of a member is gone: its own address refused a dial. O(1)."""
        self._ended.add(member)
        self.revision += 1

    def take_back(self, name: str) -> None:
        """Count a member again that was held for ended, for it was heard. O(1)."""
        self.forget(name)
        self.revision += 1

    def may_forget(self, member: MemberRecord) -> bool:
        """Tell whether a member that is gone may be forgotten. O(members).

        It may when it does not count, or when a majority is alive: who is suspected may be as
        gone as the member is, and be noticed later.
        """
        return not self._counts(member) or self._has_alive_majority()

    def longest_gone(self) -> MemberRecord | None:
        """Return whom to forget when there is no room; None for nobody. O(members).

        It is who has been gone for longest, of those who may be forgotten.
        """
        has_quorum = self._has_alive_majority()
        gone = [
            m for m in self._members if not m.is_reachable and (has_quorum or not self._counts(m))
        ]
        return min(gone, key=lambda m: (self._members.since(m.name), m.name), default=None)

    def _has_alive_majority(self) -> bool:
        alive_count = sum(member.status is MemberStatus.ALIVE for member in self._members)
        return 2 * alive_count > self.judge().quorum_of

    def counted(self) -> list[MemberRecord]:
        """Return the members that count, sorted by name. O(members)."""
        return [member for member in self._members if self._counts(member)]

    def _counts(self, member: MemberRecord) -> bool:
        if member.is_reachable or member.status is MemberStatus.LEAVING:
            return member.is_reachable
        return member not in self._written_off and member not in self._left_out

    def forget(self, name: str) -> None:
        """Drop what is kept about a member. O(1)."""
        self._ended.incarnations.pop(name, None)
        self._left_out.incarnations.pop(name, None)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show who does not count, and whose process has ended, each in which incarnation."""
        return {
            "has_quorum": self.judge().has_quorum,
            "left_out": MappingProxyType(self._left_out.incarnations),
            "ended": MappingProxyType(self._ended.incarnations),
        }

    def _check(self) -> None:
        """Assert that nothing is kept of who is forgotten."""
        for name in (*self._left_out.incarnations, *self._ended.incarnations):
            require(self, name in self._members, "somebody is left out who is not known")
