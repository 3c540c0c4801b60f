"""The picture of `bench_ratelimit.py`: what a decision takes, what is admitted of what is due."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

__all__ = ["plot"]

Row = dict[str, Any]

OURS, CREDIT, NAIVE = "#00796b", "#8fbcb6", "#e07b39"
NODES: Final = 8
TIMES: Final = 3.0


def plot(tables: dict[str, list[Row]], folder: Path) -> None:
    """Draw what was measured, as far as it was."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.4))
    _plot_times(left, tables.get("decisions", []), tables.get("rivals", []))
    shown = [row for row in tables.get("accuracy", []) if _is_shown(row)]
    ratios = {"confirmed": OURS, "never": CREDIT, "parts": NAIVE}
    _plot_shapes(middle, list(shown), {f"{name}_ratio": colour for name, colour in ratios.items()})
    middle.set_title("admitted, of what one counter admits", fontsize=10)
    worst = {"window_max": OURS, "never_worst": CREDIT, "wholes_worst": NAIVE}
    _plot_shapes(right, list(shown), worst)
    right.set_title("the fullest second, in limits", fontsize=10)
    right.set_yticklabels([])
    figure.tight_layout()
    figure.savefig(folder / "bench_ratelimit.svg", metadata={"Date": None})
    plt.close(figure)


def _is_shown(row: Row) -> bool:
    """Tell whether a row is one of the shapes of load, on so many nodes."""
    is_of_load = row["limit"] in (300, 20_000) and row["times"] == TIMES and not row["loss"]
    return bool(row["nodes"] == NODES and is_of_load)


def _plot_times(axes: Any, decisions: list[Row], rivals: list[Row]) -> None:
    bars = [
        (f"the owner, keys in turn: {row['keys']:,}", row["admitted_us"], OURS) for row in decisions
    ]
    bars += [
        (row["who"].replace(" on this machine", ""), row["admitted_us"], NAIVE) for row in rivals
    ]
    bars.reverse()
    places = range(len(bars))
    axes.barh(places, [took for _, took, _ in bars], color=[colour for *_, colour in bars])
    for place, (_, took, _) in enumerate(bars):
        axes.text(took, place, f" {took:g}", va="center", fontsize=8)
    axes.set_yticks(places, [name for name, *_ in bars], fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("us of processor time; of Redis, of the wall clock")
    axes.set_title("one decision that admits", fontsize=10)


NAMES: Final = {
    "confirmed_ratio": "confirmed call", "never_ratio": "never waiting",
    "parts_ratio": "an eighth of it for each node", "window_max": "confirmed call",
    "never_worst": "never waiting", "wholes_worst": "all of it for each node",
}  # fmt: skip


def _plot_shapes(axes: Any, rows: list[Row], columns: dict[str, str]) -> None:
    rows.reverse()
    height = 0.8 / len(columns)
    for number, (column, colour) in enumerate(columns.items()):
        places = [place + (1 - number) * height for place in range(len(rows))]
        values = [row[column] for row in rows]
        axes.barh(places, values, height=height, color=colour, label=NAMES[column])
    axes.axvline(1.0, color="#1f1f1f", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["shape"] for row in rows], fontsize=8)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.07), ncols=3)
