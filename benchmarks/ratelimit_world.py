"""Limits over production nodes under a virtual clock: what `bench_ratelimit.py` measures in.

Frames, timers and members are those of `gossip_world.py`, but that all join by one node. One rule
gives the keys of all users their limit.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from gossip_world import EPOCH_S, World

from meshlib.node import MeshConfig, MeshNode
from meshlib.ratelimit import LimitSettings, RateLimitConfig
from meshlib.state import Limit

__all__ = ["REST_S", "Arrival", "LimitWorld", "one_rule"]

REST_S: Final = 6.0
"""How long a cluster rests before it is measured: its owners have their votes by then."""

Arrival = tuple[float, int, str, int]
"""When after the rest, at which node, which key, how many units."""


def one_rule(limits: LimitSettings, limit: int) -> None:
    """Let every key of a user have one limit, in units a second, and the key `one` too."""
    limits.set_rule("users", pattern="user:*", limits=Limit(limit))
    limits.set("one", limit)


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
        skews_s: by how much each node's wall clock is ahead; none unless given.
        seed: of all chance.
    """

    def __init__(
        self,
        count: int,
        *,
        limit: int,
        rate_limit: RateLimitConfig | None = None,
        loss: float = 0.0,
        skews_s: Sequence[float] = (),
        seed: int = 1,
    ) -> None:
        self._skews_s = skews_s
        self.rate_limit = rate_limit or RateLimitConfig()
        self.limit = limit
        self.sent = _Bytes()
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
        place = len(self.nodes)
        ahead_s = self._skews_s[place] if self._skews_s else 0.0
        node = MeshNode(
            MeshConfig(name=name, address=address, gossip=self.config, rate_limit=self.rate_limit),
            rng=random.Random(f"{seed}/{name}"),
            wall_clock=lambda: EPOCH_S + ahead_s + self.now,
            now=self.now,
        )
        self.nodes[name] = node

    def _let_in(self) -> None:
        """Have all join by the first, which begins alone: who is not ready owns no key."""
        first, *others = self.nodes
        self.nodes[first].join((), now=self.now)
        for name in others:
            self.nodes[name].join((self.nodes[first].address,), now=self.now)
        one_rule(self.nodes[first].sync.limits, self.limit)
        for name in self.nodes:
            self._drain(name)

    def add(self, name: str, address: str) -> None:
        """Let another node join by the first."""
        self._make(name, address, seed=1)
        self.names.append(name)
        self.by_address[address] = name
        self.nodes[name].join((self.nodes[self.names[0]].address,), now=self.now)
        self.drain(name)

    def drain(self, name: str) -> None:
        """Send what waits at a node."""
        self._drain(name)

    def reset(self) -> None:
        """Measure from here on."""
        self.sent.frames = self.sent.bytes = 0
        self.decisions = 0

    # What a node does

    def measure(self, duration_s: float) -> float:
        """Let time pass; return the processor time that it took, with that of this world."""
        self.reset()
        begin = time.process_time()
        self.run(duration_s)
        return time.process_time() - begin

    def _drain(self, name: str) -> None:
        super()._drain(name)
        for ticket in self.nodes[name].limiter.decided():
            entry = self._tickets.pop(id(ticket), None)
            if entry is not None:
                self._note_decision(ticket.key, ticket.cost, ticket.decision)
                self.waited_s.append(self.now - entry[1])

    def _note_decision(self, key: str, cost: int, decision: Any) -> None:
        if decision.allowed:
            self.admitted[key, int(self.now - self.begin_s)] += cost
            if decision.window >= 0:
                self.granted[key, decision.window] += cost

    def request(self, name: str, key: str, cost: int, is_confirmed: bool) -> None:
        """Ask for units on a node."""
        limiter = self.nodes[name].limiter
        if is_confirmed:
            ticket = limiter.ask(key, cost=cost, now=self.now)
            decision = ticket.decision
        else:
            ticket, decision = None, limiter.acquire(key, cost=cost, now=self.now)
        self.decisions += 1
        if decision is not None:
            self._note_decision(key, cost, decision)
            self.waited_s.append(0.0)
        else:
            self._tickets[id(ticket)] = (ticket, self.now)
        deadline = self.nodes[name].next_deadline()
        armed = self._armed.get(name)
        if deadline is not None and (armed is None or deadline < armed):
            self._drain(name)

    def offer(self, arrivals: list[Arrival], *, is_confirmed: bool) -> None:
        """Let requests come; their times count from now on."""
        begin = self.now
        for at_s, node, key, cost in arrivals:
            name = self.names[node % len(self.names)]
            self.schedule(begin + at_s, self.request, name, key, cost, is_confirmed)
