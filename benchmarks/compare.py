"""Two versions of this package on the same work, and one of them against itself.

    python benchmarks/compare.py BASE NEW [--rows crdt,prefix,cluster] [--rounds 7]

BASE and NEW are folders that hold a checkout, or revisions of this one's history. The rows are
work of `bench_crdt.py`, `bench_prefix.py` and `bench_cluster.py`, each measured by the files of
its own checkout.

Caveats first. Figures are processor seconds, of the nodes' processes where there are some, and the
best of the rounds. In each round the base, the new version and the base once more take turns, each
in a new process. The column of the base against itself is what this machine cannot tell apart: a
row whose own difference is over its bound says nothing, and is measured again with more rounds.
How long a node takes to find out that another one is down is set by timers, not by work; it is in
no row.

The exit code is 1 when the new version takes more than the bound allows, in processes 20 %, in
others 8 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BOUNDS = {"crdt": 0.08, "prefix": 0.08, "cluster": 0.20}
REPEATED, REPEATED_S = 5, 0.4
"""One process does the work of a row so often, and for so long; the best counts."""

CRDT_ROWS = (
    "counter_increments",
    "set_adds",
    "set_adds_at_once",
    "map_sets",
    "deltas_in_order",
    "deltas_shuffled",
    "set_join",
    "set_join_from_bytes",
    "map_join",
    "map_join_from_bytes",
)
PROMPT_COUNT, PROMPT_SIZE = 1000, 8000
REQUEST_COUNT, WRITE_COUNT, RESTORED_COUNT = 6000, 3000, 6000

Work = Callable[[], Any]


# What is measured, in a process of the checkout that is measured


def processor_s(prepare: Callable[[], Work]) -> float:
    """Return the processor seconds of some work, the best of a few times."""
    best, total, count = float("inf"), 0.0, 0
    while count < REPEATED or total < REPEATED_S:
        work = prepare()
        gc.collect()
        gc.disable()
        start = time.process_time()
        work()
        took = time.process_time() - start
        gc.enable()
        best, total, count = min(best, took), total + took, count + 1
    return best


def first_of(prepare: Callable[[], tuple[Work, Any]]) -> Work:
    """Return the work that a contender prepares, without the check of its outcome."""
    return prepare()[0]


def crdt_rows() -> Iterator[tuple[str, float]]:
    """Measure the work of `bench_crdt.py` that this package does in it."""
    contender = import_module("crdt_contenders").Meshlib()
    for row in CRDT_ROWS:
        yield row, processor_s(partial(first_of, getattr(contender, row)))


def insert_all(kind: Any, requests: list[Any]) -> Work:
    """Prepare to put requests into an empty index; the work returns the index."""
    index = kind()

    def work() -> Any:
        for number, request in enumerate(requests):
            index.insert(request, number)
        return index

    return work


def match_all(kind: Any, held: list[Any], asked: list[Any]) -> Work:
    """Prepare to ask an index that holds some requests for others."""
    index = insert_all(kind, held)()
    return lambda: [index.match(request) for request in asked]


def prefix_rows() -> Iterator[tuple[str, float]]:
    """Measure the work of `bench_prefix.py`: trees by themselves, and replicated."""
    bench, contenders = import_module("bench_prefix"), import_module("prefix_contenders")
    crdt, prefix = import_module("meshlib.crdt"), import_module("meshlib.prefix")
    texts, others = (list(bench.prompts(PROMPT_COUNT, PROMPT_SIZE, seed=n)) for n in (1, 2))
    chains = [prefix.text_chain(text) for text in texts]

    for kind in (contenders.Tree, contenders.Blocks):
        held, half = ([kind().request(text) for text in some] for some in (texts, others))
        label = kind.__name__.lower()
        yield f"{label}: insert", processor_s(partial(insert_all, kind, held))
        yield f"{label}: match", processor_s(partial(match_all, kind, held, held))
        yield f"{label}: match half", processor_s(partial(match_all, kind, held, half))

    def absorb_texts() -> Work:
        state = crdt.PrefixCacheState()

        def work() -> None:
            for number, text in enumerate(texts):
                tenant = contenders.worker(number)
                state.absorb(state.insert(text, tenant=tenant, access=number + 1))

        return work

    def absorb_hashes() -> Work:
        state = crdt.HashedPrefixCacheState()

        def work() -> None:
            for number, chain in enumerate(chains):
                tenant = contenders.worker(number)
                state.absorb(state.insert_blocks(chain, tenant=tenant, access=number + 1))

        return work

    yield "text: insert and absorb", processor_s(absorb_texts)
    yield "hashes: insert and absorb", processor_s(absorb_hashes)


def spent_s(*process_ids: int) -> float:
    """Return the processor seconds that processes have taken so far."""
    ticks = 0
    for process_id in process_ids:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # of the user, and of the system
    return ticks / os.sysconf("SC_CLK_TCK")


async def ask(node: Any, count: int, *, length_of: Callable[[bytes], int]) -> None:
    """Ask a node so many times for its status, over a few kept-alive connections."""
    head = f"Host: x\r\nAuthorization: Bearer {node.token}\r\n\r\n"
    request = f"GET /mesh/status HTTP/1.1\r\n{head}".encode()

    async def some(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        for _ in range(share):
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            await reader.readexactly(length_of(answer))
        writer.close()

    await asyncio.gather(*(some(count // 8) for _ in range(8)))


def cluster_rows() -> Iterator[tuple[str, float]]:
    """Measure three real nodes: what requests, writes and a start cost their processes."""
    bench = import_module("bench_cluster")
    with bench.cluster() as nodes:
        everyone = [node.process.pid for node in nodes]

        def held(node: Any) -> int:
            status = node.get("/mesh/status")
            return int(status["stores"]["app_count"]) if status is not None else -1

        start = spent_s(everyone[0])
        asyncio.run(ask(nodes[0], REQUEST_COUNT, length_of=bench.content_length))
        yield f"{REQUEST_COUNT} x GET /mesh/status", spent_s(everyone[0]) - start

        start = spent_s(*everyone)
        asyncio.run(bench.fill(nodes[0], WRITE_COUNT))
        bench.wait_until(lambda: all(held(node) == WRITE_COUNT for node in nodes))
        yield f"{WRITE_COUNT} writes, on all three", spent_s(*everyone) - start

        asyncio.run(bench.fill(nodes[0], RESTORED_COUNT))
        wanted = held(nodes[0])
        victim = nodes[2]
        victim.process.kill()
        victim.process.wait()
        victim.start()
        bench.wait_until(lambda: held(victim) == wanted)
        yield f"start, and {RESTORED_COUNT} keys restored", spent_s(victim.process.pid)


GROUPS = {"crdt": crdt_rows, "prefix": prefix_rows, "cluster": cluster_rows}


# Taking turns


@contextlib.contextmanager
def checkout(given: str) -> Iterator[Path]:
    """Yield the folder of a checkout; that of a revision is made, and taken away again."""
    if Path(given).is_dir():
        yield Path(given).resolve()
        return
    command = ["git", "-C", str(HERE.parent), "archive", "--format=tar", given]
    packed = subprocess.run(command, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory(prefix="meshlib-compare-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def measure(root: Path, group: str) -> dict[str, float]:
    """Measure the rows of a group in a new process that imports from one checkout only."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "benchmarks")]),
        "PYTHONHASHSEED": "0",
    }
    # -P: the folder of this very file must not come before those of the checkout.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--measure", group, str(root)]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{group} of {root}:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def print_measured(group: str, root: Path) -> None:
    """In a process of its own: print the rows of a group as JSON."""
    package = Path(import_module("meshlib").__file__ or "").resolve()
    assert package.is_relative_to(root), f"{package} is not of {root}"
    print(json.dumps(dict(GROUPS[group]())))


