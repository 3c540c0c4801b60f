"""What is left of a member that was forgotten: nothing but the rank that a ghost has to pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig, MemberForgotten
from meshlib.membership import ProbeOrder
from meshlib.node import MeshNode
from meshlib.replication import Replica

SHORT = GossipConfig(forget_after_s=20.0)

APART = (Replica, ProbeOrder, GossipConfig)
"""Not walked: the documents are no business of the engine's, a round of turns ends by itself."""


def fields_of(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object, whatever keeps them."""
    slots = [
        name
        for kind in type(thing).__mro__
        for name in getattr(kind, "__slots__", ())
        if hasattr(thing, name)
    ]
    return {**getattr(thing, "__dict__", {}), **{name: getattr(thing, name) for name in slots}}


def places_of(wanted: set[Any], thing: Any, where: str, seen: set[int]) -> Iterator[str]:
    """Yield where in a structure any of the wanted values is kept."""
    if isinstance(thing, str | bytes):
        if thing in wanted:
            yield where
        return
    if id(thing) in seen or isinstance(thing, APART):
        return
    seen.add(id(thing))
    if isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from places_of(wanted, key, f"{where} key", seen)
            yield from places_of(wanted, value, f"{where}[{key!r}]", seen)
    elif isinstance(thing, list | tuple | set | frozenset):
        for each in thing:
            yield from places_of(wanted, each, f"{where} item", seen)
    elif type(thing).__module__.startswith(("meshlib", "collections")):
        if type(thing).__module__ == "collections":
            yield from places_of(wanted, list(thing), where, seen)
        for name, value in fields_of(thing).items():
            yield from places_of(wanted, value, f"{where}.{name}", seen)


def kept(node: MeshNode, *wanted: str | bytes) -> list[str]:
    """Return where a node's engine keeps anything of a name or a writer, but for its rank."""
    places = places_of(set(wanted), node._engine._parts, "engine", set())
    return [place for place in places if not place.startswith("engine.view.members._forgotten")]


def test_nothing_is_kept_about_a_member_that_is_forgotten() -> None:
    """Whatever went on with it when it died: entries, an exchange, a transfer, a suspicion."""
    network = MiniNetwork()
    for name in ("n0", "n1", "n2"):
        network.start(name, config=SHORT)
    network.run(3.0)
    actor = network.nodes["n2"].actor
    before = kept(network.nodes["n0"], "n2", actor)
    network.kill("n2")
    network.put("n0", "key", 1)
    network.run(60.0)
    happened = [type(event) for event in network.events["n0"]]

    assert len(before) > 5
    assert MemberForgotten in happened
    assert kept(network.nodes["n0"], "n2", actor) == []
