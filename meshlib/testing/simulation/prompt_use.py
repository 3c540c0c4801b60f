"""Prompts that are placed in a tree with little room: most share a beginning, and old ones go.

Rule: nothing is drawn or sent for these unless the scenario wants them, so that all other
histories are what they are without.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, Protocol

from meshlib.errors import ClockAheadError, NotReadyError
from meshlib.routing import TREE_PREFIX, TreeRemove
from meshlib.testing.checkers.other_writes import OtherWrites
from meshlib.testing.world.hosts import Host

__all__ = ["PROMPTS_MODEL", "PromptUse", "PromptWorld"]

PROMPTS_MODEL: Final = "prompts"
"""The model whose tree it is."""

ROOM: Final = 6_000
"""Characters of that tree: of some ten prompts."""

REFRESH_S: Final = 2.0
WORKERS: Final = ("p0", "p1", "p2")
BEGINNING_CHARACTERS: Final = 700
END_CHARACTERS: Final = (20, 700)
REMOVAL_SHARE: Final = 0.05
ALPHABET: Final = "abc \N{EURO SIGN}\N{GRINNING FACE}"

CALL: Final = 12
"""How it is named in the digest of a run."""


class PromptWorld(Protocol):
    """What is needed of a simulation."""

    @property
    def is_calm(self) -> bool:
        """Whether the faults are over."""
        ...

    def schedule(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Run something at a simulated time."""
        ...

    def running(self) -> list[Host]:
        """Return the machines with a process."""
        ...

    def call(self, host: Host, kind: int, action: Callable[[float], object]) -> None:
        """Let a program do something to its node."""
        ...


class PromptUse:
    """Places prompts as a router does that has chosen a worker.

    Args:
        simulation: where the nodes are.
        rng: what is drawn for it.
        per_s: how many prompts come in a second; 0: none.
        writes: is told of what was placed, for those who look for what nobody wrote.
    """

    def __init__(
        self, simulation: PromptWorld, *, rng: random.Random, per_s: float, writes: OtherWrites
    ) -> None:
        self._simulation = simulation
        self._rng = rng
        self._per_s = per_s
        self._writes = writes
        self._beginnings = [self._text(BEGINNING_CHARACTERS) for _ in range(3)] if per_s else []
        self.placed_count = 0

    def begin(self) -> None:
        """Let the first prompt come, if the scenario wants any."""
        if self._per_s:
            self._simulation.schedule(self._rng.expovariate(self._per_s), self._request)

    def _text(self, size: int) -> str:
        return "".join(self._rng.choices(ALPHABET, k=size))

    def _request(self, now: float) -> None:
        simulation, rng = self._simulation, self._rng
        if simulation.is_calm:
            return
        simulation.schedule(now + rng.expovariate(self._per_s), self._request)
        hosts = [host for host in simulation.running() if host.is_running and not host.is_leaving]
        if not hosts:
            return
        host, tenant, is_removal = rng.choice(hosts), rng.choice(WORKERS), rng.random()
        text = rng.choice(self._beginnings) + self._text(rng.randint(*END_CHARACTERS))
        if is_removal < REMOVAL_SHARE:
            simulation.call(host, CALL, lambda _: self._remove(host, tenant))
        else:
            simulation.call(host, CALL, lambda _: self._place(host, text, tenant))

    def _place(self, host: Host, text: str, tenant: str) -> None:
        if not host.node.is_ready:
            return
        trees = host.node.sync.trees
        self._writes.note_passing_text(TREE_PREFIX + PROMPTS_MODEL, tenant, text)
        trees.place(
            PROMPTS_MODEL,
            text,
            tenant=tenant,
            held=trees.held_by(PROMPTS_MODEL, text, tenant),
            characters_max=ROOM,
            refresh_s=REFRESH_S,
        )
        self.placed_count += 1

    @staticmethod
    def _remove(host: Host, tenant: str) -> None:
        if host.node.is_ready:
            try:
                host.node.sync.trees.apply(PROMPTS_MODEL, TreeRemove(tenant))
            except (ClockAheadError, NotReadyError):
                return  # a user is told so, and comes back
