"""A thousand nodes in three regions: simulated, and beside it what `meshlib-server plan` says.

    python benchmarks/bench_scale.py [--nodes 1000] [--regions 3] [--writes 200] [--routes 20]

Production nodes under a virtual clock. A frame takes 0.5 ms and an exponential 1 ms more inside a
region, and the way between them beside that from one to another; nothing is lost. What
it costs a node is computed from its frames, with the CPU that `bench_plan.py` measured over TCP
for one, and for an entry. The run itself takes minutes, and says how many.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gossip_world
from gossip_tables import quantile
from prefix_routed import WORKERS, beginnings, prompts

from meshlib.node import MeshConfig, MeshNode
from meshlib.routing import PrefixSync
from meshlib.sync import MeshSyncManager
from meshlib_server.planning import MEASURED, Load, Plan, cpu_ms_per_s, plan

RESULTS = Path(__file__).resolve().parent / "results"
SETTLE_S = 5.0
LEAD_S = 0.2
PROMPTS = 1600
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

    def send(self, name: str) -> None:
        """Send what came of something that was done at a node."""
        self._drain(name)

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


Act = Callable[[RegionalWorld, int], None]
"""What a node of chance does, and for which time."""


def write(world: RegionalWorld, index: int) -> None:
    world.put(world.rng.choice(world.names), f"k{index}", "value of twenty bytes")


class Routed:
    """Routed requests at nodes of chance: a decision there, and a placement for everybody.

    Args:
        world: that has them.
        characters: of a prompt.
    """

    def __init__(self, world: RegionalWorld, characters: int) -> None:
        self._syncs = {
            name: MeshSyncManager(node.replica, prefix_sync=PrefixSync.TEXT)
            for name, node in world.nodes.items()
        }
        first = self._syncs[world.names[0]]
        for number in range(WORKERS):
            name = f"w{number}"
            first.sync_worker_state(name, model_id="m", url=f"http://{name}", health=True, load=0.0)
        world.run(1.0)
        # The beginnings are known before anything is counted, as they are to routers that run.
        known = beginnings(characters)
        for text in known:
            self._route(world, text)
            world.run(0.05)
        self._texts = prompts(PROMPTS, characters)

    def __call__(self, world: RegionalWorld, index: int) -> None:
        self._route(world, self._texts[index % PROMPTS])

    def _route(self, world: RegionalWorld, text: str) -> None:
        name = world.rng.choice(world.names)
        self._syncs[name].route("m", text)
        world.send(name)


def do(world: RegionalWorld, seconds: float, per_s: float, act: Act, first: int) -> None:
    """Let time pass, in which something is done at an even pace."""
    if not per_s:
        world.run(seconds)
    for index in range(round(seconds * per_s)):
        act(world, first + index)
        world.run(1 / per_s)


def rates(world: RegionalWorld, seconds: float, per_s: float, act: Act = write) -> dict[str, float]:
    """Let time pass, and return what a node sends in a second.

    What is done begins a little earlier: at the end of what is counted some of it is on its way,
    and so it is at the beginning.
    """
    do(world, LEAD_S, per_s, act, 0)
    before = sent_by_each(world)
    do(world, seconds, per_s, act, round(LEAD_S * per_s))
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
        "cpu_ms_per_s": MEASURED["base_cpu_ms"].value + cpu_ms_per_s(frames, per_s),
    }


def beside(found: dict[str, float], planned: Plan) -> dict[str, float]:
    """Return what was simulated with what was planned, and print both."""
    print(f"{found['bytes_per_s']:>8,.0f} B/s a node "
          f"(planned {planned.node.bytes_per_s:,.0f}), the most "
          f"{found['bytes_max_per_s']:,.0f} (planned for a bridge "
          f"{planned.node.bytes_per_s + planned.bridge_bytes_per_s:,.0f}), "
          f"{found['frames_per_s']:.1f} frames/s, {found['cpu_ms_per_s']:.1f} ms/s "
          f"(planned {planned.node.cpu_ms_per_s:.1f})", flush=True)  # fmt: skip
    return found | {
        "planned_bytes_per_s": planned.node.bytes_per_s,
        "planned_bridge_bytes_per_s": planned.bridge_bytes_per_s,
        "planned_frames_per_s": planned.node.frames_per_s,
        "planned_cpu_ms_per_s": planned.node.cpu_ms_per_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--writes", type=float, default=200.0, help="a second, in all")
    parser.add_argument("--routes", type=float, default=20.0, help="requests a second, in all")
    parser.add_argument("--prompt", type=int, default=8000, help="characters of a request")
    parser.add_argument("--between-ms", type=float, default=40.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    began, cpu_began = time.monotonic(), time.process_time()
    world = RegionalWorld(given.nodes, regions=given.regions, between_s=given.between_ms / 1000)
    world.run(SETTLE_S)
    print(f"{given.nodes:,} nodes in {given.regions} regions, made after "
          f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
    cluster = partial(Load, nodes=given.nodes, regions=given.regions, between_ms=given.between_ms)
    found: dict[str, Any] = {"load": vars(given)}
    print("at rest  ", end="")
    found["rest"] = beside(rates(world, given.seconds * 3, 0.0), plan(cluster()))
    print("writing  ", end="")
    planned = plan(cluster(writes_per_s=given.writes))
    found["writing"] = beside(rates(world, given.seconds, given.writes), planned)
    taken = follow(world, 4)
    found["spread"] = {"seconds": taken, "planned_ms": planned.spread_ms, "hops": planned.hops}
    print(
        f"a write is everywhere after {1000 * max(taken):.1f} ms (planned {planned.spread_ms:.1f})"
    )
    print("routing  ", end="", flush=True)
    routed = Routed(world, given.prompt)
    planned = plan(cluster(routes_per_s=given.routes, prompt_characters=given.prompt))
    simulated = rates(world, given.seconds, given.routes, routed)
    # The work of trees is not simulated: each node hears of each request, and few are its own.
    simulated["cpu_ms_per_s"] += given.routes * MEASURED["placed_cpu_us"].value / 1000
    found["routing"] = beside(simulated, planned)
    found["run"] = {
        "seconds": time.monotonic() - began, "cpu_s": time.process_time() - cpu_began,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "python": platform.python_version(),
    }  # fmt: skip
    print(f"it took {found['run']['seconds']:.0f} s, {found['run']['cpu_s']:.0f} s of CPU and "
          f"{found['run']['memory_mb']:.0f} MB")  # fmt: skip
    if given.nodes == 1000:
        (RESULTS / "bench_scale.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
