"""Suspicions shorten with confirmations; probes go round; timeouts follow the network."""

from __future__ import annotations

import random

import pytest

from meshlib.membership import (
    Lateness,
    LocalHealth,
    ProbeOrder,
    RoundTrips,
    Suspicion,
    suspicion_bounds_s,
)


def suspicion(*, wanted: int, bounds_s: tuple[float, float] = (2.0, 30.0)) -> Suspicion:
    return Suspicion(
        incarnation=1,
        suspector="a",
        started=10.0,
        bounds_s=bounds_s,
        confirmations_wanted=wanted,
        token=1,
    )


def test_an_unconfirmed_suspicion_waits_longest() -> None:
    """Nobody else suspects: the member has the longest time to refute."""
    assert suspicion(wanted=3).timeout_s() == 30.0


def test_one_of_three_confirmations_halves_the_logarithm() -> None:
    """The reference table of memberlist: k=3, 2 to 30 s, one confirmation leaves 16 s."""
    doubt = suspicion(wanted=3)
    doubt.confirm("b")

    assert doubt.timeout_s() == pytest.approx(16.0)


def test_all_confirmations_leave_the_shortest_wait() -> None:
    """Three independent nodes agree."""
    doubt = suspicion(wanted=3)
    for name in "bcd":
        doubt.confirm(name)

    assert doubt.deadline() == pytest.approx(12.0)


def test_a_confirmation_by_the_same_node_is_no_news() -> None:
    """Confirmations are counted once for each node, the first suspector included."""
    doubt = suspicion(wanted=3)

    assert [doubt.confirm(name) for name in "abb"] == [False, True, False]


def test_a_cluster_too_small_to_confirm_waits_shortest() -> None:
    """With nobody else to ask there is nothing to wait for."""
    assert suspicion(wanted=0).timeout_s() == 2.0


def test_the_wait_grows_with_the_logarithm_of_the_cluster() -> None:
    """A thousand nodes wait half as long again as ten."""
    small = suspicion_bounds_s(10, multiplier=3.0, probe_interval_s=0.5)
    large = suspicion_bounds_s(1000, multiplier=3.0, probe_interval_s=0.5)

    assert small == (1.5, 9.0)
    assert large == pytest.approx((2.25, 13.5))


def test_where_nobody_refuted_late_the_bounds_are_as_they_were() -> None:
    """Neither for nothing that was seen, nor for refutations that took no time."""
    lateness = Lateness()
    before = lateness.stretch((1.5, 9.0), 100.0)
    lateness.observe(0.02, 100.0)
    lateness._check()

    assert (1.5, 9.0) == before == lateness.stretch((1.5, 9.0), 100.0)


def test_a_confirmed_suspicion_lasts_four_times_as_long_as_the_slowest_refutation_took() -> None:
    """Quicker ones before and after it change nothing."""
    lateness = Lateness()
    for late_s in (0.3, 1.0, 0.2):
        lateness.observe(late_s, 100.0)

    assert (4.0, 9.0) == lateness.stretch((1.5, 9.0), 100.0)


def test_it_lasts_four_times_as_long_as_elsewhere_at_most_and_never_longer_than_unconfirmed() -> (
    None
):
    """Whatever was seen: on no network anybody is Down later than after the longest wait."""
    lateness = Lateness()
    lateness.observe(1e9, 100.0)

    assert (6.0, 9.0) == lateness.stretch((1.5, 9.0), 100.0)
    assert (2.0, 2.0) == lateness.stretch((1.0, 2.0), 100.0)


def test_half_of_what_was_seen_is_forgotten_every_two_minutes() -> None:
    """By the time that is given, and not by another clock."""
    lateness = Lateness()
    lateness.observe(1.5, 100.0)
    seen = [lateness.seen_s(100.0 + late_s) for late_s in (0.0, 120.0, 240.0)]
    lateness.observe(0.5, 340.0)

    assert [1.5, 0.75, 0.375] == pytest.approx(seen)
    assert 0.5 == lateness.seen_s(340.0)
    assert (1.5, 9.0) == lateness.stretch((1.5, 9.0), 3700.0)


