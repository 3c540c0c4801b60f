"""Shared load: what all routers together have in flight, whatever becomes of their messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.load_routers import Routers

from meshlib.errors import (
    InvalidTypeError,
    InvalidValueError,
    UnknownKeyError,
)
from meshlib.identity import actor_id
from meshlib.routing import DEFAULT_SPEED
from meshlib.routing.load.in_flight import EXPIRY_S
from meshlib.routing.load.messages import LoadMessage, LoadRow
from meshlib.routing.load.peers import UNHEARD_S


@pytest.fixture
def routers() -> Routers:
    return Routers("a", "b", "c")


def test_what_one_router_begins_all_count_within_20_ms(routers: Routers) -> None:
    """With what it has to prefill."""
    routers.loads["a"].begin("w1", prefill_tokens=10_000, now=0.0)
    routers.run(0.02)

    assert [1, 1, 1] == routers.counts()
    assert [9600, 9600, 9600] == routers.backlogs()


def test_changes_of_one_moment_travel_together(routers: Routers) -> None:
    """One message for ten requests."""
    load = routers.loads["a"]
    for number in range(10):
        load.begin(f"w{number % 2}", prefill_tokens=100, now=0.0)
    due = load.next_deadline()
    assert due is not None
    (update,) = load.tick(due, others=["b"])

    assert ["w0", "w1"] == [row.worker_id for row in LoadMessage.decode(update.payload).rows]


def test_the_first_token_takes_the_prefill_away(routers: Routers) -> None:
    """The request is still in flight."""
    request_id = routers.loads["a"].begin("w1", prefill_tokens=100_000, now=0.0)
    routers.run(0.02)
    routers.loads["a"].first_token(request_id, now=routers.now)
    routers.run(0.02)

    assert ([1, 1, 1], [0, 0, 0]) == (routers.counts(), routers.backlogs())


def test_an_end_takes_all_away(routers: Routers) -> None:
    """Also of a request that never had a first token."""
    request_id = routers.loads["a"].begin("w1", prefill_tokens=100_000, now=0.0)
    routers.run(0.02)
    routers.loads["a"].end(request_id, now=routers.now)
    routers.run(0.06)

    assert ([0, 0, 0], [0, 0, 0]) == (routers.counts(), routers.backlogs())


def test_without_a_first_token_prefill_decays_at_the_workers_speed(routers: Routers) -> None:
    """Requests one after the other, whoever sent them; the count stays."""
    routers.loads["a"].begin("w1", prefill_tokens=20_000, now=0.0)
    routers.run(0.02)
    routers.loads["b"].begin("w1", prefill_tokens=20_000, now=routers.now)
    routers.run(0.98)
    after_one_s = routers.backlogs()
    routers.run(1.1)

    assert all(abs(left - 20_000) < 500 for left in after_one_s)
    assert ([2, 2, 2], [0, 0, 0]) == (routers.counts(), routers.backlogs())


def test_a_peer_that_is_not_heard_decays_and_then_counts_for_nothing(routers: Routers) -> None:
    """It is cut off, and nobody has said so yet."""
    routers.loads["a"].begin("w1", prefill_tokens=40_000, now=0.0)
    routers.run(0.02)
    routers.lost = True
    routers.run(1.0)
    soon = routers.backlogs()[1]
    routers.run(UNHEARD_S + 2)

    assert 19_000 < soon < 21_000
    assert [1, 0, 0] == routers.counts()


def test_what_was_lost_is_told_again(routers: Routers) -> None:
    """A begin, and an end."""
    routers.lost = True
    request_id = routers.loads["a"].begin("w1", prefill_tokens=40_000, now=0.0)
    routers.run(0.1)
    before = routers.counts()
    routers.lost = False
    routers.run(0.5)
    told = routers.counts()
    routers.lost = True
    routers.loads["a"].end(request_id, now=routers.now)
    routers.run(0.1)
    routers.lost = False
    routers.run(2.5)

    assert ([1, 0, 0], [1, 1, 1], [0, 0, 0]) == (before, told, routers.counts())


def test_a_dead_routers_requests_vanish_with_it(routers: Routers) -> None:
    """As soon as it counts as down."""
    routers.loads["a"].begin("w1", prefill_tokens=40_000, now=0.0)
    routers.run(0.02)
    routers.kill("a")

    assert ([0, 0], [0, 0]) == (routers.counts(), routers.backlogs())


def test_a_restart_inherits_nothing(routers: Routers) -> None:
    """Though it is faster than anybody's suspicion: its new record is enough."""
    routers.loads["a"].begin("w1", prefill_tokens=40_000, now=0.0)
    routers.run(0.02)
    routers.restart("a")
    routers.run(0.02)

    assert ([0, 0, 0], [0, 0, 0]) == (routers.counts(), routers.backlogs())


