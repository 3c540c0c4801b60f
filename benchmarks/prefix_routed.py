"""What a routed request costs: bytes to each peer, and CPU at its node and at a peer.

70 % of each prompt is one of 20 beginnings, and 8 workers take them. Figures are without HTTP and
without sockets: the decision, the placement, the flush, the message; and at the peer reading the
message, joining it and telling what is new. CPU time of the thread, medians over flushes.
"""

from __future__ import annotations

import gc
import random
import statistics
import time

from meshlib.clock import HybridClock
from meshlib.gossip import DIALECTS
from meshlib.gossip.messages.kinds import EntriesMessage
from meshlib.identity import actor_id
from meshlib.limits import FORMAT_NEWEST
from meshlib.replication import LogEntry, Replica
from meshlib.routing import PrefixSync
from meshlib.sync import MeshSyncManager

__all__ = ["ROUTED_SIZES", "WORKERS", "beginnings", "node", "prompts", "routed", "routes"]

ROUTED_SIZES = (2000, 8000, 20_000)
ALPHABET = "abcdefghijklmnopqrstuvwxyz      etaoin"
SHARED_PART = 0.7
WORKERS = 8


def node(name: str, prefix_sync: PrefixSync) -> tuple[Replica, MeshSyncManager]:
    actor = actor_id(name, 1)
    replica = Replica(actor=actor, clock=HybridClock(actor, wall_clock=time.time))
    return replica, MeshSyncManager(replica, prefix_sync=prefix_sync)


def _beginnings(rng: random.Random, shared: int) -> list[str]:
    return ["".join(rng.choices(ALPHABET, k=shared)) for _ in range(20)]


def beginnings(size: int) -> list[str]:
    """Return what the prompts of a size begin with."""
    return _beginnings(random.Random(1), int(size * SHARED_PART))


def prompts(count: int, size: int) -> list[str]:
    rng, shared = random.Random(1), int(size * SHARED_PART)
    known = _beginnings(rng, shared)
    return [
        rng.choice(known) + "".join(rng.choices(ALPHABET, k=size - shared)) for _ in range(count)
    ]


def run(texts: list[str], at_once: int, prefix_sync: PrefixSync) -> dict[str, float]:
    """Route prompts, some with each flush, and bring them to a peer."""
    dialect = DIALECTS[FORMAT_NEWEST]
    (replica, sync), (other, _) = node("a", prefix_sync), node("b", prefix_sync)
    for number in range(WORKERS):
        name = f"w{number}"
        sync.sync_worker_state(name, model_id="m", url=f"http://{name}", health=True, load=0.0)
    other.receive(replica.flush())
    sent, here, there = list[float](), list[float](), list[float]()
    clock = time.thread_time_ns
    for start in range(0, len(texts), at_once):
        begin = clock()
        for text in texts[start : start + at_once]:
            sync.route("m", text)
        entries = replica.flush()
        message = EntriesMessage(tuple(map(replica.shortest, entries)), is_pushed=True)
        data = dialect.encode_message(message)
        replica.changes()
        middle = clock()
        for entry in dialect.decode_message(data).entries:  # type: ignore[union-attr]
            whole = entry if isinstance(entry, LogEntry) else other.whole(entry)
            assert whole is not None
            other.receive([whole])
        other.changes()
        here.append((middle - begin) / 1000 / at_once)
        there.append((clock() - middle) / 1000 / at_once)
        sent.append(len(data) / at_once)
    assert replica.content_digest() == other.content_digest()
    characters = len(texts[0])
    return {
        "bytes a character, to each peer": statistics.mean(sent) / characters,
        "CPU at its node, us": statistics.median(here),
        "CPU at a peer, us": statistics.median(there),
    }


def decisions(texts: list[str], prefix_sync: PrefixSync) -> dict[str, float]:
    """Return what `route` alone takes of new prompts, and of the same ones asked again."""
    replica, sync = node("a", prefix_sync)
    for number in range(WORKERS):
        name = f"w{number}"
        sync.sync_worker_state(name, model_id="m", url=f"http://{name}", health=True, load=0.0)
    replica.flush()
    new, known = list[float](), list[float]()
    clock = time.thread_time_ns
    for number, text in enumerate(texts):
        begin = clock()
        sync.route("m", text)
        new.append((clock() - begin) / 1000)
        if number % 4 == 0:
            replica.flush()
            replica.changes()
    for text in texts:
        begin = clock()
        sync.route("m", text)
        known.append((clock() - begin) / 1000)
    return {"new, us": statistics.median(new), "known, us": statistics.median(known)}


def routes(*, quick: bool) -> dict[str, list[float]]:
    """Return what `route` takes, without flush and message, by the sizes of `ROUTED_SIZES`."""
    rows: dict[str, list[list[float]]] = {}
    for _ in range(1 if quick else 5):
        for position, size in enumerate(ROUTED_SIZES):
            texts = prompts(100 if quick else 1600, size)
            for prefix_sync in PrefixSync:
                gc.collect()
                gc.disable()
                for name, figure in decisions(texts, prefix_sync).items():
                    row = rows.setdefault(f"{prefix_sync}: {name}", [[] for _ in ROUTED_SIZES])
                    row[position].append(figure)
                gc.enable()
    return {name: [statistics.median(runs) for runs in row] for name, row in rows.items()}


def routed(*, quick: bool) -> dict[str, list[float]]:
    """Return each figure by the sizes of `ROUTED_SIZES`."""
    rows: dict[str, list[float]] = {}
    for prefix_sync in PrefixSync:
        for at_once in (1, 4):
            for size in ROUTED_SIZES:
                texts = prompts(100 if quick else 1600, size)
                gc.collect()
                gc.disable()
                for name, figure in run(texts, at_once, prefix_sync).items():
                    label = f"{prefix_sync}, {at_once} a flush: {name}"
                    rows.setdefault(label, []).append(figure)
                gc.enable()
    return rows


if __name__ == "__main__":
    for label, figures in (routes(quick=False) | routed(quick=False)).items():
        print(f"{label:58}" + "".join(f"{figure:>10.3f}" for figure in figures))
