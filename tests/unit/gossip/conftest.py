"""Networks of whole nodes in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.mini_network import MiniNetwork


@pytest.fixture
def network() -> Iterator[MiniNetwork]:
    """Yield an empty network, and check every node's invariants at the end."""
    made = MiniNetwork()
    yield made
    for node in made.nodes.values():
        node._check()


@pytest.fixture
def trio(network: MiniNetwork) -> MiniNetwork:
    """Return a network of three nodes that have met."""
    for name in ("n0", "n1", "n2"):
        network.start(name)
    network.run(1.0)
    return network
