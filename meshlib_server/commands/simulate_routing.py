"""The command `meshlib-server simulate routing`: routing policies on anybody's own trace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from meshlib.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.testing import RoutingReport, RoutingScenario, TraceRequest
    from meshlib_server.commands.screen import Screen

__all__ = ["routing"]

EXIT_USAGE: Final = 2
EXIT_EXTRA: Final = 3
EXIT_INTERRUPTED: Final = 130

COMPARED: Final = ("round_robin", "least_loaded", "rendezvous", "cache_aware", "expected_time")
"""What is compared where no policy is named."""

EPILOG: Final = """\
\b
A trace has one JSON object a line, as Mooncake's have:
  {"timestamp": 27000, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
timestamp in milliseconds; a number in hash_ids for each block of 512 tokens.

\b
Examples:
  meshlib-server simulate routing --trace trace.jsonl
  meshlib-server simulate routing --trace trace.jsonl --policy expected_time --rate 2.0 --json
  meshlib-server simulate routing --trace trace.jsonl --loss 0.1 --plot ttft.svg
"""


@click.command(epilog=EPILOG)
@click.option(
    "--trace",
    "trace_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The prompts, in Mooncake's format.",
)
@click.option(
    "--policy",
    "policies",
    metavar="NAME",
    multiple=True,
    help=f"May be repeated.  [default: {', '.join(COMPARED)}]",
)
@click.option("--config", default="{}", metavar="JSON", help="The configuration of the policy.")
@click.option("--routers", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--workers", type=click.IntRange(1, 1024), default=8, show_default=True)
@click.option(
    "--blocks",
    type=click.IntRange(1),
    default=8000,
    show_default=True,
    help="Of 512 tokens, that a worker has room for.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many times as fast as in the trace requests arrive.",
)
@click.option(
    "--loss",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the packets between routers that are lost.",
)
@click.option(
    "--told",
    type=click.Choice(["nothing", "reported", "counts", "shared"]),
    default="shared",
    show_default=True,
    help="What routers learn of the requests that they have sent.",
)
@click.option(
    "--report-every",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often loads are written, with --told reported.",
)
@click.option("--requests", type=click.IntRange(1), help="Only the first of the trace.")
@click.option("--seed", default=0, show_default=True, help="The same seed is the same run.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object for each policy.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the times to the first token into this .svg, .png or .pdf (extra `plot`).",
)
@click.option("--quiet", is_flag=True, help="Say nothing on standard error while it runs.")
def routing(**options: Any) -> None:
    """Compare routing policies on a trace of prompts: in time to the first token.

    The routers are the nodes that run in production, over a simulated network; the workers are a
    queue each, a prefill of 0.05 ms a token, and a cache of the blocks used last. Arrivals are
    spread within equal time stamps. The same seed gives the same figures.
    """
    screen = _screen(options)
    try:
        _run(options, screen)
    except LocalError as error:
        _fail(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)


def _fail(message: str, exit_code: int) -> NoReturn:
    line = " ".join(message.split())
    click.echo(f"meshlib-server: {line}", err=True)
    sys.exit(exit_code)


def _screen(options: dict[str, Any]) -> Screen:
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
    if options["plot"] is not None:
        from meshlib_server.commands.charts import PlotError, check_plot

        try:
            check_plot(options["plot"])
        except PlotError as error:
            _fail(str(error), EXIT_EXTRA if "extra" in str(error) else EXIT_USAGE)
    return Screen(is_quiet=options["quiet"])


def _scenarios(options: dict[str, Any]) -> list[RoutingScenario]:
    from meshlib.testing import RoutingScenario, Told

    try:
        config = json.loads(options["config"])
    except ValueError as error:
        raise ConfigError(f"--config: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError("--config: expected a JSON object")
    return [
        RoutingScenario(
            policy=policy,
            config=config,
            router_count=options["routers"],
            worker_count=options["workers"],
            blocks_max=options["blocks"],
            rate=options["rate"],
            loss=options["loss"],
            told=Told(options["told"]),
            report_s=options["report_every"],
            seed=options["seed"],
        )
        for policy in options["policies"] or COMPARED
    ]


def _run(options: dict[str, Any], screen: Screen) -> None:
    from meshlib.testing import read_trace

    scenarios = _scenarios(options)
    requests = read_trace(options["trace_path"], count_max=options["requests"])
    reports = []
    for scenario in scenarios:
        report = _replay(requests, scenario, screen)
        reports.append(report)
        if options["is_json"]:
            click.echo(report.to_json())
    if not options["is_json"]:
        for line in _table(reports):
            click.echo(line)
    if options["plot"] is not None:
        from meshlib_server.commands.charts import PlotError, save_ttft_plot

        title = (
            f"{len(requests):,} requests at {options['rate']:g} times the trace's rate, "
            f"{options['routers']} routers, {options['workers']} workers, "
            f"{options['loss']:.0%} loss"
        )
        try:
            save_ttft_plot(reports, options["plot"], title=title)
        except PlotError as error:
            _fail(str(error), EXIT_USAGE)


def _replay(
    requests: Sequence[TraceRequest], scenario: RoutingScenario, screen: Screen
) -> RoutingReport:
    from meshlib.testing import replay

    with screen.progress(scenario.policy, total=len(requests), unit="") as advance:
        return replay(requests, scenario, progress=advance)


def _table(reports: Sequence[RoutingReport]) -> list[str]:
    times = f"{'TTFT mean':>12}{'p50':>11}{'p95':>11}{'p99':>11}"
    lines = [f"{'policy':<16}{'hit rate':>9}{times}{'work max/mean':>15}{'bytes/request':>15}"]
    for report in reports:
        p50, p95, p99 = (report.ttft_ms(share) for share in (0.5, 0.95, 0.99))
        lines.append(
            f"{report.policy:<16}{report.hit_rate:>9.3f}{report.ttft_mean_ms:>9,.0f} ms"
            f"{p50:>8,.0f} ms{p95:>8,.0f} ms{p99:>8,.0f} ms"
            f"{report.work_max_over_mean:>15.2f}{report.gossip_bytes_per_request:>15,.0f}"
        )
    return lines
