"""A rolling restart under three times the limit: what each second admits, and what is lost.

Three production nodes under a virtual clock, asked for three times 300 units a second by confirmed
calls. One after the other drains, hands over, leaves, stays away for a second and starts anew; the
next one follows once it is ready. Whoever asks goes to a node that is ready.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from gossip_world import EPOCH_S
from ratelimit_world import LimitWorld

from meshlib.node import MeshConfig, MeshNode

__all__ = ["roll_rows"]

LIMIT: Final = 300
TIMES: Final = 3
AWAY_S: Final = 1.0
PAUSE_S: Final = 2.0
LOOK_S: Final = 0.05
HANDOVER_S: Final = 2.0
MEANWHILE: Final = (0, 2, 1)
"""In which order the nodes restart: the one that all were told of is neither first nor last."""


class RollingWorld(LimitWorld):
    """Nodes that start again; requests come evenly, and go to nodes that are ready."""

    def __init__(self, *, seed: int) -> None:
        self._starts: Counter[str] = Counter()
        super().__init__(3, limit=LIMIT, seed=seed)
        self.windows: Counter[int] = Counter()
        self._chance = random.Random(f"{seed}/requests")

    def _note_decision(self, key: str, cost: int, decision: Any) -> None:
        super()._note_decision(key, cost, decision)
        if decision.allowed:
            self.windows[int(EPOCH_S + self.now)] += cost

    def restart(self, name: str) -> None:
        """Let a node drain and leave, stay away, and start as a new one."""
        node = self.nodes[name]
        node.drain(now=self.now)
        self._drain(name)
        self._wait_for(lambda: node.has_handed_over, HANDOVER_S)
        node.leave(now=self.now)
        self._drain(name)
        self.dead.add(name)
        self._armed.pop(name, None)
        self.run(AWAY_S)
        self._starts[name] += 1
        others = [self.nodes[other].address for other in self.names if other != name]
        self.nodes[name] = again = MeshNode(
            MeshConfig(name=name, address=node.address, gossip=self.config),
            rng=random.Random(f"{name}/{self._starts[name]}"),
            wall_clock=lambda: EPOCH_S + self.now,
            now=self.now,
        )
        self.dead.discard(name)
        again.join(others, now=self.now)
        self._drain(name)
        self._wait_for(lambda: again.is_ready, 10.0)
        self.run(PAUSE_S)

    def _wait_for(self, condition: Any, limit_s: float) -> None:
        for _ in range(round(limit_s / LOOK_S)):
            if condition():
                return
            self.run(LOOK_S)

    def keep_asking(self) -> None:
        """Ask for one unit, and again a moment later, for ever."""
        ready = [name for name in self.live() if self.nodes[name].state == "ready"]
        if ready:
            self.request(self._chance.choice(ready), "one", 1, is_confirmed=True)
        after_s = self._chance.expovariate(LIMIT * TIMES)
        self.schedule(self.now + after_s, self.keep_asking)


def roll_rows(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Restart all three nodes in turn, and count what was admitted in each second."""
    for seed in range(1, 2 if is_quick else 4):
        world = RollingWorld(seed=seed)
        world.keep_asking()
        world.run(2.0)
        for place in MEANWHILE:
            world.restart(world.names[place])
        seconds = sorted(world.windows)[1:]  # the first and the last are not whole
        seconds = list(range(seconds[0], seconds[-1]))
        by_second = [world.windows[second] for second in seconds]
        granted = max(world.granted.values())
        yield {
            "seed": seed,
            "seconds": len(seconds),
            "most_in_a_second": max(by_second),
            "most_in_a_window": granted,
            "least_in_a_second": min(by_second),
            "admitted": sum(by_second),
            "lost_%": round(100 * (1 - sum(by_second) / (LIMIT * len(seconds))), 1),
        }
