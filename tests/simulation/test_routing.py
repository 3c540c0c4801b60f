"""The simulator of routing: what it replays, that it repeats, and what it says of policies."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from meshlib.errors import ConfigError
from meshlib.node import MeshNode
from meshlib.testing import RoutingScenario, TraceRequest, read_trace, replay
from meshlib.testing.routing.routers import RouterCluster
from meshlib.testing.routing.trace import BLOCK_CHARACTERS, spread_arrivals, text_of
from meshlib.testing.routing.workers import BlockCache, SimulatedWorker

MODEL = "model"


def request(at_s: float, *blocks: int, tokens: int | None = None) -> TraceRequest:
    return TraceRequest(
        at_s=at_s,
        input_tokens=len(blocks) * 512 if tokens is None else tokens,
        output_tokens=10,
        blocks=blocks,
    )


def conversations(count: int, *, seed: int = 1) -> list[TraceRequest]:
    """Draw a trace: conversations that grow, behind one block that all share."""
    rng = random.Random(seed)
    turns: dict[int, list[int]] = {}
    requests, block, at_s = [], 1, 0.0
    for _ in range(count):
        talk = rng.randrange(count)
        blocks = turns.setdefault(talk, [0])
        for _ in range(rng.randrange(4, 24)):
            blocks.append(block)
            block += 1
        del blocks[60:]
        at_s += rng.expovariate(4.0)
        requests.append(request(at_s, *blocks))
    return requests


# What is replayed


def test_a_trace_is_read_in_the_order_of_its_time(tmp_path: Path) -> None:
    """One object a line; blank lines are passed over."""
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [0, 2]},
        {"timestamp": 0, "input_length": 100, "output_length": 7, "hash_ids": [0], "more": 1},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)))
    trace = read_trace(path)

    assert [(0.0, 100, 7, (0,)), (3.0, 600, 5, (0, 2))] == [
        (one.at_s, one.input_tokens, one.output_tokens, one.blocks) for one in trace
    ]
    assert 1 == len(read_trace(path, count_max=1))
    compressed = tmp_path / "trace.jsonl.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    assert trace == read_trace(compressed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no request in it"),
        ("{", "line 1: not valid JSON"),
        ("[]", "line 1: expected a JSON object"),
        ('{"timestamp": 1}', "line 1: input_length must be"),
        ('{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": []}', "timestamp"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}', "hash_ids"),
    ],
)
def test_what_is_no_trace_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """And so is a file that is not there."""
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_trace(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_trace(tmp_path / "none.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-9])
    with pytest.raises(ConfigError, match="cut"):
        read_trace(tmp_path / "cut.jsonl.gz")


def test_arrivals_are_spread_within_equal_time_stamps() -> None:
    """Those of the last over the gap before it; a rate divides all."""
    trace = [request(5.0), request(5.0), request(8.0), request(8.0), request(8.0)]

    assert [0.0, 1.5, 3.0, 4.0, 5.0] == [at_s for at_s, _ in spread_arrivals(trace)]
    assert [0.0, 0.75] == [at_s for at_s, _ in spread_arrivals(trace, rate=2.0)][:2]


def test_prompts_share_as_much_as_their_blocks_do() -> None:
    """Up to a character or two by chance."""
    one, other = text_of([0, 1, 2]), text_of([0, 1, 3])
    shared = next(n for n, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])

    assert 3 * BLOCK_CHARACTERS == len(one)
    assert 2 * BLOCK_CHARACTERS <= shared < 2 * BLOCK_CHARACTERS + 8


# What answers


def test_a_worker_prefills_what_it_has_not_cached() -> None:
    """One after the other, 0.05 ms a token, and always the last token."""
    worker = SimulatedWorker("w", 100)
    first = worker.serve(request(0.0, 0, 1), 0.0)
    second = worker.serve(request(0.0, 0, 1), 0.0)
    third = worker.serve(request(0.0, 0, 2), 9.0)

    assert (0, 1023, 512) == (first.cached_tokens, second.cached_tokens, third.cached_tokens)
    assert first.first_token_at == pytest.approx(1024 * 0.00005)
    assert second.first_token_at == pytest.approx(1025 * 0.00005)
    assert third.first_token_at == pytest.approx(9.0 + 512 * 0.00005)


def test_a_cache_forgets_what_was_used_least_recently() -> None:
    """The end of a prompt before its beginning."""
    cache = BlockCache(3)
    taken = [cache.take([0, 1, 2]), cache.take([0, 9]), cache.take([0, 1, 2])]

    assert [0, 1, 2] == taken


# Runs


def test_a_run_repeats_exactly() -> None:
    """To the byte, with loss; another seed is another run."""
    trace = conversations(60)
    scenario = RoutingScenario(router_count=3, worker_count=4, blocks_max=300, loss=0.1)
    other = RoutingScenario(router_count=3, worker_count=4, blocks_max=300, loss=0.1, seed=1)
    first = replay(trace, scenario)

    assert first == replay(trace, scenario)
    assert first != replay(trace, other)


def test_progress_is_told() -> None:
    """Up to the last request."""
    told: list[int] = []
    replay(conversations(12), RoutingScenario(router_count=1), progress=told.append)

    assert [*range(1, 13)] == told


@pytest.mark.parametrize(
    "wrong",
    [{"policy": "weighted"}, {"router_count": 0}, {"rate": 0}, {"loss": 1.0}, {"blocks_max": 0}],
    ids=str,
)
def test_a_run_that_cannot_be_is_refused(wrong: Any) -> None:
    """Before anything is simulated."""
    with pytest.raises(ConfigError):
        RoutingScenario(**wrong)


@pytest.mark.slow
def test_shared_load_brings_the_first_token_sooner() -> None:
    """Against one after the other, hashes, and the cache with counts, on a trace of talks."""
    trace = conversations(400)
    mean_ms = {
        policy: replay(
            trace,
            RoutingScenario(
                policy=policy,
                told=told,
                router_count=4,
                worker_count=4,
                blocks_max=2000,
                rate=2.2,
            ),
        ).ttft_mean_ms
        for policy, told in (
            ("round_robin", "nothing"),
            ("rendezvous", "nothing"),
            ("cache_aware", "counts"),
            ("expected_time", "shared"),
        )
    }

    assert "expected_time" == min(mean_ms, key=lambda policy: mean_ms[policy])
    assert mean_ms["expected_time"] < 0.6 * mean_ms["rendezvous"]


# Shared load over real nodes


def in_flight(cluster: RouterCluster, worker_id: str = "w1") -> list[int]:
    return [
        host.node.sync.load.request_count(worker_id)
        for host in cluster.hosts
        if host.node is not None
    ]


@pytest.fixture
def trio() -> RouterCluster:
    cluster = RouterCluster(3)
    cluster.start()
    cluster.use(
        cluster.hosts[0],
        lambda node, _: node.sync.sync_worker_state(
            "w1", model_id=MODEL, url="u", health=True, load=0
        ),
    )
    cluster.advance(cluster.now + 1.0)
    return cluster


def begin(cluster: RouterCluster, router: int, tokens: float = 1000.0) -> str:
    request_id: str = cluster.use(
        cluster.hosts[router],
        lambda node, local: node.begin("w1", prefill_tokens=tokens, now=local),
    )
    return request_id


def test_what_is_in_flight_is_known_to_all_within_20_ms(trio: RouterCluster) -> None:
    """Over the network, which takes a millisecond or two."""
    begin(trio, 0)
    begin(trio, 1)
    trio.advance(trio.now + 0.02)

    assert [2, 2, 2] == in_flight(trio)


def test_a_killed_router_takes_its_requests_with_it(trio: RouterCluster) -> None:
    """And what it had is not inherited by its next start."""
    begin(trio, 0)
    begin(trio, 1)
    trio.advance(trio.now + 0.1)
    trio.crash(trio.hosts[1])
    trio.advance(trio.now + 0.1)
    trio.start_router(trio.hosts[1])
    trio.advance(trio.now + 5.0)

    assert [1, 1, 1] == in_flight(trio)


def test_a_dead_router_is_forgotten_though_it_does_not_come_back(trio: RouterCluster) -> None:
    """Once the others hold it for dead."""
    begin(trio, 1)
    trio.advance(trio.now + 0.1)
    trio.crash(trio.hosts[1])
    trio.advance(trio.now + 20.0)

    assert [0, 0] == in_flight(trio)


def test_a_cleared_worker_has_nothing_in_flight(trio: RouterCluster) -> None:
    """On all routers, those included that had sent it something."""
    begin(trio, 0)
    begin(trio, 1)
    trio.advance(trio.now + 0.1)
    trio.use(trio.hosts[2], lambda node, _: node.sync.clear_worker("w1"))
    trio.advance(trio.now + 1.0)
    after = in_flight(trio)
    begin(trio, 0)
    trio.advance(trio.now + 0.1)

    assert ([0, 0, 0], [1, 1, 1]) == (after, in_flight(trio))


def calm_down(cluster: RouterCluster) -> None:
    """End all faults, start who is not there, and wait until all have settled."""
    cluster.network.calm(cluster.now)
    for host in cluster.hosts:
        if host.node is None:
            cluster.start_router(host)
    cluster.advance(cluster.now + 40.0)


class Mishaps:
    """What happens to four routers, and which requests are truly in flight at each."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cluster = RouterCluster(4, seed=seed, loss=0.1)
        self.cluster.start()
        self.requests: list[dict[str, str]] = [{} for _ in range(4)]
        self.cuts: Any = None

    def step(self) -> None:
        """Let one thing happen, and some time pass."""
        rng, cluster = self.rng, self.cluster
        index, kind = rng.randrange(4), rng.random()
        host = cluster.hosts[index]
        if host.node is None:
            if kind < 0.3:
                cluster.start_router(host)
        elif kind < 0.5:
            self.begin(index, f"w{rng.randrange(3)}")
        elif kind < 0.8 and self.requests[index]:
            self.end(index, rng.choice(sorted(self.requests[index])))
        elif kind > 0.97:
            cluster.crash(host)
            self.requests[index].clear()
        elif kind > 0.95 and self.cuts is None:
            self.cuts = cluster.partition(cluster.hosts[:2])
        elif kind > 0.9 and self.cuts is not None:
            cluster.heal(self.cuts)
            self.cuts = None
        cluster.advance(cluster.now + rng.expovariate(5.0))

    def begin(self, index: int, worker_id: str) -> None:
        def begin(node: MeshNode, local: float) -> str:
            return node.begin(worker_id, prefill_tokens=3000, now=local)

        name = self.cluster.use(self.cluster.hosts[index], begin)
        self.requests[index][name] = worker_id

    def end(self, index: int, name: str) -> None:
        def end(node: MeshNode, local: float) -> None:
            node.end(name, now=local)

        del self.requests[index][name]
        self.cluster.use(self.cluster.hosts[index], end)


@pytest.mark.parametrize("seed", range(4))
def test_the_load_sums_up_and_returns_to_zero_whatever_happens(seed: int) -> None:
    """Lost packets, kills, restarts, a partition, and then a calm."""
    mishaps = Mishaps(seed)
    for _ in range(120):
        mishaps.step()
    calm_down(mishaps.cluster)
    for worker_id in ("w0", "w1", "w2"):
        truth = sum(list(each.values()).count(worker_id) for each in mishaps.requests)
        assert [truth] * 4 == in_flight(mishaps.cluster, worker_id)

    for index, requests in enumerate(mishaps.requests):
        for name in list(requests):
            mishaps.end(index, name)
    mishaps.cluster.advance(mishaps.cluster.now + 1.0)
    assert [{}] * 4 == [host.node.sync.load.counts for host in mishaps.cluster.hosts]
