"""Who is there, as this node sees it: its own record, the others, and whom it talks to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from meshlib.identity import ActorId, actor_id
from meshlib.invariants import require
from meshlib.membership import (
    MemberRecord,
    MemberStatus,
    MemberTable,
    TopologyManager,
    next_version,
    place_of,
)

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
        """Return the members in reach but this one, sorted by name. A few calls after a change."""
        members = self.members
        if self._peers_revision != members.revision:
            here, name = members.reachable(), self.name
            place = place_of(here, name)
            is_here = place < len(here) and here[place].name == name
            self._peers = (*here[:place], *here[place + is_here :])
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

    def next_identity(self, rng: random.Random) -> tuple[int, ActorId]:
        """Return an incarnation after this node's, and the actor of that: one never used before.

        Args:
            rng: how far from the present one it is, so that two that are made at a time differ.
        """
        incarnation = self.record.incarnation + 1 + rng.getrandbits(16)
        return incarnation, actor_id(self.name, incarnation)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show this node's record, and whom it talks to."""
        return {
            "record": self.record,
            "is_draining": self.is_draining,
            "is_leaving": self.is_leaving,
            "is_full_mesh": self.is_full_mesh(),
            "neighbours": self.neighbours(),
            "push_targets": self.push_targets(),
        }

    def _check(self) -> None:
        """Assert that the table has this node, and that what is remembered of it is so."""
        members, name = self.members, self.name
        require(self, members.get(name) == self.record, "the table has another record of this node")
        is_right = self.is_leaving or self.record.status is MemberStatus.ALIVE
        require(self, is_right, "this node takes itself for gone")
        peers = tuple(m for m in members if m.is_reachable and m.name != name)
        require(self, self.peers() == peers, "the peers are not those of the table")
        names = tuple(member.name for member in peers)
        require(self, self.peer_names() == names, "the names are not those of the peers")
        linked = {*self.neighbours(), *self.push_targets()}
        require(self, linked <= set(names), "a neighbour is no peer")
        is_whole = not self.is_full_mesh() or linked == set(names)
        require(self, is_whole, "in a full mesh not everybody is a neighbour")
