"""A scenario as a command line asks for it, and the command line that asks for a scenario.

Rule: a replay command is given only if it makes exactly that scenario: it is made, compared, and
not shown otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from attrs import evolve, fields, frozen

from meshlib.errors import ConfigError, InvalidValueError
from meshlib.testing.simulation.scripted import WRITES_PER_S, scripted_scenario
from meshlib.testing.world.drawing import draw_next_share, draw_scenario
from meshlib.testing.world.scenario import IncidentKind, NetworkFaults, Scenario

__all__ = [
    "CALM",
    "NETWORK_FAULTS",
    "ScenarioRequest",
    "keep_incidents",
    "parse_keep",
    "parse_partition",
    "parse_seeds",
    "replay_arguments",
    "replay_command",
    "without_faults",
]

PROGRAM: Final = "python -m meshlib.testing"
"""Runs wherever the library is; `meshlib-server simulate` takes the same arguments."""

CALM: Final = NetworkFaults()
"""A fast network that keeps order and loses nothing."""

NETWORK_FAULTS: Final = tuple(field.name for field in fields(NetworkFaults))

SCRIPTED_NODES: Final = 5


@frozen(slots=True, kw_only=True)
class ScenarioRequest:
    """What somebody wants simulated. The same request gives the same scenario on every process.

    Faults are drawn from the seed, unless some of them are asked for by name.

    Args:
        seed: any integer.
        node_count: machines at the start; drawn without one, or 5.
        duration_s: simulated seconds with faults.
        is_drawn: whether faults are drawn; None to draw them unless one is asked for below.
        loss: the share of packets that are lost.
        partitions: as `10-20` in simulated seconds, or `middle` for the middle third.
        partition_side: machines on one side of a cut.
        writes_per_s: of the whole cluster.
        until_s: end the faults sooner than they were drawn for.
        keep: only these incidents, by their numbers; all with None.
        without: not these faults of the network, by the names of the fields.
        mixes_releases: whether starts are of this release and of the next, as the seed draws.
    """

    seed: int = 0
    node_count: int | None = None
    duration_s: float = 60.0
    is_drawn: bool | None = None
    loss: float | None = None
    partitions: tuple[str, ...] = ()
    partition_side: int | None = None
    writes_per_s: float | None = None
    until_s: float | None = None
    keep: tuple[int, ...] | None = None
    without: tuple[str, ...] = ()
    mixes_releases: bool = False

    def scenario(self) -> Scenario:
        """Return what is asked for.

        Raises:
            ConfigError: names what cannot hold, or what contradicts something else.
            InvalidValueError: there is no such fault of the network.
        """
        scenario = self._drawn() if self._draws() else self._scripted()
        if self.mixes_releases:
            scenario = evolve(scenario, next_share=draw_next_share(self.seed))
        if self.keep is not None:
            scenario = keep_incidents(scenario, self.keep)
        if self.without:
            scenario = without_faults(scenario, self.without)
        return scenario if self.until_s is None else evolve(scenario, until_s=self.until_s)

    def arguments(self) -> str:
        """Return the arguments of a command line that asks for the same."""
        chosen: list[tuple[str, object]] = [("--seed", self.seed)]
        if self.node_count is not None:
            chosen.append(("--nodes", self.node_count))
        chosen.append(("--seconds", f"{self.duration_s!r}".removesuffix(".0")))
        chosen.append(("--faults", "drawn" if self._draws() else "none"))
        chosen += [("--partition", partition) for partition in self.partitions]
        chosen += [
            (flag, f"{value!r}".removesuffix(".0"))
            for flag, value in (
                ("--loss", self.loss),
                ("--partition-side", self.partition_side),
                ("--writes-per-second", self.writes_per_s),
                ("--until", self.until_s),
            )
            if value is not None
        ]
        if self.keep is not None:
            chosen.append(("--keep", ",".join(str(number) for number in self.keep) or "none"))
        if self.without:
            chosen.append(("--without", ",".join(self.without)))
        arguments = [f"{flag} {value}" for flag, value in chosen]
        if self.mixes_releases:
            arguments.append("--mix-releases")
        return " ".join(arguments)

    def _asked_for(self) -> list[str]:
        return [
            flag
            for flag, value in (
                ("loss", self.loss),
                ("partition", self.partitions or None),
                ("partition-side", self.partition_side),
                ("writes-per-second", self.writes_per_s),
            )
            if value is not None
        ]

    def _draws(self) -> bool:
        return not self._asked_for() if self.is_drawn is None else self.is_drawn

    def _drawn(self) -> Scenario:
        if asked_for := self._asked_for():
            raise ConfigError(f"with drawn faults the seed decides on {' and '.join(asked_for)}")
        return draw_scenario(self.seed, node_count=self.node_count, duration_s=self.duration_s)

    def _scripted(self) -> Scenario:
        return scripted_scenario(
            seed=self.seed,
            node_count=SCRIPTED_NODES if self.node_count is None else self.node_count,
            duration_s=self.duration_s,
            loss=self.loss or 0.0,
            partitions=[parse_partition(text, self.duration_s) for text in self.partitions],
            partition_side=self.partition_side,
            writes_per_s=WRITES_PER_S if self.writes_per_s is None else self.writes_per_s,
        )


def parse_partition(text: str, duration_s: float) -> tuple[float, float]:
    """Return from when until when a partition lasts.

    Args:
        text: as `10-20`, or `middle`.
        duration_s: of the run.

    Raises:
        ConfigError: it is neither.
    """
    if text == "middle":
        return round(duration_s / 3, 3), round(2 * duration_s / 3, 3)
    start, _, end = text.partition("-")
    try:
        return float(start), float(end)
    except ValueError:
        raise ConfigError(
            f"a partition is written as 10-20 (in seconds), or middle, not {text!r}"
        ) from None


def parse_seeds(text: str) -> range:
    """Return the seeds of `0-299`, or of `7`.

    Raises:
        ConfigError: it is neither.
    """
    first, _, last = text.partition("-")
    try:
        seeds = range(int(first), int(last or first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds:
        raise ConfigError(f"seeds are written as 0-299, the first one first, not {text!r}")
    return seeds


def parse_keep(text: str) -> tuple[int, ...]:
    """Return the numbers of `3,5`, or none of `none`.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return () if text == "none" else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"incidents are kept as 3,5, or none, not {text!r}") from None


