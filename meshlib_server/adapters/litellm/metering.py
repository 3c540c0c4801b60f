"""A call's way through its limits: counted and reserved before it, settled after it.

Rule: LiteLLM is not needed here, and nothing of a prompt leaves but its length.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from meshlib_server.adapters.litellm.terms import Term
from meshlib_server.client import ApiError, AsyncMeshClient, ClientError

__all__ = ["Metering", "OverLimit"]

CALLS_MAX: Final = 100_000
"""Calls of one process that are remembered until they end."""

RULE_NAME_PREFIX: Final = "litellm "

_logger = logging.getLogger(__name__)


class OverLimit(Exception):  # noqa: N818 - it is an answer, and no fault
    """A call that is refused; nothing of it is counted.

    Args:
        term: the limit that has no room.
        retry_after_s: after how long another try makes sense.
    """

    def __init__(self, term: Term, retry_after_s: float) -> None:
        super().__init__(f"over the limit of {term.policy}")
        self.term = term
        self.retry_after_s = retry_after_s


@define
class _Begun:
    """What a call has: the names of its reservations and of its slots."""

    reserved: list[str] = field(factory=list)
    slots: list[str] = field(factory=list)


@define
class Metering:
    """Counts calls at one node of the cluster.

    Args:
        client: of that node: who reserves there settles there.
        is_open: whether a call passes when the node cannot be asked.
        call_s: how long a call takes at most: a slot of one whose end is never told is free then.
        calls_max: calls that are remembered until they end. Beyond them the oldest is taken for
            one whose end is never told: it runs no more, and its tokens stay at their estimate.
    """

    client: AsyncMeshClient
    is_open: bool = True
    call_s: float = 600.0
    calls_max: int = CALLS_MAX
    _calls: OrderedDict[str, deque[_Begun]] = field(factory=OrderedDict)
    """By name, which callers may choose: several calls have the same one when they like."""
    _begun_count: int = 0
    _written: set[str] = field(factory=set)

    async def begin(self, call_id: str, terms: Sequence[Term], *, estimate: int) -> None:
        """Count a call, reserve its tokens and take its slots: under all its limits or under none.

        Args:
            call_id: the call's name, for `end`.
            terms: its limits.
            estimate: the tokens that it may use.

        Raises:
            OverLimit: one of them has no room.
            ClientError: the node cannot be asked, and calls are to be refused then.
        """
        try:
            await self._begin(call_id, terms, estimate)
        except ClientError as error:
            if not self.is_open:
                raise
            _logger.warning("a call passes without its limits: %s", error)

    async def _begin(self, call_id: str, terms: Sequence[Term], estimate: int) -> None:
        for term in terms:
            if not term.units:
                raise OverLimit(term, 60.0)
        rates = [term for term in terms if not term.is_parallel]
        for policy in {term.policy for term in rates} - self._written:
            await self._write(policy)
        begun = _Begun()
        try:
            await self._take_slots([term for term in terms if term.is_parallel], begun.slots)
            await self._count(rates, estimate, begun.reserved)
        except (ClientError, OverLimit):
            await self._release(begun)
            raise
        if begun.reserved or begun.slots:
            self._calls.setdefault(call_id, deque()).append(begun)
            self._begun_count += 1
            while self._begun_count > self.calls_max:
                await self._release(self._forget(next(iter(self._calls))))

    async def _take_slots(self, terms: Sequence[Term], taken: list[str]) -> None:
        for term in terms:
            answer = await self.client.acquire_slot(term.key, limit=term.units, lease_s=self.call_s)
            if not answer.allowed:
                raise OverLimit(term, answer.retry_after_s)
            taken.append(answer.slot_id)

    async def _count(self, terms: Sequence[Term], estimate: int, reserved: list[str]) -> None:
        requests = {term.key: term for term in terms if not term.is_tokens}
        if requests:
            answer = await self.client.acquire_many(dict.fromkeys(requests, 1))
            if not answer.allowed:
                refused = next(
                    (term for term in requests.values() if term.policy == answer.policy),
                    next(iter(requests.values())),
                )
                raise OverLimit(refused, answer.retry_after_s)
        try:
            refused_tokens = await self._reserve(terms, estimate, reserved)
        except ClientError:
            await self._take_back(requests, reserved)
            raise
        if refused_tokens is not None:
            await self._take_back(requests, reserved)
            raise refused_tokens

    async def _reserve(
        self, terms: Sequence[Term], estimate: int, reserved: list[str]
    ) -> OverLimit | None:
        """Reserve under each limit of tokens, as far as there is room."""
        for term in (term for term in terms if term.is_tokens):
            # More than the limit would never pass: it may use what there is.
            units = max(1, min(estimate, term.units))
            answer = await self.client.reserve(term.key, estimate=units)
            if not answer.allowed:
                return OverLimit(term, answer.retry_after_s)
            reserved.append(answer.reservation_id)
        return None

    async def end(self, call_id: str, *, tokens: int) -> None:
        """Settle a call by the tokens that it has used; a second time does nothing.

        Of several calls of one name it is the one that began first.

        Args:
            call_id: as for `begin`.
            tokens: 0 for a call that failed.
        """
        if call_id not in self._calls:
            return
        begun = self._forget(call_id)
        await self._release(begun)
        for reservation_id in begun.reserved:
            try:
                await self.client.settle(reservation_id, actual=tokens)
            except ClientError:
                continue  # it stays at its estimate, as one whose end is never told

    async def stop(self, call_id: str) -> None:
        """Take note that a call does not run any more, whatever it has used.

        Args:
            call_id: as for `begin`.
        """
        for begun in self._calls.get(call_id, ()):
            if begun.slots:
                await self._release(begun)
                return

    def _forget(self, call_id: str) -> _Begun:
        """Take a call off the table: of those of a name the one that began first."""
        named = self._calls[call_id]
        begun = named.popleft()
        self._begun_count -= 1
        if not named:
            del self._calls[call_id]
        return begun

    async def _release(self, begun: _Begun) -> None:
        slots, begun.slots = begun.slots, []
        for slot_id in slots:
            try:
                await self.client.release_slot(slot_id)
            except ClientError:
                continue  # it is free once its lease has ended

    async def _take_back(self, requests: dict[str, Term], reserved: list[str]) -> None:
        for reservation_id in reserved:
            await self.client.settle(reservation_id, actual=0)
        for key in requests:
            await self.client.refund(key)

    async def _write(self, policy: str) -> None:
        """Have a limit in force everywhere for the keys that begin with it."""
        try:
            await self.client.put_limit_rule(
                RULE_NAME_PREFIX + policy, pattern=f"{policy}:litellm:*", limits=[policy]
            )
        except ApiError as error:
            if error.status != 403:  # a token that may not write rules: somebody else has to
                raise
        self._written.add(policy)
