"""New entries: pushed once, acknowledged, and pushed again when lost."""

from __future__ import annotations

from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig, decode_frame
from meshlib.gossip.messages.kinds import EntriesMessage, VectorExchange
from meshlib.routing import TreeInsert, TreeRemove

COUNT = 14
NAMES = [f"n{index}" for index in range(COUNT)]
QUIET = GossipConfig(exchange_interval_s=1000.0)
"""No exchange repairs anything: what arrives was pushed."""


@pytest.fixture
def sparse(network: MiniNetwork) -> MiniNetwork:
    """Return fourteen nodes that have met: too many for a full mesh."""
    for name in NAMES:
        network.start(name, config=QUIET)
    network.run(3.0)
    return network


def watch(network: MiniNetwork, kind: type) -> list[tuple[str, str, Any]]:
    """Return a list that fills with the messages of a kind as they arrive: source, target."""
    seen: list[tuple[str, str, Any]] = []
    deliver = network._deliver

    def noting(target: str, source: str, data: bytes) -> None:
        messages = decode_frame(data, cluster="mesh").messages
        seen.extend((source, target, message) for message in messages if isinstance(message, kind))
        deliver(target, source, data)

    network._deliver = noting
    return seen


def targets(network: MiniNetwork, name: str) -> tuple[str, ...]:
    found: tuple[str, ...] = network.nodes[name]._engine._parts.view.push_targets()
    return found


def test_a_write_reaches_everyone_by_pushes_alone(sparse: MiniNetwork) -> None:
    """Each node passes on what was new to it, and at most three copies go to each."""
    before = sum(node.counters.entries_sent for node in sparse.nodes.values())
    sparse.put("n3", "key", "value")
    sparse.run(0.05)
    sent = sum(node.counters.entries_sent for node in sparse.nodes.values()) - before

    assert sparse.values("key") == ["value"] * COUNT
    assert sent <= 3 * COUNT


def test_what_is_acknowledged_is_not_pushed_again(sparse: MiniNetwork) -> None:
    """Nothing was lost, so nothing is repeated, and nothing is kept."""
    sparse.put("n3", "key", "value")
    sparse.run(2.0)

    assert [node.counters.entries_repeated for node in sparse.nodes.values()] == [0] * COUNT
    assert all(
        not node._engine._parts.dissemination._pushed
        and not node._engine._parts.dissemination._overdue
        for node in sparse.nodes.values()
    )


def test_a_lost_push_is_repeated(sparse: MiniNetwork) -> None:
    """A node whose senders are all cut off for a moment gets the entry from them soon after."""
    for name in NAMES:
        sparse.cut(name, "n7")
    sparse.put("n3", "key", "value")
    sparse.run(0.1)
    assert sparse.values("key").count("value") == COUNT - 1
    sparse.cuts.clear()
    sparse.run(0.5)

    assert sparse.values("key") == ["value"] * COUNT
    assert sum(node.counters.entries_repeated for node in sparse.nodes.values()) > 0


def test_a_lost_acknowledgement_costs_a_repetition_and_no_more(sparse: MiniNetwork) -> None:
    """The receiver drops the second copy by its number, and acknowledges it."""
    receiver = targets(sparse, "n3")[0]
    sparse.cut(receiver, "n3")
    sparse.put("n3", "key", "value")
    sparse.run(0.1)
    sparse.cuts.clear()
    sparse.run(2.0)

    assert sparse.nodes["n3"].counters.entries_repeated == 1
    assert sparse.values("key") == ["value"] * COUNT


def test_pushing_again_ends(sparse: MiniNetwork) -> None:
    """A receiver that never answers is pushed to six times in all; exchanges do the rest."""
    receiver = targets(sparse, "n3")[0]
    for name in NAMES:
        sparse.cut_both(name, receiver)
    seen = watch(sparse, EntriesMessage)
    sparse.put("n3", "key", "value")
    sparse.run(3.0)

    assert [(s, t) for s, t, _ in seen if (s, t) == ("n3", receiver)] == [("n3", receiver)] * 6


