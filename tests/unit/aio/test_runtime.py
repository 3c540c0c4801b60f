"""Whole nodes on asyncio: joining, writing, leaving, failing."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from attrs import evolve

from meshlib.aio import LinkConfig, MemoryNetwork, MeshRuntime, TcpTransport
from meshlib.crdt import LWWMap, LWWRegister, MaxRegister, ORSet, lattice
from meshlib.errors import NameConflictError, StateError, UnknownKeyError
from meshlib.gossip import GossipConfig, MemberJoined, MemberLeft
from meshlib.node import MeshConfig
from meshlib.replication import WriteReceipt

pytestmark = pytest.mark.anyio


@lattice(name="test-runtime.worker")
class WorkerRecord:
    """What an application declares, and all that it declares."""

    health: LWWRegister[bool]
    load: MaxRegister[float]
    tags: ORSet[str]


class Cluster:
    """Runtimes of one network in memory, or over TCP; all are aborted at the end."""

    def __init__(self) -> None:
        self.network = MemoryNetwork(rng=random.Random(1))
        self.made: list[MeshRuntime] = []

    def new(self, name: str, *seeds: str, address: str = "", **settings: Any) -> MeshRuntime:
        """Make a runtime at `name:7000`, or elsewhere, that is not started."""
        transport = settings.pop("transport", None) or self.network.transport(
            address or f"{name}:7000"
        )
        gossip = settings.pop("gossip", GossipConfig.local())
        source = settings.pop("source", None) or [f"{seed}:7000" for seed in seeds]
        runtime = MeshRuntime(
            MeshConfig(name=name, address="replaced:1", gossip=gossip),
            transport=transport,
            seeds=source,
            rng=random.Random(f"{name} {len(self.made)}"),
            **settings,
        )
        self.made.append(runtime)
        return runtime

    async def start(self, *names: str, **settings: Any) -> list[MeshRuntime]:
        """Start nodes that know the first of them, and return once all are ready and met."""
        runtimes = [self.new(name, *names[:1], **settings) for name in names]
        for runtime in runtimes:
            await runtime.start()
        for runtime in runtimes:
            await runtime.wait_ready()
            await runtime.wait_until(
                partial(lambda r: len(r.node.members()) == len(names), runtime), timeout_s=10
            )
        return runtimes


@pytest.fixture
async def cluster(anyio_backend: str) -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    for runtime in cluster.made:
        await runtime.abort()


def put(runtime: MeshRuntime, key: str, value: object) -> WriteReceipt:
    """Write to the document "app" of a node."""
    replica = runtime.node.replica
    replica.open("app", type_tag="lww_map")
    receipt = replica.write(
        "app",
        lambda state, context: state.set(
            key, value, stamp=context.stamp(), sequence=context.sequence
        ),
    )
    runtime.wake()
    return receipt


def get(runtime: MeshRuntime, key: str) -> object:
    """Read from the document "app" of a node."""
    if "app" not in runtime.node.replica.documents():
        return None
    state = runtime.node.replica.get("app")
    assert isinstance(state, LWWMap)
    return state.get(key)


def status_of(runtime: MeshRuntime, name: str) -> str | None:
    """Return how one node sees another."""
    return next((str(m.status) for m in runtime.node.members() if m.name == name), None)


async def test_a_node_without_seeds_is_ready_at_once(cluster: Cluster) -> None:
    """It is a cluster of its own."""
    one = cluster.new("one")
    await one.start()

    await one.wait_ready()

    assert ["one"] == [member.name for member in one.node.members()]


async def test_the_state_is_one_word_from_before_the_start_to_after_the_end(
    cluster: Cluster,
) -> None:
    """The same on the runtime and on its node."""
    one = cluster.new("one")
    states = [one.state]
    await one.start()
    node = one.node
    states += [one.state, node.state]
    await one.stop()

    assert [*states, one.state, node.state] == [
        "starting", "ready", "ready", "stopped", "stopped",
    ]  # fmt: skip


async def test_two_that_start_together_have_all_that_a_third_has(cluster: Cluster) -> None:
    """Once they say that they are ready, the third may end at once."""
    third = cluster.new("third")
    await third.start()
    for number in range(40):
        put(third, f"key-{number}", "x" * 60_000)
    newcomers = [cluster.new(name, "one", "two", "third") for name in ("one", "two")]
    for runtime in newcomers:
        await runtime.start()
    for runtime in newcomers:
        await runtime.wait_ready()
    await third.abort()

    assert [get(runtime, "key-39") for runtime in newcomers] == ["x" * 60_000] * 2


async def test_the_only_holder_hands_over_before_it_ends(cluster: Cluster) -> None:
    """To a newcomer that has met it and is not ready yet."""
    one = cluster.new("one")
    await one.start()
    for number in range(40):
        put(one, f"key-{number}", "x" * 60_000)
    other = cluster.new("two", "one")
    await other.start()
    await other.wait_until(lambda: len(other.node.members()) == 2, timeout_s=10)
    await one.stop()

    assert other.node.is_ready
    assert get(other, "key-39") == "x" * 60_000


async def test_a_stop_waits_no_longer_than_it_may(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said that not everything was handed over."""
    one = cluster.new("one", gossip=evolve(GossipConfig.local(), leave_handover_s=0.05))
    await one.start()
    put(one, "key", 1)
    other = cluster.new("two", "one")
    await other.start()
    await one.wait_until(lambda: len(one.node.members()) == 2, timeout_s=10)
    cluster.network.partition(["one:7000"], ["two:7000"])
    await one.stop()

    assert "without having handed over" in caplog.text


