"""What `meshlib-server simulate` shows to a person: progress, the chart of the spread, a summary.

Rule: this file and `tables.py` alone import rich. Progress goes to standard error, as a live bar
on a terminal and as plain lines elsewhere.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from meshlib.testing import SOMETIMES, Campaign, Outcome, Scenario, SpreadReport
from meshlib_server.commands.charts import draw_chart, written_duration

__all__ = ["Advance", "Screen"]

LINES_PER_RUN: Final = 10
"""How often progress is told where there is no terminal."""

CHART_WIDTH_MAX: Final = 78
NAME_WIDTH: Final = 11


class Advance(Protocol):
    """Tells how far it is."""

    def __call__(self, done: float, label: str | None = None, /) -> None:
        """Tell how much is done, of the total, and under which label."""
        ...


class Screen:
    """Where a person looks.

    Args:
        is_quiet: tell nothing while it lasts.
    """

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._out = Console(highlight=False, soft_wrap=True)
        self._error = Console(stderr=True, highlight=False)

    @contextmanager
    def progress(self, label: str, *, total: float | None, unit: str) -> Iterator[Advance]:
        """Show how far something is while it lasts.

        Args:
            label: what it is.
            total: how much there is to do; None when nobody knows.
            unit: of the total, in lines.
        """
        if self._is_quiet:
            yield lambda _done, _label=None: None
        elif self._error.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self._error, transient=True) as bar:
                task = bar.add_task(label, total=total)

                def advance(done: float, label: str | None = None) -> None:
                    bar.update(task, completed=done, description=label)
                    if total is not None and done >= total and unit:
                        bar.update(task, description="waiting until all agree")

                yield advance
        else:
            yield self._lines(label, total, unit)

    def _lines(self, what: str, total: float | None, unit: str) -> Advance:
        told = 0

        def advance(done: float, label: str | None = None) -> None:
            nonlocal told
            step = int(done) // 10 if total is None else int(LINES_PER_RUN * done / total)
            if step > told:
                told = step
                of = "" if total is None else f" of {total:g}"
                self._error.print(f"{label or what}: {done:g}{of} {unit}".rstrip())

        return advance

    def show_outcome(self, scenario: Scenario, outcome: Outcome) -> None:
        """Print what came of one run."""
        out = self._out
        out.print(f"[bold]seed {outcome.seed}[/bold]: {_described(scenario)}")
        for incident in scenario.incidents:
            out.print(f"  {incident}", markup=False)
        spread = outcome.spread
        if spread is not None and spread.arrivals_s:
            self._show_chart(spread)
        width = min(out.width, CHART_WIDTH_MAX) - NAME_WIDTH
        for name, value in _facts(outcome):
            first, *rest = textwrap.wrap(value, width)
            out.print(f"[bold]{name:<{NAME_WIDTH}}[/bold]{first}")
            for line in rest:
                out.print(" " * NAME_WIDTH + line)
        verdict = (
            "[green]every checker was content[/green]"
            if outcome.failure is None
            else f"[red]a checker found something: {outcome.failure.rule}[/red]"
        )
        out.print(verdict)

    def _show_chart(self, spread: SpreadReport) -> None:
        out = self._out
        is_unicode = out.encoding.lower().replace("-", "").startswith("utf")
        out.print("\nshare of the other nodes that have a write, by the time since it was made")
        width = min(out.width, CHART_WIDTH_MAX)
        for line in draw_chart(spread, width=width, is_unicode=is_unicode):
            out.print(line, style="cyan", markup=False)
        out.print()

    def show_campaign(self, campaign: Campaign) -> None:
        """Print what came of many runs."""
        out = self._out
        out.print("[bold]how often    what[/bold]")
        for name, times in campaign.sometimes.items():
            out.print(f"{times:>9,}    {SOMETIMES[name]}", style=None if times else "red")
        out.print(f"\n{campaign.summary}, trace {campaign.trace_digest}")


def _described(scenario: Scenario) -> str:
    network = scenario.network
    faults = [
        f"{share:.2g} % {what}"
        for what, share in (
            ("of the packets lost", network.loss * 100),
            ("repeated", network.repeat * 100),
            ("replayed late", network.replay * 100),
            ("cut short", network.truncate * 100),
            ("with a bit flipped", network.flip * 100),
            ("misdelivered", network.misdeliver * 100),
        )
        if share
    ]
    if not network.is_ordered:
        faults.append("reordered")
    if network.link_bytes_per_s:
        faults.append(f"{network.link_bytes_per_s:,} bytes/s on each link")
    return (
        f"{scenario.node_count} nodes, {scenario.faults_end_s:g} s with faults, "
        f"{scenario.tuning.writes_per_s:g} writes/s; "
        f"packets {network.delay_min_s * 1000:.1f} ms and more under way"
        + "".join(f", {fault}" for fault in faults)
    )


def _facts(outcome: Outcome) -> Iterator[tuple[str, str]]:
    spread = outcome.spread
    if spread is not None:
        yield (
            "spread",
            f"{spread.followed:,} writes followed, {spread.complete:,} of them everywhere"
            + "".join(
                f", {name} after {written_duration(seconds)}"
                for name, share in (("half", 0.5), ("90 %", 0.9), ("99 %", 0.99))
                if (seconds := spread.quantile(share)) is not None
            ),
        )
    sent, lost = outcome.packets_sent, outcome.packets_lost
    yield "traffic", f"{sent:,} packets, {lost:,} of them lost, {outcome.bytes_sent:,} bytes"
    after = outcome.converged_after_s
    yield (
        "agreement",
        "never" if after is None else f"{after:.1f} s after the faults ended",
    )
    reached = [
        f"{name.replace('_', ' ')} {times:,}" for name, times in outcome.sometimes.items() if times
    ]
    yield "reached", ", ".join(reached) or "nothing out of the ordinary"
    yield "history", f"{outcome.event_count:,} events, trace {outcome.trace_digest}"
