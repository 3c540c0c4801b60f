"""A node's actor is its own: who finds another writing under it takes a new one."""

from __future__ import annotations

from functools import partial
from typing import Any

from support.mini_network import MiniNetwork

from meshlib.clock import HybridClock
from meshlib.gossip import IdentityRenewed
from meshlib.replication import IdentityStolen, Replica


def write_as(trio: MiniNetwork, actor: Any, key: str, count: int) -> Any:
    """Return the entries that another process would write under an actor's name."""
    clock = HybridClock(actor=actor, wall_clock=lambda: trio.now + 1.7e9)
    thief = Replica(actor=actor, clock=clock)
    thief.open("app", type_tag="lww_map")
    entries = []
    for number in range(count):
        thief.write(
            "app",
            partial(
                lambda n, state, context: state.set(
                    f"{key}{n}", "stolen", stamp=context.stamp(), sequence=context.sequence
                ),
                number,
            ),
        )
        entries += thief.flush()
    return entries


def test_a_node_whose_number_others_have_passed_takes_a_new_identity(trio: MiniNetwork) -> None:
    """It imports nothing under its own name, goes on under another, and nothing is lost."""
    node = trio.nodes["n0"]
    old = node.actor
    trio.put("n0", "before", 1)
    trio.run(0.1)
    held = node.replica.version_vector[old]
    # Peers hear of numbers of n0 that n0 never gave out, and n0 of them through its peers.
    stolen = [entry for entry in write_as(trio, old, "k", held + 3) if entry.first > held]
    for peer in ("n1", "n2"):
        trio.nodes[peer].replica.receive(stolen)
    trio.run_until(lambda: node.actor != old)
    trio.run(2.0)
    trio.put("n0", "after", 2)
    trio.run(0.1)

    events = trio.events["n0"]
    assert IdentityRenewed(old=old, new=node.actor) in events
    assert any(isinstance(event, IdentityStolen) and event.actor == old for event in events)
    assert trio.values("before") == [1, 1, 1]
    assert trio.values("after") == [2, 2, 2]
    assert trio.values(f"k{held + 2}") == ["stolen"] * 3
    vectors = [dict(each.replica.version_vector) for each in trio.nodes.values()]
    assert vectors == [vectors[0]] * 3
    assert vectors[0][old] == held + 3
    assert trio.view("n1")["n0"] == "Alive"
