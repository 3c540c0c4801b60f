"""Wall clocks that differ: who says what, who refuses, and what comes of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.clocks import RIGHT_S, Clocks, events_of, start_apart, value_on_each
from support.mini_network import MiniNetwork

from meshlib.crdt import GCounter, LWWMap, LWWRegister, ORSet, Pair
from meshlib.errors import ClockAheadError, NotReadyError
from meshlib.gossip import ClockOffset, NodeState
from meshlib.gossip.clock_offsets import ClockOffsets
from meshlib.node import HealthStatus, MeshNode
from meshlib.replication import ReplicationConfig


@pytest.fixture
def clocks() -> Clocks:
    """Return clocks that are right, of a network without nodes."""
    return Clocks()


def lines(node: MeshNode) -> list[str]:
    """Return what a node says of clocks."""
    return [line for line in node.health().problems if "clock" in line]


def test_offsets_are_measured_with_their_error(clocks: Clocks) -> None:
    """Within the error, which is no more than half a round trip and a millisecond."""
    clocks.ahead_s["n1"] = 12.5
    first, second = clocks.start("n0", "n1")
    clocks.network.run(3.0)
    (seen,) = first.clock_offsets()
    assert seen.name == "n1"
    assert abs(seen.offset_s - 12.5) <= seen.error_s < 0.01
    (back,) = second.clock_offsets()
    assert abs(back.offset_s + 12.5) <= back.error_s


def test_a_clock_that_is_set_is_seen_with_the_next_look(clocks: Clocks) -> None:
    """Though a look costs nothing where nothing has changed: no time has passed here."""
    first, _ = clocks.start("n0", "n1")
    clocks.network.run(3.0)
    (before,) = first.clock_offsets()
    assert first.clock_offsets() == [before]
    clocks.ahead_s["n0"] = 30.0
    (after,) = first.clock_offsets()
    assert after.offset_s == pytest.approx(before.offset_s - 30.0, abs=0.01)


def test_clocks_that_agree_are_no_problem(clocks: Clocks) -> None:
    """A third of a second apart is nothing to tell."""
    clocks.ahead_s["n1"] = 0.3
    nodes = clocks.start("n0", "n1", "n2")
    clocks.network.run(5.0)
    assert [HealthStatus.HEALTHY] * 3 == [node.health().status for node in nodes]


def test_clocks_over_a_second_apart_are_told_on_both_sides(clocks: Clocks) -> None:
    """Each names the other, and how much; writes go on."""
    clocks.ahead_s["n1"] = 5.0
    first, second = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    assert lines(first) == ["the clock of n1 is 5.0 s ahead of this node's"]
    assert lines(second) == ["the clock of n0 is 5.0 s behind this node's"]
    assert first.health().status is HealthStatus.DEGRADED
    second.sync.set_config("key", b"value")


def test_a_problem_keeps_its_age_while_it_lasts(clocks: Clocks) -> None:
    """A clock that drifts on a little is the same problem."""
    first, _ = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    clocks.ahead_s["n1"] = 30.0
    clocks.network.run(3.0)
    for _ in range(40):
        clocks.ahead_s["n1"] += 0.01
        clocks.network.run(1.0)
    health = first.health()
    assert health.problems == ("the clock of n1 is 30.0 s ahead of this node's",)
    assert 37.0 < health.ages_s[0] < 44.0


def test_a_clock_that_is_set_right_is_no_problem_any_more(clocks: Clocks) -> None:
    """What contradicts the surest measurement replaces it."""
    clocks.ahead_s["n1"] = 30.0
    first, _ = clocks.start("n0", "n1")
    clocks.network.run(60.0)
    assert lines(first)
    clocks.ahead_s["n1"] = 0.0
    clocks.network.run(3.0)
    assert lines(first) == []


def test_a_worse_measurement_counts_when_it_contradicts_a_better_one(clocks: Clocks) -> None:
    """A clock was set; one that agrees with the better one within its own error does not count."""
    first, _ = clocks.start("n0", "n1")
    clocks.network.run(3.0)
    offsets, now = first._engine._parts.offsets, clocks.network.now
    (before,) = offsets.of_peers(now)
    told_ms = int((clocks.read("n1") - 0.3) * 1000)
    offsets.observe("n1", told_ms, sent=now - 1.0, now=now)
    assert tuple(offsets.of_peers(now)) == (before,)
    offsets.observe("n1", told_ms + 30_000, sent=now - 1.0, now=now)
    (after,) = offsets.of_peers(now)
    assert (round(after.offset_s), round(after.error_s, 1)) == (30, 0.5)


def test_a_node_far_ahead_of_the_majority_takes_no_writes(clocks: Clocks) -> None:
    """And says by how much; the others go on, and say whose clock it is."""
    nodes = clocks.start("n0", "n1", "n2")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = 90.0
    with pytest.raises(ClockAheadError, match=r"(89|90)\.\d s ahead") as caught:
        nodes[2].sync.set_config("key", b"value")
    assert caught.value.skew_max_s == 60.0
    clocks.network.run(3.0)
    assert nodes[2].health().status is HealthStatus.DEGRADED
    assert any("takes no writes" in line for line in lines(nodes[2]))
    assert lines(nodes[0]) == ["the clock of n2 is 90.0 s ahead of this node's"]
    nodes[0].sync.set_config("key", b"value")


def test_a_node_that_takes_no_writes_routes_all_the_same(clocks: Clocks) -> None:
    """The placement is not recorded."""
    nodes = clocks.start("n0", "n1", "n2")
    nodes[0].sync.sync_worker_state("w", model_id="m", url="http://w", health=True, load=0.0)
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = 90.0
    assert nodes[2].route("m", "some text").worker_id == "w"
    assert nodes[2].sync.get_tree_state("m") is None


def test_two_nodes_say_so_and_neither_refuses(clocks: Clocks) -> None:
    """Nobody knows which of the two is wrong."""
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    clocks.ahead_s["n1"] = 90.0
    clocks.network.run(3.0)
    for node in nodes:
        node.sync.set_config(f"of {node.name}", b"value")
        assert len(lines(node)) == 1


def test_a_minority_in_reach_refuses_nothing(clocks: Clocks) -> None:
    """One of three that is out of reach counts: two are no majority for either."""
    nodes = clocks.start("n0", "n1", "n2")
    clocks.network.run(5.0)
    clocks.network.kill("n0")
    clocks.network.run(20.0)
    clocks.ahead_s["n2"] = 90.0
    clocks.network.run(3.0)
    nodes[2].sync.set_config("key", b"value")


def test_what_was_deleted_stays_deleted_after_a_clock_was_wrong(clocks: Clocks) -> None:
    """+90 s for 20 s: the write is refused, and everywhere the key stays deleted."""
    nodes = clocks.start("n0", "n1", "n2")
    nodes[0].sync.set_config("key", b"first")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = 90.0
    with pytest.raises(ClockAheadError):
        nodes[2].sync.set_config("key", b"second")
    clocks.network.run(1.0)
    nodes[1].sync.delete_config("key")
    clocks.network.run(19.0)
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(120.0)
    assert [None] * 3 == [node.sync.get_config("key") for node in nodes]
    nodes[2].sync.set_config("key", b"third")
    clocks.network.run(1.0)
    assert [b"third"] * 3 == [node.sync.get_config("key") for node in nodes]


def test_stamps_that_ran_ahead_are_waited_for(clocks: Clocks) -> None:
    """What was stamped ahead is gone on from, after the clock was set back too."""
    nodes = clocks.start("n0", "n1", "n2")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = 90.0
    nodes[2].replica.clock.tick()
    clocks.ahead_s["n2"] = 0.0
    with pytest.raises(ClockAheadError):
        nodes[2].sync.set_config("key", b"value")
    clocks.network.run(31.0)
    nodes[2].sync.set_config("key", b"value")
    clocks.network.run(2.0)
    assert nodes[0].sync.get_config("key") == b"value"


def test_a_node_that_is_behind_says_why_it_does_not_join(clocks: Clocks) -> None:
    """Whatever it is sent is from its future; it is ready once its clock is right."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key", b"value")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = -120.0
    (late,) = clocks.start("n2")
    clocks.network.run(8.0)
    assert late.state is NodeState.SYNCING
    assert "over 60 s behind that of n0, n1" in late.state_problem()
    assert any("behind most others" in line for line in lines(late))
    assert any("the clock of n2 is 120.0 s behind" in line for line in lines(nodes[0]))
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(8.0)
    assert late.is_ready
    assert late.sync.get_config("key") == b"value"


