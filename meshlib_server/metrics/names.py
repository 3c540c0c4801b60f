"""The name and the meaning of each counter of the library.

Rule: a field of a record of counters has its line here; a test compares them, so that nothing that
is counted stays unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from attrs import field, frozen

__all__ = [
    "BRIDGING",
    "DRIVER",
    "EVENT_LOOP",
    "GATE",
    "NODE",
    "PREFIX",
    "SNAPSHOTS",
    "TRANSPORT",
    "Kind",
    "Name",
]

PREFIX: Final = "meshlib_"


class Kind(StrEnum):
    """What the values of a family do."""

    COUNTER = "counter"
    """They only grow."""

    GAUGE = "gauge"
    """They are what is so now."""

    HISTOGRAM = "histogram"
    """They are how many were up to each of several bounds."""


@frozen(kw_only=True)
class Name:
    """Where a number goes.

    Args:
        metric: the family, without the prefix and without `_total`.
        text: what is counted, in one line.
        kind: what the values do.
        labels: those of this number; every number of a family has the same label names.
    """

    metric: str
    text: str
    kind: Kind = Kind.COUNTER
    labels: Mapping[str, str] = field(factory=dict)


def _counter(metric: str, text: str, **labels: str) -> Name:
    return Name(metric=metric, text=text, labels=labels)


def _gauge(metric: str, text: str) -> Name:
    return Name(metric=metric, text=text, kind=Kind.GAUGE)


_TRANSFERS = "Whole states between nodes that began."
_ENTRIES = "Entries of the log: sent, come, sent again; come short and made whole, or not known."
_SAID_PACKETS = "Frames of the protocol."
_SAID_BYTES = "Bytes of these frames."

NODE: Final[Mapping[str, Name]] = {
    "frames_received": _counter("packets", _SAID_PACKETS, direction="received"),
    "frames_sent": _counter("packets", _SAID_PACKETS, direction="sent"),
    "frames_rejected": _counter("packets_rejected", "Frames that came and were refused."),
    "bytes_received": _counter("bytes", _SAID_BYTES, direction="received"),
    "bytes_sent": _counter("bytes", _SAID_BYTES, direction="sent"),
    "probes_sent": _counter("probes", "Members that were probed."),
    "probes_failed": _counter("probe_failures", "Probes that nobody answered, directly or not."),
    "indirect_probes_saved": _counter(
        "indirect_probes_saved", "Members that answered others and not this node."
    ),
    "suspicions_raised": _counter("suspicions", "Members that this node came to suspect."),
    "refutations": _counter("refutations", "How often this node denied that it was down."),
    "local_pauses": _counter("local_pauses", "How often this process was stopped for a while."),
    "exchanges_started": _counter("antientropy_rounds", "Exchanges with one peer that began."),
    "exchanges_equal": _counter("antientropy_equal", "Exchanges in which nobody lacked anything."),
    "gaps_requested": _counter("gaps_requested", "Entries that were asked for, being missed."),
    "transfers_sent": _counter("state_transfers", _TRANSFERS, direction="sent"),
    "transfers_received": _counter("state_transfers", _TRANSFERS, direction="received"),
    "entries_sent": _counter("entries", _ENTRIES, what="sent"),
    "entries_received": _counter("entries", _ENTRIES, what="received"),
    "entries_repeated": _counter("entries", _ENTRIES, what="repeated"),
    "entries_shortened": _counter("entries", _ENTRIES, what="shortened"),
    "entries_unknown": _counter("entries", _ENTRIES, what="unknown"),
    "events_dropped": _counter("events_dropped", "Events that nobody took in time."),
    "messages_unsendable": _counter("messages_unsendable", "Messages too large for a frame."),
    "messages_skipped": _counter("messages_skipped", "Messages of a kind that is not known here."),
}
"""`meshlib.gossip.Counters`."""

_DROPPED = "Frames that were to be sent and were not."
_REFUSED = "Connections of peers that were taken and closed again, by why."

TRANSPORT: Final[Mapping[str, Name]] = {
    "frames_sent": _counter("transport_frames", "Frames on the wire.", direction="sent"),
    "frames_received": _counter("transport_frames", "Frames on the wire.", direction="received"),
    "bytes_sent": _counter("transport_bytes", "Bytes of frames on the wire.", direction="sent"),
    "bytes_received": _counter(
        "transport_bytes", "Bytes of frames on the wire.", direction="received"
    ),
    "frames_dropped_unreachable": _counter(
        "transport_frames_dropped", _DROPPED, reason="unreachable"
    ),
    "frames_dropped_queue_full": _counter(
        "transport_frames_dropped", _DROPPED, reason="queue_full"
    ),
    "frames_dropped_oversized": _counter("transport_frames_dropped", _DROPPED, reason="oversized"),
    "frames_dropped_closed": _counter("transport_frames_dropped", _DROPPED, reason="closed"),
    "frames_malformed": _counter("transport_frames_malformed", "What came and was no frame."),
    "dials": _counter("dials", "Attempts to reach a peer."),
    "dials_failed": _counter("dial_failures", "Those refused, or without an answer."),
    "links_lost": _counter("links_lost", "Outgoing links that broke."),
    "links_closed_idle": _counter("links_closed_idle", "Outgoing links on which nothing was sent."),
    "links_dropped": _counter("links_dropped", "Outgoing links to peers that are Down."),
    "connections_accepted": _counter("peer_connections", "Connections of peers that were taken."),
    "connections_refused": _counter("peer_connections_refused", _REFUSED, reason="too_many"),
    "hellos_refused": _counter("peer_connections_refused", _REFUSED, reason="hello"),
    "hellos_timed_out": _counter("peer_connections_refused", _REFUSED, reason="silent"),
}
"""`meshlib.aio.TransportCounters`."""

_BRIDGE_DROPPED = "Frames between regions that went no further."

BRIDGING: Final[Mapping[str, Name]] = {
    "frames_passed_on": _counter("bridge_frames", "Frames of others that were passed on."),
    "bytes_passed_on": _counter("bridge_bytes", "Their bytes."),
    "frames_dropped_overloaded": _counter(
        "bridge_frames_dropped", _BRIDGE_DROPPED, reason="overloaded"
    ),
    "frames_dropped_no_way": _counter("bridge_frames_dropped", _BRIDGE_DROPPED, reason="no_way"),
    "frames_dropped_unknown_region": _counter(
        "bridge_frames_dropped", _BRIDGE_DROPPED, reason="unknown_region"
    ),
    "frames_dropped_stray": _counter("bridge_frames_dropped", _BRIDGE_DROPPED, reason="stray"),
    "frames_dropped_unwanted": _counter(
        "bridge_frames_dropped", _BRIDGE_DROPPED, reason="unwanted"
    ),
    "frames_dropped_in_part": _counter("bridge_frames_dropped", _BRIDGE_DROPPED, reason="in_part"),
    "detours": _counter("bridge_detours", "Times that a bridge was lost, or had no way."),
}
"""`meshlib.aio.BridgeCounters`."""

DRIVER: Final[Mapping[str, Name]] = {
    "steps": _counter("steps", "Turns of the event loop in which the node was entered."),
    "frames_handled": _counter("frames_handled", "Frames that were given to the node."),
    "frames_failed": _counter("frames_failed", "Frames on which the node failed: a defect."),
    "frames_dropped": _counter("frames_dropped", "Frames that came while too many waited."),
    "packets_dropped": _counter("packets_dropped", "Frames that the transport did not take."),
    "senders_closed": _counter("senders_closed", "Peers cut off for what they sent."),
    "timer_late_s": _gauge("event_loop_lag_seconds", "How late the last timer was."),
    "timer_late_max_s": _gauge("event_loop_lag_max_seconds", "How late the latest timer was."),
}
"""`meshlib.aio.DriverCounters`."""

SNAPSHOTS: Final[Mapping[str, Name]] = {
    "saves": _counter("snapshot_saves", "States written to the disk."),
    "saves_failed": _counter("snapshot_failures", "States that could not be written."),
    "saved_bytes": _gauge("snapshot_size_bytes", "Size of the last state written."),
    "save_s": _gauge("snapshot_duration_seconds", "How long the last one took."),
    "saved_at_s": _gauge("snapshot_timestamp_seconds", "When it was written, since 1970."),
}
"""`meshlib.aio.SnapshotCounters`."""

EVENT_LOOP: Final[Mapping[str, Name]] = {
    "turns": _counter("event_loop_turns", "Turns of the event loop."),
    "busy_s": _counter("event_loop_busy_seconds", "How long they took."),
    "held_count": _counter("event_loop_held", "Turns of over 20 ms."),
    "held_max_s": _gauge("event_loop_held_max_seconds", "How long the longest turn took."),
    "starved_count": _counter(
        "event_loop_starved", "Turns of over 20 ms that had a processor for no more than 20 ms."
    ),
    "held_cpu_max_s": _gauge(
        "event_loop_held_cpu_max_seconds", "Most processor time of a turn of over 20 ms."
    ),
}
"""`meshlib_server.lag.LoopLag`."""

_CONNECTIONS = "Connections of callers, by what became of them."

GATE: Final[Mapping[str, Name]] = {
    "accepted": _counter("http_connections", _CONNECTIONS, outcome="accepted"),
    "evicted": _counter("http_connections", _CONNECTIONS, outcome="evicted"),
    "refused": _counter("http_connections", _CONNECTIONS, outcome="refused"),
    "expired": _counter("http_connections", _CONNECTIONS, outcome="expired"),
}
"""`meshlib_server.http.GateCounters`."""
