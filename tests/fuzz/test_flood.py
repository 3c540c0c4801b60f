"""A peer with a valid token sends damaged frames under right checksums: nothing comes of it."""

from __future__ import annotations

from typing import Any

import pytest
from support.damage import parse_frame
from support.flooded import Flooded, complete, corpus_of, flood, places_of, values_of

from meshlib.gossip import IdentityRenewed, NameConflict
from meshlib.gossip.messages.kinds import MESSAGE_TYPES
from meshlib.membership import MemberStatus

FRAMES = 20_000
SETTLE_S = 40.0
"""Longer than a suspicion, a table's quiet time and a few exchanges take."""


def corpus(world: Flooded) -> list[tuple[bytes, str]]:
    """Return the good frames of a world, and whom each was for."""
    first, second = list(world.nodes.values())[:2]
    return complete(corpus_of(world.seen), first, second)


def views_of(world: Flooded) -> list[Any]:
    """Return each node's view of the cluster."""
    return [places_of(node) for node in world.nodes.values()]


@pytest.fixture(params=[1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def world(request: pytest.FixtureRequest) -> Flooded:
    """Return a cluster that has met, written, restored state and shared a limit."""
    return Flooded(seed=request.param)


def test_the_corpus_has_every_kind_of_message(world: Flooded) -> None:
    """So that the flood reaches every decoder and every handler."""
    codes = {message[0] for frame, _ in corpus(world) for message in parse_frame(frame)[-1]}

    assert codes == {kind.code for kind in MESSAGE_TYPES}


@pytest.mark.slow
def test_a_flood_of_damaged_frames_changes_nothing(world: Flooded) -> None:
    """No node ends or raises, no member appears, what is refused changes nothing at all.

    And what users read is as it was once the cluster has settled: every node holds all, and
    knows the others where they are.
    """
    before, views = [values_of(node) for node in world.nodes.values()], views_of(world)
    result = flood(world, corpus(world), count=FRAMES, seed=world.seed)
    world.run(SETTLE_S)

    assert result.refused_count > FRAMES // 2
    assert not any(isinstance(e, NameConflict) for events in world.events.values() for e in events)
    assert views_of(world) == views
    assert all(status is MemberStatus.ALIVE for view in views for _, _, status in view)
    assert [values_of(node) for node in world.nodes.values()] == before
    for node in world.nodes.values():
        node._check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [154, 1002])
def test_a_flood_in_which_a_node_became_another_writer_loses_nothing(seed: int) -> None:
    """One damaged frame was believed of a node's own numbers, and a write was lost on all nodes.

    Seed 154 did it with frames of format 1, seed 1002 with those of format 2.
    """
    world = Flooded(seed=seed)
    before = [values_of(node) for node in world.nodes.values()]
    flood(world, corpus(world), count=FRAMES, seed=seed)
    world.run(SETTLE_S)

    assert any(isinstance(e, IdentityRenewed) for events in world.events.values() for e in events)
    assert [values_of(node) for node in world.nodes.values()] == before


def test_a_flooded_cluster_still_takes_writes(world: Flooded) -> None:
    """No number that was believed makes a later write look like an old one."""
    flood(world, corpus(world), count=2_000, seed=world.seed)
    for address, node in world.nodes.items():
        node.sync.set_config(f"after-{address}", b"1")
        world.pump(address)
    world.run(SETTLE_S)
    wanted = {f"after-{address}" for address in world.nodes}

    assert all(wanted <= set(node.sync.config_keys()) for node in world.nodes.values())
