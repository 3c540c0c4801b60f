"""How fast a write spreads, what rest and load cost, how soon a death is known, how clusters heal.

    pip install -e '.[bench]'
    python benchmarks/bench_gossip.py [--quick] [--table spread|traffic|detection|healing|real]

Caveats first. All tables but the last are simulations: production nodes under a virtual clock, on
a network of which only delay and loss are modelled; one seed, so that they repeat exactly. The
figures beside ours are of models of other systems, and no measurements of them. p99 is the
greatest where there are fewer than a hundred samples. A round is a hop, as in the models, and a
copy that waits at its sender to be repeated, or for an exchange, takes as many rounds of 0.2 s
(`gossip_interval_s`) as it waits; the floor is what no way of sending once to three others can
better. In the last table processor time is real, sending and receiving together, and so is what
else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gossip_real import real
from gossip_tables import Rows, detection, false_alarms, healing, spread, traffic

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
LOSSES: Final = (0.0, 0.1, 0.25, 0.5)
COUNTS: Final = (8, 32, 128, 512, 1000)

Mark = tuple[str, str, bool]


def run_spread(quick: bool) -> dict[str, Rows]:
    counts = (8, 128) if quick else COUNTS
    return {"spread": spread(counts, LOSSES, samples=20 if quick else 120)}


def run_traffic(quick: bool) -> dict[str, Rows]:
    counts = (3, 32) if quick else (3, 10, 32, 128, 1000)
    return {"traffic": traffic(counts, (0.0, 10.0, 100.0), seconds=2.0)}


def run_detection(quick: bool) -> dict[str, Rows]:
    counts = (8, 128) if quick else (8, 32, 128, 1000)
    return {
        "detection": detection(counts, (0.0, 0.1), crashes=3 if quick else 10),
        "false_alarms": false_alarms(32 if quick else 100, LOSSES, seconds=10 if quick else 36),
    }


def run_healing(quick: bool) -> dict[str, Rows]:
    return {"healing": healing(20, 50) if quick else healing(100, 1000)}


def run_real(quick: bool) -> dict[str, Rows]:
    return {"real": real((3, 10) if quick else (3, 100), seconds=0.5 if quick else 5.0)}


TABLES: Final[dict[str, Callable[[bool], dict[str, Rows]]]] = {
    "spread": run_spread,
    "traffic": run_traffic,
    "detection": run_detection,
    "healing": run_healing,
    "real": run_real,
}

TITLES: Final = {
    "spread": "One write to everyone",
    "traffic": "Bytes a second that a node sends",
    "detection": "A crash, seen by probes alone (seconds)",
    "false_alarms": "Nobody dies",
    "healing": "Two halves meet again",
    "real": "One process, transport in memory, measured",
}


def marks(results: dict[str, Rows]) -> list[Mark]:
    """Return what was to be reached: (what, what came of it, whether it was)."""
    found: list[Mark] = []

    def add(what: str, value: str, is_met: bool) -> None:
        found.append((what, value, is_met))

    rows = results.get("spread", [])
    if rows:
        least = min(row["coverage"] for row in rows)
        add("every write reaches every node", f"{100 * least:.1f} %", least == 1.0)
    for row in rows:
        worst, copies = row["rounds_p99"], row["copies"]
        if row["n"] == 128 and row["loss"] == 0.0:
            add("n = 128: at most 5 rounds", f"{worst}", worst <= 5)
            add("n = 128: at most 3.5 copies", f"{copies:.2f}", copies <= 3.5)
        if row["n"] == 128 and row["loss"] == 0.25:
            add("n = 128, 25 % lost: at most 8 rounds", f"{worst}", worst <= 8)
    for row in results.get("traffic", []):
        if row["n"] == 1000 and not row["writes_per_s"]:
            value = row["other_bytes_per_s"]
            add("n = 1,000 at rest: under 200 B/s", f"{value:.0f} B/s", value < 200)
        if row["n"] <= 10 and not row["writes_per_s"]:
            value = row["other_bytes_per_s"] + row["probe_bytes_per_s"]
            add(f"n = {row['n']} at rest: under 600 B/s", f"{value:.0f} B/s", value < 600)
    for row in results.get("healing", []):
        ratio, seconds = row["ratio"], row["seconds"]
        add("healing: at most 2.5 times what differs", f"{ratio:.2f}", ratio <= 2.5)
        add("... agreed within 0.3 s", f"{seconds:.2f} s", row["is_equal"] and seconds <= 0.3)
    for row in results.get("detection", []):
        if row["n"] == 1000 and row["loss"] == 0.1:
            worst, wrong = row["everywhere_max_s"], row["false_downs"]
            add("n = 1,000, 10 % lost: Down everywhere under 6 s", f"{worst:.2f} s", worst < 6)
            hours = row["node_hours"]
            add("... and no false Down", f"{wrong} in {hours:.1f} node-hours", wrong == 0)
    return found


def show(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
    if value and abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def report(results: dict[str, Rows]) -> None:
    for table, rows in results.items():
        if not rows:
            continue
        columns = list(rows[0])
        cells = [columns, *([show(row[column]) for column in columns] for row in rows)]
        widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
        print(f"\n{TITLES[table]}\n")
        for line in cells:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()
    for what, value, is_met in marks(results):
        print(f"{'met   ' if is_met else 'MISSED'}  {what}: {value}")


def plot(results: dict[str, Rows]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"
    from matplotlib import pyplot as plt

    figure, ((rounds, seconds), (rest, deaths)) = plt.subplots(2, 2, figsize=(10, 8))
    for loss in LOSSES:
        rows = [row for row in results.get("spread", []) if row["loss"] == loss]
        label = f"{loss:.0%} lost"
        counts = [row["n"] for row in rows]
        rounds.plot(counts, [row["rounds_p99"] for row in rows], "o-", label=label)
        seconds.plot(counts, [row["time_p99_s"] for row in rows], "o-", label=label)
    for rate in (0.0, 10.0, 100.0):
        rows = [row for row in results.get("traffic", []) if row["writes_per_s"] == rate]
        values = [row["other_bytes_per_s"] for row in rows]
        label = f"{rate:.0f} writes/s" if rate else "at rest"
        rest.plot([row["n"] for row in rows], values, "o-", label=label)
    for loss in (0.0, 0.1):
        rows = [row for row in results.get("detection", []) if row["loss"] == loss]
        counts = [row["n"] for row in rows]
        label = f"Down everywhere, slowest, {loss:.0%} lost"
        deaths.plot(counts, [row["everywhere_max_s"] for row in rows], "o-", label=label)
        if not loss:
            first = [row["suspected_mean_s"] for row in rows]
            deaths.plot(counts, first, "o--", label="first suspicion, mean")
    rest.axhline(200, color="grey", linewidth=1)
    deaths.axhline(6, color="grey", linewidth=1)
    titles = {
        rounds: "rounds until a write is everywhere, p99",
        seconds: "seconds until a write is everywhere, p99",
        rest: "bytes a second that a node sends, probes left out",
        deaths: "seconds until a crash is known",
    }
    for axes, title in titles.items():
        axes.set_xscale("log")
        axes.set_xlabel("nodes")
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=8)
    seconds.set_yscale("log")
    rest.set_yscale("log")
    deaths.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(RESULTS / "bench_gossip.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small clusters, to see that it runs")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this one")
    arguments = parser.parse_args()
    path = RESULTS / "bench_gossip.json"
    kept = json.loads(path.read_text()) if path.exists() and not arguments.quick else {}
    results: dict[str, Rows] = {}
    print(__doc__)
    for name in arguments.table or list(TABLES):
        start = time.process_time()
        results |= TABLES[name](arguments.quick)
        print(f"{name}: {time.process_time() - start:.0f} s of processor time", flush=True)
    if not arguments.quick:
        merged = {**kept.get("tables", {}), **results}
        results = {name: merged[name] for name in TITLES if name in merged}
    report(results)
    if arguments.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    document = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "marks": [
            {"what": what, "value": value, "is_met": is_met}
            for what, value, is_met in marks(results)
        ],
        "tables": results,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
    if all(results.get(name) for name in ("spread", "traffic", "detection")):
        plot(results)
    print(f"\nwritten to {path.relative_to(HERE.parent)}, and drawn once all tables are there")


if __name__ == "__main__":
    main()
