"""Two nodes between which nothing passes, and two of which one ends: what each takes itself for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lab import Lab
from support.namespaces import Cluster

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]


@pytest.fixture
def pair(namespaces: None, tmp_path: Path) -> Iterator[Cluster]:
    """Yield two nodes that have met, each in a namespace of its own."""
    lab = Lab(2)
    try:
        lab.build()
        made = Cluster(lab, tmp_path)
        try:
            made.start(*made.nodes)
            made.await_all_alive()
            made.await_health(made.nodes, "healthy", 2)
            yield made
        finally:
            made.kill_all()
    finally:
        lab.remove()


def test_of_two_that_are_cut_apart_neither_is_whole(pair: Cluster) -> None:
    """Every packet is dropped, and nothing refuses: the other may be alive, and is."""
    pair.lab.cut([0], [1])
    pair.await_health(pair.nodes, "partitioned", 1)
    pair.lab.heal()

    pair.await_all_alive()
    pair.await_health(pair.nodes, "healthy", 2)


def test_of_two_the_one_whose_peer_has_ended_is_whole(pair: Cluster) -> None:
    """The other's host answers that nothing listens there."""
    survivor, other = pair.nodes
    pair.kill(other)

    pair.await_health([survivor], "degraded", 1)
    assert pair.seen(survivor) == {survivor.name: "Alive", other.name: "Down"}


def test_a_death_behind_a_cut_is_silence_until_the_cut_is_over(pair: Cluster) -> None:
    """Then the other's host refuses, and the one that is left is whole."""
    survivor, other = pair.nodes
    pair.lab.cut([0], [1])
    pair.kill(other)
    pair.await_health([survivor], "partitioned", 1)
    pair.lab.heal()

    pair.await_health([survivor], "degraded", 1)
