"""The spread of writes as a chart, in a terminal and as a picture; times to a first token as one.

Time is on a logarithmic axis: a write takes milliseconds without faults, and as long as the cut
lasts to those behind one.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meshlib.testing import RoutingReport, SpreadReport

__all__ = [
    "PICTURE_FORMATS",
    "PlotError",
    "check_plot",
    "draw_chart",
    "save_plot",
    "save_ttft_plot",
    "written_duration",
]

PICTURE_FORMATS: Final = (".svg", ".png", ".pdf")

SHORTEST_S: Final = 0.001
"""Where the axis begins at the latest: nothing in a simulated network is faster by much."""

AXIS_WIDTH: Final = 7
BRAILLE: Final = 0x2800
DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille character, by row and column."""


class PlotError(Exception):
    """A picture cannot be made: says why, and what to do."""


def written_duration(seconds: float) -> str:
    """Return a duration for a reader: `0.4 ms`, `35 ms`, `1.2 s`."""
    if seconds < 0.0099:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.99 else f"{seconds:.1f} s"


def _limits(report: SpreadReport) -> tuple[float, float]:
    """Return the powers of ten between which all arrivals are."""
    first, last = report.arrivals_s[0], report.arrivals_s[-1]
    low = 10.0 ** math.floor(math.log10(min(max(first, 1e-6), SHORTEST_S)))
    high = 10.0 ** math.ceil(math.log10(max(last, 10 * SHORTEST_S)))
    return low, high


def draw_chart(
    report: SpreadReport, *, width: int = 72, height: int = 10, is_unicode: bool = True
) -> list[str]:
    """Return the spread as lines of text.

    Args:
        report: what is drawn; it has arrivals.
        width: characters of a line.
        height: lines of the drawing, beside two for the axis.
        is_unicode: whether braille characters can be shown; asterisks stand for them otherwise.
    """
    low, high = _limits(report)
    columns = max(10, width - AXIS_WIDTH - 1)
    across, up = (2, 4) if is_unicode else (1, 1)
    grid = [[0] * columns for _ in range(height)]
    last_row: int | None = None
    for x in range(columns * across):
        seconds = low * (high / low) ** (x / (columns * across - 1))
        row = round((1.0 - report.share_by(seconds)) * (height * up - 1))
        # A line, and not dots: what lies between this column and the one before is filled.
        rows = range(row, row + 1) if last_row is None else range(row, max(row + 1, last_row))
        for filled in rows:
            bit = DOTS[filled % up][x % across]
            grid[filled // up][x // across] |= bit
        last_row = row
    lines = []
    for index, cells in enumerate(grid):
        share = 1.0 - index / (height - 1)
        label = f"{share:.0%}" if index % 3 == 0 else ""
        drawn = "".join(
            " " if not bits else chr(BRAILLE + bits) if is_unicode else "*" for bits in cells
        )
        lines.append(f"{label:>{AXIS_WIDTH - 1}} {'┤' if is_unicode else '|'}{drawn}".rstrip())
    return [*lines, *_time_axis(low, high, columns, is_unicode=is_unicode)]


def _tick(seconds: float) -> str:
    return written_duration(seconds).replace(".0 ", " ")


def _time_axis(low: float, high: float, columns: int, *, is_unicode: bool) -> list[str]:
    decades = round(math.log10(high / low))
    line = ["─" if is_unicode else "-"] * columns
    labels = [" "] * (columns + 6)
    for decade in range(decades + 1):
        x = round(decade * (columns - 1) / decades)
        line[x] = "┴" if is_unicode else "+"
        label = _tick(low * 10.0**decade)
        start = min(max(0, x - len(label) // 2), columns - len(label))
        labels[start : start + len(label)] = label
    margin = " " * AXIS_WIDTH
    corner = "└" if is_unicode else "+"
    return [f"{margin}{corner}{''.join(line)}", f"{margin} {''.join(labels)}".rstrip()]


def check_plot(path: Path) -> None:
    """Look whether a picture can be made, before a long run.

    Raises:
        PlotError: matplotlib is missing, or the path is not one of a picture in a folder.
    """
    if path.suffix not in PICTURE_FORMATS:
        raise PlotError(f"{path}: a picture ends in {', '.join(PICTURE_FORMATS)}")
    if not path.parent.is_dir():
        raise PlotError(f"{path}: there is no folder {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotError(
            "--plot needs the extra `plot`: pip install 'meshlib-crdt[server,testing,plot]'"
        )


def save_plot(report: SpreadReport, path: Path, *, title: str) -> None:
    """Write the spread as a picture; the same run gives the same bytes of SVG.

    Raises:
        PlotError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    with rc_context({"svg.hashsalt": "meshlib", "svg.fonttype": "path"}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        low, high = _limits(report)
        curve = [*report.curve(points=400), (high, report.share_by(high))]
        times = [max(low, seconds) for seconds, _ in curve]
        axes.step(times, [share for _, share in curve], where="post", linewidth=2)
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            seconds = report.quantile(quantile)
            if seconds is not None:
                axes.axvline(seconds, linestyle=":", color="0.4", linewidth=1)
                axes.annotate(
                    f"everywhere, {name}: {written_duration(seconds)}",
                    (seconds, 0.03),
                    xytext=(-3, 0),
                    textcoords="offset points",
                    rotation=90,
                    ha="right",
                    fontsize=8,
                    color="0.3",
                )
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("after the write")
        axes.set_ylabel("share of the other nodes that have it")
        axes.set_title(title, fontsize=10)
        axes.grid(visible=True, which="major", alpha=0.3)
        try:
            figure.savefig(path, dpi=150, metadata=_metadata(path))
        except OSError as error:
            raise PlotError(f"{path}: {error.strerror or error}") from error


def save_ttft_plot(reports: Sequence[RoutingReport], path: Path, *, title: str) -> None:
    """Write, for each policy, which share of the requests had their first token by when.

    Raises:
        PlotError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    with rc_context({"svg.hashsalt": "meshlib", "svg.fonttype": "path"}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for report in reports:
            count = len(report.ttft_s)
            steps = sorted({(count - 1) * step // 200 for step in range(201)})
            axes.step(
                [max(SHORTEST_S, report.ttft_s[step]) for step in steps],
                [(step + 1) / count for step in steps],
                where="post",
                linewidth=2,
                label=f"{report.policy}: mean {report.ttft_mean_ms:,.0f} ms",
            )
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("from the arrival of a request to its first token")
        axes.set_ylabel("share of the requests")
        axes.set_title(title, fontsize=10)
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=8, loc="upper left")
        try:
            figure.savefig(path, dpi=150, metadata=_metadata(path))
        except OSError as error:
            raise PlotError(f"{path}: {error.strerror or error}") from error


def _metadata(path: Path) -> dict[str, None]:
    """Return what leaves the date out of a picture, by its format."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
