"""Two releases of one cluster: who speaks what to whom, and when all speak the newer format."""

from __future__ import annotations

import pytest
from attrs import evolve
from support.mini_network import MiniNetwork

from meshlib.codec import pack, unpack
from meshlib.errors import ConfigError, DecodeError, VersionMismatch
from meshlib.gossip import DIALECTS, FormatChanged
from meshlib.gossip.messages.frames import (
    PREFIX_BYTES,
    FrameHeader,
    FrameWriter,
    decode_frame,
    seal,
)
from meshlib.gossip.messages.kinds import ExchangeEqual, JoinRequest, PingResponse
from meshlib.gossip.speech import Speech
from meshlib.identity import actor_id
from meshlib.limits import FORMAT_NEWEST, FORMATS
from meshlib.membership import MemberRecord, MemberStatus, MemberTable
from meshlib.node import MeshConfig, MeshNode
from meshlib.testing.world.next_format import NEXT_FORMAT, NEXT_FORMATS

HEADER = FrameHeader("mesh", "a", 7, actor_id("a", 7), "a:1")
PEER = "peer:1"
FAR = (NEXT_FORMAT + 1, NEXT_FORMAT + 2)


def record(name: str, formats: tuple[int, int], incarnation: int = 7) -> MemberRecord:
    """Return a member that speaks some formats."""
    return MemberRecord(
        name=name,
        incarnation=incarnation,
        address=f"{name}:1",
        actor=actor_id(name, incarnation),
        formats=formats,
    )


def table(*formats: tuple[int, int]) -> MemberTable:
    """Return a table of members that speak these, called `n0`, `n1` and so on."""
    made = MemberTable()
    for number, each in enumerate(formats):
        made.apply(record(f"n{number}", each), now=0.0)
    return made


def look(speech: Speech, members: MemberTable, *, now: float = 0.0, gone: str = "") -> int | None:
    """Let a ready node look what all speak; an operator may have written one off."""
    return speech.look(
        members, is_ready=True, is_written_off=lambda member: member.name == gone, now=now
    )


def spoken(speech: Speech, message: PingResponse | JoinRequest = PingResponse(1)) -> int:  # noqa: B008
    """Return the format in which a message goes to the peer."""
    return speech.to(PEER, message).version


def frame(version: int, formats: tuple[int, int], *messages: bytes) -> bytes:
    """Return one frame in a format, of a sender that speaks some."""
    writer = FrameWriter(HEADER, bytes_max=10_000, dialect=DIALECTS[version], formats=formats)
    for message in messages or (DIALECTS[version].encode_message(PingResponse(1)),):
        writer.add(message)
    return writer.frames()[0]


# To whom in what


def test_who_was_never_heard_is_spoken_to_in_the_oldest_format() -> None:
    """It may be of the release before, and could read nothing else."""
    speech = Speech(NEXT_FORMATS)
    look(speech, table(NEXT_FORMATS))

    assert [speech.spoken, spoken(speech)] == [NEXT_FORMAT, FORMAT_NEWEST]


def test_one_request_to_join_in_four_is_in_the_newest_format() -> None:
    """Who was never heard may be of the release after, and read nothing older."""
    speech = Speech(NEXT_FORMATS)
    join = JoinRequest(record("a", NEXT_FORMATS))

    assert [spoken(speech, join) for _ in range(4)] == [FORMAT_NEWEST] * 3 + [NEXT_FORMAT]


def test_a_peer_is_spoken_to_in_what_it_reads_once_all_members_speak_it() -> None:
    """Not before, and not beyond."""
    speech = Speech(NEXT_FORMATS)
    speech.hear(PEER, NEXT_FORMATS, is_current=True)
    before = spoken(speech)
    look(speech, table(NEXT_FORMATS, NEXT_FORMATS))
    after = spoken(speech)
    speech.hear(PEER, FORMATS, is_current=True)

    assert [before, after, spoken(speech)] == [FORMAT_NEWEST, NEXT_FORMAT, FORMAT_NEWEST]


def test_a_peer_that_speaks_only_newer_formats_is_spoken_to_in_its_oldest() -> None:
    """Whatever others speak: it reads nothing else."""
    speech = Speech(NEXT_FORMATS)
    speech.hear(PEER, (NEXT_FORMAT, NEXT_FORMAT + 1), is_current=True)

    assert NEXT_FORMAT == spoken(speech)


def test_a_frame_of_another_start_is_believed_only_where_it_says_less() -> None:
    """One that comes late must not have a node spoken to in what it no longer reads."""
    speech = Speech(NEXT_FORMATS)
    look(speech, table(NEXT_FORMATS))
    speech.hear(PEER, FORMATS, is_current=True)
    speech.hear(PEER, NEXT_FORMATS, is_current=False)
    late = spoken(speech)
    speech.hear(PEER, NEXT_FORMATS, is_current=True)
    speech.hear(PEER, FORMATS, is_current=False)

    assert [late, spoken(speech)] == [FORMAT_NEWEST, FORMAT_NEWEST]


