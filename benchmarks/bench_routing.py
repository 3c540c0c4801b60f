"""Routing policies on a trace of prompts: time to the first token, hit rate, balance.

    pip install -e '.[bench]'
    python benchmarks/bench_routing.py [--quick] [--show] [--trace FILE] [--requests N]
                                       [--table policies|told|routers|faults|unshared]

Caveats first. Routers are production nodes over a simulated network; workers are models: a queue,
a prefill of 0.05 ms a token, first in first out, a cache of the blocks used last, and decoding that
holds nobody up. So the figures are for ranking policies, and no forecast of anybody's cluster. The
trace is Mooncake's conversation trace, whose time stamps are bunched by three seconds: arrivals are
spread within them. The table of policies is of all of it, the others are of its first 2,500
prompts; `unshared` is of Azure's conversation trace, of which nobody knows what its prompts share,
so that no cache helps. smg and Dynamo are models of their published algorithms, given what all
routers have in flight. One seed, so that a run repeats exactly.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import platform
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from routing_contenders import CONTENDERS
from routing_plots import plot

from meshlib.testing import RoutingReport, RoutingScenario, TraceRequest, read_trace, replay

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
TRACE = HERE / "data" / "mooncake_conversation.jsonl.gz"
AZURE = HERE / "data" / "azure_conversation.csv.gz"
PARTITION_S: Final = (60.0, 90.0)

BLOCK_TOKENS: Final = 512

PART: Final = 2500
"""Requests of the tables that compare the same policies in many situations."""

AZURE_RATE: Final = 20.0
"""So many times as fast the prompts of that trace keep eight workers two thirds busy."""

Row = dict[str, Any]
Case = dict[str, Any]

COUNTED: Final = (
    ("round_robin", "nothing"), ("random", "nothing"), ("least_loaded", "counts"),
    ("power_of_two", "counts"), ("consistent_hash", "counts"), ("rendezvous", "nothing"),
    ("smg", "counts"), ("dynamo", "shared"), ("cache_aware", "counts"),
    ("expected_time", "shared"),
)  # fmt: skip
"""Each policy with what it makes use of."""

BESIDE: Final = tuple(each for each in COUNTED if each[0] not in ("random", "consistent_hash"))
"""Those that are compared where the number of routers and the room of workers differ."""

TOLD: Final = ("expected_time", "cache_aware", "least_loaded", "power_of_two")
"""Those whose choice depends on what they are told of loads."""


def policies(rates: tuple[float, ...]) -> list[Case]:
    return [
        {"policy": policy, "told": told, "rate": rate} for rate in rates for policy, told in COUNTED
    ]


def told(rates: tuple[float, ...]) -> list[Case]:
    ways: tuple[Case, ...] = (
        {"told": "nothing"}, {"told": "reported", "report_s": 1.0},
        {"told": "reported", "report_s": 5.0}, {"told": "counts"}, {"told": "shared"},
    )  # fmt: skip
    return [
        {"policy": policy, "rate": rate, **way} for rate in rates for policy in TOLD for way in ways
    ]


def routers(rates: tuple[float, ...]) -> list[Case]:
    return [
        {
            "policy": policy,
            "told": way,
            "rate": rates[-1],
            "router_count": count,
            "blocks_max": room,
        }
        for room in (2000, 8000)
        for policy, way in BESIDE
        for count in (1, 2, 4, 8)
    ]


def faults(rates: tuple[float, ...]) -> list[Case]:
    kinds: tuple[Case, ...] = (
        {"loss": 0.0}, {"loss": 0.1}, {"loss": 0.25}, {"partition_s": PARTITION_S},
    )  # fmt: skip
    return [
        {"policy": policy, "told": way, "rate": rate, **kind}
        for rate in rates
        for kind in kinds
        for policy, way in (("cache_aware", "counts"), ("expected_time", "shared"))
    ]


def unshared(_rates: tuple[float, ...]) -> list[Case]:
    return [{"policy": policy, "told": way, "rate": AZURE_RATE} for policy, way in BESIDE]


TABLES: Final = {
    "policies": policies, "told": told, "routers": routers, "faults": faults, "unshared": unshared,
}  # fmt: skip


def read_azure(count_max: int) -> tuple[TraceRequest, ...]:
    """Read the trace of time stamps and token counts; each prompt is one of its own."""
    numbers = itertools.count()
    with gzip.open(AZURE, "rt", encoding="utf-8") as lines:
        rows = list(itertools.islice(csv.DictReader(lines), count_max))
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    return tuple(
        TraceRequest(
            at_s=(at - times[0]).total_seconds(),
            input_tokens=int(row["ContextTokens"]),
            output_tokens=int(row["GeneratedTokens"]),
            blocks=tuple(itertools.islice(numbers, 1 + int(row["ContextTokens"]) // BLOCK_TOKENS)),
        )
        for row, at in zip(rows, times, strict=True)
    )


def read_requests(
    table: str, trace: Path, *, count_max: int | None = None
) -> tuple[TraceRequest, ...]:
    """Read what a table is made of: all of the trace, or a part of it."""
    if table == "unshared":
        return read_azure(count_max or PART)
    return read_trace(trace, count_max=count_max or (None if table == "policies" else PART))


def run(requests: tuple[TraceRequest, ...], case: Case) -> Row:
    own = CONTENDERS.get(case["policy"])
    report: RoutingReport = replay(requests, RoutingScenario(own=own, **case))
    found = report.to_dict()
    times = {f"ttft_{name}_ms": ms for name, ms in found.pop("ttft_ms").items()}
    row: Row = json.loads(json.dumps({**case, **found, **times}))  # as it is read again
    return row


def marks(tables: dict[str, list[Row]]) -> list[tuple[str, str, bool]]:
    """Return what was to be reached: (what, what came of it, whether it was)."""
    found: list[tuple[str, str, bool]] = []

    def means(rows: list[Row], **which: Any) -> dict[str, Row]:
        return {
            row["policy"]: row
            for row in rows
            if all(row.get(name) == value for name, value in which.items())
        }

    for rate, share in ((1.0, 0.82), (2.5, 0.60)):
        by = means(tables.get("policies", []), rate=rate)
        if {"expected_time", "cache_aware"} <= set(by):
            ours, theirs = by["expected_time"], by["cache_aware"]
            ratio = ours["ttft_mean_ms"] / theirs["ttft_mean_ms"]
            where = f"rate {rate:g}"
            found.append((f"{where}: mean TTFT at most {share} of cache_aware with counts",
                          f"{ratio:.3f}", ratio <= share))  # fmt: skip
            found.append((f"{where}: hit rate at least 0.345", f"{ours['hit_rate']:.3f}",
                          ours["hit_rate"] >= 0.345))  # fmt: skip
            work = ours["work_max_over_mean"]
            found.append(
                (f"{where}: work, most over mean, at most 1.10", f"{work:.3f}", work <= 1.1)
            )
    for rate, share in ((1.0, 0.90), (2.5, 0.65)):
        by = means(tables.get("faults", []), rate=rate, loss=0.1)
        if {"expected_time", "cache_aware"} <= set(by):
            ratio = by["expected_time"]["ttft_mean_ms"] / by["cache_aware"]["ttft_mean_ms"]
            found.append((f"rate {rate:g}, 10 % lost: at most {share}", f"{ratio:.3f}",
                          ratio <= share))  # fmt: skip
    for rate in (1.0, 2.5):
        of_rate = [
            row
            for row in tables.get("told", [])
            if row["rate"] == rate and row["policy"] == "expected_time"
        ]
        silent = [row["ttft_mean_ms"] for row in of_rate if row["told"] == "nothing"]
        reported = [row["ttft_mean_ms"] for row in of_rate if row["told"] == "reported"]
        if silent and reported:
            worst = max(reported)
            found.append((f"rate {rate:g}: reported loads are no worse than none",
                          f"{worst:.0f} and {silent[0]:.0f} ms", worst <= silent[0]))  # fmt: skip
    return found


def show(name: str, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    print(f"\n{name}\n")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 requests, to see that it runs")
    parser.add_argument("--show", action="store_true", help="run nothing; print what was measured")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this one")
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--requests", type=int, help="only the first of the trace")
    parser.add_argument("--rate", type=float, action="append", help="[default: 1 and 2.5]")
    parser.add_argument("--policy", action="append", help="only these")
    parser.add_argument("--results", type=Path, default=RESULTS / "bench_routing.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.requests = 300
    path: Path = arguments.results
    kept = json.loads(path.read_text()) if path.exists() and not arguments.quick else {}
    tables: dict[str, list[Row]] = dict(kept.get("tables", {}))
    if arguments.quick:
        tables = {}
    print(__doc__)
    for name in () if arguments.show else arguments.table or list(TABLES):
        requests = read_requests(name, arguments.trace, count_max=arguments.requests)
        cases = TABLES[name](tuple(arguments.rate or (1.0, 2.5)))
        for case in cases:
            if arguments.policy and case["policy"] not in arguments.policy:
                continue
            start = time.process_time()
            row = run(requests, case)
            spent = f"{time.process_time() - start:.0f} s of processor time"
            print(json.dumps(row), spent, flush=True)
            others = [r for r in tables.get(name, []) if any(r.get(k) != row.get(k) for k in case)]
            tables[name] = [*others, row]
            if not arguments.quick:
                about = {"python": platform.python_version(), "trace": arguments.trace.name}
                path.write_text(json.dumps({**about, "tables": tables}, indent=1) + "\n")
    for name, rows in tables.items():
        show(name, rows)
    print()
    for what, value, is_met in marks(tables):
        print(f"{'met   ' if is_met else 'MISSED'}  {what}: {value}")
    if not arguments.quick and not arguments.show and tables.get("policies"):
        plot(tables, RESULTS)


if __name__ == "__main__":
    main()
