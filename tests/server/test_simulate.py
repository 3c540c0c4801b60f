"""`meshlib-server simulate`: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshlib.gossip import upkeep
from meshlib.testing import SpreadReport
from meshlib_server.commands.charts import draw_chart, written_duration
from meshlib_server.commands.cli import main

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
IN_README = re.findall(r"^\$ meshlib-server simulate (.*)$", README, flags=re.MULTILINE)

SHORT = ["--nodes", "3", "--seconds", "6", "--loss", "0.1"]


def simulate(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["simulate", *arguments], prog_name="meshlib-server")


def in_a_new_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "meshlib_server", "simulate", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--seed", "5", "--seconds", "10"], marks=pytest.mark.slow),
        pytest.param(["--seed", "5", *SHORT, "--partition", "3-5"], marks=pytest.mark.slow),
        pytest.param(["--seeds", "3-4", "--seconds", "6", "--jobs", "1"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_same_seed_prints_the_same_bytes(arguments: list[str]) -> None:
    """On every run, and whatever PYTHONHASHSEED is; with the digest of all that happened."""
    first = in_a_new_process(*arguments, "--json", PYTHONHASHSEED="1")
    second = in_a_new_process(*arguments, "--json", PYTHONHASHSEED="88")

    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout == second.stdout
    assert len(json.loads(first.stdout)["trace_digest"]) == 16


def test_a_run_is_told_with_its_chart() -> None:
    """What was simulated, how the writes spread, what was reached, and the verdict."""
    result = simulate(*SHORT, "--partition", "middle", "--seed", "2", "--quiet")

    assert result.exit_code == 0, result.output
    assert "seed 2: 3 nodes, 6 s with faults" in result.stdout
    assert "partition n0 for 2.00 s" in result.stdout
    assert "100% ┤" in result.stdout
    assert "every checker was content" in result.stdout
    assert result.stderr == ""


def test_progress_is_told_in_lines_where_there_is_no_terminal() -> None:
    """On standard error, so that what is piped on is the outcome alone."""
    result = in_a_new_process(*SHORT, "--json")

    assert json.loads(result.stdout)["failure"] is None
    assert "simulating: 3 of 6 s\n" in result.stderr
    assert "\x1b" not in result.stderr


def test_progress_is_a_live_bar_on_a_terminal() -> None:
    """It is drawn over and over in its place, and gone at the end."""
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "meshlib_server", "simulate", *SHORT, "--json"],
        stdout=subprocess.PIPE,
        stderr=writer,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(writer)
    drawn = b""
    try:
        while part := os.read(reader, 4096):
            drawn += part
    except OSError:
        pass  # that is how a terminal tells that nobody writes to it any more
    finally:
        os.close(reader)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert json.loads(out)["failure"] is None
    assert "━".encode() in drawn
    assert drawn.endswith(b"\x1b[2K")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--loss 2", "'--loss': 2.0 is not in the range"),
        ("--nodes 0", "'--nodes': 0 is not in the range"),
        ("--seconds 0", "'--seconds': 0.0 is not in the range"),
        ("--partition soon", "a partition is written as 10-20 (in seconds), or middle"),
        ("--partition 20-10", "a partition must begin before it ends"),
        ("--partition-side 2", "there is no partition"),
        ("--seeds 9-5", "seeds are written as 0-299"),
        ("--keep five", "incidents are kept as 3,5, or none"),
        ("--without rain", "'rain': choose among loss"),
        ("--faults drawn --loss 0.1", "with drawn faults the seed decides on loss"),
        ("--seeds 0-1 --faults drawn --loss 0.1", "the seed decides on loss"),
        ("--seeds 0-1 --plot a.svg", "--plot is for one seed"),
        ("--plot a.gif", "a picture ends in .svg, .png, .pdf"),
        ("--plot /nowhere/a.svg", "there is no folder /nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: str, message: str) -> None:
    """In one line on standard error, with exit code 2, before anything is simulated."""
    result = simulate(*arguments.split())

    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", IN_README)
def test_a_command_of_the_readme_runs(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And finds nothing: the one that does has a bug planted, and no exit code 0 is claimed."""
    monkeypatch.chdir(tmp_path)
    result = simulate(*shlex.split(arguments.replace("--minimise", "")), "--jobs", "1")

    assert result.exit_code == 0, result.output


