"""The prefix indexes: inserting, matching, evicting, memory and what travels.

    pip install -e '.[bench]'
    pip install --no-deps ai-dynamo-runtime    # 75 MB; left out when it is missing
    cargo                                      # for kv-index; left out when it is missing
    python benchmarks/bench_prefix.py [--quick]

Caveats first. Figures are medians over the calls, in wall time of one thread. Half of each prompt
is one of 20 shared prefixes; 8 workers. Text in a radix tree and hashes of blocks are two ways of
asking: the block indexes are shown with the hashes made before, and the making in a row of its
own. Dynamo's tree runs in a thread of its own, so its figures include handing over, which a busy
machine makes slow; its insertion includes writing the JSON event that it reads. pygtrie has a
node for each character and finds whole keys only; it is given 20 texts, the others 1,000.
kv-index is Rust called from Rust and locks for many threads; its figures and ours beside it are
CPU time, taken in turn on the same prompts, and a known prompt is inserted again with a new time.
Ray's PrefixTree and the HashTrie of vLLM's production stack are no packages of their own: their
figures are marks from another day on a machine of the same size, not of this run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prefix_beside import KV_INDEX, beside
from prefix_beside import SIZES as BESIDE_SIZES
from prefix_contenders import WORKERS, Contender, Tree, available, worker
from prefix_full import FULL_COLUMNS, full_trees
from prefix_routed import ROUTED_SIZES, routed, routes
from prefix_upkeep import MEMORY, collector, memory_per_character, upkeep

from meshlib.crdt import HashedPrefixCacheState, PrefixCacheState, encode
from meshlib.prefix import text_chain

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SIZES = (2000, 8000, 20_000)
HELD_CHARACTERS = 40_000_000
OPERATIONS = ("request", "insert", "match", "match half")
ALPHABET = "abcdefghijklmnopqrstuvwxyz      etaoin"

MARKS = {
    "Ray 2.60 PrefixTree": {
        "insert": (61, 220, 540),
        "match": (58, 217, 533),
        "match half": (31, 110, 265),
    },
    "production-stack HashTrie": {
        "insert": (27, 98, 250),
        "match": (23, 87, 229),
        "match half": (11, 45, 125),
    },
    "probe, a bare tree": {
        "insert": (2.6, 3.8, 7.2),
        "match": (2.5, 3.0, 3.7),
        "match half": (2.2, 2.9, 4.0),
    },
}
"""Microseconds for each size, measured when the tree was designed."""


def prompts(count: int, size: int, *, seed: int) -> Iterator[str]:
    """Yield prompts of which half is one of 20 prefixes, the same whatever the seed."""
    shared = random.Random(0)
    prefixes = ["".join(shared.choices(ALPHABET, k=size // 2)) for _ in range(20)]
    rng = random.Random(seed)
    for _ in range(count):
        yield rng.choice(prefixes) + "".join(rng.choices(ALPHABET, k=size - size // 2))


def median_us(calls: Iterable[Callable[[], Any]]) -> float:
    """Time each call by itself; return the median in microseconds."""
    clock = time.perf_counter_ns
    took = []
    gc.collect()
    gc.disable()
    for call in calls:
        start = clock()
        call()
        took.append(clock() - start)
    gc.enable()
    return statistics.median(took) / 1000


def measure(kind: type[Contender], size: int, count: int) -> dict[str, float]:
    """Return the median of each operation in microseconds."""
    contender: Any = kind()
    texts = list(prompts(count, size, seed=1))
    others = list(prompts(count, size, seed=2))
    figures: dict[str, float] = {}
    if hasattr(kind, "hashes_first"):
        figures["request"] = median_us([partial(contender.request, t) for t in texts])
    requests = [contender.request(text) for text in texts]
    half_requests = [contender.request(text) for text in others]
    figures["insert"] = median_us([partial(contender.insert, r, n) for n, r in enumerate(requests)])
    figures["match"] = median_us([partial(contender.match, r) for r in requests])
    whole = statistics.median(contender.match(request) for request in requests)
    half = statistics.median(contender.match(request) for request in half_requests)
    assert size - 64 < whole <= size, (kind.label, whole)
    if half:
        assert size // 2 - 64 < half < size // 2 + 64, (kind.label, half)
        figures["match half"] = median_us([partial(contender.match, r) for r in half_requests])
    return figures


def resident_bytes() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def print_memory(label: str, size: int, count: int) -> None:
    """In a process of its own: print the resident bytes that an index of `count` texts takes."""
    [kind] = [each for each in available() if each.label == label]
    contender: Any = kind()
    contender.insert(contender.request("warm up" * 20), 0)
    gc.collect()
    before = resident_bytes()
    for number, text in enumerate(prompts(count, size, seed=1)):
        contender.insert(contender.request(text), number)
    gc.collect()
    print(resident_bytes() - before)


def memory(kind: type[Contender], size: int, count: int) -> float:
    """Return the bytes of memory for each character that was put in."""
    command = [sys.executable, __file__, "--memory", kind.label, str(size), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / (size * count)


def maintenance(size: int, count: int) -> dict[str, float]:
    """Return what eviction, removal and copies cost, in milliseconds."""
    contender = Tree()
    for number, text in enumerate(prompts(count, size, seed=1)):
        contender.insert(text, number)
    tree = contender.tree
    figures = {"copy of the tree": median_us([tree.copy] * 3) / 1000}
    evictions = [partial(lambda n: tree.evict(worker(n), floor=count // 2), n) for n in range(4)]
    removals = [partial(lambda n: tree.remove_tenant(worker(n)), n) for n in range(4, WORKERS)]
    figures["evict half of a worker"] = median_us(evictions) / 1000
    figures["remove a worker"] = median_us(removals) / 1000
    return figures


def replicated(size: int, count: int) -> dict[str, float]:
    """Return what a write to the replicated cache costs, and the bytes of one and of all."""
    text_state, hash_state = PrefixCacheState(), HashedPrefixCacheState()
    text_state.digest()
    hash_state.digest()
    texts = list(prompts(count, size, seed=1))
    chains = [text_chain(text) for text in texts]

    def put(number: int) -> None:
        delta = text_state.insert(texts[number], tenant=worker(number), access=number + 1)
        text_state.absorb(delta)

    def put_hashes(number: int) -> None:
        delta = hash_state.insert_blocks(chains[number], tenant=worker(number), access=number + 1)
        hash_state.absorb(delta)

    figures = {
        "text: insert and absorb, us": median_us([partial(put, n) for n in range(count)]),
        "hashes: insert and absorb, us": median_us([partial(put_hashes, n) for n in range(count)]),
    }
    new = next(prompts(1, size, seed=3))
    delta = text_state.insert(new, tenant=worker(0), access=count + 1)
    hash_delta = hash_state.insert_blocks(text_chain(new), tenant=worker(0), access=count + 1)
    figures["text: bytes of one insertion"] = len(encode(delta))
    figures["hashes: bytes of one insertion"] = len(encode(hash_delta))
    figures["text: bytes of a removal"] = len(encode(text_state.remove_tenant(worker(0))))
    figures["text: whole state, bytes a character"] = len(encode(text_state)) / (size * count)
    figures["hashes: whole state, bytes a character"] = len(encode(hash_state)) / (size * count)
    return figures


def report(results: dict[str, Any]) -> None:
    print(f"{'microseconds, median':28}" + "".join(f"{size:>16,}" for size in SIZES))
    ours = results["figures"][Tree.label]
    shown = {**results["figures"], **results["marks"]}
    for label, rows in shown.items():
        print(f"\n{label} {results['versions'].get(label, '(mark)')}")
        for operation in OPERATIONS:
            if operation not in rows:
                continue
            cells = ""
            for position, figure in enumerate(rows[operation]):
                mine = ours.get(operation, [None] * 3)[position]
                ratio = "" if mine is None or label == Tree.label else f" {figure / mine:.1f}x"
                cells += f"{figure:>9.1f}{ratio:>7}"
            print(f"  {operation:26}{cells}")
    print("\nThe factor behind a figure tells how many times longer than RadixTree it takes.")
    for title, unit in (("memory", "bytes a character put in"), ("maintenance", "milliseconds")):
        print(f"\n{title}, {unit}")
        for label, figures in results[title].items():
            print(f"  {label:40}" + "".join(f"{figure:>12.2f}" for figure in figures))
    print("\nreplicated")
    for label, figures in results["replicated"].items():
        print(f"  {label:40}" + "".join(f"{figure:>12,.2f}" for figure in figures))

    print(f"\n{'a routed request, 70 % known':58}" + "".join(f"{n:>10,}" for n in ROUTED_SIZES))
    for label, figures in results["routed"].items():
        print(f"  {label:56}" + "".join(f"{figure:>10.3f}" for figure in figures))
    print("\nroute alone, CPU microseconds")
    for label, figures in results["routes"].items():
        print(f"  {label:56}" + "".join(f"{figure:>10.1f}" for figure in figures))

    report_beside(results["beside"])
    print("\nmemory, bytes a distinct character (at most)")
    for label, figure in results["distinct"].items():
        most = "" if MEMORY[label] is None else f"  ({MEMORY[label]})"
        print(f"  {label:40}{figure:>12.2f}{most}")
    print("\ncollector, a tree of 67 million characters, milliseconds")
    print(f"  {'':24}{'entries':>10}{'while filling':>15}{'collection':>12}{'after freeze':>14}")
    for label, (entries, filling, whole, frozen) in results["collector"].items():
        print(f"  {label:24}{entries:>10,.0f}{filling:>15.1f}{whole:>12.1f}{frozen:>14.1f}")
    print("\nroute beside a full tree of 67 million characters, CPU milliseconds")
    print(f"  {'':24}" + "".join(f"{name:>12}" for name in FULL_COLUMNS))
    for label, figures in results["full"].items():
        print(f"  {label:24}" + "".join(f"{figure:>12,.2f}" for figure in figures))
    print("\nupkeep")
    for label, figure in results["upkeep"].items():
        print(f"  {label:48}{figure:>12.2f}")


def report_beside(results: dict[str, dict[str, list[float]]]) -> None:
    """Print ours and kv-index row by row, with how many times longer kv-index takes."""
    print(f"\n{'beside ' + KV_INDEX + ', CPU us':32}" + "".join(f"{n:>22,}" for n in BESIDE_SIZES))
    theirs = results.get(KV_INDEX, {})
    for name, figures in results["ours"].items():
        cells = ""
        for position, figure in enumerate(figures):
            other = theirs[name][position] if name in theirs else None
            ratio = "" if other is None else f"{other:.2f} {other / figure:.2f}x"
            cells += f"{figure:>9.2f}{ratio:>13}"
        print(f"  {name:30}{cells}")
    if theirs:
        print("Ours, theirs, and how many times longer theirs takes.")


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"
    from matplotlib import pyplot as plt

    operations = OPERATIONS[1:]
    figure, axes = plt.subplots(1, len(operations), figsize=(12, 4.5), sharey=True)
    for axis, operation in zip(axes, operations, strict=True):
        for label, rows in results["figures"].items():
            if operation in rows:
                axis.plot(SIZES, rows[operation], marker="o", label=label)
        rust = results["beside"].get(KV_INDEX, {}).get(f"tree.{operation}")
        if rust is not None:
            axis.plot(BESIDE_SIZES, rust, marker="x", linestyle="--", label=KV_INDEX)
        for label, rows in results["marks"].items():
            axis.plot(SIZES, rows[operation], linestyle=":", label=f"{label} (mark)")
        axis.set_title(operation)
        axis.set_xlabel("characters of a prompt")
        axis.set_yscale("log")
    axes[0].set_ylabel("microseconds, median")
    axes[0].legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def collect(kinds: list[type[Contender]], *, quick: bool) -> dict[str, Any]:
    def count(kind: type[Contender]) -> int:
        return min(kind.text_count, 100) if quick else kind.text_count

    def held(kind: type[Contender], size: int) -> int:
        is_small = quick or kind.text_count < Tree.text_count
        return count(kind) if is_small else HELD_CHARACTERS // size

    return {
        "versions": {kind.label: kind().version() for kind in kinds},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "sizes": SIZES,
        "figures": {
            kind.label: columns([measure(kind, size, count(kind)) for size in SIZES])
            for kind in kinds
        },
        "marks": MARKS,
        "beside": beside(lambda n, size, seed: list(prompts(n, size, seed=seed)), quick=quick),
        "distinct": memory_per_character(quick=quick),
        "collector": collector(quick=quick),
        "upkeep": upkeep(quick=quick),
        "memory": {
            kind.label: [memory(kind, size, held(kind, size)) for size in SIZES] for kind in kinds
        },
        "maintenance": columns([maintenance(size, count(Tree)) for size in SIZES]),
        "routed": routed(quick=quick),
        "routes": routes(quick=quick),
        "full": full_trees(quick=quick),
        "replicated": columns([replicated(size, count(Tree)) for size in SIZES]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few texts, to see that it runs")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        label, size, count = arguments.memory
        print_memory(label, int(size), int(count))
        return
    results = collect(available(), quick=arguments.quick)
    print(__doc__)
    print(f"Python {results['python']}, {results['machine']}\n")
    report(results)
    if arguments.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench_prefix.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, RESULTS / "bench_prefix.svg")
    print(f"\nwritten to {(RESULTS / 'bench_prefix.json').relative_to(HERE.parent)} and .svg")


if __name__ == "__main__":
    main()
