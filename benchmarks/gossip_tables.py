"""The simulated tables of `bench_gossip.py`: spread, traffic, detection, false alarms, healing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from gossip_models import DETECTION, IDLE, SPREAD, floor_rounds
from gossip_world import Traffic, World

from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.kinds import EntriesMessage

__all__ = ["detection", "false_alarms", "healing", "quantile", "spread", "traffic"]

Rows = list[dict[str, Any]]
SETTLE_S: Final = 6.0
SPREAD_LIMIT_S: Final = 60.0
DETECTION_LIMIT_S: Final = 40.0
WRITERS_MAX: Final = 66
SAMPLES_FULL_COUNT: Final = 30
STALLED_SHARE: Final = 0.1


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile of some samples; the greatest when they are too few for it."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def settled(count: int, *, seed: int = 1, is_even: bool = False) -> World:
    """Return a cluster that has met and come to rest."""
    world = World(count, seed=seed, is_even=is_even)
    world.run(SETTLE_S)
    return world


def spread(counts: Sequence[int], losses: Sequence[float], *, samples: int) -> Rows:
    """Follow one write after another from a node drawn at random to all others.

    The loss begins with the write and ends when it has arrived everywhere; every frame takes
    1.5 ms. Fewer writes for larger clusters: `samples` up to 30 nodes, and four for 1,000.
    """
    rows: Rows = []
    for count in counts:
        world = settled(count, is_even=True)
        number = max(4, round(samples * min(1.0, SAMPLES_FULL_COUNT / count)))
        for loss in losses:
            rounds, times, copies, coverage = [], [], [], []
            for index in range(number if loss < 0.5 or count < 500 else 3):
                sent = world.entries_sent()
                world.loss = loss
                followed = world.follow(world.rng.choice(world.names), f"k{index}", index)
                world.run_until(
                    lambda: len(followed.arrived_s) == count,  # noqa: B023 - called in this turn
                    limit_s=SPREAD_LIMIT_S,
                )
                world.loss = 0.0
                world.run(0.8)
                found = followed.rounds()
                coverage.append(len(followed.arrived_s) / count)
                rounds.append(max(found.get(name, 0) for name in followed.arrived_s))
                times.append(max(followed.arrived_s.values()))
                copies.append((world.entries_sent() - sent) / (count - 1))
                world.followed = None
            rows.append(
                {
                    "n": count,
                    "loss": loss,
                    "writes": len(times),
                    "rounds_mean": mean(rounds),
                    "rounds_p99": quantile(rounds, 0.99),
                    "time_p50_s": quantile(times, 0.5),
                    "time_p99_s": quantile(times, 0.99),
                    "copies": mean(copies),
                    "coverage": min(coverage),
                    "floor_rounds": floor_rounds(count) if count > 10 else 1,
                    "model": SPREAD.get((count, loss), ""),
                }
            )
    return rows


def traffic(counts: Sequence[int], rates: Sequence[float], *, seconds: float) -> Rows:
    """Count the bytes that a node sends, at rest and while the cluster writes.

    Up to 66 of the nodes have written before, more than a clock names at once; each write sets
    one of a thousand keys to a number, at a node drawn at random among those.
    """
    rows: Rows = []
    for count in counts:
        world = settled(count)
        writers = world.names[:: max(1, count // WRITERS_MAX)][:WRITERS_MAX]
        for rate in rates:
            window_s = seconds
            if rate:
                for index, name in enumerate(writers if rate == min(filter(None, rates)) else ()):
                    world.put(name, f"first-{index}", index)
                if count > 500:  # a write is everywhere within 20 ms, and takes 6,000 frames
                    window_s = seconds / 2 if rate < 100 else seconds / 4
                _write_steadily(world, writers, rate, until_s=world.now + 2 * window_s)
                world.run(window_s)
            counted = world.traffic = Traffic()
            duration_s = window_s if rate else 10.0
            world.run(duration_s)
            share = 1.0 / count / duration_s
            rows.append(
                {
                    "n": count,
                    "writes_per_s": rate,
                    "probe_bytes_per_s": counted.probe_bytes * share,
                    "other_bytes_per_s": counted.other_bytes * share,
                    "frames_per_s": counted.frames * share,
                    "model": "" if rate else IDLE.get(count, ""),
                }
            )
    return rows


def _write_steadily(world: World, writers: list[str], rate: float, *, until_s: float) -> None:
    def write() -> None:
        key, value = f"k{world.rng.randrange(1000)}", world.rng.randrange(1_000_000)
        world.put(world.rng.choice(writers), key, value)
        if world.now + 1.0 / rate < until_s:
            world.schedule(world.now + 1.0 / rate, write)

    write()


def detection(counts: Sequence[int], losses: Sequence[float], *, crashes: int) -> Rows:
    """End one node after another without a word; no link breaks, so that only probes tell."""
    rows: Rows = []
    for count in counts:
        world = settled(count)
        for loss in losses:
            world.loss = loss
            start_s, deaths_before = world.now, len(world.deaths)
            number = min(crashes, max(1, count // 4)) if count < 500 else 3
            found = [_crash(world) for _ in range(number)]
            hours = count * (world.now - start_s) / 3600
            wrong = {
                event.member.node_id
                for _, _, event in world.deaths[deaths_before:]
                if event.member.name not in world.dead
            }
            suspected, first, everywhere = zip(*found, strict=True)
            rows.append(
                {
                    "n": count,
                    "loss": loss,
                    "crashes": len(found),
                    "suspected_mean_s": mean(suspected),
                    "first_down_mean_s": mean(first),
                    "everywhere_mean_s": mean(everywhere),
                    "everywhere_max_s": max(everywhere),
                    "false_downs": len(wrong),
                    "node_hours": hours,
                    "model": DETECTION.get(count, ""),
                }
            )
            world.loss = 0.0
    return rows


def _crash(world: World) -> tuple[float, float, float]:
    """End a node; return when it was first suspected, first Down, and Down everywhere."""
    world.run(1.0)
    name = world.rng.choice(world.live())
    start_s, suspicions, place = world.now, len(world.suspicions), len(world.deaths)
    world.kill(name)
    waiting, known, first_s = set(world.live()), place, math.inf

    def is_known_everywhere() -> bool:
        nonlocal known, first_s
        while known < len(world.deaths):
            at_s, witness, event = world.deaths[known]
            known += 1
            if event.member.name == name:
                first_s = min(first_s, at_s)
                waiting.discard(witness)
        return not waiting

    if not world.run_until(is_known_everywhere, limit_s=DETECTION_LIMIT_S):
        return math.inf, math.inf, math.inf
    suspected_s = min(
        at_s for at_s, _, event in world.suspicions[suspicions:] if event.member.name == name
    )
    return suspected_s - start_s, first_s - start_s, world.now - start_s


def false_alarms(count: int, losses: Sequence[float], *, seconds: float) -> Rows:
    """Let nobody die, and count who is held for dead; then with nodes that stall.

    Slow nodes: every tenth node stops for 0.2 to 2 s again and again, half of the time in all.
    """
    rows: Rows = []
    for loss, has_stalls in [*((loss, False) for loss in losses), (0.0, True), (0.1, True)]:
        world = settled(count, seed=7)
        world.loss = loss
        if has_stalls:
            for name in world.names[:: round(1 / STALLED_SHARE)]:
                world.schedule(world.now + world.rng.random(), _stall_often, world, name)
        suspicions, place = len(world.suspicions), len(world.deaths)
        world.run(seconds)
        hours = count * seconds / 3600
        raised = {event.member.node_id for _, _, event in world.suspicions[suspicions:]}
        downs = {event.member.node_id for _, _, event in world.deaths[place:]}
        rows.append(
            {
                "n": count,
                "loss": loss,
                "stalled_share": STALLED_SHARE if has_stalls else 0.0,
                "node_hours": hours,
                "suspicions_per_node_hour": len(raised) / hours,
                "false_downs": len(downs),
                "false_downs_per_node_hour": len(downs) / hours,
            }
        )
    return rows


def _stall_often(world: World, name: str) -> None:
    duration_s = world.rng.uniform(0.2, 2.0)
    world.stall(name, duration_s)
    world.schedule(world.now + 2 * duration_s, _stall_often, world, name)


def healing(count: int, keys: int) -> Rows:
    """Cut a cluster in halves, let each write keys of its own, and heal it.

    Both halves hold the other for Down by then. Bytes are all that was sent between the heal and
    equal digests but probes; what differs is what each node lacks, as entries on the wire.
    """
    world = settled(count)
    world.side = {name: index % 2 for index, name in enumerate(world.names)}
    halves = [[name for name in world.names if world.side[name] == side] for side in (0, 1)]
    for index in range(keys):
        for side, names in enumerate(halves):
            world.put(world.rng.choice(names), f"{side}-{index}", "value of twenty bytes")
        if not index % 10:
            world.run(0.2)
    world.run(15.0)
    clocks = [world.nodes[names[0]].replica.advertised_vector() for names in halves]
    lacking = 0
    for names, clock in zip(halves, reversed(clocks), strict=True):
        entries = world.nodes[names[0]].replica.lacking(clock, bytes_max=1 << 30).entries
        lacking += len(encode_message(EntriesMessage(tuple(entries)))) * (count - len(names))
    down = [m.status.value for m in world.nodes[world.names[0]].members()].count("Down")
    counted, start_s = Traffic(), world.now
    world.traffic, world.side = counted, {}

    def is_equal() -> bool:
        replicas = [node.replica for node in world.nodes.values()]
        first = replicas[0].vector_hash()
        return all(replica.vector_hash() == first for replica in replicas)

    while not is_equal() and world.now < start_s + 60.0:
        world.run(0.01)
    digests = {node.replica.content_digest() for node in world.nodes.values()}
    return [
        {
            "n": count,
            "keys_each_side": keys,
            "held_for_down": down,
            "seconds": world.now - start_s,
            "is_equal": len(digests) == 1 and is_equal(),
            "bytes_sent": counted.other_bytes,
            "bytes_that_differ": lacking,
            "ratio": counted.other_bytes / lacking,
        }
    ]
