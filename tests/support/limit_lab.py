"""A cluster of limiters under every fault at once, and the law that none of them may break.

Machines have disks: what a node kept for owners of long windows is there when it starts again. What
a seed cannot show: a machine that is a cluster of its own is never restarted, for nobody else holds
its counts of a second, and those are not stored.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from typing import Any, Self

from meshlib.clock import HybridClock
from meshlib.identity import actor_id
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.limiter import RateLimiter
from meshlib.ratelimit.settings import LimitSettings
from meshlib.replication import Replica
from meshlib.state import Limit
from meshlib.state.documents import Documents
from meshlib.state.stores import AppStore

__all__ = ["LawBrokenError", "LimitLab", "QuietLab", "StrictLab"]

EPOCH_S = 1_700_000_000.0
KEYS = {"one": 1, "five": 5, "many": 60, "long": 40}
PERIOD_S = 5
"""The length of the windows of `long`; those of the others last a second."""


class LawBrokenError(AssertionError):
    """More was granted of a key in a window than its limit."""


def make_settings() -> LimitSettings:
    actor = actor_id("settings", 1)
    replica = Replica(actor=actor, clock=HybridClock(actor, wall_clock=lambda: EPOCH_S))
    return LimitSettings(AppStore(Documents(replica)))


class Machine:
    """One machine: clocks that are wrong, and a process that comes and goes."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.origin_s = rng.uniform(0, 1000)
        self.rate = rng.choice((1.0, 1.0, 0.98, 1.02))
        self.wall_offset_s = rng.choice((0.0, 0.0, rng.uniform(-1, 1)))
        self.incarnation = 0
        self.limiter: RateLimiter | None = None
        self.disk: list[bytes] = []
        self.known: set[str] = set()
        self.side = 0
        self.armed_at: float | None = None


