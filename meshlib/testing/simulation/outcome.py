"""What came of a run, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen

from meshlib.testing.simulation.requests import replay_command
from meshlib.testing.simulation.spread import SpreadReport

__all__ = ["Failure", "Outcome"]


@frozen(slots=True, kw_only=True)
class Failure:
    """What a checker found.

    Args:
        rule: the checker's name.
        detail: what was seen, for a reader.
        at_s: when, in simulated seconds.
    """

    rule: str
    detail: str
    at_s: float


@frozen(slots=True, kw_only=True)
class Outcome:
    """One run. The same scenario gives the same outcome on every process.

    Args:
        seed: of the run.
        node_count: machines at the start.
        duration_s: simulated seconds with faults.
        simulated_s: simulated seconds altogether.
        event_count: things that happened.
        packets_sent: by all nodes.
        packets_lost: of them.
        bytes_sent: by all nodes.
        writes: acknowledged ones, to maps.
        incidents: in the schedule.
        converged_after_s: how long after the faults ended all nodes agreed; None if never.
        trace_digest: equal for equal histories.
        sometimes: how often each interesting state was reached.
        failure: what was found; None when all is well.
        replay_arguments: of the command that makes the run again; None without one.
        spread: how the writes spread, when they were followed.
    """

    seed: int
    node_count: int
    duration_s: float
    simulated_s: float
    event_count: int
    packets_sent: int
    packets_lost: int
    bytes_sent: int
    writes: int
    incidents: int
    converged_after_s: float | None
    trace_digest: str
    sometimes: Mapping[str, int]
    failure: Failure | None
    replay_arguments: str | None
    spread: SpreadReport | None = None

    @property
    def replay_command(self) -> str:
        """The command that makes this run again, with every step printed."""
        return replay_command(self.replay_arguments)

    def to_json(self) -> str:
        """Return the outcome as JSON; the same bytes for the same run."""
        tree: dict[str, Any] = asdict(self, filter=lambda field, _: field.name != "spread")
        if self.spread is not None:
            tree["spread"] = {
                "followed": self.spread.followed,
                "complete": self.spread.complete,
                "everywhere_after_s": {
                    name: self.spread.quantile(share)
                    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
                },
                "curve": self.spread.curve(),
            }
        return json.dumps(tree, sort_keys=True, indent=2)

    def __str__(self) -> str:
        if self.failure is None:
            after = "" if self.converged_after_s is None else f"{self.converged_after_s:.1f} s"
            return (
                f"seed {self.seed}: {self.node_count} nodes, {self.writes} writes, "
                f"{self.event_count:,} events, agreed after {after}, trace {self.trace_digest}"
            )
        return (
            f"seed {self.seed} failed after {self.failure.at_s:.3f} simulated seconds\n"
            f"{self.failure.rule}: {self.failure.detail}\nreplay: {self.replay_command}"
        )
