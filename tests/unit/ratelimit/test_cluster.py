"""Whole clusters of limiters in simulated time: what they admit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.limiters import RateCluster

from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.messages import REPORT_DOCUMENT

LIMIT = 300


def within(counts: list[int], limit: int, tolerance: float = 0.1) -> bool:
    return all(abs(count - limit) <= tolerance * limit for count in counts)


def even(cluster: RateCluster, times: float) -> Any:
    """Offer `times` the limit, spread evenly."""
    rate = times * LIMIT / len(cluster.names)
    return lambda _now: dict.fromkeys(cluster.names, rate)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("is_poisson", [True, False])
def test_each_second_admits_the_limit_under_three_times_the_load(
    rate_cluster: type[RateCluster], count: int, is_poisson: bool
) -> None:
    """From the second one on, within a tenth."""
    cluster = rate_cluster(count)
    cluster.settings.set("global", LIMIT)
    cluster.run(6, rates=even(cluster, 3), is_poisson=is_poisson)

    assert within(cluster.per_second()[1:], LIMIT)


def test_the_first_second_is_safe_as_well(rate_cluster: type[RateCluster]) -> None:
    """Nodes that know nothing of each other begin with their part."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(1, rates=even(cluster, 3))

    assert cluster.admitted[0] <= 1.1 * LIMIT


def test_one_node_can_use_the_whole_limit(rate_cluster: type[RateCluster]) -> None:
    """When nobody else is asked for anything."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)
    cluster.run(5, rates=lambda _now: {"node3": 3.0 * LIMIT})

    assert within(cluster.per_second()[1:], LIMIT)


def test_uneven_load_gets_uneven_shares(rate_cluster: type[RateCluster]) -> None:
    """Four fifths of the load on one of eight nodes, at three times the limit."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)

    def rates(_now: float) -> dict[str, float]:
        spread = dict.fromkeys(cluster.names, 0.6 * LIMIT / 7)
        return {**spread, "node1": 2.4 * LIMIT}

    cluster.run(5, rates=rates)

    assert within(cluster.per_second()[1:], LIMIT)


def test_load_under_the_limit_passes(rate_cluster: type[RateCluster]) -> None:
    """Also when most of it comes to one node."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)

    def rates(_now: float) -> dict[str, float]:
        spread = dict.fromkeys(cluster.names, 0.16 * LIMIT / 7)
        return {**spread, "node1": 0.64 * LIMIT}

    cluster.run(5, rates=rates)
    offered = [cluster.offered[second] for second in range(1, 5)]

    assert all(
        admitted >= 0.97 * wanted
        for admitted, wanted in zip(cluster.per_second()[1:], offered, strict=True)
    )


Rates = Callable[[list[str]], dict[str, float]]

STEPS: dict[str, tuple[Rates, Rates]] = {
    "from a fifth, even, to all on one": (
        lambda names: dict.fromkeys(names, 0.2 * LIMIT / len(names)),
        lambda _: {"node1": 3.0 * LIMIT},
    ),
    "from one node to another": (
        lambda _: {"node1": 3.0 * LIMIT},
        lambda _: {"node2": 3.0 * LIMIT},
    ),
    "from even to one": (
        lambda names: dict.fromkeys(names, 3.0 * LIMIT / len(names)),
        lambda _: {"node2": 3.0 * LIMIT},
    ),
    "from one to even": (
        lambda _: {"node2": 3.0 * LIMIT},
        lambda names: dict.fromkeys(names, 3.0 * LIMIT / len(names)),
    ),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("at", [3.0, 3.4, 3.8])
def test_a_step_is_followed(
    rate_cluster: type[RateCluster], step: str, count: int, at: float
) -> None:
    """The seconds after the one of the step are right, and that one is not over the limit."""
    before, after = STEPS[step]
    cluster = rate_cluster(count)
    cluster.settings.set("global", LIMIT)
    cluster.run(7, rates=lambda now: (before if now < at else after)(cluster.names))
    seconds = cluster.per_second()

    assert seconds[3] <= 1.1 * LIMIT
    assert within(seconds[4:], LIMIT)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_lost_reports_change_little(rate_cluster: type[RateCluster], loss: float) -> None:
    """Counts are cumulative, so the next report makes up for a lost one."""
    cluster = rate_cluster(3, loss=loss)
    cluster.settings.set("global", LIMIT)
    cluster.run(6, rates=even(cluster, 3))

    assert within(cluster.per_second()[1:], LIMIT)


def test_slow_links_change_little(rate_cluster: type[RateCluster]) -> None:
    """A fifth of a second each way is twice the interval of the reports."""
    cluster = rate_cluster(3, delay_s=0.2)
    cluster.settings.set("global", LIMIT)
    cluster.run(7, rates=even(cluster, 3))

    assert within(cluster.per_second()[1:], LIMIT, tolerance=0.15)


def test_small_limits_hold_on_the_average(rate_cluster: type[RateCluster]) -> None:
    """Five a second over eight nodes: less than one for each."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", 5)
    cluster.run(20, rates=lambda _now: dict.fromkeys(cluster.names, 4.0))

    assert 80 <= sum(cluster.per_second()[2:]) <= 100


