"""Numbers of windows under a clock that does as it likes."""

from __future__ import annotations

import itertools

import pytest

from meshlib.ratelimit.leases.windows import WindowClock


@pytest.mark.parametrize("jump_s", [-3600.0, -1.0, -0.4, 0.3, 0.7, 5.0, 86_400.0])
def test_numbers_only_grow_and_no_window_is_short(jump_s: float) -> None:
    """Whatever the wall clock does in the middle of the run."""
    offset = [1_000_000.25]
    now = [0.0]
    clock = WindowClock(lambda: now[0] + offset[0])
    entered: list[float] = []
    last = -1
    for step in range(1000):
        now[0] = step / 100
        if step == 437:
            offset[0] += jump_s
        number = clock.read(now[0])
        assert number >= last
        if number > last:
            entered.append(now[0])
            last = number

    assert all(later - sooner >= 0.49 for sooner, later in itertools.pairwise(entered[1:]))


def test_windows_are_the_seconds_of_an_even_clock() -> None:
    """Aligned to the epoch, after a rest too."""
    clock = WindowClock(lambda: 1_000_000.25)

    assert 1_000_000 == clock.read(0.0)
    assert 0.75 == clock.left_s(0.0)


def test_a_number_of_a_clock_far_ahead_is_followed() -> None:
    """So that a new owner goes on from what the last one has given out."""
    clock = WindowClock(lambda: 1_000_000.0)
    clock.skip_to(1_000_500, now=0.0)

    assert 1_000_500 == clock.read(0.5)
    assert 1_000_501 == clock.read(1.0)
