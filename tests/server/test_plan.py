"""`meshlib-server plan`: what it computes, beside the simulator, and what it prints."""

from __future__ import annotations

import json
from copy import copy

import pytest
from click.testing import CliRunner
from support.mini_network import MiniNetwork

from meshlib.errors import ConfigError
from meshlib_server.commands.cli import main
from meshlib_server.planning import MEASURED, Load, plan

WHOLE = ["plan", "--nodes", "1000", "--regions", "3", "--writes", "200"]


def simulated(count: int, writes_per_s: int, seconds: float) -> tuple[float, float]:
    """Return the bytes and frames that a node of a simulated cluster sends in a second."""
    network = MiniNetwork()
    names = [f"node-{index:04}" for index in range(count)]
    for name in names:
        network.start(name, seeds=(names[0],))
    network.run(6.0)
    for turn, name in enumerate(names):
        network.put(name, f"first {turn}", turn)
    network.run(1.0)
    before = [copy(node.counters) for node in network.nodes.values()]
    for turn in range(round(writes_per_s * seconds)):
        network.put(names[turn % count], f"key {turn % 100}", "twenty characters ok")
        network.run(1 / writes_per_s)
    if not writes_per_s:
        network.run(seconds)
    share = 1 / count / seconds
    pairs = list(zip(before, network.nodes.values(), strict=True))
    return (
        share * sum(node.counters.bytes_sent - early.bytes_sent for early, node in pairs),
        share * sum(node.counters.frames_sent - early.frames_sent for early, node in pairs),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "writes_per_s", "seconds"),
    [(3, 0, 20.0), (10, 0, 20.0), (24, 0, 10.0), (3, 10, 5.0), (3, 100, 2.0), (10, 50, 2.0),
     (24, 20, 1.5)],
)  # fmt: skip
def test_bytes_and_frames_are_those_of_the_simulator(
    count: int, writes_per_s: int, seconds: float
) -> None:
    """Within a third, at rest and while the cluster writes."""
    sent, frames = simulated(count, writes_per_s, seconds)
    node = plan(Load(nodes=count, writes_per_s=writes_per_s)).node

    assert 0.75 < node.bytes_per_s / sent < 1.33
    assert 0.75 < node.frames_per_s / frames < 1.33


def test_a_write_is_everywhere_after_as_many_hops_as_in_the_simulator() -> None:
    """What `bench_gossip.py` counted: one in a full mesh, 4 at 32 nodes, 5 at 128, 7 at 1,000."""
    assert [plan(Load(nodes=count)).hops for count in (1, 2, 8, 32, 128, 512, 1000)] == [
        0, 1, 1, 4, 5, 6, 7,
    ]  # fmt: skip


def test_more_of_anything_takes_more() -> None:
    """Nodes, writes, routed requests and longer prompts."""
    least = plan(Load(nodes=20, writes_per_s=10, routes_per_s=10, prompt_characters=100)).node
    for more in (
        Load(nodes=20, writes_per_s=20, routes_per_s=10, prompt_characters=100),
        Load(nodes=20, writes_per_s=10, routes_per_s=20, prompt_characters=100),
        Load(nodes=20, writes_per_s=10, routes_per_s=10, prompt_characters=200),
    ):
        assert plan(more).node.bytes_per_s > least.bytes_per_s
        assert plan(more).node.cpu_ms_per_s >= least.cpu_ms_per_s
    assert plan(Load(nodes=40)).node.memory_bytes > plan(Load(nodes=20)).node.memory_bytes


def test_a_node_alone_sends_nothing() -> None:
    """Whatever is written."""
    alone = plan(Load(nodes=1, writes_per_s=1000))

    assert (alone.node.bytes_per_s, alone.hops, alone.spread_ms) == (0.0, 0, 0.0)


def test_between_regions_a_write_takes_the_way_between_them() -> None:
    """And the bridges carry every write once more."""
    near, far = (
        plan(Load(nodes=30, writes_per_s=5)),
        plan(Load(nodes=30, regions=3, writes_per_s=5, between_ms=70.0)),
    )

    assert far.spread_ms > near.spread_ms + 60.0
    assert near.bridge_bytes_per_s == 0.0 < far.bridge_bytes_per_s


@pytest.mark.parametrize(
    "settings",
    [{"nodes": 0}, {"nodes": 5000}, {"nodes": 3, "regions": 4}, {"nodes": 3, "regions": 0},
     {"nodes": 3, "writes_per_s": -1.0}, {"nodes": 3, "between_ms": float("nan")}],
)  # fmt: skip
def test_a_cluster_that_cannot_be_is_refused(settings: dict[str, float]) -> None:
    """The error names what does not fit."""
    with pytest.raises(ConfigError):
        Load(**settings)  # type: ignore[arg-type]


def test_the_command_prints_what_it_is_computed_from() -> None:
    """Every constant with its unit and what measures it."""
    result = CliRunner().invoke(main, WHOLE)

    assert result.exit_code == 0, result.output
    assert "1,000 nodes in 3 regions" in result.output
    for each in MEASURED.values():
        assert f"{each.what} ({each.source})" in result.output


def test_the_command_as_json_says_the_same() -> None:
    """Every figure with its unit in its name."""
    told = json.loads(CliRunner().invoke(main, [*WHOLE, "--json"]).output)
    found = plan(Load(nodes=1000, regions=3, writes_per_s=200.0, prompt_characters=8000))

    assert told["node"]["bytes_per_s"] == found.node.bytes_per_s
    assert told["spread_ms"] == found.spread_ms
    assert len(told["measured"]) == len(MEASURED)


def test_what_no_node_keeps_up_with_is_a_problem() -> None:
    """It says what takes most, and the exit code is 1."""
    result = CliRunner().invoke(main, [*WHOLE, "--routes", "20000", "--prompt", "8000"])

    assert result.exit_code == 1
    assert "most of it for prompts" in result.output


def test_a_cluster_that_makes_no_sense_is_a_usage_error() -> None:
    """With exit code 2."""
    result = CliRunner().invoke(main, ["plan", "--nodes", "3", "--regions", "9"])

    assert result.exit_code == 2
    assert "regions must be 1 to 3" in result.output
