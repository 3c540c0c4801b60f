"""Rate limits: decisions a second, what is admitted of what is due, and what the nodes say.

    pip install -e '.[bench]'
    python benchmarks/bench_ratelimit.py [--quick] [--show] [--resume] [--table decisions|http|...]

Caveats first. Clusters are production nodes under a virtual clock: frames take 0.5 ms and an
exponential 1 ms more on average, and are lost as the row says; sockets, TLS and the event loop are
not in it. Processor time is that of the whole run, the decisions and the simulated network
included, less that of a run without requests; on this machine, with whatever else it does. What is
due is what one perfect counter would admit of the same arrivals, in windows aligned to the same
clock; by packing order a row may pass 1. One seed, so that a run repeats exactly, but for the
times.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from gossip_world import EPOCH_S
from ratelimit_accuracy import accuracy_rows, is_held_to_a_mark
from ratelimit_http import http_rows
from ratelimit_plots import plot
from ratelimit_rivals import rival_rows
from ratelimit_roll import roll_rows
from ratelimit_world import Arrival, LimitWorld, one_rule

from meshlib.node import MeshConfig, MeshNode
from meshlib.ratelimit import RateLimitConfig

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

Row = dict[str, Any]

MARK_ADMITTED_US: Final = 0.8
MARK_REFUSED_US: Final = 0.9
READ_EACH: Final = 50
"""Decisions between two readings of the clock of the thread."""

LIMITADOR_US: Final = (0.6, 0.65)
"""limitador in memory, in Rust: measured on another machine of the same kind, for comparison."""


# Decisions on one core


def _node(limit: int) -> MeshNode:
    """Make a node whose clocks run by this thread's processor time, whoever else has the machine.

    Else its seconds, in each of which a key is new, would be shorter the more others there are.
    """
    node = MeshNode(
        MeshConfig(name="one", address="one:1"),
        rng=random.Random(1),
        wall_clock=lambda: EPOCH_S + time.thread_time(),
        now=time.thread_time(),
    )
    node.join((), now=time.thread_time())
    one_rule(node.sync.limits, limit)
    return node


def _per_call_us(node: MeshNode, keys: list[str], count: int, *, is_admitted: bool) -> float:
    """Return the least of five rounds; one over many keys takes about a second, new to all."""
    acquire, monotonic, clock = node.limiter.acquire, time.monotonic, time.thread_time
    for key in keys:
        acquire(key, now=clock())
    best = math.inf
    size = len(keys)
    for _ in range(5):
        wrong = 0
        begin = now = clock()
        for number in range(count):
            monotonic()  # a caller reads its clock for each, and that of this thread is slow
            if not number % READ_EACH:
                now = clock()
            decision = acquire(keys[number % size], now=now)
            if decision[0] is not is_admitted:
                wrong += 1
        took = clock() - begin
        assert wrong <= 0.05 * count + size * (1 + took), (wrong, count)
        best = min(best, took / count * 1e6)
    return best


def decisions(is_quick: bool) -> Iterator[Row]:
    """Make full decisions on one node, admitted and refused, over few keys and many."""
    count = 20_000 if is_quick else 200_000
    for size in (1, 1000) if is_quick else (1, 1000, 100_000):
        keys = [f"user:{number}" for number in range(size)]
        times = max(count, 10 * size)
        admitted = _per_call_us(_node(10**9), keys, times, is_admitted=True)
        # Of one unit a second each, which passes: of many keys a tenth are admitted.
        refused = _per_call_us(_node(1), keys, times, is_admitted=False)
        yield {
            "keys": size,
            "admitted_us": round(admitted, 2),
            "refused_us": round(refused, 2),
            "admitted_per_s": round(1e6 / admitted),
            "limitador_us": f"{LIMITADOR_US[0]} / {LIMITADOR_US[1]}",
        }


# What the nodes say to each other, and what it costs


def _spread(keys: int, rate: float, nodes: int, seconds: float, seed: int = 3) -> list[Arrival]:
    rng = random.Random(seed)
    found: list[Arrival] = []
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(rate)) < seconds:
        found.append((at_s, rng.randrange(nodes), f"user:{rng.randrange(keys)}", 1))
    return found


def _cost(keys: int, rate: float, *, is_confirmed: bool, delay_s: float, seconds: float) -> Row:
    nodes = 8
    idle = LimitWorld(nodes, limit=10)
    idle_s = idle.measure(seconds)
    world = LimitWorld(nodes, limit=10, rate_limit=RateLimitConfig(batch_delay_s=delay_s))
    arrivals = _spread(keys, rate, nodes, seconds + 2.0)
    world.offer(arrivals, is_confirmed=is_confirmed)
    world.run(2.0)  # the first uses of keys are over
    world.waited_s.clear()
    took_s = world.measure(seconds) - idle_s
    wanted = sorted(world.waited_s)
    per_node = nodes * seconds
    return {
        "keys": keys,
        "per_s": round(rate),
        "call": "confirmed" if is_confirmed else "never waiting",
        "batch_ms": round(delay_s * 1e3),
        "cpu_%": round(100 * took_s / per_node, 2),
        "cpu_us": round(1e6 * took_s / max(1, world.decisions), 1),
        "kB_per_s": round((world.sent.bytes - idle.sent.bytes) / per_node / 1e3, 1),
        "frames_per_s": round((world.sent.frames - idle.sent.frames) / per_node),
        "p50_ms": round(1e3 * wanted[len(wanted) // 2], 2),
        "p99_ms": round(1e3 * wanted[int(0.99 * len(wanted))], 2),
    }


def cost(is_quick: bool) -> Iterator[Row]:
    """Measure what decisions cost: processor time and bytes of a node, gossip's own left out."""
    seconds = 0.5 if is_quick else 4.0
    for keys, rate in ((10_000, 8000.0), (100_000, 20_000.0)):
        for is_confirmed, delay_s in ((False, 0.0), (False, 0.01), (True, 0.01), (True, 0.0)):
            yield _cost(keys, rate, is_confirmed=is_confirmed, delay_s=delay_s, seconds=seconds)