def test_costs_are_units(rate_cluster: type[RateCluster]) -> None:
    """Ten units a request, at three times the limit in units."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(10, rates=lambda _now: dict.fromkeys(cluster.names, LIMIT / 10), cost=10)

    assert within([sum(cluster.per_second()[2:]) // 8], LIMIT)


def test_bursts_after_silence_are_held_to_the_limit(rate_cluster: type[RateCluster]) -> None:
    """A tenth of each other second, thirty times the limit, on all nodes at once."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(
        6,
        rates=lambda now: dict.fromkeys(cluster.names, 10.0 * LIMIT) if now % 2 < 0.1 else {},
    )

    assert all(count <= 1.15 * LIMIT for count in cluster.per_second())


def test_all_nodes_count_the_same(rate_cluster: type[RateCluster]) -> None:
    """A moment after the last request of a window, owners and others alike."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)
    cluster.counts()  # whoever is asked for statistics keeps them up to date
    cluster.run(2.6, rates=lambda now: dict.fromkeys(cluster.names, 20.0) if now < 2.3 else {})

    assert [cluster.admitted[2]] * 8 == cluster.counts()


def test_a_new_window_starts_from_nothing(rate_cluster: type[RateCluster]) -> None:
    """Time passing is the reset."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2.0, rates=lambda now: dict.fromkeys(cluster.names, 50.0) if now < 1.9 else {})
    cluster.run(0.5, rates=lambda _now: {})

    assert [0, 0, 0] == cluster.counts()


@pytest.mark.parametrize(
    ("mode", "least", "most"),
    [
        (PartitionMode.STATIC, 0.9, 1.1),
        (PartitionMode.OPEN, 1.5, 2.1),
        (PartitionMode.CLOSED, 0.5, 1.1),
    ],
)
def test_a_node_that_is_cut_off_does_as_the_mode_says(
    rate_cluster: type[RateCluster], mode: PartitionMode, least: float, most: float
) -> None:
    """Before membership has noticed: of three nodes one hears neither of the others."""
    cluster = rate_cluster(3, config=RateLimitConfig(partition_mode=mode))
    cluster.settings.set("global", LIMIT)
    cluster.run(3, rates=even(cluster, 3))
    cluster.cut(["node1", "node2"], ["node3"])
    cluster.run(4, rates=even(cluster, 3))
    seconds = cluster.per_second()[5:]

    assert all(least * LIMIT <= count <= most * LIMIT for count in seconds)


def test_two_halves_together_keep_to_the_limit(rate_cluster: type[RateCluster]) -> None:
    """Static: neither half has the quorum, so each keeps its last shares."""
    cluster = rate_cluster(6)
    cluster.settings.set("global", LIMIT)
    cluster.run(3, rates=even(cluster, 3))
    halves = (cluster.names[:3], cluster.names[3:])
    cluster.cut(*halves)
    cluster.run(2.5, rates=even(cluster, 3))
    for half in halves:
        cluster.tell_members(half, of=half, quorum=False)
    cluster.run(4.5, rates=even(cluster, 3))

    assert within(cluster.per_second()[3:], LIMIT)


