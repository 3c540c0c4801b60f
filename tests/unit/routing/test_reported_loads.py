"""Loads that somebody reports: what `expected_time` makes of them, and what not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from support.states import StateCluster

MODEL = "llama-3"

Reporting = Callable[..., Counter[str | None]]


@pytest.fixture
def reporting(state_cluster: type[StateCluster]) -> Reporting:
    """Returns a function that reports loads, and says where 80 prompts go some time after."""

    def report(*, after_s: float = 0.0, counts: int = 0, **reported: float) -> Counter[str | None]:
        cluster = state_cluster(1)
        manager = cluster.managers[0]
        for name, load in reported.items():
            manager.sync_worker_state(
                name, model_id=MODEL, url=f"http://{name}", health=True, load=load
            )
        manager.sync_policy_state(
            MODEL, policy_type="expected_time", config='{"cache_threshold": 1}'
        )
        manager.ages.follow(cluster.replicas[0].changes(), now=0.0, is_settled=True)
        placed: Counter[str | None] = Counter()
        for number in range(80):
            decision = manager.route(MODEL, f"{number} prompt of no other", now=after_s)
            placed[decision.worker_id] += 1
            if number < counts and decision.worker_id is not None:
                manager.load.begin(decision.worker_id, now=0.0)
        return placed

    return report


def test_reported_loads_do_not_herd(reporting: Reporting) -> None:
    """One that is overloaded is passed over; nobody draws all prompts; old ones say nothing."""
    fresh = reporting(w1=4, w2=4, w3=8, w4=3)
    old = reporting(w1=4, w2=4, w3=8, w4=3, after_s=9.0)

    assert 0 == fresh["w3"]
    assert min(fresh["w1"], fresh["w2"], fresh["w4"]) >= 15
    assert max(fresh.values()) <= 40
    assert 4 == len(old)
    assert max(old.values()) <= 40


def test_reported_loads_that_differ_little_say_nothing(reporting: Reporting) -> None:
    """It is chance who had one request more at the time of the report."""
    alike = reporting(w1=4, w2=5, w3=6, w4=5)

    assert alike == reporting(w1=0, w2=0, w3=0, w4=0)


@pytest.mark.parametrize("unit", [1e-9, 0.01, 10_000.0, 1e300])
def test_reported_loads_count_in_any_unit(reporting: Reporting, unit: float) -> None:
    """A share of a card, requests, tokens."""
    loads = {"w1": 4, "w2": 5, "w3": 9, "w4": 3}
    scaled = {name: load * unit for name, load in loads.items()}

    assert reporting(**loads) == reporting(**scaled)


def test_between_two_reports_placements_count(reporting: Reporting) -> None:
    """Reported in tokens: what routers have begun since then is not drowned by that."""
    placed = reporting(w1=50_000, w2=51_000, w3=52_000, w4=49_000, counts=80)

    assert [20, 20, 20, 20] == sorted(placed.values())
