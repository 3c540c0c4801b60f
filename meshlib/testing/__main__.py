"""`python -m meshlib.testing`: simulate seeds, replay one, make a failing one smaller."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from attrs import evolve

from meshlib.testing.campaign import run_campaign
from meshlib.testing.faults import Scenario, draw_scenario
from meshlib.testing.minimiser import keep_incidents, minimise, without_faults
from meshlib.testing.outcome import Failure
from meshlib.testing.simulator import Simulation

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 when a seed failed."""
    options = _parser().parse_args(arguments)
    if options.seeds:
        first, _, last = options.seeds.partition("-")
        seeds = range(int(first), int(last or first) + 1)
        campaign = run_campaign(
            seeds, duration_s=options.seconds, node_count=options.nodes, jobs=options.jobs
        )
        sys.stdout.write(f"{campaign}\n")
        return 1 if campaign.failures else 0
    scenario = _scenario(options)
    if options.minimise:
        return _minimise(scenario)
    write = sys.stdout.write
    if options.trace:
        for incident in scenario.incidents:
            write(f"{incident}\n")
    outcome = Simulation(scenario, trace=_print if options.trace else None).run()
    write(outcome.to_json() + "\n" if options.json else f"{outcome}\n")
    return 0 if outcome.failure is None else 1


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _scenario(options: argparse.Namespace) -> Scenario:
    scenario = draw_scenario(options.seed, node_count=options.nodes, duration_s=options.seconds)
    if options.keep is not None:
        kept = [] if options.keep == "none" else [int(part) for part in options.keep.split(",")]
        scenario = keep_incidents(scenario, kept)
    if options.without:
        scenario = without_faults(scenario, options.without.split(","))
    return scenario if options.until is None else evolve(scenario, duration_s=options.until)


def _minimise(scenario: Scenario) -> int:
    def run(candidate: Scenario) -> Failure | None:
        failure = Simulation(candidate).run().failure
        mark = "." if failure is None else "!"
        sys.stderr.write(mark)
        sys.stderr.flush()
        return failure

    smallest = minimise(scenario, run)
    lines = [
        "",
        f"{smallest.failure.rule}: {smallest.failure.detail}",
        *(str(incident) for incident in smallest.scenario.incidents),
        str(smallest.scenario.network),
        f"after {smallest.runs} runs; replay: {smallest.replay_command}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m meshlib.testing", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the run")
    parser.add_argument("--seeds", help="a campaign of seeds, as 0-299")
    parser.add_argument("--jobs", type=int, help="processes of a campaign; one for each core")
    parser.add_argument("--nodes", type=int, help="machines at the start; drawn without it")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated, with faults")
    parser.add_argument("--until", type=float, help="end the faults sooner than drawn for")
    parser.add_argument("--keep", help="only these incidents, by number, as 3,5; or none")
    parser.add_argument("--without", help="not these faults of the network, as loss,replay")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--minimise", action="store_true", help="make a failing run smaller")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
