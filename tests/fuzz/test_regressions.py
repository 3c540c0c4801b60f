"""What damaged frames did once, each by the frame that did it: none of it may come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from support.mini_network import MiniNetwork

from meshlib.crdt import registry
from meshlib.errors import DecodeError, RejectReason, RemoteError
from meshlib.gossip import NameConflict, PacketRejected
from meshlib.gossip.messages.dialects import decode_message, encode_message
from meshlib.gossip.messages.frames import FrameHeader, FrameWriter, decode_frame
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    EntriesMessage,
    JoinRequest,
    MemberNews,
    MemberUpdates,
    PingResponse,
    TransferAvailable,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)
from meshlib.identity import INCARNATION_MAX, actor_id
from meshlib.limits import FRAME_BYTES_MAX, WRITES_MAX
from meshlib.membership import VERSION_MAX, MemberRecord, MemberStatus
from meshlib.replication import LogEntry

ALL_ALIVE = {"n0": "Alive", "n1": "Alive", "n2": "Alive"}


@pytest.fixture
def trio() -> Iterator[MiniNetwork]:
    """Yield a network of three nodes that have met, and check their invariants at the end."""
    network = MiniNetwork()
    for name in ("n0", "n1", "n2"):
        network.start(name)
    network.run(1.0)
    yield network
    for node in network.nodes.values():
        node._check()


def record_of(network: MiniNetwork, name: str) -> MemberRecord:
    """Return a node's own record."""
    return next(m for m in network.nodes[name].members() if m.name == name)


def say(network: MiniNetwork, speaker: str, target: str, *messages: Any) -> None:
    """Give a node a frame of messages in another one's name."""
    own = record_of(network, speaker)
    header = FrameHeader("mesh", own.name, own.incarnation, own.actor, own.address)
    writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
    for message in messages:
        writer.add(encode_message(message))
    for frame in writer.frames():
        network.nodes[target].receive(frame, sender="a connection", now=network.now)
    network.pump(target)


@pytest.mark.parametrize("where", ["n0:1", "n1:1", "nobody:1", "n2:1"])
def test_a_notice_of_a_conflict_ends_nobody(trio: MiniNetwork, where: str) -> None:
    """Whatever address it names, the node's own among them: nobody there has its name."""
    own = record_of(trio, "n1")
    say(trio, "n0", "n1", ConflictNotice("n1", where, own.incarnation))
    trio.run(10.0)

    assert "NameConflict" not in trio.kinds("n1")
    assert trio.view("n0") == trio.view("n1") == ALL_ALIVE
    assert record_of(trio, "n1") == own


def test_a_join_request_of_an_older_start_ends_nobody() -> None:
    """A node that knows nobody asks before it gives way to one that it was told of."""
    network = MiniNetwork()
    node = network.start("n0", seeds=())
    older = evolve(
        record_of(network, "n0"), actor=actor_id("n0", 5), incarnation=5, address="elsewhere:1"
    )
    say(network, "n0", "n0", JoinRequest(older))
    network.run(10.0)

    assert "NameConflict" not in network.kinds("n0")
    assert [m.name for m in node.members()] == ["n0"]


def test_a_second_process_of_a_name_ends_the_newcomer_by_its_answer(trio: MiniNetwork) -> None:
    """The question that a notice leads to is answered by the holder, and by nobody else."""
    trio.start("n2", address="elsewhere")
    trio.run(2.0)

    assert "NameConflict" in trio.kinds("elsewhere")
    assert "NameConflict" not in trio.kinds("n2")


@pytest.mark.parametrize(
    "address",
    [
        "", "host", "host:", ":1", "host:0", "host:65536", "host:01", "host:-1", "host:1:1",
        "h st:1", "host\x00:1", "[::1:1", "::1:1", "[::g]:1", "[1.2.3.4]:1", "1.2.3:1",
        "256.1.1.1:1",
        "-a:1", "a-:1", "a..b:1", "a" * 64 + ":1", "a." * 130 + "b:1", "b\u00fccher:1", "\uff10:1",
        "0.0.0.0:1", "[::]:1", "[::ffff:0:0]:1", "*:1", "host:\u0661", "x" * 513,
    ],
)  # fmt: skip
def test_an_address_that_nobody_can_dial_is_refused(address: str) -> None:
    """Some raised in the resolver, and the rest made members that no one ever reached."""
    own = MemberRecord(name="a", incarnation=7, address=address, actor=actor_id("a", 7))
    for message in (JoinRequest(own), ConflictNotice("a", address, 7)):
        with pytest.raises(RemoteError):
            decode_message(encode_message(message))


