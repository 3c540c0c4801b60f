"""Whether this node stands on the larger side of its cluster.

A node cannot tell crashed members from members behind a cut; what it can tell is whether it
reaches a majority of those it knows. Members that left do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from attrs import frozen

from meshlib.membership.members import MemberRecord, MemberStatus

__all__ = ["PartitionDetector", "PartitionState", "PartitionView"]


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
        known_count: members that have not left.
        unreachable: the names out of reach, sorted.
    """

    state: PartitionState
    reachable_count: int
    known_count: int
    unreachable: tuple[str, ...]

    @property
    def has_quorum(self) -> bool:
        """Whether more than half of the known members are in reach."""
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
        peak_count: int | None = None,
        is_written_off: Callable[[MemberRecord], bool] = lambda _member: False,
    ) -> PartitionView:
        """Return what the members' states say of this node's side.

        Args:
            members: the whole table, this node included.
            peak_count: the size that the cluster is to have, as `MemberTable.peak_count`; a
                majority is one of it, so that Down members whose place others have taken do
                not count. None: every member counts.
            is_written_off: tells whether an operator has said of a member, in this incarnation,
                that it does not come back; while it is Down it then counts for nothing.
        """
        known = [
            member
            for member in members
            if member.status is not MemberStatus.LEAVING
            and not (member.status is MemberStatus.DOWN and is_written_off(member))
        ]
        down = sorted(member.name for member in known if member.status is MemberStatus.DOWN)
        reachable_count = len(known) - len(down)
        if not down:
            state = PartitionState.NORMAL
        elif 2 * reachable_count > min(len(known), peak_count or len(known)):
            state = PartitionState.WITH_QUORUM
        else:
            state = PartitionState.WITHOUT_QUORUM
        return PartitionView(
            state=state,
            reachable_count=reachable_count,
            known_count=len(known),
            unreachable=tuple(down),
        )
