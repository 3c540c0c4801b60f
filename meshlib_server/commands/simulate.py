"""`meshlib-server simulate`: a cluster under faults, in one process and under a virtual clock.

Exit codes: 0 when every checker was content, 1 when one found something, 2 for a request that
makes no sense, 3 when an extra is missing. What a program reads goes to standard output, what
only a person wants to see while it lasts to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from attrs import frozen

from meshlib.errors import ConfigError, LocalError
from meshlib_server.commands.simulate_routing import routing

if TYPE_CHECKING:
    from meshlib.testing import Campaign, Failure, Minimised, Outcome, Scenario, ScenarioRequest
    from meshlib_server.commands.screen import Screen

__all__ = ["simulate"]

EXIT_FOUND: Final = 1
EXIT_USAGE: Final = 2
EXIT_EXTRA: Final = 3
EXIT_INTERRUPTED: Final = 130

NODES_MAX: Final = 4_096
OVER_0: Final = click.FloatRange(0, min_open=True)

EPILOG: Final = """\
\b
Examples:
  meshlib-server simulate                                   drawn faults, seed 0
  meshlib-server simulate --nodes 8 --loss 0.25             a bad network, nothing else
  meshlib-server simulate --nodes 6 --partition 10-20 --partition-side 2
  meshlib-server simulate --nodes 32 --loss 0.1 --plot spread.svg
  meshlib-server simulate --seeds 0-99                      a campaign on all cores
  meshlib-server simulate --seed 17 --json                  the same bytes on every run
  meshlib-server simulate routing --help                    routing policies on a trace
