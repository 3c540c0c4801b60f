"""The rate limiter of one node: decisions, statistics, timers, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from support.limiters import RateCluster

from meshlib.errors import (
    ConfigError,
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    UnknownKeyError,
)
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.records import RateLimitStats


@pytest.fixture
def alone(rate_cluster: type[RateCluster]) -> RateCluster:
    return rate_cluster(1)


def admit_all(cluster: RateCluster, count: int, *, key: str = "global", now: float = 0.1) -> int:
    limiter = cluster.limiters["node1"]
    cluster.time.now = now
    return sum(bool(limiter.acquire(key, now=now)) for _ in range(count))


def test_the_limit_is_admitted_and_no_more(alone: RateCluster) -> None:
    """Five of ten, in one moment."""
    alone.settings.set("global", 5)

    assert 5 == admit_all(alone, 10)


def test_a_decision_tells_what_is_left(alone: RateCluster) -> None:
    """Of the limit, on this node, at this moment."""
    alone.settings.set("global", 5)
    decisions = [alone.limiters["node1"].acquire("global", now=0.1) for _ in range(5)]

    assert [4, 3, 2, 1, 0] == [decision.remaining for decision in decisions]
    assert {5} == {decision.limit for decision in decisions}


def test_a_refusal_tells_when_to_come_again(alone: RateCluster) -> None:
    """The window is used up, so at its end."""
    alone.settings.set("global", 5)
    admit_all(alone, 5, now=0.25)
    decision = alone.limiters["node1"].acquire("global", now=0.25)

    assert not decision.allowed
    assert 0.75 == pytest.approx(decision.retry_after_s)


def test_coming_again_when_told_passes(alone: RateCluster) -> None:
    """The time that is told is enough."""
    alone.settings.set("global", 5)
    admit_all(alone, 5, now=0.25)
    wait_s = alone.limiters["node1"].acquire("global", now=0.25).retry_after_s

    assert alone.limiters["node1"].acquire("global", now=0.25 + wait_s + 1e-6).allowed


def test_refused_requests_are_not_used(alone: RateCluster) -> None:
    """They count as demand only."""
    alone.settings.set("global", 5)
    admit_all(alone, 50)
    expected = RateLimitStats(limit_per_second=5, current_count=5, remaining=0)

    assert expected == alone.limiters["node1"].stats("global", now=0.1)


def test_before_it_is_set_the_global_limit_is_none(alone: RateCluster) -> None:
    """Everything passes, and the statistics say unlimited."""
    limiter = alone.limiters["node1"]
    expected = RateLimitStats(limit_per_second=0, current_count=0, remaining=-1)

    assert (True, 0, -1, 0.0, 0.0, "", True, -1) == limiter.acquire("global", cost=10**9, now=0.0)
    assert expected == limiter.stats("global", now=0.0)


def test_a_limit_of_zero_switches_it_off(alone: RateCluster) -> None:
    """Everything passes at once, also what was refused a moment ago."""
    alone.settings.set("global", 2)
    admit_all(alone, 5)
    alone.settings.set("global", 0)
    stats = alone.limiters["node1"].stats("global", now=0.1)

    assert 100 == admit_all(alone, 100)
    assert (0, 0, -1) == (stats.limit_per_second, stats.current_count, stats.remaining)


def test_a_limit_that_is_switched_on_again_holds(alone: RateCluster) -> None:
    """From the next request on."""
    alone.settings.set("global", 0)
    admit_all(alone, 100)
    alone.settings.set("global", 3)

    assert 3 == admit_all(alone, 100)


def test_a_changed_limit_holds_at_once_where_it_was_set(alone: RateCluster) -> None:
    """What was used of the old one stays used."""
    alone.settings.set("global", 5)
    admit_all(alone, 5)
    alone.settings.set("global", 8)

    assert 3 == admit_all(alone, 10)


def test_a_changed_limit_of_a_peer_holds_within_an_interval(alone: RateCluster) -> None:
    """Written past the hook, as an entry that arrives is."""
    alone.settings.set("global", 5)
    admit_all(alone, 5)
    table = alone.settings._app._table
    table.put("global_rate_limit", b'{"limit_per_second": 8}')

    assert 3 == admit_all(alone, 10, now=0.21)


def test_keys_have_limits_of_their_own(alone: RateCluster) -> None:
    """Beside the global one."""
    alone.settings.set("global", 5)
    alone.settings.set("tenant/a", 2)

    assert 2 == admit_all(alone, 10, key="tenant/a")
    assert 5 == admit_all(alone, 10)


def test_a_key_without_a_limit_is_unknown(alone: RateCluster) -> None:
    """For decisions and for statistics."""
    with pytest.raises(UnknownKeyError):
        alone.limiters["node1"].acquire("tenant/b", now=0.0)
    with pytest.raises(UnknownKeyError):
        alone.limiters["node1"].stats("tenant/b", now=0.0)


def test_a_limit_that_was_taken_away_is_unknown_again(alone: RateCluster) -> None:
    """From the next request on."""
    alone.settings.set("tenant/a", 2)
    admit_all(alone, 1, key="tenant/a")
    alone.settings.remove("tenant/a")

    with pytest.raises(UnknownKeyError):
        alone.limiters["node1"].acquire("tenant/a", now=0.1)


@pytest.mark.parametrize("cost", [True, 1.0, "1", None])
def test_a_cost_is_an_integer(alone: RateCluster, cost: Any) -> None:
    """And a bool is none."""
    alone.settings.set("global", 5)
    with pytest.raises(InvalidTypeError):
        alone.limiters["node1"].acquire("global", cost=cost, now=0.0)


@pytest.mark.parametrize("cost", [0, -1, 6])
def test_a_cost_that_cannot_pass_is_an_error(alone: RateCluster, cost: int) -> None:
    """Nothing, less than nothing, and more than the limit."""
    alone.settings.set("global", 5)
    with pytest.raises(InvalidValueError):
        alone.limiters["node1"].acquire("global", cost=cost, now=0.0)
    assert 0 == alone.limiters["node1"].stats("global", now=0.0).current_count


@pytest.mark.parametrize("key", [None, 1, b"global", ["global"], {}])
def test_a_key_is_text(alone: RateCluster, key: Any) -> None:
    """Also where it could not even be looked up."""
    with pytest.raises(InvalidTypeError):
        alone.limiters["node1"].acquire(key, now=0.0)
    with pytest.raises(InvalidTypeError):
        alone.limiters["node1"].stats(key, now=0.0)


def test_a_limit_that_cannot_be_read_is_an_error(alone: RateCluster) -> None:
    """For a key that had none before."""
    alone.settings._app.set("global_rate_limit", b"\xff")
    with pytest.raises(DecodeError):
        alone.limiters["node1"].acquire("global", now=0.0)


def test_a_limit_that_can_no_longer_be_read_is_an_error_on_all_nodes_alike(
    rate_cluster: type[RateCluster],
) -> None:
    """Whether a node knew the last one that could be read or not; limits are not switched off."""
    cluster = rate_cluster(2)
    cluster.settings.set("global", 5)
    assert cluster.limiters["node1"].acquire("global", now=0.0)
    cluster.settings._app.set("global_rate_limit", b'{"limit_per_second": true}')

    for name in cluster.names:
        for now in (0.01, 0.02):
            with pytest.raises(DecodeError):
                cluster.limiters[name].acquire("global", now=now)


def test_the_table_of_keys_is_bounded(rate_cluster: type[RateCluster]) -> None:
    """The longest unused one makes room, and keeps what it had used."""
    cluster = rate_cluster(1, config=RateLimitConfig(keys_max=2))
    for key in ("a", "b", "c"):
        cluster.settings.set(key, 2)
    admit_all(cluster, 2, key="a")
    admit_all(cluster, 1, key="b")
    admit_all(cluster, 1, key="c")

    assert 2 == len(cluster.limiters["node1"]._tracked)
    assert 0 == admit_all(cluster, 5, key="a")


@pytest.mark.parametrize(
    "setting",
    [
        {"mandate_s": 0.95},
        {"confirm_timeout_s": 0.0},
        {"idle_return_s": float("nan")},
        {"batch_delay_s": 0.02},
        {"watch_s": -1.0},
        {"keys_max": 0},
        {"partition_mode": "sometimes"},
    ],
)
def test_a_setting_that_cannot_hold_is_refused(setting: dict[str, Any]) -> None:
    """By name, and before anything starts."""
    with pytest.raises(ConfigError, match=next(iter(setting))):
        RateLimitConfig(**setting)
