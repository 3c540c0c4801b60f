"""What happens between whole nodes: joining, dying, refuting, conflicting, healing."""

from __future__ import annotations

from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.clock import HybridClock
from meshlib.gossip import GossipConfig, MemberDown, MemberSuspected, NameConflict, PacketRejected
from meshlib.gossip.messages.frames import decode_frame
from meshlib.gossip.messages.kinds import TransferAvailable
from meshlib.identity import actor_id
from meshlib.replication import LogEntry, Replica, ReplicationConfig
from meshlib.testing.checkers.inside import leftovers

ALL_ALIVE = {"n0": "Alive", "n1": "Alive", "n2": "Alive"}


def test_three_nodes_meet_through_one_seed(trio: MiniNetwork) -> None:
    """Each knows all three, and is ready."""
    assert [trio.view(name) for name in ("n0", "n1", "n2")] == [ALL_ALIVE] * 3
    assert all(node.is_ready for node in trio.nodes.values())


def test_a_write_reaches_every_node_in_one_hop(trio: MiniNetwork) -> None:
    """Three milliseconds of network are enough."""
    trio.put("n1", "key", "value")
    trio.run(0.004)

    assert trio.values("key") == ["value"] * 3


def test_a_killed_node_is_suspected_and_then_down_everywhere(trio: MiniNetwork) -> None:
    """Both others suspect first, and agree within 2.5 s."""
    trio.kill("n2")
    took_s = trio.run_until(
        lambda: all(trio.view(name)["n2"] == "Down" for name in ("n0", "n1")), limit_s=2.5
    )
    kinds = [type(e) for e in trio.events["n0"] if isinstance(e, MemberSuspected | MemberDown)]

    assert kinds == [MemberSuspected, MemberDown]
    assert took_s < 2.5


def test_a_silent_death_is_detected_by_probes_alone(trio: MiniNetwork) -> None:
    """Without a refused connection the probes' timeouts find it too."""
    trio.is_refusing = False
    trio.kill("n2")
    trio.run_until(lambda: trio.view("n0")["n2"] == "Down", limit_s=5.0)

    assert trio.nodes["n0"].counters.probes_failed > 0


def test_a_restart_is_a_new_incarnation_with_all_state(trio: MiniNetwork) -> None:
    """The new process is Alive everywhere, holds the data, and its version has grown."""
    trio.put("n0", "key", 1)
    trio.run(0.1)
    trio.kill("n2")
    trio.run(3.0)
    before = trio.versions()[0]["n2"]
    trio.start("n2")
    trio.run(1.0)

    assert trio.values("key") == [1, 1, 1]
    assert trio.view("n0")["n2"] == "Alive"
    assert [versions["n2"] for versions in trio.versions()] == [before + 1] * 3


def test_a_quick_restart_is_let_in_at_once(trio: MiniNetwork) -> None:
    """The old start is not yet Down, but its address answers for the new one."""
    trio.kill("n2")
    trio.start("n2")
    took_s = trio.run_until(lambda: trio.nodes["n2"].is_ready, limit_s=1.0)

    assert took_s < 0.5
    assert "NameConflict" not in trio.kinds("n2")


def test_a_name_taken_by_a_live_node_is_refused(trio: MiniNetwork) -> None:
    """The newcomer is told, and the holder keeps its place."""
    trio.start("n2", address="elsewhere")
    trio.run(2.0)

    assert NameConflict(name="n2", address="n2:1") in trio.events["elsewhere"]
    assert trio.view("n0") == ALL_ALIVE
    assert [m.address for m in trio.nodes["n0"].members()] == ["n0:1", "n1:1", "n2:1"]


def test_the_name_of_a_dead_node_can_be_taken_elsewhere(trio: MiniNetwork) -> None:
    """The holder is asked first; since it does not answer, the newcomer is let in."""
    trio.is_refusing = False
    trio.kill("n2")
    trio.start("n2", address="elsewhere")
    trio.run_until(lambda: trio.nodes["elsewhere"].is_ready, limit_s=3.0)
    trio.run(1.0)

    assert [m.address for m in trio.nodes["n0"].members()] == ["n0:1", "n1:1", "elsewhere:1"]


