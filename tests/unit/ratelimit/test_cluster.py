"""Whole clusters of limiters in simulated time: what they admit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.limiters import RateCluster

from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.leases.questions import QUESTION_DOCUMENT

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
    """A fifth of a second each way: over any time the limit and one credit a node at most."""
    cluster = rate_cluster(3, delay_s=0.2)
    cluster.settings.set("global", LIMIT)
    cluster.run(12, rates=even(cluster, 3))
    seconds = cluster.per_second()
    totals = [sum(seconds[:end]) for end in range(1, 13)]

    assert all(total <= end * LIMIT + LIMIT for end, total in enumerate(totals, 1))
    assert within(seconds[3:], LIMIT, tolerance=0.15)
    assert within([sum(seconds[2:]) // 10], LIMIT, tolerance=0.03)


def test_slow_links_change_nothing_for_the_confirmed_call(rate_cluster: type[RateCluster]) -> None:
    """Not one unit more than the limit in any second, and hardly one less."""
    cluster = rate_cluster(3, delay_s=0.2, config=RateLimitConfig(confirm_timeout_s=2.0))
    cluster.settings.set("global", LIMIT)
    cluster.run(7, rates=even(cluster, 3), is_confirmed=True)
    seconds = cluster.per_second()

    assert all(count <= LIMIT for count in seconds)
    assert within(seconds[1:], LIMIT, tolerance=0.03)


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
    """A tenth of each other second, thirty times the limit, on all nodes at once.

    The call that never waits may take a credit on each node before it has heard of the others.
    """
    never_waiting, confirmed = rate_cluster(3), rate_cluster(3)
    all_at_once = dict.fromkeys(confirmed.names, 10.0 * LIMIT)
    for cluster in (never_waiting, confirmed):
        cluster.settings.set("global", LIMIT)
        cluster.run(
            6,
            rates=lambda now: all_at_once if now % 2 < 0.1 else {},
            is_confirmed=cluster is confirmed,
        )
    print(f"\nnever waiting: {never_waiting.per_second()}")

    assert [LIMIT, 0, LIMIT, 0, LIMIT, 0] == confirmed.per_second()
    assert all(count <= 1.3 * LIMIT for count in never_waiting.per_second())


def test_all_nodes_count_the_same(rate_cluster: type[RateCluster]) -> None:
    """A moment after the last request of a window, owners and others alike, to the unit."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)
    cluster.counts()  # whoever is asked for statistics keeps them up to date
    cluster.run(
        2.6,
        rates=lambda now: dict.fromkeys(cluster.names, 20.0) if now < 2.3 else {},
        is_confirmed=True,
    )

    assert [cluster.granted[int(cluster.time.wall())]] * 8 == cluster.counts()


def test_credit_is_counted_in_the_window_in_which_it_is_told(
    rate_cluster: type[RateCluster],
) -> None:
    """So by the call that never waits a node's last unit may count for the next window."""
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)
    cluster.counts()
    cluster.run(2.6, rates=lambda now: dict.fromkeys(cluster.names, 20.0) if now < 2.3 else {})

    assert abs(cluster.admitted[2] - cluster.counts()[0]) <= 8
    assert 1 == len(set(cluster.counts()))


