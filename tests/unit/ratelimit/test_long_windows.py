"""Limits over minutes and days: what was counted survives its owner, and never counts twice."""

from __future__ import annotations

import random

import pytest
from support.limiters import RateCluster

from meshlib.identity import actor_id
from meshlib.ratelimit.config import PartitionMode, RateLimitConfig
from meshlib.ratelimit.leases.kept.keeper import Keeper
from meshlib.ratelimit.leases.kept.messages import KEEP_DOCUMENT, KEPT_DOCUMENT, Ceiling, Kept
from meshlib.ratelimit.leases.kept.raising import Ceilings, Raise
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.records import Decision
from meshlib.state import Limit

DAY_S = 86_400
LIMIT = 1000
STEP = 10
"""A hundredth of the limit, which is more than 100 ms of what is asked for here."""

UNDER_WAY = 3
"""What the owner may have granted to questions whose answers nobody got."""

CLOSED = RateLimitConfig(partition_mode=PartitionMode.CLOSED)


def make(
    rate_cluster: type[RateCluster], count: int, *, limit: int = LIMIT, per: int | str = DAY_S
) -> RateCluster:
    cluster = rate_cluster(count, config=CLOSED)
    cluster.settings.set_rule("ann", pattern="ann", limits=Limit(limit, per=per))
    return cluster


def offer(cluster: RateCluster, seconds: float, units_per_s: float) -> int:
    """Ask for so much, evenly over the nodes; return what was admitted meanwhile."""
    before = sum(cluster.granted.values())
    rates = dict.fromkeys(cluster.names, units_per_s / len(cluster.names))
    cluster.run(seconds, rates=lambda _now: rates, key="ann", is_confirmed=True, step_s=0.005)
    return sum(cluster.granted.values()) - before


def owner_of(cluster: RateCluster) -> str:
    return next(iter(cluster.limiters.values()))._view.owner(slot_of(cluster))


def slot_of(cluster: RateCluster) -> str:
    """Return under what the key is counted."""
    return cluster.settings.slots("ann")[0].key


def kill(cluster: RateCluster, name: str) -> None:
    """End a node at once; the others notice, and go on counting it for their majority."""
    del cluster.limiters[name]
    cluster.tell_members(sorted(cluster.limiters))


def restart(cluster: RateCluster, name: str, incarnation: int = 2) -> None:
    cluster.start(name, incarnation=incarnation, config=CLOSED)
    cluster.tell_members(sorted(cluster.limiters))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("per", [60, DAY_S, "month"])
def test_a_long_window_admits_its_limit_once(
    rate_cluster: type[RateCluster], count: int, per: int | str
) -> None:
    """To the unit, and refuses the rest until it is over."""
    cluster = make(rate_cluster, count, limit=100, per=per)

    assert 100 == offer(cluster, 3.0, 200.0)
    assert 0 == offer(cluster, 1.0, 200.0)


def test_the_next_window_begins_anew(rate_cluster: type[RateCluster]) -> None:
    """And no window admits more than its limit; three seconds, so that there are some."""
    cluster = make(rate_cluster, 3, limit=100, per=3)
    offer(cluster, 9.0, 200.0)
    windows = [units for window, units in sorted(cluster.granted.items()) if window >= 0]

    assert all(units <= 100 for units in windows)
    assert 100 == windows[1] == windows[2]


def test_what_was_refunded_may_be_used_whatever_comes_between(
    rate_cluster: type[RateCluster],
) -> None:
    """A key of which nothing is used is not forgotten while others keep a ceiling of it."""
    cluster = make(rate_cluster, 3)
    cluster.settings.set_rule("all", pattern="*", limits=Limit(LIMIT, per=DAY_S))
    limiter = cluster.limiters[owner_of(cluster)]
    others = [key for key in map(str, range(40)) if limiter._view.owner(key) == limiter._name]

    def ask(key: str) -> Decision:
        ticket = limiter.ask(key, now=cluster.time.now)
        cluster.run(0.5, rates=lambda _now: {})
        assert ticket.decision is not None
        return ticket.decision

    ask("ann")
    limiter.refund("ann", now=cluster.time.now)
    for key in others:
        ask(key)

    assert LIMIT - 1 == ask("ann").remaining


def test_an_owners_death_loses_a_step_at_most(rate_cluster: type[RateCluster]) -> None:
    """The next one goes on from the ceiling that a majority keeps."""
    cluster = make(rate_cluster, 3)
    before = offer(cluster, 4.0, 60.0)
    owner = owner_of(cluster)
    leased = cluster.limiters[owner]._tracked[slot_of(cluster)].held
    kill(cluster, owner)
    after = offer(cluster, 7.0, 300.0)

    assert before > 200
    assert LIMIT - STEP - leased - UNDER_WAY <= before + after <= LIMIT


