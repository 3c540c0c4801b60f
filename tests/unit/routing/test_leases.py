"""Leases of workers: renewed without a write, over on each node by its own count, removed late."""

from __future__ import annotations

from typing import Any

import pytest
from support.mini_network import MiniNetwork

from meshlib.codec import pack
from meshlib.errors import (
    InvalidTypeError,
    InvalidValueError,
    RemoteError,
    UnknownKeyError,
)
from meshlib.node import MeshNode
from meshlib.routing.leases import WorkerLeases
from meshlib.routing.records import RouteReason

MODEL = "llama-3"


@pytest.fixture
def network() -> MiniNetwork:
    """Three nodes that have met."""
    made = MiniNetwork()
    for name in ("n0", "n1", "n2"):
        made.start(name)
    made.run_until(lambda: all(node.is_ready for node in made.nodes.values()))
    made.run(2.0)
    return made


def put(network: MiniNetwork, address: str, *, ttl_s: float | None = 2.0, **changes: Any) -> None:
    node = network.nodes[address]
    values = {"model_id": MODEL, "url": "u", "health": True, "load": 0.0, **changes}
    node.sync.sync_worker_state("w", ttl_s=ttl_s, **values)
    network.pump(address)


def renew_for(network: MiniNetwork, address: str, duration_s: float) -> None:
    """Renew on one node three times in each time to live."""
    for _ in range(round(duration_s / 0.6)):
        network.nodes[address].renew_worker("w", now=network.now)
        network.run(0.6)


def health(network: MiniNetwork) -> list[bool | None]:
    states = [node.sync.get_worker_state("w") for _, node in sorted(network.nodes.items())]
    return [None if state is None else state.health for state in states]


def choices(network: MiniNetwork) -> list[str | None]:
    return [node.route(MODEL, "").worker_id for _, node in sorted(network.nodes.items())]


def test_a_worker_that_nobody_hears_of_is_not_chosen(network: MiniNetwork) -> None:
    """On any node, without a write: its version and what was written stay."""
    put(network, "n0")
    network.run(1.5)
    before = choices(network)
    vectors = [dict(node.replica.version_vector) for node in network.nodes.values()]
    network.run(1.5)

    assert (["w"] * 3, [None] * 3) == (before, choices(network))
    assert [False] * 3 == health(network)
    assert vectors == [dict(node.replica.version_vector) for node in network.nodes.values()]


def test_renewals_at_one_node_keep_a_worker_on_all(network: MiniNetwork) -> None:
    """They are no writes: nothing is logged and no version grows."""
    put(network, "n0")
    network.run(0.5)
    vectors = [dict(node.replica.version_vector) for node in network.nodes.values()]
    renew_for(network, "n1", 12.0)

    assert [True] * 3 == health(network)
    assert vectors == [dict(node.replica.version_vector) for node in network.nodes.values()]
    assert 1 == network.nodes["n2"].sync.get_all_worker_states()[0].version


def test_a_worker_whose_node_died_stops_being_chosen(network: MiniNetwork) -> None:
    """Nobody else speaks for it."""
    put(network, "n2")
    renew_for(network, "n2", 3.0)
    network.kill("n2")
    network.run(3.0)

    assert [False, False] == health(network)


def test_without_a_time_to_live_a_worker_stays_as_written(network: MiniNetwork) -> None:
    """As specified."""
    put(network, "n2", ttl_s=None)
    network.run(1.0)
    network.kill("n2")
    network.run(300.0)

    assert [True, True] == health(network)


def test_a_renewal_or_a_write_brings_a_worker_back(network: MiniNetwork) -> None:
    """At once on the node that is told."""
    put(network, "n0")
    network.run(4.0)
    assert [False] * 3 == health(network)
    network.nodes["n1"].renew_worker("w", now=network.now)
    assert [False, True, False] == health(network)
    network.run(0.3)
    assert [True] * 3 == health(network)
    network.run(4.0)
    put(network, "n0", load=1.0)
    assert [True, False, False] == health(network)
    network.run(0.3)
    assert [True] * 3 == health(network)


def test_a_worker_is_removed_once_after_ten_times_its_lease(network: MiniNetwork) -> None:
    """By one node, everywhere, and out of the tree."""
    put(network, "n2")
    network.run(0.5)
    network.nodes["n1"].route(MODEL, "Hello")
    network.pump("n1")
    network.run(18.0)
    assert [False] * 3 == health(network)
    written = {name: dict(node.replica.version_vector) for name, node in network.nodes.items()}
    network.run(4.0)

    assert [None] * 3 == health(network)
    assert [0] * 3 == [node.sync.trees.entry_count(MODEL) for node in network.nodes.values()]
    writers = [
        name
        for name, node in network.nodes.items()
        if node.replica.version_vector.get(node.actor) != written[name].get(node.actor)
    ]
    assert ["n0"] == writers


