"""A node that fills: small documents first and in force, several pages on their way at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from support.mini_network import MiniNetwork

from meshlib.errors import NotReadyError
from meshlib.gossip import GossipConfig, MemberDown, NodeState, StateRestored, decode_frame
from meshlib.gossip.messages.kinds import TransferNext, TransferPageMessage
from meshlib.limits import TRANSFER_WINDOW_BYTES_MAX
from meshlib.node import MeshNode
from meshlib.ratelimit import GLOBAL_KEY
from meshlib.replication import ReplicationConfig
from meshlib.routing import TreeInsert

SMALL_PAGES = GossipConfig(packet_bytes_max=4096)
SHORT_LOG = ReplicationConfig(log_bytes_max=1024)


def is_page(frame: bytes, wanted: Callable[[TransferPageMessage], bool]) -> bool:
    """Tell whether a frame carries a page that is wanted."""
    messages = decode_frame(frame, cluster="mesh").messages
    return any(isinstance(one, TransferPageMessage) and wanted(one) for one in messages)


def cluster_with_a_tree(network: MiniNetwork, *, text_count: int = 200) -> MeshNode:
    """Start n0 with a limit, a policy, a worker and a tree of many pages."""
    node = network.start("n0", seeds=(), config=SMALL_PAGES, replication=SHORT_LOG)
    for number in range(text_count):
        text = f"{number:04}" * 250
        node.sync.sync_tree_operation("m", TreeInsert(text, "w"))
    node.sync.set_global_rate_limit(2)
    node.sync.sync_policy_state("m", policy_type="cache_aware", config="")
    node.sync.sync_worker_state("w", model_id="m", url="http://w", health=True, load=0.0)
    network.run(1.0)
    return node


def join(network: MiniNetwork, name: str = "n1") -> MeshNode:
    """Start a node that has everything to get."""
    return network.start(name, config=SMALL_PAGES, replication=SHORT_LOG)


def hold_the_end(network: MiniNetwork) -> None:
    """Let the last page of no transfer come through."""
    network.is_lost = partial(is_page, wanted=lambda page: page.vector is not None)


def test_a_limit_is_in_force_before_the_tree_is_in(network: MiniNetwork) -> None:
    """The third request of two is refused by a node that is not ready yet."""
    cluster_with_a_tree(network)
    hold_the_end(network)
    node = join(network)
    network.run(0.3)
    assert node.state is NodeState.SYNCING
    allowed = [node.acquire(GLOBAL_KEY, now=network.now).allowed for _ in range(9)]
    assert allowed[0] is True
    assert 1 <= sum(allowed) <= 2


def test_policies_workers_and_configuration_are_known_before_the_tree_is(
    network: MiniNetwork,
) -> None:
    """What depends on the tree waits."""
    node = cluster_with_a_tree(network)
    node.sync.set_config("key", b"value")
    network.run(1.0)
    hold_the_end(network)
    filling = join(network)
    network.run(0.3)
    sync = filling.sync
    assert not filling.is_ready
    assert sync.get_policy_state("m") == node.sync.get_policy_state("m")
    assert sync.get_all_worker_states() == node.sync.get_all_worker_states()
    assert sync.get_config("key") == b"value"
    with pytest.raises(NotReadyError):
        filling.route("m", "text")


def test_what_is_not_here_is_not_known_to_be_nowhere(network: MiniNetwork) -> None:
    """A key without a limit waits for the rest."""
    cluster_with_a_tree(network)
    hold_the_end(network)
    node = join(network)
    network.run(0.3)
    with pytest.raises(NotReadyError):
        node.acquire("another key", now=network.now)


def test_a_write_to_what_is_shown_is_everywhere(network: MiniNetwork) -> None:
    """An operator may change a limit at a node that fills."""
    node = cluster_with_a_tree(network)
    hold_the_end(network)
    filling = join(network)
    network.run(0.3)
    filling.sync.set_global_rate_limit(7)
    network.run(0.3)
    assert not filling.is_ready
    assert node.sync.get_global_rate_limit() == 7
    network.is_lost = lambda _frame: False
    network.run_until(lambda: filling.is_ready)
    assert filling.sync.get_global_rate_limit() == 7
    assert filling.replica.content_digest() == node.replica.content_digest()


def test_a_node_that_begins_without_the_rest_keeps_what_it_has_shown(network: MiniNetwork) -> None:
    """Its readers have acted on it, and whoever comes later gets it too."""
    cluster_with_a_tree(network)
    hold_the_end(network)
    node = join(network)
    network.run(0.3)
    assert node.sync.get_global_rate_limit() == 2
    network.kill("n0")
    network.run_until(lambda: node.is_ready, limit_s=60.0)
    network.is_lost = lambda _frame: False
    later = network.start("n2", seeds=("n1",), config=SMALL_PAGES, replication=SHORT_LOG)
    network.run(3.0)
    for one in (node, later):
        assert one.sync.get_global_rate_limit() == 2
        assert one.sync.get_policy_state("m") is not None
    assert node.replica.content_digest() == later.replica.content_digest()


def test_a_peer_that_is_not_ready_decides_nothing_for_others(network: MiniNetwork) -> None:
    """What it has may be as old as its disk."""
    first = cluster_with_a_tree(network)
    state = first.export_state()
    network.kill("n0")
    waiting = GossipConfig(packet_bytes_max=4096, bootstrap_after_s=1000.0)
    network.start("n1", config=waiting, replication=SHORT_LOG, state=state, age_s=5.0)
    hold_the_end(network)
    node = network.start("n2", seeds=("n1",), config=waiting, replication=SHORT_LOG)
    network.run(5.0)
    assert node.replica.arrived()[0] > 100
    assert node.sync.get_global_rate_limit() is None


def test_pages_do_not_wait_for_each_other(network: MiniNetwork) -> None:
    """A state of over fifty pages takes a few round trips of 2 to 6 ms."""
    node = cluster_with_a_tree(network)
    start = network.now
    filling = join(network)
    network.run_until(lambda: filling.is_ready)
    took_s = network.now - start
    pages = [event.page_count for event in network.events["n1"] if isinstance(event, StateRestored)]
    assert pages[0] > 50
    assert took_s < 0.002 * pages[0]
    assert filling.replica.content_digest() == node.replica.content_digest()


@pytest.mark.parametrize("index", [0, 1, 7, -1])
def test_a_page_that_was_lost_is_sent_again(network: MiniNetwork, index: int) -> None:
    """The first, one of the middle, the last: those behind it need not be asked for one by one."""
    node = cluster_with_a_tree(network)
    lost: list[int] = []

    def is_lost(page: TransferPageMessage) -> bool:
        is_it = page.vector is not None if index < 0 else page.index == index
        if is_it and len(lost) < 2:
            lost.append(page.index)
            return True
        return False

    network.is_lost = partial(is_page, wanted=is_lost)
    filling = join(network)
    took_s = network.run_until(lambda: filling.is_ready)
    assert len(lost) == 2
    assert took_s < 3.0
    assert filling.replica.content_digest() == node.replica.content_digest()


def test_pages_that_come_twice_or_out_of_order_do_no_harm(network: MiniNetwork) -> None:
    """Every third page is lost at first."""
    node = cluster_with_a_tree(network)
    seen: set[int] = set()

    def is_lost(page: TransferPageMessage) -> bool:
        is_new = page.index not in seen
        seen.add(page.index)
        return is_new and page.index % 3 == 1

    network.is_lost = partial(is_page, wanted=is_lost)
    filling = join(network)
    network.run_until(lambda: filling.is_ready, limit_s=60.0)
    assert filling.replica.content_digest() == node.replica.content_digest()


def test_it_is_told_how_much_is_in(network: MiniNetwork) -> None:
    """While the node is syncing, and not afterwards."""
    cluster_with_a_tree(network)
    hold_the_end(network)
    node = join(network)
    network.run(0.3)
    progress = node.progress()
    assert progress is not None
    assert progress.unit == "entries"
    assert 150 < progress.done <= progress.total <= 210
    network.is_lost = lambda _frame: False
    network.run_until(lambda: node.is_ready)
    assert node.progress() is None


def test_a_slow_way_has_little_on_it(network: MiniNetwork) -> None:
    """Pages that take longer and longer to be known to have come are fewer from then on."""
    node = network.start("n0", seeds=(), replication=SHORT_LOG)
    for number in range(80):
        node.sync.sync_tree_operation("m", TreeInsert(f"{number:04}" * 40_000, "w"))
    network.run(1.0)
    transfer = node._engine._parts.transfer
    free_at, way_bytes = 0.0, list[int]()
    deliver = network._deliver

    def slow(target: str, source: str, data: bytes) -> None:
        """Carry four megabytes a second from n0, one frame after the other."""
        nonlocal free_at
        if source == "n0" and len(data) > 10_000:
            outgoing = transfer._outgoing["n1"]
            way_bytes.append(outgoing.way_bytes)
            free_at = max(free_at, network.now) + len(data) / 4e6
            if free_at - network.now > 0.02:
                wait_s = free_at - network.now
                network._order += 1
                network._frames.append((network.now + wait_s, network._order, target, "", data))
                network._frames.sort()
                return
        deliver(target, source or "n0", data)

    network._deliver = slow
    filling = network.start("n1", replication=SHORT_LOG)
    network.run_until(lambda: filling.is_ready, limit_s=60.0)
    assert max(way_bytes[len(way_bytes) // 2 :]) <= TRANSFER_WINDOW_BYTES_MAX * 2 // 3
    assert not [each for each in network.events["n0"] if isinstance(each, MemberDown)]


def test_who_awaits_what_was_not_made_is_not_heard(network: MiniNetwork) -> None:
    """A page number of a peer is looked at before it counts for anything."""
    node = cluster_with_a_tree(network)
    hold_the_end(network)
    filling = join(network)
    network.run(0.3)
    outgoing = node._engine._parts.transfer._outgoing["n1"]
    before = (outgoing.cursor, outgoing.way_bytes, outgoing.made_count)
    filling._engine._parts.outbox.send("n0:1", TransferNext(outgoing.session, 1 << 40))
    network.pump("n1")
    network.run(0.01)
    assert before[2] == outgoing.made_count
    node._check()


def test_pages_that_waited_for_a_lost_one_are_taken_many_at_a_time(network: MiniNetwork) -> None:
    """Over two thousand small ones, the fourth lost: hardly one is sent twice."""
    tiny_pages = GossipConfig(packet_bytes_max=1024)
    network.start("n0", config=tiny_pages, replication=SHORT_LOG)
    for number in range(1200):
        network.put("n0", f"key-{number}", "x" * 200)
    network.run(3.0)
    pages: list[int] = []
    asked: list[TransferNext] = []

    def is_lost(frame: bytes) -> bool:
        for one in decode_frame(frame, cluster="mesh").messages:
            if isinstance(one, TransferNext):
                asked.append(one)
            elif isinstance(one, TransferPageMessage):
                pages.append(one.index)
        return pages[-1:] == [3] and pages.count(3) == 1

    network.is_lost = is_lost
    node = network.start("n1", config=tiny_pages, replication=SHORT_LOG)
    network.run_until(lambda: node.is_ready, limit_s=1.5)
    assert pages.count(3) == 2
    assert len(set(pages)) > 2000
    assert len(pages) < 1.1 * len(set(pages))
    assert len(asked) < len(pages) / 10
