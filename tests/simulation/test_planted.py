"""Each part's own check has teeth: a bug that nobody else would notice is found in a few seeds."""

from __future__ import annotations

import pytest
from support.planted import PLANTED, Planted

from meshlib.testing.simulation.outcome import Failure
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_scenario

SEEDS = {
    "compare_with_the_gone": (2,),
    "hold_for_nothing": (5,),
    "maintain_twice_after_a_rejoin": (2,),
    "miscount_what_waits": (1,),
}
"""Those whose clusters come to where the bug is; any cluster does for the others."""


SLOW = {"compare_with_the_gone", "go_on_asking", "hash_those_in_reach", "hold_for_nothing"}
"""Those that show after seconds; the checks of other parts are seen to fail in each run."""


def first_failure(planted: Planted) -> Failure | None:
    """Return what is found first."""
    for seed in SEEDS.get(planted.plant.__name__, (0, 1, 2)):
        outcome = Simulation(draw_scenario(seed, duration_s=20.0)).run()
        if outcome.failure is not None:
            return outcome.failure
    return None


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(
            planted,
            id=planted.plant.__name__,
            marks=[pytest.mark.slow] if planted.plant.__name__ in SLOW else [],
        )
        for planted in PLANTED
    ],
)
def test_a_planted_bug_is_found_by_the_check_of_its_part(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part says so itself, and shows its state."""
    planted.plant(monkeypatch.setattr)

    failure = first_failure(planted)

    assert failure is not None
    assert failure.rule == "_check"
    assert f"BrokenInvariant: {planted.part.__name__}: " in failure.detail


def test_each_bug_is_in_a_part_of_its_own() -> None:
    """Ten parts or more, each with a bug that says what it breaks."""
    assert len({planted.part for planted in PLANTED}) == len(PLANTED) >= 10
    assert all(planted.plant.__doc__ for planted in PLANTED)