def keep_incidents(scenario: Scenario, numbers: Sequence[int]) -> Scenario:
    """Return a scenario with only some of its incidents, by their numbers."""
    kept = tuple(incident for incident in scenario.incidents if incident.number in numbers)
    return evolve(scenario, incidents=kept)


def without_faults(scenario: Scenario, names: Sequence[str]) -> Scenario:
    """Return a scenario without some of the network's faults, by the names of the fields.

    Raises:
        InvalidValueError: there is no such fault.
    """
    for name in names:
        if name not in NETWORK_FAULTS:
            raise InvalidValueError(f"{name!r}: choose among {', '.join(NETWORK_FAULTS)}")
    network = evolve(scenario.network, **{name: getattr(CALM, name) for name in names})
    return evolve(scenario, network=network)


def replay_arguments(scenario: Scenario) -> str | None:
    """Return the arguments of the command that makes a scenario again.

    Returns:
        None when no command line says it: somebody wrote it down in Python.
    """
    for request in _candidates(scenario):
        try:
            narrowed = _narrowed(request, scenario)
            if _unnumbered(narrowed.scenario()) == _unnumbered(scenario):
                return narrowed.arguments()
        except ConfigError:
            continue
    return None


def replay_command(arguments: str | None) -> str:
    """Return what to type, or what to do when no command line makes the run again."""
    if arguments is None:
        return "Simulation(scenario).run(), with this scenario"
    return f"{PROGRAM} {arguments} --trace"


def _candidates(scenario: Scenario) -> Iterator[ScenarioRequest]:
    base = ScenarioRequest(
        seed=scenario.seed,
        node_count=scenario.node_count,
        duration_s=scenario.duration_s,
        until_s=scenario.until_s,
        mixes_releases=scenario.next_share > 0,
    )
    yield evolve(base, is_drawn=True)
    cuts = [incident for incident in scenario.incidents if incident.kind is IncidentKind.PARTITION]
    sides = {len(cut.names) for cut in cuts} - {scenario.node_count // 2}
    writes_per_s = scenario.tuning.writes_per_s
    yield evolve(
        base,
        is_drawn=False,
        loss=scenario.network.loss or None,
        partitions=tuple(_written(cut.at_s, cut.at_s + cut.duration_s) for cut in cuts),
        partition_side=next(iter(sides), None),
        writes_per_s=None if writes_per_s == WRITES_PER_S else writes_per_s,
    )


def _unnumbered(scenario: Scenario) -> Scenario:
    """Count partitions anew: they draw nothing by their number."""
    if any(incident.kind is not IncidentKind.PARTITION for incident in scenario.incidents):
        return scenario
    incidents = (
        evolve(incident, number=number) for number, incident in enumerate(scenario.incidents)
    )
    return evolve(scenario, incidents=tuple(incidents))


def _written(start_s: float, end_s: float) -> str:
    return "-".join(f"{round(second, 6)!r}".removesuffix(".0") for second in (start_s, end_s))


def _narrowed(request: ScenarioRequest, scenario: Scenario) -> ScenarioRequest:
    """Leave out of a request what the scenario does not have."""
    whole = request.scenario()
    kept = tuple(incident.number for incident in scenario.incidents)
    without = tuple(
        name
        for name in NETWORK_FAULTS
        if getattr(scenario.network, name) != getattr(whole.network, name)
    )
    return evolve(
        request, keep=None if len(kept) == len(whole.incidents) else kept, without=without
    )