def best_of(sides: dict[str, Path], group: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return the best of each row for each side; another one begins in each round."""
    best: dict[str, dict[str, float]] = {side: {} for side in sides}
    order = list(sides)
    for number in range(rounds):
        turn = number % len(order)
        for side in order[turn:] + order[:turn]:
            for row, took_s in measure(sides[side], group).items():
                best[side][row] = min(took_s, best[side].get(row, took_s))
        print(f"{group}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return best


def report(group: str, best: dict[str, dict[str, float]]) -> list[str]:
    """Print the rows of a group; return those in which the new version is over the bound."""
    bound, over = BOUNDS[group], []
    print(f"\n{group + f', bound {bound:.0%}':40}{'base, ms':>10}{'new, ms':>10}", end="")
    print(f"{'new/base':>10}{'base/base':>11}")
    for row, base_s in best["base"].items():
        ratio = best["new"][row] / base_s
        own = best["base again"][row] / base_s
        verdict = ""
        if ratio > 1 + bound:
            verdict = "  over"
            over.append(row)
        if abs(own - 1) > bound:
            verdict += "  unsteady"
        print(f"{row:40}{base_s * 1e3:>10.1f}{best['new'][row] * 1e3:>10.1f}", end="")
        print(f"{ratio:>10.3f}{own:>11.3f}{verdict}")
    return over


def main() -> None:
    """Compare, print the table, and end with 1 when a row is over its bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", nargs="?", help="a folder or a revision")
    parser.add_argument("new", nargs="?", help="a folder or a revision")
    parser.add_argument("--rows", default=",".join(GROUPS), help="which groups, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print_measured(arguments.measure[0], Path(arguments.measure[1]))
        return
    if arguments.base is None or arguments.new is None:
        parser.error("two versions are compared")
    groups = arguments.rows.split(",")
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    over: list[str] = []
    with checkout(arguments.base) as base, checkout(arguments.new) as new:
        sides = {"base": base, "new": new, "base again": base}
        for group in groups:
            over += report(group, best_of(sides, group, arguments.rounds))
    if over:
        print(f"\nover the bound: {', '.join(over)}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
