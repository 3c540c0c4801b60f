"""Shared load in hands that mean no good, or know no better."""

from __future__ import annotations

import itertools

import pytest
from support.load_routers import Routers
from support.mini_network import MiniNetwork

from meshlib.errors import LocalError, UnknownKeyError
from meshlib.identity import actor_id
from meshlib.limits import FRAME_BYTES_MAX, KEY_BYTES_MAX, LOAD_ROWS_PER_MESSAGE_MAX
from meshlib.routing import DEFAULT_SPEED, SharedLoad
from meshlib.routing.load.peers import UNHEARD_S
from meshlib.routing.load.telling import REPEAT_S


@pytest.fixture
def routers() -> Routers:
    return Routers("a", "b", "c")


def test_with_nothing_in_flight_there_is_nothing_to_do() -> None:
    """Nor to tell, to nobody and to others; and no worker is slower than another."""
    load = SharedLoad(actor_id("a", 1))
    load.update_members({"b": actor_id("b", 1)}, now=0.0)

    assert load.next_deadline() is None
    assert [] == load.tick(5.0, others=["b"])
    assert ({}, 0, 0.0, 0) == (
        load.counts,
        load.request_count("w"),
        load.backlog("w", now=5.0),
        load.decoded_tokens("w"),
    )
    assert DEFAULT_SPEED == load.speed("w")


def test_a_router_alone_counts_and_tells_nobody(routers: Routers) -> None:
    """And has nothing left to do once all have ended."""
    load = SharedLoad(actor_id("a", 1))
    request_id = load.begin("w1", prefill_tokens=10, now=0.0)
    assert [] == load.tick(0.02, others=[])
    load.end(request_id, now=0.02)
    now = 0.02
    while (due_at := load.next_deadline()) is not None:
        now = max(now, due_at)
        assert [] == load.tick(now, others=[])

    assert now < 10
    assert {} == load.counts


def test_what_a_restarted_worker_was_given_cannot_be_ended(routers: Routers) -> None:
    """Nor answer, nor be renewed: it is over, and nothing is counted below nothing."""
    load = routers.loads["a"]
    request_id = load.begin("w1", prefill_tokens=1000, now=0.0)
    load.renew(request_id, decoded_tokens=5, now=0.0)
    load.clear("w1", epoch=1, now=0.0)
    after = load.begin("w1", now=0.0)
    for verb in (load.end, load.first_token, load.renew):
        with pytest.raises(UnknownKeyError):
            verb(request_id, now=0.0)
    routers.run(0.1)

    assert ([1] * 3, 0) == (routers.counts(), load.decoded_tokens("w1"))
    load.end(after, now=0.1)
    load._check()


def test_an_expired_request_cannot_be_renewed(routers: Routers) -> None:
    """It is over; whoever says more of it hears so, here and at other routers."""
    load = routers.loads["a"]
    request_id = load.begin("w1", now=0.0)
    routers.run(601.0)
    for tokens in (None, 5):
        with pytest.raises(UnknownKeyError):
            load.renew(request_id, decoded_tokens=tokens, now=routers.now)
    with pytest.raises(UnknownKeyError):
        load.end(request_id, now=routers.now)

    assert [0] * 3 == routers.counts()


def test_a_router_that_stood_still_is_put_right(routers: Routers) -> None:
    """A minute without a step, as of a stopped process: what others have is known again."""
    routers.loads["a"].begin("w1", prefill_tokens=1000, now=0.0)
    routers.loads["b"].begin("w1", now=0.0)
    routers.run(1.0)
    routers.now += 60.0
    routers.run(REPEAT_S + 0.1)

    assert ([2] * 3, [0] * 3) == (routers.counts(), routers.backlogs())


def test_a_clock_that_jumps_ahead_ends_what_has_had_its_time(routers: Routers) -> None:
    """And nothing else: what is begun afterwards counts."""
    routers.loads["a"].begin("w1", now=0.0)
    routers.run(1.0)
    routers.now += 1e9
    routers.loads["b"].begin("w1", prefill_tokens=100, now=routers.now)
    routers.run(UNHEARD_S + 3)

    assert [1] * 3 == routers.counts()
    for load in routers.loads.values():
        load._check()


def test_a_clock_that_goes_back_does_not_change_what_expires_first() -> None:
    """A node takes no earlier time than it was given; one of another clock it refuses."""
    network = MiniNetwork()
    node = network.start("n0", seeds=())
    network.run(2.0)
    names = [node.begin("w", now=network.now - back) for back in (0.0, 0.4, 0.2)]
    node.renew_request(names[0], decoded_tokens=3, now=network.now - 0.3)
    for verb in (node.end, node.renew_request, node.first_token):
        with pytest.raises(LocalError):
            verb(names[1], now=network.now - 999)
    with pytest.raises(LocalError):
        node.begin("w", now=float("nan"))
    requests = node.sync.load.diagnostics()["own"]["requests"]
    expiries = [request.expires_at for request in requests.values()]

    assert [names[1], names[2], names[0]] == list(requests)
    assert sorted(expiries) == expiries


