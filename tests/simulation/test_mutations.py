"""The simulator has teeth: deliberate bugs of the engine are found within 300 seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing.faults import draw_scenario
from meshlib.testing.simulator import Simulation

SEEDS_MAX = 300
PATH = Path(__file__).with_name("mutations.py")


def load() -> Any:
    """Load the list of bugs, which lies beside this file."""
    spec = importlib.util.spec_from_file_location("meshlib_simulation_mutations", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MUTATIONS = load().MUTATIONS


def seeds_until_found() -> int | None:
    """Return how many seeds it takes until a checker finds something."""
    for seed in range(SEEDS_MAX):
        outcome = Simulation(draw_scenario(seed, duration_s=30.0)).run()
        if outcome.failure is not None:
            return seed + 1
    return None


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_deliberate_bug_is_found(mutation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of the first 300 breaks a rule, once the bug is in."""
    mutation.apply(monkeypatch.setattr)

    assert seeds_until_found() is not None, mutation.name


def test_there_are_ten_bugs_or_more() -> None:
    """Each with a name of its own, and a word on what it breaks."""
    names = [mutation.name for mutation in MUTATIONS]

    assert len(set(names)) >= 10
    assert all(mutation.apply.__doc__ for mutation in MUTATIONS)
