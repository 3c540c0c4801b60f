"""A trace of prompts through routers and workers.

Each request arrives at a router drawn for it. The router's real node decides; the worker serves;
what the router learns of that it tells its node, or does not: see `Told`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from attrs import field, frozen

from meshlib.errors import ConfigError
from meshlib.node import MeshNode
from meshlib.routing import POLICIES, Policy
from meshlib.testing.routing.report import RoutingReport
from meshlib.testing.routing.routers import RouterCluster
from meshlib.testing.routing.trace import (
    BLOCK_CHARACTERS,
    TraceRequest,
    spread_arrivals,
    text_of,
)
from meshlib.testing.routing.workers import SimulatedWorker

__all__ = ["RoutingScenario", "Told", "replay"]

MODEL: Final = "model"

PROGRESS_STEPS: Final = 200


class Told(StrEnum):
    """What routers learn of the requests that they have sent."""

    NOTHING = "nothing"
    """Nothing: a router decides and forgets."""

    REPORTED = "reported"
    """A worker's requests in flight are written as its load every `report_s` seconds."""

    COUNTS = "counts"
    """That they begin and end."""

    SHARED = "shared"
    """What they have to prefill, when that is done, and when they end."""


@frozen(slots=True, kw_only=True)
class RoutingScenario:
    """What a trace is replayed on.

    Args:
        policy: a policy type of `meshlib.routing.POLICIES`, or the name of `own`.
        config: its configuration.
        router_count: routers.
        worker_count: workers.
        blocks_max: blocks of 512 tokens that a worker has room for.
        rate: how many times as fast as in the trace requests arrive.
        loss: share of the packets between routers that are lost.
        told: what routers learn of their requests.
        report_s: how often a load is written, with `Told.REPORTED`.
        partition_s: from when until when half of the routers hear nothing of the others, if ever.
        own: makes a policy of one's own from its configuration; see `PolicyTypes.register`.
        seed: all chance comes from it.

    Raises:
        ConfigError: one that cannot hold.
    """

    policy: str = "expected_time"
    config: Mapping[str, Any] = field(factory=dict)
    router_count: int = 8
    worker_count: int = 8
    blocks_max: int = 8000
    rate: float = 1.0
    loss: float = 0.0
    told: Told = field(default=Told.SHARED, converter=Told)
    report_s: float = 1.0
    partition_s: tuple[float, float] | None = None
    own: Callable[[str], Policy] | None = None
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        """Check that the run can be made.

        Raises:
            ConfigError: names what cannot hold.
        """
        if self.policy not in POLICIES and self.own is None:
            raise ConfigError(f"policy must be one of {', '.join(POLICIES)}, got {self.policy!r}")
        for name in ("router_count", "worker_count", "blocks_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rate < 1e6:
            raise ConfigError(f"rate must be over 0, got {self.rate}")
        if not 0 <= self.loss < 1:
            raise ConfigError(f"loss must be 0 to below 1, got {self.loss}")


def replay(
    requests: Sequence[TraceRequest],
    scenario: RoutingScenario,
    *,
    progress: Callable[[int], None] | None = None,
) -> RoutingReport:
    """Replay a trace, and say how the policy did. Deterministic.

    Args:
        requests: the trace, in order of time.
        scenario: what it is replayed on.
        progress: called now and then with how many requests have arrived.
    """
    return _Replay(scenario).run(requests, progress)


class _Replay:
    """One run."""

    def __init__(self, scenario: RoutingScenario) -> None:
        self.scenario = scenario
        self.cluster = RouterCluster(scenario.router_count, seed=scenario.seed, loss=scenario.loss)
        self.workers = {
            f"w{number}": SimulatedWorker(f"w{number}", scenario.blocks_max)
            for number in range(scenario.worker_count)
        }
        self._routers = random.Random(f"{scenario.seed}/routers")
        self._ttft_s: list[float] = []
        self._cached_tokens = 0
        self._tokens = 0

    def run(
        self, requests: Sequence[TraceRequest], progress: Callable[[int], None] | None
    ) -> RoutingReport:
        """Do it all."""
        cluster, scenario = self.cluster, self.scenario
        cluster.start()
        if scenario.own is not None:
            for host in cluster.hosts:
                host.node.sync.policy_types.register(scenario.policy, make=scenario.own)
        cluster.use(cluster.hosts[0], lambda node, _: self._configure(node))
        cluster.advance(cluster.now + 2.0)
        start_s, bytes_before = cluster.now, cluster.network.bytes_sent
        if scenario.told is Told.REPORTED:
            cluster.schedule(start_s + scenario.report_s, self._report_loads)
        if scenario.partition_s is not None:
            self._plan_partition(start_s, *scenario.partition_s)
        step = max(1, len(requests) // PROGRESS_STEPS)
        for count, (at_s, request) in enumerate(spread_arrivals(requests, rate=scenario.rate), 1):
            cluster.advance(start_s + at_s)
            self._arrive(request)
            if progress is not None and (count % step == 0 or count == len(requests)):
                progress(count)
        work = [worker.work_s for worker in self.workers.values()]
        return RoutingReport(
            policy=scenario.policy,
            request_count=len(requests),
            hit_rate=self._cached_tokens / self._tokens,
            ttft_s=tuple(sorted(self._ttft_s)),
            work_max_over_mean=max(work) * len(work) / sum(work),
            gossip_bytes=cluster.network.bytes_sent - bytes_before,
        )

    def _configure(self, node: MeshNode) -> None:
        scenario = self.scenario
        config = dict(scenario.config)
        kind = POLICIES.get(scenario.policy)
        if kind is None or "max_tree_size" in kind.RANGES:
            # As an operator would set it: the tree knows about as much as the workers hold.
            room = scenario.worker_count * scenario.blocks_max * BLOCK_CHARACTERS
            config.setdefault("max_tree_size", min(room, 1 << 26))
        node.sync.sync_policy_state(MODEL, policy_type=scenario.policy, config=json.dumps(config))
        for worker_id in self.workers:
            node.sync.sync_worker_state(
                worker_id, model_id=MODEL, url=f"http://{worker_id}", health=True, load=0.0
            )

    def _arrive(self, request: TraceRequest) -> None:
        cluster, scenario = self.cluster, self.scenario
        host = cluster.hosts[self._routers.randrange(scenario.router_count)]
        text = text_of(request.blocks)
        now = cluster.now
        is_shared = scenario.told is Told.SHARED

        def decide(node: MeshNode, local: float) -> tuple[str, str | None]:
            decision = node.route(MODEL, text, tokens=request.input_tokens, now=local)
            assert decision.worker_id is not None
            if is_shared:
                return decision.worker_id, node.begin(decision, now=local)
            if scenario.told is Told.COUNTS:
                return decision.worker_id, node.begin(decision.worker_id, now=local)
            return decision.worker_id, None

        worker_id, request_id = cluster.use(host, decide)
        worker = self.workers[worker_id]
        service = worker.serve(request, now)
        worker.in_flight += 1
        self._ttft_s.append(service.first_token_at - now)
        self._cached_tokens += service.cached_tokens
        self._tokens += request.input_tokens
        cluster.schedule(service.ends_at, self._end, host, worker, request_id)
        if is_shared:
            cluster.schedule(service.first_token_at, self._first_token, host, request_id)

    def _first_token(self, _now: float, host: Any, request_id: str) -> None:
        self.cluster.use(host, lambda node, local: node.first_token(request_id, now=local))

    def _end(self, _now: float, host: Any, worker: SimulatedWorker, request_id: str | None) -> None:
        worker.in_flight -= 1
        if request_id is not None:
            self.cluster.use(host, lambda node, local: node.end(request_id, now=local))

    def _report_loads(self, now: float) -> None:
        """Write the loads of all workers, as whoever watches them would."""

        def write(node: MeshNode, _local: float) -> None:
            for worker in self.workers.values():
                node.sync.sync_worker_state(
                    worker.worker_id,
                    model_id=MODEL,
                    url=f"http://{worker.worker_id}",
                    health=True,
                    load=float(worker.in_flight),
                )

        self.cluster.use(self.cluster.hosts[0], write)
        self.cluster.schedule(now + self.scenario.report_s, self._report_loads)

    def _plan_partition(self, start_s: float, from_s: float, until_s: float) -> None:
        half = self.cluster.hosts[: len(self.cluster.hosts) // 2]

        def begin(_now: float) -> None:
            cuts = self.cluster.partition(half)
            self.cluster.schedule(start_s + until_s, lambda _now: self.cluster.heal(cuts))

        self.cluster.schedule(start_s + from_s, begin)
