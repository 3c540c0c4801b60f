"""`meshlib-server plan`: what it computes, beside the simulator, and what it prints."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.mini_network import MiniNetwork

from meshlib.errors import ConfigError
from meshlib.sync import MeshSyncManager
from meshlib_server.commands.cli import main
from meshlib_server.planning import MEASURED, Load, plan

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
LETTERS = "abcdefghijklmnopqrstuvwxyz      "
WHOLE = ["plan", "--nodes", "1000", "--regions", "3", "--writes", "200"]


def started(count: int) -> tuple[MiniNetwork, list[str]]:
    """Return a cluster that is at rest, and the names of its nodes."""
    network = MiniNetwork()
    names = [f"node-{index:04}" for index in range(count)]
    for name in names:
        network.start(name, seeds=(names[0],))
    network.run(6.0)
    return network, names


def sent_in(
    network: MiniNetwork, seconds: float, rate: int, act: Callable[[int], None]
) -> tuple[float, float]:
    """Do something at a rate; return the bytes and frames that a node sends in a second."""
    before = [copy(node.counters) for node in network.nodes.values()]
    for turn in range(round(rate * seconds)):
        act(turn)
        network.run(1 / rate)
    if not rate:
        network.run(seconds)
    share = 1 / len(network.nodes) / seconds
    pairs = list(zip(before, network.nodes.values(), strict=True))
    return (
        share * sum(node.counters.bytes_sent - early.bytes_sent for early, node in pairs),
        share * sum(node.counters.frames_sent - early.frames_sent for early, node in pairs),
    )


def within_a_third(planned: float, measured: float) -> bool:
    """Tell whether neither is more than a third more than the other."""
    return 3 * max(planned, measured) < 4 * min(planned, measured)


def simulated(count: int, writes_per_s: int, seconds: float) -> tuple[float, float]:
    """Return what a node of a simulated cluster sends in a second, as bytes and frames."""
    network, names = started(count)
    for turn, name in enumerate(names):
        network.put(name, f"first {turn}", turn)
    network.run(1.0)
    return sent_in(
        network, seconds, writes_per_s,
        lambda turn: network.put(names[turn % count], f"key {turn % 100}", "twenty characters ok"),
    )  # fmt: skip


def routed(count: int, routes_per_s: int, characters: int, seconds: float) -> tuple[float, float]:
    """Return the same while requests are routed, of which 70 % is known."""
    network, names = started(count)
    syncs = {name: MeshSyncManager(network.nodes[name].replica) for name in names}
    for worker in ("w1", "w2"):
        syncs[names[0]].sync_worker_state(
            worker, model_id="m", url=f"http://{worker}", health=True, load=0.0
        )
    rng = random.Random(1)
    known = ["".join(rng.choices(LETTERS, k=round(0.7 * characters))) for _ in range(4)]

    def route(name: str, text: str) -> None:
        syncs[name].route("m", text)
        network.pump(name)

    for text in known:
        route(names[0], text)
        network.run(0.2)

    def act(turn: int) -> None:
        new = "".join(rng.choices(LETTERS, k=characters - len(known[0])))
        route(names[turn % count], known[turn % 4] + new)

    return sent_in(network, seconds, routes_per_s, act)


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

    assert within_a_third(node.bytes_per_s, sent)
    assert within_a_third(node.frames_per_s, frames)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "routes_per_s", "seconds"), [(3, 20, 3.0), (10, 20, 2.0), (24, 20, 1.5)]
)
def test_routed_prompts_are_those_of_the_simulator(
    count: int, routes_per_s: int, seconds: float
) -> None:
    """Within a third: placements are acknowledged as writes are."""
    sent, frames = routed(count, routes_per_s, 8000, seconds)
    node = plan(Load(nodes=count, routes_per_s=routes_per_s, prompt_characters=8000)).node

    assert within_a_third(node.bytes_per_s, sent)
    assert within_a_third(node.frames_per_s, frames)


def test_real_processes_took_what_is_planned() -> None:
    """What `bench_plan.py` kept of 3, 20 and 40 processes: who changes a constant measures anew."""
    kept = json.loads((RESULTS / "bench_plan.json").read_text())
    wrong = []
    for row in kept["rows"]:
        node = plan(Load(nodes=row["n"], writes_per_s=row["writes_per_s"])).node
        if not within_a_third(node.bytes_per_s, row["bytes_per_s"]):
            wrong.append((row["n"], row["writes_per_s"], "bytes", node.bytes_per_s))
        if not within_a_third(node.cpu_ms_per_s, row["cpu_ms_per_s"]):
            wrong.append((row["n"], row["writes_per_s"], "CPU", node.cpu_ms_per_s))

    assert wrong == []
    assert {row["n"] for row in kept["rows"]} == {3, 20, 40}
    assert within_a_third(plan(Load(nodes=3)).spread_ms, kept["spread"]["p50_ms"])


def test_a_thousand_simulated_nodes_took_what_is_planned() -> None:
    """What `bench_scale.py` kept, at rest, while the cluster writes, and while it routes."""
    kept = json.loads((RESULTS / "bench_scale.json").read_text())
    load = kept["load"]
    cluster = {key: load[key] for key in ("nodes", "regions", "between_ms")}
    for kind, asked in (
        ("rest", {}),
        ("writing", {"writes_per_s": load["writes"]}),
        ("routing", {"routes_per_s": load["routes"], "prompt_characters": load["prompt"]}),
    ):
        planned = plan(Load(**cluster, **asked))
        assert within_a_third(planned.node.bytes_per_s, kept[kind]["bytes_per_s"]), kind
        assert within_a_third(planned.node.frames_per_s, kept[kind]["frames_per_s"]), kind
    slowest_ms = 1000 * max(kept["spread"]["seconds"])
    assert within_a_third(plan(Load(**cluster)).spread_ms, slowest_ms)


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