def test_what_is_lost_is_what_the_price_says(rate_cluster: type[RateCluster]) -> None:
    """What a ceiling is above what was used is 1 % of the limit, or 100 ms of the demand."""
    cluster = make(rate_cluster, 3)
    demand = [0.0]
    for _ in range(40):
        offer(cluster, 0.1, 50.0)
        owner = cluster.limiters[owner_of(cluster)]._owner
        owned = owner.keys[slot_of(cluster)]
        assert owned.demand is not None
        demand.append(owned.demand.rate() * 0.1)
        assert 0 <= owned.ceiling - owned.used <= max(STEP, *demand[-2:])


def test_a_rolling_restart_keeps_the_count(rate_cluster: type[RateCluster]) -> None:
    """Each node in turn leaves, and comes back knowing nothing: a step each at most is lost."""
    cluster = make(rate_cluster, 3, limit=500)
    admitted = offer(cluster, 1.0, 200.0)
    for name in list(cluster.names):
        cluster.post(name, cluster.limiters[name].leave(now=cluster.time.now))
        kill(cluster, name)
        admitted += offer(cluster, 1.0, 30.0)
        restart(cluster, name)
        admitted += offer(cluster, 3.0, 10.0)
    admitted += offer(cluster, 4.0, 400.0)

    assert 500 - 3 * 10 <= admitted <= 500


def test_who_comes_back_does_not_pretend_to_remember(rate_cluster: type[RateCluster]) -> None:
    """Two of three forget at once: until the third has told them they are no majority."""
    cluster = make(rate_cluster, 3)
    admitted = offer(cluster, 4.0, 60.0)
    owner = owner_of(cluster)
    others = [name for name in cluster.names if name != owner]
    for name in others:
        del cluster.limiters[name]
    for name in others:
        cluster.start(name, incarnation=2, config=CLOSED)
        assert not cluster.limiters[name]._owner.keeper.is_whole
    cluster.tell_members(cluster.names)
    offer(cluster, 1.0, 0.0)
    kill(cluster, owner)
    admitted += offer(cluster, 8.0, 300.0)

    assert LIMIT - 2 * STEP <= admitted <= LIMIT


def test_a_whole_restart_goes_on_from_what_was_stored(rate_cluster: type[RateCluster]) -> None:
    """Each node's pages are what its next start begins with."""
    cluster = make(rate_cluster, 3)
    admitted = offer(cluster, 4.0, 60.0)
    stored = {name: list(limiter.keeper.pages()) for name, limiter in cluster.limiters.items()}
    cluster.limiters.clear()
    for name, pages in stored.items():
        cluster.start(name, incarnation=2, config=CLOSED)
        for page in pages:
            cluster.limiters[name].keeper.restore(page, second=int(cluster.time.wall()))
    cluster.tell_members(cluster.names)
    admitted += offer(cluster, 8.0, 300.0)

    assert any(stored.values())
    assert LIMIT - 2 * STEP <= admitted <= LIMIT


def test_the_majority_goes_on_when_the_owner_is_cut_off(rate_cluster: type[RateCluster]) -> None:
    """From the ceiling: both sides together admit no more than the limit, also once healed."""
    cluster = make(rate_cluster, 3)
    owner = owner_of(cluster)
    others = [name for name in cluster.names if name != owner]
    admitted = offer(cluster, 1.0, 200.0)
    cluster.cut([owner], others)
    admitted += offer(cluster, 1.0, 200.0)
    cluster.tell_members(others, of=others)
    cluster.tell_members([owner], of=[owner], quorum=False)
    admitted += offer(cluster, 2.0, 100.0)
    cluster.cut()
    cluster.tell_members(cluster.names)
    admitted += offer(cluster, 6.0, 400.0)

    assert LIMIT - 2 * STEP - 10 <= admitted <= LIMIT


