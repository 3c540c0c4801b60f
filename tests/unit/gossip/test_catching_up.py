"""What a peer lacks comes from the log batch by batch, or from a state page by page."""

from __future__ import annotations

import random
from typing import Any

from support.mini_network import MiniNetwork

from meshlib.gossip import GossipConfig, decode_frame
from meshlib.gossip.messages.kinds import EntriesMessage, TransferRequest, VectorExchange
from meshlib.replication import ReplicationConfig


class AlwaysHalf(random.Random):
    """Chance that lets every frame take the same time."""

    def random(self) -> float:
        return 0.5


QUIET = GossipConfig(exchange_interval_s=1000.0)
"""No exchange begins by itself."""


def messages_of(network: MiniNetwork, source: str, kind: type) -> list[Any]:
    """Return a list that fills with the messages of a kind that a node sends, lost ones too."""
    seen: list[Any] = []
    deliver = network._deliver

    def noting(target: str, sender: str, data: bytes) -> None:
        if sender == source:
            messages = decode_frame(data, cluster="mesh").messages
            seen.extend(message for message in messages if isinstance(message, kind))
        deliver(target, sender, data)

    network._deliver = noting
    return seen


def give_up_pushing(network: MiniNetwork) -> None:
    """Let what was lost be lost."""
    for node in network.nodes.values():
        for other in network.nodes:
            node._engine._parts.dissemination.forget(other)


def fall_behind(network: MiniNetwork, count: int) -> None:
    """Let n0 write what n1 does not hear of."""
    network.cut("n0", "n1")
    for index in range(count):
        network.put("n0", f"key-{index}", "x" * 60_000)
    network.run(0.01)
    give_up_pushing(network)


def acknowledge(network: MiniNetwork, vector: dict[Any, int], *, is_partial: bool = True) -> None:
    """Let n1 tell n0 what it has."""
    message = VectorExchange(vector, is_partial=is_partial)
    network.nodes["n1"]._engine._parts.outbox.send("n0", message)
    network.pump("n1")
    network.run(0.01)


def test_only_the_awaited_entry_brings_the_next_batch(network: MiniNetwork) -> None:
    """Other entries are acknowledged meanwhile: what is on its way is not sent again for them."""
    for name in ("n0", "n1"):
        network.start(name, config=QUIET)
    network.run(2.0)
    network.put("n1", "other", 0)
    network.put("n0", "first", 0)
    network.run(0.5)
    ahead, behind = network.nodes["n0"], network.nodes["n1"]
    fall_behind(network, 40)
    sent = messages_of(network, "n0", EntriesMessage)

    acknowledge(network, dict(behind.replica.version_vector), is_partial=False)
    (last,) = [message for message in sent if message.wants_acknowledgement]
    awaited = last.entries[-1].last
    count = len(sent)
    for vector in (
        {behind.actor: behind.replica.version_vector[behind.actor]},
        {ahead.actor: behind.replica.version_vector[ahead.actor]},
        {ahead.actor: awaited - 1},
    ):
        acknowledge(network, vector)
    assert len(sent) == count

    acknowledge(network, {ahead.actor: awaited})
    assert min(message.entries[0].first for message in sent[count:]) == awaited + 1


def test_a_peer_catches_up_in_one_exchange(network: MiniNetwork) -> None:
    """More than goes at once follows, each entry once, when frames keep their order."""
    for name in ("n0", "n1"):
        network.start(name, config=QUIET)
    network.run(2.0)
    fall_behind(network, 40)
    network.cuts.clear()
    network._rng = AlwaysHalf()
    sent = messages_of(network, "n0", EntriesMessage)
    network.nodes["n1"]._engine._parts.anti_entropy.begin("n0", network.now)
    network.pump("n1")
    network.run(0.1)

    assert network.content("n1").get("key-39") == "x" * 60_000
    assert [entry.first for message in sent for entry in message.entries] == list(range(1, 41))


def test_a_peer_catches_up_in_one_exchange_whatever_the_order(network: MiniNetwork) -> None:
    """A batch that overtakes others is acknowledged once more when those are in."""
    for name in ("n0", "n1"):
        network.start(name, config=QUIET)
    network.run(2.0)
    fall_behind(network, 80)
    network.cuts.clear()
    network.nodes["n1"]._engine._parts.anti_entropy.begin("n0", network.now)
    network.pump("n1")
    network.run(2.0)

    assert network.content("n1").get("key-79") == "x" * 60_000


def test_a_transfer_whose_request_was_lost_is_asked_for_again(network: MiniNetwork) -> None:
    """By the same request: its answer may be on a slow link. What came since does not harm."""
    for name in ("n0", "n1", "n2"):
        network.start(name, config=QUIET, replication=ReplicationConfig(log_bytes_max=1024))
    network.run(2.0)
    network.cut("n0", "n1")
    network.cut("n0", "n2")
    for index in range(5):
        network.put("n0", f"k{index}", str(index) * 1000)
    network.run(0.01)
    give_up_pushing(network)
    network.cuts.clear()
    requests = messages_of(network, "n1", TransferRequest)

    network.cut("n1", "n0")
    network.nodes["n1"]._engine._parts.transfer.request("n0", network.now)
    network.pump("n1")
    network.run(0.01)
    network.cuts.clear()
    assert len(requests) == 1
    network.put("n2", "new", "new")
    network.run(0.1)
    assert network.values("new") == ["new"] * 3
    assert network.values("k4") == ["4" * 1000, None, None]
    network.run(0.5)

    assert network.content("n1").get("k4") == "4" * 1000
    assert "StateRestored" in network.kinds("n1")
    assert network.nodes["n1"].replica.reaches(network.nodes["n0"].replica.advertised_vector())
    assert (1, 2) == (len({request.session for request in requests}), len(requests))
