"""Slots of the cluster for the requests of a program.

Rule: a slot is given back once, however its request ends.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from meshlib.aio.waiting import WaitingFront
from meshlib.arguments import check_count, check_kind
from meshlib.ratelimit import Decision, SlotTicket

__all__ = ["ConcurrencyLimit", "HeldSlot"]


class HeldSlot:
    """One request's place among those that run. True in a boolean context when it has one.

    Used as `async with`, it is given back at the end of the block.

    Args:
        mesh: the node that it was asked of.
        ticket: what was decided.
    """

    def __init__(self, mesh: WaitingFront, ticket: SlotTicket) -> None:
        assert ticket.decision is not None
        self._mesh = mesh
        self._ticket = ticket
        self.decision: Decision = ticket.decision
        """On the request; `confirmed` where it rests on the word of the key's owner."""

    def __bool__(self) -> bool:
        return self.decision.allowed

    def release(self) -> None:
        """Give it back; a second time, or after the node has ended, does nothing."""
        if self._mesh.is_running:
            self._mesh.release_slot(self._ticket)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class ConcurrencyLimit:
    """So many requests of each key at once, on all nodes together.

        parallel = ConcurrencyLimit(mesh, slots=4, name="chat")
        async with await parallel.acquire("sk-ann", timeout_s=5) as slot:
            if not slot:
                return too_many_requests(slot.decision.retry_after_s)
            ...

    While the owner of a key is reached there are never more. A node that reaches no owner for two
    seconds is vouched for no more: its slots are given to others, and it decides by
    `RateLimitConfig.partition_mode`, as one does that has died.

    Args:
        mesh: the node.
        slots: how many, 1 to 1,000,000; the same on all nodes. While nodes say different ones the
            lowest counts.
        name: sets the keys of this limit apart from those of others.

    Raises:
        InvalidTypeError, InvalidValueError: slots that cannot be.
    """

    def __init__(self, mesh: WaitingFront, *, slots: int, name: str = "") -> None:
        check_kind("mesh", mesh, WaitingFront, wanted="a MeshRuntime")
        check_count("slots", slots, least=1)
        self._mesh = mesh
        self._slots = slots
        self._prefix = f"{name}:" if name else ""

    async def acquire(self, key: str, *, timeout_s: float = 0.0) -> HeldSlot:
        """Ask for a slot.

        Args:
            key: whose requests they are, such as a user.
            timeout_s: seconds to wait while all slots are used, to 86,400; 0: not at all.

        Returns:
            a slot, which is false when there was none, and is to be released when there was.

        Raises:
            NotReadyError, LocalError: as `MeshRuntime.acquire_slot`.
        """
        key = self._prefix + key if isinstance(key, str) else key
        ticket = await self._mesh.acquire_slot(key, limit=self._slots, timeout_s=timeout_s)
        return HeldSlot(self._mesh, ticket)
