"""What an engine tells its driver: events, which are drained, and counters, which only grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import define

from meshlib.gossip.events import Event
from meshlib.invariants import require
from meshlib.limits import EVENTS_QUEUED_MAX

__all__ = ["Counters", "EventQueue"]


@define(slots=True)
class Counters:
    """What happened, as plain numbers for metrics. Each only grows."""

    frames_received: int = 0
    frames_rejected: int = 0
    frames_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    probes_sent: int = 0
    probes_failed: int = 0
    indirect_probes_saved: int = 0
    suspicions_raised: int = 0
    refutations: int = 0
    local_pauses: int = 0
    exchanges_started: int = 0
    exchanges_equal: int = 0
    gaps_requested: int = 0
    transfers_sent: int = 0
    transfers_received: int = 0
    entries_sent: int = 0
    entries_repeated: int = 0
    entries_received: int = 0
    entries_shortened: int = 0
    entries_unknown: int = 0
    events_dropped: int = 0
    messages_unsendable: int = 0
    messages_skipped: int = 0


class EventQueue:
    """Events that wait for the driver; bounded.

    Args:
        counters: counts those that were dropped.
    """

    __slots__ = ("_counters", "_waiting")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._waiting: deque[Event] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def emit(self, event: Event) -> None:
        """Tell the driver. The oldest event goes, counted, when nobody drains them. O(1)."""
        if len(self._waiting) >= EVENTS_QUEUED_MAX:
            self._waiting.popleft()
            self._counters.events_dropped += 1
        self._waiting.append(event)

    def drain(self) -> list[Event]:
        """Return what happened since the last call, in order. O(events)."""
        if not self._waiting:
            return []
        events = list(self._waiting)
        self._waiting.clear()
        return events

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how many events wait."""
        return {"count": len(self._waiting), "dropped_count": self._counters.events_dropped}

    def _check(self) -> None:
        """Assert that no more wait than may."""
        require(self, len(self._waiting) <= EVENTS_QUEUED_MAX, "too many events wait")
