"""The simulated network: what becomes of each packet on its way.

Rule: all chance of the network comes from one generator, in the order in which packets are
sent; nothing else may draw from it, or two runs of one seed would differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from attrs import define, frozen

from meshlib.testing.world.scenario import NetworkFaults

__all__ = ["Cut", "LinkState", "SimulatedNetwork"]

Schedule = Callable[..., None]

REPLAY_S: Final = (1.0, 40.0)
"""How much later a packet arrives that is replayed."""

FRAME_OVERHEAD_BYTES: Final = 54
"""Ethernet, IP and TCP headers, for bandwidth."""

BUSY_BYTES: Final = 16_384
"""A link with more than this on it is busy; with less than half it is free again."""

BACKLOG_BYTES_MAX: Final = 65_536
"""What a link holds; what comes on top is lost."""

REFUSAL_PAUSE_S: Final = 0.2
"""A transport that was refused does not dial again, and so does not tell again, sooner."""


@frozen(eq=False)
class Cut:
    """One direction in which nothing passes while it is in force.

    Args:
        sources: addresses whose packets are stopped.
        destinations: addresses that they do not reach.
    """

    sources: frozenset[str]
    destinations: frozenset[str]


@define(slots=True)
class LinkState:
    """One direction between two addresses."""

    last_arrival: float = 0.0
    free_at: float = 0.0
    refused_at: float = -1.0
    clogged_until: float = 0.0
    is_busy: bool = False
    is_open: bool = False


class SimulatedNetwork:
    """Carries packets between addresses, late, twice, damaged or not at all.

    Args:
        faults: what happens to packets.
        rng: all chance of the network.
        schedule: `schedule(at_s, action, *arguments)` runs `action(now, *arguments)` then.
        deliver: `deliver(now, address, data, sender)`; False when nothing listens there.
        refused: `refused(now, sender, address)`: tells a sender so.
        busy: `busy(now, sender, address, is_busy)`: tells that a link fills, or is free.
    """

    def __init__(
        self,
        faults: NetworkFaults,
        *,
        rng: random.Random,
        schedule: Schedule,
        deliver: Callable[[float, str, bytes, str], bool],
        refused: Callable[[float, str, str], None],
        busy: Callable[[float, str, str, bool], None],
    ) -> None:
        self.faults = faults
        self.rng = rng
        self.packets_sent = 0
        self.packets_lost = 0
        self.bytes_sent = 0
        self.packets_damaged = 0
        self.packets_replayed = 0
        self._schedule = schedule
        self._deliver = deliver
        self._refused = refused
        self._busy = busy
        self._cuts: list[Cut] = []
        self._squeezed: dict[str, float] = {}
        self._links: dict[tuple[str, str], LinkState] = {}
        self._addresses: list[str] = []

    # Faults that last

    @property
    def is_cut(self) -> bool:
        """Whether any link is cut now."""
        return bool(self._cuts)

    def cut(self, sources: frozenset[str], destinations: frozenset[str]) -> Cut:
        """Stop everything from some addresses to others; return what `heal` takes."""
        cut = Cut(sources, destinations)
        self._cuts.append(cut)
        return cut

    def heal(self, cut: Cut) -> None:
        """End a cut; one that has ended already is ignored."""
        if cut in self._cuts:
            self._cuts.remove(cut)

    def clog(self, source: str, destination: str, until: float) -> None:
        """Hold back what is sent on a link until a time; then all of it arrives at once."""
        link = self._link(source, destination)
        link.clogged_until = max(link.clogged_until, until)

    def squeeze(self, address: str, bytes_per_s: float | None) -> None:
        """Let an address send only so much on each link; None lifts it."""
        if bytes_per_s is None:
            self._squeezed.pop(address, None)
        else:
            self._squeezed[address] = bytes_per_s

    def calm(self, now: float) -> None:
        """End every fault that lasts; what is under way still arrives, but for replays."""
        self.faults = NetworkFaults(tells_refusals=self.faults.tells_refusals)
        self._cuts.clear()
        self._squeezed.clear()
        for (source, destination), link in self._links.items():
            link.clogged_until = 0.0
            if link.is_busy:
                link.free_at = now
                self._schedule(now, self._look_whether_free, source, destination)

    def add_address(self, address: str) -> None:
        """Make an address known as one where packets may be misdelivered."""
        if address not in self._addresses:
            self._addresses.append(address)

    def close_links(self, address: str) -> list[str]:
        """Break every link to an address; return who had one, in order."""
        senders = []
        for (source, destination), link in self._links.items():
            if destination == address and link.is_open:
                link.is_open = False
                senders.append(source)
            elif source == address:
                link.is_open = link.is_busy = False
        return senders

    # Packets

    def _link(self, source: str, destination: str) -> LinkState:
        link = self._links.get((source, destination))
        if link is None:
            link = self._links[source, destination] = LinkState()
        return link

    def _is_stopped(self, source: str, destination: str) -> bool:
        return any(source in cut.sources and destination in cut.destinations for cut in self._cuts)

    def send(self, source: str, destination: str, data: bytes, now: float) -> None:
        """Send a packet on its way. O(1)."""
        self.packets_sent += 1
        self.bytes_sent += len(data)
        faults, rng = self.faults, self.rng
        link = self._link(source, destination)
        departure = now
        rate = self._squeezed.get(source, faults.link_bytes_per_s)
        if rate:
            departure = self._queue(link, source, destination, len(data), rate, now)
            if departure < 0:
                self.packets_lost += 1
                return
        if self._cuts and self._is_stopped(source, destination):
            self.packets_lost += 1
            return
        if faults.loss and rng.random() < faults.loss:
            self.packets_lost += 1
            return
        arrival = departure + faults.delay_min_s + rng.expovariate(1.0) * faults.delay_mean_s
        if link.clogged_until > arrival:
            arrival = link.clogged_until
        if faults.is_ordered:
            arrival = link.last_arrival = max(arrival, link.last_arrival)
        if faults.truncate and rng.random() < faults.truncate:
            self.packets_damaged += 1
            data = data[: rng.randrange(len(data))]
        if faults.flip and rng.random() < faults.flip:
            self.packets_damaged += 1
            data = _flip(data, rng)
        self._schedule(arrival, self._arrive, source, destination, data)
        if faults.repeat and rng.random() < faults.repeat:
            later = arrival + rng.expovariate(1.0) * 5 * faults.delay_mean_s
            self._schedule(later, self._arrive, source, destination, data)
        if faults.replay and rng.random() < faults.replay:
            later = arrival + rng.uniform(*REPLAY_S)
            self._schedule(later, self._arrive_again, source, destination, data)
        if faults.misdeliver and rng.random() < faults.misdeliver and self._addresses:
            self._schedule(arrival, self._arrive, source, rng.choice(self._addresses), data)

    def _queue(
        self, link: LinkState, source: str, destination: str, size: int, rate: float, now: float
    ) -> float:
        """Put a packet behind what the link carries; return when it leaves, -1 if it is lost."""
        start = max(now, link.free_at)
        backlog = (start - now) * rate
        if backlog > BACKLOG_BYTES_MAX:
            return -1.0
        link.free_at = start + (size + FRAME_OVERHEAD_BYTES) / rate
        if backlog > BUSY_BYTES and not link.is_busy:
            link.is_busy = True
            self._schedule(now, self._busy, source, destination, True)
            self._schedule(link.free_at, self._look_whether_free, source, destination)
        return link.free_at

    def _look_whether_free(self, now: float, source: str, destination: str) -> None:
        link = self._link(source, destination)
        if not link.is_busy:
            return
        if link.free_at > now:
            self._schedule(link.free_at, self._look_whether_free, source, destination)
            return
        link.is_busy = False
        self._busy(now, source, destination, False)

    def _arrive_again(self, now: float, source: str, destination: str, data: bytes) -> None:
        if self.faults.replay:
            self.packets_replayed += 1
            self._arrive(now, source, destination, data)

    def _arrive(self, now: float, source: str, destination: str, data: bytes) -> None:
        if self._cuts and self._is_stopped(source, destination):
            self.packets_lost += 1
            return
        link = self._link(source, destination)
        if self._deliver(now, destination, data, source):
            link.is_open = True
            return
        self.packets_lost += 1
        if self.faults.tells_refusals and now >= link.refused_at + REFUSAL_PAUSE_S:
            link.refused_at = now
            self._refused(now, source, destination)


def _flip(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    damaged = bytearray(data)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)
