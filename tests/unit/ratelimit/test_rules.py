"""Limits by rules: longer periods, bursts, several at once, and what changes at run time."""

from __future__ import annotations

import datetime as dt

import pytest
from support.limiters import RateCluster

from meshlib.errors import InvalidFieldError, LimitError, UnknownKeyError
from meshlib.limits import LIMIT_RULES_MAX
from meshlib.ratelimit import Decision, Limit, RateLimiter
from meshlib.ratelimit.leases.windows import window_end, window_of


@pytest.fixture
def alone(rate_cluster: type[RateCluster]) -> RateCluster:
    return rate_cluster(1)


def limiter_of(cluster: RateCluster, now: float) -> RateLimiter:
    cluster.time.now = now
    return cluster.limiters["node1"]


def admitted(cluster: RateCluster, key: str, count: int, *, now: float, cost: int = 1) -> int:
    limiter = limiter_of(cluster, now)
    return sum(bool(limiter.acquire(key, cost=cost, now=now)) for _ in range(count))


def test_each_key_of_a_pattern_has_the_limit_for_itself(alone: RateCluster) -> None:
    """And one of another pattern has none."""
    alone.settings.set_rule("user", pattern="user:*", limits="5/minute")

    assert (5, 5) == tuple(admitted(alone, f"user:{name}", 9, now=0.1) for name in "ab")
    with pytest.raises(UnknownKeyError):
        admitted(alone, "team:a", 1, now=0.1)


def test_a_minute_is_a_minute(alone: RateCluster) -> None:
    """By the wall clock, which says 20 seconds past one at 0."""
    alone.settings.set_rule("user", pattern="user:*", limits="5/minute")
    counts = [admitted(alone, "user:a", 3, now=now) for now in (0.1, 1.2, 30.0, 41.0, 99.0, 101.0)]

    assert [3, 2, 0, 3, 2, 3] == counts


def test_all_limits_of_a_rule_hold_at_once(alone: RateCluster) -> None:
    """Ten in a second, and fifteen in a minute; the refusal names the one that refuses."""
    alone.settings.set_rule("user", pattern="user:*", limits=["10/second", "15/minute"])
    counts = [admitted(alone, "user:a", 12, now=now) for now in (0.1, 1.1, 2.1)]
    refused = limiter_of(alone, 2.2).acquire("user:a", now=2.2)

    assert [10, 5, 0] == counts
    assert "15/minute" == refused.policy
    assert 37.7 == pytest.approx(refused.retry_after_s, abs=0.11)


def test_what_one_limit_refuses_is_not_counted_by_the_other(alone: RateCluster) -> None:
    """Nine of ten a minute are left after what a second refused."""
    alone.settings.set_rule("user", pattern="user:*", limits=["1/second", "10/minute"])
    admitted(alone, "user:a", 50, now=0.1)

    assert [9, 1] == sorted(
        (usage.remaining for usage in limiter_of(alone, 1.1).usage("user:a", now=1.1)), reverse=True
    )


def test_a_limit_of_its_own_goes_before_a_rule(alone: RateCluster) -> None:
    """And the rule holds again when it is removed."""
    alone.settings.set_rule("user", pattern="user:*", limits="5/second")
    alone.settings.set("user:vip", 50)
    own = admitted(alone, "user:vip", 60, now=0.1)
    alone.settings.remove("user:vip")

    assert (50, 5) == (own, admitted(alone, "user:vip", 60, now=1.1))


def test_no_pattern_is_for_the_global_key(alone: RateCluster) -> None:
    """It is unlimited until its own limit is set, as the specification says."""
    alone.settings.set_rule("all", pattern="*", limits="5/second")

    assert 9 == admitted(alone, "global", 9, now=0.1)


def test_a_changed_limit_keeps_what_was_used(alone: RateCluster) -> None:
    """In the same period; of another period nothing is used yet."""
    alone.settings.set_rule("user", pattern="user:*", limits="5/minute")
    before = admitted(alone, "user:a", 9, now=0.1)
    alone.settings.set_rule("user", pattern="user:*", limits="8/minute")
    raised = admitted(alone, "user:a", 9, now=0.2)
    alone.settings.set_rule("user", pattern="user:*", limits="4/minute")
    lowered = admitted(alone, "user:a", 9, now=0.3)
    alone.settings.set_rule("user", pattern="user:*", limits="4/hour")

    assert (5, 3, 0, 4) == (before, raised, lowered, admitted(alone, "user:a", 9, now=0.4))


def test_a_removed_rule_limits_nothing(alone: RateCluster) -> None:
    """Its keys are unknown at once."""
    alone.settings.set_rule("user", pattern="user:*", limits="5/minute")
    admitted(alone, "user:a", 1, now=0.1)
    alone.settings.remove_rule("user")

    with pytest.raises(UnknownKeyError):
        admitted(alone, "user:a", 1, now=0.1)
    with pytest.raises(UnknownKeyError):
        alone.settings.remove_rule("user")


