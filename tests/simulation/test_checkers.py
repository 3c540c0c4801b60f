"""Every checker catches what it is there for: a violation is planted, and it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from support.mutations import MUTATIONS

from meshlib.codec import pack
from meshlib.crdt import GCounter, LWWEntry, ORSet, PrefixCacheState
from meshlib.gossip import Packet
from meshlib.gossip.messages.frames import PREFIX_BYTES
from meshlib.identity import NodeId, actor_id
from meshlib.limits import EVENTS_QUEUED_MAX, FRAME_BYTES_MAX
from meshlib.membership import MemberStatus
from meshlib.node import MeshNode
from meshlib.replication import Replica
from meshlib.testing import Outcome, Simulation, scripted_scenario
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.other_writes import TAGS, VISITS, OtherWrites
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.nodes import configured_file

Patch = Callable[[object, str, Any], None]


def busy_scenario(duration_s: float = 8.0) -> Any:
    """Return a small cluster that writes much and loses nothing."""
    return scripted_scenario(seed=1, node_count=3, duration_s=duration_s, writes_per_s=30)


@pytest.fixture
def host() -> Host:
    """A machine in the middle of a run, just looked at."""
    simulation = Simulation(busy_scenario())
    simulation._begin()
    simulation.advance(7.0)
    host = simulation.running()[0]
    host.watch.check_structures()
    host.watch.after_event([])
    return host


def found(look: Callable[[], None]) -> str:
    """Return the rule that a look at a node finds broken."""
    with pytest.raises(Broken) as caught:
        look()
    return caught.value.rule


def after_event(host: Host) -> str:
    """Return the rule that is found broken after an event."""
    return found(lambda: host.watch.after_event([]))


def patch_vector(patch: Patch, change: Callable[[Replica, dict[Any, int]], dict[Any, int]]) -> None:
    """Let nodes show another vector."""
    vector: Any = Replica.version_vector
    patch(Replica, "version_vector", property(lambda self: change(self, dict(vector.fget(self)))))
    patch(Replica, "vector_hash", lambda _self: 1)


def patch_members(patch: Patch, host: Host, **changes: Any) -> None:
    """Let a node show another record of another node, or none with `is_absent`."""
    members = host.node.members()
    other = next(member for member in members if member.name != host.name)
    shown = [member for member in members if member is not other]
    if not changes.get("is_absent"):
        shown.append(evolve(other, **changes))
    patch(MeshNode, "members", lambda _self: tuple(shown))
    patch(MeshNode, "members_revision", property(lambda _self: object()))


# Numbers that only grow


def test_an_own_number_that_goes_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that forgets its own writes would number others the same."""
    patch_vector(monkeypatch.setattr, lambda replica, vector: {**vector, replica.actor: 0})

    assert after_event(host) == "vector"


def test_a_vector_that_goes_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a node has absorbed of another it has."""
    patch_vector(
        monkeypatch.setattr,
        lambda replica, vector: {
            actor: number if actor == replica.actor else 1 for actor, number in vector.items()
        },
    )

    assert after_event(host) == "vector"


def test_a_writer_that_changes_in_silence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new identity comes with an event."""
    monkeypatch.setattr(Replica, "actor", property(lambda _self: actor_id("other", 1)))
    monkeypatch.setattr(Replica, "vector_hash", lambda _self: 1)

    assert after_event(host) == "identity"


def test_an_own_incarnation_that_goes_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old refutation would count again."""
    patch_members(monkeypatch.setattr, host)
    monkeypatch.setattr(MeshNode, "node_id", property(lambda _self: NodeId(host.name, 0)))

    assert after_event(host) == "incarnation"


@pytest.mark.parametrize("change", [{"incarnation": 0}, {"version": -1}], ids=str)
def test_a_member_that_goes_back(
    host: Host, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of a member only grows."""
    patch_members(monkeypatch.setattr, host, **change)

    assert after_event(host) == "membership"