async def test_a_node_advertises_the_address_of_its_transport(cluster: Cluster) -> None:
    """The address of the configuration is replaced."""
    one = cluster.new("one")
    await one.start()

    assert ("one:7000", "one:7000") == (one.node.address, one.config.address)


async def test_nodes_meet_through_a_seed(cluster: Cluster) -> None:
    """Every node knows every other, also those that share only the seed."""
    runtimes = await cluster.start("one", "two", "three")

    names = {tuple(m.name for m in runtime.node.members()) for runtime in runtimes}

    assert {("one", "three", "two")} == names


async def test_a_write_reaches_every_node(cluster: Cluster) -> None:
    """What one node writes the others read."""
    one, two, three = await cluster.start("one", "two", "three")

    put(one, "colour", "blue")
    for other in (two, three):
        await other.wait_until(partial(lambda r: get(r, "colour") == "blue", other), timeout_s=10)


async def test_nodes_over_tcp_understand_each_other(cluster: Cluster) -> None:
    """The same runtimes run over sockets."""
    one = cluster.new("one", transport=TcpTransport("127.0.0.1:0", token="secret"))
    await one.start()
    seeds = [one.transport.address]
    two = cluster.new("two", transport=TcpTransport("127.0.0.1:0", token="secret"), source=seeds)
    await two.start()
    await two.wait_ready()

    put(two, "colour", "blue")
    await one.wait_until(lambda: get(one, "colour") == "blue", timeout_s=10)


