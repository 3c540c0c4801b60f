"""The constants of a plan: each a figure that was measured, with its unit and its source."""

from __future__ import annotations

from typing import Final

from attrs import frozen

__all__ = ["MEASURED", "Measured"]

GOSSIP: Final = "benchmarks/bench_gossip.py"
PLAN: Final = "benchmarks/bench_plan.py"
ROUTED: Final = "benchmarks/prefix_routed.py"


@frozen(slots=True)
class Measured:
    """One figure.

    Args:
        name: what the model calls it.
        value: the figure.
        unit: of the value.
        what: in a few words.
        source: what measures it.
    """

    name: str
    value: float
    unit: str
    what: str
    source: str


MEASURED: Final = {
    each.name: each
    for each in (
        Measured("rest_frames", 3.1, "1/s", "frames that a node of a full mesh sends", GOSSIP),
        Measured("rest_bytes", 388.0, "B/s", "bytes that a node of a full mesh sends", GOSSIP),
        Measured("sparse_frames", 4.5, "1/s", "the same in a larger cluster", GOSSIP),
        Measured("sparse_bytes", 464.0, "B/s", "the same in a larger cluster", GOSSIP),
        Measured("entry_bytes", 145.0, "B", "a frame with one entry, beside its value", GOSSIP),
        Measured("acknowledgement_bytes", 74.0, "B", "a frame that says what came", GOSSIP),
        Measured("copies", 3.0, "", "copies of a write for each node of a large cluster", GOSSIP),
        Measured("base_cpu_ms", 3.6, "ms/s", "a node of which nothing is asked", PLAN),
        Measured("frame_cpu_us", 270.0, "us", "sending a frame and taking one in, over TCP", PLAN),
        Measured(
            "entry_cpu_us",
            1000.0,
            "us",
            "an entry that is new and comes alone, without frames",
            PLAN,
        ),
        Measured("base_mb", 45.0, "MB", "a process that has just begun", PLAN),
        Measured("member_bytes", 3427.0, "B", "what a node keeps of a member", GOSSIP),
        Measured("tree_bytes", 0.62, "B", "a character of prompts in the tree", "bench_prefix.py"),
        Measured(
            "hop_ms", 1.4, "ms", "a write from node to node", "benchmarks/bench_transports.py"
        ),
        Measured("routed_bytes", 0.33, "B", "a character of a routed prompt to a peer", ROUTED),
        Measured("routed_cpu_us", 73.0, "us", "a routed request at its own node", ROUTED),
        Measured("placed_cpu_us", 98.0, "us", "a routed request at each other node", ROUTED),
    )
}
"""By name."""
