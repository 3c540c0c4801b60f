"""What a prefix index costs beside its calls: memory, the collector, eviction, nested texts.

Each figure of memory and of the collector is taken in a process of its own.
"""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefix_contenders import worker

from meshlib.prefix import BlockIndex, RadixTree, text_chain

__all__ = [
    "MEMORY",
    "collector",
    "in_a_process",
    "memory_per_character",
    "text_of",
    "upkeep",
]

ALPHABET = "abcdefghijklmnopqrstuvwxyz      etaoin"
POOL = "".join(random.Random(0).choices(ALPHABET, k=2_000_000))
MEMORY = {
    "8,000 characters of ASCII": 1.4,
    "one typographic quote in each": 1.4,
    "one emoji in each": 1.4,
    "turns of some 700, two workers": 1.4,
    "Chinese (3 bytes each in UTF-8)": None,
}
"""What texts the tree is filled with, and the most bytes a distinct character may take."""


def text_of(rng: random.Random, size: int) -> str:
    pieces = []
    while size > 0:
        start = rng.randrange(len(POOL) - 400)
        pieces.append(POOL[start : start + min(size, 400)])
        size -= 400
    return "".join(pieces)


def texts(kind: str) -> Iterator[tuple[str, int]]:
    """Yield texts without end, each with the number of its worker."""
    rng = random.Random(1)
    if "turns" in kind:
        for conversation in itertools.count():
            text = ""
            for turn in range(12):
                text += text_of(rng, rng.randrange(350, 1050))
                yield text, turn if turn % 4 == 3 else conversation
    prefixes = [text_of(rng, 4000) for _ in range(20)]
    wide = {"quote": "\N{RIGHT SINGLE QUOTATION MARK}", "emoji": "\N{GRINNING FACE}"}
    middle = next((character for name, character in wide.items() if name in kind), "x")
    for number in itertools.count():
        text = text_of(rng, 2000) + middle + text_of(rng, 1999)
        if "Chinese" in kind:
            text = "".join(map(chr, rng.choices(range(0x4E00, 0x9000), k=4000)))
        yield rng.choice(prefixes) + text, number


def resident_bytes() -> int:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * 4096


def print_memory(kind: str, characters: int) -> None:
    tree = RadixTree()
    tree.insert("warm up", tenant=worker(0), access=0)
    source = texts(kind)
    next(source)
    gc.collect()
    before = resident_bytes()
    for access, (text, number) in enumerate(source):
        tree.insert(text, tenant=worker(number), access=access)
        if tree.characters_total >= characters:
            break
    gc.collect()
    print((resident_bytes() - before) / tree.characters_total)


def print_collector(size: int, characters: int) -> None:
    """Fill a tree to its default limit, and let the collector walk it."""
    pauses: list[float] = []
    begun = 0.0

    def watch(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if info["generation"] == 2 and phase == "start":
            begun = time.perf_counter()
        elif info["generation"] == 2:
            pauses.append((time.perf_counter() - begun) * 1000)

    gc.callbacks.append(watch)
    tree, rng, number = RadixTree(), random.Random(1), 0
    prefixes = [text_of(rng, size // 2) for _ in range(20)]
    while tree.characters_total < characters - size:
        text = prefixes[number % 20] + text_of(rng, size - size // 2)
        tree.insert(text, tenant=worker(number), access=number)
        number += 1
    longest = max(pauses, default=0.0)
    whole = min(collection_ms() for _ in range(5))
    gc.freeze()
    print(len(tree), longest, whole, min(collection_ms() for _ in range(5)))


def collection_ms() -> float:
    begin = time.perf_counter()
    gc.collect()
    return (time.perf_counter() - begin) * 1000


def in_a_process(*arguments: object, file: str = __file__) -> list[float]:
    """Run a file of these with some arguments, and return the figures that it prints."""
    command = [sys.executable, file, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(each) for each in done.stdout.split()]


def memory_per_character(*, quick: bool) -> dict[str, float]:
    """Return the bytes that a distinct character takes, for each kind of text."""
    characters = 1_000_000 if quick else 20_000_000
    return {kind: in_a_process("memory", kind, characters)[0] for kind in MEMORY}


def collector(*, quick: bool) -> dict[str, list[float]]:
    """Return entries, longest pause while filling, a collection, and one after gc.freeze (ms)."""
    characters = 1_000_000 if quick else 67_108_864
    return {
        f"texts of {size:,}": in_a_process("collector", size, characters)
        for size in (200, 500, 2000, 8000)
    }


def evicting_us(tenants: int, count: int) -> float:
    """Return the median of dropping the oldest of all and inserting another, at the bound."""
    rng = random.Random(1)
    fresh = [text_of(rng, 2000) for _ in range(2 * count)]
    tree = RadixTree()
    for access, text in enumerate(fresh[:count]):
        tree.insert(text, tenant=worker_of(access, tenants), access=access)
    took = []
    for access, text in enumerate(fresh[count:], start=count):
        begin = time.thread_time_ns()
        oldest = tree.oldest_tenant()
        assert oldest is not None
        tree.evict(oldest[0], floor=oldest[1])
        tree.insert(text, tenant=worker_of(access, tenants), access=access)
        took.append(time.thread_time_ns() - begin)
    return statistics.median(took) / 1000


def worker_of(number: int, tenants: int) -> str:
    return f"http://worker-{number % tenants}:8000"


def nested_ms(count: int) -> float:
    """Return what inserting texts takes, each of which extends the one before."""
    nested = [("a turn of it. " * turn) for turn in range(1, count + 1)]
    tree = RadixTree()
    begin = time.thread_time_ns()
    for access, text in enumerate(nested):
        tree.insert(text, tenant="w", access=access)
    return (time.thread_time_ns() - begin) / 1_000_000


def print_blocks(blocks_max: int) -> None:
    """Fill a block index, evicting at the bound; print the longest insertion and its memory."""
    rng, index, access = random.Random(1), BlockIndex(blocks_max=blocks_max), 0
    prefixes = [text_of(rng, 4000) for _ in range(20)]
    gc.collect()
    before, put_in, longest, turns = resident_bytes(), 0, 0, 0
    gc.disable()
    while turns < 2000:
        chain = text_chain(rng.choice(prefixes) + text_of(rng, 4000), block_characters=64)
        access += 1
        begin = time.thread_time_ns()
        while index.size + len(chain) > blocks_max:
            oldest = index.oldest_tenant()
            assert oldest is not None
            index.evict(oldest[0], floor=oldest[1])
        index.insert(chain, tenant=worker(access), access=access)
        longest = max(longest, time.thread_time_ns() - begin)
        put_in += 8000
        if index.size + len(chain) > blocks_max:
            turns += 1
    gc.enable()
    held = resident_bytes() - before
    print(longest / 1_000_000, held / (index.size * 64))


def upkeep(*, quick: bool) -> dict[str, float]:
    """Return eviction with few and many tenants, nested insertions, and blocks at the bound."""
    count = 500 if quick else 4000
    figures: dict[str, Any] = {
        f"evict and insert, {tenants} tenants, us": evicting_us(tenants, count)
        for tenants in (8, 256)
    }
    figures["1,024 nested insertions, ms"] = nested_ms(1024)
    longest, held = in_a_process("blocks", 20_000 if quick else 2_097_152)
    figures["BlockIndex: longest insertion at the bound, ms"] = longest
    figures["BlockIndex: bytes a character held"] = held
    return figures


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        print_memory(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "blocks":
        print_blocks(int(sys.argv[2]))
    else:
        print_collector(int(sys.argv[2]), int(sys.argv[3]))
