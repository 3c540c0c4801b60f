"""Every example runs as it is, and is short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"custom_crdt", "join_server_cluster", "shared_rate_limit"}
EXAMPLES = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted((ROOT / "examples").glob("*.py"))
]
IN_FOLDERS = [pytest.param(ROOT / "examples/two_regions/run.py", marks=pytest.mark.slow)]
"""Of one command too, and more than a page; the others in folders have tests of their own."""


@pytest.mark.parametrize(
    "path", EXAMPLES + IN_FOLDERS, ids=lambda path: str(path.relative_to(ROOT / "examples"))
)
def test_an_example_runs_and_checks_its_own_outcome(path: Path) -> None:
    """As it is, from the project's folder, without a warning."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    """Under 120 lines."""
    assert len(path.read_text().splitlines()) < 120
