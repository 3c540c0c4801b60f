"""Slots under every fault at once: `LimitLab` with requests that take their time."""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import Any

from meshlib.ratelimit import ConcurrencySlot, SlotTicket
from support.limit_lab import LawBrokenError, LimitLab, Machine

__all__ = ["QuietSlotLab", "SlotLab"]

SLOTS = {"one": 1, "few": 3, "lots": 12}


class SlotLab(LimitLab):
    """Draws requests for slots in the place of units.

    The law: of all slots that were given out under an owner's lease, and whose lease has been
    renewed ever since, there are never more than the limit.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        self.slots: dict[tuple[str, int], list[ConcurrencySlot]] = defaultdict(list)
        self.confirmed = self.refused = 0
        self.most: dict[str, int] = defaultdict(int)
        super().__init__(seed, **settings)

    def request(self, name: str, _key: str, count: int) -> None:
        """Ask for slots of one key."""
        for _ in range(count):
            self.ask(name, self.rng.choice(list(SLOTS)), self.rng.choice((0.0, 0.0, 0.2, 2.0)))

    def ask(self, name: str, key: str, wait_s: float) -> None:
        """Ask for one slot on one machine."""
        machine = self.machines[name]
        if machine.limiter is None:
            return
        self.asked += 1
        now = self.local(machine)
        ticket = machine.limiter.ask_slot(key, limit=SLOTS[key], wait_s=wait_s, now=now)
        if ticket.decision is not None:
            self.take(machine, ticket)
        self.drive(machine)

    def take(self, machine: Machine, ticket: Any) -> None:
        """Begin the request that got a slot, and end it some time later."""
        assert isinstance(ticket, SlotTicket)
        assert ticket.decision is not None
        self.answered += 1
        if ticket.slot is None:
            assert not ticket.decision
            self.refused += 1
            return
        place = machine.name, machine.incarnation
        self.slots[place].append(ticket.slot)
        self.confirmed += ticket.decision.confirmed
        lasts_s = self.rng.choice((0.001, 0.05, 0.3, 0.3, 4.0))
        self.at(self.now + lasts_s, self.end, *place, ticket.slot)
        self.look(ticket.key)

    def end(self, name: str, incarnation: int, slot: ConcurrencySlot) -> None:
        """End a request, if its process is still there."""
        machine = self.machines[name]
        self.slots[name, incarnation].remove(slot)
        if machine.limiter is not None and machine.incarnation == incarnation:
            machine.limiter.release_slot(slot, now=self.local(machine))
            self.drive(machine)

    def vouched(self, key: str) -> int:
        """Return how many slots of a key are used under leases that have not ended."""
        count = 0
        for machine in self.machines.values():
            held = None if machine.limiter is None else machine.limiter.held_slots(key)
            if held is None or self.local(machine) >= held.lease_until:
                continue
            slots = self.slots[machine.name, machine.incarnation]
            count += sum(slot.key == key and slot.lapse == held.lapse for slot in slots)
        return count

    def look(self, key: str) -> None:
        """Compare what is used with the law."""
        count = self.vouched(key)
        self.most[key] = max(self.most[key], count)
        if count > SLOTS[key]:
            raise LawBrokenError(f"{count} of {SLOTS[key]} slots of {key!r} at {self.now:.3f} s")


class QuietSlotLab(SlotLab):
    """Machines without faults or drawn requests: what a test asks for is all that comes."""

    def __init__(self, count: int) -> None:
        self.tickets: list[SlotTicket] = []
        super().__init__(1, duration_s=0.5, count=count, faults=False)
        self._heap = [item for item in self._heap if item[2] != self.request]
        heapq.heapify(self._heap)
        for machine in self.machines.values():
            machine.rate, machine.wall_offset_s = 1.0, 0.0
        self.run_for(6.0)
        for key in SLOTS:  # an owner that begins grants nothing for a while
            self.ask("m0", key, 0.0)
        self.run_for(4.0)
        for ticket in self.tickets:
            assert ticket.slot is not None
            self.end("m0", 1, ticket.slot)
        self.tickets.clear()
        self.run_for(1.0)

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, call, arguments = heapq.heappop(self._heap)
            call(*arguments)
        self.now = end

    def take(self, machine: Machine, ticket: Any) -> None:
        """Keep what was decided: the test says when a request ends."""
        self.tickets.append(ticket)
        if ticket.slot is not None:
            self.slots[machine.name, machine.incarnation].append(ticket.slot)
        self.look(ticket.key)

    def ask_for(self, name: str, key: str, *, wait_s: float = 0.0) -> SlotTicket:
        """Ask for one slot, and let the answer come."""
        count = len(self.tickets)
        self.ask(name, key, wait_s)
        self.run_for(0.05)
        assert wait_s or len(self.tickets) == count + 1
        return self.tickets[-1]

    def owner(self, key: str) -> str:
        """Return the machine that owns a key."""
        views = [m.limiter.diagnostics()["view"] for m in self.machines.values() if m.limiter]
        [name] = {view.owner(key) for view in views}
        return str(name)

    def others(self, key: str) -> list[str]:
        """Return the machines that do not own a key."""
        return [name for name in self.machines if name != self.owner(key)]
