"""Any interleaving of all verbs of the limiter equals a model of a few lines, on one node."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.limit_model import Counter, KeyModel, Waiting
from support.limiters import RateCluster
from support.states import WALL_START

from meshlib.ratelimit import Limit, Reservation, Ticket

LIMITS = {
    "minute:*": ["10/minute"],
    "burst:*": ["60/minute; burst=8"],
    "slide:*": ["10/20s; algorithm=sliding"],
    "both:*": ["4/second", "12/10s"],
    "more:*": ["6/10s", "12/minute", "20/hour; burst=16"],
}
SIZES = {"minute": 10, "burst": 8, "slide": 10, "both": 4, "more": 6}
WINDOWED = ("minute:a", "minute:b", "both:a")
KEYS = [f"{kind}:{name}" for kind in SIZES for name in "ab"]

keys = st.sampled_from(KEYS)
costs = st.integers(1, 4)


class OneNode(RuleBasedStateMachine):
    """One limiter, and the model of each key."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = RateCluster(1)
        self.limiter = self.cluster.limiters["node1"]
        for pattern, limits in LIMITS.items():
            self.cluster.settings.set_rule(pattern, pattern=pattern, limits=limits)
        self.models = {
            key: KeyModel(
                [Counter(Limit.parse(text)) for text in LIMITS[f"{key.partition(':')[0]}:*"]]
            )
            for key in KEYS
        }
        self.reserved: list[tuple[Reservation, list[int]]] = []
        self.waiting: list[tuple[Ticket, Waiting]] = []
        self.now = 0.0
        self.enter()

    @property
    def wall(self) -> float:
        return WALL_START + self.now

    def enter(self) -> None:
        self.cluster.time.now = self.now
        for model in self.models.values():
            model.enter(self.wall)

    @rule(quarters=st.sampled_from([1, 2, 3, 4, 8, 40, 100, 241]))
    def time_goes_on(self, quarters: int) -> None:
        """By a quarter of a second up to a minute; timers go off when they are due."""
        until = self.now + quarters / 4
        while self.now < until:
            due_at = self.limiter.next_deadline()
            self.now = until if due_at is None else min(until, max(self.now, due_at))
            self.enter()
            self.limiter.tick(self.now)
            if due_at is None or due_at > until:
                break
        self.now = until
        self.enter()
        self.limiter.tick(self.now)

    @rule(key=keys, cost=costs, is_confirmed=st.booleans())
    def acquire(self, key: str, cost: int, is_confirmed: bool) -> None:
        """By either call: one node is its own owner."""
        if is_confirmed:
            decision = self.limiter.ask(key, cost=cost, now=self.now).decision
        else:
            decision = self.limiter.acquire(key, cost=cost, now=self.now)
        expected = self.models[key].take(cost, self.wall)

        assert decision is not None
        assert expected == decision.allowed
        assert decision.confirmed
        if expected:
            assert self.models[key].remaining == decision.remaining

    @rule(wanted=st.dictionaries(keys, costs, min_size=1, max_size=4), is_confirmed=st.booleans())
    def acquire_many(self, wanted: dict[str, int], is_confirmed: bool) -> None:
        """All of it, or nothing is counted anywhere."""
        if is_confirmed:
            decision = self.limiter.ask_many(wanted, now=self.now).decision
        else:
            decision = self.limiter.acquire_many(wanted, now=self.now)
        expected = all(self.models[key].fits(cost) for key, cost in wanted.items())
        if expected:
            for key, cost in wanted.items():
                self.models[key].take(cost, self.wall)

        assert decision is not None
        assert expected == decision.allowed

    @rule(key=keys, cost=costs)
    def peek(self, key: str, cost: int) -> None:
        """It is what acquiring would do."""
        decisions = [
            self.limiter.peek(key, cost=cost, now=self.now),
            self.limiter.ask_peek(key, cost=cost, now=self.now).decision,
        ]
        for decision in decisions:
            assert decision is not None
            assert self.models[key].fits(cost) == decision.allowed
        longest = max(counter.limit.longest_s for counter in self.models[key].counters)
        assert 0 <= decisions[0].retry_after_s <= longest  # type: ignore[union-attr]

    @rule(key=keys, cost=costs)
    def refund(self, key: str, cost: int) -> None:
        """Never more than was used."""
        self.limiter.refund(key, cost=cost, now=self.now)
        for counter in self.models[key].counters:
            counter.add(-cost, self.wall)

    @rule(key=keys)
    def reset(self, key: str) -> None:
        """Nothing is used or owed."""
        self.limiter.reset(key, now=self.now)
        for counter in self.models[key].counters:
            counter.reset()

    @rule(key=keys, estimate=costs)
    def reserve(self, key: str, estimate: int) -> None:
        """It counts as what it is estimated at."""
        reservation = self.limiter.reserve(key, estimate=estimate, now=self.now)
        model = self.models[key]
        assert model.take(estimate, self.wall) == bool(reservation)
        if reservation:
            self.reserved.append((reservation, [counter.window for counter in model.counters]))

    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), actual=st.integers(0, 30))
    def settle(self, data: Any, actual: int) -> None:
        """Less is given back in the same window, more is counted beyond the limit."""
        place = data.draw(st.integers(0, len(self.reserved) - 1))
        reservation, windows = self.reserved.pop(place)
        self.limiter.settle(reservation, actual=actual, now=self.now)
        unused = reservation.estimate - actual
        for counter, window in zip(self.models[reservation.key].counters, windows, strict=True):
            if unused < 0:
                counter.overuse(-unused, self.wall)
            elif counter.window == window:
                counter.add(-unused, self.wall)

    @rule(key=st.sampled_from(WINDOWED), cost=costs, quarters=st.integers(1, 600))
    def wait(self, key: str, cost: int, quarters: int) -> None:
        """In the line, unless nobody waits and there is room."""
        timeout_s = quarters / 4 + 1 / 16  # no deadline is the beginning of a window
        ticket = self.limiter.wait(key, cost=cost, timeout_s=timeout_s, now=self.now)
        waiting = self.models[key].wait(cost, self.wall + timeout_s, self.wall)
        self.waiting.append((ticket, waiting))

    @precondition(lambda self: any(waiting.is_served is None for _, waiting in self.waiting))
    @rule(data=st.data())
    def withdraw(self, data: Any) -> None:
        """Whoever goes away is not served; those behind move up."""
        there = [(t, w) for t, w in self.waiting if w.is_served is None]
        ticket, waiting = data.draw(st.sampled_from(there))
        self.limiter.withdraw(ticket, now=self.now)
        model = self.models[ticket.key]
        is_first = model.line[0] is waiting
        waiting.is_served = False
        model.line.remove(waiting)
        if is_first:
            model.serve(self.wall)

    @invariant()
    def those_who_wait_are_answered_alike(self) -> None:
        """Served, refused, or waiting still."""
        for ticket, waiting in self.waiting:
            told = None if ticket.decision is None else ticket.decision.allowed
            assert waiting.is_served == told, (ticket, waiting)
        self.waiting = [(t, w) for t, w in self.waiting if w.is_served is None]

    @invariant()
    def what_is_left_is_the_same(self) -> None:
        """Of each key; and the limiter's own invariants hold."""
        self.enter()  # what was given back may repay what is owed
        for key, model in self.models.items():
            assert model.remaining == self.limiter.peek(key, now=self.now).remaining, key
        self.limiter._check()


