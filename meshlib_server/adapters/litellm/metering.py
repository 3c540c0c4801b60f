"""A call's way through its limits: counted and reserved before it, settled after it.

Rule: LiteLLM is not needed here, and nothing of a prompt leaves but its length.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from meshlib_server.adapters.litellm.terms import Term
from meshlib_server.client import ApiError, AsyncMeshClient, ClientError

__all__ = ["Metering", "OverLimit"]

CALLS_MAX: Final = 100_000
"""Calls that are remembered until they end; what is forgotten stays at its estimate."""

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
class Metering:
    """Counts calls at one node of the cluster.

    Args:
        client: of that node: who reserves there settles there.
        is_open: whether a call passes when the node cannot be asked.
    """

    client: AsyncMeshClient
    is_open: bool = True
    _calls: OrderedDict[str, list[str]] = field(factory=OrderedDict)
    _written: set[str] = field(factory=set)

    async def begin(self, call_id: str, terms: Sequence[Term], *, estimate: int) -> None:
        """Count a call and reserve its tokens: under all of its limits, or under none.

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
            if not term.per_minute:
                raise OverLimit(term, 60.0)
        for policy in {term.policy for term in terms} - self._written:
            await self._write(policy)
        requests = {term.key: term for term in terms if not term.is_tokens}
        if requests:
            answer = await self.client.acquire_many(dict.fromkeys(requests, 1))
            if not answer.allowed:
                refused = next(
                    (term for term in requests.values() if term.policy == answer.policy),
                    next(iter(requests.values())),
                )
                raise OverLimit(refused, answer.retry_after_s)
        reserved: list[str] = []
        try:
            refused_tokens = await self._reserve(terms, estimate, reserved)
        except ClientError:
            await self._take_back(requests, reserved)
            raise
        if refused_tokens is not None:
            await self._take_back(requests, reserved)
            raise refused_tokens
        if reserved:
            self._calls[call_id] = reserved
            while len(self._calls) > CALLS_MAX:
                self._calls.popitem(last=False)

    async def _reserve(
        self, terms: Sequence[Term], estimate: int, reserved: list[str]
    ) -> OverLimit | None:
        """Reserve under each limit of tokens, as far as there is room."""
        for term in (term for term in terms if term.is_tokens):
            # More than the limit would never pass: it may use what there is.
            units = max(1, min(estimate, term.per_minute))
            answer = await self.client.reserve(term.key, estimate=units)
            if not answer.allowed:
                return OverLimit(term, answer.retry_after_s)
            reserved.append(answer.reservation_id)
        return None

    async def end(self, call_id: str, *, tokens: int) -> None:
        """Settle a call by the tokens that it has used; a second time does nothing.

        Args:
            call_id: as for `begin`.
            tokens: 0 for a call that failed.
        """
        for reservation_id in self._calls.pop(call_id, ()):
            try:
                await self.client.settle(reservation_id, actual=tokens)
            except ClientError:
                continue  # it stays at its estimate, as one whose end is never told

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