async def test_one_that_has_just_started_is_answered_at_once(cluster: Cluster) -> None:
    """A peer that could not reach it a moment ago does not let it go on without an answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    patient = LinkConfig(retry_first_s=600.0, retry_max_s=600.0)
    one = cluster.new(
        "one",
        transport=TcpTransport("127.0.0.1:0", links=patient),
        source=[address],
        gossip=evolve(GossipConfig.local(), bootstrap_after_s=0.1),
    )
    await one.start()
    await one.wait_ready()
    put(one, "colour", "blue")
    never = evolve(GossipConfig.local(), bootstrap_after_s=0.0)
    seeds = [one.transport.address]
    two = cluster.new("two", transport=TcpTransport(address), source=seeds, gossip=never)
    await two.start()
    await two.wait_ready()

    assert "blue" == get(two, "colour")


async def test_a_class_of_lattices_is_a_document_of_the_mesh(cluster: Cluster) -> None:
    """A declared record replicates with no more code, and each field joins by its own rule."""
    one, two, three = await cluster.start("one", "two", "three")

    some: Callable[..., WorkerRecord] = WorkerRecord  # a delta names some fields only

    def write(runtime: MeshRuntime, mutate: Callable[[Any, Any], Any]) -> None:
        runtime.node.replica.open("worker", type_tag="record:test-runtime.worker")
        runtime.node.replica.write("worker", mutate)
        runtime.wake()

    def reads(runtime: MeshRuntime, expected: dict[str, Any]) -> bool:
        replica = runtime.node.replica
        if "worker" not in replica.documents():
            return False
        worker: Any = replica.get("worker")
        return bool(worker.value == expected)

    write(one, lambda w, c: some(health=w.health.set(True, stamp=c.stamp())))
    write(one, lambda w, c: some(tags=w.tags.add("gpu", dot=c.dot(w.tags))))
    write(two, lambda w, c: some(tags=w.tags.add("spot", dot=c.dot(w.tags))))
    write(two, lambda w, _: some(load=w.load.set(0.75)))
    write(three, lambda w, _: some(load=w.load.set(0.5)))
    expected = {"health": True, "load": 0.75, "tags": {"gpu", "spot"}}
    for runtime in (one, two, three):
        await runtime.wait_until(partial(reads, runtime, expected), timeout_s=10)

    write(three, lambda w, _: some(tags=w.tags.remove("spot")))
    write(three, lambda w, c: some(health=w.health.set(False, stamp=c.stamp())))
    expected = {"health": False, "load": 0.75, "tags": {"gpu"}}
    for runtime in (one, two, three):
        await runtime.wait_until(partial(reads, runtime, expected), timeout_s=10)
    digests = {runtime.node.replica.get("worker").digest() for runtime in (one, two, three)}
    assert 1 == len(digests)


async def test_a_node_that_joins_is_ready_when_it_holds_what_was_there(cluster: Cluster) -> None:
    """Readiness means that the state of before is here."""
    one = cluster.new("one")
    await one.start()
    for i in range(100):
        put(one, f"key-{i}", i)
    two = cluster.new("two", "one")
    await two.start()

    await two.wait_ready()

    assert list(range(100)) == [get(two, f"key-{i}") for i in range(100)]


async def test_a_node_whose_seed_is_away_is_not_ready(cluster: Cluster) -> None:
    """The wait ends by its timeout, and the node goes on trying."""
    two = cluster.new("two", "one")
    await two.start()
    with pytest.raises(TimeoutError):
        await two.wait_ready(0.05)

    one = cluster.new("one")
    await one.start()
    await two.wait_ready()

    assert 2 == len(two.node.members())


async def test_a_node_that_leaves_is_seen_to_leave(cluster: Cluster) -> None:
    """A stop says goodbye: no suspicion, no detection."""
    one, two = await cluster.start("one", "two")
    events = one.events()

    await two.stop()
    await one.wait_until(lambda: status_of(one, "two") == "Leaving", timeout_s=10)
    events.close()

    assert [MemberLeft] == [type(event) async for event in events]


async def test_a_node_that_is_cut_off_is_found_to_be_down(cluster: Cluster) -> None:
    """An abort says nothing: the others detect it."""
    one, two = await cluster.start("one", "two")

    await two.abort()
    await one.wait_until(lambda: status_of(one, "two") == "Down", timeout_s=20)


async def test_what_was_written_last_is_not_lost_by_a_stop(cluster: Cluster) -> None:
    """The stop sends it before it says goodbye."""
    one, two = await cluster.start("one", "two")
    for i in range(20):
        put(two, f"key-{i}", "x" * 10_000)

    await two.stop()
    await one.wait_until(lambda: get(one, "key-19") is not None, timeout_s=10)

    assert all(get(one, f"key-{i}") for i in range(20))


async def test_a_stop_waits_for_links_that_are_busy(cluster: Cluster) -> None:
    """What was held back for a busy link is sent before the goodbye."""
    one, two = await cluster.start("one", "two")
    two._driver.link_busy("one:7000", is_busy=True)
    await two.wait_until(lambda: not two._driver._reports, timeout_s=10)
    put(two, "key", "value")

    stopping = asyncio.ensure_future(two.stop())
    await asyncio.sleep(0.05)
    two._driver.link_busy("one:7000", is_busy=False)
    await stopping
    await one.wait_until(lambda: status_of(one, "two") == "Leaving", timeout_s=10)

    assert "value" == get(one, "key")


async def test_a_stop_does_not_wait_for_a_peer_that_is_deaf(cluster: Cluster) -> None:
    """It is bounded, whatever the network does."""
    _, two = await cluster.start("one", "two")
    cluster.network.partition({"two:7000"})
    put(two, "key", "value")

    await asyncio.wait_for(two.stop(), 5)

    assert not two.is_running


async def test_a_name_that_a_live_node_has_is_refused(cluster: Cluster) -> None:
    """Waiting to be ready raises who has it, and the runtime has ended."""
    await cluster.start("one", "two")
    other = cluster.new("two", "one", address="elsewhere:7000")
    await other.start()

    with pytest.raises(NameConflictError) as conflict:
        await other.wait_ready()

    assert ("two", "two:7000") == (conflict.value.name, conflict.value.address)
    with pytest.raises(NameConflictError):
        await other.wait_stopped()


async def test_a_refused_node_says_no_goodbye_in_the_other_ones_name(cluster: Cluster) -> None:
    """Stopping it leaves the live node of that name alone."""
    one, two = await cluster.start("one", "two")
    other = cluster.new("two", "one", address="elsewhere:7000")
    await other.start()
    with pytest.raises(NameConflictError):
        await other.wait_ready()

    await other.stop()
    put(two, "after", 1)
    await one.wait_until(lambda: get(one, "after") == 1, timeout_s=10)

    assert ("Alive", "two:7000") == (status_of(one, "two"), two.node.address)


async def test_a_restarted_node_takes_its_place_again(cluster: Cluster) -> None:
    """The same name at the same address is no conflict, and gets its state back."""
    one, two = await cluster.start("one", "two")
    put(two, "colour", "blue")
    await one.wait_until(lambda: get(one, "colour") == "blue", timeout_s=10)
    await two.abort()

    back = cluster.new("two", "one")
    await back.start()
    await back.wait_ready()

    assert "blue" == get(back, "colour")
    await one.wait_until(lambda: status_of(one, "two") == "Alive", timeout_s=10)


async def test_events_are_delivered_in_order_and_end_with_the_runtime(cluster: Cluster) -> None:
    """A stream is an async iterator that ends."""
    one = cluster.new("one")
    await one.start()
    events = one.events()
    two = cluster.new("two", "one")
    await two.start()
    await two.wait_ready()
    await two.stop()
    await one.wait_until(lambda: status_of(one, "two") == "Leaving", timeout_s=10)

    await one.stop()

    assert [MemberJoined, MemberLeft] == [type(event) async for event in events]


async def test_a_reader_that_is_slow_is_told_how_much_it_missed(cluster: Cluster) -> None:
    """The newest events stay."""
    one = cluster.new("one")
    await one.start()
    events = one.events(queue_max=1)
    two = cluster.new("two", "one")
    await two.start()
    await two.wait_ready()
    await two.stop()
    await one.wait_until(lambda: status_of(one, "two") == "Leaving", timeout_s=10)
    events.close()

    assert [MemberLeft] == [type(event) async for event in events]
    assert 1 == events.missed_count


async def test_a_write_is_known_to_be_held_by_all_members(cluster: Cluster) -> None:
    """They are asked to say so at once, and not with the next exchange."""
    rare = evolve(GossipConfig.local(), exchange_interval_s=1000.0)
    one, two, three = await cluster.start("one", "two", "three", gossip=rare)

    receipt = put(one, "colour", "blue")
    await one.wait_converged(receipt)

    assert ("blue", "blue") == (get(two, "colour"), get(three, "colour"))


async def test_a_write_can_wait_for_some_peers_only(cluster: Cluster) -> None:
    """One acknowledgement is enough when one is asked for."""
    one, two, three = await cluster.start("one", "two", "three")
    cluster.network.partition({"three:7000"})

    receipt = put(one, "colour", "blue")
    await one.wait_converged(receipt, peer_count=1)

    assert ("blue", None) == (get(two, "colour"), get(three, "colour"))


async def test_a_write_that_nobody_acknowledges_times_out_and_stays(cluster: Cluster) -> None:
    """The wait fails, the write does not."""
    one, _ = await cluster.start("one", "two")
    cluster.network.partition({"two:7000"})

    receipt = put(one, "colour", "blue")
    with pytest.raises(TimeoutError):
        await one.wait_converged(receipt, peer_count=1, timeout_s=0.05)

    assert "blue" == get(one, "colour")


async def test_seeds_found_later_are_dialled(cluster: Cluster) -> None:
    """A source that is not fixed is asked again."""

    class Source:
        is_fixed = False
        found: tuple[str, ...] = ()

        async def addresses(self) -> tuple[str, ...]:
            return self.found

    one, source = cluster.new("one"), Source()
    await one.start()
    two = cluster.new("two", source=source, seeds_refresh_s=0.01)
    await two.start()
    await two.wait_ready()

    source.found = ("one:7000",)
    await two.wait_until(lambda: len(two.node.members()) == 2, timeout_s=10)


async def test_a_source_that_fails_does_not_fail_the_node(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported, and asked again."""

    class Source:
        is_fixed = False
        calls = 0

        async def addresses(self) -> tuple[str, ...]:
            self.calls += 1
            raise ZeroDivisionError("a bug of someone else")

    source = Source()
    one = cluster.new("one", source=source, seeds_refresh_s=0.001)
    await one.start()
    await one.wait_until(lambda: source.calls > 3, timeout_s=10)

    assert one.is_running
    assert "a source of seeds failed" in caplog.text


