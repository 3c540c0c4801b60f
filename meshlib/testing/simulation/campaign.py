"""Many seeds, on several processes: which fail, and which interesting states were reached."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from attrs import evolve, field, frozen

from meshlib.hashing import hash64
from meshlib.testing.checkers.sometimes import SOMETIMES
from meshlib.testing.simulation.outcome import Outcome
from meshlib.testing.simulation.requests import ScenarioRequest
from meshlib.testing.simulation.simulation import Simulation

__all__ = ["Campaign", "run_campaign"]

SEEDS_PER_TASK: Final = 4

GC_THRESHOLD: Final = 20_000
"""New objects after which a process looks for garbage: at Python's 700 it takes 7 % of a run."""


@frozen(slots=True, kw_only=True)
class Campaign:
    """What came of many seeds.

    Args:
        seed_count: how many were run.
        event_count: things that happened in all of them.
        failures: the outcomes of the seeds that failed, by seed.
        sometimes: how often each interesting state was reached.
        convergence_s: how long each seed took to agree after the faults; sorted.
        trace_digest: equal for equal histories of all seeds.
    """

    seed_count: int
    event_count: int
    failures: tuple[Outcome, ...]
    sometimes: dict[str, int] = field(factory=dict)
    convergence_s: tuple[float, ...] = ()
    trace_digest: str = ""

    @property
    def never(self) -> list[str]:
        """The interesting states that no seed reached."""
        return [name for name in SOMETIMES if not self.sometimes.get(name)]

    @property
    def summary(self) -> str:
        """What came of it, in one line."""
        longest = max(self.convergence_s, default=0.0)
        return (
            f"{self.seed_count:,} seeds, {self.event_count:,} events, "
            f"{len(self.failures)} failed, agreed after {longest:.1f} s at the latest"
        )

    def to_json(self) -> str:
        """Return what came of it as JSON; the same bytes for the same seeds."""
        tree = {
            "seed_count": self.seed_count,
            "event_count": self.event_count,
            "failures": [json.loads(outcome.to_json()) for outcome in self.failures],
            "sometimes": self.sometimes,
            "never": self.never,
            "agreed_after_s_max": max(self.convergence_s, default=None),
            "trace_digest": self.trace_digest,
        }
        return json.dumps(tree, sort_keys=True, indent=2)

    def __str__(self) -> str:
        lines = [str(outcome) for outcome in self.failures]
        lines += [f"never reached: {name} ({SOMETIMES[name]})" for name in self.never]
        return "\n".join([*lines, self.summary])


def run_campaign(
    seeds: Iterable[int],
    *,
    request: ScenarioRequest | None = None,
    jobs: int | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> Campaign:
    """Simulate many seeds.

    Args:
        seeds: which.
        request: what is simulated with each seed; everything is drawn without one.
        jobs: processes; as many as there are cores without it, 1 for this one alone.
        progress: is given each outcome as it comes, in the order of the seeds.

    Raises:
        ConfigError: names what cannot hold in the request.
        InvalidValueError: likewise.
    """
    tasks = [evolve(request or ScenarioRequest(), seed=seed) for seed in seeds]
    for task in tasks[:1]:
        task.scenario()  # what cannot hold is told here, and not by another process
    count = jobs if jobs is not None else os.cpu_count() or 1
    failures: list[Outcome] = []
    convergence: list[float] = []
    sometimes = dict.fromkeys(SOMETIMES, 0)
    events = digest = 0
    for outcome in _outcomes(tasks, count):
        events += outcome.event_count
        digest = hash64(outcome.trace_digest.encode(), digest)
        for name, times in outcome.sometimes.items():
            sometimes[name] += times
        if outcome.failure is not None:
            failures.append(outcome)
        if outcome.converged_after_s is not None:
            convergence.append(outcome.converged_after_s)
        if progress is not None:
            progress(outcome)
    return Campaign(
        seed_count=len(tasks),
        event_count=events,
        failures=tuple(failures),
        sometimes=sometimes,
        convergence_s=tuple(sorted(convergence)),
        trace_digest=f"{digest:016x}",
    )


def _outcomes(tasks: list[ScenarioRequest], jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        yield from map(_run, tasks)
        return
    context = multiprocessing.get_context("spawn")
    # An executor says so when one of its processes is killed; a pool would wait for ever.
    workers = min(jobs, len(tasks) or 1)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_collect_rarely) as executor:
        yield from executor.map(_run, tasks, chunksize=SEEDS_PER_TASK)


def _collect_rarely() -> None:
    """Let a process that only simulates look for garbage less often: a cluster has little."""
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _run(task: ScenarioRequest) -> Outcome:
    return Simulation(task.scenario()).run()