def test_a_key_that_is_used_seldom_costs_no_frame_a_unit(rate_cluster: type[RateCluster]) -> None:
    """One step of the ceiling is kept for many units."""
    cluster = make(rate_cluster, 3)
    offer(cluster, 1.0, 20.0)
    cluster.sent.clear()
    admitted = offer(cluster, 5.0, 40.0)

    assert admitted > 100
    assert cluster.sent[KEEP_DOCUMENT] <= admitted / (STEP / 2) + 2
    assert cluster.sent[KEPT_DOCUMENT] <= cluster.sent[KEEP_DOCUMENT]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_no_window_admits_more(rate_cluster: type[RateCluster], seed: int) -> None:
    """Loss, deaths, restarts of one at a time, cuts and healing, by chance."""
    chance = random.Random(seed)
    cluster = make(rate_cluster, 5 if seed % 2 else 3, limit=200, per=20)
    cluster.loss = chance.choice((0.0, 0.1, 0.25))
    incarnation = 1
    for _ in range(8):
        name = chance.choice(cluster.names)
        what = chance.randrange(3)
        if what == 0:
            kill(cluster, name)
            offer(cluster, chance.uniform(0.1, 2.0), 60.0)
            incarnation += 1
            restart(cluster, name, incarnation)
            # One that comes back has been told before the next one goes: see the price.
            offer(cluster, 3.5, 30.0)
        elif what == 1:
            others = [other for other in cluster.names if other != name]
            cluster.cut([name], others)
            offer(cluster, chance.uniform(0.1, 1.0), 60.0)
            cluster.tell_members(others, of=others)
            cluster.tell_members([name], of=[name], quorum=False)
            offer(cluster, chance.uniform(0.1, 2.0), 60.0)
            cluster.cut()
            cluster.tell_members(cluster.names)
        offer(cluster, chance.uniform(0.1, 2.0), 60.0)
    for limiter in cluster.limiters.values():
        limiter._check()
    units = [count for window, count in cluster.granted.items() if window >= 0]

    assert max(units) <= 200
    assert sum(units) > 200


def test_only_who_remembers_counts_for_what_was_kept_before() -> None:
    """Of three keepers two have started anew: they are a majority for what is kept from now on."""
    actor, view = actor_id("a", 1), View(["a", "b", "c"], member_count=3)
    keeper = Keeper("a", actor, view=view)
    ceilings = Ceilings("a", actor, keeper=keeper)
    wanted, nothing = Ceiling("ann", 60, 120, 5, 0), Ceiling("ann", 0, 0, 0, 0)

    def say(name: str, *, is_whole: bool, before: Ceiling) -> list[Raise]:
        kept = Kept(actor_id(name, 1), actor, 99, is_whole, (before,))
        return ceilings.receive(name, kept, view=view)

    assert ceilings.want(wanted, is_first=True, view=view, second=60, now=0.0) is None
    assert ceilings.tick(view, 0.0)
    assert [] == say("b", is_whole=False, before=nothing)
    assert [] == say("c", is_whole=True, before=Ceiling("ann", 60, 120, 9, 0))
    (done,) = say("b", is_whole=True, before=nothing)
    assert 9 == done.before.used

    higher = Ceiling("ann", 60, 120, 12, 0)
    assert ceilings.want(higher, is_first=False, view=view, second=60, now=0.1) is None
    assert ceilings.tick(view, 0.1)
    assert say("b", is_whole=False, before=wanted)


def test_what_is_under_way_is_forgotten_when_the_view_changes(
    rate_cluster: type[RateCluster],
) -> None:
    """Whoever owns the key meanwhile may have granted of it."""
    cluster = make(rate_cluster, 3)
    owner = owner_of(cluster)
    offer(cluster, 1.0, 50.0)
    cluster.cut([owner], [name for name in cluster.names if name != owner])
    offer(cluster, 0.3, 300.0)
    assert slot_of(cluster) in cluster.limiters[owner]._owner.ceilings
    cluster.tell_members([owner], of=[owner], quorum=False)

    assert slot_of(cluster) not in cluster.limiters[owner]._owner.ceilings


def test_a_keeper_forgets_windows_that_are_over() -> None:
    """A few for each new one, a minute after their end; and what is owed a window later."""
    actor, view = actor_id("a", 1), View(["a"], member_count=1)
    keeper = Keeper("a", actor, view=view)
    keeper.keep(Ceiling("owed", 0, 100, 5, 1), second=50)
    keeper.keep(Ceiling("old", 0, 100, 5, 0), second=50)
    for second in (159, 160, 161):
        keeper.keep(Ceiling(f"new {second}", 100, 200, 1, 0), second=second)
    keeper._check()

    assert keeper.get("old") is None
    assert keeper.get("owed") is not None


def test_a_keeper_never_keeps_less(rate_cluster: type[RateCluster]) -> None:
    """Whatever comes late, or again."""
    del rate_cluster
    keeper = Keeper("a", actor_id("a", 1), view=View(["a"], member_count=1))
    for number, used in ((100, 5), (0, 50), (100, 3), (200, 1), (100, 9)):
        keeper.keep(Ceiling("ann", number, number + 100, used, 0), second=50)

    assert keeper.get("ann") == Ceiling("ann", 200, 300, 1, 0)