def test_a_new_window_starts_from_nothing(rate_cluster: type[RateCluster]) -> None:
    """Time passing is the reset."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2.0, rates=lambda now: dict.fromkeys(cluster.names, 50.0) if now < 1.9 else {})
    cluster.run(0.5, rates=lambda _now: {})

    assert [0, 0, 0] == cluster.counts()


@pytest.mark.parametrize(
    ("mode", "most"),
    [(PartitionMode.STATIC, 4 / 3), (PartitionMode.OPEN, 2.0), (PartitionMode.CLOSED, 1.0)],
)
@pytest.mark.parametrize("is_confirmed", [True, False])
def test_a_node_that_is_cut_off_does_as_the_mode_says(
    rate_cluster: type[RateCluster], mode: PartitionMode, most: float, is_confirmed: bool
) -> None:
    """Of three nodes one hears neither of the others, and membership notices after a while.

    The other two have a majority and the whole limit; the third has its part, all, or nothing.
    """
    cluster = rate_cluster(3, config=RateLimitConfig(partition_mode=mode))
    cluster.settings.set("global", LIMIT)
    cluster.run(3, rates=even(cluster, 3), is_confirmed=is_confirmed)
    cluster.cut(["node1", "node2"], ["node3"])
    cluster.run(2, rates=even(cluster, 3), is_confirmed=is_confirmed)
    cluster.tell_members(["node1", "node2"], of=["node1", "node2"])
    cluster.tell_members(["node3"], of=["node3"], quorum=False)
    cluster.run(6, rates=even(cluster, 3), is_confirmed=is_confirmed)
    seconds = cluster.per_second()
    print(f"\n{mode}, confirmed {is_confirmed}: {seconds}")

    slack = 0 if is_confirmed else 0.05 * LIMIT
    assert all(count <= most * LIMIT + slack for count in seconds[8:])
    assert all(count >= 0.9 * most * LIMIT for count in seconds[8:])


@pytest.mark.parametrize("count", [4, 6, 8])
@pytest.mark.parametrize("is_confirmed", [True, False])
def test_two_halves_together_keep_to_the_limit(
    rate_cluster: type[RateCluster], is_confirmed: bool, count: int
) -> None:
    """Static: neither half has the quorum, so each node keeps to its part, however long."""
    cluster = rate_cluster(count)
    cluster.settings.set("global", LIMIT)
    cluster.run(3, rates=even(cluster, 3), is_confirmed=is_confirmed)
    halves = (cluster.names[: count // 2], cluster.names[count // 2 :])
    cluster.cut(*halves)
    cluster.run(2.5, rates=even(cluster, 3), is_confirmed=is_confirmed)
    for half in halves:
        cluster.tell_members(half, of=half, quorum=False)
    cluster.run(4.5, rates=even(cluster, 3), is_confirmed=is_confirmed)
    seconds = cluster.per_second()
    print(f"\n{count} nodes in halves, confirmed {is_confirmed}: {seconds}")

    assert {count * (LIMIT // count)} == set(seconds[5:])
    assert all(count <= LIMIT for count in seconds[4:])
    # Until what the last owner was granted is certainly over, nothing but one credit a node.
    assert seconds[3] <= LIMIT + (0 if is_confirmed else LIMIT)


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
    """Within a second, but that what was admitted on credit as the cut began is repaid first."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2, rates=even(cluster, 3))
    cluster.cut(["node1", "node2"], ["node3"])
    cluster.tell_members(["node3"], of=["node3"], quorum=False)
    cluster.run(3, rates=even(cluster, 3))
    cluster.cut()
    cluster.tell_members(cluster.names)
    cluster.run(5, rates=even(cluster, 3))
    seconds = cluster.per_second()
    print(f"\nhealed at 5: {seconds}")

    assert within(seconds[7:], LIMIT)
    assert sum(seconds[2:]) <= LIMIT * (len(seconds) - 2) + LIMIT


