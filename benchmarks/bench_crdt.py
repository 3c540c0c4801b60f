"""The types against pycrdt and loro (both Rust) and the pure-Python packages, in one run.

    pip install -e '.[bench]'    # and python3-crdt, which brings a package named `tests` along
    python benchmarks/bench_crdt.py [--quick] [--rounds N]

Caveats first. Figures are processor time, the best of several rounds, and the libraries take turns
in each round, so a machine that is busy for a while is so for all. Each row is measured in
processes of its own, so none runs in the memory that another has used up, and in five of them, of
which the best counts as that of the rounds does: where a process happens to lie in memory makes
pure Python up to half as slow again (maps from bytes 4.1 to 6.6 ms, pycrdt 4.6 to 5.3), for as
long as it runs. The Rust libraries do more than these types (text, history, undo), and they are
whole documents where ours are single states; they have no set, so a map with `True` as value
stands in. They also have no join of two objects: their figure for bytes, which includes reading
them, stands in both rows. An entry of our map carries a stamp, a number and its count of changes,
theirs the value. crdts runs with 2,000 elements and python3-crdt with 500, because their work
grows with the square; rates are for each element. The counter has one writer; a join of more costs
more with each. Two more packages were left out: xotl.crdt needs a typing-extensions older than
everything else here does, crdt-merge is under a licence that is not free.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from crdt_contenders import Contender, names
from crdt_rivals import available

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

RATES = {
    "counter_increments": "counter increments, each its own delta",
    "set_adds": "set adds into 10k, each its own delta",
    "set_adds_at_once": "set adds, 10k in one delta",
    "map_sets": "map sets into 10k, each its own delta",
    "deltas_in_order": "10k set deltas from bytes, in order",
    "deltas_shuffled": "10k set deltas from bytes, shuffled",
}
JOINS = {
    "set_join": "join of two 10k sets, half shared",
    "set_join_from_bytes": "two 10k sets, the other read from bytes",
    "map_join": "join of two 10k maps, half shared",
    "map_join_from_bytes": "two 10k maps, the other read from bytes",
}
STAND_INS = {"set_join": "set_join_from_bytes", "map_join": "map_join_from_bytes"}
RUST = ("pycrdt", "loro")
SLOW_S = 2.0
SHORT_S = 0.1
SHORT_REPEATED = 6
PROCESSES = 5


def measure(contenders: list[Contender], workload: str, rounds: int) -> dict[str, float]:
    """Time one workload for each library, taking turns; return the best seconds an element.

    Work of milliseconds, which a busy machine disturbs most, gets several times the rounds.
    """
    best: dict[str, float] = {}
    for round_number in range(rounds * SHORT_REPEATED):
        for contender in contenders:
            prepare = getattr(contender, workload, None)
            if prepare is None:
                continue
            known_s = best.get(contender.label, 0.0)
            if known_s > SLOW_S or (known_s > SHORT_S and round_number >= rounds):
                continue
            work, check = prepare()
            gc.collect()
            gc.disable()
            start = time.process_time()
            outcome = work()
            took_s = time.process_time() - start
            gc.enable()
            assert check(outcome), (contender.label, workload)
            best[contender.label] = min(took_s, best.get(contender.label, took_s))
    counts = {contender.label: contender.element_count for contender in contenders}
    return {label: took_s / counts[label] for label, took_s in best.items()}


def measure_apart(workload: str, rounds: int, processes: int) -> dict[str, float]:
    """Return the best that `measure` finds in some new processes."""
    command = [sys.executable, __file__, "--row", workload, "--rounds", str(rounds)]
    best: dict[str, float] = {}
    for _ in range(processes):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for label, took_s in json.loads(done.stdout).items():
            best[label] = min(took_s, best.get(label, took_s))
    return best


def resident_bytes() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def print_memory(label: str, count: int) -> None:
    """In a process of its own: print the bytes that a set of `count` elements takes."""
    contender: Any
    [contender] = [each for each in available() if each.label == label]
    elements = names(count)
    build = contender.held()
    gc.collect()
    before = resident_bytes()
    state = build(elements)
    gc.collect()
    print(resident_bytes() - before)
    del state


def memory(contender: Contender, *, quick: bool) -> float:
    """Return the resident bytes an element takes, the element's own text not counted."""
    count = contender.element_count if quick else contender.held_count
    command = [sys.executable, __file__, "--memory", contender.label, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / count


def report(results: dict[str, Any], labels: list[str]) -> None:
    versions = results["versions"]
    header = "".join(f"{label:>22}" for label in labels)
    print(f"\n{'':42}{header}")
    print(f"{'':42}" + "".join(f"{versions[label]:>22}" for label in labels))
    for texts in results["rows"].values():
        cells = ""
        for label in labels:
            if label not in texts["figures"]:
                cells += f"{'-':>22}"
                continue
            figure = f"{texts['figures'][label]:,.4g} {texts['unit']}"
            against = "" if label == "meshlib" else f" {texts['ratios'][label]:.2f}x"
            cells += f"{figure + against:>22}"
        print(f"{texts['title']:42}{cells}")
    print("\nThe factor behind a figure tells how many times better meshlib's is.")
    for row, texts in results["rows"].items():
        behind = [label for label in RUST if texts["ratios"].get(label, 1) < 1]
        if behind:
            print(f"behind {' and '.join(behind)}: {RATES.get(row, texts['title'])}")


def as_row(title: str, unit: str, figures: dict[str, float], *, is_rate: bool) -> dict[str, Any]:
    ours = figures["meshlib"]
    ratios = {
        label: ours / figure if is_rate else figure / ours
        for label, figure in figures.items()
        if label != "meshlib"
    }
    return {"title": title, "unit": unit, "figures": figures, "ratios": ratios}


def collect(contenders: list[Contender], *, rounds: int, quick: bool) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    processes = 1 if quick else PROCESSES
    for workload, title in RATES.items():
        figures = measure_apart(workload, rounds, processes)
        per_second = {label: 1e-3 / each_s for label, each_s in figures.items()}
        rows[workload] = as_row(title, "k/s", per_second, is_rate=True)
    joins = {workload: measure_apart(workload, rounds, processes) for workload in JOINS}
    for workload, title in JOINS.items():
        figures = {**joins.get(STAND_INS.get(workload, ""), {}), **joins[workload]}
        in_ms = {label: each_s * 10_000 * 1e3 for label, each_s in figures.items()}
        rows[workload] = as_row(title, "ms", in_ms, is_rate=False)
    encoded = {
        contender.label: contender.encoded() / contender.element_count
        for contender in contenders
        if hasattr(contender, "encoded")
    }
    rows["encoded"] = as_row("bytes on the wire, an element of 10", "B", encoded, is_rate=False)
    held = {contender.label: memory(contender, quick=quick) for contender in contenders}
    rows["memory"] = as_row("bytes of memory, an element", "B", held, is_rate=False)
    return rows


def plot(rows: dict[str, Any], labels: list[str], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"
    from matplotlib import pyplot as plt

    others = [label for label in labels if label != "meshlib"]
    figure, axes = plt.subplots(figsize=(9, 7))
    height = 0.8 / len(others)
    for position, label in enumerate(others):
        shown = [
            (i, row["ratios"][label])
            for i, row in enumerate(rows.values())
            if label in row["ratios"]
        ]
        axes.barh(
            [i + (position + 0.5) * height - 0.4 for i, _ in shown],
            [ratio - 1 for _, ratio in shown],
            left=1,
            height=height,
            label=label,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows.values()])
    axes.invert_yaxis()
    axes.set_xlabel("times better meshlib is (right of the line: ahead)")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    parser.add_argument("--rounds", type=int, default=2, help="rounds in each process")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory(arguments.memory[0], int(arguments.memory[1]))
        return
    if arguments.row:
        print(json.dumps(measure(available(), arguments.row, arguments.rounds)))
        return
    contenders = available()
    labels = [contender.label for contender in contenders]
    rounds = 1 if arguments.quick else arguments.rounds
    results: dict[str, Any] = {
        "versions": {contender.label: contender.version() for contender in contenders},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rounds": rounds,
        "processes": 1 if arguments.quick else PROCESSES,
        "rows": collect(contenders, rounds=rounds, quick=arguments.quick),
    }
    print(__doc__)
    print(
        f"Python {results['python']}, {results['machine']}, "
        f"best of {rounds} rounds in {results['processes']} processes"
    )
    report(results, labels)
    if arguments.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench_crdt.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results["rows"], labels, RESULTS / "bench_crdt.svg")
    print(f"\nwritten to {(RESULTS / 'bench_crdt.json').relative_to(HERE.parent)} and .svg")


if __name__ == "__main__":
    main()
