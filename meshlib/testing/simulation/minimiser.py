"""Makes a failing scenario smaller: fewer incidents, fewer faults, a shorter run.

What is left still breaks the same rule. Taking something out changes the history of the run and
not only what is taken, so a step is kept when the rule still breaks, wherever and whenever.
Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve, frozen

from meshlib.errors import InvalidValueError
from meshlib.testing.simulation.outcome import Failure
from meshlib.testing.simulation.requests import (
    CALM,
    NETWORK_FAULTS,
    keep_incidents,
    replay_arguments,
    replay_command,
    without_faults,
)
from meshlib.testing.world.scenario import Incident, Scenario

__all__ = ["Minimised", "minimise"]

RUNS_MAX: Final = 200
"""Runs that a minimisation may take."""

Run = Callable[[Scenario], Failure | None]


@frozen(slots=True, kw_only=True)
class Minimised:
    """The smallest scenario found.

    Args:
        scenario: it.
        failure: what it still breaks.
        runs: how many runs it took.
        left_out: names of the network's faults that are not needed.
    """

    scenario: Scenario
    failure: Failure
    runs: int
    left_out: tuple[str, ...]

    @property
    def replay_arguments(self) -> str | None:
        """The arguments of the command that makes this run again; None without one."""
        return replay_arguments(self.scenario)

    @property
    def replay_command(self) -> str:
        """The command that makes this run again."""
        return replay_command(self.replay_arguments)

    def _packet_faults(self) -> list[str]:
        network = self.scenario.network
        return [
            f"{name} {getattr(network, name):g}"
            for name in NETWORK_FAULTS
            if getattr(network, name) != getattr(CALM, name)
        ]

    def __str__(self) -> str:
        return "\n".join(
            (
                f"{self.failure.rule}: {self.failure.detail}",
                *(str(incident) for incident in self.scenario.incidents),
                f"packets: {', '.join(self._packet_faults()) or 'a fast network without faults'}",
                f"found in {self.runs} runs",
            )
        )


def minimise(scenario: Scenario, run: Run, *, runs_max: int = RUNS_MAX) -> Minimised:
    """Make a failing scenario smaller while it breaks the same rule.

    Args:
        scenario: it fails.
        run: makes a run and returns what it breaks.
        runs_max: how many runs it may take; over 0.

    Raises:
        InvalidValueError: the scenario does not fail.
    """
    failure = run(scenario)
    if failure is None:
        raise InvalidValueError(f"seed {scenario.seed} does not fail")
    return _Search(failure, run, runs_max).minimise(scenario)


class _Search:
    """One minimisation: the smallest so far, and how many runs are left."""

    def __init__(self, failure: Failure, run: Run, runs_max: int) -> None:
        self._failure = failure
        self._run = run
        self._left = runs_max - 1
        self._runs = 1

    def minimise(self, scenario: Scenario) -> Minimised:
        """Return the shortest scenario found that still fails the same way."""
        scenario = self._shorten(scenario)
        scenario = self._drop_incidents(scenario)
        left_out = []
        for name in NETWORK_FAULTS:
            smaller = without_faults(scenario, [name])
            if smaller != scenario and self._still_fails(smaller):
                scenario = smaller
                left_out.append(name)
        scenario = self._drop_incidents(scenario)
        return Minimised(
            scenario=scenario,
            failure=self._failure,
            runs=self._runs,
            left_out=tuple(left_out),
        )

    def _still_fails(self, scenario: Scenario) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        self._runs += 1
        failure = self._run(scenario)
        if failure is None or failure.rule != self._failure.rule:
            return False
        self._failure = failure
        return True

    def _shorten(self, scenario: Scenario) -> Scenario:
        """End the faults where the failure showed, and leave out what comes after."""
        at_s = self._failure.at_s + 0.5
        if at_s >= scenario.faults_end_s:
            return scenario
        kept = [incident.number for incident in scenario.incidents if incident.at_s <= at_s]
        shorter = evolve(keep_incidents(scenario, kept), until_s=round(at_s, 1))
        return shorter if self._still_fails(shorter) else scenario

    def _drop_incidents(self, scenario: Scenario) -> Scenario:
        """Leave out incidents in halves, then quarters, then one by one."""
        size = len(scenario.incidents)
        while size >= 1:
            start = 0
            while start < len(scenario.incidents):
                kept = _without_slice(scenario.incidents, start, size)
                smaller = evolve(scenario, incidents=kept)
                if self._still_fails(smaller):
                    scenario = smaller
                else:
                    start += size
            size //= 2
        return scenario


def _without_slice(incidents: Sequence[Incident], start: int, size: int) -> tuple[Incident, ...]:
    return (*incidents[:start], *incidents[start + size :])
