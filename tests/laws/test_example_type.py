"""The type of `examples/custom_crdt.py`, which is written outside the package, in the kit."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from meshlib.testing import check_machine, first_violation, laws, mutants

PATH = Path(__file__).resolve().parents[2] / "examples" / "custom_crdt.py"

found = importlib.util.spec_from_file_location("custom_crdt", PATH)
assert found is not None
assert found.loader is not None
example = importlib.util.module_from_spec(found)
sys.modules["custom_crdt"] = example
found.loader.exec_module(example)

TestBallot = laws(example.BALLOT)


def test_the_type_holds_in_a_machine() -> None:
    """On a bad network, with restarts."""
    check_machine(example.BALLOT)


def test_the_specification_has_teeth() -> None:
    """Every mutant of it is caught but those that are known to be harmless."""
    uncaught = [
        mutant.name
        for mutant in mutants(example.BALLOT)
        if first_violation(mutant.spec, is_shrunk=False) is None
    ]

    assert uncaught == []
