"""FastAPI in three processes behind one limit, as the page shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_three_processes_admit_together_what_the_limit_says() -> None:
    """The example runs as it is, without a warning, and checks its own outcome."""
    path = ROOT / "examples" / "three_fastapis" / "three_processes.py"
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("10 were admitted and 35 refused, by 3 processes\n")