"""


@frozen(kw_only=True)
class _Wishes:
    """What is to be done with the run."""

    is_json: bool
    is_traced: bool
    is_minimised: bool
    is_quiet: bool
    plot: Path | None


@click.group(epilog=EPILOG, invoke_without_command=True)
@click.option("--seed", default=0, show_default=True, help="The run: a seed is one history.")
@click.option("--seeds", metavar="A-B", help="A campaign: each of these seeds in turn.")
@click.option("--jobs", type=click.IntRange(1), help="Processes of a campaign.  [default: cores]")
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), help="Nodes at the start.")
@click.option(
    "--seconds",
    type=OVER_0,
    default=60.0,
    show_default=True,
    help="Simulated, with faults; a calm follows.",
)
@click.option(
    "--faults",
    type=click.Choice(["drawn", "none"]),
    help="All kinds, drawn from the seed; or only those named here.  [default: drawn, unless one "
    "of the next four options is given]",
)
@click.option(
    "--loss", type=click.FloatRange(0, 1, max_open=True), help="Share of packets lost, as 0.25."
)
@click.option(
    "--partition",
    "partitions",
    metavar="A-B",
    multiple=True,
    help="Cut the nodes in two from second A to second B, or `middle` for the middle third; may "
    "be repeated.",
)
@click.option(
    "--partition-side", type=int, metavar="N", help="Nodes on one side of a cut.  [default: half]"
)
@click.option(
    "--writes-per-second", type=OVER_0, help="Of the whole cluster.  [default: 5, or drawn]"
)
@click.option("--until", type=OVER_0, metavar="S", help="End the faults sooner than drawn for.")
@click.option("--keep", metavar="NUMBERS", help="Only these incidents, as 3,5; or none.")
@click.option("--without", metavar="FAULTS", help="Not these faults of packets, as loss,replay.")
@click.option("--mix-releases", is_flag=True, help="Some starts are of the next release.")
@click.option("--minimise", is_flag=True, help="Make a run that fails smaller: fewer faults.")
@click.option("--trace", is_flag=True, help="Print everything that happens.")
@click.option("--json", "is_json", is_flag=True, help="Print the outcome and its trace digest.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the spread into this .svg, .png or .pdf (extra `plot`).",
)
@click.option("--quiet", is_flag=True, help="Say nothing on standard error while it runs.")
@click.pass_context
def simulate(context: click.Context, /, **options: Any) -> None:
    """Simulate a cluster under faults, then a calm in which all nodes must agree.

    The nodes are the ones that run in production; time, network, disks and clocks are simulated.
    Checkers look after every event: nothing raises, nothing that was removed comes back, no
    acknowledged write is lost, queues stay bounded. The same seed is the same history, byte for
    byte. When a checker finds something the exit code is 1, and the command that replays it is
    printed.
    """
    if context.invoked_subcommand is not None:
        return
    wishes = _Wishes(
        is_json=options["is_json"],
        is_traced=options["trace"],
        is_minimised=options["minimise"],
        is_quiet=options["quiet"],
        plot=options["plot"],
    )
    screen = _screen(wishes)
    try:
        request = _request(options)
        if options["seeds"]:
            exit_code = _campaign(context, request, options, wishes, screen)
        else:
            exit_code = _one(context, request, wishes, screen)
    except LocalError as error:
        _fail(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    sys.exit(exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    line = " ".join(message.split())
    click.echo(f"meshlib-server: {line}", err=True)
    sys.exit(exit_code)


def _screen(wishes: _Wishes) -> Screen:
    """Import what is optional, before anything takes long."""
    try:
        from meshlib_server.commands.screen import Screen
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        _fail(
            "simulate needs the extra `testing`: pip install 'meshlib-crdt[server,testing]'",
            EXIT_EXTRA,
        )
    if wishes.plot is not None:
        from meshlib_server.commands.charts import PlotError, check_plot

        try:
            check_plot(wishes.plot)
        except PlotError as error:
            _fail(str(error), EXIT_EXTRA if "extra" in str(error) else EXIT_USAGE)
    return Screen(is_quiet=wishes.is_quiet or wishes.is_traced)


def _request(options: dict[str, Any]) -> ScenarioRequest:
    from meshlib.testing import ScenarioRequest, parse_keep

    return ScenarioRequest(
        seed=options["seed"],
        node_count=options["nodes"],
        duration_s=options["seconds"],
        is_drawn=None if options["faults"] is None else options["faults"] == "drawn",
        loss=options["loss"],
        partitions=options["partitions"],
        partition_side=options["partition_side"],
        writes_per_s=options["writes_per_second"],
        until_s=options["until"],
        keep=None if options["keep"] is None else parse_keep(options["keep"]),
        without=tuple(options["without"].split(",")) if options["without"] else (),
        mixes_releases=options["mix_releases"],
    )


def _one(context: click.Context, request: ScenarioRequest, wishes: _Wishes, screen: Screen) -> int:
    """Make one run, and say what came of it."""
    from meshlib.testing import simulate as make_run

    scenario = request.scenario()
    trace: Callable[[str], None] | None = None
    if wishes.is_traced:
        trace = click.echo
        for incident in scenario.incidents:
            click.echo(str(incident))
    with screen.progress("simulating", total=scenario.faults_end_s, unit="s") as advance:
        outcome = make_run(
            scenario,
            trace=trace,
            progress=lambda share: advance(share * scenario.faults_end_s),
        )
    if wishes.is_json:
        click.echo(outcome.to_json())
    elif not wishes.is_traced:
        screen.show_outcome(scenario, outcome)
    if wishes.plot is not None:
        _plot(outcome, scenario, wishes.plot)
    if outcome.failure is None:
        if wishes.is_traced and not wishes.is_json:
            click.echo(str(outcome))
        return 0
    _tell_failure(context, outcome, outcome.failure)
    if wishes.is_minimised:
        _minimise(context, scenario, screen)
    return EXIT_FOUND


def _tell_failure(context: click.Context, outcome: Outcome, failure: Failure) -> None:
    click.echo(
        f"seed {outcome.seed} failed after {failure.at_s:.3f} simulated seconds\n"
        f"{failure.rule}: {failure.detail}\n"
        f"replay: {_command(context, outcome)}",
        err=True,
    )


def _command(context: click.Context, run: Outcome | Minimised) -> str:
    arguments = run.replay_arguments
    return (
        run.replay_command if arguments is None else f"{context.command_path} {arguments} --trace"
    )


def _minimise(context: click.Context, scenario: Scenario, screen: Screen) -> None:
    from meshlib.testing import Simulation, minimise

    runs = 0
    with screen.progress("making it smaller", total=None, unit="runs") as advance:

        def run(candidate: Scenario) -> Failure | None:
            nonlocal runs
            runs += 1
            advance(runs)
            return Simulation(candidate).run().failure

        smallest = minimise(scenario, run)
    click.echo(f"{smallest}\nreplay: {_command(context, smallest)}", err=True)


def _plot(outcome: Outcome, scenario: Scenario, path: Path) -> None:
    from meshlib_server.commands.charts import PlotError, save_plot

    if outcome.spread is None or not outcome.spread.arrivals_s:
        click.echo(f"meshlib-server: no write reached another node; no {path}", err=True)
        return
    title = (
        f"{outcome.spread.followed:,} writes among {scenario.node_count} nodes, "
        f"{scenario.network.loss:.0%} loss, seed {scenario.seed}"
    )
    try:
        save_plot(outcome.spread, path, title=title)
    except PlotError as error:
        _fail(str(error), EXIT_USAGE)


def _campaign(
    context: click.Context,
    request: ScenarioRequest,
    options: dict[str, Any],
    wishes: _Wishes,
    screen: Screen,
) -> int:
    """Make many runs, and say which failed."""
    from meshlib.testing import parse_seeds, run_campaign

    for flag, is_given in (
        ("plot", wishes.plot is not None),
        ("trace", wishes.is_traced),
        ("minimise", wishes.is_minimised),
    ):
        if is_given:
            raise ConfigError(f"--{flag} is for one seed, not for a campaign")
    seeds = parse_seeds(options["seeds"])
    done = failed = 0
    with screen.progress("seeds", total=len(seeds), unit="") as advance:

        def progress(outcome: Outcome) -> None:
            nonlocal done, failed
            done += 1
            failed += outcome.failure is not None
            advance(done, f"seeds ({failed} failed)" if failed else "seeds")

        campaign: Campaign = run_campaign(
            seeds, request=request, jobs=options["jobs"], progress=progress
        )
    if wishes.is_json:
        click.echo(campaign.to_json())
    else:
        screen.show_campaign(campaign)
    for outcome in campaign.failures:
        if outcome.failure is not None:
            _tell_failure(context, outcome, outcome.failure)
    return EXIT_FOUND if campaign.failures else 0


simulate.add_command(routing)
