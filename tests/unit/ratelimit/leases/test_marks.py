"""What is admitted of what one perfect counter would admit, over the shapes that were wrong.

The confirmed call is held to the marks; what the call that never waits admits is printed beside.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from support.limit_lab import QuietLab

REST_S = 4.0
BEGIN = int(REST_S)

Arrival = tuple[float, int, int]
"""When, at which node, how many units."""


class Load:
    """Arrivals, and what one perfect counter would admit of them, window by window."""

    def __init__(self, arrivals: list[Arrival], *, limit: int, nodes: int) -> None:
        self.arrivals = sorted(arrivals)
        self.limit = limit
        self.nodes = nodes
        self.seconds = range(BEGIN, int(self.arrivals[-1][0]) + 1)
        self.perfect: Counter[int] = Counter()
        for time, _, cost in self.arrivals:
            if self.perfect[int(time)] + cost <= limit:
                self.perfect[int(time)] += cost

    def admit(self, *, is_waiting: bool, loss: float = 0.0) -> Counter[int]:
        """Offer everything; return the units that were admitted, by second."""
        lab = QuietLab(self.nodes, limit=self.limit, loss=loss)
        lab.run_for(REST_S)
        for time, node, cost in self.arrivals:
            lab.offer(time, f"m{node % self.nodes}", cost=cost, is_waiting=is_waiting)
        lab.run_for(len(self.seconds) + 0.99)
        return lab.admitted

    def ratio(self, admitted: Counter[int]) -> float:
        """Return what was admitted over what is due."""
        return sum(admitted[s] for s in self.seconds) / sum(self.perfect[s] for s in self.seconds)

    def worst(self, admitted: Counter[int]) -> float:
        """Return the fullest second over the limit."""
        return max(admitted[second] for second in self.seconds) / self.limit

    def show(self, what: str, *, loss: float = 0.0) -> tuple[float, float]:
        """Print both calls' figures, and return the confirmed one's ratio and worst second."""
        confirmed = self.admit(is_waiting=True, loss=loss)
        never = self.admit(is_waiting=False, loss=loss)
        print(
            f"\n{what}: confirmed {self.ratio(confirmed):.3f}, worst {self.worst(confirmed):.2f}; "
            f"never waiting {self.ratio(never):.3f}, worst {self.worst(never):.2f}"
        )
        return self.ratio(confirmed), self.worst(confirmed)


def poisson(
    rate: float, *, nodes: int, seconds: int = 6, costs: tuple[int, int] = (1, 1), seed: int = 7
) -> list[Arrival]:
    """Draw arrivals at so many units a second, over all nodes alike."""
    rng = random.Random(seed)
    mean = sum(costs) / 2
    found = []
    time = REST_S
    while (time := time + rng.expovariate(rate / mean)) < REST_S + seconds:
        found.append((time, rng.randrange(nodes), rng.randint(*costs)))
    return found


def test_random_bursts_fill_no_second_beyond_the_limit() -> None:
    """300 a second over three nodes, asked for in bursts of up to 150 on one of them."""
    rng = random.Random(3)
    arrivals = [
        (REST_S + burst * 0.05 + number * 1e-4, node, 1)
        for burst in range(120)
        for node in [rng.randrange(3)]
        for number in range(rng.randint(1, 150) if rng.random() < 0.4 else 0)
    ]
    ratio, worst = Load(arrivals, limit=300, nodes=3).show("300/s, random bursts")

    assert worst <= 1.0
    assert ratio >= 0.995


@pytest.mark.parametrize("nodes", [8, pytest.param(32, marks=pytest.mark.slow)])
def test_demand_equal_to_the_limit_passes(nodes: int) -> None:
    """300 a second of 300."""
    load = Load(poisson(300, nodes=nodes), limit=300, nodes=nodes)
    ratio, worst = load.show(f"{nodes} nodes, 300/s of 300")

    assert worst <= 1.0
    assert ratio >= 0.995


@pytest.mark.parametrize("nodes", [3, 8, 32])
def test_what_comes_everywhere_at_once_has_the_whole_limit(nodes: int) -> None:
    """Three times the limit in one moment of each second, and nothing else to use up a lease."""
    arrivals = [
        (REST_S + second + 0.37, node, 1)
        for second in range(3)
        for node in range(nodes)
        for _ in range(900 // nodes)
    ]

    ratio, worst = Load(arrivals, limit=300, nodes=nodes).show(f"{nodes} nodes, all at once")

    assert worst <= 1.0
    assert 0.995 <= ratio <= 1.002


@pytest.mark.parametrize("loss", [0.0, 0.25])
def test_load_that_goes_on_and_off_passes(loss: float) -> None:
    """Three times the limit over eight nodes for two seconds, and none for two."""
    arrivals = [a for a in poisson(900, nodes=8, seconds=10) if int(a[0] - REST_S) % 4 < 2]
    load = Load(arrivals, limit=300, nodes=8)
    ratio, worst = load.show(f"on and off, {loss:.0%} lost", loss=loss)

    assert worst <= 1.0 + (0.03 if loss else 0.0)  # decided in one window, heard in the next
    assert ratio >= (0.99 if loss else 0.995)


@pytest.mark.parametrize(("times", "due"), [(1, 0.995), (3, 0.995), (10, 0.995)])
def test_tokens_are_packed_as_by_one_counter(times: int, due: float) -> None:
    """Costs of 1 to 2,000 of 20,000 a second, over eight nodes."""
    arrivals = poisson(20_000 * times, nodes=8, costs=(1, 2000))
    ratio, worst = Load(arrivals, limit=20_000, nodes=8).show(f"tokens, {times} times")

    assert worst <= 1.0
    assert ratio >= due


@pytest.mark.parametrize(
    ("nodes", "limit"),
    [(3, 6), (3, 300), (8, 16), (8, 300), pytest.param(32, 300, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow), 10])
def test_the_call_that_never_waits_keeps_to_the_limit_in_the_long_run(
    nodes: int, limit: int, times: int
) -> None:
    """From two units a second and node on: 0.97 to 1.03 of what is due, once it has begun."""
    load = Load(poisson(limit * times, nodes=nodes, seconds=12), limit=limit, nodes=nodes)
    admitted = load.admit(is_waiting=False)
    whole = load.seconds[2:]
    ratio = sum(admitted[s] for s in whole) / sum(load.perfect[s] for s in whole)
    print(f"\n{nodes} nodes, {limit}/s, {times} times: {ratio:.3f}")

    # A window may borrow from the next one, where one counter would have refused.
    slack = (
        nodes * max(1, limit // nodes) / sum(load.perfect[s] for s in whole) if times == 1 else 0
    )
    assert 0.97 <= ratio <= 1.03 + slack


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.25])
@pytest.mark.parametrize(("nodes", "limit"), [(3, 1), (8, 5), (4, 40), (8, 300)])
def test_over_any_time_there_is_one_credit_a_node(nodes: int, limit: int, loss: float) -> None:
    """Counted from each window on, the first included: the limit, and one credit a node."""
    load = Load(poisson(4 * limit, nodes=nodes, seconds=12), limit=limit, nodes=nodes)
    admitted = load.admit(is_waiting=False, loss=loss)
    credit = nodes * max(1, limit // nodes)

    for begin in load.seconds:
        for end in range(begin + 1, load.seconds[-1] + 2):
            total = sum(admitted[s] for s in range(begin, end))
            assert total <= (end - begin) * limit + credit, (begin, end)


def test_load_that_moves_is_followed_within_300_ms() -> None:
    """From one node to another in the middle of a second: 0.9 of what is due at once."""
    rate = 240
    arrivals = [(REST_S + n / rate, 0 if n < 2.3 * rate else 1, 1) for n in range(5 * rate)]
    load = Load(arrivals, limit=300, nodes=3)
    lab = QuietLab(3, limit=300)
    lab.run_for(REST_S)
    admitted = []
    for time, node, cost in arrivals:
        lab.offer(time, f"m{node}", cost=cost)
    lab.run_for(2.3)
    for _ in range(3):
        before = sum(lab.admitted.values())
        lab.run_for(0.1)
        admitted.append(sum(lab.admitted.values()) - before)
    lab.run_for(3)
    print(f"\nafter the move, in each 100 ms of {rate // 10} due: {admitted}")

    assert sum(admitted) >= 0.9 * 0.3 * rate
    assert load.ratio(lab.admitted) >= 0.99


def test_a_node_that_leaves_costs_little() -> None:
    """Of three, the owner or another, at three times the limit: 0.97 of every second after it."""
    for leaver in ("m0", "m1", "m2"):
        lab = QuietLab(3, limit=300)
        lab.run_for(REST_S)

        def leave(lab: QuietLab = lab, leaver: str = leaver) -> None:
            machine = lab.machines[leaver]
            assert machine.limiter is not None
            lab.post(leaver, machine.limiter.leave(now=lab.local(machine)))
            machine.limiter = None
            for name in lab.machines:
                lab.notice_left(name, leaver)

        others = [name for name in lab.machines if name != leaver]
        for number in range(5 * 900):
            time = REST_S + number / 900
            names = list(lab.machines) if time < 5.4 else others
            lab.offer(time, names[number % len(names)])
        lab.at(5.4, leave)
        lab.run_for(5.99)
        counts = [lab.admitted[second] for second in range(4, 9)]
        print(f"\n{leaver} leaves: {counts}")

        assert all(0.97 * 300 <= count <= 300 for count in counts)


def test_a_busy_key_is_decided_on_the_spot() -> None:
    """Two requests within 20 ms at one node, and a spent window: no request waits."""
    lab = QuietLab(3, limit=100_000)
    lab.run_for(REST_S)
    machine = lab.machines["m1"]
    waits: Counter[bool] = Counter()

    def ask() -> None:
        assert machine.limiter is not None
        ticket = machine.limiter.ask("many", now=lab.local(machine))
        waits[ticket.decision is None] += 1
        lab.drive(machine)

    for number in range(2000):
        lab.at(REST_S + number / 500, ask)
    lab.run_for(4.2)
    print(f"\nwaited: {waits[True]} of 2,000, one at least in each of four windows")

    assert waits[True] <= 0.02 * 2000


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(32, marks=pytest.mark.slow),
        pytest.param(128, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_an_owner_is_not_asked_too_often(nodes: int) -> None:
    """Leases lengthen with the nodes: one key takes at most 2,000 questions a second."""
    lab = QuietLab(nodes, limit=20_000)
    lab.run_for(REST_S)
    first = lab.machines["m0"].limiter
    assert first is not None
    owner = lab.machines[first._view.owner("many")].limiter
    assert owner is not None
    asked: Counter[int] = Counter()
    ask = owner._owner.ask

    def counting(name: str, *rest: Any) -> Any:
        asked[int(lab.now)] += name != owner._name
        return ask(name, *rest)

    owner._owner.ask = counting  # type: ignore[assignment]
    rng = random.Random(5)
    for _ in range(2 * 40_000):
        lab.offer(REST_S + 2 * rng.random(), f"m{rng.randrange(nodes)}", is_waiting=False)
    lab.run_for(2.5)
    second = int(REST_S) + 1  # leases have their length by then
    print(f"\n{nodes} nodes: {asked[second]} questions, {lab.admitted[second]} of 20,000 admitted")

    assert 0 < asked[second] <= 2000
    assert 0.95 * 20_000 <= lab.admitted[second]


def test_frames_of_many_keys_are_shared() -> None:
    """With a batching delay, keys of one owner that ask together take one frame each way."""
    lab = QuietLab(2, limit=10)
    lab.run_for(REST_S)
    machine = lab.machines["m0"]
    limiter = machine.limiter
    assert limiter is not None
    for number in range(600):
        lab.settings.set(f"k{number}", 10)
    now = lab.local(machine)
    for number in range(600):
        limiter.ask(f"k{number}", now=now)
    messages = limiter.tick(now)

    assert len(messages) <= 3
