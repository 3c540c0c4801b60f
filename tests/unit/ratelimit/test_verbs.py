"""What a program asks of a limiter beside `acquire`: all or nothing, waiting, giving back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.limiters import RateCluster

from meshlib.errors import InvalidFieldError, InvalidTypeError, UnknownKeyError
from meshlib.limits import RATE_WAITING_MAX
from meshlib.ratelimit import RateLimiter, Ticket

A, B = "k:a", "k:b"


@pytest.fixture
def alone(rate_cluster: type[RateCluster]) -> RateCluster:
    cluster = rate_cluster(1)
    cluster.settings.set_rule("k", pattern="k:*", limits=["10/minute"])
    return cluster


def limiter_of(cluster: RateCluster, now: float = 0.1) -> RateLimiter:
    cluster.time.now = now
    return cluster.limiters["node1"]


def left(cluster: RateCluster, key: str, now: float = 0.1) -> int:
    return limiter_of(cluster, now).peek(key, now=now).remaining


def run(cluster: RateCluster, until: float, *, step_s: float = 0.01) -> list[Ticket]:
    """Let time go on; return what was decided meanwhile, in order, where one node is all."""
    decided = []
    while cluster.time.now < until:
        cluster.time.now = min(until, round(cluster.time.now + step_s, 9))
        if len(cluster.limiters) > 1:
            cluster.step()
            continue
        limiter = limiter_of(cluster, cluster.time.now)
        limiter.tick(cluster.time.now)
        decided += limiter.decided()
    return decided


# All or nothing


def test_all_keys_pass_or_none(alone: RateCluster) -> None:
    """Nothing is counted of a request that one of two refuses."""
    limiter = limiter_of(alone)
    first = limiter.acquire_many({A: 4, B: 8}, now=0.1)
    second = limiter.acquire_many({A: 4, B: 3}, now=0.1)
    third = limiter.ask_many({A: 6, B: 2}, now=0.1).decision

    assert (True, False, True) == (bool(first), bool(second), bool(third))
    assert (0, 0) == (left(alone, A), left(alone, B))


def test_the_decision_on_several_is_that_of_the_least(alone: RateCluster) -> None:
    """Two of ten are left of one key, and six of the other."""
    decision = limiter_of(alone).acquire_many({A: 4, B: 8}, now=0.1)

    assert 2 == decision.remaining


def test_a_refusal_of_several_on_three_nodes_burns_nothing(
    rate_cluster: type[RateCluster],
) -> None:
    """Once what was granted has been given back, all of it passes elsewhere."""
    cluster = rate_cluster(3)
    cluster.settings.set_rule("k", pattern="k:*", limits=["10/minute"])
    now = cluster.time.now
    full = cluster.limiters["node1"].ask(B, cost=10, now=now)
    run(cluster, now + 0.5)
    ticket = cluster.limiters["node2"].ask_many({A: 7, B: 1}, now=cluster.time.now)
    run(cluster, now + 1.0)
    other = cluster.limiters["node3"].ask(A, cost=10, now=cluster.time.now)
    run(cluster, now + 1.5)

    assert full.decision
    assert ticket.decision is not None
    assert not ticket.decision
    assert other.decision


@pytest.mark.parametrize("costs", [{}, {f"k:{n}": 1 for n in range(101)}, {A: 1, B: 11}, {A: 0}])
def test_several_keys_that_cannot_be_are_refused(alone: RateCluster, costs: dict[str, int]) -> None:
    """None, too many, or one that could never pass; and nothing is counted."""
    with pytest.raises(InvalidFieldError):
        limiter_of(alone).acquire_many(costs, now=0.1)
    assert 10 == left(alone, A)


# Looking, and giving back


def test_looking_counts_nothing(alone: RateCluster) -> None:
    """However often."""
    limiter = limiter_of(alone)
    seen = [limiter.ask_peek(A, cost=4, now=0.1).decision for _ in range(5)]
    limiter.acquire(A, cost=8, now=0.1)
    after = limiter.ask_peek(A, cost=4, now=0.1).decision

    assert {10} == {decision.remaining for decision in seen if decision}
    assert after is not None
    assert not after
    assert 2 == after.remaining
    assert 39.9 == pytest.approx(after.retry_after_s)


def test_a_look_that_nobody_answers_says_so(rate_cluster: type[RateCluster]) -> None:
    """It is what the node knows, without the owner's word; and no part is taken for it."""
    cluster = rate_cluster(3, loss=1.0)
    cluster.settings.set("k", 10)
    tickets = [
        cluster.limiters[name].ask_peek("k", timeout_s=0.2, now=cluster.time.now)
        for name in cluster.names
    ]
    run(cluster, cluster.time.now + 0.3)

    assert all(ticket.decision is not None for ticket in tickets)
    assert [0, 0, 0] == [
        cluster.limiters[name]._plan("k", cluster.time.now)[0].static_used for name in cluster.names
    ]