def test_what_a_router_says_before_its_record_is_known_counts(routers: Routers) -> None:
    """A newcomer's first frame makes it a member, and may carry its load."""
    load, start = routers.loads["a"], actor_id("d", 1)
    payload = LoadMessage(start, 1, False, (LoadRow("w1", 0, 3, 0, 0, 0),)).encode()
    load.receive(payload, sender="d", now=0.0)
    members = {name: actor_id(name, 1) for name in "bcd"}
    load.update_members(members, now=0.0)
    before = load.request_count("w1")
    load.update_members({**members, "d": actor_id("d", 2)}, now=0.0)

    assert (3, 0) == (before, load.request_count("w1"))


def test_a_newcomer_is_told_of_all(routers: Routers) -> None:
    """It needs not wait for a change."""
    routers.loads["a"].begin("w1", now=0.0)
    routers.run(0.02)
    routers.restart("d")
    routers.run(0.02)

    assert [1, 1, 1, 1] == routers.counts()


def test_a_workers_restart_empties_it(routers: Routers) -> None:
    """On each node once it hears of that; what is begun afterwards counts."""
    routers.loads["a"].begin("w1", prefill_tokens=40_000, now=0.0)
    routers.run(0.02)
    routers.loads["b"].clear("w1", epoch=7, now=routers.now)
    at_b = routers.counts()[1]
    routers.loads["a"].begin("w1", now=routers.now)
    routers.run(0.02)
    before_it_heard = routers.counts()[1]
    for name in ("a", "c"):
        routers.loads[name].clear("w1", epoch=7, now=routers.now)
    routers.loads["a"].begin("w1", now=routers.now)
    routers.run(0.02)

    assert (0, 0) == (at_b, before_it_heard)
    assert [1, 1, 1] == routers.counts()


def test_an_unended_request_expires_and_a_renewed_one_does_not(routers: Routers) -> None:
    """After 600 seconds."""
    load = routers.loads["a"]
    load.begin("w1", now=0.0)
    kept = load.begin("w1", now=0.0)
    routers.run(300.0)
    load.renew(kept, now=routers.now)
    routers.run(310.0)
    later = routers.counts()
    routers.run(300.0)

    assert ([1, 1, 1], [0, 0, 0]) == (later, routers.counts())


def test_what_is_not_in_flight_can_neither_answer_nor_end(routers: Routers) -> None:
    """Twice, or never begun; nothing is counted below nothing."""
    load = routers.loads["a"]
    request_id = load.begin("w1", now=0.0)
    load.end(request_id, now=0.0)
    for verb in (load.end, load.first_token, load.renew):
        with pytest.raises(UnknownKeyError):
            verb(request_id, now=0.0)

    assert 0 == load.request_count("w1")


def test_a_router_that_never_ends_anything_counts_nothing(routers: Routers) -> None:
    """Its requests have names, and would pile up; from the first end on all are counted."""
    load = routers.loads["a"]
    names = [load.begin("w1", prefill_tokens=9, is_tentative=True, now=0.0) for _ in range(3)]
    load.renew(names[0], now=0.0)
    before = (load.request_count("w1"), load.is_in_use, load.next_deadline())
    load.first_token(names[1], now=0.0)
    load.end(names[1], now=0.0)
    with pytest.raises(UnknownKeyError):
        load.end(names[1], now=0.0)
    after = load.begin("w1", prefill_tokens=9, is_tentative=True, now=0.0)

    assert ((0, False, None), 1) == (before, load.request_count("w1"))
    assert after not in names