def test_one_acknowledgement_does_for_many_entries(sparse: MiniNetwork) -> None:
    """It waits a little for others, so that a burst is answered once."""
    seen = watch(sparse, VectorExchange)
    receiver = targets(sparse, "n3")[0]
    for index in range(10):
        sparse.put("n3", f"key-{index}", index)
    sparse.run(0.1)
    answers = [message for s, t, message in seen if (s, t) == (receiver, "n3")]

    assert len(answers) == 1
    assert answers[0].is_partial
    assert (
        max(answers[0].vector.values())
        == sparse.nodes["n3"].replica.version_vector[sparse.nodes["n3"].actor]
    )


def test_a_full_mesh_repeats_what_was_lost_too(network: MiniNetwork) -> None:
    """Among three one hop reaches all; one that missed it need not wait for an exchange."""
    for name in ("n0", "n1", "n2"):
        network.start(name, config=QUIET)
    network.run(2.0)
    network.cut("n1", "n2")
    network.put("n1", "key", "value")
    network.run(0.05)
    network.cuts.clear()
    network.run(0.3)

    assert network.values("key") == ["value"] * 3


def test_what_is_pushed_again_stays_bounded_while_new_entries_come(network: MiniNetwork) -> None:
    """To a peer that acknowledges nothing the old entries go less and less often."""
    for name in ("n0", "n1"):
        network.start(name, config=QUIET)
    network.run(2.0)
    seen = watch(network, EntriesMessage)
    network.cut("n1", "n0")
    writer = network.nodes["n0"]
    for index in range(100):
        network.put("n0", f"key-{index}", index)
        network.run(0.02)

    assert len(seen) > 100
    assert 0 < writer.counters.entries_repeated <= 3 * 100


PROMPT = "You are a helpful assistant. " * 200


def cache(network: MiniNetwork, name: str, text: str) -> int:
    """Place a text at a node; return the bytes that went out while it spread."""
    before = sum(node.counters.bytes_sent for node in network.nodes.values())
    network.nodes[name].sync.sync_tree_operation("m", TreeInsert(text, "w1"))
    network.pump(name)
    network.run(0.2)
    return sum(node.counters.bytes_sent for node in network.nodes.values()) - before


def trees(network: MiniNetwork) -> list[Any]:
    return [node.replica.get("tree:m") for node in network.nodes.values()]


@pytest.mark.parametrize("count", [3, COUNT])
def test_a_known_beginning_is_pushed_by_its_name(network: MiniNetwork, count: int) -> None:
    """Also along a sparse graph: who forwards a text forwards it as it came."""
    for name in NAMES[:count]:
        network.start(name, config=QUIET)
    network.run(3.0)
    whole = cache(network, "n0", PROMPT)
    short = cache(network, "n1", PROMPT + "Which is the way?")

    assert short < whole / 5
    assert len({tree.digest() for tree in trees(network)}) == 1
    assert sum(node.counters.entries_unknown for node in network.nodes.values()) == 0


def test_who_does_not_know_a_beginning_asks_for_the_whole(network: MiniNetwork) -> None:
    """At once, and not with the next exchange; what is behind it waits for it."""
    for name in ("n0", "n1", "n2"):
        network.start(name, config=QUIET)
    network.run(2.0)
    cache(network, "n0", PROMPT)
    network.nodes["n2"].sync.sync_tree_operation("m", TreeRemove("w1"))
    network.nodes["n0"].sync.sync_tree_operation("m", TreeInsert(PROMPT + "Which way?", "w1"))
    network.pump("n2")
    network.pump("n0")
    network.nodes["n0"].sync.sync_tree_operation("m", TreeInsert("another", "w2"))
    network.pump("n0")
    network.run(0.2)

    assert network.nodes["n2"].counters.entries_unknown == 1
    assert len({tree.digest() for tree in trees(network)}) == 1
    assert all(tree.cache.entry_count("w2") == 1 for tree in trees(network))
