"""What follows for a cluster: sums over what is sent at rest, for writes, and for routed prompts.

Rules this file owns:
- Nothing in here is measured: every figure is one of `measured.py`, or counted from the topology.
- In a full mesh a writer sends a write to everybody; in a larger cluster each node of a region has
  `gossip_fanout` senders and receivers, and regions are joined by single links.
- An acknowledgement waits 20 ms for others to the same peer, so that there are fewer the more is
  written, placements of prompts among it: `rate / (1 + 0.02 rate)` of them. What a node does for
  each entry beside its frames (to wake, to look at all deadlines, to set a timer) is shared alike.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import field, frozen

from meshlib.errors import ConfigError
from meshlib_server.planning.measured import MEASURED

__all__ = ["Load", "NodePlan", "Plan", "cpu_ms_per_s", "plan"]

SHARED_WAIT_S: Final = 0.02
NODES_MAX: Final = 4096
VALUE_BYTES: Final = 20


@frozen(slots=True, kw_only=True)
class Load:
    """What is asked of a cluster.

    Args:
        nodes: 1 to 4,096.
        regions: they are of one size; at most as many as nodes.
        writes_per_s: of the whole cluster.
        routes_per_s: routed requests of the whole cluster.
        prompt_characters: of a routed request; 70 % of it is known.
        tree_characters: what the trees hold in the end.
        value_bytes: of a write.
        between_ms: the way from one region to another, one direction.
        full_mesh_threshold: up to this many nodes all talk to all.
    """

    nodes: int
    regions: int = 1
    writes_per_s: float = 0.0
    routes_per_s: float = 0.0
    prompt_characters: int = 0
    tree_characters: int = 0
    value_bytes: int = VALUE_BYTES
    between_ms: float = 40.0
    full_mesh_threshold: int = 10

    def __attrs_post_init__(self) -> None:
        """Check that there is such a cluster.

        Raises:
            ConfigError: names what does not fit.
        """
        if not 1 <= self.nodes <= NODES_MAX:
            raise ConfigError(f"nodes must be 1 to {NODES_MAX:,}, got {self.nodes}")
        if not 1 <= self.regions <= self.nodes:
            raise ConfigError(f"regions must be 1 to {self.nodes}, got {self.regions}")
        for name in ("writes_per_s", "routes_per_s", "prompt_characters", "tree_characters",
                     "value_bytes", "between_ms"):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be 0 or more and finite, got {value}")


@frozen(slots=True, kw_only=True)
class NodePlan:
    """What one node takes, by its parts.

    Args:
        bytes_by_part: bytes of frames a second that it sends: at rest, for writes, for prompts.
        frames_per_s: that it sends.
        cpu_by_part: milliseconds of CPU a second, likewise.
        memory_by_part: bytes: the process, its members, the trees.
    """

    bytes_by_part: dict[str, float]
    frames_per_s: float
    cpu_by_part: dict[str, float]
    memory_by_part: dict[str, float]

    @property
    def bytes_per_s(self) -> float:
        """All of the bytes."""
        return sum(self.bytes_by_part.values())

    @property
    def cpu_ms_per_s(self) -> float:
        """All of the CPU: over 1,000 a node does not keep up."""
        return sum(self.cpu_by_part.values())

    @property
    def memory_bytes(self) -> float:
        """All of the memory."""
        return sum(self.memory_by_part.values())


@frozen(slots=True, kw_only=True)
class Plan:
    """What a cluster takes.

    Args:
        load: what is asked of it.
        node: a node that joins no regions.
        bridge_bytes_per_s: what a node sends more that joins its region to others.
        hops: from a write's node to the last one, at most.
        spread_ms: how long that takes.
        problems: what will not do, in a line each.
    """

    load: Load
    node: NodePlan
    bridge_bytes_per_s: float
    hops: int
    spread_ms: float
    problems: tuple[str, ...] = field(default=())


def cpu_ms_per_s(
    frames_per_s: float, entries_per_s: float = 0.0, *, all_entries_per_s: float | None = None
) -> float:
    """Return the milliseconds of CPU a second for frames, and for entries new to a node. O(1).

    Args:
        frames_per_s: that it sends; it takes in as many.
        entries_per_s: writes and placements that it makes or hears of.
        all_entries_per_s: those of every kind, which share the work done once for several;
            `entries_per_s` when None.
    """
    shared_per_s = entries_per_s if all_entries_per_s is None else all_entries_per_s
    entry_us = _of("entry_cpu_us") / (1 + SHARED_WAIT_S * shared_per_s)
    return (frames_per_s * _of("frame_cpu_us") + entries_per_s * entry_us) / 1000


def _of(name: str) -> float:
    return MEASURED[name].value


def _hops(count: int) -> int:
    """Return over how many nodes a write travels in a region, at most."""
    return max(1, math.ceil(math.log(count) / math.log(_of("copies")) - 1e-9)) if count > 1 else 0


def plan(load: Load) -> Plan:
    """Compute what a cluster takes. O(1).

    Args:
        load: what is asked of it.
    """
    count = load.nodes
    is_mesh = count <= load.full_mesh_threshold
    if count == 1:
        copies, link_share = 0.0, 0.0
    elif is_mesh:
        copies, link_share = (count - 1) / count, 1 / count
    else:
        copies, link_share = min(_of("copies"), count - 1.0), 1.0
    entries = load.writes_per_s + load.routes_per_s
    written, routed = load.writes_per_s * copies, load.routes_per_s * copies
    acknowledgements = 1 / (1 + SHARED_WAIT_S * entries * link_share)
    acknowledgement_bytes = acknowledgements * _of("acknowledgement_bytes")
    rest = "rest" if is_mesh else "sparse"
    entry_bytes = _of("entry_bytes") + load.value_bytes
    prompt_bytes = _of("entry_bytes") + _of("routed_bytes") * load.prompt_characters
    rest_frames = _of(f"{rest}_frames") if count > 1 else 0.0
    node = NodePlan(
        bytes_by_part={
            "rest": _of(f"{rest}_bytes") if count > 1 else 0.0,
            "writes": written * (entry_bytes + acknowledgement_bytes),
            "prompts": routed * (prompt_bytes + acknowledgement_bytes),
        },
        frames_per_s=rest_frames + (written + routed) * (1 + acknowledgements),
        cpu_by_part={
            "rest": _of("base_cpu_ms") + cpu_ms_per_s(rest_frames),
            "writes": cpu_ms_per_s(
                written * (1 + acknowledgements), load.writes_per_s, all_entries_per_s=entries
            ),
            "prompts": _prompts_cpu_ms(load)
            + cpu_ms_per_s(
                routed * (1 + acknowledgements), load.routes_per_s, all_entries_per_s=entries
            ),
        },
        memory_by_part={
            "process": _of("base_mb") * 1e6,
            "members": count * _of("member_bytes"),
            "trees": load.tree_characters * _of("tree_bytes"),
        },
    )
    hops, spread_ms = _spread(load, is_mesh=is_mesh)
    crossing = load.writes_per_s * entry_bytes + load.routes_per_s * prompt_bytes
    return Plan(
        load=load,
        node=node,
        bridge_bytes_per_s=crossing if load.regions > 1 and not is_mesh else 0.0,
        hops=hops,
        spread_ms=spread_ms,
        problems=_problems(node),
    )


def _prompts_cpu_ms(load: Load) -> float:
    """Return what routed prompts take beside frames: at their node, and at everybody who hears."""
    own = load.routes_per_s / load.nodes
    heard = load.routes_per_s - own
    us = own * _of("routed_cpu_us") + heard * _of("placed_cpu_us")
    return us / 1000


def _spread(load: Load, *, is_mesh: bool) -> tuple[int, float]:
    """Return over how many nodes a write travels at most, and how long that takes."""
    if load.nodes == 1:
        return 0, 0.0
    between = load.between_ms if load.regions > 1 else 0.0
    if is_mesh:
        return 1, _of("hop_ms") + between
    inside = _hops(math.ceil(load.nodes / load.regions))
    hops = inside if load.regions == 1 else 2 * inside + 1
    return hops, hops * _of("hop_ms") + between


def _problems(node: NodePlan) -> tuple[str, ...]:
    found = []
    if node.cpu_ms_per_s > 1000:
        parts = node.cpu_by_part
        most = max(parts, key=lambda part: parts[part])
        found.append(
            f"a node needs {node.cpu_ms_per_s / 1000:.1f} cores and has one, most of it for {most}"
        )
    return tuple(found)