def test_a_restart_with_a_vector_gone_back_moves_above_its_old_start(trio: MiniNetwork) -> None:
    """A lower incarnation than the dead one is raised, not refused."""
    trio.kill("n2")
    trio.run(3.0)
    trio.start("n2", wall_offset_s=1.5e9)
    trio.run_until(lambda: trio.view("n0")["n2"] == "Alive", limit_s=3.0)
    trio.run(0.01)  # it asks both how its clock stands

    assert trio.nodes["n2"].is_ready


def test_a_node_cut_off_is_down_and_comes_back_after_the_cut(trio: MiniNetwork) -> None:
    """Both sides hold each other Down; after the heal all are Alive and agree."""
    for other in ("n0", "n1"):
        trio.cut_both("n2", other)
    trio.run(12.0)
    assert trio.view("n0")["n2"] == "Down"
    assert trio.view("n2")["n0"] == "Down"
    trio.put("n2", "inside", 1)
    trio.put("n0", "outside", 2)
    trio.cuts.clear()
    trio.run_until(lambda: all(trio.view(n) == ALL_ALIVE for n in ("n0", "n1", "n2")))
    trio.run_until(lambda: trio.values("inside") == [1, 1, 1] and trio.values("outside") == [2] * 3)

    trio.run(8.0)
    assert trio.versions()[0] == trio.versions()[1] == trio.versions()[2]


def test_two_halves_do_not_declare_each_others_members_down(network: MiniNetwork) -> None:
    """When halves meet again, members that answer in one half are not taken for Down there."""
    names = [f"n{index}" for index in range(6)]
    for name in names:
        network.start(name)
    network.run(2.0)
    for left in names[:3]:
        for right in names[3:]:
            network.cut_both(left, right)
    network.run(15.0)
    for name in names:
        network.events[name].clear()
    network.cuts.clear()
    alive = dict.fromkeys(names, "Alive")
    network.run_until(lambda: all(network.view(name) == alive for name in names))

    assert [name for name in names if "MemberDown" in network.kinds(name)] == []


def test_an_indirect_probe_saves_a_node_behind_one_cut_link(trio: MiniNetwork) -> None:
    """Two nodes cannot talk, but a third reaches both: nobody is suspected for long."""
    trio.cut_both("n0", "n2")
    trio.run(20.0)

    assert trio.nodes["n0"].counters.indirect_probes_saved > 0
    assert "MemberDown" not in trio.kinds("n0") + trio.kinds("n1") + trio.kinds("n2")


def test_entries_take_another_way_around_a_cut_link(trio: MiniNetwork) -> None:
    """Anti-entropy with the third node brings what a cut link dropped."""
    trio.cut_both("n0", "n2")
    trio.put("n0", "key", "value")
    took_s = trio.run_until(lambda: trio.values("key") == ["value"] * 3, limit_s=10.0)

    assert took_s > 0.01


def test_a_paused_node_accuses_nobody(trio: MiniNetwork) -> None:
    """After ten seconds of standing still it finds the others Alive and refutes."""
    trio.is_refusing = False
    trio.run(10.0, frozen=("n2",))
    trio.events["n2"].clear()
    trio.run(5.0)

    assert "LocalPause" in trio.kinds("n2")
    assert "MemberSuspected" not in trio.kinds("n2")
    assert [trio.view(name) for name in ("n0", "n1", "n2")] == [ALL_ALIVE] * 3


def test_a_leaving_node_is_not_taken_for_dead(trio: MiniNetwork) -> None:
    """It is shown as Leaving, and forgotten later; nobody suspects it."""
    trio.nodes["n2"].leave(now=trio.now)
    trio.pump("n2")
    trio.run(0.01)
    trio.kill("n2")
    shown = trio.view("n0")["n2"]
    trio.run(35.0)

    assert shown == "Leaving"
    assert "n2" not in trio.view("n0")
    assert {"MemberDown", "MemberSuspected"} & set(trio.kinds("n0")) == set()


def test_a_frame_of_another_cluster_changes_nothing(trio: MiniNetwork) -> None:
    """It is rejected as such, and its sender does not become a member."""
    trio.start("stranger", cluster="other")
    trio.run(1.0)
    rejected = [e for e in trio.events["n0"] if isinstance(e, PacketRejected)]

    assert rejected[0].reason == "cluster"
    assert trio.view("n0") == ALL_ALIVE


def test_a_seed_that_comes_late_is_found(network: MiniNetwork) -> None:
    """Nodes dial their seed until it is there."""
    network.start("n1")
    network.run(5.0)
    network.start("n0", seeds=())
    network.run_until(lambda: network.view("n1") == {"n0": "Alive", "n1": "Alive"}, limit_s=5.0)

    assert network.nodes["n1"].is_ready


