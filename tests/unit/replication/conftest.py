"""Replicas with a clock that the test sets."""

from __future__ import annotations

import pytest
from support.world import World


@pytest.fixture
def world() -> World:
    """A world at second 1,000."""
    return World()
