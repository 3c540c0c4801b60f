"""Keys that a node owns and uses without a question: from second to second, while it may."""

from __future__ import annotations

from support.limiters import RateCluster

from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.leases.granting import UNUSED_KEPT_S


def use(cluster: RateCluster, key: str, now: float, times: int = 1) -> int:
    """Ask the first node for units; return how many it admits by an owner's word."""
    cluster.time.now = now
    decided = [cluster.limiters["node1"].acquire(key, now=now) for _ in range(times)]
    return sum(decision.allowed and decision.confirmed for decision in decided)


def test_a_key_goes_on_into_the_next_second(rate_cluster: type[RateCluster]) -> None:
    """The same record, of which nothing is used, whatever new keys come meanwhile."""
    cluster = rate_cluster(1)
    cluster.settings.set_rule("all", pattern="*", limits="5/second")
    keys = cluster.limiters["node1"]._owner.keys
    admitted = []
    use(cluster, "one", 0.9)
    first = keys["one"]
    for second in range(1, 8):
        admitted.append(use(cluster, "one", second + 0.1, 9))
        for number in range(9):
            use(cluster, f"{second}:{number}", second + 0.2)
        use(cluster, "late", second + 0.9)  # so that the mandate is not renewed for `one` itself

    assert [5] * 7 == admitted
    assert first is keys["one"]


def test_an_unused_key_makes_room_after_a_while(rate_cluster: type[RateCluster]) -> None:
    """For new keys, a few of which are looked at for each."""
    cluster = rate_cluster(1)
    cluster.settings.set_rule("all", pattern="*", limits="5/second")
    keys = cluster.limiters["node1"]._owner.keys
    use(cluster, "one", 0.1)
    use(cluster, "other", UNUSED_KEPT_S + 0.1)
    assert "one" in keys

    use(cluster, "third", UNUSED_KEPT_S + 1.1)
    assert "one" not in keys
    assert 5 == use(cluster, "one", UNUSED_KEPT_S + 1.2, 9)


def test_a_key_is_used_no_longer_than_the_mandate_lasts(rate_cluster: type[RateCluster]) -> None:
    """Its owner is cut off in the middle of a second: then another one may decide."""
    cluster = rate_cluster(3, config=RateLimitConfig(mandate_s=0.2))
    cluster.settings.set_rule("all", pattern="*", limits="900/second")
    limiter = cluster.limiters["node1"]
    own = [key for key in map(str, range(20)) if limiter._view.owner(key) == "node1"][:2]
    begin = float(int(cluster.time.now) + 2)
    cluster.run(begin - cluster.time.now, rates=lambda _: {"node1": 100.0}, key=own[0])
    assert 2 == sum(use(cluster, key, begin + 0.01) for key in own)
    cluster.cut(["node1"], ["node2", "node3"])

    until = begin + 0.01 + 0.2
    assert [0, 0] == [use(cluster, key, until, 3) for key in own]