@pytest.fixture
def storm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the engine: maintenance sets its timer for at once."""
    monkeypatch.setattr(upkeep, "MAINTENANCE_S", 0.001)


def replay_of(result: Result) -> list[str]:
    """Return the arguments of the last replay command that was printed."""
    command = result.stderr.splitlines()[-1].removeprefix("replay: ")
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("meshlib-server", "simulate")
    return arguments


@pytest.mark.usefixtures("storm")
@pytest.mark.parametrize(
    "asked_for", [[], ["--partition", "3-4"], ["--seed", "4", "--until", "7.5"]], ids=" ".join
)
def test_a_failure_prints_the_command_that_replays_it(asked_for: list[str]) -> None:
    """Verbatim: what it prints fails at the same moment for the same reason."""
    found = simulate(*asked_for, "--seconds", "8", "--quiet")
    again = simulate(*replay_of(found))

    assert (found.exit_code, again.exit_code) == (1, 1)
    assert "timer storm" in found.stderr
    assert found.stderr == again.stderr


@pytest.mark.usefixtures("storm")
def test_a_failure_is_made_smaller_on_demand() -> None:
    """Faults that it does not need are left out; what is left has a command too."""
    found = simulate("--seed", "1", "--seconds", "10", "--minimise", "--quiet")
    again = simulate(*replay_of(found))

    assert (found.exit_code, again.exit_code) == (1, 1)
    assert "--keep none" in found.stderr.splitlines()[-1]
    assert "timer storm" in again.stderr


@pytest.mark.usefixtures("storm")
def test_a_campaign_with_a_failure_names_the_seeds() -> None:
    """Each with its command; exit code 1."""
    result = simulate("--seeds", "1-2", "--seconds", "6", "--jobs", "1", "--quiet")

    assert result.exit_code == 1
    assert result.stderr.count("replay: meshlib-server simulate --seed ") == 2
    assert "2 seeds" in result.stdout


@pytest.mark.slow
def test_a_campaign_tells_which_interesting_states_were_reached() -> None:
    """With what each of them means."""
    result = simulate("--seeds", "1-2", "--seconds", "6", "--jobs", "1")

    assert result.exit_code == 0, result.output
    assert "a suspected member proved that it lives" in result.stdout
    assert "2 seeds" in result.stdout


def test_a_trace_tells_everything() -> None:
    """Instead of the chart; the outcome is its last line."""
    result = simulate(*SHORT, "--trace")

    assert "starts as n0" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("seed 0: 3 nodes")


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("a.svg", b"<?xml"),
        pytest.param("a.png", b"\x89PNG", marks=pytest.mark.slow),
        pytest.param("a.pdf", b"%PDF", marks=pytest.mark.slow),
    ],
)
def test_the_spread_is_drawn_into_a_file(name: str, magic: bytes, tmp_path: Path) -> None:
    """In the format of its ending; the same run gives the same bytes."""
    first, second = tmp_path / name, tmp_path / f"again_{name}"
    for path in (first, second):
        result = simulate(*SHORT, "--plot", str(path), "--quiet")
        assert result.exit_code == 0, result.output

    assert first.read_bytes().startswith(magic)
    assert first.read_bytes() == second.read_bytes()


def test_a_cluster_of_one_has_nothing_to_draw(tmp_path: Path) -> None:
    """It is said, and no file is written."""
    path = tmp_path / "a.svg"
    result = simulate("--nodes", "1", "--faults", "none", "--seconds", "6", "--plot", str(path))

    assert result.exit_code == 0, result.output
    assert "no write reached another node" in result.stderr
    assert not path.exists()


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from meshlib_server.commands.cli import main
main(["simulate", "--nodes", "3", "--seconds", "6", "--loss", "0"] + {arguments!r})
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        (["rich"], [], "simulate needs the extra `testing`: pip install"),
        (["matplotlib"], ["--plot", "a.svg"], "--plot needs the extra `plot`: pip install"),
    ],
)
def test_a_missing_extra_is_named(missing: list[str], arguments: list[str], message: str) -> None:
    """In one line, with exit code 3, before anything is simulated."""
    code = WITHOUT.format(missing=missing, arguments=arguments)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert result.returncode == 3
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_simulator_needs_nothing_beside_the_library() -> None:
    """Neither hypothesis nor what the server needs."""
    missing = ["hypothesis", "rich", "matplotlib", "click", "starlette", "cattrs", "yaml"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from meshlib.testing import scripted_scenario, simulate\n"
        "print(simulate(scripted_scenario(node_count=3, duration_s=6)).failure)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert (result.stdout, result.stderr) == ("None\n", "")


REPORT = SpreadReport(
    followed=1,
    expected=4,
    complete=0,
    arrivals_s=(0.001, 0.01, 0.1),
    completions_s=(),
)


@pytest.mark.parametrize("is_unicode", [True, False])
def test_the_chart_ends_at_the_share_that_was_reached(*, is_unicode: bool) -> None:
    """A node that never got the write keeps the curve under 100 %."""
    lines = draw_chart(REPORT, width=60, height=5, is_unicode=is_unicode)

    assert lines[0].strip() in ("100% ┤", "100% |")
    assert lines[1][-1] not in " ┤|"
    assert all(len(line) <= 60 for line in lines)
    assert lines[-1].split() == ["1", "ms", "10", "ms", "100", "ms"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0004, "0.4 ms"), (0.01, "10 ms"), (0.33, "330 ms"), (1.0, "1.0 s"), (41.26, "41.3 s")],
)
def test_a_duration_is_written_for_a_reader(seconds: float, expected: str) -> None:
    """Neither in exponents nor in eight digits."""
    assert written_duration(seconds) == expected