class LimitLab:
    """Machines, links and clocks; a seed draws what goes wrong with them.

    Membership is played: whoever comes, goes or is cut off is noticed by each of the others after
    a time of its own, so that views differ for a while. A side of at most half of the machines
    has no majority.
    """

    def __init__(
        self, seed: int, *, duration_s: float = 12.0, count: int | None = None, faults: bool = True
    ) -> None:
        self.rng = rng = random.Random(seed)
        self.now = 0.0
        self.duration_s = duration_s
        self.settings = make_settings()
        for key, limit in KEYS.items():
            if key != "long":
                self.settings.set(key, limit)
        self.settings.set_rule("long", pattern="long", limits=Limit(KEYS["long"], per=PERIOD_S))
        names = [f"m{number}" for number in range(count or rng.choice((1, 2, 3, 3, 4, 5, 7)))]
        self.machines = {name: Machine(name, rng) for name in names}
        self.loss = rng.choice((0.0, 0.05, 0.25)) if faults else 0.0
        self.delay_s = rng.choice((0.0005, 0.005, 0.05)) if faults else 0.0005
        self.repeats = rng.choice((0.0, 0.2)) if faults else 0.0
        self.late = rng.choice((0.0, 0.05)) if faults else 0.0
        self.granted: Counter[tuple[str, int]] = Counter()
        self.unconfirmed: Counter[str] = Counter()
        self.answered = self.asked = 0
        self._heap: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._order = itertools.count()
        for name in names:
            self.at(rng.uniform(0, 0.3), self.start, name)
        if faults:
            kinds = rng.sample(FAULTS, rng.randint(1, len(FAULTS)))
            for _ in range(rng.randint(2, 10)):
                fault = getattr(self, rng.choice(kinds))
                self.at(rng.uniform(1.5, duration_s - 1), fault, rng.choice(names))
        time = 0.5
        rate = rng.choice((20, 100, 300))
        while time < duration_s:
            time += rng.expovariate(rate)
            count = rng.choice((1, 1, 1, 1, 12))
            self.at(time, self.request, rng.choice(names), rng.choice(list(KEYS)), count)

    # Events

    def at(self, time: float, call: Any, *arguments: Any) -> None:
        heapq.heappush(self._heap, (time, next(self._order), call, arguments))

    def run(self) -> Self:
        while self._heap and self._heap[0][0] < self.duration_s + 1.0:
            self.now, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)
        return self

    def local(self, machine: Machine) -> float:
        return machine.origin_s + self.now * machine.rate

    def wall(self, machine: Machine) -> float:
        return EPOCH_S + self.now + machine.wall_offset_s

    # Faults

    def start(self, name: str) -> None:
        machine = self.machines[name]
        if machine.limiter is not None:
            return
        machine.incarnation += 1
        machine.limiter = RateLimiter(
            name,
            actor=actor_id(name, machine.incarnation),
            limits=self.settings,
            wall_clock=lambda: self.wall(machine),
            config=RateLimitConfig(partition_mode="static"),
            now=self.local(machine),
        )
        for page in machine.disk:
            machine.limiter.keeper.restore(page, second=int(self.wall(machine)))
        machine.known = set()
        self.tell(name, list(self.machines))
        for other in self.machines.values():
            self.at(self.now + self.rng.uniform(0, 0.3), self.notice, other.name, name)

    def kill(self, name: str) -> None:
        machine = self.machines[name]
        if len(self.machines) == 1:
            return  # nobody else keeps its counts
        if machine.limiter is not None:
            machine.disk = list(machine.limiter.keeper.pages())
        machine.limiter = None
        for other in self.machines:
            self.at(self.now + self.rng.uniform(0.2, 3.0), self.notice, other, name)
        if self.rng.random() < 0.8:
            self.at(self.now + self.rng.choice((0.01, 0.5, 3.0)), self.start, name)

    def leave(self, name: str) -> None:
        machine = self.machines[name]
        if machine.limiter is not None and len(self.machines) > 1:
            self.post(name, machine.limiter.leave(now=self.local(machine)))
            self.at(self.now + self.rng.uniform(0, 0.5), self.kill, name)
            for other in self.machines:
                self.at(self.now + self.rng.uniform(0, 0.2), self.notice_left, other, name)

    def cut(self, name: str) -> None:
        for machine in self.machines.values():
            machine.side = self.rng.randint(0, 1)
        self.at(self.now + self.rng.uniform(0.1, 5.0), self.heal, name)
        self.notice_all(0.05, 3.0)

    def heal(self, _name: str) -> None:
        for machine in self.machines.values():
            machine.side = 0
        self.notice_all(0.0, 1.0)

    def jump(self, name: str) -> None:
        self.machines[name].wall_offset_s = self.rng.choice((-1.0, 1.0, -0.3, 0.4, -3600.0, 30.0))

    def flap(self, name: str) -> None:
        """One view leaves a machine out for a moment, for no reason."""
        watcher = self.rng.choice(list(self.machines))
        machine = self.machines[watcher]
        if machine.limiter is not None and watcher != name:
            machine.known.discard(name)
            self.tell_view(machine)
            self.at(self.now + self.rng.uniform(0.01, 1.0), self.notice, watcher, name)

    # Membership, played

    def notice_all(self, least_s: float, most_s: float) -> None:
        for watcher in self.machines:
            for name in self.machines:
                self.at(self.now + self.rng.uniform(least_s, most_s), self.notice, watcher, name)

    def notice(self, watcher: str, name: str) -> None:
        """Let one machine see of another what is so now."""
        machine, other = self.machines[watcher], self.machines[name]
        if machine.limiter is None or watcher == name:
            return
        is_there = other.limiter is not None and other.side == machine.side
        (machine.known.add if is_there else machine.known.discard)(name)
        self.tell_view(machine)

    def notice_left(self, watcher: str, name: str) -> None:
        machine = self.machines[watcher]
        if machine.limiter is not None and watcher != name:
            machine.known.discard(name)
            self.tell_view(machine)

    def tell(self, watcher: str, names: list[str]) -> None:
        for name in names:
            self.notice(watcher, name)
        self.tell_view(self.machines[watcher])

    def tell_view(self, machine: Machine) -> None:
        assert machine.limiter is not None
        total = len(self.machines)
        machine.limiter.update_members(
            machine.known,
            has_quorum=2 * (len(machine.known) + 1) > total,
            member_count=total,
            now=self.local(machine),
        )
        self.drive(machine)

    # Frames

    def post(self, sender: str, messages: Any) -> None:
        rng = self.rng
        for message in messages:
            for receiver in message.to:
                if rng.random() < self.loss:
                    continue
                for _ in range(1 + (rng.random() < self.repeats)):
                    delay_s = self.delay_s * rng.uniform(0.5, 1.5)
                    if rng.random() < self.late:
                        delay_s += rng.uniform(0.1, 3.0)
                    place = (sender, self.machines[sender].side)
                    body = (receiver, message.document, message.payload)
                    self.at(self.now + delay_s, self.arrive, *place, *body)

    def arrive(self, sender: str, side: int, receiver: str, document: str, payload: bytes) -> None:
        machine = self.machines[receiver]
        if machine.limiter is None or machine.side != side:
            return
        answers = machine.limiter.receive_volatile(
            document, payload, sender=sender, now=self.local(machine)
        )
        self.post(receiver, answers)
        self.drive(machine)

    def drive(self, machine: Machine) -> None:
        """Do what is due on a machine, take what was decided, and set its timer."""
        limiter = machine.limiter
        if limiter is None:
            return
        for _ in range(100):
            deadline = limiter.next_deadline()
            if deadline is None or deadline > self.local(machine):
                break
            self.post(machine.name, limiter.tick(self.local(machine)))
        else:
            raise AssertionError("a storm of timers")
        for ticket in limiter.decided():
            self.take(machine, ticket)
        limiter._check()
        if deadline is not None:
            at = max(self.now + 1e-6, (deadline - machine.origin_s) / machine.rate + 1e-7)
            if machine.armed_at is None or at < machine.armed_at or machine.armed_at <= self.now:
                machine.armed_at = at
                self.at(at, self.wake, machine.name, machine.incarnation)

    def take(self, _machine: Machine, ticket: Any) -> None:
        """Count what was decided after `ask` had returned."""
        self.answered += 1
        self.count(ticket.key.partition("\0")[0], ticket.cost, ticket.decision)

    def wake(self, name: str, incarnation: int) -> None:
        machine = self.machines[name]
        machine.armed_at = None
        if machine.incarnation == incarnation:
            self.drive(machine)

    # Requests

    def request(self, name: str, key: str, count: int) -> None:
        machine = self.machines[name]
        for _ in range(count):
            limiter = machine.limiter
            if limiter is None:
                return
            now = self.local(machine)
            cost = self.rng.randint(1, min(4, KEYS[key]))
            if self.rng.random() < 0.3:
                self.count(key, cost, limiter.acquire(key, cost=cost, now=now))
            else:
                self.asked += 1
                ticket = limiter.ask(key, cost=cost, timeout_s=0.5, now=now)
                if ticket.decision is not None:
                    self.answered += 1
                    self.count(key, cost, ticket.decision)
            self.drive(machine)

    def count(self, key: str, cost: int, decision: Any) -> None:
        if not decision.allowed:
            return
        if decision.window < 0:
            self.unconfirmed[key] += cost
            return
        self.granted[key, decision.window] += cost
        if self.granted[key, decision.window] > KEYS[key]:
            raise LawBrokenError(
                f"{self.granted[key, decision.window]} of {KEYS[key]} in window "
                f"{decision.window} of {key!r} at {self.now:.3f} s"
            )


