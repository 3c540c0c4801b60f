"""What a program waits for, and what it listens to: the coroutines of a running node.

Rule: every wait ends: with what was waited for, in time, or with what ended the runtime.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Final

from meshlib.aio.diagnosis import Diagnosis, SeedTroubles, diagnose, seed_reports
from meshlib.aio.driver import NodeDriver
from meshlib.aio.events import Conditions, Confirmations, EventStream, EventStreams
from meshlib.aio.front import MeshFront
from meshlib.arguments import check_callable, check_count, check_kind, check_number
from meshlib.errors import (
    InvalidFieldError,
    InvalidTypeError,
    InvalidValueError,
    LocalError,
    NotReadyError,
    StateError,
    ThreadError,
)
from meshlib.limits import RATE_KEYS_AT_ONCE_MAX, SUBSCRIPTION_QUEUE_MAX, WORKER_TTL_S_MIN
from meshlib.ratelimit import Decision, Reservation, SlotTicket, Ticket
from meshlib.replication import WriteReceipt
from meshlib.startup import UNKNOWN_YET

__all__ = ["WaitingFront"]

SEED_LOOK_S: Final = 2.0
"""How often it is looked what is wrong with the seeds of a node that has met nobody."""


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None:
        check_number("timeout_s", timeout_s, wanted="a number of seconds, or None")
        if math.isnan(timeout_s):
            raise InvalidValueError("timeout_s must be a number of seconds, or None, and not NaN")


class WaitingFront(MeshFront):
    """A front that can be waited on; `MeshRuntime` has the rest.

    Args:
        driver: of the node.
    """

    def __init__(self, driver: NodeDriver) -> None:
        super().__init__()
        self._driver = driver
        self._streams = EventStreams()
        self._conditions = Conditions()
        self._confirmations = Confirmations()
        self._seeds: tuple[str, ...] = ()
        self._discovery_problem = ""
        self._seed_troubles = SeedTroubles()
        self._is_started = False
        self._is_ending = False
        self._failure: Exception | None = None
        self._acknowledgement_waits = 0

    @property
    def is_running(self) -> bool:
        """Whether the node was started and has not ended."""
        return self._node is not None and not self._is_ending

    def wake(self) -> None:
        """Have the driver make a step soon. Nothing that is written needs it."""
        self._gate.check()
        self._driver.wake()

    # Waiting and listening

    async def wait_ready(self, timeout_s: float | None = 30.0) -> None:
        """Return once the node holds what the cluster held when they met, or has begun itself.

        A node without seeds is ready at once; one that starts together with others, or whose
        seeds do not answer, after `GossipConfig.bootstrap_after_s` at the earliest.

        Args:
            timeout_s: seconds; None: no limit.

        Raises:
            InvalidTypeError: a timeout that is no number.
            NotReadyError: not in time; it says what was tried and what each seed answered, and
                is a TimeoutError too. The node goes on trying.
            NameConflictError: a live node has this node's name. The runtime has ended.
            StateError: it is not running.
        """
        node = self._entered()
        _check_timeout(timeout_s)
        try:
            await self.wait_until(lambda: node.is_ready, timeout_s=timeout_s)
        except TimeoutError:
            assert timeout_s is not None
            raise NotReadyError(timeout_s=timeout_s, story=self.diagnose().story) from None

    async def acquire_confirmed(
        self, key: str, *, cost: int = 1, timeout_s: float | None = None
    ) -> Decision:
        """Decide whether a request may pass by the word of the key's owner.

        What this node holds, and a window that is known to be spent, answer at once; else this
        waits for a round trip. No window admits more than its limit by this call.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            timeout_s: seconds to wait for the owner, over 0; then, and from then on until it is
                heard again, `RateLimitConfig.partition_mode` decides and `confirmed` is False.
                None: `RateLimitConfig.confirm_timeout_s`.

        Raises:
            NotReadyError: as `acquire`.
            LocalError: as `RateLimiter.ask`; nothing is counted.
            StateError: the runtime ended meanwhile. What was granted is lost with its window.
        """
        _check_timeout(timeout_s)
        ticket = self._ask(key, cost=cost, timeout_s=timeout_s)
        decision = ticket.decision  # as `_confirmed`: this is done for each request
        return await self._confirmations.wait(ticket) if decision is None else decision

    async def acquire_many_confirmed(
        self, costs: Mapping[str, int], *, timeout_s: float | None = None
    ) -> Decision:
        """Decide on the limits of several keys by the words of their owners: all or nothing.

        What is refused burns nothing anywhere.

        Args:
            costs: units by rate-limit key, 1 to 100 keys.
            timeout_s: as for `acquire_confirmed`.

        Returns:
            the decision of the limit that refuses for longest, or of which the least is left.

        Raises:
            NotReadyError: as `acquire_many`.
            LocalError: as `RateLimiter.ask_many`; nothing is counted.
            StateError: the runtime ended meanwhile.
        """
        _check_timeout(timeout_s)
        check_kind("costs", costs, Mapping, wanted="a mapping of keys to units")
        left = self._entered().startup.still_to_decide(costs)
        if costs and not left:
            return UNKNOWN_YET
        return await self._confirmed(
            self._limited(
                lambda node, now: node.limiter.ask_many(left, timeout_s=timeout_s, now=now)
            )
        )

    async def acquire_each(
        self, requests: Sequence[tuple[str, int]], *, timeout_s: float | None = None
    ) -> list[Decision | LocalError]:
        """Decide on requests that have nothing to do with each other, all at the same time.

        Args:
            requests: rate-limit keys and units, up to 100; a key may be there several times.
            timeout_s: as for `acquire_confirmed`, for each of them.

        Returns:
            for each its decision, or the error that `acquire_confirmed` would have raised.

        Raises:
            NotReadyError: as `acquire`; those before it are decided all the same.
            InvalidFieldError: too many. Nothing is counted.
            StateError: the runtime ended meanwhile.
        """
        _check_timeout(timeout_s)
        check_kind("requests", requests, (list, tuple), wanted="a list of keys and units")
        if len(requests) > RATE_KEYS_AT_ONCE_MAX:
            most = RATE_KEYS_AT_ONCE_MAX
            raise InvalidFieldError("requests", f"must be at most {most}, got {len(requests)}")
        for request in requests:
            check_kind("requests", request, tuple, wanted="pairs of a key and units")
        asked: list[Ticket | LocalError] = []
        for key, cost in requests:
            try:
                asked.append(self._ask(key, cost=cost, timeout_s=timeout_s))
            except (StateError, ThreadError):
                raise
            except LocalError as error:
                asked.append(error)
        return [await self._confirmed(item) if isinstance(item, Ticket) else item for item in asked]

    async def peek_confirmed(
        self, key: str, *, cost: int = 1, timeout_s: float | None = None
    ) -> Decision:
        """Tell what `acquire_confirmed` would decide, and count nothing.

        Args:
            key: the rate-limit key.
            cost: the request's units, 1 to the limit.
            timeout_s: as for `acquire_confirmed`; then it is what this node knows.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.ask_peek`.
            StateError: the runtime ended meanwhile.
        """
        _check_timeout(timeout_s)
        self._entered().startup.check_limit(key)
        return await self._confirmed(
            self._limited(
                lambda node, now: node.limiter.ask_peek(
                    key, cost=cost, timeout_s=timeout_s, now=now
                )
            )
        )

    async def wait(self, key: str, *, cost: int = 1, timeout_s: float = 30.0) -> Decision:
        """Wait for units until they are there: first come first served, on this node.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            timeout_s: seconds to wait at most, over 0 to 31 days; then it is refused.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.wait`; nothing is counted.
            StateError: the runtime ended meanwhile.
        """
        _check_timeout(timeout_s)
        self._entered().startup.check_limit(key)
        ticket = self._limited(
            lambda node, now: node.limiter.wait(key, cost=cost, timeout_s=timeout_s, now=now)
        )
        try:
            return await self._confirmed(ticket)
        finally:
            if ticket.decision is None and self.is_running:
                self._limited(lambda node, now: node.limiter.withdraw(ticket, now=now))

    async def reserve_confirmed(
        self, key: str, *, estimate: int, lease_s: float = 600.0, timeout_s: float | None = None
    ) -> Reservation:
        """Count an estimate by the owner's word; `settle` corrects it.

        Args:
            key: the rate-limit key.
            estimate: units, 1 to the limit.
            lease_s: seconds after which it stays at its estimate, 1 to 86,400.
            timeout_s: as for `acquire_confirmed`.

        Returns:
            a reservation, which is false when it was refused.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.ask_reservation`; nothing is counted.
            StateError: the runtime ended meanwhile.
        """
        _check_timeout(timeout_s)
        self._entered().startup.check_limit(key)
        ticket = self._limited(
            lambda node, now: node.limiter.ask_reservation(
                key, estimate=estimate, lease_s=lease_s, timeout_s=timeout_s, now=now
            )
        )
        await self._confirmed(ticket)
        assert ticket.reservation is not None
        return ticket.reservation

    async def acquire_slot(self, key: str, *, limit: int, timeout_s: float = 0.0) -> SlotTicket:
        """Ask for one of so many slots that requests of a key have at once, on all nodes.

        `ConcurrencyLimit` gives it back by itself; else `release_slot` does.

        Args:
            key: of slots; one of rate limits is another.
            limit: slots of the whole cluster, 1 to 1,000,000.
            timeout_s: seconds to wait while all slots are used, 0 to 86,400; 0: only for the
                owner's word, which takes a round trip.

        Returns:
            a ticket with a `decision`, and with an admission a `slot`.

        Raises:
            NotReadyError: the node is not ready.
            InvalidTypeError, InvalidFieldError: an argument that cannot be. Nothing was asked.
            StateError: the runtime ended meanwhile.
        """
        self._entered().startup.check_absence("how many slots are used")
        ticket = self._limited(
            lambda node, now: node.limiter.ask_slot(key, limit=limit, wait_s=timeout_s, now=now)
        )
        try:
            await self._confirmed(ticket)
        except asyncio.CancelledError:
            if self.is_running:
                self._limited(lambda node, now: node.limiter.withdraw_slot(ticket, now=now))
            raise
        return ticket

    async def _confirmed(self, ticket: Ticket) -> Decision:
        if ticket.decision is not None:
            return ticket.decision
        return await self._confirmations.wait(ticket)

    async def keep_worker(self, worker_id: str) -> None:
        """Renew a worker's lease three times in each `ttl_s`, until cancelled; the heartbeat task.

        Raises:
            UnknownKeyError: it is not there, or was removed meanwhile.
            InvalidValueError: it has no `ttl_s`.
            StateError: the runtime has ended.
        """
        while True:
            self.renew_worker(worker_id)
            worker = self.sync.get_worker_state(worker_id)
            ttl_s = None if worker is None else worker.ttl_s
            await asyncio.sleep((ttl_s or WORKER_TTL_S_MIN) / 3)

    def diagnose(self) -> Diagnosis:
        """Tell how far the node has come, and what each seed answered. O(members + seeds).

        Raises:
            StateError: not started, or ended.
        """
        return diagnose(
            self._entered(),
            seeds=self._seeds,
            attempts=self._driver.attempts,
            discovery_problem=self._discovery_problem,
        )

    def _look_at_seeds(self) -> None:
        if self._node is not None and not self._is_ending:
            # Not all of a diagnosis, which judges the health and reads what has changed.
            reports = seed_reports(self._node, seeds=self._seeds, attempts=self._driver.attempts)
            self._seed_troubles.look(self._node, reports)

    async def _watch_seeds(self) -> None:
        """Have the health tell what is wrong with the seeds while nobody was met."""
        while True:
            await asyncio.sleep(SEED_LOOK_S)
            self._look_at_seeds()

    async def wait_until(
        self, condition: Callable[[], bool], *, timeout_s: float | None = None
    ) -> None:
        """Return once a condition holds; it is looked at after each step of the node.

        Args:
            condition: cheap, and changes nothing.
            timeout_s: seconds; None: no limit.

        Raises:
            TimeoutError: it did not hold in time.
            InvalidTypeError: no function, or a coroutine's, or a timeout that is no number.
            StateError: the runtime is not running, or ended before.
            ThreadError: in another event loop than the node's.
            Exception: what ended the runtime, or what the condition raised.
        """
        check_callable("condition", condition, wanted="a function")
        if iscoroutinefunction(condition):
            raise InvalidTypeError("condition must be an ordinary function, not a coroutine's")
        _check_timeout(timeout_s)
        if not self.is_running:
            raise self._failure or StateError("the runtime is not running")
        self._gate.check_loop()
        await self._conditions.wait(condition, timeout_s=timeout_s)

    async def wait_converged(
        self,
        receipt: WriteReceipt,
        *,
        peer_count: int | None = None,
        timeout_s: float | None = 10.0,
    ) -> None:
        """Return once peers are known to hold a write of this node.

        Called in the same turn of the loop as the write it takes one round trip; later it may
        take an anti-entropy interval.

        Args:
            receipt: what the write returned.
            peer_count: how many peers; None: every member that is in reach while this waits.
            timeout_s: seconds; None: no limit.

        Raises:
            TimeoutError: not known in time; the write stays and spreads.
            InvalidTypeError: no receipt, a count that is no integer, or a timeout no number.
            InvalidValueError: a count under 0.
            StateError: the runtime is not running, or ended before.
        """
        node = self._entered()
        check_kind("receipt", receipt, WriteReceipt, wanted="a WriteReceipt, as a write returns it")
        if peer_count is not None:
            check_count("peer_count", peer_count, least=0)
        _check_timeout(timeout_s)

        def is_held() -> bool:
            holders = node.seen_by(receipt)
            if peer_count is not None:
                return len(holders) >= peer_count
            return all(
                member.name in holders or member.name == node.name or not member.is_reachable
                for member in node.members()
            )

        self._acknowledgement_waits += 1
        node.request_acknowledgements(is_wanted=True)
        self.wake()
        try:
            await self.wait_until(is_held, timeout_s=timeout_s)
        finally:
            self._acknowledgement_waits -= 1
            if not self._acknowledgement_waits:
                node.request_acknowledgements(is_wanted=False)

    def events(self, *, queue_max: int = SUBSCRIPTION_QUEUE_MAX) -> EventStream:
        """Listen to the node's events from now on; before the start too, to miss none.

        Args:
            queue_max: events that may wait for the reader, at least 1; beyond it the oldest are
                dropped, and counted in the stream's `missed_count`.

        Returns:
            an async iterator that ends when the runtime does; close it when it is not needed.

        Raises:
            InvalidTypeError: `queue_max` is no integer.
            InvalidValueError: it is under 1.
            StateError: the runtime has ended.
            ThreadError: from another thread than the event loop's.
        """
        if self._is_started:
            self._gate.check()
        return self._streams.open(queue_max=queue_max, check_loop=self._gate.check_loop)