def test_of_many_that_differ_a_few_are_named(clocks: Clocks) -> None:
    """The lines are bounded, whatever the cluster's size."""
    clocks.ahead_s["n0"] = 3.0
    nodes = clocks.start(*[f"n{number}" for number in range(8)])
    clocks.network.run(20.0)
    assert len(lines(nodes[0])) == 6
    assert lines(nodes[0])[-1] == "the clocks of other members differ too"
    assert len(lines(nodes[1])) == 1


def test_what_is_sure_of_an_offset_is_what_its_error_leaves() -> None:
    """Nothing, when the error is larger."""
    assert ClockOffset("a", -5.0, 2.0).surely_s == -3.0
    assert abs(ClockOffset("a", 1.0, 2.0).surely_s) == 0.0


def test_round_trips_are_measured_by_member() -> None:
    """Frames take 1 to 3 ms each way; who has gone for good is not kept."""
    network = MiniNetwork()
    for name in ("n0", "n1", "n2"):
        network.start(name)
    network.run(20)
    trips = dict(network.nodes["n0"].round_trips_s())

    assert {"n1", "n2"} == set(trips)
    assert all(0.002 <= trip_s <= 0.006 for trip_s in trips.values())


def write_until_ready(clocks: Clocks, node: MeshNode) -> list[str]:
    """Try to write after each millisecond until a node is ready; return what came of each."""
    outcomes: list[str] = []
    while not node.is_ready:
        clocks.network.run(0.001)
        try:
            node.sync.set_config(f"key{len(outcomes)}", b"value")
            outcomes.append("taken")
        except (ClockAheadError, NotReadyError) as error:
            outcomes.append(type(error).__name__)
    return outcomes