def test_names_alone_are_bounded(routers: Routers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten."""
    monkeypatch.setattr("meshlib.routing.load.shared.NAMED_MAX", 2)
    load = routers.loads["a"]
    names = [load.begin("w1", is_tentative=True, now=0.0) for _ in range(3)]
    load.renew(names[1], now=0.0)
    with pytest.raises(UnknownKeyError):
        load.renew(names[0], now=0.0)


@pytest.mark.parametrize(
    ("tokens", "error"),
    [(-1, InvalidValueError), (float("nan"), InvalidValueError), (1e300, InvalidValueError),
     (True, InvalidTypeError), ("9", InvalidTypeError)],
)  # fmt: skip
def test_tokens_that_cannot_be_are_refused(
    routers: Routers, tokens: Any, error: type[Exception]
) -> None:
    """And nothing is counted."""
    with pytest.raises(error):
        routers.loads["a"].begin("w1", prefill_tokens=tokens, now=0.0)
    assert [0, 0, 0] == routers.counts()


def test_more_requests_than_may_be_end_the_oldest(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is bounded, and the sum stays right."""
    monkeypatch.setattr("meshlib.routing.load.in_flight.REQUESTS_IN_FLIGHT_MAX", 3)
    load = routers.loads["a"]
    names = [load.begin(f"w{number}", now=0.0) for number in range(5)]

    assert [0, 0, 1, 1, 1] == [load.request_count(f"w{number}") for number in range(5)]
    assert [False, False, True, True, True] == [load.has(name) for name in names]


def test_a_speed_is_learnt_and_shared(routers: Routers) -> None:
    """Half of what a worker was taken for; all routers know it alike."""
    for _ in range(3):
        request_id = routers.loads["a"].begin("w1", prefill_tokens=10_000, now=routers.now)
        routers.run(1.0)
        routers.loads["a"].first_token(request_id, now=routers.now)
        routers.loads["a"].end(request_id, now=routers.now)
        routers.run(1.0)
    before = {name: load.speed("w1") for name, load in routers.loads.items()}

    assert {"a", "b", "c"} == before.keys()
    assert len(set(before.values())) == 1
    assert abs(before["a"] - DEFAULT_SPEED / 2) < 100


def test_a_small_difference_of_speeds_is_none(routers: Routers) -> None:
    """It says more of what was known of a cache than of the worker."""
    load = routers.loads["a"]
    for worker_id, took_s in (("w1", 0.5), ("w2", 0.55), ("w3", 2.0)):
        start = routers.now
        request_id = load.begin(worker_id, prefill_tokens=10_000, now=start)
        routers.run(took_s)
        load.first_token(request_id, now=routers.now)
        load.end(request_id, now=routers.now)
        routers.run(1.0)

    assert load.speed("w1") == load.speed("w2") == load.speed("new")
    assert load.speed("w3") < load.speed("w1") / 3


def measure(routers: Routers, worker_id: str, took_s: float) -> None:
    """Let router a prefill 10,000 tokens at a worker, in so many seconds."""
    request_id = routers.loads["a"].begin(worker_id, prefill_tokens=10_000, now=routers.now)
    routers.run(took_s)
    routers.loads["a"].first_token(request_id, now=routers.now)
    routers.loads["a"].end(request_id, now=routers.now)
    routers.run(1.0)


def test_a_worker_that_was_slow_once_is_not_slow_for_good(routers: Routers) -> None:
    """It is not chosen while others are idle, so nobody measures it: that counts for a while."""
    for worker_id, took_s in (("w1", 4.0), ("w2", 0.5), ("w3", 0.5)):
        measure(routers, worker_id, took_s)
    before = routers.loads["b"].speed("w1")
    for _ in range(16):
        measure(routers, "w2", 0.5)
        measure(routers, "w3", 0.5)

    assert before < routers.loads["b"].speed("w2") / 3
    assert [load.speed("w1") == load.speed("w2") for load in routers.loads.values()] == [True] * 3
    measure(routers, "w1", 0.5)  # as fast as the others now: of what was before nothing is left
    assert [load.speed("w1") == load.speed("w2") for load in routers.loads.values()] == [True] * 3


def test_a_worker_that_restarted_has_no_speed_from_before(routers: Routers) -> None:
    """It is another process, maybe on another machine."""
    for worker_id, took_s in (("w1", 4.0), ("w2", 0.5), ("w3", 0.5)):
        measure(routers, worker_id, took_s)
    for load in routers.loads.values():
        load.clear("w1", epoch=7, now=routers.now)
    routers.run(1.0)

    assert [load.speed("w1") == load.speed("w2") for load in routers.loads.values()] == [True] * 3


# Whatever happens

STEPS = (
    "begin", "begin", "first", "decode", "end", "forget", "wait", "lose", "heal", "restart",
    "clear",
)  # fmt: skip

steps = st.lists(
    st.tuples(
        st.sampled_from(STEPS),
        st.integers(0, 2),
        st.integers(0, 5),
    ),
    max_size=60,
)


class Story:
    """Routers, and which requests are truly in flight at each."""

    def __init__(self) -> None:
        self.routers = Routers("a", "b", "c")
        self.requests: dict[str, dict[str, str]] = {name: {} for name in "abc"}
        self.decoded: dict[str, int] = {}
        self.forgotten: set[str] = set()
        self.epochs = {f"w{number}": 0 for number in range(3)}

    def begin(self, name: str, which: int) -> None:
        worker_id = f"w{which % 3}"
        request_id = self.routers.loads[name].begin(
            worker_id, prefill_tokens=which * 1000, now=self.routers.now
        )
        self.requests[name][request_id] = worker_id

    def first(self, name: str, which: int) -> None:
        held = sorted(self.requests[name])
        if held:
            self.routers.loads[name].first_token(held[which % len(held)], now=self.routers.now)

    def decode(self, name: str, which: int) -> None:
        held = sorted(self.requests[name])
        if held:
            request_id = held[which % len(held)]
            self.decoded[request_id] = max(self.decoded.get(request_id, 0), which * 7)
            load = self.routers.loads[name]
            load.renew(request_id, decoded_tokens=which * 7, now=self.routers.now)

    def forget(self, name: str, which: int) -> None:
        """Lose the end of a request: nobody will ever say it."""
        held = sorted(self.requests[name])
        if held:
            self.forgotten.add(held[which % len(held)])

    def end(self, name: str, which: int) -> None:
        held = sorted(self.requests[name].keys() - self.forgotten)
        if held:
            self.routers.loads[name].end(held[which % len(held)], now=self.routers.now)
            del self.requests[name][held[which % len(held)]]

    def wait(self, _name: str, which: int) -> None:
        self.routers.run(0.3 * which)

    def lose(self, _name: str, _which: int) -> None:
        self.routers.lost = True

    def heal(self, _name: str, _which: int) -> None:
        self.routers.lost = False

    def restart(self, name: str, _which: int) -> None:
        self.routers.restart(name)
        for worker_id, epoch in self.epochs.items():  # which it learns with the state
            self.routers.loads[name].clear(worker_id, epoch=epoch, now=self.routers.now)
        self.requests[name].clear()

    def clear(self, _name: str, which: int) -> None:
        worker_id = f"w{which % 3}"
        self.epochs[worker_id] += 1
        for load in self.routers.loads.values():
            load.clear(worker_id, epoch=self.epochs[worker_id], now=self.routers.now)
        for name, requests in self.requests.items():
            self.requests[name] = {one: at for one, at in requests.items() if at != worker_id}

    def in_flight(self, worker_id: str) -> int:
        return sum(list(each.values()).count(worker_id) for each in self.requests.values())

    def decoded_at(self, worker_id: str) -> int:
        return sum(
            self.decoded.get(request_id, 0)
            for each in self.requests.values()
            for request_id, at in each.items()
            if at == worker_id
        )


@settings(max_examples=80, deadline=None)
@given(steps=steps)
def test_the_sum_is_what_is_in_flight_and_returns_to_zero(steps: Any) -> None:
    """After any schedule of begins, ends, losses, restarts and cleared workers, and a calm.

    Ends that are never said are made good by time.
    """
    story = Story()
    routers = story.routers
    for what, who, which in steps:
        getattr(story, what)("abc"[who], which)
        for load in routers.loads.values():
            load._check()
    routers.lost = False
    routers.run(UNHEARD_S + 3)
    for worker_id in ("w0", "w1", "w2"):
        assert [story.in_flight(worker_id)] * 3 == routers.counts(worker_id)
        decoded = [load.decoded_tokens(worker_id) for load in routers.loads.values()]
        assert [story.decoded_at(worker_id)] * 3 == decoded

    for name, requests in story.requests.items():
        for request_id in requests.keys() - story.forgotten:
            routers.loads[name].end(request_id, now=routers.now)
    routers.run(UNHEARD_S + 3 + (EXPIRY_S if story.forgotten else 0))

    assert [{}, {}, {}] == [load.counts for load in routers.loads.values()]
    assert [[0, 0, 0]] * 3 == [routers.backlogs(f"w{number}") for number in range(3)]
    assert [None] * 3 == [load.next_deadline() for load in routers.loads.values()]
