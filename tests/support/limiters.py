"""A cluster of rate limiters in simulated time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable

from meshlib.identity import actor_id
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.limiter import RateLimiter
from meshlib.ratelimit.records import Decision, RateMessage
from meshlib.ratelimit.settings import LimitSettings
from meshlib.state.documents import Documents
from meshlib.state.stores import AppStore
from support.states import FakeTime, make_replica

REST_S = 4.0


class RateCluster:
    """Limiters that talk through links with delay, loss and cuts; the settings are shared.

    Several begin with a rest: what an earlier start of theirs may have voted for is over then.
    Seconds are counted from there.
    """

    def __init__(
        self,
        count: int,
        *,
        delay_s: float = 0.005,
        loss: float = 0.0,
        seed: int = 1,
        config: RateLimitConfig | None = None,
    ) -> None:
        self.time = FakeTime()
        self.rng = random.Random(seed)
        self.delay_s = delay_s
        self.loss = loss
        self.names = [f"node{number}" for number in range(1, count + 1)]
        self.settings = LimitSettings(AppStore(Documents(make_replica("settings", self.time))))
        self.sides: dict[str, int] = {}
        self.sent: Counter[str] = Counter()
        self.admitted: Counter[int] = Counter()
        self.offered: Counter[int] = Counter()
        self.granted: Counter[int] = Counter()
        self._order = itertools.count()
        self._queue: list[tuple[float, int, str, str, str, bytes]] = []
        self.limiters: dict[str, RateLimiter] = {}
        for name in self.names:
            self.start(name, config=config)
        self.start_s = 0.0
        self.tell_members(self.names)
        if count > 1:
            for _ in range(int(REST_S / 0.01)):
                self.time.now = round(self.time.now + 0.01, 9)
                self.step()
            self.start_s = self.time.now

    def start(self, name: str, *, incarnation: int = 1, config: RateLimitConfig | None) -> None:
        self.limiters[name] = RateLimiter(
            name,
            actor=actor_id(name, incarnation),
            limits=self.settings,
            wall_clock=self.time.wall,
            config=config,
            now=self.time.now,
        )

    def tell_members(
        self,
        names: list[str],
        *,
        of: list[str] | None = None,
        quorum: bool = True,
        size: int | None = None,
    ) -> None:
        for name in self.names if of is None else of:
            if name in self.limiters:
                self.limiters[name].update_members(
                    names,
                    has_quorum=quorum,
                    member_count=len(self.names) if size is None else size,
                    now=self.time.now,
                )

    def cut(self, *sides: list[str]) -> None:
        self.sides = {name: number for number, side in enumerate(sides) for name in side}

    def post(self, sender: str, messages: Iterable[RateMessage]) -> None:
        for message in messages:
            for receiver in message.to:
                self.sent[message.document] += 1
                if self.sides.get(sender) != self.sides.get(receiver):
                    continue
                if self.rng.random() < self.loss:
                    continue
                due = self.time.now + self.delay_s * self.rng.uniform(0.5, 1.5)
                item = (due, next(self._order), sender, receiver, message.document, message.payload)
                heapq.heappush(self._queue, item)

    def step(self) -> None:
        """Deliver what is due now, and run the timers that are."""
        now = self.time.now
        while self._queue and self._queue[0][0] <= now:
            _, _, sender, receiver, document, payload = heapq.heappop(self._queue)
            limiter = self.limiters.get(receiver)
            if limiter is not None:
                self.post(
                    receiver, limiter.receive_volatile(document, payload, sender=sender, now=now)
                )
        for name, limiter in self.limiters.items():
            deadline = limiter.next_deadline()
            if deadline is not None and deadline <= now:
                self.post(name, limiter.tick(now))
            for ticket in limiter.decided():
                self.count(ticket.cost, ticket.decision)

    def run(
        self,
        seconds: float,
        *,
        rates: Callable[[float], dict[str, float]],
        key: str = "global",
        cost: int = 1,
        step_s: float = 0.001,
        is_poisson: bool = True,
        is_confirmed: bool = False,
    ) -> None:
        """Offer load for a while: requests a second by node, as a function of the time."""
        credit: dict[str, float] = dict.fromkeys(self.names, 0.0)
        for _ in range(round(seconds / step_s)):
            self.time.now = round(self.time.now + step_s, 9)
            self.step()
            now = self.time.now
            second = int(now - self.start_s)
            for name, rate in rates(now - self.start_s).items():
                if name not in self.limiters:
                    continue
                count = self._arrivals(name, rate * step_s, credit, is_poisson)
                for _ in range(count):
                    self.offered[second] += cost
                    limiter = self.limiters[name]
                    if not is_confirmed:
                        self.count(cost, limiter.acquire(key, cost=cost, now=now))
                        continue
                    decision = limiter.ask(key, cost=cost, now=now).decision
                    if decision is not None:
                        self.count(cost, decision)

    def count(self, cost: int, decision: Decision | None) -> None:
        """Count a decision in the second in which it is made, and under its grant's window."""
        assert decision is not None
        if decision.allowed:
            self.admitted[int(self.time.now - self.start_s)] += cost
            self.granted[decision.window] += cost

    def _arrivals(self, name: str, mean: float, credit: dict[str, float], poisson: bool) -> int:
        if not poisson:
            credit[name] += mean
            count = int(credit[name])
            credit[name] -= count
            return count
        count = 0
        left = self.rng.expovariate(1.0)
        while left < mean:
            count += 1
            left += self.rng.expovariate(1.0)
        return count

    def per_second(self) -> list[int]:
        last = int(self.time.now - self.start_s)
        return [self.admitted[second] for second in range(last)]

    def counts(self, key: str = "global") -> list[int]:
        return [
            limiter.stats(key, now=self.time.now).current_count
            for limiter in self.limiters.values()
        ]