def test_a_side_without_a_majority_removes_nobody(network: MiniNetwork) -> None:
    """It takes the worker for not healthy; the others hear of it."""
    put(network, "n2")
    network.run(0.5)
    network.cut_both("n0", "n1")
    network.cut_both("n0", "n2")
    renew_for(network, "n2", 60.0)

    assert [False, True, True] == health(network)


def test_time_in_which_a_node_was_stopped_is_not_the_workers(network: MiniNetwork) -> None:
    """It has heard nobody meanwhile; the others went on."""
    put(network, "n0", ttl_s=10.0)
    network.run(1.0)
    leases = network.nodes["n0"].leases
    leases.tick(network.now + 3600.0, others=())

    assert [True] * 3 == health(network)
    assert [] == leases.overdue()


def test_a_node_that_comes_back_with_its_state_counts_from_its_start(network: MiniNetwork) -> None:
    """It has not heard of the worker, and the worker has its time."""
    put(network, "n0")
    network.run(0.5)
    state = network.nodes["n2"].replica.export_state()
    alone = MiniNetwork()
    node = alone.start("x", seeds=(), state=state)

    assert 1 == len(node.leases)
    alone.run(1.0)
    assert [True] == health(alone)
    alone.run(2.0)
    assert [False] == health(alone)


def test_a_lease_ends_with_the_time_to_live(network: MiniNetwork) -> None:
    """A worker that is written without one stays as it is written; one that goes is forgotten."""
    put(network, "n0")
    network.run(4.0)
    put(network, "n1", ttl_s=None)
    network.run(4.0)

    assert [True] * 3 == health(network)
    assert [0] * 3 == [len(node.leases) for node in network.nodes.values()]


def test_what_has_no_lease_cannot_be_renewed(network: MiniNetwork) -> None:
    """An unknown worker is to be written again; one without a time to live needs none."""
    node = network.nodes["n0"]
    with pytest.raises(UnknownKeyError):
        node.renew_worker("w", now=network.now)
    put(network, "n0", ttl_s=None)
    with pytest.raises(InvalidValueError):
        node.renew_worker("w", now=network.now)
    assert 0 == len(node.leases)


@pytest.mark.parametrize(
    ("ttl_s", "error"),
    [
        (0, InvalidValueError), (0.5, InvalidValueError), (86_401, InvalidValueError),
        (float("nan"), InvalidValueError), (True, InvalidTypeError), ("5", InvalidTypeError),
    ],
)  # fmt: skip
def test_a_time_to_live_that_cannot_be_is_refused(
    network: MiniNetwork, ttl_s: Any, error: type[Exception]
) -> None:
    """And nothing is written."""
    with pytest.raises(error):
        put(network, "n0", ttl_s=ttl_s)
    assert [None] * 3 == health(network)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff", pack(()), pack((1,)), pack((2, [])), pack((1, "w")), pack((1, [1])),
        pack((1, [""])), pack((1, ["w" * 1025])), pack((1, ["w"] * 257)),
    ],
)  # fmt: skip
def test_a_malformed_message_is_refused_and_changes_nothing(
    network: MiniNetwork, payload: bytes
) -> None:
    """With an error of the peer's kind."""
    put(network, "n0")
    network.run(4.0)
    leases: WorkerLeases = network.nodes["n0"].leases
    with pytest.raises(RemoteError):
        leases.receive(payload, now=network.now)
    assert [False] * 3 == health(network)


def test_many_renewals_go_in_several_messages(network: MiniNetwork) -> None:
    """Each of a bounded size; all arrive."""
    node: MeshNode = network.nodes["n0"]
    names = [f"w{number}" for number in range(600)]
    for name in names:
        node.sync.sync_worker_state(name, model_id="m", url="u", health=True, load=0.0, ttl_s=2.0)
    network.pump("n0")
    network.run(1.5)
    for name in names:
        node.renew_worker(name, now=network.now)
    network.run(1.5)

    assert 600 == sum(w.health for w in network.nodes["n2"].sync.get_all_worker_states())


def test_who_holds_a_prompt_and_is_not_heard_of_is_passed_by(network: MiniNetwork) -> None:
    """Another worker gets it."""
    put(network, "n0")
    node = network.nodes["n0"]
    node.route(MODEL, "Hello")
    node.sync.sync_worker_state("v", model_id=MODEL, url="u", health=True, load=9.0)
    network.run(3.0)
    decision = node.route(MODEL, "Hello")

    assert ("v", RouteReason.HOLDER_UNAVAILABLE) == (decision.worker_id, decision.reason)
