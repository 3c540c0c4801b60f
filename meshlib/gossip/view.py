"""Who is there, as this node sees it: its own record, the others, and whom it talks to."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from meshlib.identity import ActorId
from meshlib.membership import MemberRecord, MemberTable, TopologyManager, next_version

__all__ = ["MembershipView"]


class MembershipView:
    """This node among its members.

    Args:
        record: this node's own; the attribute is the one place where its identity is kept.
        topology: who talks to whom.
        fanout: how many a node sends new entries to, in a sparse topology.

    Attributes:
        name: this node's name.
        members: everyone who is known, this node included.
        is_draining: whether this node is about to leave, and still takes part.
        is_leaving: whether it has said goodbye.
    """

    __slots__ = (
        "_fanout", "_names_revision", "_peer_names", "_peers", "_peers_revision", "_topology",
        "is_draining", "is_leaving", "members", "name", "record",
    )  # fmt: skip

    def __init__(self, record: MemberRecord, *, topology: TopologyManager, fanout: int) -> None:
        self.record = record
        self.name = record.name
        self.members = MemberTable()
        self.is_draining = False
        self.is_leaving = False
        self._topology = topology
        self._fanout = fanout
        self._peers: tuple[MemberRecord, ...] = ()
        self._peers_revision = -1
        self._peer_names: tuple[str, ...] = ()
        self._names_revision = -1

    @property
    def actor(self) -> ActorId:
        """The writer that this node is."""
        return self.record.actor

    def peers(self) -> tuple[MemberRecord, ...]:
        """Return the members in reach but this one, sorted by name. O(n) after a change."""
        members = self.members
        if self._peers_revision != members.revision:
            name = self.name
            self._peers = tuple(m for m in members.reachable() if m.name != name)
            self._peers_revision = members.revision
        return self._peers

    def peer_names(self) -> tuple[str, ...]:
        """Return the names of `peers()`, the same tuple until one comes or goes."""
        members = self.members
        if self._names_revision != members.reachable_revision:
            self._peer_names = tuple(member.name for member in self.peers())
            self._names_revision = members.reachable_revision
        return self._peer_names

    def reachable_count(self) -> int:
        """Return how many members are in reach, this node included. O(1)."""
        return self.members.reachable_count

    def is_full_mesh(self) -> bool:
        """Tell whether all members talk to all. O(1)."""
        return self._topology.is_full_mesh(self.members.reachable_count)

    def neighbours(self) -> tuple[str, ...]:
        """Return the names this node exchanges state with, sorted."""
        members = self.members
        return self._topology.neighbours(members.reachable(), revision=members.reachable_revision)

    def push_targets(self) -> tuple[str, ...]:
        """Return the names this node sends new entries to, sorted."""
        members = self.members
        return self._topology.push_targets(
            members.reachable(), revision=members.reachable_revision, fanout=self._fanout
        )

    def change_own_record(
        self, now: float, *, seen_version: int = 0, **changes: Any
    ) -> MemberRecord:
        """Change this node's own record here and in the table, and count the change.

        Args:
            now: monotonic seconds.
            seen_version: how far others have counted, as was heard.
            changes: fields of the record.
        """
        known = self.members.get(self.name)
        version = max(self.record.version, known.version if known else 0, seen_version)
        self.record = evolve(self.record, version=next_version(version), **changes)
        self.members.apply(self.record, now=now)
        return self.record