def test_a_link_that_broke_makes_a_peer_one_that_was_never_heard() -> None:
    """What begins at its end next may be of an earlier release."""
    speech = Speech(NEXT_FORMATS)
    look(speech, table(NEXT_FORMATS))
    speech.hear(PEER, NEXT_FORMATS, is_current=True)
    speech.doubt(PEER)

    assert FORMAT_NEWEST == spoken(speech)


# What all speak


def test_a_node_that_is_not_ready_speaks_its_oldest_format() -> None:
    """It may not have met those yet that speak no other."""
    speech = Speech(NEXT_FORMATS)
    members = table(NEXT_FORMATS)
    speech.look(members, is_ready=False, is_written_off=lambda _: False, now=0.0)

    assert [FORMAT_NEWEST, FORMAT_NEWEST] == [speech.spoken, look(speech, members)]
    assert NEXT_FORMAT == speech.spoken


def test_one_member_of_the_release_before_holds_up_all_while_it_is_there_or_down() -> None:
    """It comes back as it was, as a rule; who says goodbye or is written off does not."""
    speech = Speech(NEXT_FORMATS)
    members = table(NEXT_FORMATS, FORMATS)
    old = record("n1", FORMATS)
    found = []
    for now, status in enumerate(MemberStatus):
        members.apply(evolve(old, status=status), now=0.0)
        members._check()
        look(speech, members, now=10.0 * now)
        found.append(speech.spoken)

    assert [FORMAT_NEWEST, FORMAT_NEWEST, FORMAT_NEWEST, NEXT_FORMAT] == found


def test_a_down_member_that_is_written_off_or_forgotten_holds_up_nobody() -> None:
    """An operator who says that it does not come back need not wait for the hour."""
    speech, members = Speech(NEXT_FORMATS), table(NEXT_FORMATS, FORMATS)
    members.apply(evolve(record("n1", FORMATS), status=MemberStatus.DOWN), now=0.0)
    look(speech, members)
    held = speech.spoken
    look(speech, members, now=5.0, gone="n1")
    written_off = speech.spoken
    look(speech, members, now=10.0)
    held_again = speech.spoken
    members.forget("n1")
    look(speech, members, now=15.0)

    assert [held, held_again] == [FORMAT_NEWEST] * 2
    assert [written_off, speech.spoken] == [NEXT_FORMAT] * 2


def test_when_an_older_one_joins_all_go_back_and_say_so() -> None:
    """Then what was spoken before is returned, once."""
    speech, members = Speech(NEXT_FORMATS), table(NEXT_FORMATS)
    look(speech, members)
    members.apply(record("old", FORMATS), now=0.0)

    assert [NEXT_FORMAT, None] == [look(speech, members), look(speech, members)]
    assert FORMAT_NEWEST == speech.spoken


def test_a_refused_peer_is_a_problem_for_two_minutes() -> None:
    """Its operator reads the same on the other side."""
    speech = Speech(FORMATS)
    speech.refuse("x:1", FAR, 100.0)

    [problem] = speech.problems(219.0)

    assert f"x:1 speaks formats {FAR[0]} to {FAR[1]} and this node {FORMAT_NEWEST} to" in problem
    assert "it is refused; take one release after the other" in problem
    assert [] == speech.problems(221.0)


# Frames


def test_a_frame_tells_what_its_sender_speaks() -> None:
    """Also one in the older of two formats."""
    assert NEXT_FORMATS == decode_frame(frame(3, NEXT_FORMATS), cluster="mesh").formats


def test_whoever_cannot_read_a_frame_learns_what_its_sender_speaks() -> None:
    """The first bytes are the same in every format."""
    with pytest.raises(VersionMismatch) as caught:
        decode_frame(seal(b"?", FAR[0], FAR), cluster="mesh")

    assert FAR == caught.value.peer_formats


@pytest.mark.parametrize("bit", range(8))
def test_damage_to_what_a_frame_says_of_formats_is_seen(bit: int) -> None:
    """Nobody is told to speak what it does not read by a bit that has changed."""
    data = bytearray(frame(FORMAT_NEWEST, FORMATS))
    data[2] ^= 1 << bit

    with pytest.raises((DecodeError, VersionMismatch)) as caught:
        decode_frame(bytes(data), cluster="mesh")
    assert getattr(caught.value, "peer_formats", None) is None


def test_what_a_sender_that_is_ahead_says_beyond_this_format_is_passed_over_and_counted() -> None:
    """A kind of message, and a field behind those that are known; the rest is read."""
    known = DIALECTS[FORMAT_NEWEST].encode_message(PingResponse(5))
    longer = pack((*unpack(known), "more"))
    data = frame(FORMAT_NEWEST, NEXT_FORMATS, pack((99, 1)), longer, known)
    read = decode_frame(data, cluster="mesh")

    assert ((PingResponse(5), PingResponse(5)), 2) == (read.messages, read.skipped_count)


