"""The pictures of `bench_routing.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]
Case = dict[str, Any]

COLOURS: Final = {
    "expected_time": "#00796b", "cache_aware": "#e07b39", "dynamo": "#6a51a3", "smg": "#d4a72c",
    "rendezvous": "#4878a8", "least_loaded": "#9c9c9c", "power_of_two": "#5f5f5f",
    "round_robin": "#1f1f1f",
}  # fmt: skip

SITUATIONS_TOLD: Final[dict[str, Case]] = {
    "nothing": {"told": "nothing"}, "each 5 s": {"told": "reported", "report_s": 5.0},
    "each 1 s": {"told": "reported", "report_s": 1.0}, "requests": {"told": "counts"},
    "prefill": {"told": "shared"},
}  # fmt: skip

SITUATIONS_FAULTS: Final[dict[str, Case]] = {
    "nothing": {"loss": 0.0}, "10 % lost": {"loss": 0.1}, "25 % lost": {"loss": 0.25},
    "cut for 30 s": {"partition_s": [60.0, 90.0]},
}  # fmt: skip


def plot(tables: dict[str, list[Row]], folder: Path) -> None:
    """Draw the policies into one picture and the situations into another."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "meshlib"
    from matplotlib import pyplot as plt

    rows = tables.get("policies", [])
    rates = sorted({row["rate"] for row in rows})
    figure, panels = plt.subplots(1, max(1, len(rates)), figsize=(11, 4.2))
    for axes, rate in zip(panels if len(rates) > 1 else [panels], rates, strict=True):
        shown = sorted(
            (row for row in rows if row["rate"] == rate), key=lambda row: -row["ttft_mean_ms"]
        )
        names = [f"{row['policy']} ({row['hit_rate']:.2f})" for row in shown]
        places = range(len(shown))
        axes.barh(places, [row["ttft_p95_ms"] for row in shown], color="#c9dede", label="p95")
        axes.barh(places, [row["ttft_mean_ms"] for row in shown], color="#00796b", label="mean")
        for place, row in zip(places, shown, strict=True):
            axes.text(row["ttft_p95_ms"], place, f" {row['ttft_mean_ms']:,.0f}", va="center",
                      fontsize=8)  # fmt: skip
        axes.set_yticks(places, names, fontsize=8)
        axes.margins(x=0.12)
        axes.set_title(f"{rate:g} times the trace's rate", fontsize=10)
        axes.set_xlabel("ms to the first token; hit rate in brackets")
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "bench_routing.svg", metadata={"Date": None})
    plt.close(figure)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4.6))
    plot_routers(left, tables.get("routers", []))
    plot_situations(middle, tables.get("told", []), SITUATIONS_TOLD)
    middle.set_title("what routers are told of loads", fontsize=10)
    plot_situations(right, tables.get("faults", []), SITUATIONS_FAULTS)
    right.set_title("what goes wrong between routers", fontsize=10)
    figure.tight_layout()
    figure.savefig(folder / "bench_routing_situations.svg", metadata={"Date": None})
    plt.close(figure)


def plot_routers(axes: Any, rows: list[Row]) -> None:
    """Draw the mean over the number of routers; small caches dashed."""
    for policy, colour in COLOURS.items():
        for room, style in ((8000, "-"), (2000, "--")):
            shown = sorted(
                (row["router_count"], row["ttft_mean_ms"])
                for row in rows
                if row["policy"] == policy and row["blocks_max"] == room
            )
            label = policy if room == 8000 else None
            axes.plot(*zip(*shown, strict=True) if shown else ((), ()), style, color=colour,
                      marker="o", markersize=3, label=label)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("routers; dashed: room for 2,000 blocks, not 8,000")
    axes.set_ylabel("mean ms to the first token")
    axes.set_title("how many routers, at 2.5 times the rate", fontsize=10)
    axes.legend(fontsize=7, ncols=2, loc="lower left")


def plot_situations(axes: Any, rows: list[Row], situations: dict[str, Case]) -> None:
    """Draw the means of two policies side by side, at both rates."""
    ways = [(policy, rate) for policy in ("cache_aware", "expected_time") for rate in (1.0, 2.5)]
    for number, (policy, rate) in enumerate(ways):
        means = []
        for case in situations.values():
            found = [
                row["ttft_mean_ms"]
                for row in rows
                if row["policy"] == policy
                and row["rate"] == rate
                and all(row.get(name) == value for name, value in case.items())
            ]
            means.append(found[0] if found else 0)
        places = [place + 0.2 * (number - 1.5) for place in range(len(means))]
        shade = COLOURS[policy] + ("" if rate == 2.5 else "88")
        axes.bar(places, means, width=0.19, color=shade, label=f"{policy}, rate {rate:g}")
    axes.set_xticks(range(len(situations)), list(situations), fontsize=8)
    axes.margins(y=0.4)
    axes.legend(fontsize=7)