def test_a_node_that_joins_with_a_clock_far_ahead_never_writes_once_it_met_others(
    clocks: Clocks,
) -> None:
    """It waits for their first answers, is refused from then on, and is ready all the same."""
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = 90.0
    late = clocks.network.start("n2", wall_clock=partial(clocks.read, "n2"))
    while not late.has_joined:
        clocks.network.run(0.0005)
    outcomes = write_until_ready(clocks, late)
    assert {"NotReadyError", "ClockAheadError"} == set(outcomes)
    assert outcomes == sorted(outcomes, reverse=True)
    assert [] == nodes[0].sync.config_keys()


def test_a_node_whose_clock_is_right_waits_for_a_round_trip(clocks: Clocks) -> None:
    """Writes are refused for some milliseconds before it is ready, and none after."""
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    late = clocks.network.start("n2", wall_clock=partial(clocks.read, "n2"))
    before, was_comparing = clocks.network.now, late.is_comparing_clocks
    write_until_ready(clocks, late)
    assert clocks.network.now - before < 0.05
    assert (True, False) == (was_comparing, late.is_comparing_clocks)
    late.sync.set_config("key", b"value")


def test_who_does_not_say_how_its_clock_stands_is_awaited_for_a_while(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers of both are lost: the node takes writes and is ready two seconds later."""
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    monkeypatch.setattr(ClockOffsets, "answer", lambda *_args, **_now: None)
    monkeypatch.setattr(ClockOffsets, "observe", lambda *_args, **_now: None)
    late = clocks.network.start("n2", wall_clock=partial(clocks.read, "n2"))
    outcomes = write_until_ready(clocks, late)
    assert "NotReadyError" in outcomes
    assert late.is_ready
    late.sync.set_config("key", b"value")


def test_a_ready_node_takes_writes_while_others_join(clocks: Clocks) -> None:
    """Of one that comes and makes them three it is not asked how its clock stands."""
    first, second = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    clocks.start("n2")
    for number in range(50):
        clocks.network.run(0.001)
        for node in (first, second):
            node.sync.set_config(f"{node.name}-{number}", b"value")
    clocks.network.run(1.0)
    assert 100 == len(first.sync.config_keys())


def test_a_seed_that_does_not_answer_is_awaited_for_a_second(clocks: Clocks) -> None:
    """Writes are taken meanwhile by the library, and wait in the service."""
    node = clocks.network.start("n1", wall_clock=partial(clocks.read, "n1"))
    was_comparing = node.is_comparing_clocks
    node.sync.set_config("key", b"value")
    clocks.network.run(1.1)
    assert not node.is_ready
    assert (True, False) == (was_comparing, node.is_comparing_clocks)


def app_entry(node: MeshNode, key: str) -> Any:
    """Return what a node holds for a key of the configuration."""
    app: Any = node.replica.get("app")
    return app.entry(key)


def test_what_a_program_writes_far_ahead_before_it_met_anybody_is_of_the_time_it_was_made(
    clocks: Clocks,
) -> None:
    """The others have it at once, under the time that they know; both sides say whose clock it is.

    And what is written once it has met them is refused.
    """
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 90.0)
    late.sync.set_config("key", b"early")
    clocks.network.run(3.0)
    clocks.network.cuts.clear()
    clocks.network.run(5.0)

    assert [b"early"] * 3 == value_on_each(clocks, "key")
    assert [True] * 3 == [bool(lines(node)) for node in (late, *nodes)]
    with pytest.raises(ClockAheadError):
        late.sync.set_config("key", b"late")
    assert "EntriesHeld" not in [*clocks.network.kinds("n0"), *clocks.network.kinds("n1")]
    (told,) = events_of(clocks, "n2")
    assert told.back_s == pytest.approx(90.0, abs=0.1)
    assert told.new == late.actor != told.old
    for node in (late, *nodes):
        stamp = app_entry(node, "key").stamp
        assert stamp.actor == late.actor
        assert stamp.wall_ms / 1000 == pytest.approx(RIGHT_S + 1005.0, abs=0.1)
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(5.0)
    assert [] == lines(late)
    late.sync.set_config("key", b"right")
    clocks.network.run(1.0)
    assert [b"right"] * 3 == value_on_each(clocks, "key")


@pytest.mark.parametrize("ahead_s", [5.0, 50.0, 90.0, 4000.0])
def test_what_was_deleted_after_an_early_write_stays_deleted(
    clocks: Clocks, ahead_s: float
) -> None:
    """Written ahead for 20 s and before it met anybody, deleted elsewhere, clocks agree again."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key", b"first")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", ahead_s)
    late.sync.set_config("key", b"early")
    clocks.network.run(3.0)
    nodes[1].sync.delete_config("key")
    clocks.network.run(17.0)
    clocks.network.cuts.clear()
    clocks.network.run(20.0)
    assert [None] * 3 == value_on_each(clocks, "key")
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(120.0)
    assert [None] * 3 == value_on_each(clocks, "key")


