"""A process that is gone: what is known when a link broke and its address refused a dial."""

from __future__ import annotations

from support.mini_network import PORT, MiniNetwork

from meshlib.gossip import LinkEnd
from meshlib.node import HealthStatus


def break_links(network: MiniNetwork, name: str) -> None:
    """Tell all others that their links to a node broke, as the system does when one is killed."""
    for other in network.nodes:
        if other != name:
            network.nodes[other].connection_lost(name + PORT, now=network.now)
            network.pump(other)


def is_down(network: MiniNetwork, name: str) -> bool:
    return all(network.view(each)[name] == "Down" for each in network.nodes if each != name)


def test_a_killed_process_is_down_on_both_others_within_0_8_s(trio: MiniNetwork) -> None:
    """Link broken, dial refused, and the other one was refused as well: one probe interval."""
    trio.kill("n2")
    break_links(trio, "n2")
    took_s = trio.run_until(lambda: is_down(trio, "n2"), limit_s=3.0)

    assert 0.5 <= took_s <= 0.8


def test_a_killed_process_among_six_is_down_everywhere_within_0_8_s(network: MiniNetwork) -> None:
    """Each asks three others, who were refused too."""
    for index in range(6):
        network.start(f"n{index}")
    network.run(2.0)
    network.kill("n4")
    break_links(network, "n4")
    took_s = network.run_until(lambda: is_down(network, "n4"), limit_s=3.0)

    assert took_s <= 0.8


def test_a_refusal_that_no_link_went_before_is_not_enough(trio: MiniNetwork) -> None:
    """It may have been like that for long; then the suspicion takes its time."""
    trio.kill("n2")
    took_s = trio.run_until(lambda: is_down(trio, "n2"), limit_s=4.0)

    assert took_s > 1.5


def test_who_is_refused_by_one_alone_is_not_suspected(trio: MiniNetwork) -> None:
    """The other one reaches it, and says so."""
    trio.nodes["n0"].connection_lost("n2" + PORT, now=trio.now)
    trio.cut("n0", "n2")
    trio.pump("n0")
    for _ in range(20):
        trio.nodes["n0"].connection_lost("n2" + PORT, now=trio.now, end=LinkEnd.REFUSED)
        trio.pump("n0")
        trio.run(0.1)

    assert "MemberDown" not in trio.kinds("n0") + trio.kinds("n1")


def test_who_refuses_everybody_and_is_heard_has_the_whole_time(trio: MiniNetwork) -> None:
    """Its process lives, whatever its address says: what it sends is no evidence of its end."""
    trio.cut("n0", "n2")
    trio.cut("n1", "n2")
    break_links(trio, "n2")
    for turn in range(11):
        trio.put("n2", f"key {turn}", turn)
        for name in ("n0", "n1"):
            trio.nodes[name].connection_lost("n2" + PORT, now=trio.now, end=LinkEnd.REFUSED)
            trio.pump(name)
        trio.run(0.1)

    assert [trio.view(name)["n2"] for name in ("n0", "n1")] == ["Suspected"] * 2


def test_who_answers_late_and_is_heard_is_not_down_at_once(trio: MiniNetwork) -> None:
    """Nothing reaches it in time, and what it sends arrives; a silent one is Down by 2.7 s."""
    trio.cut("n0", "n2")
    trio.cut("n1", "n2")
    for turn in range(8):
        trio.put("n2", f"key {turn}", turn)
        trio.run(0.5)
    suspected = [trio.view(name)["n2"] for name in ("n0", "n1")]
    trio.cuts.clear()
    trio.run(2.0)

    assert suspected == ["Suspected"] * 2
    assert "MemberDown" not in trio.kinds("n0") + trio.kinds("n1")
    assert trio.view("n0")["n2"] == "Alive"


