"""A thousand nodes in three regions: simulated, and beside it what `meshlib-server plan` says.

    python benchmarks/bench_scale.py [--nodes 1000] [--regions 3] [--writes 5] [--between-ms 40]

Production nodes under a virtual clock. A frame takes 0.5 ms and an exponential 1 ms more inside a
region, and the way between them beside that from one to another; nothing is lost. What
it costs a node is computed from its frames, with the CPU that `bench_plan.py` measured for one over
TCP. The run itself takes minutes, and says how many.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import time
from pathlib import Path
from typing import Any

import gossip_world
from gossip_tables import quantile

from meshlib.node import MeshConfig, MeshNode
from meshlib_server.planning import MEASURED, Load, plan

RESULTS = Path(__file__).resolve().parent / "results"
SETTLE_S = 5.0
SPREAD_LIMIT_S = 30.0


class RegionalWorld(gossip_world.World):
    """A world whose nodes stand in regions, in turn."""

    def __init__(self, count: int, *, regions: int, between_s: float) -> None:
        self._regions, self._between_s = regions, between_s
        self.region: dict[str, int] = {}
        super().__init__(count)

    def _make(self, name: str, address: str, seed: int) -> None:
        region = self.region[name] = len(self.nodes) % self._regions
        self.nodes[name] = MeshNode(
            MeshConfig(name=name, address=address, gossip=self.config, region=f"region-{region}"),
            rng=random.Random(f"{seed}/{name}"),
            wall_clock=lambda: gossip_world.EPOCH_S + self.now,
            now=self.now,
        )
        self.nodes[name].replica.open(gossip_world.DOCUMENT, type_tag="lww_map")

    def schedule(self, at_s: float, action: Any, *arguments: object) -> None:
        """Run `action(*arguments)` at a time; a frame between regions arrives later."""
        if action == self._arrive:
            source, address = arguments[0], arguments[1]
            target = self.by_address.get(str(address))
            if target is not None and self.region[str(source)] != self.region[target]:
                at_s += self._between_s
        super().schedule(at_s, action, *arguments)


def follow(world: RegionalWorld, samples: int) -> list[float]:
    """Return how long writes took until every node had them."""
    taken = []
    for index in range(samples):
        followed = world.follow(world.rng.choice(world.names), f"followed-{index}", index)
        world.run_until(
            lambda followed=followed: len(followed.arrived_s) == len(world.nodes),  # type: ignore[misc]
            limit_s=SPREAD_LIMIT_S,
        )
        taken.append(max(followed.arrived_s.values()))
        world.run(0.5)
        world.followed = None
    return taken


def sent_by_each(world: RegionalWorld) -> tuple[list[int], list[int]]:
    counters = [node.counters for node in world.nodes.values()]
    return [each.bytes_sent for each in counters], [each.frames_sent for each in counters]


def rates(world: RegionalWorld, seconds: float, writes_per_s: float) -> dict[str, float]:
    """Let time pass, and return what a node sends in a second; writes are made at an even pace."""
    before = sent_by_each(world)
    for index in range(round(seconds * writes_per_s)):
        world.put(world.rng.choice(world.names), f"k{index}", "value of twenty bytes")
        world.run(1 / writes_per_s)
    if not writes_per_s:
        world.run(seconds)
    after = sent_by_each(world)
    bytes_sent, frames_sent = (
        [(late - early) / seconds for early, late in zip(*pair, strict=True)]
        for pair in zip(before, after, strict=True)
    )
    count = len(bytes_sent)
    frames = sum(frames_sent) / count
    return {
        "bytes_per_s": sum(bytes_sent) / count,
        "bytes_p99_per_s": quantile(bytes_sent, 0.99),
        "bytes_max_per_s": max(bytes_sent),
        "frames_per_s": frames,
        "cpu_ms_per_s": MEASURED["base_cpu_ms"].value
        + frames * MEASURED["frame_cpu_us"].value / 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--writes", type=float, default=5.0)
    parser.add_argument("--between-ms", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    began, cpu_began = time.monotonic(), time.process_time()
    world = RegionalWorld(given.nodes, regions=given.regions, between_s=given.between_ms / 1000)
    world.run(SETTLE_S)
    print(f"{given.nodes:,} nodes in {given.regions} regions, made after "
          f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
    found: dict[str, Any] = {}
    for kind, writes in (("rest", 0.0), ("writing", given.writes)):
        load = Load(
            nodes=given.nodes, regions=given.regions, writes_per_s=writes,
            between_ms=given.between_ms,
        )  # fmt: skip
        planned = plan(load)
        simulated = rates(world, given.seconds * (1 if writes else 3), writes)
        found[kind] = simulated | {
            "planned_bytes_per_s": planned.node.bytes_per_s,
            "planned_bridge_bytes_per_s": planned.bridge_bytes_per_s,
            "planned_cpu_ms_per_s": planned.node.cpu_ms_per_s,
        }
        print(f"{kind:8} {simulated['bytes_per_s']:>8,.0f} B/s a node "
              f"(planned {planned.node.bytes_per_s:,.0f}), the most "
              f"{simulated['bytes_max_per_s']:,.0f} (planned for a bridge "
              f"{planned.node.bytes_per_s + planned.bridge_bytes_per_s:,.0f}), "
              f"{simulated['frames_per_s']:.1f} frames/s, {simulated['cpu_ms_per_s']:.1f} ms/s "
              f"(planned {planned.node.cpu_ms_per_s:.1f})", flush=True)  # fmt: skip
    taken = follow(world, 4)
    found["spread"] = {"seconds": taken, "planned_ms": planned.spread_ms, "hops": planned.hops}
    found["run"] = {
        "seconds": time.monotonic() - began, "cpu_s": time.process_time() - cpu_began,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "python": platform.python_version(),
    }  # fmt: skip
    print(
        f"a write is everywhere after {1000 * max(taken):.1f} ms (planned {planned.spread_ms:.1f})"
    )
    print(f"it took {found['run']['seconds']:.0f} s, {found['run']['cpu_s']:.0f} s of CPU and "
          f"{found['run']['memory_mb']:.0f} MB")  # fmt: skip
    if given.nodes == 1000:
        (RESULTS / "bench_scale.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
