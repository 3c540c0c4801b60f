"""Shares, demand, and the bucket of one limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.ratelimit.shares import BURST_UNITS_MIN, DemandMeter, ShareBucket, fair_share

demands = st.lists(st.floats(0, 1e6), min_size=1, max_size=16)


def make_bucket(limit: int = 100, *, fraction: float = 1.0, window: int = 7) -> ShareBucket:
    return ShareBucket(limit, fraction=fraction, window=window, admitted=0, slot_s=0.1, now=0.0)


def admit_all(bucket: ShareBucket, count: int, *, now: float = 0.0) -> int:
    return sum(bucket.admit(1, now) >= 0 for _ in range(count))


@given(demands, st.integers(1, 10**6))
def test_shares_of_equal_views_add_up_to_the_limit(rates: list[float], limit: int) -> None:
    """Whether the cluster wants more than the limit or less."""
    total = sum(rates)
    shares = [
        fair_share(limit, own=rate, others=total - rate, active_count=len(rates)) for rate in rates
    ]

    assert limit == pytest.approx(sum(shares), rel=1e-6)


@given(demands, st.integers(1, 10**6))
def test_nobody_gets_less_than_it_wants_while_there_is_room(rates: list[float], limit: int) -> None:
    """Under the limit each share covers its node's demand."""
    total = sum(rates)
    if total <= limit:
        for rate in rates:
            share = fair_share(limit, own=rate, others=total - rate, active_count=len(rates))
            assert share >= rate


def test_a_share_is_proportional_to_the_demand_when_there_is_too_little() -> None:
    """Three times the limit is wanted, so each gets a third of what it wants."""
    assert 80 == fair_share(100, own=240, others=60, active_count=4)


def test_a_new_meter_sees_a_demand_after_one_slot() -> None:
    """It divides by its age and not by its whole horizon."""
    meter = DemandMeter(slot_s=0.1, now=0.0)
    meter.current += 30
    meter.advance(0.1)

    assert 300 == pytest.approx(meter.rate(0.1))


def test_a_demand_that_ends_is_forgotten() -> None:
    """After the horizon of five slots nothing is left of it."""
    meter = DemandMeter(slot_s=0.1, now=0.0)
    meter.current += 30
    meter.advance(0.65)

    assert meter.is_idle
    assert 0 == meter.rate(0.65)


def test_a_long_silence_costs_no_more_than_a_short_one() -> None:
    """The slots of a million seconds are not made one by one."""
    meter = DemandMeter(slot_s=0.1, now=0.0)
    meter.current += 30
    meter.advance(1e6)

    assert meter.is_idle
    assert 0 < meter.slot_ends_at - 1e6 <= 0.1 + 1e-6


def test_a_bucket_never_admits_more_in_a_window_than_the_limit() -> None:
    """Though tokens come in all the while."""
    bucket = make_bucket(100)

    assert 100 == sum(admit_all(bucket, 5, now=step / 100) for step in range(100))


def test_a_bucket_admits_smoothly_when_it_is_empty() -> None:
    """One request each hundredth of a second, at a limit of a hundred."""
    bucket = make_bucket(100)
    admit_all(bucket, 100)
    bucket.set_window(8, admitted=0)

    assert [1, 1, 1] == [admit_all(bucket, 5, now=now) for now in (0.011, 0.021, 0.031)]


def test_time_that_goes_back_makes_no_tokens() -> None:
    """A caller's clock may be read out of order."""
    bucket = make_bucket(100)
    admit_all(bucket, 100, now=5.0)
    bucket.set_window(8, admitted=0)

    assert 0 == admit_all(bucket, 5, now=4.0)


def test_a_bucket_of_a_small_share_still_holds_whole_requests() -> None:
    """A share of half a unit a second could otherwise never pass one."""
    bucket = make_bucket(5, fraction=0.1)

    assert BURST_UNITS_MIN == admit_all(bucket, 10)


def test_a_request_larger_than_the_bucket_leaves_it_in_debt() -> None:
    """It passes when the bucket is full, and is paid back before the next."""
    bucket = make_bucket(90, fraction=1 / 3)
    assert bucket.admit(90, 0.0) == 0
    bucket.set_window(8, admitted=0)

    assert -1 == bucket.admit(1, 1.9)
    assert bucket.admit(1, 2.1) >= 0