def test_what_was_deleted_stays_so_where_the_clock_was_set_right_before_they_met(
    clocks: Clocks,
) -> None:
    """Nothing is wrong with the clock any more when it is compared."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key", b"first")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 90.0)
    late.sync.set_config("key", b"early")
    late.sync.set_config("other", b"early")
    clocks.network.run(3.0)
    nodes[1].sync.delete_config("key")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(4.0)
    clocks.network.cuts.clear()
    clocks.network.run(5.0)

    assert [None] * 3 == value_on_each(clocks, "key")
    assert [b"early"] * 3 == value_on_each(clocks, "other")
    assert len(events_of(clocks, "n2")) == 1
    late.sync.set_config("key", b"right")
    clocks.network.run(1.0)
    assert [b"right"] * 3 == value_on_each(clocks, "key")


def test_an_early_write_does_not_replace_a_newer_one_that_is_on_its_way(clocks: Clocks) -> None:
    """Whoever lets it in has not heard of the removal: a write of now would replace it."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key", b"first")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 90.0)
    late.sync.set_config("key", b"early")
    clocks.network.run(1.0)
    clocks.network.cut_both("n0", "n1")
    nodes[1].sync.delete_config("key")
    clocks.network.run(1.0)
    clocks.network.cuts -= {("n0", "n2"), ("n2", "n0")}
    clocks.network.run(5.0)
    assert b"early" == nodes[0].sync.get_config("key")
    clocks.network.cuts.clear()
    clocks.network.run(30.0)
    assert [None] * 3 == value_on_each(clocks, "key")


