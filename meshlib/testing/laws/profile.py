"""How long the kit looks: the profiles, and the environment variable that picks one.

    MESHLIB_LAWS_PROFILE=quick    the default: a few seconds a type, the same examples each time
    MESHLIB_LAWS_PROFILE=long     2,000 examples a law, machines of 500 x 50, the same each time
    MESHLIB_LAWS_PROFILE=explore  as long, with other examples each time

A run that is repeated must fail the same way, so the first two are derandomized.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen, validators
from hypothesis import HealthCheck, Phase, settings

from meshlib.errors import ConfigError

__all__ = [
    "DEFAULT_WORLD",
    "EXPLORE",
    "LONG",
    "PROFILES",
    "QUICK",
    "SMALL_WORLD",
    "WORLDS",
    "Profile",
    "World",
    "current_profile",
]

ENVIRONMENT_NAME: Final = "MESHLIB_LAWS_PROFILE"


@frozen(slots=True, kw_only=True)
class World:
    """The size of the histories that a law is tried on.

    Args:
        name: what messages call it.
        replica_count: how many replicas write.
        steps_max: how many writes, deliveries, exchanges and restarts there are at most.
        is_small: the spec's `pinned` arguments are one value each throughout.
    """

    name: str
    replica_count: int
    steps_max: int
    is_small: bool


DEFAULT_WORLD: Final = World(name="larger world", replica_count=3, steps_max=16, is_small=False)
"""Several elements and replicas: what types do to each other's data."""

SMALL_WORLD: Final = World(name="small world", replica_count=2, steps_max=10, is_small=True)
"""One element and two replicas: nearly every short history of it is tried, and some bugs, such
as keeping only the newest dot of an element, show in no larger one within thousands."""

WORLDS: Final = (SMALL_WORLD, DEFAULT_WORLD)


@frozen(slots=True, kw_only=True)
class Profile:
    """How many examples are tried.

    Args:
        name: what `MESHLIB_LAWS_PROFILE` calls it.
        law_examples: for each law, divided among the worlds; at least 2.
        machine_examples: runs of a stateful machine.
        machine_steps: steps of each run.
        hash_seeds: values of PYTHONHASHSEED to compare bytes across, one process each.
        is_derandomized: the same examples each time.
    """

    name: str
    law_examples: int = field(validator=validators.ge(2))
    machine_examples: int = field(validator=validators.ge(1))
    machine_steps: int = field(validator=validators.ge(1))
    hash_seeds: tuple[int, ...] = (1, 2)
    is_derandomized: bool = True

    def settings(self, examples: int, *, steps: int = 50, is_shrunk: bool = True) -> settings:
        """Return the hypothesis settings for a number of examples."""
        phases = [Phase.explicit, Phase.generate]
        every_check: Any = list(HealthCheck)  # an overloaded machine makes no law fail
        return settings(
            max_examples=examples,
            stateful_step_count=steps,
            database=None,
            deadline=None,
            derandomize=self.is_derandomized,
            print_blob=False,
            report_multiple_bugs=False,
            phases=[*phases, Phase.shrink] if is_shrunk else phases,
            suppress_health_check=every_check,
        )


QUICK: Final = Profile(name="quick", law_examples=20, machine_examples=8, machine_steps=20)
LONG: Final = Profile(
    name="long",
    law_examples=2000,
    machine_examples=500,
    machine_steps=50,
    hash_seeds=(1, 2, 3, 4, 5, 6, 7, 8),
)
EXPLORE: Final = Profile(
    name="explore",
    law_examples=2000,
    machine_examples=500,
    machine_steps=50,
    is_derandomized=False,
)
PROFILES: Final = {profile.name: profile for profile in (QUICK, LONG, EXPLORE)}


def current_profile(environment: Mapping[str, str] | Any = os.environ) -> Profile:
    """Return the profile that `MESHLIB_LAWS_PROFILE` names, `quick` when it names none.

    Raises:
        ConfigError: it names a profile that does not exist.
    """
    name = environment.get(ENVIRONMENT_NAME, QUICK.name)
    if name not in PROFILES:
        raise ConfigError(f"{ENVIRONMENT_NAME}={name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