def test_a_refusal_counts_nothing() -> None:
    """Neither in the window nor in the bucket."""
    bucket = make_bucket(10)
    admit_all(bucket, 10)
    before = (bucket.admitted, bucket.tokens)

    assert -1 == bucket.admit(1, 0.0)
    assert before == (bucket.admitted, bucket.tokens)


def test_what_others_admitted_lowers_the_ceiling() -> None:
    """Of ten that are left of the window, a node with half the share takes five."""
    bucket = make_bucket(100, fraction=0.5)
    bucket.set_others_admitted(90)

    assert 5 == admit_all(bucket, 50)


def test_the_ceilings_of_equal_views_add_up_to_the_limit() -> None:
    """Whatever each has admitted when they hear of each other."""
    admitted = (40, 10, 0)
    fractions = (0.5, 0.3, 0.2)
    buckets = [make_bucket(100, fraction=fraction) for fraction in fractions]
    for bucket, count in zip(buckets, admitted, strict=True):
        admit_all(bucket, count)
    for bucket in buckets:
        bucket.set_others_admitted(sum(b.admitted for b in buckets) - bucket.admitted)

    assert sum(bucket.ceiling for bucket in buckets) <= 100


def test_a_share_that_goes_up_and_down_makes_no_tokens() -> None:
    """Under contention growth comes empty."""
    bucket = make_bucket(100, fraction=0.5)
    admit_all(bucket, 50)
    bucket.set_window(8, admitted=0)
    for fraction in (0.6, 0.4, 0.6, 0.4, 0.6):
        bucket.set_share(fraction, is_growth_free=False, is_contended=True, now=0.0)

    assert 0 == admit_all(bucket, 10)


def test_a_share_that_nobody_else_wants_comes_filled() -> None:
    """So one node alone can use the whole limit at once."""
    bucket = make_bucket(100, fraction=0.25)
    admit_all(bucket, 1)
    bucket.set_share(1.0, is_growth_free=True, is_contended=False, now=0.0)

    assert 99 == admit_all(bucket, 200)


def test_a_changed_limit_keeps_what_was_used() -> None:
    """Raising it from 10 to 15 leaves room for five more."""
    bucket = make_bucket(10)
    admit_all(bucket, 10)
    bucket.set_limit(15, now=0.0)

    assert 5 == admit_all(bucket, 50)


def test_an_isolated_bucket_keeps_to_its_part_of_each_window() -> None:
    """However often it looks at what is left."""
    bucket = make_bucket(90, fraction=1 / 3)
    admitted = 0
    for step in range(100):
        bucket.set_isolated(bucket.fraction, now=step / 100)
        admitted += admit_all(bucket, 5, now=step / 100)

    assert 30 == admitted


def test_a_closed_bucket_admits_nothing() -> None:
    """A part of zero is nothing, the least burst included."""
    bucket = make_bucket(90)
    bucket.set_isolated(0.0, now=0.0)

    assert 0 == admit_all(bucket, 5)


def test_waiting_as_long_as_it_is_told_is_enough() -> None:
    """The bucket admits then, and not a moment before."""
    bucket = make_bucket(10)
    admit_all(bucket, 10)
    bucket.set_window(8, admitted=0)
    wait_s = bucket.wait_s(1, window_left_s=1.0)

    assert -1 == bucket.admit(1, wait_s * 0.99)
    assert bucket.admit(1, wait_s * 1.01) >= 0


def test_a_window_that_is_used_up_is_waited_for() -> None:
    """There are tokens again before it ends, but no room."""
    bucket = make_bucket(100)
    admit_all(bucket, 100)
    bucket.fill(0.5)

    assert 0.5 == bucket.wait_s(1, window_left_s=0.5)


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 20)), max_size=200),
)
def test_no_second_admits_more_than_the_limit_and_one_bucket(
    limit: int, requests: list[tuple[float, int]]
) -> None:
    """The token bucket's own bound, for windows that begin anywhere."""
    bucket = make_bucket(limit)
    now, window, passed = 0.0, 7, []
    for pause, cost in requests:
        now += pause
        if int(now) + 7 != window:
            window = int(now) + 7
            bucket.set_window(window, admitted=0)
        if cost <= limit and bucket.admit(cost, now) >= 0:
            passed.append((now, cost))
    for start, _ in passed:
        inside = sum(cost for at, cost in passed if start <= at < start + 1)
        assert inside <= 2 * limit + 20
