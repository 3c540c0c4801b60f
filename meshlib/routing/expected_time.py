"""`expected_time`: the worker at which the first token is expected soonest.

What is expected is the time that a worker takes for all that routers have given it and for what it
has not cached of the prompt. On top comes a pull towards the holder of the longest prefix: what is
prefilled elsewhere is cached twice, and the conversation comes back.

Rule: two nodes with equal state and equal load choose alike.
Source: the cost of NVIDIA Dynamo's router (prefill there, and active blocks), with time in the
place of blocks; expected completion time is the scheduling literature's "minimum completion time".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import StateError
from meshlib.limits import TREE_CHARACTERS_MAX
from meshlib.ring import rendezvous
from meshlib.routing.protocol import Question
from meshlib.routing.records import RouteReason
from meshlib.routing.settings import Range, check_ranges, number_from, size

__all__ = ["EXPECTED_TIME", "ExpectedTimeConfig"]

EXPECTED_TIME: Final = "expected_time"
"""The policy type whose configuration this module reads."""

FRESH_S: Final = 1.5
"""How old a reported load may be to say anything: a queue of prefills is another one by then."""

OVERLOADED: Final = 1.25
"""How many times the mean of the reported loads is too much. Below that it is chance: to send each
prompt to the less loaded of two was worse than to heed no report, where those came every 5 s."""

SLOW_START_SHARE: Final = 0.1
"""The share of its speed that a worker counts with when it has just come."""


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class ExpectedTimeConfig:
    """Settings of an expected-time policy.

    Args:
        stick: how many times over the cached part that another worker lacks counts against it;
            0 or more. 2 to 5 are sensible: a higher one keeps conversations in place, a lower one
            levels the work.
        cache_threshold: part of the text that must be cached, strictly more, to count; 0 to 1.
        tie_ms: workers whose first token is expected this much later than the soonest count as
            equal, and the prompt's hash decides among them, on all routers alike.
        characters_per_token: of the prompts, where a caller does not say how many tokens one has.
        slow_start_secs: for so long the speed of a worker that has just come counts for less; 0
            switches that off.
        decode_weight: tokens of prefill that each token counts for which the requests in flight
            at a worker have decoded so far, where routers tell of them; 0 or more. 0, the default,
            is for workers that prefill as fast whatever they decode.
        eviction_interval_secs: as for `CacheAwareConfig`.
        max_tree_size: likewise.

    Raises:
        InvalidTypeError: a setting of another type.
        ConfigError: one out of its range.
    """

    policy_type: ClassVar[str] = EXPECTED_TIME
    records: ClassVar[bool] = True
    RANGES: ClassVar[Mapping[str, Range]] = {
        "stick": number_from(0),
        "cache_threshold": number_from(0, 1),
        "tie_ms": number_from(0),
        "characters_per_token": number_from(0.01, 1000.0),
        "slow_start_secs": number_from(0),
        "decode_weight": number_from(0),
        "eviction_interval_secs": number_from(0),
        "max_tree_size": size(),
    }

    stick: float = field(default=2.0)
    cache_threshold: float = field(default=0.1)
    tie_ms: float = field(default=1.0)
    characters_per_token: float = field(default=4.0)
    slow_start_secs: float = field(default=10.0)
    decode_weight: float = field(default=0.0)
    eviction_interval_secs: float = field(default=60.0)
    max_tree_size: int = field(default=TREE_CHARACTERS_MAX)

    def __attrs_post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: names the setting and what it must be.
        """
        check_ranges(self)

    @property
    def characters_max(self) -> int:
        """How many characters the model's tree may hold."""
        return self.max_tree_size if self.eviction_interval_secs else TREE_CHARACTERS_MAX

    @property
    def refresh_s(self) -> float:
        """How old the recorded last use of a text may become before it is recorded again."""
        return self.eviction_interval_secs or 60.0

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose the worker of the lowest score. O(workers x routers); pure.

        score = (backlog + uncached + stick x (most cached - cached)
                 + decode_weight x decoded) / speed
        """
        loads, held = question.loads, question.held
        if len(loads) == 0:
            raise StateError("there is no worker to choose from")
        cached = self._worth_following(question)
        longest = max(cached.values())
        scores = self._scores(question, cached, longest)
        soonest = min(scores.values())
        nearest = [name for name in loads if scores[name] <= soonest + self.tie_ms / 1000.0]
        chosen = self._among_equals(question, nearest)
        if longest and cached[chosen] == longest:
            return chosen, RouteReason.PREFIX_MATCH
        if longest:
            return chosen, RouteReason.EXPECTED_SOONER
        is_held = bool(held) and max(held.values()) > 0
        return chosen, RouteReason.HOLDER_UNAVAILABLE if is_held else RouteReason.NO_MATCH

    def _worth_following(self, question: Question) -> dict[str, int]:
        """Return for each candidate how much it has cached that should decide. O(n log n).

        What most candidates have is taken as cached by all: the others soon have it too, and it
        says nothing of where the conversation was. Without that a beginning that all prompts
        share would keep them where it was first. So would a small part of a prompt.
        """
        held = question.held
        lengths = sorted(held.get(name, 0) for name in question.loads)
        common = lengths[len(lengths) // 2] if len(lengths) > 2 else 0
        enough = self.cache_threshold * len(question.text)
        if lengths[-1] <= enough:
            return dict.fromkeys(question.loads, common)
        return {name: max(held.get(name, 0), common) for name in question.loads}

    def _scores(
        self, question: Question, cached: Mapping[str, int], longest: int
    ) -> dict[str, float]:
        """Return for each candidate the seconds to a first token, the pull included."""
        load, now = question.load, question.now
        tokens_per_character = question.tokens / len(question.text) if question.text else 0.0
        lacking = tokens_per_character * self.stick
        scores = {}
        for name, characters in cached.items():
            work = (
                load.backlog(name, now=now)
                + question.tokens
                - tokens_per_character * characters
                + lacking * (longest - characters)
            )
            if self.decode_weight:
                work += self.decode_weight * load.decoded_tokens(name)
            scores[name] = work / (load.speed(name) * self._warmth(question.age_s(name)))
        return scores

    def _warmth(self, age_s: float) -> float:
        """Return the share of its speed that a worker of this age counts with."""
        if age_s >= self.slow_start_secs:
            return 1.0
        return SLOW_START_SHARE + (1.0 - SLOW_START_SHARE) * age_s / self.slow_start_secs

    def _among_equals(self, question: Question, nearest: list[str]) -> str:
        """Choose among those of equal expectation.

        Where routers tell of requests and not of what they prefill, of those with the fewest.
        Reported loads are good for one thing, and in any unit: a worker that is overloaded, by a
        fresh report, is passed over for the next that the prompt is meant for. A minimum that was
        true a while ago would draw all prompts to it until the next report.
        """
        load = question.load
        counts = load.counts
        if counts and not load.is_in_use and len(nearest) > 1:
            least = min(counts.get(name, 0) for name in nearest)
            nearest = [name for name in nearest if counts.get(name, 0) <= least]
        if len(nearest) == 1:
            return nearest[0]
        first, second = rendezvous(question.spread_key, nearest)[:2]
        return second if _is_overloaded(first, question, beside=second) else first


def _is_overloaded(worker_id: str, question: Question, *, beside: str) -> bool:
    """Tell whether a worker's report is well over the mean of all, and another's is not over it.

    O(workers).
    """
    if max(question.report_age_s(worker_id), question.report_age_s(beside)) > FRESH_S:
        return False
    reported = question.reported
    mean = sum(reported[name] for name in question.loads) / len(question.loads)
    return reported[worker_id] > mean * OVERLOADED and reported[beside] <= mean