def owner(is_quick: bool) -> Iterator[Row]:
    """Count the questions at the owner of one key that many nodes ask for."""
    for nodes in (8, 32) if is_quick else (8, 32, 128):
        seconds = 1.0 if is_quick else 3.0
        world = LimitWorld(nodes, limit=20_000)
        counted: Counter[str] = Counter()
        for node in world.nodes.values():
            _count_questions(node, counted)
        rng = random.Random(5)
        arrivals = [
            (rng.random() * (seconds + 1), rng.randrange(nodes), "one", 1)
            for _ in range(int(40_000 * (seconds + 1)))
        ]
        world.offer(arrivals, is_confirmed=False)
        world.run(1.0)
        counted.clear()
        world.run(seconds)
        yield {"nodes": nodes, "questions_per_s": round(counted["one"] / seconds)}


def _count_questions(node: MeshNode, counted: Counter[str]) -> None:
    key_owner = node.limiter._owner  # noqa: SLF001
    ask = key_owner.ask

    def counting(name: str, actor: Any, part: Any, now: float) -> Any:
        counted[part.key] += 1
        return ask(name, actor, part, now)

    key_owner.ask = counting  # type: ignore[method-assign]


# Tables and marks

TABLES: Final[dict[str, Callable[[bool], Iterator[Row]]]] = {
    "decisions": decisions,
    "rivals": rival_rows,
    "http": http_rows,
    "cost": cost,
    "owner": owner,
    "roll": roll_rows,
    "accuracy": accuracy_rows,
}


