"""Frames: what is written is read; what is damaged is refused and changes nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.mini_network import MiniNetwork

from meshlib.codec import pack
from meshlib.errors import ClusterMismatch, DecodeError, RemoteError, VersionMismatch
from meshlib.gossip.messages.dialects import decode_message, encode_message
from meshlib.gossip.messages.frames import (
    FORMAT_VERSION,
    PREFIX_BYTES,
    FrameHeader,
    FrameWriter,
    decode_frame,
    seal,
)
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    EntriesMessage,
    ExchangeEqual,
    ExchangeRequest,
    GapRequest,
    IndirectPingFailed,
    IndirectPingRequest,
    JoinRequest,
    JoinResponse,
    MemberNews,
    MemberUpdates,
    PingRequest,
    PingResponse,
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)
from meshlib.gossip.messages.offers import CompactOffer
from meshlib.identity import actor_id
from meshlib.limits import ENTRY_BYTES_MAX, FORMATS, FRAME_BYTES_MAX, HOLES_MAX
from meshlib.membership import MemberRecord, MemberStatus
from meshlib.replication import Hole, LogEntry, ShortEntry

ACTOR = actor_id("node", 7)
RECORD = MemberRecord(
    name="näme",
    incarnation=1 << 62,
    address="h:1",
    actor=actor_id("näme", (1 << 62) - 5),
    region="r",
    version=3,
)
HEADER = FrameHeader("mesh", "node", 7, ACTOR, "127.0.0.1:8000")

MESSAGES = [
    PingRequest(1, "b", RECORD),
    PingResponse(2),
    IndirectPingRequest(3, "b"),
    IndirectPingFailed(4),
    JoinRequest(RECORD),
    JoinResponse((RECORD,)),
    ConflictNotice("a", "h:2", 9),
    MemberUpdates((MemberNews(RECORD, "b"),)),
    EntriesMessage((LogEntry(ACTOR, 1, 2, "app", b"delta"),), True),
    EntriesMessage((ShortEntry(ACTOR, 1, 1, "t", b"rest", 7, (Hole(2, 8, 0, 1),)),)),
    GapRequest(((ACTOR, 3, 4),)),
    ExchangeRequest((1 << 64) - 1, 5, 6),
    ExchangeRequest(1),
    ExchangeEqual(1),
    VectorExchange({ACTOR: 5}, True, False),
    TransferAvailable(),
    TransferRequest(1, CompactOffer({"app": ("lww_map", (0, (1 << 64) - 1))}, (5,)), True),
    TransferPageMessage(1, 2, "app", b"state", {ACTOR: 3}),
    TransferPageMessage(1, 2, "app", b"state", None),
    TransferNext(1, 2),
    VolatileMessage("rate", b"payload"),
]


def frame_of(*messages: Any) -> bytes:
    writer = FrameWriter(HEADER, bytes_max=FRAME_BYTES_MAX)
    for message in messages:
        assert writer.add(encode_message(message))
    (frame,) = writer.frames()
    return frame


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    """Every kind survives the way through its bytes."""
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "content",
    [
        (b"rest", 7),
        (b"rest", 7, 1, 2, 3),
        (b"rest", 7, 5, 8, 0, 1),
        (b"rest", 7, 2, 8, 0, 1, 3, 8, 0, 1),
        (b"rest", 7, 2, 8, 1, 1),
        (b"rest", 7, 2, 8, 0, ENTRY_BYTES_MAX + 1),
        (b"rest", 7, 2, -1, 0, 1),
        (b"rest", -1, 2, 8, 0, 1),
        ("rest", 7, 2, 8, 0, 1),
        (b"rest", 7, *(0, 8, 0, 1) * (HOLES_MAX + 1)),
    ],
)
def test_a_malformed_short_entry_is_refused(content: Any) -> None:
    """No holes, half a hole, one behind the end, an empty or too large one, no hash, too many."""
    with pytest.raises(RemoteError):
        decode_message(pack((9, ((ACTOR, 1, 1, "t", content),), False, False)))


def test_a_frame_is_read_as_it_was_written() -> None:
    """The header and all messages, in order."""
    frame = decode_frame(frame_of(*MESSAGES), cluster="mesh")

    assert frame.header == HEADER
    assert list(frame.messages) == MESSAGES


def test_messages_beyond_the_packet_size_start_another_frame() -> None:
    """The exact size is accounted for: no frame passes the bound."""
    writer = FrameWriter(HEADER, bytes_max=2000)
    for _ in range(100):
        writer.add(encode_message(VolatileMessage("d", b"x" * 100)))
    frames = writer.frames()

    assert max(len(frame) for frame in frames) <= 2000
    assert sum(len(decode_frame(frame, cluster="mesh").messages) for frame in frames) == 100


def test_a_message_that_fits_no_frame_is_refused() -> None:
    """It is not added, and the writer says so."""
    writer = FrameWriter(HEADER, bytes_max=2000)

    assert not writer.add(b"x" * FRAME_BYTES_MAX)
    assert writer.frames() == []


def test_a_flipped_bit_is_seen() -> None:
    """The checksum catches damage anywhere in the body."""
    frame = bytearray(frame_of(PingResponse(1)))
    frame[PREFIX_BYTES + 3] ^= 1

    with pytest.raises(DecodeError, match="checksum"):
        decode_frame(bytes(frame), cluster="mesh")


def test_another_version_and_another_cluster_have_their_own_errors() -> None:
    """So that an operator can tell an upgrade from a mix-up."""
    frame = frame_of(PingResponse(1))
    with pytest.raises(ClusterMismatch):
        decode_frame(frame, cluster="other")
    with pytest.raises(VersionMismatch):
        decode_frame(frame[:2] + b"\x09" + frame[3:], cluster="mesh")


def test_every_status_travels() -> None:
    """All four words of the specification."""
    for status in MemberStatus:
        record = MemberRecord(
            name="a", incarnation=1, address="h:1", actor=actor_id("a", 1), status=status
        )
        assert decode_message(encode_message(JoinRequest(record))) == JoinRequest(record)


@pytest.mark.parametrize("address", ["0.0.0.0:1", "0:1", "[::]:1", "[::ffff:0:0]:1", "*:1", ""])
def test_a_member_that_nobody_can_reach_is_refused(address: str) -> None:
    """Whoever dialled it would reach itself."""
    message = JoinRequest(evolve(RECORD, address=address))

    with pytest.raises(DecodeError, match="no address"):
        decode_message(encode_message(message))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    """Whatever they are, only a `RemoteError` comes of them."""
    with pytest.raises(RemoteError):
        decode_frame(data, cluster="mesh")


@given(st.sampled_from(MESSAGES), st.randoms(use_true_random=False))
def test_damaged_messages_under_a_fitting_checksum_are_refused_or_read(
    message: Any, rng: random.Random
) -> None:
    """An attacker computes the checksum: still nothing but a `RemoteError` may come out."""
    body = bytearray(frame_of(message)[PREFIX_BYTES:])
    for _ in range(rng.randint(1, 4)):
        choice = rng.random()
        at = rng.randrange(len(body))
        if choice < 0.5:
            body[at] = rng.randrange(256)
        elif choice < 0.75:
            del body[at]
        else:
            body.insert(at, rng.randrange(256))
    data = seal(bytes(body), FORMAT_VERSION, FORMATS)
    try:
        decode_frame(data, cluster="mesh")
    except RemoteError:
        return


def test_a_bad_frame_leaves_a_node_as_it_was(trio: MiniNetwork) -> None:
    """Thousands of damaged frames: nothing raises, no table or document changes."""
    node = trio.nodes["n0"]
    node.packets_to_send()
    before = (node.members(), dict(node.replica.version_vector), node.replica.content_digest())
    rng = random.Random(5)
    good = frame_of(*MESSAGES)
    for _ in range(3000):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        node.receive(bytes(data[: rng.randint(0, len(data))]), sender="x", now=trio.now)

    assert (
        node.members(),
        dict(node.replica.version_vector),
        node.replica.content_digest(),
    ) == before
    assert node.packets_to_send() == []
    assert node.counters.frames_rejected == 3000
