"""A table of members travels in pages that each fit a frame."""

from __future__ import annotations

from attrs import evolve
from support.mini_network import PORT, MiniNetwork

from meshlib.gossip import GossipConfig, decode_frame
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.kinds import JoinResponse, MemberNews, table_pages
from meshlib.identity import actor_id
from meshlib.limits import FRAME_BYTES_MAX, MEMBERS_MAX
from meshlib.membership import MemberRecord, MemberStatus

SMALL = GossipConfig(packet_bytes_max=1024)


def record(name: str) -> MemberRecord:
    return MemberRecord(name=name, incarnation=1, address=name, actor=actor_id(name, 1))


def test_the_largest_table_fits_frames() -> None:
    """4,096 members with the longest texts: no page is over a frame, and none is left out."""
    members = [
        MemberRecord(
            name=f"{index:0255}",
            incarnation=1,
            address="a" * 255,
            actor=actor_id(str(index), 1),
            region="r" * 255,
            zone="z" * 255,
        )
        for index in range(MEMBERS_MAX)
    ]
    pages = list(table_pages(members, bytes_max=GossipConfig().packet_bytes_max))

    assert [member for page in pages for member in page.members] == members
    assert max(len(encode_message(page)) for page in pages) < FRAME_BYTES_MAX / 2


def test_pages_speak_for_every_name_once() -> None:
    """Also for names that are in no page: before, between and after those that are."""
    members = [record(name) for name in ("b", "d", "f", "h")]
    pages = list(table_pages(members, bytes_max=140))

    assert len(pages) > 1
    for name in "abcdefghi":
        assert sum(page.speaks_of(name) for page in pages) == 1, name


def test_an_empty_table_is_one_page() -> None:
    """Somebody who knows nobody says so."""
    assert list(table_pages([], bytes_max=100)) == [JoinResponse(())]


def test_a_cluster_forms_through_pages(network: MiniNetwork) -> None:
    """Twenty nodes whose table needs several frames know each other all the same."""
    names = [f"node-number-{index:02}" for index in range(20)]
    pages: list[JoinResponse] = []
    deliver = network._deliver

    def noting(target: str, source: str, data: bytes) -> None:
        messages = decode_frame(data, cluster="mesh").messages
        pages.extend(message for message in messages if isinstance(message, JoinResponse))
        deliver(target, source, data)

    network._deliver = noting
    for name in names:
        network.start(name, seeds=(names[0],), config=SMALL)
        network.run(0.2)
    network.run(5.0)

    assert [sorted(network.view(name)) for name in names] == [names] * 20
    assert any(page.until is not None for page in pages)


def test_a_newcomer_spreads_nothing_that_the_others_know(network: MiniNetwork) -> None:
    """It has learnt of the others from one of them."""
    for index in range(14):
        network.start(f"n{index:02}", seeds=("n00",))
        network.run(0.3)
    network.run(5.0)
    newcomer = network.start("zz", seeds=("n00",))
    network.run(0.05)
    spread = newcomer._engine._parts.news._broadcasts

    assert len(newcomer.members()) == 15
    assert set(spread) <= {"zz"}


def test_a_table_whose_last_page_was_lost_does_not_silence_its_sender(
    network: MiniNetwork,
) -> None:
    """What the peer that let a node in tells a while later is news, and is spread."""
    newcomer = network.start("zz", seeds=("nobody",))
    admission, news = newcomer._engine._parts.admission, newcomer._engine._parts.news
    header = evolve(newcomer._engine._parts.beginning.header(), name="n0")
    first = JoinResponse((record("n0"), record("n1")), until="n1")
    for after_s, page in ((0.0, first), (1.0, JoinResponse((record("n2"),), "n1", "n2"))):
        admission.on_join_response(page, header, network.now + after_s)
    spread_of_table = set(news._broadcasts)
    admission.on_join_response(JoinResponse((record("n3"),)), header, network.now + 60.0)

    assert not spread_of_table & {"n0", "n1", "n2"}
    assert "n3" in news._broadcasts


def test_two_islands_learn_of_each_other_through_one_node(network: MiniNetwork) -> None:
    """What a node that knows others learns of a table it does spread."""
    for name in ("a0", "a1", "a2"):
        network.start(name, seeds=("a0",))
    for name in ("b0", "b1", "b2"):
        network.start(name, seeds=("b0",))
    network.run(3.0)
    network.nodes["a1"].join(("b0" + PORT,), now=network.now)
    network.run_until(lambda: {len(network.view(name)) for name in network.nodes} == {6})


def test_nobody_is_down_because_several_say_so_at_once(trio: MiniNetwork) -> None:
    """Two halves that meet both report Down; a member that answers here gets its chance."""
    node = trio.nodes["n0"]
    held = next(m for m in node.members() if m.name == "n2")
    down = evolve(held, status=MemberStatus.DOWN)
    for suspector in ("x", "y"):
        node._engine._parts.roster.apply(MemberNews(down, suspector), trio.now)
    now = trio.view("n0")["n2"]
    trio.pump("n0")
    trio.run(1.0)

    assert now == "Suspected"
    assert "MemberDown" not in trio.kinds("n0")
    assert trio.view("n0")["n2"] == "Alive"
