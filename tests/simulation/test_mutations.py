"""The simulator has teeth: deliberate bugs of the engine are found within 300 seeds."""

from __future__ import annotations

import pytest
from support.mutations import MUTATIONS, Mutation

from meshlib.testing.simulation.outcome import Outcome
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_scenario

RUNS = [
    *((seed, 30.0) for seed in range(150)),
    *((seed, 60.0) for seed in range(400, 550)),
]
"""Seeds and seconds of faults, 300 of them. Most bugs show in a few short ones; two sides that
forget each other take half a minute to do so, and meet again after that.
"""

BY_THE_PATCH = ("AttributeError", "NameError", "TypeError")
"""What a mutation raises that no longer fits the function it breaks: that is no bug found."""


def first_found() -> Outcome | None:
    """Return the first outcome in which a checker finds something."""
    for seed, duration_s in RUNS:
        outcome = Simulation(draw_scenario(seed, duration_s=duration_s)).run()
        if outcome.failure is not None:
            return outcome
    return None


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_deliberate_bug_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of the 300 breaks a rule, once the bug is in."""
    mutation.apply(monkeypatch.setattr)

    outcome = first_found()

    assert outcome is not None, mutation.name
    assert outcome.failure is not None
    last_line = outcome.failure.detail.strip().splitlines()[-1]
    assert not last_line.startswith(BY_THE_PATCH), "the mutation is broken, not the engine"
    print(f"\n{mutation.name}: seed {outcome.seed}, {outcome.failure.rule}: {last_line:.100}")


def test_there_are_ten_bugs_or_more() -> None:
    """Each with a name of its own, and a word on what it breaks."""
    names = [mutation.name for mutation in MUTATIONS]

    assert len(set(names)) >= 10
    assert all(mutation.apply.__doc__ for mutation in MUTATIONS)