def test_a_whole_restart_finds_together_again(trio: MiniNetwork) -> None:
    """All at once end and start; the cluster forms anew."""
    for name in ("n0", "n1", "n2"):
        trio.kill(name)
    for name in ("n0", "n1", "n2"):
        trio.start(name, seeds=("n0", "n1", "n2"))
    trio.run(3.0)

    assert [trio.view(name) for name in ("n0", "n1", "n2")] == [ALL_ALIVE] * 3


def test_a_down_member_is_forgotten_after_its_time(trio: MiniNetwork) -> None:
    """The setting says when, and old news does not bring it back."""
    for name in ("n0", "n1"):
        trio.kill(name)
    trio.kill("n2")
    config = GossipConfig(forget_after_s=10.0)
    for name in ("n0", "n1", "n2"):
        trio.start(name, config=config)
    trio.run(1.0)
    trio.kill("n2")
    trio.run(20.0)

    assert trio.view("n0") == {"n0": "Alive", "n1": "Alive"}


@pytest.mark.slow
def test_thirty_nodes_agree_over_a_sparse_graph(network: MiniNetwork) -> None:
    """Above the threshold a write still reaches everybody, and so does a death."""
    names = [f"n{index}" for index in range(30)]
    for name in names:
        network.start(name)
    network.run(3.0)
    network.put("n3", "key", "value")
    network.run(1.0)
    assert network.values("key") == ["value"] * 30
    network.kill("n7")
    network.run(8.0)

    assert {network.view(name)["n7"] for name in names if name != "n7"} == {"Down"}


def test_an_impatient_claimant_does_not_restart_the_question(trio: MiniNetwork) -> None:
    """Asking again faster than the holder's time to answer must not put the answer off."""
    trio.is_refusing = False
    trio.kill("n2")
    trio.start("n2", address="elsewhere", config=GossipConfig(join_retry_s=0.1))
    trio.run_until(lambda: trio.nodes["elsewhere"].is_ready, limit_s=5.0)

    assert trio.view("n0")["n2"] == "Alive"


def test_a_node_away_for_too_long_comes_back_as_a_new_writer(trio: MiniNetwork) -> None:
    """It adopts the others' state and writes again what only it had."""
    for name in ("n0", "n1", "n2"):
        trio.kill(name)
    config = GossipConfig(forget_after_s=20.0)
    for name in ("n0", "n1", "n2"):
        trio.start(name, config=config)
    trio.run(1.0)
    before = trio.nodes["n2"].actor
    for other in ("n0", "n1"):
        trio.cut_both("n2", other)
    trio.put("n2", "inside", 1)
    trio.put("n0", "outside", 2)
    trio.run(15.0)
    trio.cuts.clear()
    trio.run_until(lambda: trio.values("inside") == [1, 1, 1] and trio.values("outside") == [2] * 3)

    assert trio.nodes["n2"].actor != before
    assert "Rejoined" in trio.kinds("n2")


def test_a_writer_whose_start_is_long_over_leaves_the_vector(trio: MiniNetwork) -> None:
    """Vectors do not grow with every restart for ever."""
    for name in ("n0", "n1", "n2"):
        trio.kill(name)
    config = GossipConfig(forget_after_s=5.0)
    for name in ("n0", "n1", "n2"):
        trio.start(name, config=config)
    trio.run(1.0)
    for round_number in range(4):
        trio.put("n2", f"key-{round_number}", round_number)
        trio.run(0.1)
        trio.kill("n2")
        trio.start("n2", config=config)
        trio.run(1.0)
    trio.run(15.0)

    assert trio.values("key-0") == [0, 0, 0]
    assert max(len(node.replica.version_vector) for node in trio.nodes.values()) <= 3


def test_the_holder_of_a_name_itself_refuses_a_claim_to_it(network: MiniNetwork) -> None:
    """Also when it is the only node the newcomer knows."""
    network.start("n0", seeds=())
    network.run(0.5)
    claimant = network.start("n0", address="elsewhere", seeds=("n0",))
    network.run(1.0)

    assert NameConflict(name="n0", address="n0:1") in network.events["elsewhere"]
    assert not claimant.has_joined


