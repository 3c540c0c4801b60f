"""What is still to be prefilled is the same as if each request were looked at, at less cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.load_routers import Routers

from meshlib.routing.load.in_flight import EXPIRED_AT_ONCE_MAX
from meshlib.routing.load.prefilling import Begun, Prefilling, left_to_prefill

SPEED = 1000.0


class Plain:
    """The same by looking at every request each time."""

    def __init__(self) -> None:
        self.requests: dict[str, Begun] = {}

    def left(self, now: float) -> tuple[float, float]:
        left, first_at = 0.0, float("inf")
        for one in self.requests.values():
            remains = left_to_prefill(one.tokens, starts_at=one.starts_at, speed=SPEED, now=now)
            if remains > 0.0:
                left += remains
                first_at = min(first_at, one.starts_at)
        return left, max(0.0, first_at - now) if left else 0.0

    def move(self, begun_from: float, late_s: float, now: float) -> None:
        for one in self.requests.values():
            if one.begun_at >= begun_from:
                one.starts_at = max(one.starts_at + late_s, now)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 5000), st.integers(0, 8)),
        st.tuples(st.just("pop"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("move"), st.integers(0, 20), st.integers(-8, 8)),
        st.tuples(st.just("wait"), st.integers(0, 12), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps=steps)
@example(steps=[("add", 1, 1), ("add", 1, 2), ("pop", 0, 0)])
def test_what_is_left_is_what_each_request_has_left(steps: Any) -> None:
    """After any requests, first tokens that came early or late, and pauses."""
    real, plain, now = Prefilling(), Plain(), 0.0
    for number, (what, one, other) in enumerate(steps):
        names = sorted(plain.requests)
        if what == "add":
            at = (float(one), 0.0, now, now + other / 4, now + 600.0)
            real.add(Begun(f"{number:03d}", "w", *at))
            plain.requests[f"{number:03d}"] = Begun(f"{number:03d}", "w", *at)
        elif what == "wait":
            now += one / 4
        elif what == "pop" and names:
            real.pop(names[one % len(names)])
            del plain.requests[names[one % len(names)]]
        elif what == "move" and names:
            first = plain.requests[names[one % len(names)]].begun_at
            real.move(begun_from=first, late_s=other / 4, now=now)
            plain.move(first, other / 4, now)
        real._check()
        assert plain.left(now) == pytest.approx(real.left(speed=SPEED, now=now))
        assert sorted(plain.requests) == sorted(real)
    for name in sorted(plain.requests):
        real.pop(name)

    assert (0.0, 0.0) == real.left(speed=SPEED, now=now)


def test_a_long_queue_is_not_looked_through_for_each_decision() -> None:
    """Only what is prefilled now is: of ten thousand requests, one."""
    queue = Prefilling()
    for number in range(10_000):
        queue.add(Begun(str(number), "w", 1000.0, 0.0, 0.0, float(number), 600.0))

    assert (10_000_000 - 500, 0.0) == queue.left(speed=SPEED, now=0.5)
    assert ["0"] == list(queue.diagnostics()["running"])
    assert (10_000_000 - 1500, 0.0) == queue.left(speed=SPEED, now=1.5)
    assert ["1"] == list(queue.diagnostics()["running"])


def test_what_expires_at_one_moment_is_taken_out_in_turns() -> None:
    """The loop is not held up for all of it, and the sum is right at each moment."""
    routers = Routers("a", "b")
    load = routers.loads["a"]
    for _ in range(2 * EXPIRED_AT_ONCE_MAX + 1):
        load.begin("w1", now=0.0)
    left = []
    while load.next_deadline() is not None and load.request_count("w1"):
        load.tick(600.0, others=[])
        left.append(load.request_count("w1"))
        load._check()

    assert [EXPIRED_AT_ONCE_MAX + 1, 1, 0] == left
