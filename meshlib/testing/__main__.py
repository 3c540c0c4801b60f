"""`python -m meshlib.testing`: simulate seeds, replay one, make a failing one smaller.

Needs nothing beside the library. `meshlib-server simulate` takes the same arguments, and draws.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from meshlib.errors import LocalError
from meshlib.testing.simulation.campaign import run_campaign
from meshlib.testing.simulation.minimiser import minimise
from meshlib.testing.simulation.outcome import Failure
from meshlib.testing.simulation.requests import ScenarioRequest, parse_keep, parse_seeds
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.scenario import Scenario

__all__ = ["main", "request_of"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 when a seed failed, 2 when it makes no sense."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except LocalError as error:
        sys.stderr.write(f"python -m meshlib.testing: {error}\n")
        return 2


def _run(options: argparse.Namespace) -> int:
    write = sys.stdout.write
    request = _request(options)
    if options.seeds:
        campaign = run_campaign(parse_seeds(options.seeds), request=request, jobs=options.jobs)
        write(campaign.to_json() + "\n" if options.json else f"{campaign}\n")
        return 1 if campaign.failures else 0
    scenario = request.scenario()
    if options.minimise:
        return _minimise(scenario)
    if options.trace:
        for incident in scenario.incidents:
            write(f"{incident}\n")
    outcome = Simulation(scenario, trace=_print if options.trace else None).run()
    write(outcome.to_json() + "\n" if options.json else f"{outcome}\n")
    return 0 if outcome.failure is None else 1


def request_of(arguments: Sequence[str]) -> ScenarioRequest:
    """Return what a command line asks for.

    Raises:
        ConfigError: a part of it cannot be read.
    """
    return _request(_parser().parse_args(arguments))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _request(options: argparse.Namespace) -> ScenarioRequest:
    return ScenarioRequest(
        seed=options.seed,
        node_count=options.nodes,
        duration_s=options.seconds,
        is_drawn=None if options.faults is None else options.faults == "drawn",
        loss=options.loss,
        partitions=tuple(options.partition),
        partition_side=options.partition_side,
        writes_per_s=options.writes_per_second,
        until_s=options.until,
        keep=None if options.keep is None else parse_keep(options.keep),
        without=tuple(options.without.split(",")) if options.without else (),
        mixes_releases=options.mix_releases,
    )


def _minimise(scenario: Scenario) -> int:
    def run(candidate: Scenario) -> Failure | None:
        failure = Simulation(candidate).run().failure
        mark = "." if failure is None else "!"
        sys.stderr.write(mark)
        sys.stderr.flush()
        return failure

    smallest = minimise(scenario, run)
    sys.stdout.write(f"\n{smallest}\nreplay: {smallest.replay_command}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m meshlib.testing", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=0, help="the run")
    add("--seeds", help="a campaign of seeds, as 0-299")
    add("--jobs", type=int, help="processes of a campaign; one for each core")
    add("--nodes", type=int, help="machines at the start; drawn without it")
    add("--seconds", type=float, default=60.0, help="simulated, with faults")
    add("--faults", choices=("drawn", "none"), help="drawn, unless one is named below")
    add("--loss", type=float, help="the share of packets that are lost")
    add("--partition", action="append", default=[], help="as 10-20 in seconds, or middle")
    add("--partition-side", type=int, help="machines on one side of a cut; half of them")
    add("--writes-per-second", type=float, help="of the whole cluster")
    add("--until", type=float, help="end the faults sooner than drawn for")
    add("--keep", help="only these incidents, by number, as 3,5; or none")
    add("--without", help="not these faults of the network, as loss,replay")
    add("--mix-releases", action="store_true", help="some starts are of the next release")
    add("--trace", action="store_true", help="print what happens")
    add("--minimise", action="store_true", help="make a failing run smaller")
    add("--json", action="store_true", help="print the outcome as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