def test_what_is_given_back_may_be_used_again(alone: RateCluster) -> None:
    """And no more than was used."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    limiter.refund(A, cost=4, now=0.1)
    some = left(alone, A)
    limiter.refund(A, cost=10, now=0.1)

    assert (4, 10) == (some, left(alone, A))


@pytest.mark.parametrize("key", ["k:a", "k:b", "k:e"])
@pytest.mark.parametrize("limit", ["10/minute", "10/31d", "10/month"])
def test_what_is_given_back_elsewhere_may_be_used_again(
    rate_cluster: type[RateCluster], key: str, limit: str
) -> None:
    """The owner takes it from any node, in the window that runs; and resets it for any."""
    cluster = rate_cluster(3)
    cluster.settings.set_rule("k", pattern="k:*", limits=limit)

    def seen(name: str) -> int:
        run(cluster, cluster.time.now + 0.3)
        ticket = cluster.limiters[name].ask_peek(key, now=cluster.time.now)
        run(cluster, cluster.time.now + 0.1)
        return -1 if ticket.decision is None else ticket.decision.remaining

    cluster.limiters["node1"].ask(key, cost=10, now=cluster.time.now)
    used = seen("node3")
    cluster.limiters["node2"].refund(key, cost=3, now=cluster.time.now)
    refunded = seen("node3")
    cluster.limiters["node3"].reset(key, now=cluster.time.now)

    assert (0, 3, 10) == (used, refunded, seen("node2"))


def test_a_reset_begins_anew(alone: RateCluster) -> None:
    """Of the key, and of no other; what was owed is forgotten too."""
    limiter = limiter_of(alone)
    reservation = limiter.reserve(A, estimate=10, now=0.1)
    limiter.acquire(B, cost=10, now=0.1)
    limiter.settle(reservation, actual=15, now=0.1)
    limiter.reset(A, now=0.1)

    assert (10, 0) == (left(alone, A), left(alone, B))
    assert 10 == left(alone, A, 41.0)


# Waiting


def test_those_who_wait_are_served_in_the_order_they_came(alone: RateCluster) -> None:
    """Each window lets ten units in; nobody overtakes, whatever the cost."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    costs = [3, 8, 1, 1, 9]
    tickets = [limiter.wait(A, cost=cost, timeout_s=600.0, now=0.1) for cost in costs]
    served = [run(alone, until, step_s=0.25) for until in (39.9, 41.0, 101.0, 161.0)]

    assert [[], tickets[:1], tickets[1:4], tickets[4:]] == served
    assert all(ticket.decision for ticket in tickets)


def test_who_need_not_wait_is_answered_at_once(alone: RateCluster) -> None:
    """While there are units, and nobody waits before."""
    limiter = limiter_of(alone)
    tickets = [limiter.wait(A, cost=5, timeout_s=1.0, now=0.1) for _ in range(3)]

    assert [True, True, None] == [t.decision and t.decision.allowed for t in tickets]


def test_waiting_ends_at_the_deadline(alone: RateCluster) -> None:
    """With a refusal that says when there will be room; those behind go on."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    short = limiter.wait(A, cost=10, timeout_s=5.0, now=0.1)
    long = limiter.wait(A, cost=1, timeout_s=60.0, now=0.1)
    decided = [run(alone, until, step_s=0.25) for until in (5.0, 5.25, 41.0)]

    assert [[], [short], [long]] == decided
    assert short.decision is not None
    assert not short.decision
    assert short.decision.retry_after_s > 0
    assert long.decision


def test_who_goes_away_is_not_served(alone: RateCluster) -> None:
    """What it waited for is there for the next."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    gone, stays = (limiter.wait(A, cost=10, timeout_s=60.0, now=0.1) for _ in range(2))
    limiter.withdraw(gone, now=0.2)
    run(alone, 41.0, step_s=0.25)

    assert gone.decision is not None
    assert not gone.decision
    assert stays.decision


def test_a_line_asks_no_more_often_than_it_has_to(alone: RateCluster) -> None:
    """One question a window, however many wait: nothing is due in between but deadlines."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    for _ in range(50):
        limiter.wait(A, cost=1, timeout_s=600.0, now=0.1)
    limiter.tick(0.2)
    due_at = limiter.next_deadline()

    assert due_at is not None
    assert due_at >= 39.9


def test_lines_are_bounded(alone: RateCluster) -> None:
    """One too many is refused at once."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    tickets = [limiter.wait(A, timeout_s=9.0, now=0.1) for _ in range(RATE_WAITING_MAX + 1)]

    assert tickets[-2].decision is None
    assert tickets[-1].decision is not None
    assert not tickets[-1].decision


