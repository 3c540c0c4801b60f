"""The rooms that are useful on their own do not load the rest of the house."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"asyncio", "meshlib.gossip", "meshlib.state", "meshlib.node", "meshlib.aio", "hypothesis"}


@pytest.mark.parametrize("room", ["meshlib", "meshlib.ring", "meshlib.prefix", "meshlib.crdt"])
def test_importing_a_room_loads_only_what_is_below_it(room: str) -> None:
    """A fresh interpreter that imports the room has not imported what stands above it."""
    code = f"import sys, {room}; print(*sorted(sys.modules), sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(result.stdout.split())

    assert loaded & HEAVY == set()


def test_every_public_name_of_the_package_can_be_imported() -> None:
    """The lazily imported names are all there."""
    import meshlib

    assert [name for name in meshlib.__all__ if getattr(meshlib, name, None) is None] == []
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = meshlib.nothing_here