TestOneNode = OneNode.TestCase
TestOneNode.settings = settings(max_examples=6, stateful_step_count=40, deadline=None)


@pytest.mark.slow
class TestOneNodeAtLength(OneNode.TestCase):  # type: ignore[valid-type, misc]
    """The same, with more of it."""

    settings = settings(max_examples=50, stateful_step_count=50, deadline=None)


CLUSTER_LIMITS = {"minute:*": ["10/minute"], "both:*": ["6/10s", "12/minute"]}
CLUSTER_KEYS = ["minute:a", "minute:b", "both:a", "both:b"]
NODES = ["node1", "node2", "node3"]

cluster_keys = st.sampled_from(CLUSTER_KEYS)
nodes = st.sampled_from(NODES)


class ThreeNodes(RuleBasedStateMachine):
    """Confirmed calls at any of three nodes, one at a time, and nothing is leased in between."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = RateCluster(3)
        for pattern, limits in CLUSTER_LIMITS.items():
            self.cluster.settings.set_rule(pattern, pattern=pattern, limits=limits)
        self.models = {
            key: KeyModel(
                [
                    Counter(Limit.parse(text))
                    for text in CLUSTER_LIMITS[f"{key.partition(':')[0]}:*"]
                ]
            )
            for key in CLUSTER_KEYS
        }
        self.reserved: list[tuple[str, Reservation, list[int]]] = []
        self.let_pass(0.1)

    @property
    def now(self) -> float:
        return self.cluster.time.now

    @property
    def wall(self) -> float:
        return WALL_START + self.now

    def let_pass(self, seconds: float) -> None:
        """Deliver what is under way; each call begins a tenth after a whole half second."""
        until = round(self.now + seconds, 9)
        while self.now < until:
            self.cluster.time.now = min(until, round(self.now + 0.01, 9))
            self.cluster.step()
        for model in self.models.values():
            model.enter(self.wall)

    def answered(self, ticket: Ticket) -> Ticket:
        self.let_pass(0.5)
        assert ticket.decision is not None
        assert ticket.decision.confirmed
        return ticket

    @rule(halves=st.integers(1, 30))
    def time_goes_on(self, halves: int) -> None:
        """Up to a quarter of a minute."""
        self.let_pass(halves / 2)

    @rule(node=nodes, key=cluster_keys, cost=costs)
    def acquire(self, node: str, key: str, cost: int) -> None:
        """Exactly what one counter would decide."""
        expected = self.models[key].take(cost, self.wall)
        ticket = self.answered(self.cluster.limiters[node].ask(key, cost=cost, now=self.now))

        assert expected == bool(ticket.decision)

    @rule(node=nodes, wanted=st.dictionaries(cluster_keys, costs, min_size=2, max_size=3))
    def acquire_many(self, node: str, wanted: dict[str, int]) -> None:
        """All of it, or nothing is counted anywhere."""
        expected = all(self.models[key].fits(cost) for key, cost in wanted.items())
        if expected:
            for key, cost in wanted.items():
                self.models[key].take(cost, self.wall)
        ticket = self.answered(self.cluster.limiters[node].ask_many(wanted, now=self.now))

        assert expected == bool(ticket.decision)

    @rule(node=nodes, key=cluster_keys)
    def peek(self, node: str, key: str) -> None:
        """What is left is what the counter has left."""
        remaining = self.models[key].remaining
        ticket = self.answered(self.cluster.limiters[node].ask_peek(key, now=self.now))

        assert ticket.decision is not None
        assert remaining == ticket.decision.remaining

    @rule(node=nodes, key=cluster_keys, cost=costs)
    def refund(self, node: str, key: str, cost: int) -> None:
        """At any node."""
        for counter in self.models[key].counters:
            counter.add(-cost, self.wall)
        self.cluster.limiters[node].refund(key, cost=cost, now=self.now)
        self.let_pass(0.5)

    @rule(node=nodes, key=cluster_keys, estimate=costs)
    def reserve(self, node: str, key: str, estimate: int) -> None:
        """It counts as what it is estimated at."""
        model = self.models[key]
        windows = [counter.window for counter in model.counters]
        expected = model.take(estimate, self.wall)
        limiter = self.cluster.limiters[node]
        ticket = self.answered(limiter.ask_reservation(key, estimate=estimate, now=self.now))

        assert ticket.reservation is not None
        assert expected == bool(ticket.reservation)
        if expected:
            self.reserved.append((node, ticket.reservation, windows))

    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), actual=st.integers(0, 20))
    def settle(self, data: Any, actual: int) -> None:
        """At the node that reserved it."""
        place = data.draw(st.integers(0, len(self.reserved) - 1))
        node, reservation, windows = self.reserved.pop(place)
        unused = reservation.estimate - actual
        for counter, window in zip(self.models[reservation.key].counters, windows, strict=True):
            counter.nodes = len(NODES)
            if unused < 0:
                counter.overuse(-unused, self.wall)
            elif counter.window == window:
                counter.add(-unused, self.wall)
        self.cluster.limiters[node].settle(reservation, actual=actual, now=self.now)
        self.let_pass(0.5)

    @invariant()
    def the_limiters_are_sound(self) -> None:
        """By their own invariants."""
        for limiter in self.cluster.limiters.values():
            limiter._check()


TestThreeNodes = ThreeNodes.TestCase
TestThreeNodes.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)


@pytest.mark.slow
class TestThreeNodesAtLength(ThreeNodes.TestCase):  # type: ignore[valid-type, misc]
    """The same, with more of it."""

    settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
