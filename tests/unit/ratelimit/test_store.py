"""The counters that an owner holds."""

from __future__ import annotations

from meshlib.crdt import WindowCounter
from meshlib.identity import ActorId, actor_id
from meshlib.ratelimit.messages import RateCounter
from meshlib.ratelimit.store import RateLimitStore

FIRST = actor_id("node1", 1)
SECOND = actor_id("node2", 1)


def counted(actor: ActorId, **windows: int) -> WindowCounter:
    counter = RateCounter()
    for window, count in windows.items():
        counter.absorb(counter.record(count, window=int(window[1:]), by=actor))
    return counter


def demand(store: RateLimitStore, name: str, rate: float, *, now: float = 0.0) -> None:
    store.note_demand("k", name, actor=actor_id(name, 1), sequence=1, rate=rate, now=now)


def test_counts_of_all_nodes_add_up() -> None:
    """For each window of its own, one node left out on request."""
    store = RateLimitStore()
    store.absorb("k", counted(FIRST, w9=5, w10=7), window=10, now=0.0)
    store.absorb("k", counted(SECOND, w10=2), window=10, now=0.0)

    assert (5, 9) == (store.total("k", 9), store.total("k", 10))
    assert 2 == store.total("k", 10, but=FIRST)
    assert 7 == store.admitted("k", 10, by=FIRST)


def test_a_window_far_ahead_is_left_out() -> None:
    """It would push out the counts of now."""
    store = RateLimitStore()
    store.absorb("k", counted(FIRST, w10=7), window=10, now=0.0)
    store.absorb("k", counted(SECOND, w500=2), window=10, now=0.0)

    assert (7, 0) == (store.total("k", 10), store.total("k", 500))


def test_the_next_window_is_taken() -> None:
    """The clocks of two nodes are never quite equal."""
    store = RateLimitStore()
    store.absorb("k", counted(FIRST, w11=7), window=10, now=0.0)

    assert 7 == store.total("k", 11)


def test_demand_is_that_of_the_others() -> None:
    """Those that are asked for nothing are no active nodes."""
    store = RateLimitStore()
    for name, rate in (("node1", 5.0), ("node2", 7.0), ("node3", 0.0)):
        demand(store, name, rate)

    assert (7.0, 1) == store.others_demand("k", but="node1", now=0.0)


def test_a_silent_node_stays_active_for_a_while() -> None:
    """A lost report must not hand out its share."""
    store = RateLimitStore(demand_ttl_s=5.0)
    demand(store, "node2", 7.0)

    assert (7.0, 1) == store.others_demand("k", but="node1", now=5.0)
    assert (0.0, 0) == store.others_demand("k", but="node1", now=5.1)


def test_a_node_that_is_gone_wants_nothing() -> None:
    """What it admitted stays admitted."""
    store = RateLimitStore()
    demand(store, "node2", 7.0)
    store.absorb("k", counted(SECOND, w10=2), window=10, now=0.0)
    store.keep_names({"node1"})

    assert (0.0, 0) == store.others_demand("k", but="node1", now=0.0)
    assert 2 == store.total("k", 10)


def test_keys_that_are_no_longer_reported_are_dropped() -> None:
    """After the time to live."""
    store = RateLimitStore(demand_ttl_s=5.0)
    store.absorb("old", counted(FIRST, w10=1), window=10, now=0.0)
    store.absorb("young", counted(FIRST, w10=1), window=10, now=3.0)
    store.expire(6.0)

    assert ("young",) == store.keys()


def test_the_number_of_keys_is_bounded() -> None:
    """The longest unused makes room, and it is counted when it could still have mattered."""
    store = RateLimitStore(keys_max=2, demand_ttl_s=5.0)
    for key, now in (("a", 0.0), ("b", 1.0), ("a", 2.0), ("c", 3.0)):
        store.absorb(key, counted(FIRST, w10=1), window=10, now=now)

    assert ("a", "c") == store.keys()
    assert 1 == store.evicted_count


def test_what_is_not_held_is_nothing() -> None:
    """Neither counts nor demand, nor an error."""
    store = RateLimitStore()
    store.drop("k")

    assert (0, 0) == (store.total("k", 1), store.admitted("k", 1, by=FIRST))
    assert (0.0, 0) == store.others_demand("k", but="node1", now=0.0)