@pytest.mark.parametrize(
    "address",
    [
        "router-1:1", "n0:1", "10.0.0.1:7946", "[::1]:65535", "[fe80::1%eth0]:1", "a.b.c.:80",
        "[::ffff:10.0.0.1]:1", "_mesh._tcp.example:1", "mesh-0.mesh.ns.svc.cluster.local:7946",
        "A_b:1", "1a:1", "a" * 63 + ":1",
    ],
)  # fmt: skip
def test_an_address_that_can_be_dialled_is_read(address: str) -> None:
    """Names, and literals of both families."""
    message = JoinRequest(
        MemberRecord(name="a", incarnation=7, address=address, actor=actor_id("a", 7))
    )

    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n3"},
        {"actor": actor_id("n3", 7)},
        {"incarnation": INCARNATION_MAX},
        {"incarnation": 0},
    ],
)
def test_a_record_with_one_part_changed_makes_no_member(trio: MiniNetwork, change: Any) -> None:
    """Its actor names the node and its start: a phantom would stay for hours on every node.

    And an incarnation at the end of all incarnations could never be refuted.
    """
    wrong = evolve(record_of(trio, "n1"), **change)
    say(trio, "n0", "n2", MemberUpdates((MemberNews(wrong, ""),)))
    trio.run(5.0)

    assert [trio.view(name) for name in ("n0", "n1", "n2")] == [ALL_ALIVE] * 3
    (rejected,) = [e for e in trio.events["n2"] if isinstance(e, PacketRejected)]
    assert rejected.reason is RejectReason.MALFORMED


def test_a_version_at_its_end_does_not_silence_a_member(trio: MiniNetwork) -> None:
    """Counting on past the last made records that nobody read."""
    news = MemberNews(evolve(record_of(trio, "n1"), version=VERSION_MAX), "")
    say(trio, "n0", "n2", MemberUpdates((news,)))
    trio.run(5.0)
    suspected = evolve(record_of(trio, "n1"), status=MemberStatus.SUSPECTED)
    say(trio, "n0", "n2", MemberUpdates((MemberNews(suspected, "n0"),)))
    trio.run(5.0)

    assert [trio.view(name) for name in ("n0", "n1", "n2")] == [ALL_ALIVE] * 3
    assert "Refuted" in trio.kinds("n1")


@pytest.mark.parametrize("number", [WRITES_MAX + 1, 1 << 62, (1 << 63) - 1])
def test_a_number_of_no_write_is_refused(number: int) -> None:
    """It would have made the writer's next writes old ones, or looked like a forgotten writer."""
    actor = actor_id("a", 7)
    entry = LogEntry(actor=actor, first=1, last=number, document="app", delta=b"")
    with pytest.raises(DecodeError):
        decode_message(encode_message(EntriesMessage((entry,))))
    if number != 1 << 62:  # that one says in a vector that nothing is left of a forgotten writer
        with pytest.raises(DecodeError):
            decode_message(encode_message(VectorExchange({actor: number})))


@pytest.mark.parametrize(
    "document",
    ["rate_limit:question", "rate_limit:answer", "workers:renewals", "load:in_flight", "load:word"],
)
def test_a_malformed_volatile_message_counts_against_its_connection(
    trio: MiniNetwork, document: str
) -> None:
    """The name of the node that sent it closes nothing."""
    say(trio, "n0", "n1", VolatileMessage(document, b"\xc1"))
    (rejected,) = [e for e in trio.events["n1"] if isinstance(e, PacketRejected)]

    assert ("a connection", RejectReason.MALFORMED) == (rejected.sender, rejected.reason)


def frames_of(network: MiniNetwork, name: str) -> list[Any]:
    """Return the messages that a node has to send, read; they are not delivered."""
    packets = network.nodes[name].packets_to_send()
    return [m for p in packets for m in decode_frame(p.data, cluster="mesh").messages]


