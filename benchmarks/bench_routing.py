"""Routing policies on a trace of prompts: time to the first token, hit rate, balance.

    pip install -e '.[bench]'
    python benchmarks/bench_routing.py [--quick] [--table policies|told|routers|faults]
                                       [--trace FILE] [--requests N]

Caveats first. Routers are production nodes over a simulated network; workers are models: a queue,
a prefill of 0.05 ms a token, first in first out, a cache of the blocks used last, and decoding that
holds nobody up. So the figures are for ranking policies, and no forecast of anybody's cluster. The
trace is Mooncake's conversation trace, whose time stamps are bunched by three seconds: arrivals are
spread within them. smg and Dynamo are models of their published algorithms, given what all routers
have in flight. One seed, so that a run repeats exactly.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any, Final

from routing_contenders import CONTENDERS

from meshlib.testing import RoutingReport, RoutingScenario, TraceRequest, read_trace, replay

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
TRACE = HERE / "data" / "mooncake_conversation.jsonl.gz"
PARTITION_S: Final = (60.0, 90.0)

Row = dict[str, Any]
Case = dict[str, Any]

COUNTED: Final = (
    ("round_robin", "nothing"), ("random", "nothing"), ("least_loaded", "counts"),
    ("power_of_two", "counts"), ("consistent_hash", "counts"), ("rendezvous", "nothing"),
    ("smg", "counts"), ("dynamo", "shared"), ("cache_aware", "counts"),
    ("expected_time", "shared"),
)  # fmt: skip
"""Each policy with what it makes use of."""


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
        {"policy": policy, "rate": rate, **way}
        for rate in rates
        for policy in ("cache_aware", "expected_time")
        for way in ways
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
        for count in (1, 2, 4, 8)
        for policy, way in (("cache_aware", "counts"), ("expected_time", "shared"))
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


TABLES: Final = {"policies": policies, "told": told, "routers": routers, "faults": faults}


def run(requests: tuple[TraceRequest, ...], case: Case) -> Row:
    own = CONTENDERS.get(case["policy"])
    report: RoutingReport = replay(requests, RoutingScenario(own=own, **case))
    found = report.to_dict()
    times = {f"ttft_{name}_ms": ms for name, ms in found.pop("ttft_ms").items()}
    return {**case, **found, **times}


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


def plot(tables: dict[str, list[Row]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"
    from matplotlib import pyplot as plt

    rows = tables.get("policies", [])
    rates = sorted({row["rate"] for row in rows})
    figure, panels = plt.subplots(1, max(1, len(rates)), figsize=(11, 4.2))
    for axes, rate in zip(panels if len(rates) > 1 else [panels], rates, strict=True):
        shown = sorted(
            (row for row in rows if row["rate"] == rate), key=lambda row: -row["ttft_mean_ms"]
        )
        names = [f"{row['policy']} ({row['hit_rate']:.2f})" for row in shown]
        places = range(len(shown))
        axes.barh(places, [row["ttft_p95_ms"] for row in shown], color="#c9dede", label="p95")
        axes.barh(places, [row["ttft_mean_ms"] for row in shown], color="#00796b", label="mean")
        for place, row in zip(places, shown, strict=True):
            axes.text(row["ttft_p95_ms"], place, f" {row['ttft_mean_ms']:,.0f}", va="center",
                      fontsize=8)  # fmt: skip
        axes.set_yticks(places, names, fontsize=8)
        axes.margins(x=0.12)
        axes.set_title(f"{rate:g} times the trace's rate", fontsize=10)
        axes.set_xlabel("ms to the first token; hit rate in brackets")
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "bench_routing.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 requests, to see that it runs")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this one")
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--requests", type=int, help="only the first of the trace")
    parser.add_argument("--rate", type=float, action="append", help="[default: 1 and 2.5]")
    parser.add_argument("--policy", action="append", help="only these")
    parser.add_argument("--results", type=Path, default=RESULTS / "bench_routing.json")
    arguments = parser.parse_args()
    requests = read_trace(arguments.trace, count_max=300 if arguments.quick else arguments.requests)
    path: Path = arguments.results
    kept = json.loads(path.read_text()) if path.exists() and not arguments.quick else {}
    tables: dict[str, list[Row]] = dict(kept.get("tables", {}))
    if arguments.quick:
        tables = {}
    print(__doc__)
    for name in arguments.table or list(TABLES):
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
    if not arguments.quick and tables.get("policies"):
        plot(tables)


if __name__ == "__main__":
    main()
