"""What limiters admit together when their views agree, for any traffic."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.limiters import RateCluster

bursts = st.lists(
    st.tuples(
        st.floats(0.03, 0.3),  # seconds of silence before
        st.integers(1, 8),  # which node
        st.integers(1, 60),  # requests
        st.integers(1, 3),  # cost of each
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 8), limit=st.integers(3, 200), plan=bursts)
def test_no_window_is_granted_more_than_the_limit(
    rate_cluster: type[RateCluster], count: int, limit: int, plan: list[Any]
) -> None:
    """By both calls together, to the unit; and on credit no more than one a node beside it.

    What is on credit counts over the whole run: a window may borrow from the next ones.
    """
    cluster = rate_cluster(count, delay_s=0.001)
    cluster.settings.set("global", limit)
    on_credit = 0
    begin = cluster.time.now
    for pause, node, requests, cost in plan:
        for _ in range(8):
            cluster.time.now += pause / 8
            cluster.step()
        limiter = cluster.limiters[f"node{1 + node % count}"]
        for number in range(requests):
            decision = (
                limiter.acquire("global", cost=cost, now=cluster.time.now)
                if number % 3
                else limiter.ask("global", cost=cost, now=cluster.time.now).decision
            )
            if decision is not None:
                cluster.count(cost, decision)
                on_credit += cost * (decision.allowed and not decision.confirmed)
    windows = int(cluster.time.now - begin) + 2

    assert all(units <= limit for window, units in cluster.granted.items() if window >= 0)
    assert on_credit <= windows * limit + count * max(limit // count, 3)