def test_the_longest_names_of_workers_travel_within_half_a_frame(routers: Routers) -> None:
    """As many as one message may have; a longer name is refused."""
    load = routers.loads["a"]
    names = [f"{number}".zfill(KEY_BYTES_MAX) for number in range(LOAD_ROWS_PER_MESSAGE_MAX)]
    for name in names:
        load.renew(load.begin(name, prefill_tokens=1 << 47, now=0.0), decoded_tokens=9, now=0.0)
    with pytest.raises(LocalError):
        load.begin("w" * (KEY_BYTES_MAX + 1), now=0.0)
    sizes = [len(update.payload) for update in load.tick(0.02, others=["b"])]

    assert 1 == len(sizes)
    assert sizes[0] < FRAME_BYTES_MAX // 2


@pytest.mark.parametrize("name", ["", "\ud800", 5, None, b"w"])
def test_no_request_goes_to_what_is_no_worker(routers: Routers, name: object) -> None:
    """Nothing is counted."""
    with pytest.raises(LocalError):
        routers.loads["a"].begin(name, now=0.0)  # type: ignore[arg-type]
    assert {} == routers.loads["a"].counts


def test_an_end_of_long_ago_is_an_end(routers: Routers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where so much is under way that each name is forgotten before its end, all count still."""
    monkeypatch.setattr("meshlib.routing.load.shared.NAMED_MAX", 2)
    load = routers.loads["a"]
    names = [load.begin("w1", is_tentative=True, now=0.0) for _ in range(5)]
    with pytest.raises(UnknownKeyError):
        load.end(names[0], now=0.0)
    load.begin("w1", is_tentative=True, now=0.0)

    assert 1 == load.request_count("w1")


@pytest.mark.parametrize("name", ["", "-", "-1", "{}-0", "{}-6", "{}-01", "{}- 1", "{}-1_0", "{}1"])
def test_a_name_that_was_never_given_is_no_word(routers: Routers, name: str) -> None:
    """Anybody may guess one: a router that is told nothing true counts nothing still."""
    load = routers.loads["a"]
    prefix = load.begin("w1", is_tentative=True, now=0.0).rpartition("-")[0]
    with pytest.raises(UnknownKeyError):
        load.end(name.format(prefix), now=0.0)
    load.begin("w1", is_tentative=True, now=0.0)

    assert 0 == load.request_count("w1")


def test_a_flood_of_workers_that_are_none_is_kept_in_bounds(
    routers: Routers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each told of once, and those that were left last a few times more."""
    monkeypatch.setattr("meshlib.routing.load.telling.TENANTS_MAX", 10)
    load = routers.loads["a"]
    for number in range(100):
        load.end(load.begin(f"w{number}", now=routers.now), now=routers.now)
        routers.run(0.1)
    assert 10 == len(load._telling._fading)
    routers.run(10.0)

    assert [{}] * 3 == [each.counts for each in routers.loads.values()]
    assert [None] * 3 == [each.next_deadline() for each in routers.loads.values()]


def test_an_end_that_overtakes_its_beginning_is_not_undone() -> None:
    """Of two messages the one that was sent later counts, in whatever order they come."""
    sender, reader = SharedLoad(actor_id("a", 1)), SharedLoad(actor_id("b", 1))
    request_id = sender.begin("w1", prefill_tokens=10, now=0.0)
    (begun,) = sender.tick(0.02, others=["b"])
    sender.end(request_id, now=0.03)
    (ended,) = sender.tick(0.09, others=["b"])
    for update in (ended, begun, ended, begun):
        reader.receive(update.payload, sender="a", now=0.1)

    assert ({}, 0.0) == (reader.counts, reader.backlog("w1", now=0.1))


def test_whatever_order_messages_come_in_the_last_one_counts() -> None:
    """All orders of four, each of them twice."""
    sender = SharedLoad(actor_id("a", 1))
    updates, requests = [], []
    for number in range(4):
        requests.append(sender.begin("w1", now=float(number)))
        if number == 2:
            sender.end(requests[0], now=float(number))
        updates += sender.tick(number + 0.9, others=["b"])[:1]
    assert 4 == len(updates)
    for order in itertools.permutations(updates):
        reader = SharedLoad(actor_id("b", 1))
        for update in (*order, *order):
            reader.receive(update.payload, sender="a", now=5.0)
        assert 3 == reader.request_count("w1")
        reader._check()
