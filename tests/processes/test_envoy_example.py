"""The example for Envoy, as its one command runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.real_envoy import ROOT, envoy_binary

pytestmark = pytest.mark.slow


def test_the_example_for_envoy_holds() -> None:
    """A key spends its limit, and conversations go on while a node is killed."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "envoy" / "run.py")],
        env={**os.environ, "ENVOY": envoy_binary()},
        capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip

    assert 0 == found.returncode, found.stdout + found.stderr
    assert "50 passed" in found.stdout
    assert "60 answered" in found.stdout