def test_all_nodes_count_a_restart_at_once(trio: MiniNetwork) -> None:
    """The version that the new start gives itself is everywhere as soon as it is ready."""
    trio.kill("n0")
    trio.run(3.0)
    trio.start("n0", seeds=("n1",))
    trio.run_until(lambda: trio.nodes["n0"].is_ready)
    trio.run(0.01)

    assert [versions["n0"] for versions in trio.versions()] == [4, 4, 4]


def test_a_dead_seed_costs_the_same_for_ever(network: MiniNetwork) -> None:
    """One chain of dials, however long nobody answers: timers and frames stay flat."""
    network.is_refusing = False
    node = network.start("n1", seeds=("nobody",))
    network.run(60.0)
    sent = node.counters.frames_sent
    network.run(60.0)
    later = node.counters.frames_sent - sent
    network.run(600.0)
    sent = node.counters.frames_sent
    network.run(60.0)

    assert node.counters.frames_sent - sent <= later * 1.3
    assert len(node._engine._parts.timers) < 20


def test_a_stalled_holder_keeps_its_name(trio: MiniNetwork) -> None:
    """A node that does not answer for 0.7 s is not given up for a newcomer of its name."""
    trio.is_refusing = False
    trio.start("n2", address="elsewhere")
    trio.run(0.7, frozen=("n2",))
    trio.run(5.0)

    assert "NameConflict" in trio.kinds("elsewhere")
    assert "NameConflict" not in trio.kinds("n2")
    assert trio.view("n0") == ALL_ALIVE
    assert [m.address for m in trio.nodes["n0"].members()] == ["n0:1", "n1:1", "n2:1"]


def test_of_two_nodes_of_one_name_that_begin_at_once_one_goes_on(network: MiniNetwork) -> None:
    """Each is the other's only seed; the older one keeps the name."""
    network.start("n", address="left", seeds=("right",))
    network.run(0.2)
    network.start("n", address="right", seeds=("left",))
    network.run(3.0)

    assert "NameConflict" not in network.kinds("left")
    assert "NameConflict" in network.kinds("right")


def test_of_two_live_nodes_of_one_name_the_older_keeps_it(network: MiniNetwork) -> None:
    """Two clusters that meet: the younger one gives way, and only that one."""
    network.start("n0", seeds=())
    network.start("twin", address="old", seeds=("n0",))
    network.run(1.0)
    for name in ("n0", "old"):
        network.cut_both(name, "n1")
        network.cut_both(name, "young")
    network.start("n1", seeds=("n0",))
    network.start("twin", address="young", seeds=("n1",))
    network.run(2.0)
    network.cuts.clear()
    network.run(10.0)

    assert "NameConflict" in network.kinds("young")
    assert "NameConflict" not in network.kinds("old")


def test_nodes_that_come_back_under_new_names_are_no_partition(network: MiniNetwork) -> None:
    """Three die and three of other names take their places: a majority is in reach."""
    for name in ("n0", "n1", "n2"):
        network.start(name)
    network.run(1.0)
    for index in range(3):
        network.start(f"m{index}", seeds=("n0", "n1", "n2", "m0", "m1"))
        network.run(1.0)
        network.kill(f"n{index}")
        network.run(12.0)

    assert network.nodes["m2"].health().status == "degraded"
    assert network.nodes["m2"].health().partition.has_quorum


def test_a_leave_that_one_node_missed_is_told_to_it(network: MiniNetwork) -> None:
    """The others have long forgotten who left; the one that was away learns that it left."""
    for name in ("n0", "n1", "n2", "n3"):
        network.start(name)
    network.run(1.0)
    for name in ("n0", "n1", "n3"):
        network.cut_both("n2", name)
    network.nodes["n3"].leave(now=network.now)
    network.pump("n3")
    network.run(0.1)
    network.kill("n3")
    network.run(47.0)
    network.cuts.clear()
    network.run(45.0)

    assert "n3" not in network.view("n2")
    assert network.nodes["n2"].health().status == "healthy"


def test_a_peer_that_caught_up_another_way_is_no_longer_behind(trio: MiniNetwork) -> None:
    """Its link was busy, and became free while the peer was Down: nobody was sent to then."""
    node = trio.nodes["n0"]
    node.link_state("n2:1", is_busy=True, now=trio.now)
    trio.put("n0", "key", 1)
    for other in ("n0", "n1"):
        trio.cut_both("n2", other)
    trio.run(12.0)
    assert trio.view("n0")["n2"] == "Down"
    node.link_state("n2:1", is_busy=False, now=trio.now)
    trio.cuts.clear()
    trio.run_until(lambda: trio.view("n0") == ALL_ALIVE and trio.values("key") == [1, 1, 1])
    trio.run(10.0)

    assert leftovers(node)["peers behind"] == 0


