"""Offers of a state transfer: they fit a frame, and leave nothing out that differs."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.gossip import MessageUnsendable
from meshlib.gossip.messages.dialects import encode_message
from meshlib.gossip.messages.frames import FrameHeader, FrameWriter
from meshlib.gossip.messages.kinds import TransferRequest, VolatileMessage
from meshlib.gossip.messages.offers import GROUPS, compact, expand
from meshlib.identity import actor_id
from meshlib.limits import DOCUMENTS_MAX, FRAME_BYTES_MAX
from meshlib.replication import ReplicationConfig

HEADER = FrameHeader("mesh", "node", 7, actor_id("node", 7), "127.0.0.1:8000")


def digests_of(count: int, *, buckets: int = 256, name: str = "tree:model-{}") -> dict[str, Any]:
    rng = random.Random(count)
    return {
        name.format(number): (
            "record:tree",
            tuple(rng.getrandbits(64) for _ in range(buckets)),
        )
        for number in range(count)
    }


def changed(digests: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return digests of which one bucket of each of these documents is another."""
    return {
        name: (tag, (own[0] ^ 1, *own[1:]) if name in names else own)
        for name, (tag, own) in digests.items()
    }


def missing(ours: dict[str, Any], theirs: Any) -> set[str]:
    """Return the documents of which a peer with this offer is sent something."""
    return {name for name, digests in ours.items() if theirs.get(name) != digests}


@pytest.mark.parametrize("buckets_bytes_max", [0, 2048 * 10, 2048 * 100])
@pytest.mark.parametrize("names_bytes_max", [0, 1000, 1 << 20])
def test_what_differs_is_sent_whatever_fits_the_offer(
    buckets_bytes_max: int, names_bytes_max: int
) -> None:
    """Also a document that the peer has not."""
    theirs = digests_of(100)
    ours = changed(theirs, ["tree:model-0", "tree:model-31", "tree:model-99"])
    ours["new"] = ours["tree:model-5"]
    offer = compact(theirs, names_bytes_max=names_bytes_max, buckets_bytes_max=buckets_bytes_max)
    expected = {"tree:model-0", "tree:model-31", "tree:model-99", "new"}

    assert expected <= missing(ours, expand(offer, ours))


@pytest.mark.parametrize("names_bytes_max", [0, 1000, 1 << 20])
def test_what_is_equal_is_not_sent(names_bytes_max: int) -> None:
    """A document is found equal by its buckets, its root or its group."""
    digests = digests_of(100)
    offer = compact(digests, names_bytes_max=names_bytes_max, buckets_bytes_max=20_000)

    assert set() == missing(digests, expand(offer, digests))


def test_of_a_document_with_a_root_alone_everything_is_sent_when_it_differs() -> None:
    """Nothing is known of its buckets."""
    theirs = digests_of(3)
    ours = changed(theirs, ["tree:model-1"])
    expanded = expand(compact(theirs, buckets_bytes_max=0), ours)

    assert ("record:tree", ()) == expanded["tree:model-1"]


def test_buckets_are_given_for_the_fullest_documents() -> None:
    """They cost most to send whole."""
    digests = {**digests_of(3), "aaa": ("record:tree", (0,) * 256)}
    offer = compact(digests, buckets_bytes_max=3 * 2048)

    assert [1, 256, 256, 256] == [len(own) for _, own in offer.documents.values()]


def test_documents_of_one_digest_are_compared_by_it() -> None:
    """Their types have no buckets."""
    theirs = digests_of(5, buckets=1)
    ours = changed(theirs, ["tree:model-2"])

    assert {"tree:model-2"} == missing(ours, expand(compact(theirs), ours))


def test_another_type_of_document_is_told() -> None:
    """The sender answers it in its own way."""
    theirs = {"app": ("lww_map", (1, 2))}
    expanded = expand(compact(theirs, buckets_bytes_max=0), {"app": ("or_set", (1, 2))})

    assert "lww_map" == expanded["app"][0]


@pytest.mark.parametrize("name", ["d{}", "tree:" + "x" * 1000 + "{}"])
def test_the_largest_offer_fits_a_frame(name: str) -> None:
    """As many documents as there may be, of short and of long names."""
    digests = digests_of(DOCUMENTS_MAX, buckets=2, name=name)
    for count in (1, 256):
        same = dict.fromkeys(digests, ("record:tree", tuple(range(count))))
        message = encode_message(TransferRequest(1, compact(same)))

        assert FrameWriter(HEADER, bytes_max=FRAME_BYTES_MAX).add(message)


def test_groups_are_named_only_when_documents_are_left_out() -> None:
    """A small offer needs none."""
    assert () == compact(digests_of(10)).groups
    assert GROUPS == len(compact(digests_of(10), names_bytes_max=100).groups)


@pytest.mark.parametrize("count", [700, 2000])
def test_nodes_with_many_documents_converge_by_a_transfer(network: MiniNetwork, count: int) -> None:
    """Their whole offer would not fit a frame, and the log does not reach back."""
    config = ReplicationConfig(log_bytes_max=1024)
    for name in ("n0", "n1"):
        network.start(name, replication=config)
    network.run(1.0)
    nodes = [network.nodes["n0"], network.nodes["n1"]]

    def put(node: Any, numbers: range, value: str) -> None:
        for number in numbers:
            node.replica.open(f"d{number}", type_tag="lww_map")
            node.replica.write(
                f"d{number}",
                lambda state, c: state.set("key", value, stamp=c.stamp(), sequence=c.sequence),
            )
            if number % 100 == 0:
                network.pump(node.name)
        network.pump(node.name)

    put(nodes[0], range(count), "first")
    network.run_until(
        lambda: nodes[0].replica.vector_hash() == nodes[1].replica.vector_hash(), limit_s=60.0
    )
    network.cut_both("n0", "n1")
    put(nodes[0], range(0, count, 2), "left")
    put(nodes[1], range(1, count, 5), "right")
    network.run(0.5)
    before = [node.counters.transfers_received for node in nodes]
    network.cuts.clear()
    network.run_until(
        lambda: nodes[0].replica.vector_hash() == nodes[1].replica.vector_hash(), limit_s=60.0
    )

    assert nodes[0].replica.content_digest() == nodes[1].replica.content_digest()
    assert before != [node.counters.transfers_received for node in nodes]
    assert [0, 0] == [node.counters.messages_unsendable for node in nodes]


def test_a_message_that_fits_no_frame_is_counted_and_told(trio: MiniNetwork) -> None:
    """And the driver hears for whom it was."""
    node = trio.nodes["n0"]
    payload = b"x" * FRAME_BYTES_MAX
    node._engine.send_volatile("n1", "document", payload)
    trio.pump("n0")
    size = len(encode_message(VolatileMessage("document", payload)))

    assert 1 == node.counters.messages_unsendable
    assert MessageUnsendable(destination="n1:1", size=size) in trio.events["n0"]