@pytest.mark.parametrize("message", [pack((99, 1)), pack((2, 5, "more")), pack(("x",)), pack(())])
def test_what_a_neighbour_of_this_release_says_must_be_known(message: bytes) -> None:
    """It knows no more than this node: then it is damage, or an attack."""
    with pytest.raises(DecodeError):
        decode_frame(frame(FORMAT_NEWEST, FORMATS, message), cluster="mesh")


@pytest.mark.parametrize("message", [pack(("x",)), pack(()), pack((2, "x")), pack((2,)), b"\xc1"])
def test_what_is_known_of_a_sender_that_is_ahead_is_checked_as_ever(message: bytes) -> None:
    """To be ahead is no licence."""
    with pytest.raises(DecodeError):
        decode_frame(frame(FORMAT_NEWEST, NEXT_FORMATS, message), cluster="mesh")


def test_the_double_says_in_the_older_format_what_a_node_of_today_says() -> None:
    """All but the range is the same, byte for byte; in the newer one it differs."""
    equal = DIALECTS[FORMAT_NEWEST].encode_message(ExchangeEqual(1))
    today, double = (frame(FORMAT_NEWEST, each, equal) for each in (FORMATS, NEXT_FORMATS))

    assert today[PREFIX_BYTES:] == double[PREFIX_BYTES:]
    assert DIALECTS[NEXT_FORMAT].encode_message(ExchangeEqual(1)) != equal
    with pytest.raises(VersionMismatch):
        decode_frame(frame(NEXT_FORMAT, NEXT_FORMATS), cluster="mesh")


# Whole nodes


def changes(network: MiniNetwork, name: str) -> list[tuple[int, int]]:
    """Return what a node told of formats."""
    return [(e.before, e.spoken) for e in network.events[name] if isinstance(e, FormatChanged)]


def problems(node: MeshNode) -> list[str]:
    """Return what a node's health says of formats: a roll is no problem."""
    return [problem for problem in node.health().problems if "formats" in problem]


def test_a_cluster_that_is_upgraded_one_by_one_switches_with_the_last() -> None:
    """And goes back when one does; what is written in each phase is everywhere."""
    network = MiniNetwork()
    for name in ("n0", "n1", "n2"):
        network.start(name)
    network.run(15.0)
    spoken_by_phase = []
    for phase, (name, formats) in enumerate(
        [("n1", NEXT_FORMATS), ("n2", NEXT_FORMATS), ("n0", NEXT_FORMATS), ("n1", FORMATS)]
    ):
        network.kill(name)
        network.run(0.5)
        network.start(name, seeds=("n0", "n1", "n2"), formats=formats)
        network.run(5.0)
        network.put("n2", f"k{phase}", phase)
        network.run(5.0)
        spoken_by_phase.append({node.format_spoken for node in network.nodes.values()})
        assert {phase} == set(network.values(f"k{phase}"))
        for node in network.nodes.values():
            node._check()

    assert [{FORMAT_NEWEST}, {FORMAT_NEWEST}, {NEXT_FORMAT}, {FORMAT_NEWEST}] == spoken_by_phase
    assert [(FORMAT_NEWEST, NEXT_FORMAT), (NEXT_FORMAT, FORMAT_NEWEST)] == changes(network, "n2")
    assert all("StateDiverged" not in network.kinds(name) for name in network.nodes)
    assert [] == [each for node in network.nodes.values() for each in problems(node)]


def test_nodes_two_releases_apart_refuse_each_other_and_both_say_so() -> None:
    """Neither becomes a member of the other's cluster."""
    network = MiniNetwork()
    network.start("n0", seeds=("n1",), formats=FORMATS)
    network.start("n1", formats=(NEXT_FORMAT, NEXT_FORMAT))
    network.run(30.0)

    for name, other in (("n0", NEXT_FORMAT), ("n1", FORMAT_NEWEST)):
        [problem] = problems(network.nodes[name])
        assert f"speaks formats {other} to {other} and this node" in problem
        assert [name] == list(network.view(name))


def test_two_that_share_no_format_stay_apart_though_a_third_knows_both() -> None:
    """What the third tells of the other is not taken, and is told by name."""
    network = MiniNetwork()
    network.start("n0", formats=NEXT_FORMATS)
    network.start("n1", formats=FORMATS)
    network.start("n2", formats=(NEXT_FORMAT, NEXT_FORMAT))
    network.run(20.0)

    assert "n2" not in network.view("n1")
    assert "n1" not in network.view("n2")
    assert {"n0", "n1", "n2"} == set(network.view("n0"))
    assert any("n2 speaks" in problem for problem in problems(network.nodes["n1"]))


def test_formats_that_nobody_knows_are_no_configuration() -> None:
    """Told at once."""
    for formats in ((1, FORMAT_NEWEST), (FORMAT_NEWEST, 200), (NEXT_FORMAT, FORMAT_NEWEST)):
        with pytest.raises(ConfigError, match="known are"):
            MeshConfig(name="a", formats=formats)
