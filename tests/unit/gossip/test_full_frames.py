"""Frames with more messages than any honest one has: none of them holds the loop."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from attrs import evolve
from support.mini_network import MiniNetwork

from meshlib.codec import pack, unpack
from meshlib.errors import LimitExceeded
from meshlib.gossip.dispatch import without_repeats
from meshlib.gossip.messages import frames
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import (
    FORMAT_VERSION,
    MESSAGES_MAX,
    PREFIX_BYTES,
    FrameHeader,
    FrameWriter,
    decode_frame,
)
from meshlib.gossip.messages.kinds import (
    ExchangeRequest,
    JoinRequest,
    Message,
    PingResponse,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)
from meshlib.gossip.messages.offers import CompactOffer
from meshlib.identity import actor_id
from meshlib.limits import FORMATS, FRAME_BYTES_MAX
from meshlib.membership import MemberRecord
from meshlib.node import MeshNode

ACTOR = actor_id("x", 1)


def frames_of(node: MeshNode, messages: Iterable[Message]) -> list[bytes]:
    """Return the frames in which a node would say something."""
    header = FrameHeader("mesh", node.name, node.node_id.incarnation, node.actor, node.address)
    writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
    for message in messages:
        assert writer.add(encode_message(message))
    return writer.frames()


def test_a_frame_is_closed_once_it_has_as_many_messages_as_may_be(trio: MiniNetwork) -> None:
    """So that nobody refuses what a node has to say."""
    messages = [PingResponse(number) for number in range(2 * MESSAGES_MAX + 1)]
    made = [decode_frame(f, cluster="mesh") for f in frames_of(trio.nodes["n0"], messages)]

    assert [len(frame.messages) for frame in made] == [MESSAGES_MAX, MESSAGES_MAX, 1]
    assert [message for frame in made for message in frame.messages] == messages


def test_a_frame_of_more_messages_is_refused(trio: MiniNetwork) -> None:
    """A frame is handled at one go: 65,536 questions in one held a node for minutes."""
    (frame,) = frames_of(trio.nodes["n0"], [PingResponse(1)])
    *header, _ = unpack(frame[PREFIX_BYTES:])
    body = pack((*header, [encode_message(PingResponse(1))] * (MESSAGES_MAX + 1)))

    with pytest.raises(LimitExceeded):
        decode_frame(frames.seal(body, FORMAT_VERSION, FORMATS), cluster="mesh")


def test_a_state_is_made_once_for_a_frame_that_asks_many_times(trio: MiniNetwork) -> None:
    """The last one is answered: at most one transfer goes out to each peer."""
    node = trio.nodes["n1"]
    before = node.counters.transfers_sent
    asked = [TransferRequest(number, CompactOffer({})) for number in range(MESSAGES_MAX)]
    for frame in frames_of(trio.nodes["n0"], asked):
        node.receive(frame, sender="n0:1", now=trio.now)

    assert node.counters.transfers_sent == before + 1
    session, _, _ = node.diagnostics()["state_transfer"]["outgoing"]["n0"]
    assert session == MESSAGES_MAX - 1


def test_what_is_told_is_kept_and_of_questions_the_last() -> None:
    """Two that ask for different things are two questions."""
    record = MemberRecord(name="a", incarnation=1, address="a:1", actor=ACTOR)
    told: list[Message] = [
        PingResponse(1),
        PingResponse(1),
        VolatileMessage("d", b"1"),
        VectorExchange({ACTOR: 1}, is_partial=True),
        VectorExchange({ACTOR: 2}, is_partial=True),
    ]
    asked: list[Message] = [
        JoinRequest(evolve(record, name="b")),
        JoinRequest(record),
        ExchangeRequest(2, content_digest=5),
        ExchangeRequest(2),
        VectorExchange({ACTOR: 2}, wants_reply=True),
        VectorExchange({ACTOR: 2}),
    ]
    earlier: list[Message] = [
        JoinRequest(evolve(record, version=2)),
        ExchangeRequest(1, content_digest=4),
        ExchangeRequest(1),
        VectorExchange({ACTOR: 1}, wants_reply=True),
        VectorExchange({ACTOR: 1}),
    ]

    kept = without_repeats((*told, *earlier, *asked))

    assert kept == (*told, *asked)
