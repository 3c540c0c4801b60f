"""Slots for those who may go without a word: programs that ask from elsewhere.

Rule: a slot is held until it is released or its lease ends, whichever comes first, and is given
back once.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import Final

from attrs import define, frozen

from meshlib.aio.concurrency.limit import HeldSlot
from meshlib.aio.waiting import WaitingFront
from meshlib.arguments import check_kind, check_number
from meshlib.errors import InvalidFieldError, LimitError, UnknownKeyError
from meshlib.limits import SLOT_LEASES_MAX
from meshlib.ratelimit import Decision

__all__ = ["SLOT_LEASE_DEFAULT_S", "LeasedSlot", "LeasedSlots"]

SLOT_LEASE_DEFAULT_S: Final = 30.0
"""How long a slot is held without a word, unless somebody says else."""

_LEASE_S: Final = (0.1, 86_400.0)


@frozen
class LeasedSlot:
    """What was decided, and by which name the slot is renewed and released.

    Args:
        slot_id: its name, which nobody can guess; empty where there was none.
        decision: on the request; true in a boolean context when there was one.
        lease_s: for how long it is held from now on; 0 where there was none.
    """

    slot_id: str
    decision: Decision
    lease_s: float

    def __bool__(self) -> bool:
        return self.decision.allowed


@define(slots=True)
class _Lease:
    held: HeldSlot
    lease_s: float
    ends: asyncio.TimerHandle


class LeasedSlots:
    """Slots of the cluster by name, each under a lease that its holder renews.

    For requests that run in other processes: what they hold is free again when they have gone
    without a word for the time of their lease, and 2.2 seconds after this node has died.

    Args:
        mesh: the node.
    """

    def __init__(self, mesh: WaitingFront) -> None:
        check_kind("mesh", mesh, WaitingFront, wanted="a MeshRuntime")
        self._mesh = mesh
        self._leases: dict[str, _Lease] = {}

    def __len__(self) -> int:
        """Count the slots that are held here. O(1)."""
        return len(self._leases)

    async def acquire(
        self,
        key: str,
        *,
        limit: int,
        timeout_s: float = 0.0,
        lease_s: float = SLOT_LEASE_DEFAULT_S,
    ) -> LeasedSlot:
        """Ask for a slot. O(1).

        Args:
            key: whose requests they are.
            limit: slots of the whole cluster, 1 to 1,000,000.
            timeout_s: seconds to wait while all slots are used, 0 to 86,400.
            lease_s: seconds for which it is held unless it is renewed, 0.1 to 86,400.

        Raises:
            InvalidFieldError: a lease that cannot be.
            LimitError: 100,000 are held here.
            NotReadyError, LocalError: as `MeshRuntime.acquire_slot`. Nothing is held after either.
        """
        _check_lease(lease_s)
        self._check_room()
        ticket = await self._mesh.acquire_slot(key, limit=limit, timeout_s=timeout_s)
        held = HeldSlot(self._mesh, ticket)
        if not held:
            return LeasedSlot("", held.decision, 0.0)
        try:
            self._check_room()  # others have come while this one waited
        except LimitError:
            held.release()
            raise
        slot_id = secrets.token_hex(16)
        self._leases[slot_id] = _Lease(held, lease_s, self._ending(slot_id, lease_s))
        return LeasedSlot(slot_id, held.decision, lease_s)

    def renew(self, slot_id: str, *, lease_s: float | None = None) -> float:
        """Hold a slot for another lease from now on. O(1).

        Args:
            slot_id: as `acquire` returned it.
            lease_s: seconds; None: as many as before.

        Returns:
            for how many seconds.

        Raises:
            UnknownKeyError: it is not held here, or no more: somebody else may have it.
            InvalidFieldError: a lease that cannot be. It ends when it would have.
        """
        lease = self._lease(slot_id)
        if lease_s is not None:
            _check_lease(lease_s)
            lease.lease_s = lease_s
        lease.ends.cancel()
        lease.ends = self._ending(slot_id, lease.lease_s)
        return lease.lease_s

    def release(self, slot_id: str) -> None:
        """Give a slot back. O(1).

        Raises:
            UnknownKeyError: it is not held here, or no more. Nothing changed.
        """
        lease = self._lease(slot_id)
        lease.ends.cancel()
        self._end(slot_id)

    def _check_room(self) -> None:
        count = len(self._leases) + 1
        if count > SLOT_LEASES_MAX:
            raise LimitError("leased slots", size=count, limit=SLOT_LEASES_MAX)

    def _lease(self, slot_id: str) -> _Lease:
        lease = self._leases.get(slot_id)
        if lease is None:
            raise UnknownKeyError("slot", slot_id)
        return lease

    def _ending(self, slot_id: str, lease_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(lease_s, self._end, slot_id)

    def _end(self, slot_id: str) -> None:
        lease = self._leases.pop(slot_id, None)
        if lease is not None:
            lease.held.release()


def _check_lease(lease_s: object) -> None:
    check_number("lease_s", lease_s, wanted="a number of seconds")
    assert isinstance(lease_s, int | float)
    least, most = _LEASE_S
    if math.isnan(lease_s) or not least <= lease_s <= most:
        raise InvalidFieldError("lease_s", f"must be {least:g} to {most:,.0f} seconds")
