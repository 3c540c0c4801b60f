"""`meshlib-server plan`: what a cluster will take, computed from what was measured.

Exit codes: 0, 1 when the nodes would not keep up, 2 for a request that makes no sense.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from attrs import asdict

from meshlib.errors import ConfigError
from meshlib_server.planning import MEASURED, Load, Plan

__all__ = ["plan"]

EXIT_TOO_MUCH = 1

OVER_0 = click.FloatRange(0)


@click.command()
@click.option("--nodes", type=int, required=True, help="Nodes of the cluster.")
@click.option("--regions", default=1, show_default=True, help="Regions of one size.")
@click.option("--writes", type=OVER_0, default=0.0, help="Writes a second, of the whole cluster.")
@click.option("--routes", type=OVER_0, default=0.0, help="Routed requests a second, likewise.")
@click.option("--prompt", default=8000, show_default=True, help="Characters of a routed prompt.")
@click.option("--tree", default=0, help="Characters that the trees hold in the end.")
@click.option("--value", default=20, show_default=True, help="Bytes of a written value.")
@click.option(
    "--between-ms", default=40.0, show_default=True, help="From region to region, one way."
)
@click.option("--json", "is_json", is_flag=True, help="As JSON, on one line.")
def plan(
    *,
    nodes: int,
    regions: int,
    writes: float,
    routes: float,
    prompt: int,
    tree: int,
    value: int,
    between_ms: float,
    is_json: bool,
) -> None:
    """Compute bytes, CPU and memory of a node, and the time until everybody has a write.

    From constants that were measured, which are printed with their source. CPU and memory are of
    the machine on which they were: take them for a third more or less.
    """
    from meshlib_server.planning import plan as compute

    try:
        load = Load(
            nodes=nodes,
            regions=regions,
            writes_per_s=writes,
            routes_per_s=routes,
            prompt_characters=prompt,
            tree_characters=tree,
            value_bytes=value,
            between_ms=between_ms,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    found = compute(load)
    click.echo(json.dumps(_as_json(found)) if is_json else _as_text(found))
    if found.problems:
        sys.exit(EXIT_TOO_MUCH)


def _as_json(found: Plan) -> dict[str, Any]:
    """Return a plan for programs: every figure with its unit in its name."""
    node = found.node
    return {
        "load": asdict(found.load),
        "node": {
            "bytes_per_s": node.bytes_per_s,
            "frames_per_s": node.frames_per_s,
            "cpu_ms_per_s": node.cpu_ms_per_s,
            "memory_bytes": node.memory_bytes,
            "by_part": asdict(node),
        },
        "bridge_bytes_per_s": found.bridge_bytes_per_s,
        "hops": found.hops,
        "spread_ms": found.spread_ms,
        "problems": list(found.problems),
        "measured": [asdict(each) for each in MEASURED.values()],
    }


def _as_text(found: Plan) -> str:
    """Return a plan for people: a table of the parts, and where the figures are from."""
    node, load = found.node, found.load
    lines = [
        f"{load.nodes:,} nodes in {load.regions} region{'s' * (load.regions > 1)}",
        f"{load.writes_per_s:,g} writes and {load.routes_per_s:,g} routed requests a second",
        "",
        f"{'each node':24}{'sends, B/s':>14}{'CPU, ms/s':>12}",
    ]
    for part, sent in node.bytes_by_part.items():
        lines.append(f"  {part:22}{sent:>14,.0f}{node.cpu_by_part[part]:>12,.1f}")
    lines += [
        f"  {'in all':22}{node.bytes_per_s:>14,.0f}{node.cpu_ms_per_s:>12,.1f}",
        f"  frames sent, a second   {node.frames_per_s:,.1f}",
        f"  memory                  {node.memory_bytes / 1e6:,.0f} MB",
        "",
        f"a write is everywhere after {found.spread_ms:,.1f} ms, over {found.hops} hops at most",
    ]
    if found.bridge_bytes_per_s:
        lines.append(
            f"a node that joins two regions sends {found.bridge_bytes_per_s:,.0f} B/s more"
        )
    lines += [f"problem: {problem}" for problem in found.problems]
    lines += ["", "measured:"]
    lines += [
        f"  {each.value:>9,g} {each.unit:5} {each.what} ({each.source})"
        for each in MEASURED.values()
    ]
    return "\n".join(lines)