def marks(tables: dict[str, list[Row]]) -> Iterator[tuple[str, str, bool]]:
    """Go through what was to be reached: (what, what came of it, whether it was)."""
    for row in tables.get("decisions", []):
        for kind, mark in (("admitted", MARK_ADMITTED_US), ("refused", MARK_REFUSED_US)):
            took = row[f"{kind}_us"]
            if took is not None:
                yield f"{row['keys']:,} keys, {kind}: {mark} us", f"{took}", took <= mark
    for row in tables.get("http", []):
        yield "acquire: 0.9 of a bare route", f"{row['ratio']}", row["ratio"] >= 0.9
        batches = row["decisions_per_s"]
        yield "100 at once: 100,000 decisions/s", f"{batches:,}", batches >= 100_000
    for row in tables.get("roll", []):
        what = f"rolling restart at 3 times 300/s, seed {row['seed']}: no second above 300"
        most = max(row["most_in_a_second"], row["most_in_a_window"])
        yield what, f"{most}, {row['lost_%']} % lost", most <= 300
    for row in tables.get("cost", []):
        what = f"{row['keys']:,} keys, {row['call']}, batch {row['batch_ms']} ms"
        if row["keys"] == 10_000:
            yield f"{what}: 10.2 % of a core", f"{row['cpu_%']} %", row["cpu_%"] <= 10.2
            yield f"{what}: 110 kB/s", f"{row['kB_per_s']}", row["kB_per_s"] <= 110
        elif row["call"] == "never waiting" or row["batch_ms"]:
            yield f"{what}: 10 % of a core", f"{row['cpu_%']} %", row["cpu_%"] <= 10
            yield f"{what}: 100 kB/s", f"{row['kB_per_s']}", row["kB_per_s"] <= 100
    for row in tables.get("owner", []):
        asked = row["questions_per_s"]
        yield f"{row['nodes']} nodes: 2,000 questions a second", f"{asked:,}", asked <= 2000
    for row in tables.get("accuracy", []):
        what = f"{row['shape']}, {row['nodes']} nodes, {row['limit']}/s, {row['times']} times"
        if not is_held_to_a_mark(row):
            most = row["window_max"]
            yield f"{what}: no window above", f"{most}", most <= 1
            continue
        due = 0.99 if row["loss"] else 0.995
        ratio, most = row["confirmed_ratio"], row["window_max"]
        yield (
            f"{what}, {row['loss']:.0%} lost: {due} to 1.002, no window above",
            (f"{ratio}, {most}"),
            due <= ratio <= 1.002 and most <= 1,
        )


def show(name: str, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    print(f"\n{name}\n")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of each, to see that it runs")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this one")
    parser.add_argument("--show", action="store_true", help="run nothing; print what was measured")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows of accuracy that were measured"
    )
    parser.add_argument("--results", type=Path, default=RESULTS / "bench_ratelimit.json")
    arguments = parser.parse_args()
    path: Path = arguments.results
    is_quick: bool = arguments.quick
    tables: dict[str, list[Row]] = {}
    if path.exists() and not is_quick:
        tables = json.loads(path.read_text())["tables"]
    print(__doc__)
    about = {"python": platform.python_version(), "machine": platform.machine()}
    for name in () if arguments.show else arguments.table or list(TABLES):
        before = tables.get(name, []) if arguments.resume and name == "accuracy" else []
        measured = accuracy_rows(is_quick, before) if before else TABLES[name](is_quick)
        done: list[Row] = []
        for row in measured:
            print(json.dumps(row), flush=True)
            done.append(row)
            before = [each for each in before if each != row]
            tables[name] = done + before
            if not is_quick:
                path.write_text(json.dumps({**about, "tables": tables}, indent=1) + "\n")
    for name, rows in tables.items():
        show(name, rows)
    if not is_quick and tables.get("accuracy"):
        plot(tables, path.parent)
    print()
    for what, value, is_met in marks(tables):
        print(f"{'met   ' if is_met else 'MISSED'}  {what}: {value}")


if __name__ == "__main__":
    main()
