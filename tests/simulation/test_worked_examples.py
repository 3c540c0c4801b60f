"""The specification's worked examples of routing, step by step, over three real nodes.

With `compat: specification`, which takes the documented steps to the letter: its "smallest tree" is
the worker with the fewest texts, the first by name among equals.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib.node import MeshNode
from meshlib.routing import RouteDecision, RouteReason, TreeInsert, TreeRemove, TreeState
from meshlib.testing.routing.routers import RouterCluster

MODEL = "llama-3"
CONFIG = {
    "cache_threshold": 0.7, "balance_abs_threshold": 10, "balance_rel_threshold": 1.5,
    "eviction_interval_secs": 300, "max_tree_size": 10000, "compat": "specification",
}  # fmt: skip


class Trio:
    """Node1, node2 and node3, and what one does to them."""

    def __init__(self, seed: int = 0) -> None:
        self.cluster = RouterCluster(3, seed=seed)
        self.cluster.start()
        self.use(1, self._configure)
        self.gossip()

    def _configure(self, node: MeshNode) -> None:
        node.sync.sync_policy_state(MODEL, policy_type="cache_aware", config=json.dumps(CONFIG))
        for name in ("worker1", "worker2"):
            node.sync.sync_worker_state(
                name, model_id=MODEL, url=f"http://{name}", health=True, load=0.0
            )

    def use(self, number: int, action: Any) -> Any:
        return self.cluster.use(self.cluster.hosts[number - 1], lambda node, _: action(node))

    def gossip(self, seconds: float = 1.0) -> None:
        """T2, T4: what was done at one is known to all."""
        self.cluster.advance(self.cluster.now + seconds)

    def route(self, number: int, text: str) -> RouteDecision:
        decision = self.use(number, lambda node: node.route(MODEL, text))
        assert isinstance(decision, RouteDecision)
        return decision

    def trees(self) -> list[TreeState | None]:
        return [self.tree(number) for number in (1, 2, 3)]

    def tree(self, number: int) -> TreeState | None:
        state: TreeState | None = self.use(number, lambda n: n.sync.get_tree_state(MODEL))
        return state

    def restart(self, number: int) -> None:
        host = self.cluster.hosts[number - 1]
        self.cluster.crash(host)
        self.cluster.advance(self.cluster.now + 0.2)
        self.cluster.start_router(host)


def tree_of(version: int, *operations: tuple[str, str]) -> TreeState:
    """Return a tree of these insertions, the least recently used first."""
    inserts = tuple(TreeInsert(text, tenant) for text, tenant in operations)
    return TreeState(model_id=MODEL, operations=inserts, version=version)


@pytest.fixture
def trio() -> Trio:
    return Trio()


def test_the_complete_workflow(trio: Trio) -> None:
    """Steps 1 to 5 of "Global Tree Synchronization Workflow", the restart included."""
    # Step 1: the tree is empty, no match, the smallest tree is worker1's.
    first = trio.route(1, "The quick brown fox")
    assert ("worker1", RouteReason.NO_MATCH, 0) == (first.worker_id, first.reason, first.matched)
    fox = ("The quick brown fox", "worker1")
    assert tree_of(1, fox) == trio.tree(1)

    # Step 2: node2 and node3 match node1.
    trio.gossip()
    assert [tree_of(1, fox)] * 3 == trio.trees()

    # Step 3: node2 has a similar request, above the threshold; no new operation.
    second = trio.route(2, "The quick brown")
    assert ("worker1", RouteReason.PREFIX_MATCH) == (second.worker_id, second.reason)
    trio.gossip()
    assert [1] * 3 == [tree.version for tree in trio.trees() if tree is not None]

    # Step 4: node3 has a different one: the smallest tree is worker2's.
    third = trio.route(3, "Hello world")
    assert ("worker2", RouteReason.NO_MATCH) == (third.worker_id, third.reason)
    trio.gossip()
    both = tree_of(2, fox, ("Hello world", "worker2"))
    assert [both] * 3 == trio.trees()

    # Step 5: node1 restarts, and has full cache knowledge before it says that it is ready.
    trio.restart(1)
    node = trio.cluster.hosts[0].node
    while not node.is_ready:
        trio.cluster.advance(trio.cluster.now + 0.005)
    assert 2 == trio.use(1, lambda n: n.sync.policy(MODEL).restore_tree_state_from_mesh())
    assert both == trio.tree(1)
    assert "worker1" == trio.route(1, "The quick brown fox jumps").worker_id


def test_the_timeline(trio: Trio) -> None:
    """T0 to T5 of "Global Synchronization in Action"."""
    # T0: all nodes have empty trees.
    assert [None] * 3 == trio.trees()

    # T1: node1 places; the others have not received it.
    assert "worker1" == trio.route(1, "Hello world").worker_id
    hello = ("Hello world", "worker1")
    assert [tree_of(1, hello), None, None] == trio.trees()

    # T2: gossip.
    trio.gossip()
    assert [tree_of(1, hello)] * 3 == trio.trees()

    # T3: a hit at node2 needs no sync; node3 places "Help", of which three of four characters
    # are worker1's: 0.75 is over the threshold of 0.7, so the example's own threshold is higher.
    high = json.dumps({**CONFIG, "cache_threshold": 0.75})
    trio.use(
        2,
        lambda n: n.sync.sync_policy_state(MODEL, policy_type="cache_aware", config=high),
    )
    trio.gossip()
    assert "worker1" == trio.route(2, "Hello").worker_id
    assert "worker2" == trio.route(3, "Help").worker_id

    # T4, T5: all trees are the same, and all nodes can route both.
    trio.gossip()
    assert [tree_of(2, hello, ("Help", "worker2"))] * 3 == trio.trees()
    for number in (1, 2, 3):
        assert "worker1" == trio.route(number, "Hello").worker_id
        assert "worker2" == trio.route(number, "Help").worker_id


def test_the_synchronization_example(trio: Trio) -> None:
    """Steps 1 to 4 of "Complete Synchronization Example": a worker's failure is the last."""
    # Steps 1 and 2.
    assert "worker1" == trio.route(1, "Hello world").worker_id
    trio.gossip()

    # Step 3: "Hello" is matched in full at node3, and is no new operation.
    decision = trio.route(3, "Hello")
    assert ("worker1", 5, RouteReason.PREFIX_MATCH) == (
        decision.worker_id, decision.matched, decision.reason,
    )  # fmt: skip
    trio.gossip()
    assert [1] * 3 == [tree.version for tree in trio.trees() if tree is not None]

    # Step 4: worker1 fails; node1 removes it, and so do all.
    trio.use(1, lambda n: n.sync.sync_tree_operation(MODEL, TreeRemove("worker1")))
    trio.gossip()
    assert [tree_of(2)] * 3 == trio.trees()
    trio.use(1, lambda n: n.sync.remove_worker_state("worker1"))
    trio.gossip()
    assert ["worker2"] * 3 == [trio.route(n, "Hello world").worker_id for n in (1, 2, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_forty_prompts_follow_and_to_a_restarted_node_before_it_is_ready(seed: int) -> None:
    """What node1 places node2 and node3 place alike, and so does node3's next start."""
    trio = Trio(seed)
    prompts = [f"{number} is the number of this prompt" for number in range(40)]
    first = [trio.route(1, prompt).worker_id for prompt in prompts]
    trio.gossip()
    trio.restart(3)
    while not trio.cluster.hosts[2].node.is_ready:
        trio.cluster.advance(trio.cluster.now + 0.005)

    for number in (2, 3):
        assert first == [trio.route(number, prompt).worker_id for prompt in prompts]


def test_a_removed_worker_is_nowhere(trio: Trio) -> None:
    """Neither in a store, nor in a tree, nor in flight, on any node."""
    trio.route(1, "Hello world")
    cluster = trio.cluster
    cluster.use(cluster.hosts[1], lambda n, local: n.begin("worker1", now=local))
    trio.gossip()
    trio.use(3, lambda n: n.sync.remove_worker_state("worker1"))
    trio.gossip()

    for number in (1, 2, 3):
        sync = trio.cluster.hosts[number - 1].node.sync
        assert sync.get_worker_state("worker1") is None
        assert 0 == sync.match_tree(MODEL, "Hello world").matched
        assert 0 == sync.load.request_count("worker1")
        assert "worker2" == trio.route(number, "Hello world").worker_id
