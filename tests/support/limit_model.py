"""What limits are by their definition: one counter for each key, in a few lines of its own."""

from __future__ import annotations

import math
from collections import deque

from attrs import define, field

from meshlib.ratelimit import Algorithm, Limit

__all__ = ["KeyModel", "Waiting"]


@define(eq=False)
class Counter:
    """One limit of one key. Times are seconds since 1970."""

    limit: Limit
    nodes: int = 1
    window: int = -1
    used: int = 0
    debt: int = 0
    level: float = 0.0
    at: float = 0.0
    log: list[tuple[float, int]] = field(factory=list)

    def enter(self, now: float) -> None:
        """Let time go on."""
        limit, capacity = self.limit, self.limit.capacity
        if limit.algorithm is Algorithm.WINDOW:
            window = math.floor(now / limit.period_s + 1e-9)
            for _ in range(min(3, window - self.window)):
                self.used = min(capacity, self.debt)
                self.debt -= self.used
            self.window = window
            return
        if limit.algorithm is Algorithm.GCRA:
            self.level = max(0.0, self.level - (now - self.at) * limit.rate / limit.period_s)
            self.at = now
            self.used = math.ceil(self.level - 1e-6)
        else:
            self.log = [(at, units) for at, units in self.log if at > now - limit.period_s + 1e-6]
            self.used = sum(units for _, units in self.log)

    @property
    def room(self) -> int:
        """What is left."""
        return max(0, self.limit.capacity - self.used)

    def add(self, units: int, now: float) -> None:
        """Count units, or as many fewer as were counted."""
        units = max(units, -self.used)
        self.used += units
        self.level = max(0.0, self.level + units)
        if units > 0:
            self.log.append((now, units))
        while units < 0 and self.log:
            at, newest = self.log.pop()
            if newest > -units:
                self.log.append((at, newest + units))
            units = min(0, units + newest)

    def overuse(self, units: int, now: float) -> None:
        """Count units whether there is room or not; what there is none for is owed."""
        units = min(units, self.limit.capacity)
        most = 2 * self.limit.capacity + self.nodes
        if self.limit.algorithm is not Algorithm.WINDOW:
            self.add(max(0, min(units, self.limit.capacity + most - self.used)), now)
            return
        fits = min(units, self.room)
        self.add(fits, now)
        self.debt = max(self.debt, min(most, self.debt + units - fits))

    def reset(self) -> None:
        """Begin anew."""
        self.used = self.debt = 0
        self.level = 0.0
        self.log = []

    def free_at(self, cost: int, now: float) -> float:
        """Return when a request passes, if nobody else comes; of windows alone."""
        return (math.floor(now / self.limit.period_s + 1e-9) + 1) * self.limit.period_s


@define(eq=False)
class Waiting:
    """Somebody in the line."""

    cost: int
    deadline: float
    is_served: bool | None = None


@define(eq=False)
class KeyModel:
    """All limits of one key, and who waits for it."""

    counters: list[Counter]
    line: deque[Waiting] = field(factory=deque)
    again_at: float = math.inf

    def enter(self, now: float) -> None:
        """Let time go on; those who wait are served when a window begins."""
        while self.line:
            ends = min(waiting.deadline for waiting in self.line)
            due = min(ends, self.again_at)
            if due > now:
                break
            for counter in self.counters:
                counter.enter(due)
            if ends <= due:
                gone = next(waiting for waiting in self.line if waiting.deadline <= due)
                is_first = gone is self.line[0]
                gone.is_served = False
                self.line.remove(gone)
                if not is_first:
                    continue
            self.serve(due)
        for counter in self.counters:
            counter.enter(now)

    def fits(self, cost: int) -> bool:
        """Tell whether a request passes."""
        return all(cost <= counter.room for counter in self.counters)

    def take(self, cost: int, now: float) -> bool:
        """Count a request if it passes."""
        if not self.fits(cost):
            return False
        for counter in self.counters:
            counter.add(cost, now)
        return True

    def wait(self, cost: int, deadline: float, now: float) -> Waiting:
        """Join the line."""
        waiting = Waiting(cost, deadline)
        self.line.append(waiting)
        if len(self.line) == 1:
            self.serve(now)
        return waiting

    def serve(self, now: float) -> None:
        """Let those pass who may, in their order."""
        self.again_at = math.inf
        while self.line:
            first = self.line[0]
            if not self.take(first.cost, now):
                refusing = [c for c in self.counters if first.cost > c.room]
                self.again_at = max(counter.free_at(first.cost, now) for counter in refusing)
                return
            first.is_served = True
            self.line.popleft()

    @property
    def remaining(self) -> int:
        """The least that is left."""
        return min(counter.room for counter in self.counters)
