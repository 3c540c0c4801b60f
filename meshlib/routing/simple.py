"""The policies that look at no prefix: under the names that the field has for them.

round_robin      one after the other
random           any
power_of_two     of two drawn ones the less loaded
least_loaded     the least loaded
consistent_hash  the beginning of the prompt decides, with bounded loads
rendezvous       the beginning of the prompt decides, by highest random weight

A load is what a worker has reported, and what all routers have in flight there.
Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001;
V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.limits import TEXT_CHARACTERS_MAX, TREE_CHARACTERS_MAX
from meshlib.routing.protocol import CHARACTERS_PER_TOKEN, HASHED_CHARACTERS, Question, spread
from meshlib.routing.records import RouteReason
from meshlib.routing.settings import Range, check_ranges, number_from, size

__all__ = [
    "ConsistentHashPolicy",
    "LeastLoadedPolicy",
    "PowerOfTwoPolicy",
    "RandomPolicy",
    "RendezvousPolicy",
    "RoundRobinPolicy",
]


class _WithoutTree:
    """What the policies share that record nothing."""

    __slots__ = ()

    policy_type: ClassVar[str]
    records: ClassVar[bool] = False
    characters_per_token: ClassVar[float] = CHARACTERS_PER_TOKEN
    RANGES: ClassVar[Mapping[str, Range]] = {}

    @property
    def characters_max(self) -> int:
        """How many characters the model's tree may hold."""
        return TREE_CHARACTERS_MAX

    @property
    def refresh_s(self) -> float:
        """How old the recorded last use of a text may become before it is recorded again."""
        return 60.0


@frozen(slots=True, kw_only=True)
class RoundRobinPolicy(_WithoutTree):
    """One worker after the other, on each router by itself."""

    policy_type: ClassVar[str] = "round_robin"

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose the next one. O(n log n); routers begin at different workers."""
        names = sorted(question.loads)
        first = int.from_bytes(question.seed[-8:], "big")
        return names[(first + question.number) % len(names)], RouteReason.IN_TURN


@frozen(slots=True, kw_only=True)
class RandomPolicy(_WithoutTree):
    """Any worker, each as often as the others."""

    policy_type: ClassVar[str] = "random"

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose any. O(n log n)."""
        names = sorted(question.loads)
        return names[question.draw() % len(names)], RouteReason.DRAWN


@frozen(slots=True, kw_only=True)
class PowerOfTwoPolicy(_WithoutTree):
    """Of two drawn workers the less loaded."""

    policy_type: ClassVar[str] = "power_of_two"

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Draw two, and choose one. O(n log n)."""
        names = sorted(question.loads)
        first = names.pop(question.draw() % len(names))
        if not names:
            return first, RouteReason.DRAWN
        second = names[question.draw(1) % len(names)]
        is_less = question.loads[second] < question.loads[first]
        return second if is_less else first, RouteReason.DRAWN


@frozen(slots=True, kw_only=True)
class LeastLoadedPolicy(_WithoutTree):
    """The least loaded worker; among several the prompt decides."""

    policy_type: ClassVar[str] = "least_loaded"

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose the least loaded. O(n log n)."""
        least = min(question.loads.values())
        names = [name for name, load in question.loads.items() if load <= least]
        return spread(question.spread_key, names), RouteReason.LEAST_LOADED


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class RendezvousPolicy(_WithoutTree):
    """The beginning of the prompt decides; no router needs to know anything of the others.

    Args:
        prefix_characters: how much of the beginning; 1 or more. What all prompts share must be
            shorter, or they all go to one worker.
    """

    policy_type: ClassVar[str] = "rendezvous"
    RANGES: ClassVar[Mapping[str, Range]] = {"prefix_characters": size(TEXT_CHARACTERS_MAX)}

    prefix_characters: int = field(default=HASHED_CHARACTERS)

    def __attrs_post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose by highest random weight. O(n log n)."""
        key = question.text[: self.prefix_characters]
        return spread(key, list(question.loads)), RouteReason.HASHED


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class ConsistentHashPolicy(_WithoutTree):
    """The beginning of the prompt decides, and nobody gets more than a share over the mean.

    Args:
        prefix_characters: as for `RendezvousPolicy`.
        load_factor: how many times the mean load one may have; 1 or more.
    """

    policy_type: ClassVar[str] = "consistent_hash"
    RANGES: ClassVar[Mapping[str, Range]] = {
        "prefix_characters": size(TEXT_CHARACTERS_MAX),
        "load_factor": number_from(1.0),
    }

    prefix_characters: int = field(default=HASHED_CHARACTERS)
    load_factor: float = field(default=1.25)

    def __attrs_post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose the first owner on the ring that may take one more. O(n log points)."""
        loads = question.loads
        key = question.text[: self.prefix_characters]
        owners = question.ring().owners(key, count=len(loads))
        load_max = self.load_factor * (sum(loads.values()) + 1.0) / len(loads)
        for name in owners:
            if loads[name] + 1.0 <= load_max or loads[name] == 0:
                return name, RouteReason.HASHED
        return owners[0], RouteReason.HASHED
