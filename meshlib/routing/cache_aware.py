"""`cache_aware`: the longest prefix above a threshold, as long as the loads are in balance.

Rule: two nodes with equal state choose the same worker. Nothing here depends on which node it
is, on chance, on an order of insertion, or on time.
Source: the cache-aware policy of sglang's router, with its faults left out: unhealthy workers do
not count for the balance, ties do not all go to the first worker, a holder that cannot take a
request is replaced by the next best holder, and loads out of balance do not send every prompt to
the one least loaded worker. `compat: specification` takes the documented steps to the letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import StateError
from meshlib.limits import TEXT_CHARACTERS_MAX, TREE_CHARACTERS_MAX
from meshlib.ring import rendezvous
from meshlib.routing.protocol import CHARACTERS_PER_TOKEN, HASHED_CHARACTERS, Question
from meshlib.routing.records import RouteReason
from meshlib.routing.settings import (
    Range,
    check_config,
    check_ranges,
    number_from,
    one_of,
    parse_config,
    size,
)

__all__ = ["CACHE_AWARE", "SPECIFICATION", "CacheAwareConfig", "choose_worker"]

CACHE_AWARE: Final = "cache_aware"
"""The policy type whose configuration this module reads."""

SPECIFICATION: Final = "specification"
"""What `compat` may be, beside nothing."""

LOAD_TOLERANCE: Final = 1.25
"""Workers of up to this many times the least load count as least loaded for a prompt that nobody
holds. Loads are reported now and then: were they taken to the letter, all such prompts would go
to one worker until the next report."""


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class CacheAwareConfig:
    """Settings of a cache-aware policy, the first five under the specification's names.

    Args:
        cache_threshold: part of the text that must be cached, strictly more, for the cache to
            decide; 0 to 1.
        balance_abs_threshold: loads further apart than this, and
        balance_rel_threshold: by more than this factor, are out of balance; both 0 or more.
        eviction_interval_secs: how stale the recorded last use of a text may be, in seconds;
            what is used more often is recorded again only so often. 0 switches off eviction by
            `max_tree_size`.
        max_tree_size: characters that the tree of the model may hold, over all workers; what
            prompts share counts once. Of a longer prompt its beginning of that size is recorded.
        min_match: characters that must be cached, beside the part, for the cache to decide.
        compat: `specification` takes the documented steps to the letter: a prompt that nobody
            holds goes to the worker with the fewest texts in the tree, and out of balance every
            prompt goes to the least loaded worker.

    Raises:
        InvalidTypeError: a setting of another type.
        ConfigError: one out of its range.
    """

    policy_type: ClassVar[str] = CACHE_AWARE
    records: ClassVar[bool] = True
    RANGES: ClassVar[Mapping[str, Range]] = {
        "cache_threshold": number_from(0, 1),
        "balance_abs_threshold": number_from(0),
        "balance_rel_threshold": number_from(0),
        "eviction_interval_secs": number_from(0),
        "max_tree_size": size(),
        "min_match": size(TEXT_CHARACTERS_MAX, minimum=0),
        "compat": one_of("", SPECIFICATION),
    }

    cache_threshold: float = field(default=0.3)
    balance_abs_threshold: float = field(default=64.0)
    balance_rel_threshold: float = field(default=1.5)
    eviction_interval_secs: float = field(default=60.0)
    max_tree_size: int = field(default=TREE_CHARACTERS_MAX)
    min_match: int = field(default=0)
    compat: str = field(default="")

    def __attrs_post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: names the setting and what it must be.
        """
        check_ranges(self)

    @classmethod
    def parse(cls, config: str) -> CacheAwareConfig:
        """Read the JSON object of a policy's configuration; as `settings.parse_config`."""
        return parse_config(cls, config)

    @classmethod
    def check(cls, config: str) -> CacheAwareConfig:
        """Read a configuration that somebody is about to write; as `settings.check_config`."""
        return check_config(cls, config)

    @property
    def characters_per_token(self) -> float:
        """Characters of a token, where nobody says how many tokens a prompt has."""
        return CHARACTERS_PER_TOKEN

    @property
    def characters_max(self) -> int:
        """How many characters the model's tree may hold."""
        if self.eviction_interval_secs == 0:
            return TREE_CHARACTERS_MAX
        return self.max_tree_size

    @property
    def refresh_s(self) -> float:
        """How old the recorded last use of a text may become before it is recorded again."""
        return self.eviction_interval_secs or 60.0

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose a worker; as `choose_worker`."""
        return choose_worker(
            question.text,
            loads=question.loads,
            held=question.held,
            config=self,
            entries=question.entries,
        )


def choose_worker(
    text: str,
    *,
    loads: Mapping[str, float],
    held: Mapping[str, int],
    config: CacheAwareConfig,
    entries: Callable[[str], int] = lambda _: 0,
) -> tuple[str, RouteReason]:
    """Choose among healthy workers; pure. O(workers log workers + hashed text).

    Args:
        text: the prompt.
        loads: the healthy workers of the model, with their loads; at least one.
        held: for anybody who holds a prefix of the text, characters of the longest.
        config: the policy's settings.
        entries: how many texts a worker has in the tree.

    Returns:
        a worker of `loads`, and why it.
    """
    if len(loads) == 0:
        raise StateError("there is no worker to choose from")
    least = min(loads.values())
    most = max(loads.values())
    shared = max(held.values()) if held else 0
    enough = config.cache_threshold * len(text)
    if config.min_match > enough:
        enough = config.min_match - 1
    if most - least > config.balance_abs_threshold and most > least * config.balance_rel_threshold:
        near = least if config.compat else least + config.balance_abs_threshold
        spread_key = text[: shared + HASHED_CHARACTERS]
        return _balance(spread_key, loads, held, near, enough), RouteReason.IMBALANCE
    if shared > enough:
        holders: dict[str, float] = {}
        longest = enough
        for name, count in held.items():
            if count >= longest and name in loads:
                if count > longest:
                    longest, holders = count, {}
                holders[name] = loads[name]
        if longest > enough:
            if len(holders) == 1:
                return next(iter(holders)), RouteReason.PREFIX_MATCH
            spread_key = text[: shared + HASHED_CHARACTERS]
            least = min(holders.values())
            return _spread(spread_key, holders, least), RouteReason.PREFIX_MATCH
    spread_key = text[: shared + HASHED_CHARACTERS]
    reason = RouteReason.HOLDER_UNAVAILABLE if shared > enough else RouteReason.NO_MATCH
    if config.compat:
        return min(sorted(loads), key=entries), reason
    return _spread(spread_key, loads, least * LOAD_TOLERANCE), reason


def _balance(
    key: str, loads: Mapping[str, float], held: Mapping[str, int], near: float, enough: float
) -> str:
    """Choose the longest holder of those whose load is near the least, and else the least loaded.

    One exact minimum would be given every conversation of those that are too busy, warm ones of
    others included, until its next report.
    """
    longest = max((held[name] for name in held if loads.get(name, near + 1) <= near), default=0)
    if longest > enough:
        loads = {
            name: load for name, load in loads.items() if load <= near and held.get(name) == longest
        }
    return _spread(key, loads, min(loads.values()))


def _spread(key: str, loads: Mapping[str, float], load_max: float) -> str:
    candidates = [name for name, load in loads.items() if load <= load_max]
    return candidates[0] if len(candidates) == 1 else rendezvous(key, candidates)[0]
