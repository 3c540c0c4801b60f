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
def test_no_window_admits_more_than_the_limit_and_a_few_units_a_node(
    rate_cluster: type[RateCluster], count: int, limit: int, plan: list[Any]
) -> None:
    """Messages arrive at once, and urgent reports are out before the next burst: all know all.

    What may be over: a node that wakes up may admit its least burst before it has heard of the
    others, and each may go beyond its part by the tolerance and by one request.
    """
    cluster = rate_cluster(count, delay_s=0.0)
    cluster.settings.set("global", limit)
    admitted: dict[int, int] = {}
    for pause, node, requests, cost in plan:
        for _ in range(8):
            cluster.time.now += pause / 8
            cluster.step()
        limiter = cluster.limiters[f"node{1 + node % count}"]
        window = int(cluster.time.wall())
        for _ in range(requests):
            if cost <= limit and limiter.acquire("global", cost=cost, now=cluster.time.now):
                admitted[window] = admitted.get(window, 0) + cost
            cluster.step()
    slack = 0.05 * limit + count * (4 + 3)

    assert all(total <= limit + slack for total in admitted.values())
