"""What the confirmed call admits where local estimates were wrong; the other call beside it."""

from __future__ import annotations

from typing import Any

import pytest
from support.limit_lab import QuietLab

from meshlib.ratelimit.leases.holder import HeldKey

REST_S = 4.0
"""After a start owners wait until what an earlier start may have voted for is over."""


def all_at_once(lab: Any, *, each: int, is_waiting: bool) -> list[int]:
    """Offer so many requests on each machine within a moment of each of five seconds."""
    lab.run_for(REST_S)
    for second in range(4, 9):
        for name in lab.machines:
            for number in range(each):
                time = second + 0.3 + number * 1e-4
                lab.offer(time, name, is_waiting=is_waiting)
    lab.run_for(5.9)
    return [lab.admitted[second] for second in range(4, 9)]


@pytest.mark.parametrize(("count", "limit"), [(3, 1), (3, 5), (8, 5), (16, 5)])
def test_a_small_limit_is_the_clusters(count: int, limit: int) -> None:
    """The limit in each second, after a rest too, and not one unit for each node."""
    never_waiting = all_at_once(QuietLab(count, limit=limit), each=4, is_waiting=False)
    print(f"\n{count} nodes, {limit}/s: the call that never waits admits {never_waiting}")

    assert [limit] * 5 == all_at_once(QuietLab(count, limit=limit), each=4, is_waiting=True)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_burst_at_one_of_three_nodes_has_the_whole_limit(is_waiting: bool) -> None:
    """200 at once every other second, under 200 a second: the confirmed call admits all."""
    lab = QuietLab(3, limit=200)
    lab.run_for(REST_S)
    for second in (4, 6, 8):
        for number in range(200):
            lab.offer(second + 0.3 + number * 1e-5, "m1", is_waiting=is_waiting)
    lab.run_for(6)
    counts = [lab.admitted[second] for second in (4, 6, 8)]
    print(f"\nwaiting {is_waiting}: {counts}")

    assert all(count <= 200 for count in counts)
    assert not is_waiting or counts == [200, 200, 200]


def test_a_few_requests_on_an_idle_cluster_all_pass() -> None:
    """Eight within 6 ms under ten a second."""
    lab = QuietLab(3, limit=10)
    lab.run_for(REST_S)
    for number in range(8):
        lab.offer(4.3 + number * 0.0007, "m0")
    lab.run_for(1)

    assert 8 == lab.admitted[4]


def test_one_node_alone_refuses_nothing_below_its_limit() -> None:
    """180 at once in each second, of 200."""
    lab = QuietLab(1, limit=200)

    assert [180] * 5 == all_at_once(lab, each=180, is_waiting=True)
    assert 0 == lab.refused


def test_load_that_moves_between_nodes_within_a_window_passes() -> None:
    """An eighth of the limit at each node in turn: 0.99 of it at least, and never more."""
    lab = QuietLab(8, limit=304)
    lab.run_for(REST_S)
    for second in range(4, 9):
        for place, name in enumerate(lab.machines):
            for number in range(38):
                lab.offer(second + 0.05 + place * 0.11 + number * 0.0016, name)
    lab.run_for(6)
    counts = [lab.admitted[second] for second in range(4, 9)]

    assert all(0.99 * 304 <= count <= 304 for count in counts), counts


@pytest.mark.parametrize("loss", [0.1, 0.25])
def test_loss_costs_little(loss: float) -> None:
    """At three times the limit over eight nodes, every window is filled, and none overfilled."""
    lab = QuietLab(8, limit=300, loss=loss)
    lab.run_for(REST_S)
    for number in range(4500):
        lab.offer(4 + number / 900, f"m{number % 8}")
    lab.run_for(6)
    total = sum(lab.admitted[second] for second in range(4, 9))
    print(f"\n{loss:.0%} lost: {total} of 1500")

    assert 0.97 * 1500 <= total <= 1500 + 8


def test_credit_is_told_and_repaid() -> None:
    """Over any time the call that never waits admits the limit and one credit a node at most."""
    lab = QuietLab(4, limit=40, loss=0.25)
    lab.run_for(REST_S)
    for number in range(2000):
        lab.offer(4 + number / 200, f"m{number % 4}", is_waiting=False)
    lab.run_for(11)
    total = sum(lab.admitted[second] for second in range(4, 14))

    assert 0.95 * 400 <= total <= 400 + 4 * 10


def test_credit_that_is_not_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound above is one that a node which hides its credit breaks."""
    begin = HeldKey.begin

    def broken(self: Any, now: float, **settings: Any) -> Any:
        self.credit_total = self.credit_answered
        return begin(self, now, **settings)

    monkeypatch.setattr(HeldKey, "begin", broken)
    lab = QuietLab(4, limit=40)
    lab.run_for(REST_S)
    for number in range(2000):
        lab.offer(4 + number / 200, f"m{number % 4}", is_waiting=False)
    lab.run_for(11)

    assert sum(lab.admitted[second] for second in range(4, 14)) > 400 + 4 * 10


def test_waiting_as_long_as_told_is_enough() -> None:
    """A refused request passes after `retry_after_s`, if nobody else comes."""
    lab = QuietLab(3, limit=5)
    lab.run_for(REST_S)
    for _ in range(5):
        lab.offer(4.3, "m0")
    lab.run_for(0.5)
    machine = lab.machines["m0"]
    limiter = machine.limiter
    assert limiter is not None
    refusal = limiter.ask("many", now=lab.local(machine)).decision

    assert refusal is not None
    assert not refusal.allowed
    assert refusal.confirmed
    lab.offer(lab.now + refusal.retry_after_s, "m0")
    lab.run_for(1)
    assert 1 == lab.admitted[5]


def test_silence_costs_nothing() -> None:
    """Once nobody asks any more, no timer is left on any node."""
    lab = QuietLab(3, limit=60)
    lab.run_for(REST_S)
    for number in range(100):
        lab.offer(4 + number / 100, f"m{number % 3}")
    lab.run_for(5)

    limiters = [machine.limiter for machine in lab.machines.values()]
    assert all(limiter is None or limiter.next_deadline() is None for limiter in limiters)
    assert None not in limiters