def test_a_suspicion_that_runs_takes_longer_bounds_and_no_shorter_ones() -> None:
    """What others refute meanwhile counts for it."""
    doubt = suspicion(wanted=3)
    for name in "bcd":
        doubt.confirm(name)
    taken = [doubt.lengthen(bounds_s) for bounds_s in ((1.0, 30.0), (5.0, 30.0), (5.0, 30.0))]

    assert [False, True, False] == taken
    assert doubt.deadline() == pytest.approx(15.0)


def test_who_was_heard_within_the_shortest_wait_is_heard() -> None:
    """One that is silent for longer is not, and neither is one that was not heard since."""
    doubt = suspicion(wanted=3)
    before = doubt.is_heard(10.0)
    doubt.heard_at = 11.0

    assert [False, True, False] == [before, doubt.is_heard(12.9), doubt.is_heard(13.0)]


def test_every_member_is_probed_before_any_again() -> None:
    """One round of picks names each member once."""
    order = ProbeOrder(random.Random(1))
    names = list("abcdef")
    first = [order.pick(names) for _ in names]
    second = [order.pick(names) for _ in names]

    assert sorted(map(str, first)) == sorted(map(str, second)) == names


def test_a_new_member_is_probed_within_two_rounds() -> None:
    """A late joiner enters the running round or the next."""
    order = ProbeOrder(random.Random(2))
    names = list("abcd")
    order.pick(names)
    names.append("z")
    picks = [order.pick(names) for _ in range(2 * len(names))]

    assert "z" in picks


def test_a_removed_member_is_not_probed() -> None:
    """Names that are no longer given are passed over."""
    order = ProbeOrder(random.Random(3))
    order.pick(list("abcd"))

    assert {order.pick(["b"]) for _ in range(5)} == {"b"}


def test_nobody_to_probe_is_none() -> None:
    """An empty cluster has no next."""
    assert ProbeOrder(random.Random(4)).pick([]) is None


def test_local_health_stays_in_its_bounds() -> None:
    """The score neither falls below 0 nor passes its maximum."""
    health = LocalHealth(score_max=8)
    health.adjust(-3)
    low = health.score
    health.adjust(100)

    assert (low, health.score, health.multiplier) == (0, 7, 8)


def test_the_timeout_follows_measured_round_trips() -> None:
    """Steady 20 ms trips shorten the wait to the floor; before that it is the longest."""
    trips = RoundTrips(timeout_min_s=0.05, timeout_max_s=0.5)
    before = trips.timeout_s()
    for _ in range(50):
        trips.observe(0.02)

    assert (before, trips.timeout_s()) == (0.5, 0.05)


def test_jitter_lengthens_the_timeout() -> None:
    """Trips that vary make the wait longer than their mean."""
    trips = RoundTrips(timeout_min_s=0.01, timeout_max_s=5.0)
    for index in range(50):
        trips.observe(0.1 if index % 2 else 0.3)

    assert 0.3 < trips.timeout_s() < 1.0


def test_one_that_is_taken_early_has_no_other_turn_in_its_round() -> None:
    """However often somebody is taken, nobody waits for longer than two rounds."""
    rng = random.Random(3)
    names = tuple("abcdefg")
    order, last = ProbeOrder(rng), dict.fromkeys(names, 0)
    longest = 0
    for turn in range(1, 5000):
        early = rng.choice(names)
        if turn > 1 and rng.random() < 0.6 and order.take(early):
            name: str | None = early
        else:
            name = order.pick(names)
        assert name is not None
        longest = max(longest, turn - last[name])
        last[name] = turn
        order._check()

    assert longest <= 2 * len(names) - 1


def test_nobody_is_taken_twice_in_a_round() -> None:
    """Nor who is not there."""
    order = ProbeOrder(random.Random(1))
    order.pick(("a", "b", "c"))
    taken = [order.take(name) for name in ("a", "b", "c", "d")]

    assert taken.count(True) == 2
    assert not taken[3]