def test_an_early_write_that_is_newer_stays(clocks: Clocks) -> None:
    """It is put back to its time and not before all others."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key", b"first")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 90.0)
    late.sync.set_config("key", b"early")
    late.sync.set_config("gone", b"early")
    late.sync.delete_config("gone")
    clocks.network.run(1.0)
    clocks.network.cuts.clear()
    clocks.network.run(5.0)
    assert [b"early"] * 3 == value_on_each(clocks, "key")
    assert [None] * 3 == value_on_each(clocks, "gone")


def test_what_one_wrote_that_began_alone_is_of_its_time(clocks: Clocks) -> None:
    """It was ready for long, and is not any more when it meets a cluster."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key", b"first")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 90.0)
    clocks.network.run(30.0)
    assert late.is_ready
    late.sync.set_config("key", b"alone")
    late.sync.set_config("other", b"alone")
    clocks.network.run(5.0)
    nodes[1].sync.delete_config("key")
    clocks.network.run(5.0)
    clocks.network.cuts.clear()
    clocks.network.run(15.0)
    assert late.is_ready
    assert len(events_of(clocks, "n2")) == 1
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(120.0)
    assert [None] * 3 == value_on_each(clocks, "key")
    assert [b"alone"] * 3 == value_on_each(clocks, "other")


@pytest.mark.parametrize("wrong", ["n0", "n1"])
def test_of_two_that_write_before_they_meet_the_later_write_stays(
    clocks: Clocks, wrong: str
) -> None:
    """Whichever clock is wrong: how far they are apart is all that counts."""
    clocks.network.cut_both("n0", "n1")
    clocks.ahead_s[wrong] = 90.0
    first, second = (
        clocks.network.start(name, seeds=("n0", "n1"), wall_clock=partial(clocks.read, name))
        for name in ("n0", "n1")
    )
    first.sync.set_config("a", b"first")
    second.sync.set_config("b", b"first")
    clocks.network.run(2.0)
    first.sync.set_config("b", b"second")
    second.sync.set_config("a", b"second")
    clocks.network.run(2.0)
    clocks.network.cuts.clear()
    clocks.network.run(30.0)
    assert [b"second"] * 2 == value_on_each(clocks, "a")
    assert [b"second"] * 2 == value_on_each(clocks, "b")
    assert {wrong: 1} == {
        n: len(events_of(clocks, n)) for n in ("n0", "n1") if events_of(clocks, n)
    }


def test_a_node_that_others_join_keeps_its_stamps(clocks: Clocks) -> None:
    """Whoever comes with a clock that is behind is to follow it."""
    (first,) = clocks.start("n0")
    first.sync.set_config("key", b"value")
    clocks.network.run(5.0)
    clocks.ahead_s["n1"] = -90.0
    clocks.start("n1")
    clocks.network.run(5.0)
    assert [] == events_of(clocks, "n0")


def test_two_against_one_keep_their_stamps(clocks: Clocks) -> None:
    """Three that begin at once, all with early writes, and one clock that is behind."""
    clocks.ahead_s["n2"] = -90.0
    names = ("n0", "n1", "n2")
    for name in names:
        node = clocks.network.start(name, seeds=names, wall_clock=partial(clocks.read, name))
        node.sync.set_config(name, b"early")
    clocks.network.run(5.0)
    assert [[], [], []] == [events_of(clocks, name) for name in names]


def test_early_writes_of_a_right_clock_are_told_as_they_are(clocks: Clocks) -> None:
    """A round trip later, by the same writer."""
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 0.0)
    late.sync.set_config("key", b"early")
    actor = late.actor
    clocks.network.run(1.0)
    clocks.network.cuts.clear()
    while not late.has_joined:
        clocks.network.run(0.0005)
    clocks.network.run(0.03)
    assert [b"early"] * 3 == value_on_each(clocks, "key")
    assert late.actor == actor
    assert [] == events_of(clocks, "n2")


