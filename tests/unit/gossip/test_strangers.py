"""Frames of nodes that are no members: nothing is kept of them."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import FrameHeader, FrameWriter
from meshlib.gossip.messages.kinds import (
    Message,
    TransferAvailable,
    TransferRequest,
    VectorExchange,
)
from meshlib.gossip.messages.offers import CompactOffer
from meshlib.identity import actor_id
from meshlib.limits import FRAME_BYTES_MAX
from meshlib.node import MeshNode

STRANGER = FrameHeader("mesh", "stranger", 5, actor_id("stranger", 5), "stranger:1")


@pytest.fixture
def node() -> MeshNode:
    """Return a node of two."""
    network = MiniNetwork()
    network.start("n0")
    network.start("n1")
    network.run(2.0)
    return network.nodes["n0"]


def hear(node: MeshNode, *messages: Message) -> None:
    """Let a node hear messages of somebody it has never met, or has forgotten."""
    writer = FrameWriter(STRANGER, bytes_max=FRAME_BYTES_MAX)
    for message in messages:
        assert writer.add(encode_message(message))
    for frame in writer.frames():
        node.receive(frame, sender="stranger:1", now=node._time.latest_s)


def test_a_stranger_holds_up_no_state_transfer(node: MeshNode) -> None:
    """It cannot be asked, and a transfer that nobody answers would keep out those who can."""
    hear(node, TransferAvailable())

    assert node.diagnostics()["state_transfer"]["incoming"] is None
    node._check()


def test_a_stranger_is_sent_no_state(node: MeshNode) -> None:
    """A transfer is kept by its receiver's name, and nobody but a member is ever forgotten."""
    before = node.counters.transfers_sent
    hear(node, TransferRequest(7, CompactOffer({})))

    assert dict(node.diagnostics()["state_transfer"]["outgoing"]) == {}
    assert node.counters.transfers_sent == before
    node._check()


@pytest.mark.parametrize("wants_reply", [True, False])
def test_a_strangers_vector_is_answered_and_not_kept(node: MeshNode, wants_reply: bool) -> None:
    """Names that anybody can make up would fill memory, for members alone are ever forgotten."""
    hear(node, VectorExchange({actor_id("x", 1): 3}, wants_reply=wants_reply))
    hear(node, VectorExchange({node.actor: 0}, is_partial=True))
    hear(node, VectorExchange(dict(node.replica.version_vector), wants_reply=wants_reply))

    shown = node.diagnostics()
    assert "stranger" not in shown["stability"]["peers"]
    assert "stranger" not in shown["anti_entropy"]["compared"]
    assert "stranger" not in shown["anti_entropy"]["told"]
    node._check()
