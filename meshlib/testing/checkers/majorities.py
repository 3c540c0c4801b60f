"""Who takes itself for the larger side of the cluster, and whether it may.

What is exactly true, and looked at after every change of a node's members: a node that says that
it has a majority reaches more than half of all those it has met since its start, but for

- those that have said goodbye;
- those that it left out while it reached more than half of the others: because it has forgotten
  them, after long, or because as many were in reach as ever were at once, so that somebody had
  taken their place;
- the other one of two, whose process has ended.

From this follows that no two sides have a majority whose nodes have met the same members and left
out nobody: two sets that are each more than half of a third have somebody in common, and what two
nodes both reach is no cut. How long a cut goes unnoticed does not enter into it, for a node counts
whom it believes to reach. Nothing more is true without agreement on who belongs to a cluster: a
side that met newcomers behind a cut, or began anew there, counts others than those beyond it.

Rule: this checker keeps its own account of whom each node has met and what has befallen them. Of
the node it asks what it says, and who is in its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from meshlib.membership import MemberRecord, MemberStatus
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.sometimes import Sometimes
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host

__all__ = ["Majorities"]


@define(slots=True)
class _Start:
    """What is known of one process since its start.

    Args:
        node: the process.
        ever_reached: the names of all that it has reached.
        met: the names of all it has met, itself included, each with its latest incarnation.
        left_out: those that need not count, each in which incarnation.
        revision: of its members, when it was looked at last.
        peak_count: how many it has reached at once, as far as none has left or was forgotten.
        had_majority: whether it reached more than half then.
        claims: what it said of itself then.
        reached: whom it reached then.
    """

    node: Any
    ever_reached: set[str] = field(factory=set)
    met: dict[str, int] = field(factory=dict)
    left_out: dict[str, int] = field(factory=dict)
    revision: int = -1
    peak_count: int = 0
    had_majority: bool = True
    claims: bool = False
    reached: frozenset[str] = frozenset()

    def counted(self) -> set[str]:
        """Return whom the node has met and must count."""
        return {
            name
            for name, incarnation in self.met.items()
            if self.left_out.get(name, -1) < incarnation
        }


class Majorities:
    """Follows every process of a run.

    Args:
        sometimes: counts what was seen.
    """

    __slots__ = ("_departed", "_ended", "_sometimes", "_starts")

    def __init__(self, sometimes: Sometimes) -> None:
        self._sometimes = sometimes
        self._starts: dict[str, _Start] = {}
        self._departed: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def departs(self, host: Host) -> None:
        """Take note that a node says goodbye."""
        self._note(self._departed, host)

    def ended(self, host: Host) -> None:
        """Take note that a process has ended; its node is still there to be asked."""
        self._note(self._ended, host)
        self._starts.pop(host.label, None)

    @staticmethod
    def _note(of: dict[str, int], host: Host) -> None:
        node_id = host.node.node_id
        of[node_id.name] = max(node_id.incarnation, of.get(node_id.name, -1))

    def after_event(self, host: Host) -> None:
        """Look at what a node says of its side, when anything of its members has changed.

        Raises:
            Broken: it has a majority that it does not reach.
        """
        start = self._starts.get(host.label)
        if start is None or start.node is not host.node:
            start = self._starts[host.label] = _Start(host.node)
        if start.revision == host.node.members_revision:
            return
        start.revision = host.node.members_revision
        members = {member.name: member for member in host.node.members()}
        if not members[host.name].is_reachable:
            return  # it has said goodbye, and is on no side
        for name, member in members.items():
            start.met[name] = max(member.incarnation, start.met.get(name, -1))
        reached = frozenset(name for name, one in members.items() if one.is_reachable)
        self._leave_out(start, members, reached)
        start.reached = reached
        start.claims = inside.has_quorum(host.node)
        counted = start.counted()
        start.had_majority = 2 * len(start.reached) > len(counted)
        if start.claims and not start.had_majority:
            raise Broken(
                "majority",
                f"it says that it has one, and reaches {_names(start.reached)} of "
                f"{_names(counted)}",
            )
        self._count(start, members)

    def _leave_out(
        self, start: _Start, members: Mapping[str, MemberRecord], reached: frozenset[str]
    ) -> None:
        """Take note of whom a node need not count from now on.

        What an event changed in which order is not known: of those who were out of reach before
        it, the node may have left out some while it still had the majority that it had then.
        """
        for name in start.counted():
            member, incarnation = members.get(name), start.met[name]
            is_leaving = member is None or member.status is MemberStatus.LEAVING
            if is_leaving and self._departed.get(name, -1) >= incarnation:
                start.left_out[name] = incarnation
                start.peak_count -= name in start.ever_reached
        start.ever_reached |= reached
        start.peak_count = max(start.peak_count, len(reached))
        counted = start.counted()
        has_majority = 2 * len(reached) > len(counted)
        left_out = inside.left_out(start.node)
        for name in counted - reached:
            incarnation = start.met[name]
            is_known = name in members
            if is_known and left_out.get(name, -1) < incarnation:
                continue
            had_majority = start.had_majority and name not in start.reached
            is_other_of_two = len(counted) == 2 and self._ended.get(name, -1) >= incarnation
            is_replaced = is_known and len(reached) >= start.peak_count
            if is_other_of_two or (
                (has_majority or had_majority) and (is_replaced or not is_known)
            ):
                start.left_out[name] = incarnation
                start.peak_count -= name in start.ever_reached and not is_known

    def _count(self, start: _Start, members: Mapping[str, MemberRecord]) -> None:
        """Count the states that this checker is about, so that it is seen that they come."""
        is_down = any(member.status is MemberStatus.DOWN for member in members.values())
        self._sometimes.count("majority_in_reach", int(is_down and start.claims))
        has_met = len(members) > 1
        self._sometimes.count("majority_out_of_reach", int(has_met and not start.claims))
        is_pair = start.claims and len(members) == 2 and len(start.reached) == 1
        self._sometimes.count("survivor_of_two", int(is_pair and is_down))


def _names(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))
