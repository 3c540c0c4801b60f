"""A whole node: its health, its settings, and that it needs no peers."""

from __future__ import annotations

import random

import pytest
from attrs import evolve

from meshlib.clock import HybridClock
from meshlib.codec import pack
from meshlib.errors import ConfigError, InvalidValueError, StateError
from meshlib.identity import actor_id
from meshlib.node import HealthStatus, MeshConfig, MeshNode
from meshlib.replication import LogEntry, Replica, ReplicationConfig

ALICE = actor_id("alice", 1)


def make_node(**settings: str) -> MeshNode:
    return MeshNode(
        MeshConfig(**{"name": "node", "address": "node:1", **settings}),  # type: ignore[arg-type]
        rng=random.Random(1),
        wall_clock=lambda: 1.7e9,
        now=0.0,
    )


def test_a_node_alone_is_healthy_and_ready() -> None:
    """It is its own cluster."""
    node = make_node()
    node.join([], now=0.0)

    assert node.is_ready
    assert node.health().status is HealthStatus.HEALTHY


def test_a_limit_that_cannot_be_read_makes_the_stores_unhealthy_until_it_is_mended() -> None:
    """The judgement follows the content, and names what is wrong."""
    node = make_node()
    node.join([], now=0.0)
    before = node.health()
    node.sync.app.set("global_rate_limit", b"\x00")
    broken = node.health()
    node.sync.set_global_rate_limit(5)
    after = node.health()

    assert (before.stores_healthy, broken.stores_healthy, after.stores_healthy) == (
        True,
        False,
        True,
    )
    assert broken.status is HealthStatus.DEGRADED
    assert broken.problems == ("the rate-limit store holds 'global', which cannot be read",)


def test_a_stored_policy_that_is_not_understood_is_a_problem_and_stays_readable() -> None:
    """A node of an earlier version took anything."""
    node = make_node()
    node.join([], now=0.0)
    node.sync.policies.put("m", policy_type="weighted", config="free text")

    stored = node.sync.get_policy_state("m")
    assert stored is not None
    assert ("weighted", "free text") == (stored.policy_type, stored.config)
    health = node.health()
    assert health.status is HealthStatus.DEGRADED
    assert (
        (
            "the policy of 'm' holds what is not understood: "
            "policy_type: 'weighted' is not known; known: cache_aware, consistent_hash, "
            "expected_time, least_loaded, power_of_two, random, rendezvous, round_robin"
        ),
    ) == health.problems


def test_what_a_node_does_of_itself_is_not_refused_at_its_end() -> None:
    """Applications are refused while it still sends and receives."""
    node = make_node()
    node.join([], now=0.0)
    node.sync.sync_worker_state("w", model_id="m", url="u", health=True, load=0.0)

    def refuse() -> None:
        raise StateError("the end")

    node.set_guard(refuse)
    node.packets_to_send()

    with pytest.raises(StateError):
        node.sync.get_worker_state("w")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:8000", "0:8000", "0x0.0:8000", "[::]:8000", "::", "[::ffff:0.0.0.0]:8000",
        "*:8000", ":8000", "0",
    ],
)  # fmt: skip
def test_an_address_that_nobody_can_reach_is_refused(address: str) -> None:
    """An unspecified address is never advertised."""
    with pytest.raises(ConfigError, match="no address that a peer could reach"):
        make_node(address=address)


def test_a_name_with_a_control_character_is_refused() -> None:
    """Names travel and are logged."""
    with pytest.raises(InvalidValueError, match="control"):
        make_node(name="a\nb")


def test_a_local_write_wakes_the_driver() -> None:
    """So that it is sent without waiting for a timer."""
    node = make_node()
    woken = []
    node.wakeup = lambda: woken.append(1)
    node.sync.set_config("key", b"value")

    assert woken == [1]


def test_the_next_deadline_comes_before_the_limiter_is_due() -> None:
    """A request that waits for its owner's word has a timeout."""
    node = make_node()
    node.join(["10.0.0.2:7946"], now=0.0)
    node.sync.set_global_rate_limit(100)
    ticket = node.limiter.ask("global", now=0.0)
    deadline = node.next_deadline()

    assert ticket.decision is None
    assert deadline is not None
    assert deadline <= node.config.rate_limit.confirm_timeout_s


def test_a_node_that_passed_an_entry_over_says_so_until_it_is_healed() -> None:
    """What it lacks is there elsewhere; a peer's whole document brings it."""
    clock = HybridClock(ALICE, wall_clock=lambda: 1.7e9)
    peer = Replica(actor=ALICE, clock=clock)
    peer.open("m", type_tag="lww_map")
    peer.write("m", lambda s, c: s.set("k", 1, stamp=c.stamp(), sequence=c.sequence))
    (entry,) = peer.flush()
    node = make_node()
    node.join([], now=0.0)
    unknown = evolve(entry, delta=pack(("nobody.has.this", 1, ())))
    for _ in range(ReplicationConfig().rejections_max):
        before = node.health()
        node.replica.receive([unknown])
    lacking = node.health()
    node.replica.begin_transfer()
    for page in peer.transfer_pages({}):
        node.replica.absorb_page(page)
    node.replica.complete_transfer(peer.advertised_vector())
    healed = node.health()

    assert before.status is healed.status is HealthStatus.HEALTHY
    assert (lacking.status, lacking.stores_healthy) == (HealthStatus.DEGRADED, False)
    assert lacking.problems == ("entries could not be read here, of m",)
    assert healed.problems == ()


def test_one_line_tells_of_many_documents_that_lack_entries() -> None:
    """Some by their names, all by their number: what peers send makes no answer long."""
    node = make_node()
    node.join([], now=0.0)
    entries = [
        LogEntry(actor=ALICE, first=number, last=number, document=f"d{number}", delta=b"\xc1")
        for number in range(1, 8)
    ]
    for _ in range(len(entries) * ReplicationConfig().rejections_max):
        node.replica.receive(entries)

    assert node.health().problems == (
        "entries could not be read here, of d1, d2, d3, d4, d5 and 2 more",
    )
