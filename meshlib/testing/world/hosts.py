"""One simulated machine and the process on it: its clocks, its timer, its pauses.

Rule: the node on a host is the production node, driven as a runtime drives it: bytes, timers
and verbs in, then packets and events out, then one timer for the next deadline.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any, Final

from attrs import define, field

__all__ = ["Host"]

EPOCH_S: Final = 1_750_000_000.0
"""What a wall clock that is right shows at the start of a run."""

INBOX_BYTES_MAX: Final = 1 << 20
"""What a paused process's sockets hold; more is lost, as with a full socket buffer."""


@define(slots=True, eq=False)
class Host:
    """A machine with a name, an address, its own clocks, and one process at most.

    Args:
        label: names the machine; two machines may run nodes of one name.
        name: the name of the node on it.
        address: where it is reached now.
        origin_s: what its monotonic clock shows at the start of the run.
        rate: how fast its monotonic clock runs.
        index: its place among the machines.
    """

    label: str
    name: str
    address: str
    origin_s: float
    rate: float = 1.0
    index: int = 0
    node: Any = None
    start_count: int = 0
    started_at: float = 0.0
    wall_offset_s: float = 0.0
    wall_drift: float = 0.0
    simulated_now: float = 0.0
    paused_until: float | None = None
    inbox: deque[tuple[str, bytes]] = field(factory=deque)
    inbox_bytes: int = 0
    link_reports: dict[str, bool] = field(factory=dict)
    """Which links became busy, or free, while the process was stopped: it learns of the last."""

    armed_at: float | None = None
    seeds: tuple[str, ...] = ()
    snapshot: tuple[float, int, Any, Any] | None = None
    is_leaving: bool = False
    is_twin: bool = False
    is_gone: bool = False
    watch: Any = None
    waiting_count: int = 0
    exchanged_count: int = 0
    has_sent_uneven: bool = False
    """Whether a process that ended here may have held more than its clock counted: what it sent
    may still be under way."""

    @property
    def is_running(self) -> bool:
        """Whether a process runs here and is not paused."""
        return self.node is not None and self.paused_until is None

    def monotonic(self, now: float) -> float:
        """Return what this machine's monotonic clock shows at a simulated time."""
        return self.origin_s + now * self.rate

    def simulated(self, monotonic_s: float) -> float:
        """Return the simulated time at which the monotonic clock shows something."""
        return (monotonic_s - self.origin_s) / self.rate

    def wall_clock(self) -> float:
        """Return what this machine's wall clock shows now: injected into its node."""
        now = self.simulated_now
        return EPOCH_S + now * (1.0 + self.wall_drift) + self.wall_offset_s

    def drift(self, now: float, rate: float) -> None:
        """Let the wall clock run `rate` too fast from now on; it does not jump."""
        self.wall_offset_s += now * (self.wall_drift - rate)
        self.wall_drift = rate

    def correct_clock(self) -> None:
        """Set the wall clock right."""
        self.wall_offset_s = self.wall_drift = 0.0

    def rng(self, seed: int) -> random.Random:
        """Return the chance of the next process here, forked by name and start."""
        return random.Random(f"{seed}/node/{self.label}/{self.start_count}")

    def keep(self, sender: str, data: bytes) -> None:
        """Keep a packet for a paused process; it is lost when the buffer is full."""
        if self.inbox_bytes + len(data) <= INBOX_BYTES_MAX:
            self.inbox.append((sender, data))
            self.inbox_bytes += len(data)

    def keep_snapshot(self, now: float) -> None:
        """Write the node's state to this machine's disk."""
        self.snapshot = self.make_snapshot(now)

    def make_snapshot(self, now: float) -> tuple[float, int, Any, Any]:
        """Return what the node would write: when, in which version, its state and its members."""
        node = self.node
        return now, node.page_version, node.export_state(), node.counted_members()

    def stop(self) -> None:
        """End the process at once; what it did not write down is gone."""
        self.node = None
        self.paused_until = None
        self.armed_at = None
        self.inbox.clear()
        self.inbox_bytes = 0
        self.link_reports.clear()
        self.is_leaving = False
        self.watch = None
        self.waiting_count = self.exchanged_count = 0
