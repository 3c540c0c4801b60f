"""`meshlib-server simulate routing`: what it prints, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshlib_server.commands.cli import main


def simulate_routing(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["simulate", "routing", *arguments], prog_name="meshlib-server")


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Thirty prompts in Mooncake's format, three at a time."""
    path = tmp_path / "trace.jsonl"
    lines = [
        {
            "timestamp": 3000 * (number // 3),
            "input_length": 512 * (2 + number % 5),
            "output_length": 20,
            "hash_ids": [0, *range(number % 4 * 100, number % 4 * 100 + 1 + number % 5)],
        }
        for number in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def test_json_has_what_was_measured(trace: str) -> None:
    """One object for the one policy; the same on every run."""
    arguments = (
        "--trace", trace, "--policy", "expected_time", "--routers", "3", "--workers", "2",
        "--blocks", "100", "--rate", "2.0", "--loss", "0.1", "--json", "--quiet",
    )  # fmt: skip
    first, second = simulate_routing(*arguments), simulate_routing(*arguments)
    report = json.loads(first.stdout)

    assert (0, "", first.stdout) == (first.exit_code, first.stderr, second.stdout)
    assert {"hit_rate", "ttft_ms", "work_max_over_mean", "gossip_bytes_per_request"} <= set(report)
    assert {"mean", "p50", "p95", "p99"} == set(report["ttft_ms"])
    assert 0.1 < report["hit_rate"] < 1.0


def test_without_json_policies_are_compared_in_a_table(trace: str, tmp_path: Path) -> None:
    """Progress on standard error, and a picture where one is asked for."""
    plot = tmp_path / "ttft.svg"
    result = simulate_routing("--trace", trace, "--routers", "2", "--plot", str(plot))
    lines = result.stdout.splitlines()

    assert 0 == result.exit_code
    assert ["policy", "round_robin", "least_loaded", "rendezvous", "cache_aware",
            "expected_time"] == [line.split()[0] for line in lines]  # fmt: skip
    assert "expected_time: 30 of 30" in result.stderr
    assert "<svg" in plot.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "weighted"], "policy must be one of round_robin"),
        (["--config", "{"], "--config: not valid JSON"),
        (["--config", "[]"], "--config: expected a JSON object"),
        (["--policy", "expected_time", "--config", '{"stik": 1}'], "config.stik: unknown"),
        (["--plot", "ttft.txt"], "a picture ends in"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(trace: str, arguments: list[str], message: str) -> None:
    """With the exit code of wrong usage."""
    result = simulate_routing("--trace", trace, *arguments)

    assert 2 == result.exit_code
    assert message in result.stderr


def test_a_trace_that_is_not_there_is_told() -> None:
    """In one line."""
    result = simulate_routing("--trace", "/nowhere/trace.jsonl")

    assert 2 == result.exit_code
    assert "No such file" in result.stderr