def test_who_is_told_nothing_of_clocks_tells_its_early_writes_all_the_same(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are lost: two seconds later it goes on without them."""
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    monkeypatch.setattr(ClockOffsets, "answer", lambda *_args, **_now: None)
    monkeypatch.setattr(ClockOffsets, "observe", lambda *_args, **_now: None)
    late = clocks.network.start("n2", wall_clock=partial(clocks.read, "n2"))
    late.sync.set_config("key", b"early")
    clocks.network.run(1.5)
    assert [None, None, b"early"] == value_on_each(clocks, "key")
    clocks.network.run(5.0)
    assert late.is_ready
    assert [b"early"] * 3 == value_on_each(clocks, "key")


def test_everything_but_stamps_is_as_it_was_written(clocks: Clocks) -> None:
    """Counters, sets, registers, values of several documents, and who has a write."""
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 90.0)
    register = late.document("register", LWWRegister)
    counter = late.document("counter", GCounter)
    tags = late.document("tags", ORSet)
    register.write(lambda state, context: state.set("early", stamp=context.stamp()))
    for _ in range(5):
        counter.write(lambda state, context: state.increment(by=context.actor))
    tags.write(lambda state, context: state.add("x", dot=context.dot()))
    tags.write(lambda state, context: state.add("y", dot=context.dot()))
    receipt = tags.write(lambda state, _context: state.remove("x"))
    clocks.network.run(1.0)
    clocks.network.cuts.clear()
    clocks.network.run(5.0)

    assert late.seen_by(receipt) == {"n0", "n1"}
    for node in (late, *nodes):
        assert node.document("register", LWWRegister).state.value == "early"
        stamp = node.document("register", LWWRegister).state.stamp
        assert stamp is not None
        assert stamp.wall_ms / 1000 == pytest.approx(RIGHT_S + 1005.0, abs=0.1)
        assert node.document("counter", GCounter).state.value == 5
        assert set(node.document("tags", ORSet).state.value) == {"y"}
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(1.0)
    counter.write(lambda state, context: state.increment(by=context.actor))
    tags.write(lambda state, context: state.add("z", dot=context.dot()))
    clocks.network.run(1.0)
    for node in (late, *nodes):
        assert node.document("counter", GCounter).state.value == 6
        assert set(node.document("tags", ORSet).state.value) == {"y", "z"}


def test_a_file_of_before_the_writes_were_stamped_again_breaks_nothing(clocks: Clocks) -> None:
    """It is of another writer: no number has two contents, and all come to the same."""
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    late = start_apart(clocks, "n2", 50.0)
    late.sync.set_config("key", b"early")
    late.document("counter", GCounter).write(lambda s, context: s.increment(by=context.actor))
    state = late.export_state()
    clocks.network.run(1.0)
    clocks.network.cuts.clear()
    clocks.network.run(5.0)
    assert state.actor != late.actor
    clocks.network.kill("n2")
    clocks.network.run(5.0)
    again = clocks.network.start(
        "n2", wall_clock=partial(clocks.read, "n2"), state=state, age_s=6.0
    )
    clocks.network.run(30.0)
    for node in (again, *nodes):
        assert node.sync.get_config("key") == b"early"
        assert node.document("counter", GCounter).state.value == 1
    told = [kind for name in ("n0", "n1", "n2") for kind in clocks.network.kinds(name)]
    assert "StateDiverged" not in told


def test_what_was_stored_stays_replaced_by_what_was_written_over_it(clocks: Clocks) -> None:
    """The stored writes have the stamps of a clock as wrong, and may be known to others."""
    clocks.ahead_s["n2"] = 50.0
    (before,) = clocks.start("n2")
    before.sync.set_config("key", b"stored")
    state = before.export_state()
    clocks.network.kill("n2")
    clocks.network.run(5.0)
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    for other in ("n0", "n1"):
        clocks.network.cut_both("n2", other)
    again = clocks.network.start(
        "n2", wall_clock=partial(clocks.read, "n2"), state=state, age_s=10.0
    )
    again.sync.set_config("key", b"over it")
    clocks.network.run(2.0)
    clocks.network.cuts.clear()
    clocks.network.run(20.0)
    assert [b"over it"] * 3 == value_on_each(clocks, "key")
    (told,) = events_of(clocks, "n2")
    assert 9.0 < told.back_s < 10.0
    assert nodes[0].replica.content_digest() == again.replica.content_digest()


def test_what_comes_before_anybody_was_met_is_not_joined_with_early_writes(
    clocks: Clocks,
) -> None:
    """Others know an earlier start of it, and push to it; it would drop what is newer for good."""
    nodes = clocks.start("n0", "n1", "n2")[:2]
    clocks.network.run(5.0)
    clocks.network.kill("n2")
    clocks.network.cuts |= {("n2", "n0"), ("n2", "n1")}
    clocks.ahead_s["n2"] = 90.0
    (late,) = clocks.start("n2")
    late.sync.set_config("key", b"early")
    clocks.network.run(0.3)
    for node in nodes:
        node.sync.set_config("key", b"newer")
        node.sync.set_config(f"of {node.name}", b"value")
        clocks.network.pump(node.name)
    clocks.network.run(0.3)
    assert late.sync.get_config("of n0") is None
    clocks.network.cuts.clear()
    clocks.network.run(20.0)
    assert [b"newer"] * 3 == value_on_each(clocks, "key")
    assert late.replica.content_digest() == nodes[0].replica.content_digest()
    assert len(events_of(clocks, "n2")) == 1


def test_early_writes_that_the_log_dropped_come_with_the_state(clocks: Clocks) -> None:
    """Removals among them; and a state waits until its sender's clock is believed."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("key3", b"first")
    clocks.network.run(5.0)
    for other in ("n0", "n1"):
        clocks.network.cut_both("n2", other)
    clocks.ahead_s["n2"] = 90.0
    late = clocks.network.start(
        "n2",
        wall_clock=partial(clocks.read, "n2"),
        replication=ReplicationConfig(log_bytes_max=2_000),
    )
    for number in range(60):
        late.sync.set_config(f"key{number}", b"early" * 10)
        clocks.network.pump("n2")
    for number in range(10, 20):
        late.sync.delete_config(f"key{number}")
        clocks.network.pump("n2")
    clocks.network.run(1.0)
    nodes[0].sync.set_config("key3", b"newer")
    clocks.network.run(1.0)
    assert "LogShortened" in clocks.network.kinds("n2")
    clocks.network.cuts.clear()
    clocks.network.run(10.0)
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(60.0)
    for node in (late, *nodes):
        assert 50 == len(node.sync.config_keys())
        assert b"newer" == node.sync.get_config("key3")
        assert node.sync.get_config("key15") is None
        node._check()
    digests = {node.replica.content_digest() for node in (late, *nodes)}
    assert 1 == len(digests)


def test_a_record_is_stamped_again_in_its_registers_and_maps(clocks: Clocks) -> None:
    """And whoever has gathered what became new in it reads it anew."""
    nodes = clocks.start("n0", "n1")
    clocks.network.run(5.0)
    kind = Pair.of(LWWRegister, LWWMap)
    late = start_apart(clocks, "n2", 90.0)
    document = late.document("both", kind)
    changes = document.changes()
    changes.take()
    document.write(
        lambda state, context: kind(first=state.first.set("early", stamp=context.stamp()))
    )
    document.write(
        lambda state, context: kind(
            second=state.second.set(
                "key", "early", stamp=context.stamp(), sequence=context.sequence
            )
        )
    )
    clocks.network.run(1.0)
    theirs = nodes[0].document("both", kind)
    theirs.write(lambda state, context: kind(first=state.first.set("newer", stamp=context.stamp())))
    clocks.network.run(1.0)
    clocks.network.cuts.clear()
    clocks.network.run(5.0)
    for node in (late, *nodes):
        state = node.document("both", kind).state
        assert ("newer", "early") == (state.first.value, state.second["key"])
    assert changes.take() is None


def test_who_leaves_at_once_has_told_its_early_writes(clocks: Clocks) -> None:
    """Before the answers are in: what it wrote is not lost with it."""
    clocks.start("n0", "n1")
    clocks.network.run(5.0)
    late = clocks.network.start("n2", wall_clock=partial(clocks.read, "n2"))
    late.sync.set_config("key", b"early")
    while not late.has_joined:
        clocks.network.run(0.0005)
    late.drain(now=clocks.network.now)
    clocks.network.pump("n2")
    while not late.has_handed_over:
        clocks.network.run(0.01)
    late.leave(now=clocks.network.now)
    clocks.network.pump("n2")
    clocks.network.run(1.0)
    assert [b"early"] * 2 == value_on_each(clocks, "key")[:2]


def test_what_a_program_writes_far_behind_before_it_met_anybody_replaces_nothing(
    clocks: Clocks,
) -> None:
    """What nobody else has written reaches all; what somebody has stays as it is."""
    nodes = clocks.start("n0", "n1")
    nodes[0].sync.set_config("known", b"right")
    clocks.network.run(5.0)
    clocks.ahead_s["n2"] = -90.0
    late = clocks.network.start("n2", wall_clock=partial(clocks.read, "n2"))
    for key in ("known", "new"):
        late.sync.set_config(key, b"early")
    clocks.network.run(5.0)
    told = [bool(lines(node)) for node in (late, *nodes)]
    clocks.ahead_s["n2"] = 0.0
    clocks.network.run(10.0)

    assert [True] * 3 == told
    for node in (late, *nodes):
        assert (b"right", b"early") == tuple(node.sync.get_config(key) for key in ("known", "new"))