FAULTS = ("kill", "leave", "cut", "jump", "flap")


class QuietLab(LimitLab):
    """Machines without faults or drawn requests: what a test offers is all that comes."""

    def __init__(self, count: int, *, limit: int, loss: float = 0.0, seed: int = 1) -> None:
        self.admitted: Counter[int] = Counter()
        self.refused = 0
        self.limit = limit
        super().__init__(seed, duration_s=0.5, count=count, faults=False)
        self.loss = loss
        self.settings.set("many", limit)
        for machine in self.machines.values():
            machine.rate, machine.wall_offset_s = 1.0, 0.0

    def run_for(self, seconds: float) -> None:
        self.duration_s = self.now + seconds - 1.0
        end = self.now + seconds
        self.run()
        self.now = end

    def offer(self, time: float, name: str, *, cost: int = 1, is_waiting: bool = True) -> None:
        self.at(time, self.offered, name, cost, is_waiting)

    def offered(self, name: str, cost: int, is_waiting: bool) -> None:
        machine = self.machines[name]
        limiter = machine.limiter
        assert limiter is not None
        now = self.local(machine)
        if is_waiting:
            decision = limiter.ask("many", cost=cost, timeout_s=0.5, now=now).decision
        else:
            decision = limiter.acquire("many", cost=cost, now=now)
        if decision is not None:
            self.count("many", cost, decision)
        self.drive(machine)

    def count(self, key: str, cost: int, decision: Any) -> None:
        if decision.allowed:
            self.admitted[int(self.now)] += cost
        else:
            self.refused += 1


class StrictLab(QuietLab):
    """A quiet lab that holds what is offered to the law."""

    def count(self, key: str, cost: int, decision: Any) -> None:
        LimitLab.count(self, key, cost, decision)
