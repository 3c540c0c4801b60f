"""Decisions beside a full tree: how long each takes, and what stops everything.

Each figure is taken in a process of its own, which fills the tree of a router to its default limit
of 67 million characters and goes on: each prompt drops what was used longest ago, everywhere. The
collector is kept as `meshlib-server serve` keeps it at 1,500 prompts a second. A decision is timed
with its placement and every fourth with the flush; CPU time of the thread, so what else the machine
does is not in it.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Iterator

from prefix_routed import WORKERS, node
from prefix_upkeep import in_a_process, text_of

from meshlib.limits import TREE_CHARACTERS_MAX
from meshlib.routing import PrefixSync
from meshlib_server.lag import COLLECTED_EACH_S, Freezer

__all__ = ["FULL_COLUMNS", "full_trees"]

FULL_COLUMNS = ("entries", "p50", "p99.9", "longest", "flush", "collector")
"""What is told of a full tree: how much it holds, and milliseconds."""

FULL_SIZES = (500, 2000, 8000)
COUNTED = 20_000
FLUSHED_EACH = 4
COLLECTED_EACH = int(1500 * COLLECTED_EACH_S)
"""Prompts between two collections."""


def prompts(size: int) -> Iterator[str]:
    """Yield prompts of which half is one of 20 beginnings, without end."""
    rng = random.Random(1)
    beginnings = [text_of(rng, size // 2) for _ in range(20)]
    while True:
        yield rng.choice(beginnings) + text_of(rng, size - size // 2)


def print_full(size: int, limit: int, counted: int) -> None:
    """Fill a tree, go on, and print what is told of it."""
    replica, sync = node("a", PrefixSync.TEXT)
    for number in range(WORKERS):
        name = f"w{number}"
        sync.sync_worker_state(name, model_id="m", url=f"http://{name}", health=True, load=0.0)
    config = f'{{"max_tree_size": {limit}}}'
    sync.sync_policy_state("m", policy_type="cache_aware", config=config)
    took, flushed, pauses = list[float](), list[float](), list[float]()
    clock, begun = time.thread_time_ns, 0

    def watch(phase: str, _info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = clock()
        else:
            pauses.append((clock() - begun) / 1_000_000)

    with Freezer():
        gc.callbacks.append(watch)
        for number, text in enumerate(prompts(size)):
            begin = clock()
            sync.route("m", text)
            took.append((clock() - begin) / 1_000_000)
            if number % FLUSHED_EACH == 0:
                begin = clock()
                replica.flush()
                replica.changes()
                flushed.append((clock() - begin) / 1_000_000)
            if number % COLLECTED_EACH == 0:
                gc.collect()
            if sync.trees.characters("m") < limit - size:
                counted_from = number
            elif number > counted_from + counted:
                break
        gc.callbacks.remove(watch)
    full = sorted(took[-counted:])
    print(
        sync.trees.entry_count("m"),
        full[len(full) // 2],
        full[len(full) * 999 // 1000],
        max(took),
        max(flushed),
        max(pauses, default=0.0),
    )


def full_trees(*, quick: bool) -> dict[str, list[float]]:
    """Return the figures of `FULL_COLUMNS` for prompts of some sizes."""
    limit = 1_000_000 if quick else TREE_CHARACTERS_MAX
    return {
        f"prompts of {size:,}": in_a_process(size, limit, COUNTED, file=__file__)
        for size in FULL_SIZES
    }


if __name__ == "__main__":
    print_full(*map(int, sys.argv[1:]))