def test_who_waits_for_a_limit_that_is_removed_is_let_go(alone: RateCluster) -> None:
    """With a refusal, at the next time that it is asked for."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=10, now=0.1)
    tickets = [limiter.wait(A, timeout_s=600.0, now=0.1) for _ in range(3)]
    alone.settings.remove_rule("k")
    run(alone, 41.0, step_s=0.25)

    assert [False] * 3 == [bool(ticket.decision) for ticket in tickets]
    assert None not in [ticket.decision for ticket in tickets]


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_that_cannot_be_is_refused(alone: RateCluster, timeout_s: float) -> None:
    """And nobody waits."""
    with pytest.raises(InvalidFieldError, match="timeout_s"):
        limiter_of(alone).wait(A, timeout_s=timeout_s, now=0.1)


# Reserving and settling


@pytest.mark.parametrize(("actual", "remaining"), [(0, 10), (2, 8), (6, 4), (9, 1), (10, 0)])
def test_settling_counts_what_was_used(alone: RateCluster, actual: int, remaining: int) -> None:
    """In the place of the estimate."""
    limiter = limiter_of(alone)
    reservation = limiter.reserve(A, estimate=6, now=0.1)
    before = left(alone, A)
    limiter.settle(reservation, actual=actual, now=0.1)

    assert (4, remaining) == (before, left(alone, A))


def test_use_beyond_the_limit_is_owed_to_the_next_window(alone: RateCluster) -> None:
    """And once only."""
    limiter = limiter_of(alone)
    reservation = limiter.reserve(A, estimate=6, now=0.1)
    limiter.settle(reservation, actual=13, now=0.1)

    assert (0, 7, 10) == (left(alone, A), left(alone, A, 41.0), left(alone, A, 101.0))


def test_what_is_owed_is_bounded(alone: RateCluster) -> None:
    """By the limit for one settlement, and by twice that in all."""
    limiter = limiter_of(alone)
    for reservation in [limiter.reserve(A, estimate=1, now=0.1) for _ in range(10)]:
        limiter.settle(reservation, actual=10**9, now=0.1)

    assert (0, 0, 9, 10) == tuple(left(alone, A, now) for now in (41.0, 101.0, 161.0, 221.0))


def test_what_is_not_settled_stays_at_its_estimate(alone: RateCluster) -> None:
    """Once its lease has ended; to settle it then is an error."""
    limiter = limiter_of(alone)
    reservation = limiter.reserve(A, estimate=6, lease_s=2.0, now=0.1)

    with pytest.raises(UnknownKeyError):
        limiter_of(alone, 2.2).settle(reservation, actual=0, now=2.2)
    assert 4 == left(alone, A, 2.2)


def test_it_is_settled_once(alone: RateCluster) -> None:
    """The second time nothing changes."""
    limiter = limiter_of(alone)
    reservation = limiter.ask_reservation(A, estimate=6, now=0.1).reservation
    assert reservation
    limiter.settle(reservation.reservation_id, actual=1, now=0.1)

    with pytest.raises(UnknownKeyError):
        limiter.settle(reservation, actual=1, now=0.1)
    assert 9 == left(alone, A)


def test_what_a_past_window_did_not_use_is_void(alone: RateCluster) -> None:
    """The window that runs has its limit and no more."""
    limiter = limiter_of(alone)
    reservation = limiter.reserve(A, estimate=6, now=39.0)
    limiter_of(alone, 41.0).acquire(A, cost=5, now=41.0)
    limiter.settle(reservation, actual=1, now=41.0)

    assert 5 == left(alone, A, 41.0)


def test_what_is_refused_reserves_nothing(alone: RateCluster) -> None:
    """And cannot be settled."""
    limiter = limiter_of(alone)
    limiter.acquire(A, cost=7, now=0.1)
    reservation = limiter.reserve(A, estimate=6, now=0.1)

    assert not reservation
    with pytest.raises(UnknownKeyError):
        limiter.settle(reservation, actual=1, now=0.1)
    assert 3 == left(alone, A)


@pytest.mark.parametrize(
    ("actual", "error"),
    [(-1, InvalidFieldError), (math.nan, InvalidFieldError), (True, InvalidTypeError)],
)
def test_a_use_that_cannot_be_is_refused(
    alone: RateCluster, actual: Any, error: type[Exception]
) -> None:
    """And the reservation stays."""
    limiter = limiter_of(alone)
    reservation = limiter.reserve(A, estimate=6, now=0.1)
    with pytest.raises(error, match="actual"):
        limiter.settle(reservation, actual=actual, now=0.1)

    limiter.settle(reservation, actual=2, now=0.1)
    assert 8 == left(alone, A)
