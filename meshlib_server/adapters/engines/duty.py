"""Which router listens to an engine and asks how it is, and which would take over.

Rule: the ring decides, over the routers in reach; nobody is told, since all see the same ring.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from meshlib import ConsistentHashRing, MemberRecord, MeshRuntime

__all__ = ["Duties", "Duty", "duty_of"]


class Duty(StrEnum):
    """What a router has to do with an engine."""

    FIRST = "first"
    """It listens, and tells the others."""

    SECOND = "second"
    """It listens, and says nothing while the first is there."""

    NONE = "none"
    """Others listen."""


def duty_of(worker_id: str, *, name: str, members: Iterable[MemberRecord]) -> Duty:
    """Return what a router has to do with a worker. O(n log n) for n members.

    Args:
        worker_id: the worker.
        name: the router.
        members: as it sees them, itself included.
    """
    ring = ConsistentHashRing(member.name for member in members if member.is_reachable)
    return _duty(name, _owners(ring, worker_id))


def _owners(ring: ConsistentHashRing, worker_id: str) -> tuple[str, ...]:
    """Return the first and the second router, as far as there are so many."""
    return tuple(ring.owners(worker_id, count=2)) if len(ring) else ()


def _duty(name: str, owners: tuple[str, ...]) -> Duty:
    if name not in owners:
        return Duty.NONE
    return Duty.FIRST if owners[0] == name else Duty.SECOND


class Duties:
    """What one router has to do with each worker, as `duty_of` says, without a new ring each time.

    A ring of 64 routers takes 44 ms to make, and is asked many times a second for each worker.

    Args:
        mesh: the router's node.
    """

    def __init__(self, mesh: MeshRuntime) -> None:
        self._mesh = mesh
        self._revision: int | None = None
        self._change_count = 0
        self._ring = ConsistentHashRing()
        self._known: dict[str, tuple[str, ...]] = {}

    def of(self, worker_id: str) -> Duty:
        """Return what the router has to do with a worker now. O(1) while the members stay.

        Raises:
            StateError: the node has not started, or has ended.
        """
        return _duty(self._mesh.config.name, self.owners(worker_id))

    def owners(self, worker_id: str) -> tuple[str, ...]:
        """Return the routers that are first and second for a worker. O(1) while the members stay.

        Raises:
            StateError: as `of`.
        """
        self.change_count()
        owners = self._known.get(worker_id)
        if owners is None:
            owners = self._known[worker_id] = _owners(self._ring, worker_id)
        return owners

    def change_count(self) -> int:
        """Return how often duties may have changed, by the members as they are now. O(1) if not.

        Raises:
            StateError: as `of`.
        """
        revision = self._mesh.node.members_revision
        if revision == self._revision:
            return self._change_count
        self._revision = revision
        wanted = {member.name for member in self._mesh.members() if member.is_reachable}
        if wanted != set(self._ring.nodes):
            self._ring.update(wanted)
            self._known.clear()
            self._change_count += 1
        return self._change_count
