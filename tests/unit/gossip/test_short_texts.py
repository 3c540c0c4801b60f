"""Texts that are short, and hashes, are many in few bytes: no step takes too many of them.

The work of a step is counted, not timed: how often a tree is asked to take something.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.node import MeshNode
from meshlib.prefix import BlockIndex, RadixTree
from meshlib.replication import ReplicationConfig
from meshlib.routing import PrefixSync, TreeInsert

TEXTS = 6000
WORK_MAX = 1500
"""A text is taken into what was read, into what shows that it is new, and into the state."""

KINDS = {
    "texts of 20": (PrefixSync.TEXT, 20, TEXTS),
    "texts of 200": (PrefixSync.TEXT, 200, TEXTS),
    "hashes": (PrefixSync.HASH, 8000, TEXTS // 20),
}


class Work:
    """Counts what trees take, for each step of each node."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self.all = 0
        for kind, name in ((RadixTree, "place"), (BlockIndex, "place"), (BlockIndex, "place_all")):
            monkeypatch.setattr(kind, name, self._counting(getattr(kind, name)))
        for name in ("receive", "handle_timer", "packets_to_send"):
            monkeypatch.setattr(MeshNode, name, self._stepping(getattr(MeshNode, name)))
        self._now = 0

    def _counting(self, method: Any) -> Any:
        def count(tree: Any, keys: Any, **rest: Any) -> Any:
            self._now += 1 if isinstance(keys, str | int) else len(keys)
            return method(tree, keys, **rest)

        return count

    def _stepping(self, method: Any) -> Any:
        def step(node: MeshNode, *args: Any, **rest: Any) -> Any:
            self._now = 0
            try:
                return method(node, *args, **rest)
            finally:
                self.most = max(self.most, self._now)
                self.all += self._now

        return step


def texts(size: int) -> Iterator[str]:
    """Yield texts, half of which is one of twenty beginnings."""
    rng = random.Random(1)

    def draw(count: int) -> str:
        return "".join(rng.choices("abcdefghij klmnopqrst", k=count))

    beginnings = [draw(size // 2) for _ in range(20)]
    while True:
        yield rng.choice(beginnings) + draw(size - size // 2)


def in_order(network: MiniNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have frames come in the order in which they were sent, as those of a connection do."""
    monkeypatch.setattr(network._rng, "random", lambda: 0.5)


def filled(
    network: MiniNetwork, mode: PrefixSync, size: int, count: int, *, log_bytes_max: int
) -> MeshNode:
    """Start two nodes, of which one joins what the other has in its log, and write texts."""
    config = ReplicationConfig(log_bytes_max=log_bytes_max)
    node = network.start("n0", replication=config, prefix_sync=mode)
    network.run_until(lambda: node.is_ready)
    other = network.start("n2", replication=config, prefix_sync=mode)
    network.run_until(lambda: other.is_ready)
    for number, text in zip(range(count), texts(size), strict=False):
        node.sync.sync_tree_operation("m", TreeInsert(text, f"w{number % 8}"))
        if number % 8 == 0:
            network.pump("n0")
            network.run(0.001)
    network.run(1.0)
    return node


@pytest.mark.parametrize(("mode", "size", "count"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("log_bytes_max", [16 << 20, 1024], ids=["entries", "pages"])
def test_a_newcomer_takes_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, mode: PrefixSync, size: int, count: int, log_bytes_max: int
) -> None:
    """Whether they come as entries of the log or as pages of a state."""
    network = MiniNetwork()
    in_order(network, monkeypatch)
    first = filled(network, mode, size, count, log_bytes_max=log_bytes_max)
    work = Work(monkeypatch)
    late = network.start("n1", prefix_sync=mode)
    network.run_until(lambda: late.is_ready)
    network.run(2.0)

    assert first.replica.content_digest() == late.replica.content_digest()
    assert work.all >= TEXTS
    assert work.most <= WORK_MAX


@pytest.mark.parametrize(("mode", "size", "count"), KINDS.values(), ids=KINDS)
def test_what_is_placed_in_one_turn_is_taken_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, mode: PrefixSync, size: int, count: int
) -> None:
    """A program may place thousands before its node has its turn."""
    network = MiniNetwork()
    in_order(network, monkeypatch)
    first = network.start("n0", prefix_sync=mode)
    network.run_until(lambda: first.is_ready)
    second = network.start("n1", prefix_sync=mode)
    network.run_until(lambda: second.is_ready)
    for number, text in zip(range(count), texts(size), strict=False):
        first.sync.sync_tree_operation("m", TreeInsert(text, f"w{number % 8}"))
    work = Work(monkeypatch)
    network.pump("n0")
    network.run(2.0)

    assert first.replica.content_digest() == second.replica.content_digest()
    assert work.all >= TEXTS
    assert work.most <= WORK_MAX
