"""The configuration of a cache-aware policy, as the specification writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshlib.limits import TREE_CHARACTERS_MAX
from meshlib.routing.policy import CacheAwareConfig

DEFAULTS = CacheAwareConfig()


def test_the_defaults_are_those_of_the_specification_s_program() -> None:
    """0.3, 64, 1.5, 60 seconds, and 2**26 characters."""
    assert (0.3, 64, 1.5, 60, 2**26) == (
        DEFAULTS.cache_threshold,
        DEFAULTS.balance_abs_threshold,
        DEFAULTS.balance_rel_threshold,
        DEFAULTS.eviction_interval_secs,
        DEFAULTS.max_tree_size,
    )


def test_the_specification_s_own_configuration_is_read() -> None:
    """Every field of its example."""
    config = CacheAwareConfig.parse(
        '{"cache_threshold": 0.7, "balance_abs_threshold": 10, "balance_rel_threshold": 1.5,'
        ' "eviction_interval_secs": 300, "max_tree_size": 10000}'
    )

    assert config == CacheAwareConfig(
        cache_threshold=0.7,
        balance_abs_threshold=10,
        balance_rel_threshold=1.5,
        eviction_interval_secs=300,
        max_tree_size=10000,
    )


@pytest.mark.parametrize("text", ["...", "", "[1]", "null", '{"cache_threshold": ', "[" * 100_000])
def test_what_is_no_configuration_keeps_the_defaults(text: str) -> None:
    """It is text that anybody may have written."""
    assert DEFAULTS == CacheAwareConfig.parse(text)


@pytest.mark.parametrize(
    "field",
    [
        {"cache_threshold": 1.5},
        {"cache_threshold": True},
        {"balance_abs_threshold": -1},
        {"balance_rel_threshold": "2"},
        {"eviction_interval_secs": None},
        {"eviction_interval_secs": float("inf")},
        {"max_tree_size": 0},
        {"max_tree_size": 10.5},
        {"max_tree_size": TREE_CHARACTERS_MAX + 1},
        {"unknown": 1},
    ],
)
def test_a_field_that_cannot_hold_keeps_its_default(field: dict[str, Any]) -> None:
    """And the others are read."""
    text = json.dumps({"balance_abs_threshold": 7} | field)
    config = CacheAwareConfig.parse(text)
    expected = 64 if "balance_abs_threshold" in field else 7

    assert CacheAwareConfig(balance_abs_threshold=expected) == config