def test_a_healed_cluster_confirms_at_once(rate_cluster: type[RateCluster]) -> None:
    """From the first whole second on: the confirmed call owes nothing."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2, rates=even(cluster, 3), is_confirmed=True)
    cluster.cut(["node1", "node2"], ["node3"])
    cluster.tell_members(["node3"], of=["node3"], quorum=False)
    cluster.run(3, rates=even(cluster, 3), is_confirmed=True)
    cluster.cut()
    cluster.tell_members(cluster.names)
    cluster.run(4, rates=even(cluster, 3), is_confirmed=True)

    assert within(cluster.per_second()[6:], LIMIT, tolerance=0.03)


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_what_a_dead_node_had_is_shared_by_the_others(
    rate_cluster: type[RateCluster], is_confirmed: bool
) -> None:
    """Once membership says so; the node that comes back owns its keys again after three windows.

    What was admitted on credit about the owner's death is repaid first: nobody knows any more what
    it had granted in that window.
    """
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(2, rates=even(cluster, 3), is_confirmed=is_confirmed)
    del cluster.limiters["node3"]
    cluster.tell_members(["node1", "node2"])
    cluster.run(4, rates=even(cluster, 3), is_confirmed=is_confirmed)
    survivors = cluster.per_second()[3:]
    cluster.start("node3", incarnation=2, config=None)
    cluster.tell_members(cluster.names)
    cluster.run(5, rates=even(cluster, 3), is_confirmed=is_confirmed)
    back = cluster.per_second()[7:]
    print(f"\nconfirmed {is_confirmed}: {cluster.per_second()}")

    assert within(survivors if is_confirmed else survivors[1:], LIMIT)
    assert within(back if is_confirmed else back[1:], LIMIT)
    assert sum(cluster.per_second()) <= LIMIT * len(cluster.per_second()) + LIMIT


def test_ownership_moves_and_the_counts_move_along(rate_cluster: type[RateCluster]) -> None:
    """An owner that leaves hands on what it granted, within the same window.

    What nodes then held of it is not given back to another owner, and counts as used.
    """
    cluster = rate_cluster(8)
    cluster.settings.set("global", LIMIT)
    cluster.counts()
    cluster.run(2.3, rates=even(cluster, 0.8), is_confirmed=True)
    owner = cluster.limiters["node1"]._tracked["global"].owner
    survivors = [name for name in cluster.names if name != owner]
    window = int(cluster.time.wall())
    cluster.post(owner, cluster.limiters[owner].leave(now=cluster.time.now))
    del cluster.limiters[owner]
    cluster.tell_members(survivors, of=survivors, size=7)
    cluster.run(0.6, rates=lambda _now: {}, is_confirmed=True)

    counts, spent = cluster.counts(), cluster.granted[window]
    print(f"\ngranted {spent} until {owner} left, and counted since: {counts}")

    assert spent > 0
    assert all(spent <= count <= spent + 0.05 * LIMIT for count in counts)


def test_a_rolling_restart_fills_no_second_beyond_the_limit(
    rate_cluster: type[RateCluster],
) -> None:
    """Three nodes in turn, each leaves and is back after half a second, at 3 times the limit."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(1.0, rates=even(cluster, 3), is_confirmed=True)
    for name in list(cluster.names):
        others = [other for other in cluster.names if other != name]
        cluster.post(name, cluster.limiters[name].leave(now=cluster.time.now))
        del cluster.limiters[name]
        cluster.tell_members(others, of=others, size=2)
        cluster.run(0.5, rates=even(cluster, 3), is_confirmed=True)
        cluster.start(name, incarnation=2, config=None)
        cluster.tell_members(cluster.names)
        cluster.run(2.5, rates=even(cluster, 3), is_confirmed=True)
    windows = sorted(cluster.granted.items())
    lost = 1 - sum(cluster.per_second()) / (LIMIT * len(cluster.per_second()))
    print(f"\nrolling restart: {cluster.per_second()}, {lost:.1%} lost")

    assert all(units <= LIMIT for window, units in windows if window >= 0)
    assert lost <= 0.1


def test_silence_costs_nothing(rate_cluster: type[RateCluster]) -> None:
    """Keys that nobody asks for are not reported, and are forgotten."""
    cluster = rate_cluster(3)
    cluster.settings.set("global", LIMIT)
    cluster.run(1, rates=even(cluster, 3))
    cluster.run(3, rates=lambda _now: {})
    cluster.sent.clear()
    cluster.run(2, rates=lambda _now: {})

    assert 0 == cluster.sent[QUESTION_DOCUMENT]
    assert all(limiter.next_deadline() is None for limiter in cluster.limiters.values())


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_clocks_that_differ_by_half_a_window_do_not_matter(
    rate_cluster: type[RateCluster], name: str
) -> None:
    """Windows are the owner's, whoever that is."""
    cluster = rate_cluster(3)
    cluster.limiters[name]._windows._wall_clock = lambda: cluster.time.wall() + 0.4
    cluster.settings.set("global", LIMIT)
    cluster.run(6, rates=even(cluster, 3))

    assert within(cluster.per_second()[1:], LIMIT)


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_a_clock_far_ahead_does_not_wipe_the_counts(
    rate_cluster: type[RateCluster], name: str
) -> None:
    """What that node admits is counted with the rest, whether it owns the key or not."""
    cluster = rate_cluster(3)
    cluster.limiters[name]._windows._wall_clock = lambda: cluster.time.wall() + 3600
    cluster.settings.set("global", LIMIT)
    cluster.counts()
    cluster.run(
        2.6,
        rates=lambda now: dict.fromkeys(cluster.names, 60.0) if now < 2.3 else {},
        is_confirmed=True,
    )

    window = max(cluster.granted)
    assert cluster.granted[window] > 0
    assert [cluster.granted[window]] * 3 == cluster.counts()