def test_a_peer_that_is_gone_for_good_is_not_behind(trio: MiniNetwork) -> None:
    """Its link was busy when it died, and became free once it was Down."""
    node = trio.nodes["n0"]
    node.link_state("n2:1", is_busy=True, now=trio.now)
    trio.put("n0", "key", 1)
    trio.kill("n2")
    trio.run_until(lambda: trio.view("n0")["n2"] == "Down")
    assert leftovers(node)["peers behind"] == 1
    node.link_state("n2:1", is_busy=False, now=trio.now)

    assert leftovers(node)["peers behind"] == 0


def test_halves_of_which_one_forgot_a_writer_end_with_equal_content(network: MiniNetwork) -> None:
    """The other half never had the last entries of the writer: it gets them, not a mark alone."""
    names = [f"n{index}" for index in range(5)]
    for name in names:
        network.start(
            name,
            config=GossipConfig(forget_after_s=8.0, leave_forget_s=0.5),
            replication=ReplicationConfig(tombstone_grace_s=0.0),
        )
    network.run(3.0)
    network.put("n1", "kept", 1)
    network.put("n1", "removed", 1)
    network.run(2.0)
    for left in ("n0", "n1", "n4"):
        for right in ("n2", "n3"):
            network.cut_both(left, right)
    writer = network.nodes["n1"]
    network.put("n1", "late", 1)
    writer.replica.write(
        "app", lambda state, c: state.remove("removed", stamp=c.stamp(), sequence=c.sequence)
    )
    network.pump("n1")
    network.run(0.5)
    writer.leave(now=network.now)
    network.pump("n1")
    network.run(0.2)
    network.kill("n1")
    network.is_refusing = False
    network.run(12.0)
    held = [writer.actor in node.replica.version_vector for node in network.nodes.values()]
    for name in names:
        network.events[name].clear()
    network.cuts.clear()
    network.run(20.0)

    assert held == [False, True, True, False]
    assert [network.content(name) for name in network.nodes] == [{"kept": 1, "late": 1}] * 4
    assert len({node.replica.vector_hash() for node in network.nodes.values()}) == 1
    assert [name for name in names if "StateDiverged" in network.kinds(name)] == []


@pytest.mark.parametrize("lost_count", [0, 1, 3])
def test_unequal_marks_behind_equal_hashes_bring_nothing_back(
    network: MiniNetwork, lost_count: int
) -> None:
    """Who forgot a writer with less gets its removal by a transfer; a repair would undo it.

    Also when the offers of that transfer are lost at first.
    """
    nodes = network.start("n0", seeds=()), network.start("n1")
    network.run(5.0)
    actor = actor_id("gone", 1)
    clock = HybridClock(actor, wall_clock=lambda: network.now + 1.7e9)
    writer = Replica(actor=actor, clock=clock, config=ReplicationConfig())
    writer.open("app", type_tag="lww_map")

    def entry(mutate: Any) -> LogEntry:
        writer.write("app", mutate)
        [written] = writer.flush()
        return written

    removed = entry(lambda m, c: m.set("removed", 1, stamp=c.stamp(), sequence=c.sequence))
    removal = entry(lambda m, c: m.remove("removed", stamp=c.stamp(), sequence=c.sequence))
    for node, entries in zip(nodes, ([removed, removal], [removed]), strict=True):
        node.replica.receive(entries)
        node.replica.forget(actor)
        node.replica.collect_tombstones({}, now=network.now)
    were_equal = nodes[0].replica.vector_hash() == nodes[1].replica.vector_hash()
    left_to_lose = [None] * lost_count

    def is_lost(data: bytes) -> bool:
        messages = decode_frame(data, cluster="mesh").messages
        if left_to_lose and any(isinstance(message, TransferAvailable) for message in messages):
            left_to_lose.pop()
            return True
        return False

    network.is_lost = is_lost
    network.run(60.0)

    assert were_equal
    assert not left_to_lose
    assert [network.content(node.name) for node in nodes] == [{}, {}]
    assert nodes[0].replica.vector_hash() == nodes[1].replica.vector_hash()
