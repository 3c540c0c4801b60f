"""The policies of this package, by the names that the field has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.routing.cache_aware import CacheAwareConfig
from meshlib.routing.expected_time import ExpectedTimeConfig
from meshlib.routing.settings import check_config
from meshlib.routing.simple import (
    ConsistentHashPolicy,
    LeastLoadedPolicy,
    PowerOfTwoPolicy,
    RandomPolicy,
    RendezvousPolicy,
    RoundRobinPolicy,
)

__all__ = ["POLICIES", "check_policy"]

POLICIES: Final[Mapping[str, type[Any]]] = {
    one.policy_type: one
    for one in (
        RoundRobinPolicy,
        RandomPolicy,
        PowerOfTwoPolicy,
        LeastLoadedPolicy,
        ConsistentHashPolicy,
        RendezvousPolicy,
        CacheAwareConfig,
        ExpectedTimeConfig,
    )
}
"""The policies of this package, by their type."""


def check_policy(policy_type: str, config: str) -> None:
    """Check the configuration of a policy of this package that somebody is about to write.

    Raises:
        InvalidValueError: names the field as `config.NAME`.
    """
    check_config(POLICIES[policy_type], config)
