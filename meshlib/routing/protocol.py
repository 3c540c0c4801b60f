"""What every routing policy is asked, and how it answers.

Rule: a policy chooses among the candidates of a question and looks at nothing else: no clock, no
chance, no store. So two routers with equal questions choose alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Protocol

from attrs import define

from meshlib.hashing import hash64
from meshlib.ring import ConsistentHashRing, rendezvous
from meshlib.routing.load import SharedLoad
from meshlib.routing.records import RouteReason
from meshlib.routing.settings import Range

__all__ = ["CHARACTERS_PER_TOKEN", "HASHED_CHARACTERS", "Policy", "Question", "spread"]

CHARACTERS_PER_TOKEN: Final = 4.0
"""Of a prompt, where neither its policy nor its caller says how many tokens it has."""

HASHED_CHARACTERS: Final = 256
"""Characters past what is already cached that decide where a new prompt goes."""


@define(slots=True, kw_only=True, eq=False)
class Question:
    """One prompt, and who may take it.

    Args:
        text: the prompt, as it is in the tree.
        loads: the candidates, at least one, each with its load: what was reported, and the
            requests that routers have in flight there.
        reported: of each candidate, and perhaps of others, what was reported alone; in a unit that
            only those who report know.
        held: for anybody who holds a prefix of the text, characters of the longest.
        tokens: how many tokens the whole prompt has, as far as anybody knows.
        load: what all routers have in flight.
        entries: how many texts a worker has in the tree; for `compat: specification`.
        age_s: for a candidate, since when this router knows it, in seconds; infinite for those
            that it has always known.
        report_age_s: for a candidate, how old the report of its load is, in seconds; infinite where
            nobody knows.
        number: counts the questions of this router about this model.
        seed: 8 bytes or more that differ from router to router; for those policies that are to
            choose differently on each.
        ring: returns a ring of the candidates.
        now: monotonic seconds.
    """

    text: str
    loads: Mapping[str, float]
    reported: Mapping[str, float]
    held: Mapping[str, int]
    tokens: float
    load: SharedLoad
    entries: Callable[[str], int]
    age_s: Callable[[str], float]
    report_age_s: Callable[[str], float]
    number: int
    seed: bytes
    ring: Callable[[], ConsistentHashRing]
    now: float

    @property
    def spread_key(self) -> str:
        """What decides among equals: what is held by anybody, and a little more."""
        shared = max(self.held.values(), default=0)
        return self.text[: shared + HASHED_CHARACTERS]

    def draw(self, purpose: int = 0) -> int:
        """Return 64 bits that differ from question to question and from router to router."""
        return hash64(self.number.to_bytes(8, "big") + self.seed, purpose)


class Policy(Protocol):
    """How prompts of a model are routed; made from the JSON configuration of its policy."""

    policy_type: ClassVar[str]
    """Its name in `policy_type`."""

    RANGES: ClassVar[Mapping[str, Range]]
    """Its settings."""

    records: ClassVar[bool]
    """Whether it looks at the tree, so that placements are recorded there."""

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        """Choose one of the candidates, and say why. Pure."""
        ...

    @property
    def characters_per_token(self) -> float:
        """Characters of a token, where nobody says how many tokens a prompt has."""
        ...

    @property
    def characters_max(self) -> int:
        """How many characters the model's tree may hold."""
        ...

    @property
    def refresh_s(self) -> float:
        """How old the recorded last use of a text may become before it is recorded again."""
        ...


def spread(key: str, candidates: list[str]) -> str:
    """Return the candidate that a key is meant for; any router says the same. O(n log n)."""
    return candidates[0] if len(candidates) == 1 else rendezvous(key, candidates)[0]
