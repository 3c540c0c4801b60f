"""Ours beside kv-index 2.0.0, the Rust trees of the upstream gateway, in interleaved runs.

kv-index is built from its package by cargo into a directory that is deleted; without cargo, or
where the package cannot be had, ours is measured alone. Both do the same to the same prompts and
take the median over chunks of 16 calls of the CPU time of their thread; of several such medians,
taken in turn, the median is shown.
"""

from __future__ import annotations

import gc
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefix_contenders import WORKERS, worker

from meshlib.prefix import BlockIndex, Match, RadixTree, text_chain

__all__ = ["KV_INDEX", "SIZES", "beside"]

KV_INDEX = "kv-index 2.0.0"
PACKAGE = Path(__file__).resolve().parent / "kv_index"
SIZES = (500, 2000, 8000, 20_000)
CHUNK = 16
ROUNDS = 5

Figures = dict[str, float]


def median_us(call: Callable[[Sequence[Any]], None], items: Sequence[Any]) -> float:
    """Return the median over chunks of the CPU time of a call, in microseconds."""
    took = []
    gc.collect()
    gc.disable()
    for start in range(0, len(items) - CHUNK + 1, CHUNK):
        chunk = items[start : start + CHUNK]
        begin = time.thread_time_ns()
        call(chunk)
        took.append(time.thread_time_ns() - begin)
    gc.enable()
    return statistics.median(took) / CHUNK / 1000


def chooser(name: str) -> Callable[[Match], str]:
    return lambda _: name


def ours(stored: list[str], others: list[str]) -> Figures:
    """Return the figures of RadixTree and BlockIndex in microseconds."""
    figures: Figures = {}
    workers = [worker(number) for number in range(WORKERS)]
    choosers = [chooser(name) for name in workers]
    count = len(stored)

    def fused(tree: RadixTree, chunk: Sequence[Any]) -> None:
        for number, text in chunk:
            tree.match_and_insert(text, choosers[number % WORKERS], access=number)

    def insert(index: Any, chunk: Sequence[Any]) -> None:
        for number, request in chunk:
            index.insert(request, tenant=workers[number % WORKERS], access=number)

    def match(index: Any, chunk: Sequence[Any]) -> None:
        for request in chunk:
            index.match(request)

    tree, plain, index = RadixTree(), RadixTree(), BlockIndex()
    numbered = list(enumerate(stored))
    again = [(number + count, text) for number, text in numbered]
    figures["tree.match_and_insert"] = median_us(lambda chunk: fused(tree, chunk), numbered)
    figures["tree.match_and_insert known"] = median_us(lambda chunk: fused(tree, chunk), again)
    figures["tree.match"] = median_us(lambda chunk: match(tree, chunk), stored)
    figures["tree.match half"] = median_us(lambda chunk: match(tree, chunk), others)
    figures["tree.insert"] = median_us(lambda chunk: insert(plain, chunk), numbered)
    chains = [text_chain(text, block_characters=64) for text in stored]
    others_chains = [text_chain(text, block_characters=64) for text in others]
    figures["chain.insert"] = median_us(lambda chunk: insert(index, chunk), list(enumerate(chains)))
    figures["chain.match"] = median_us(lambda chunk: match(index, chunk), chains)
    figures["chain.match half"] = median_us(lambda chunk: match(index, chunk), others_chains)
    return figures


def build(target: Path) -> Path | None:
    """Build the program that measures kv-index, or say why not."""
    if shutil.which("cargo") is None:
        print(f"no cargo, left out: {KV_INDEX}")
        return None
    source = target / "source"
    shutil.copytree(PACKAGE, source)
    command = ["cargo", "build", "--quiet", "--release", "--target-dir", str(target / "out")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"cannot be built, left out: {KV_INDEX}\n{done.stderr[-500:]}")
        return None
    return target / "out" / "release" / "kv-index-bench"


def theirs(program: Path, prompts: Path) -> Figures:
    done = subprocess.run([program, prompts], capture_output=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return {
        f"{kind}.{name}": figure if name == "bytes" else figure / 1000
        for kind, rows in found.items()
        for name, figure in rows.items()
    }


def beside(
    make_prompts: Callable[[int, int, int], list[str]], *, quick: bool
) -> dict[str, dict[str, list[float]]]:
    """Return for ours and, where it could be built, kv-index each row's figures by size.

    Args:
        make_prompts: returns so many prompts of such a size for a seed.
        quick: few prompts and one round.
    """
    count, rounds = (128, 1) if quick else (1024, ROUNDS)
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory))
        for size in SIZES:
            stored, others = make_prompts(count, size, 1), make_prompts(count, size, 2)
            path = Path(directory) / "prompts"
            with path.open("wb") as file:
                for text in stored + others:
                    data = text.encode()
                    file.write(len(data).to_bytes(4, "little") + data)
            runs: dict[str, list[Figures]] = {}
            for _ in range(rounds):
                runs.setdefault("ours", []).append(ours(stored, others))
                if program is not None:
                    runs.setdefault(KV_INDEX, []).append(theirs(program, path))
            for label, figures in runs.items():
                for name in figures[0]:
                    middle = statistics.median(each[name] for each in figures)
                    results.setdefault(label, {}).setdefault(name, []).append(middle)
    return results