def test_a_malformed_page_counts_against_its_connection(trio: MiniNetwork) -> None:
    """A sender writes its pages itself, so one that cannot be read is its own doing."""
    own = record_of(trio, "n0")
    header = FrameHeader("mesh", own.name, own.incarnation, own.actor, own.address, is_ready=True)
    node = trio.nodes["n1"]

    def give(message: Any) -> None:
        writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
        writer.add(encode_message(message))
        for frame in writer.frames():
            node.receive(frame, sender="a connection", now=trio.now)

    give(TransferAvailable())
    (request,) = [m for m in frames_of(trio, "n1") if isinstance(m, TransferRequest)]
    node.events()
    give(TransferPageMessage(request.session, 0, "app", b"\xc1", None))
    (rejected,) = [e for e in node.events() if isinstance(e, PacketRejected)]

    assert ("a connection", RejectReason.MALFORMED) == (rejected.sender, rejected.reason)


@pytest.mark.parametrize(("where", "is_believed"), [("n2:1", False), ("elsewhere:1", True)])
def test_an_answer_from_another_address_ends_nobody(where: str, is_believed: bool) -> None:
    """A node that asks whether another one has its name hears the one that it asked."""
    network = MiniNetwork()
    node = network.start("n0", seeds=())
    own = record_of(network, "n0")
    say(network, "n0", "n0", ConflictNotice("n0", "elsewhere:1", own.incarnation))
    (claim,) = node._engine._parts.claims._claims.values()
    other = own.incarnation + 1
    header = FrameHeader("mesh", "n0", other, actor_id("n0", other), where)
    writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
    writer.add(encode_message(PingResponse(claim.sequence)))
    for frame in writer.frames():
        node.receive(frame, sender="a connection", now=network.now)

    assert any(isinstance(e, NameConflict) for e in node.events()) is is_believed


def test_an_invented_number_of_a_node_loses_nothing_that_it_has(trio: MiniNetwork) -> None:
    """Not even when a second damaged frame comes while it takes a peer's state.

    One frame made n1's write reach far ahead of the last that n1 has made, so it became another
    writer. Meanwhile an entry of n0 came to it under another document's name; then it covered a
    write that it did not hold, which was the proof for all others that it had been removed.
    """
    trio.put("n0", "kept", 1)
    trio.run(1.0)
    actors = {name: node.actor for name, node in trio.nodes.items()}
    numbers = dict(trio.nodes["n1"].replica.version_vector)
    held: Any = trio.nodes["n0"].replica.get("app")
    delta = registry.encode(held)
    entry = LogEntry(actor=actors["n0"], first=1, last=1, document="app", delta=delta)
    ahead = numbers.get(actors["n1"], 0)
    invented = evolve(entry, actor=actors["n1"], first=ahead + 1, last=65_536)
    say(trio, "n0", "n1", EntriesMessage((invented,)))
    assert trio.nodes["n1"].replica.is_rejoining
    say(trio, "n0", "n1", EntriesMessage((evolve(entry, document="elsewhere"),)))
    trio.run(10.0)

    assert trio.nodes["n1"].actor != actors["n1"]
    assert trio.values("kept") == [1, 1, 1]


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_peer_is_not_believed_what_a_third_node_has_written(
    trio: MiniNetwork, is_partial: bool
) -> None:
    """A vector tells what its sender has: a number far ahead makes nobody skip what comes."""
    trio.put("n1", "first", 1)
    trio.run(1.0)
    writer = trio.nodes["n1"].actor
    say(trio, "n0", "n2", VectorExchange({writer: 65_536}, is_partial=is_partial))
    trio.put("n1", "second", 2)
    trio.run(5.0)

    assert trio.values("second") == [2, 2, 2]
    assert [n.replica.version_vector[writer] for n in trio.nodes.values()] == [2, 2, 2]
    assert trio.nodes["n1"].actor == writer


def test_writes_that_an_invented_entry_hides_come_under_another_writer(trio: MiniNetwork) -> None:
    """A peer that believes the entry takes the next writes for old ones, until the writer hears."""
    trio.put("n1", "first", 1)
    trio.run(1.0)
    writer = trio.nodes["n1"].actor
    delta = registry.encode(trio.nodes["n1"].replica.get("app"))
    invented = LogEntry(actor=writer, first=2, last=65_536, document="app", delta=delta)
    trio.cut_both("n1", "n2")
    trio.cut_both("n1", "n0")
    say(trio, "n0", "n2", EntriesMessage((invented,)))
    trio.put("n1", "second", 2)
    trio.run(0.2)
    trio.cuts.clear()
    trio.run(10.0)

    assert trio.nodes["n1"].actor != writer
    assert trio.values("second") == [2, 2, 2]
