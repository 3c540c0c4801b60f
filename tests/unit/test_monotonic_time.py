"""What comes in as `now`: never backwards, and never of another clock."""

from __future__ import annotations

import math

import pytest

from meshlib.clock import AHEAD_MAX_S, BEHIND_MAX_S, JUMP_MAX_S, MonotonicTime
from meshlib.errors import ForeignClockError, InvalidTypeError, InvalidValueError


def test_time_stands_still_rather_than_go_back() -> None:
    """A reading that was taken earlier and comes later counts as the later one."""
    clock = MonotonicTime(100.0)

    assert [101.0, 101.0, 102.0] == [clock.advance(now) for now in (101.0, 100.5, 102.0)]
    assert [103.0, 103.0] == [clock.follow(now) for now in (103.0, 102.5)]


def test_a_process_that_was_stopped_for_long_goes_on() -> None:
    """Its owner's clock may have jumped by months; a caller then follows."""
    clock = MonotonicTime(100.0)
    later = 100.0 + JUMP_MAX_S

    assert later == clock.advance(later)
    assert later + AHEAD_MAX_S == clock.follow(later + AHEAD_MAX_S)


def test_what_a_caller_says_does_not_move_the_owners_time() -> None:
    """A caller's mistake stays with the callers, within a day."""
    clock = MonotonicTime(100.0)
    clock.follow(5_000.0)

    assert 101.0 == clock.advance(101.0)
    assert 5_000.0 == clock.follow(4_999.0)
    assert 5_000.0 == clock.latest_s


@pytest.mark.parametrize("verb", ["advance", "follow"])
@pytest.mark.parametrize(
    ("now", "error"),
    [
        (1.7e9, ForeignClockError),
        (100_000_000_000, ForeignClockError),
        (100.0 - BEHIND_MAX_S - 1, ForeignClockError),
        (math.nan, InvalidValueError),
        (math.inf, InvalidValueError),
        (-math.inf, InvalidValueError),
        ("100", InvalidTypeError),
        (None, InvalidTypeError),
        (True, InvalidTypeError),
    ],
)
def test_what_is_no_reading_is_refused_with_nothing_changed(
    verb: str, now: float, error: type[Exception]
) -> None:
    """The next true reading is taken as if nothing had been said."""
    clock = MonotonicTime(100.0)
    with pytest.raises(error):
        getattr(clock, verb)(now)

    assert 100.0 == clock.latest_s
    assert 100.5 == getattr(clock, verb)(100.5)


def test_a_caller_more_than_a_day_ahead_is_refused_until_the_owner_has_said_so() -> None:
    """What a clock of milliseconds looks like; a stopped process is put right by one step."""
    clock = MonotonicTime(100.0)
    later = 100.0 + 2 * AHEAD_MAX_S
    with pytest.raises(ForeignClockError) as caught:
        clock.follow(later)
    clock.advance(later)

    assert (later, 100.0) == (caught.value.now, caught.value.clock_s)
    assert later == clock.follow(later)


def test_the_first_reading_of_a_clock_without_one_is_taken() -> None:
    """There is nothing to judge it by; whole seconds are readings too."""
    assert 1.7e9 == MonotonicTime().advance(1.7e9)
    assert 5.0 == MonotonicTime().follow(5)