@pytest.mark.parametrize("key", ["user:" + "x" * 1000, "user:\0", "user:\ud800"])
def test_a_key_that_cannot_be_names_the_field(alone: RateCluster, key: str) -> None:
    """Too long, or not text that can be sent; and nothing is counted."""
    alone.settings.set_rule("user", pattern="user:*", limits="5/minute")

    with pytest.raises(InvalidFieldError, match="key"):
        admitted(alone, key, 1, now=0.1)


def test_a_cost_above_the_burst_names_the_field(alone: RateCluster) -> None:
    """It could never pass."""
    alone.settings.set_rule("user", pattern="user:*", limits="100/minute; burst=20")

    with pytest.raises(InvalidFieldError, match=r"cost: 21 .*burst=20"):
        admitted(alone, "user:a", 1, cost=21, now=0.1)


def test_one_rule_too_many_is_refused(alone: RateCluster) -> None:
    """And the others stay."""
    for number in range(LIMIT_RULES_MAX):
        alone.settings.set_rule(f"r{number}", pattern=f"r{number}:*", limits="5/minute")

    with pytest.raises(LimitError, match="rules"):
        alone.settings.set_rule("more", pattern="more:*", limits="5/minute")
    assert LIMIT_RULES_MAX == len(alone.settings.rules())


def test_what_is_written_as_a_rule_and_is_none_is_told(alone: RateCluster) -> None:
    """Of raw configuration before it is written, and of a peer's in the health."""
    with pytest.raises(ValueError, match="no rule"):
        alone.settings.check_config("rate_limit_rule:x", b'{"pattern": "user:*"}')
    alone.settings._app.set("rate_limit_rule:x", b"[]")

    assert ["rule 'x'"] == alone.settings.unreadable()
    assert [] == alone.settings.rules()


# Bursts and sliding windows


def waits(cluster: RateCluster, key: str, *, cost: int, now: float) -> Decision:
    decision = limiter_of(cluster, now).acquire(key, cost=cost, now=now)
    assert not decision
    return decision


@pytest.mark.parametrize(
    "text", ["60/minute; burst=5", "10/10s; algorithm=sliding", "10/minute", "3/second"]
)
@pytest.mark.parametrize("cost", [1, 3])
def test_coming_again_when_told_passes_and_not_before(
    alone: RateCluster, text: str, cost: int
) -> None:
    """With every algorithm, and never later than the period."""
    limit = Limit.parse(text)
    alone.settings.set_rule("k", pattern="k:*", limits=limit)
    now = 0.25
    for _ in range(20):
        admitted(alone, "k:a", 30, now=now, cost=cost)
        refused = waits(alone, "k:a", cost=cost, now=now)
        assert 0 < refused.retry_after_s <= limit.period_s
        early = now + refused.retry_after_s - 0.001
        assert not limiter_of(alone, early).peek("k:a", cost=cost, now=early)
        now += refused.retry_after_s
        assert limiter_of(alone, now).acquire("k:a", cost=cost, now=now)
        now += 0.37


def test_a_bucket_admits_its_burst_and_then_its_rate(alone: RateCluster) -> None:
    """One a second, after twenty at once."""
    alone.settings.set_rule("k", pattern="k:*", limits="60/minute; burst=20")
    at_once = admitted(alone, "k:a", 50, now=0.5)
    later = [admitted(alone, "k:a", 50, now=0.5 + second) for second in range(1, 30)]

    assert 20 == at_once
    assert [1] * 29 == later


def test_no_stretch_of_the_period_admits_more_than_a_sliding_limit(alone: RateCluster) -> None:
    """Where windows would admit twice as much around their border."""
    alone.settings.set_rule("k", pattern="k:*", limits="10/10s; algorithm=sliding")
    times = [
        now
        for step in range(400)
        for now in [9.0 + step * 0.07] * admitted(alone, "k:a", 2, now=9.0 + step * 0.07)
    ]

    assert 20 <= len(times)
    assert all(sum(at <= t < at + 9.999 for t in times) <= 10 for at in times)


# Windows


def test_months_are_those_of_the_calendar() -> None:
    """Each second of some centuries' first and last days is in the month that it should be."""
    limit = Limit(1, per="month")
    for months in range(0, 12 * 430, 7):
        year, month = 1970 + months // 12, months % 12 + 1
        first = dt.datetime(year, month, 1, tzinfo=dt.UTC)
        number = int(first.timestamp())
        assert months == window_of(number, limit)
        assert number == window_end(number - 1, limit) or not months
        assert months - 1 == window_of(number - 1, limit) or not months


def test_a_window_of_a_second_is_the_second() -> None:
    """As the specification's limit has it."""
    assert (7, 8) == (window_of(7, Limit(1)), window_end(7, Limit(1)))
