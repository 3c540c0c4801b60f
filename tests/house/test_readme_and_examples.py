"""What the README shows runs, and so does every example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib_server.commands.demo import Node, make_nodes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder and return what it printed."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Yield one running node."""
    alone = make_nodes(tmp_path_factory.mktemp("readme"))[0]
    alone.start()
    try:
        while alone.get("/mesh/status") is None:
            assert alone.process is not None
            assert alone.process.poll() is None, alone.log.read_text()
        yield alone
    finally:
        alone.stop()


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n", 1)[0])
def test_a_python_block_runs(code: str) -> None:
    """Each is a whole program that checks its own outcome."""
    result = run([sys.executable, "-W", "error", "-c", code])

    assert (result.returncode, result.stderr) == (0, "")


def test_the_curl_commands_are_answered(node: Node) -> None:
    """All blocks in their order on one node; every answer is JSON and none an error."""
    script = "set -e\n" + "echo\n".join(blocks("bash"))
    script = script.replace("localhost:8000", f"127.0.0.1:{node.port}")
    script = script.replace("curl ", "curl --silent --show-error --fail-with-body ")
    result = run(["bash", "-c", script], TOKEN=node.token)

    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert '"error"' not in result.stdout


def test_the_readme_names_every_example_and_benchmark() -> None:
    """None is left out, and none is named that does not exist."""
    named = set(re.findall(r"`(?:examples/|benchmarks/)?(\w+\.py)`", README))
    there = {path.name for path in EXAMPLES}
    there |= {path.name for path in (ROOT / "benchmarks").glob("bench_*.py")}

    assert there == named


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_checks_its_own_outcome(path: Path) -> None:
    """As it is, from the project's folder, without a warning."""
    result = run([sys.executable, "-W", "error", str(path)])

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    """Under 120 lines."""
    assert len(path.read_text().splitlines()) < 120
