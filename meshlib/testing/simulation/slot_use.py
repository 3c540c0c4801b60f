"""Requests that want slots, some wait for them, and take their time.

Rule: nothing is drawn or sent for these unless the scenario wants them, so that all other
histories are what they are without.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, Protocol

from meshlib.ratelimit import ConcurrencySlot, SlotTicket
from meshlib.testing.checkers.meetings import Meetings
from meshlib.testing.checkers.slots import SlotLedger
from meshlib.testing.world.hosts import Host

__all__ = ["SLOTS", "SlotUse", "SlotWorld"]

SLOTS: Final = {"one": 1, "few": 3, "many": 8}
"""Keys, and how many slots each has."""

WAITS_S: Final = (0.0, 0.0, 0.2, 2.0)
LASTS_S: Final = (0.001, 0.05, 0.3, 1.0, 4.0)

CALL: Final = 11
"""How it is named in the digest of a run."""


class SlotWorld(Protocol):
    """What is needed of a simulation."""

    @property
    def now(self) -> float:
        """Simulated seconds."""
        ...

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


class SlotUse:
    """Asks for slots and gives them back, and has the ledger look after each.

    Args:
        simulation: where the nodes are.
        rng: what is drawn for it.
        per_s: how many requests come in a second; 0: none.
        meetings: who has met whom.
    """

    def __init__(
        self, simulation: SlotWorld, *, rng: random.Random, per_s: float, meetings: Meetings
    ) -> None:
        self._simulation = simulation
        self._rng = rng
        self._per_s = per_s
        self.ledger = SlotLedger(meetings)

    def begin(self) -> None:
        """Let the first request come, if the scenario wants any."""
        if self._per_s:
            self._simulation.schedule(self._rng.expovariate(self._per_s), self._request)

    def _request(self, now: float) -> None:
        simulation, rng = self._simulation, self._rng
        if simulation.is_calm:
            return
        simulation.schedule(now + rng.expovariate(self._per_s), self._request)
        hosts = [host for host in simulation.running() if host.is_running and not host.is_leaving]
        if not hosts:
            return
        host, key, wait_s = rng.choice(hosts), rng.choice(list(SLOTS)), rng.choice(WAITS_S)

        def ask(local: float) -> None:
            if host.node.is_ready:
                limit = SLOTS[key]
                ticket = host.node.limiter.ask_slot(key, limit=limit, wait_s=wait_s, now=local)
                if ticket.decision is not None:
                    self.decided(host, ticket)

        self._do(host, ask)

    def _do(self, host: Host, action: Callable[[float], None]) -> None:
        self._simulation.call(host, CALL, action)

    def decided(self, host: Host, ticket: SlotTicket) -> None:
        """Begin the request that has got a slot, if it has.

        Raises:
            Broken: this was one too many.
        """
        simulation, now = self._simulation, self._simulation.now
        self.ledger.decided(host, ticket)
        if ticket.slot is None:
            return
        ends_at = now + self._rng.choice(LASTS_S)
        simulation.schedule(ends_at, self._end, host, host.start_count, ticket.slot)
        hosts = simulation.running()
        self.ledger.look(hosts, key=ticket.key, limit=SLOTS[ticket.key], now=now)

    def _end(self, now: float, host: Host, start_count: int, slot: ConcurrencySlot) -> None:
        if host.node is None or host.start_count != start_count:
            return  # it ended with its process
        if not host.is_running:  # the process is stopped, and the request with it
            self._simulation.schedule(now + 0.5, self._end, host, start_count, slot)
            return

        def release(local: float) -> None:
            self.ledger.ended(host, slot)
            host.node.limiter.release_slot(slot, now=local)

        self._do(host, release)
