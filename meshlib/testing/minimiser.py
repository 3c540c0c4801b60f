"""Makes a failing scenario smaller: fewer incidents, fewer faults, a shorter run.

What is left still breaks the same rule. Taking something out changes the history of the run and
not only what is taken, so a step is kept when the rule still breaks, wherever and whenever.
Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from attrs import evolve, fields, frozen

from meshlib.errors import InvalidValueError
from meshlib.testing.faults import Incident, NetworkFaults, Scenario
from meshlib.testing.outcome import Failure

__all__ = ["Minimised", "keep_incidents", "minimise", "without_faults"]

RUNS_MAX: Final = 200
"""Runs that a minimisation may take."""

CALM: Final = NetworkFaults()
NETWORK_FAULTS: Final = tuple(field.name for field in fields(NetworkFaults))

Run = Callable[[Scenario], Failure | None]


@frozen(slots=True, kw_only=True)
class Minimised:
    """The smallest scenario found.

    Args:
        scenario: it.
        failure: what it still breaks.
        runs: how many runs it took.
        left_out: names of the network's faults that are not needed.
        drawn_for_s: the seconds that the scenario was drawn for.
    """

    scenario: Scenario
    failure: Failure
    runs: int
    left_out: tuple[str, ...]
    drawn_for_s: float

    @property
    def replay_command(self) -> str:
        """The command that makes this run again."""
        kept = ",".join(str(incident.number) for incident in self.scenario.incidents)
        parts = [
            f"python -m meshlib.testing --seed {self.scenario.seed}",
            f"--nodes {self.scenario.node_count} --seconds {self.drawn_for_s:g}",
            f"--until {self.scenario.duration_s:g}",
            f"--keep {kept or 'none'}",
        ]
        if self.left_out:
            parts.append(f"--without {','.join(self.left_out)}")
        return " ".join([*parts, "--trace"])


def keep_incidents(scenario: Scenario, numbers: Collection[int]) -> Scenario:
    """Return a scenario with only some of its incidents, by their numbers."""
    kept = tuple(incident for incident in scenario.incidents if incident.number in numbers)
    return evolve(scenario, incidents=kept)


def without_faults(scenario: Scenario, names: Collection[str]) -> Scenario:
    """Return a scenario without some of the network's faults, by the names of the fields.

    Raises:
        InvalidValueError: there is no such fault.
    """
    for name in names:
        if name not in NETWORK_FAULTS:
            raise InvalidValueError(f"{name!r}: choose among {', '.join(NETWORK_FAULTS)}")
    network = evolve(scenario.network, **{name: getattr(CALM, name) for name in names})
    return evolve(scenario, network=network)


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
        drawn_for_s = scenario.duration_s
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
            drawn_for_s=drawn_for_s,
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
        if at_s >= scenario.duration_s:
            return scenario
        kept = [incident.number for incident in scenario.incidents if incident.at_s <= at_s]
        shorter = evolve(keep_incidents(scenario, kept), duration_s=round(at_s, 1))
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
