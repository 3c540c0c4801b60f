"""Limits over production nodes under a virtual clock: what `bench_ratelimit.py` measures in.

Frames, timers and members are those of `gossip_world.py`; limits are given to the nodes directly,
as one rule for all keys, so that no figure has the spreading of a hundred thousand limits in it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from gossip_world import EPOCH_S, World

from meshlib.node import MeshConfig, MeshNode
from meshlib.ratelimit import RateLimitConfig, RateLimiter

__all__ = ["REST_S", "Arrival", "LimitWorld", "one_rule"]

REST_S: Final = 6.0
"""How long a cluster rests before it is measured: its owners have their votes by then."""

Arrival = tuple[float, int, str, int]
"""When after the rest, at which node, which key, how many units."""


def one_rule(limiter: RateLimiter, limit: int) -> None:
    """Let every key of a node have one limit, in units a second."""
    settings: Any = limiter._limits  # noqa: SLF001

    class OneRule:
        def limit(self, _key: str) -> int:
            return limit

        def __getattr__(self, name: str) -> Any:
            return getattr(settings, name)

    rule: Any = OneRule()
    if hasattr(settings, "terms"):
        terms = type(settings.terms("global"))
        rule.terms = lambda _key: terms(limit)
    limiter._limits = rule  # noqa: SLF001


class _Bytes:
    """Frames and their bytes, without looking into them."""

    def __init__(self) -> None:
        self.frames = self.bytes = 0

    def count(self, data: bytes) -> list[bytes]:
        self.frames += 1
        self.bytes += len(data)
        return []


class LimitWorld(World):
    """A cluster whose nodes are asked for units.

    Args:
        count: nodes.
        limit: units a second of every key.
        rate_limit: the limiter's settings.
        loss: share of frames lost once the cluster has rested.
        seed: of all chance.
    """

    def __init__(
        self,
        count: int,
        *,
        limit: int,
        rate_limit: RateLimitConfig | None = None,
        loss: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.rate_limit = rate_limit or RateLimitConfig()
        self.limit = limit
        self.sent = _Bytes()
        self.asking_s = self.other_s = 0.0
        self.decisions = 0
        self.admitted: Counter[tuple[str, int]] = Counter()
        self.granted: Counter[tuple[str, int]] = Counter()
        self.waited_s: list[float] = []
        self._tickets: dict[int, tuple[Any, float]] = {}
        super().__init__(count, seed=seed)
        self.traffic = self.sent  # type: ignore[assignment]
        self.run(REST_S)
        self.loss = loss
        self.begin_s = self.now
        self.reset()

    def _make(self, name: str, address: str, seed: int) -> None:
        node = MeshNode(
            MeshConfig(name=name, address=address, gossip=self.config, rate_limit=self.rate_limit),
            rng=random.Random(f"{seed}/{name}"),
            wall_clock=lambda: EPOCH_S + self.now,
            now=self.now,
        )
        one_rule(node.limiter, self.limit)
        self.nodes[name] = node

    def reset(self) -> None:
        """Measure from here on."""
        self.sent.frames = self.sent.bytes = 0
        self.asking_s = self.other_s = 0.0
        self.decisions = 0

    # What a node does, with the processor time that it takes

    def _timed(self, work: Callable[..., None], *arguments: Any) -> None:
        begin = time.thread_time()
        work(*arguments)
        self.other_s += time.thread_time() - begin

    def _drain(self, name: str) -> None:
        super()._drain(name)
        for ticket in self.nodes[name].limiter.decided():
            entry = self._tickets.pop(id(ticket), None)
            if entry is not None:
                self._note_decision(ticket.key, ticket.cost, ticket.decision)
                self.waited_s.append(self.now - entry[1])

    def _fire(self, name: str, deadline: float) -> None:
        self._timed(super()._fire, name, deadline)

    def _receive(self, target: str, source: str, data: bytes, rounds: int = 0) -> None:
        self._timed(super()._receive, target, source, data, rounds)

    def _note_decision(self, key: str, cost: int, decision: Any) -> None:
        if decision.allowed:
            self.admitted[key, int(self.now - self.begin_s)] += cost
            if decision.window >= 0:
                self.granted[key, decision.window] += cost

    def request(self, name: str, key: str, cost: int, is_confirmed: bool) -> None:
        """Ask for units on a node."""
        limiter = self.nodes[name].limiter
        begin = time.thread_time()
        if is_confirmed:
            ticket = limiter.ask(key, cost=cost, now=self.now)
            decision = ticket.decision
        else:
            ticket, decision = None, limiter.acquire(key, cost=cost, now=self.now)
        self.asking_s += time.thread_time() - begin
        self.decisions += 1
        if decision is not None:
            self._note_decision(key, cost, decision)
            self.waited_s.append(0.0)
        else:
            self._tickets[id(ticket)] = (ticket, self.now)
        deadline = self.nodes[name].next_deadline()
        armed = self._armed.get(name)
        if deadline is not None and (armed is None or deadline < armed):
            self._timed(self._drain, name)

    def offer(self, arrivals: list[Arrival], *, is_confirmed: bool) -> None:
        """Let requests come; their times count from now on."""
        begin = self.now
        for at_s, node, key, cost in arrivals:
            name = self.names[node % len(self.names)]
            self.schedule(begin + at_s, self.request, name, key, cost, is_confirmed)
