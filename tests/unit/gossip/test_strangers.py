"""Frames of nodes that are no members: nothing is kept of them."""

from __future__ import annotations

import pytest
from attrs import evolve
from support.mini_network import MiniNetwork

from meshlib.gossip.members.dialler import GREETED_MAX, GREETED_S
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import FrameHeader, FrameWriter, decode_frame
from meshlib.gossip.messages.kinds import (
    JoinRequest,
    Message,
    PingResponse,
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


def hear(node: MeshNode, *messages: Message, header: FrameHeader = STRANGER) -> None:
    """Let a node hear messages of somebody it has never met, or has forgotten."""
    writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
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


def asked(node: MeshNode) -> list[str]:
    """Return whom a node asks to be let in, now."""
    return [
        packet.destination
        for packet in node.packets_to_send()
        if any(
            isinstance(message, JoinRequest)
            for message in decode_frame(packet.data, cluster="mesh").messages
        )
    ]


def newcomer() -> tuple[MiniNetwork, MeshNode]:
    """Return a node that has met another newcomer alone, and waits for somebody ready."""
    network = MiniNetwork()
    for name in ("n0", "n1"):
        network.start(name, seeds=("n0", "n1", "n2"))
    network.run(0.1)
    node = network.nodes["n0"]
    node.packets_to_send()
    assert len(node.members()) == 2
    assert not node.is_ready
    return network, node


def test_a_newcomer_asks_a_stranger_that_is_ready() -> None:
    """That one knew an earlier start of it, has the state, and is no seed: all seeds restarted."""
    _, node = newcomer()
    hear(node, PingResponse(1), header=evolve(STRANGER, is_ready=True))
    assert asked(node) == ["stranger:1"]
    hear(node, PingResponse(2), header=evolve(STRANGER, is_ready=True))
    assert asked(node) == []
    node._check()


def test_it_asks_again_after_a_while_and_remembers_few() -> None:
    """What it asked may be lost; and names and addresses can be made up."""
    network, node = newcomer()
    for index in range(3 * GREETED_MAX):
        actor = actor_id(f"s{index}", 5)
        header = FrameHeader("mesh", f"s{index}", 5, actor, f"s{index}:1", is_ready=True)
        hear(node, PingResponse(1), header=header)
    node._check()
    network.run(GREETED_S + 0.1)
    node.packets_to_send()
    hear(node, PingResponse(2), header=header)
    assert asked(node) == [f"s{3 * GREETED_MAX - 1}:1"]


def test_who_is_ready_asks_no_stranger_and_a_newcomer_none_that_is_not(node: MeshNode) -> None:
    """One has what there is, and the other is no help."""
    hear(node, PingResponse(1), header=evolve(STRANGER, is_ready=True))
    assert asked(node) == []
    _, waiting = newcomer()
    hear(waiting, PingResponse(1))
    assert asked(waiting) == []