def test_a_node_that_takes_itself_for_dead(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs, so it is Alive."""
    own = next(member for member in host.node.members() if member.name == host.name)
    monkeypatch.setattr(MeshNode, "members", lambda _self: (evolve(own, status=MemberStatus.DOWN),))
    monkeypatch.setattr(MeshNode, "members_revision", property(lambda _self: object()))

    assert after_event(host) == "membership"


def test_a_ghost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An incarnation that was declared Down stays so, even once it was forgotten."""
    with monkeypatch.context() as down:
        patch_members(down.setattr, host, status=MemberStatus.DOWN)
        host.watch.after_event([])
    with monkeypatch.context() as forgotten:
        patch_members(forgotten.setattr, host, is_absent=True)
        host.watch.after_event([])
    patch_members(monkeypatch.setattr, host, status=MemberStatus.ALIVE)

    assert after_event(host) == "ghost"


# What maps show


def patch_entry(host: Host, patch: Patch, change: Callable[[LWWEntry], LWWEntry | None]) -> None:
    """Let a node show another entry of one key; None for none."""
    map_entries = inside.map_entries
    own = map_entries(host.node.replica.get("app"))
    key = next(key for key, entry in own.items() if entry.payload is not None)

    def shown(state: Any) -> dict[Any, Any]:
        entries = dict(map_entries(state))
        if state is host.node.replica.get("app"):
            entry = change(entries.pop(key))
            if entry is not None:
                entries[key] = entry
        return entries

    patch(inside, "map_entries", shown)
    host.watch._digests.clear()


def older(entry: LWWEntry) -> LWWEntry:
    """Return an entry of an hour before."""
    return entry._replace(wall_ms=entry.wall_ms - 3_600_000)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("growth", older),
        ("vanished", lambda _entry: None),
        ("made up", lambda entry: entry._replace(payload=b"?")),
        ("version", lambda entry: entry._replace(changes=())),
    ],
)
def test_an_entry_that_changes_by_itself(
    host: Host,
    rule: str,
    change: Callable[[LWWEntry], LWWEntry | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stamps and versions grow, only a removal takes away, and every value has a writer."""
    patch_entry(host, monkeypatch.setattr, change)

    assert after_event(host) == rule


def test_equal_vectors_with_other_content() -> None:
    """Rule R1."""
    contents = Simulation(busy_scenario()).contents
    contents.compare(7, 1, "n0")

    assert found(lambda: contents.compare(7, 2, "n1")) == "R1"


# What the other documents show


@pytest.mark.parametrize("document", [VISITS, TAGS, "tree:llama"])
def test_a_document_that_shrinks(
    host: Host, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter, a set, a tree: each state is at least every earlier one."""
    get = Replica.get
    empty = type(host.node.replica.get(document))()
    monkeypatch.setattr(
        Replica, "get", lambda self, name: empty if name == document else get(self, name)
    )

    assert found(host.watch.check_structures) == "growth"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("knows_text", lambda *_: False),
        ("knows_element", lambda *_: False),
        ("increment_count", property(lambda _self: 0)),
    ],
)
def test_content_that_nobody_wrote(
    host: Host, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached text, an element, a count: each has somebody who wrote it."""
    monkeypatch.setattr(OtherWrites, name, value)

    assert found(host.watch.check_structures) == "made up"


# Limits


@pytest.mark.parametrize("size", ["log_bytes", "gap_bytes", "timer_count"])
def test_a_queue_over_its_limit(host: Host, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any event, and not only when one of them says so."""
    monkeypatch.setattr(inside, size, lambda _node: 1 << 40)

    assert after_event(host) == "queue"


def test_more_events_than_a_node_may_queue(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drained after each thing that happens."""
    monkeypatch.setattr(MeshNode, "events", lambda _self: [None] * (EVENTS_QUEUED_MAX + 1))

    assert broken_by_running().rule == "queue"


def frame(message_count: int, size: int) -> bytes:
    """Return a frame of some messages of a size."""
    content: bytes = pack(("", "", 0, b"", "", [bytes(size)] * message_count))
    return bytes(PREFIX_BYTES) + content


def test_a_packet_over_a_frame(host: Host) -> None:
    """No transport would carry it."""
    packet = Packet("10.0.0.1:1", bytes(FRAME_BYTES_MAX + 1))

    assert found(lambda: host.watch.after_event([packet])) == "packet size"


def test_a_packet_that_should_have_been_two(host: Host) -> None:
    """Over the size of the settings a packet holds one message that is larger itself."""
    limit = inside.packet_bytes_max(host.node)
    host.watch.after_event([Packet("10.0.0.1:1", frame(1, limit))])
    packet = Packet("10.0.0.1:1", frame(2, limit))

    assert found(lambda: host.watch.after_event([packet])) == "packet size"


def test_a_storm_of_packets(host: Host) -> None:
    """One event does not make thousands of them in a cluster of three."""
    packets = [Packet("10.0.0.1:1", b"")] * 5_000

    assert found(lambda: host.watch.after_event(packets)) == "packet storm"


def test_a_timer_that_is_due_again_at_once(host: Host) -> None:
    """A driver would spin."""
    assert found(lambda: host.watch.after_timer(1.0, 5.0, 5.0)) == "timer"


def test_a_storm_of_timers(host: Host) -> None:
    """Hundreds of wakes a second are no protocol."""

    def wake() -> None:
        for _ in range(500):
            host.watch.after_timer(1.0, 5.1, 5.0)

    assert found(wake) == "timer storm"


def test_a_structure_that_finds_itself_broken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its `_check()` raises."""

    def check(_self: object) -> None:
        raise AssertionError("a count is wrong")

    monkeypatch.setattr(Replica, "_check", check)

    assert found(host.watch.check_structures) == "_check"


# Whole runs


def run() -> Outcome:
    """Make a whole run with what was planted."""
    return Simulation(busy_scenario()).run()


def broken_by_running() -> Any:
    """Return what a whole run finds."""
    failure = run().failure
    assert failure is not None
    return failure


def test_without_a_plant_the_run_is_clean() -> None:
    """The tests around this one find what they plant and nothing else."""
    assert run().failure is None


def test_a_node_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback is the finding."""

    def receive(_self: MeshNode, _data: bytes, **_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(MeshNode, "receive", receive)
    failure = broken_by_running()

    assert failure.rule == "exception"
    assert "ZeroDivisionError" in failure.detail


def acknowledge_and_drop(patch: Patch, document: str, bottom: Callable[[], Any]) -> None:
    """Let writes to a document be acknowledged and not made."""
    write = Replica.write

    def broken(self: Replica, name: str, mutate: Any) -> Any:
        if name != document:
            return write(self, name, mutate)

        def nothing(state: Any, context: Any) -> Any:
            mutate(state, context)
            return bottom()

        return write(self, name, nothing)

    patch(Replica, "write", broken)


@pytest.mark.parametrize(("document", "bottom"), [(VISITS, GCounter), (TAGS, ORSet)])
def test_an_acknowledged_write_that_is_dropped(
    document: str, bottom: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a surviving node acknowledged is there in the end."""
    acknowledge_and_drop(monkeypatch.setattr, document, bottom)

    assert broken_by_running().rule == "lost write"


def test_a_cached_text_that_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the prefix trees."""
    monkeypatch.setattr(PrefixCacheState, "insert_here", lambda self, *_, **__: type(self)())

    assert broken_by_running().rule == "lost write"


def test_an_element_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is acknowledged and not made leaves what must be gone."""
    remove = ORSet.remove

    def forgetful(self: Any, element: Any) -> Any:
        delta = remove(self, element)
        removed.append(delta.context.copy())
        return type(delta)()

    removed: list[Any] = []
    note = OtherWrites.note_removal
    monkeypatch.setattr(ORSet, "remove", forgetful)
    monkeypatch.setattr(
        OtherWrites, "note_removal", lambda self, _, receipt: note(self, removed[-1], receipt)
    )

    assert broken_by_running().rule == "growth"


def test_removals_that_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory comes back to where it was."""
    monkeypatch.setattr(Replica, "collect_tombstones", lambda *_, **__: 0)
    # A node that is younger than nine seconds need not forget: none is, once all is calm.
    scenario = busy_scenario(12.0)
    tuning = evolve(scenario.tuning, forget_after_s=4.0)
    failure = Simulation(evolve(scenario, tuning=tuning)).run().failure

    assert failure is not None
    assert (failure.rule, "tombstones" in failure.detail) == ("memory", True)


def test_a_log_that_is_never_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise what every member has."""
    monkeypatch.setattr(Replica, "trim", lambda *_, **__: 0)
    failure = broken_by_running()

    assert (failure.rule, "bytes of log" in failure.detail) == ("memory", True)


@pytest.fixture
def chatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every node send a kilobyte to nobody with everything it does."""
    packets_to_send = MeshNode.packets_to_send
    monkeypatch.setattr(
        MeshNode,
        "packets_to_send",
        lambda self: [*packets_to_send(self), Packet("10.9.9.9:1", bytes(1_000))],
    )


@pytest.mark.usefixtures("chatter")
def test_traffic_that_does_not_come_to_rest() -> None:
    """A cluster with nothing to tell is nearly silent."""
    failure = broken_by_running()

    assert (failure.rule, "bytes a second" in failure.detail) == ("rest", True)


def test_a_message_that_no_frame_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was dropped: in a small cluster nothing may be."""
    simulation = Simulation(busy_scenario())
    begin = simulation.calm.begin

    def tampered() -> None:
        begin()
        simulation.running()[0].node.counters.messages_unsendable += 1

    monkeypatch.setattr(simulation.calm, "begin", tampered)
    failure = simulation.run().failure

    assert failure is not None
    assert (failure.rule, "unsendable" in failure.detail) == ("queue", True)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("decide_too_soon", "early decision"),
        ("route_too_soon", "early decision"),
        ("let_files_win", "file and operator"),
    ],
)
def test_a_decision_that_may_not_be_is_found(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a node is ready, and by a file in the place of an operator; a sound node passes."""
    scenario = evolve(busy_scenario(), seed=seed_with_files())
    sound = Simulation(scenario).run()
    mutation = next(mutation for mutation in MUTATIONS if mutation.name == name)
    mutation.apply(monkeypatch.setattr)
    broken = Simulation(scenario).run()

    assert sound.failure is None
    assert sound.sometimes["operator_beat_a_file"] > 0
    assert sound.sometimes["refused_before_ready"] > 0
    assert broken.failure is not None
    assert rule == broken.failure.rule


def seed_with_files() -> int:
    """Return a seed whose machines have files."""
    host = Host("n0", "n0", "10.0.0.0:7946", origin_s=0.0, rate=1.0, index=0)
    for seed in range(100):
        if configured_file(host, evolve(busy_scenario(), seed=seed)):
            return seed
    raise AssertionError("no file in a hundred seeds")
