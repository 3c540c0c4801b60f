"""Vectors are sent in part while that says it all, and whole when it does not."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.errors import DecodeError
from meshlib.gossip import GossipConfig, decode_frame
from meshlib.gossip.messages.dialects import decode_message, encode_message
from meshlib.gossip.messages.kinds import (
    ExchangeRequest,
    VectorExchange,
)
from meshlib.identity import actor_id

SHORT = GossipConfig(vector_entries_max=2)


@pytest.fixture
def many(network: MiniNetwork) -> MiniNetwork:
    """Return six nodes that have all written, and that name two writers in a vector."""
    for index in range(6):
        network.start(f"n{index}", config=SHORT)
    network.run(2.0)
    for index in range(6):
        network.put(f"n{index}", f"key-{index}", index)
        network.run(0.1)
    network.run(3.0)
    return network


def vectors(network: MiniNetwork) -> list[VectorExchange]:
    """Return a list that fills with the vectors that arrive, acknowledgements left out."""
    seen: list[VectorExchange] = []
    deliver = network._deliver

    def noting(target: str, source: str, data: bytes) -> None:
        messages = decode_frame(data, cluster="mesh").messages
        seen.extend(m for m in messages if isinstance(m, VectorExchange) and not m.is_partial)
        deliver(target, source, data)

    network._deliver = noting
    return seen


def write_unheard(network: MiniNetwork, name: str, keys: list[str]) -> None:
    """Write on a node whose frames all get lost, and that does not push again."""
    others = [other for other in network.nodes if other != name]
    for other in others:
        network.cut(name, other)
    for key in keys:
        network.put(name, key, key)
    network.run(0.01)
    give_up_pushing(network)
    network.cuts.clear()


def give_up_pushing(network: MiniNetwork) -> None:
    """Let exchanges bring what was lost."""
    for node in network.nodes.values():
        for other in network.nodes:
            node._engine._parts.dissemination.forget(other)


def test_a_difference_in_few_writers_is_told_in_few(many: MiniNetwork) -> None:
    """One writer differs: no vector names more than the two that it may."""
    seen = vectors(many)
    write_unheard(many, "n4", ["lost"])
    many.run(3.0)

    assert many.values("lost") == ["lost"] * 6
    assert seen
    assert all(m.rest_hash is not None and len(m.vector) <= 2 for m in seen)


def test_a_difference_in_many_writers_needs_a_whole_vector(many: MiniNetwork) -> None:
    """Four writers differ at a node that was cut off: two would not say it all."""
    seen = vectors(many)
    for other in ("n0", "n1", "n2", "n3", "n4"):
        many.cut_both("n5", other)
    for index in range(5):
        many.put(f"n{index}", f"again-{index}", index)
    many.run(0.01)
    give_up_pushing(many)
    many.cuts.clear()
    many.run(4.0)

    assert [many.values(f"again-{index}") for index in range(5)] == [[i] * 6 for i in range(5)]
    assert any(m.rest_hash is None and len(m.vector) == 6 for m in seen)


def test_a_writer_that_one_side_lacks_is_named_with_nothing(many: MiniNetwork) -> None:
    """A newcomer's first write got lost: who asks it tells that it has 0 of it, and no more."""
    many.start("n6", config=SHORT)
    many.run(3.0)
    write_unheard(many, "n6", ["first"])
    seen = vectors(many)
    many.nodes["n0"]._engine._parts.anti_entropy.begin("n6", many.now)
    many.pump("n0")
    many.run(0.02)

    assert many.content("n0").get("first") == "first"
    assert [m.vector for m in seen[1:]] == [{many.nodes["n6"].actor: 0}]


@pytest.mark.parametrize("wants_reply", [False, True])
def test_only_a_part_that_wants_a_reply_is_asked_to_be_whole(
    many: MiniNetwork, wants_reply: bool
) -> None:
    """An answer that fits no more has been overtaken: the next exchange is soon enough."""
    asked: list[str] = []
    deliver = many._deliver

    def noting(target: str, source: str, data: bytes) -> None:
        messages = decode_frame(data, cluster="mesh").messages
        if any(isinstance(m, ExchangeRequest) and m.wants_whole for m in messages):
            asked.append(f"{source} asks {target}")
        deliver(target, source, data)

    many._deliver = noting
    sender = many.nodes["n0"]
    vector = sender.replica.latest_vector(2)
    part = VectorExchange(vector, wants_reply, rest_hash=sender.replica.rest_hash(vector) ^ 1)
    sender._engine._parts.outbox.send("n1", part)
    many.pump("n0")
    many.run(0.02)

    assert asked == (["n1 asks n0"] if wants_reply else [])


def test_numbers_of_nothing_are_refused_without_a_rest() -> None:
    """In a whole vector a writer without a number does not belong."""
    vector = {actor_id("a", 1): 0}
    allowed = VectorExchange(vector, rest_hash=7)

    assert decode_message(encode_message(allowed)) == allowed
    with pytest.raises(DecodeError):
        decode_message(encode_message(VectorExchange(vector)))