def test_who_is_heard_here_is_not_down_because_others_say_so(network: MiniNetwork) -> None:
    """It hears nobody, and only one other hears it: that one waits as long as for itself."""
    for index in range(4):
        network.start(f"n{index}")
    network.run(2.0)
    for other in ("n0", "n1", "n2"):
        network.cut(other, "n3")
    for other in ("n1", "n2"):
        network.cut("n3", other)
    cut_at, down_at = network.now, dict.fromkeys(("n0", "n1", "n2"), 0.0)
    while not all(down_at.values()):
        network.put("n3", f"key {network.now}", 1)
        network.run(0.1)
        for name, at in down_at.items():
            if not at and network.view(name)["n3"] == "Down":
                down_at[name] = network.now - cut_at
        network.nodes["n0"]._check()

    assert max(down_at["n1"], down_at["n2"]) < 6.0
    assert 9.0 < down_at["n0"] < 15.0


def test_who_is_silent_here_is_down_because_others_say_so(network: MiniNetwork) -> None:
    """What was heard of it before counts for nothing."""
    for index in range(4):
        network.start(f"n{index}")
    network.run(2.0)
    network.is_refusing = False
    network.kill("n3")
    network.run_until(lambda: "Down" in (network.view(n)["n3"] for n in network.nodes))

    assert network.run_until(lambda: is_down(network, "n3")) <= 0.05


def test_who_refuted_late_and_is_killed_is_down_within_0_8_s(trio: MiniNetwork) -> None:
    """The evidence that a process has ended counts however late others have refuted."""
    for cut in (("n0", "n2"), ("n1", "n2")):
        trio.cut(*cut)
    for turn in range(8):
        trio.put("n2", f"key {turn}", turn)
        trio.run(0.5)
    trio.cuts.clear()
    trio.run(2.0)
    lateness = [trio.nodes[n].diagnostics()["lateness"]["late_s"] for n in ("n0", "n1")]
    trio.kill("n2")
    break_links(trio, "n2")
    took_s = trio.run_until(lambda: is_down(trio, "n2"), limit_s=3.0)

    assert min(lateness) > 1.0
    assert took_s <= 0.8


def test_who_hears_nobody_for_long_is_down(trio: MiniNetwork) -> None:
    """However much it says itself, and not before it has had the longer time."""
    trio.cut("n0", "n2")
    trio.cut("n1", "n2")
    cut_at = trio.now
    while trio.view("n0")["n2"] != "Down" and trio.now < cut_at + 15.0:
        trio.put("n2", f"key {trio.now}", 1)
        trio.run(0.5)

    assert 4.0 < trio.now - cut_at < 15.0


def test_one_that_begins_again_at_once_is_alive(trio: MiniNetwork) -> None:
    """The suspicion is of the start before."""
    trio.kill("n2")
    break_links(trio, "n2")
    trio.run(0.2)
    trio.start("n2")
    trio.run(2.0)

    assert [trio.view(name)["n2"] for name in trio.nodes] == ["Alive"] * 3
    assert "MemberDown" not in trio.kinds("n0") + trio.kinds("n1")


def test_the_survivor_of_two_is_whole_though_the_link_broke_on_a_question(
    network: MiniNetwork,
) -> None:
    """The other has been asked, and is suspected for the break: its refusal is the answer."""
    network.is_refusing = False
    for name in ("n0", "n1"):
        network.start(name)
    network.run(2.0)
    network.kill("n1")
    node = network.nodes["n0"]
    probed = node.diagnostics()["failure_detector"]["probed"]
    network.run_until(lambda: "n1" in probed, limit_s=2.0)
    node.connection_lost("n1" + PORT, now=network.now, end=LinkEnd.BROKEN)
    assert network.view("n0")["n1"] == "Suspected"

    node.connection_lost("n1" + PORT, now=network.now, end=LinkEnd.REFUSED)

    assert network.view("n0")["n1"] == "Down"
    assert node.health().status is HealthStatus.DEGRADED
    assert node.health().partition.has_quorum
