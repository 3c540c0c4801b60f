"""Which router listens to an engine and asks how it is, and which would take over.

Rule: the ring decides, over the routers in reach; nobody is told, since all see the same ring.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from meshlib import ConsistentHashRing, MemberRecord

__all__ = ["Duty", "duty_of"]


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
    owners = list(ring.owners(worker_id, count=2)) if len(ring) else []
    if name not in owners:
        return Duty.NONE
    return Duty.FIRST if owners.index(name) == 0 else Duty.SECOND
