"""What waits for each destination, and the frames that it becomes."""

from __future__ import annotations

from support.mini_network import MiniNetwork

from meshlib.gossip.events import MessageUnsendable
from meshlib.gossip.messages.frames import decode_frame
from meshlib.gossip.messages.kinds import Message, PingResponse, VolatileMessage
from meshlib.limits import FRAME_BYTES_MAX
from meshlib.node import MeshNode


def sent(node: MeshNode) -> dict[str, list[Message]]:
    """Return what a node sends now, by destination."""
    said: dict[str, list[Message]] = {}
    for packet in node.packets_to_send():
        frame = decode_frame(packet.data, cluster="mesh")
        said.setdefault(packet.destination, []).extend(frame.messages)
    return said


def test_each_hears_what_waits_for_it(trio: MiniNetwork) -> None:
    """Alike for some, more for one between them, and something else for the last."""
    node = trio.nodes["n0"]
    outbox = node._engine._parts.outbox
    node.packets_to_send()
    first, second, third = PingResponse(1), PingResponse(2), PingResponse(3)
    outbox.send_to_all(["a:1", "b:1", "c:1", "d:1"], first)
    outbox.send("c:1", second)
    outbox.send("e:1", third)

    assert sent(node) == {
        "a:1": [first], "b:1": [first], "c:1": [first, second], "d:1": [first], "e:1": [third]
    }  # fmt: skip


def test_what_fits_no_frame_is_told_for_each_who_misses_it(trio: MiniNetwork) -> None:
    """Of three that are to hear the same, what was too large is missed by three."""
    node = trio.nodes["n0"]
    node.packets_to_send()
    node.events()
    small, large = PingResponse(1), VolatileMessage("d", b"x" * FRAME_BYTES_MAX)
    for message in (large, small):
        node._engine._parts.outbox.send_to_all(["a:1", "b:1", "c:1"], message)

    assert sent(node) == {"a:1": [small], "b:1": [small], "c:1": [small]}
    missed = [event for event in node.events() if isinstance(event, MessageUnsendable)]
    assert [event.destination for event in missed] == ["a:1", "b:1", "c:1"]
