"""The example for Envoy, as far as it can be read without one."""

from __future__ import annotations

from pathlib import Path

from meshlib_server.adapters.envoy import load_rules

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "envoy"


def test_the_example_of_rules_is_read() -> None:
    """Each key has its limit, and one has none."""
    rules = load_rules(str(EXAMPLES / "rules.yaml"))
    found = [rules.find("llm", [("api_key", key)]) for key in ("ann", "staff")]

    assert [300, None] == [one[0].per_unit for one in found if one is not None]