async def test_a_bug_in_the_node_ends_the_runtime_and_every_wait(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is raised where someone waits, the transport is closed, the streams end."""
    one = cluster.new("one")
    await one.start()
    events = one.events()
    waiting = asyncio.ensure_future(one.wait_until(lambda: False))
    await asyncio.sleep(0)

    def fail(now: float) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(one._node, "handle_timer", fail)  # the one that is driven
    with pytest.raises(ZeroDivisionError):
        await one.wait_stopped()
    with pytest.raises(ZeroDivisionError):
        await waiting

    assert [] == [event async for event in events]
    assert not one.transport.send("one:7000", b"x")
    assert "please report" in caplog.text


async def test_a_condition_that_raises_is_raised_where_it_is_waited_for(cluster: Cluster) -> None:
    """The runtime goes on."""
    one = cluster.new("one")
    await one.start()
    is_broken = False

    def condition() -> bool:
        if is_broken:
            raise ZeroDivisionError
        return False

    waiting = asyncio.ensure_future(one.wait_until(condition))
    await asyncio.sleep(0)
    is_broken = True
    with pytest.raises(ZeroDivisionError):
        await waiting

    assert one.is_running


async def test_a_wait_ends_when_the_runtime_is_stopped(cluster: Cluster) -> None:
    """Nobody waits for ever on a node that is gone."""
    one = cluster.new("one")
    await one.start()
    waiting = asyncio.ensure_future(one.wait_until(lambda: False))
    await asyncio.sleep(0)

    await one.stop()

    with pytest.raises(StateError):
        await waiting


async def test_a_start_that_fails_leaves_nothing_running(cluster: Cluster) -> None:
    """The address in use is the caller's to hear of."""
    one = cluster.new("one")
    await one.start()
    same = cluster.new("other", address="one:7000")

    with pytest.raises(OSError):
        await same.start()

    await same.wait_stopped()
    assert not same.is_running


async def test_a_runtime_starts_once(cluster: Cluster) -> None:
    """Neither a running nor an ended one starts again."""
    one = cluster.new("one")
    await one.start()
    with pytest.raises(StateError):
        await one.start()
    await one.stop()

    with pytest.raises(StateError):
        await one.start()


async def test_there_is_no_node_before_the_start(cluster: Cluster) -> None:
    """Asking for it is an error of the caller."""
    with pytest.raises(StateError):
        _ = cluster.new("one").node


async def test_stopping_is_idempotent_and_can_come_first(cluster: Cluster) -> None:
    """Twice, together, after an abort, or before any start."""
    one, two, three = cluster.new("one"), cluster.new("two"), cluster.new("three")
    await one.start()
    await two.start()

    await asyncio.gather(one.stop(), one.stop())
    await one.stop()
    await two.abort()
    await two.stop()
    await three.stop()

    assert [False] * 3 == [runtime.is_running for runtime in (one, two, three)]


async def test_a_runtime_is_a_context(cluster: Cluster) -> None:
    """Leaving the block stops it."""
    async with cluster.new("one") as one:
        await one.wait_ready()
        assert one.is_running

    assert not one.is_running


async def test_a_stalled_loop_accuses_nobody(cluster: Cluster) -> None:
    """This process was stopped, not the others: the node says so and suspects no one."""
    one, two = await cluster.start("one", "two")
    events = one.events()

    time.sleep(1.5)  # noqa: ASYNC251 - the stall is what is tested
    put(two, "after", 1)
    await one.wait_until(lambda: get(one, "after") == 1, timeout_s=10)
    events.close()

    assert ["LocalPause"] == [type(event).__name__ async for event in events]
    assert one.counters.timer_late_max_s > 1.0


@pytest.mark.slow
async def test_a_worker_is_healthy_on_all_nodes_while_it_is_kept(cluster: Cluster) -> None:
    """And before and after that it is not, once its lease is over."""
    one, two = await cluster.start("one", "two")
    one.sync.sync_worker_state("w", model_id="m", url="u", health=True, load=0.0, ttl_s=1.0)

    def chosen() -> list[bool]:
        return [bool(node.route("m", "")) for node in (one, two)]

    await two.wait_until(lambda: two.sync.get_worker_state("w") is not None, timeout_s=10)
    await poll(lambda: chosen() == [False, False])
    keeping = asyncio.create_task(one.keep_worker("w"))
    await poll(lambda: chosen() == [True, True])
    keeping.cancel()
    await poll(lambda: chosen() == [False, False])


async def poll(condition: Callable[[], bool]) -> None:
    """Return once something holds that no event tells."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a lease that ends is no event
            await asyncio.sleep(0.02)


async def test_keeping_a_worker_that_is_not_there_ends(cluster: Cluster) -> None:
    """It is to be written again, by whoever knows what it is."""
    (one,) = await cluster.start("one")

    with pytest.raises(UnknownKeyError):
        await one.keep_worker("w")