def test_the_side_with_the_quorum_takes_what_the_other_side_had(
    rate_cluster: type[RateCluster],
) -> None:
    """So a cut costs at most the last shares of the smaller side on top of the limit."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(3, rates=even(cluster, 3))
    cluster.cut(["node1", "node2"], ["node3"])
    cluster.tell_members(["node1", "node2"], of=["node1", "node2"])
    cluster.tell_members(["node3"], of=["node3"], quorum=False)
    cluster.run(4, rates=even(cluster, 3))

    assert all(count <= 1.43 * LIMIT for count in cluster.per_second()[4:])


def test_a_healed_cluster_is_one_again(rate_cluster: type[RateCluster]) -> None:
    """Within a second."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2, rates=even(cluster, 3))
    cluster.cut(["node1", "node2"], ["node3"])
    cluster.tell_members(["node3"], of=["node3"], quorum=False)
    cluster.run(3, rates=even(cluster, 3))
    cluster.cut()
    cluster.tell_members(cluster.names)
    cluster.run(4, rates=even(cluster, 3))

    assert within(cluster.per_second()[6:], LIMIT)


def test_what_a_dead_node_had_is_shared_by_the_others(rate_cluster: type[RateCluster]) -> None:
    """Once membership says so; the node that comes back gets its share again."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2, rates=even(cluster, 3))
    del cluster.limiters["node3"]
    cluster.tell_members(["node1", "node2"])
    cluster.run(3, rates=even(cluster, 3))
    survivors = cluster.per_second()[3:]
    cluster.start("node3", incarnation=2, config=None)
    cluster.tell_members(cluster.names)
    cluster.run(3, rates=even(cluster, 3))

    assert within(survivors, LIMIT)
    assert within(cluster.per_second()[6:], LIMIT)


def test_ownership_moves_and_the_counts_move_along(rate_cluster: type[RateCluster]) -> None:
    """The next report fills owners that were none before."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)
    cluster.counts()
    cluster.run(2.3, rates=even(cluster, 0.8))
    owners = cluster.limiters["node1"]._tracked["global"].owners
    survivors = [name for name in cluster.names if name not in owners]
    spent = sum(
        cluster.limiters[name].store.admitted(
            "global", 1_700_000_002, by=cluster.limiters[name]._exchange._actor
        )
        for name in survivors
    )
    for name in owners:
        del cluster.limiters[name]
    cluster.tell_members(survivors)
    cluster.run(0.4, rates=lambda _now: {})

    assert spent > 0
    assert all(count >= spent for count in cluster.counts())


def test_silence_costs_nothing(rate_cluster: type[RateCluster]) -> None:
    """Keys that nobody asks for are not reported, and are forgotten."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(1, rates=even(cluster, 3))
    cluster.run(3, rates=lambda _now: {})
    cluster.sent.clear()
    cluster.run(2, rates=lambda _now: {})

    assert 0 == cluster.sent[REPORT_DOCUMENT]
    assert all(limiter.next_deadline() is None for limiter in cluster.limiters.values())


def test_clocks_that_differ_by_half_a_window_do_not_matter_much(
    rate_cluster: type[RateCluster],
) -> None:
    """Each node counts in its own windows."""
    cluster = rate_cluster(3)
    cluster.limiters["node2"]._wall_clock = lambda: cluster.time.wall() + 0.4
    cluster.settings.set("global", LIMIT)
    cluster.run(6, rates=even(cluster, 3))

    assert within(cluster.per_second()[1:], LIMIT, tolerance=0.15)


def test_a_clock_far_ahead_does_not_wipe_the_counts(rate_cluster: type[RateCluster]) -> None:
    """Its windows are left out by the owners until they are due."""
    cluster = rate_cluster(3)
    cluster.limiters["node2"]._wall_clock = lambda: cluster.time.wall() + 3600
    cluster.settings.set("global", LIMIT)
    cluster.run(2.5, rates=even(cluster, 0.6))
    counts = cluster.counts()

    assert counts[0] > 0
    assert counts[2] > 0
    assert counts[0] == pytest.approx(cluster.admitted[2] * 2 / 3, rel=0.4)
