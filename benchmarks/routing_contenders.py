"""Published routing algorithms of others, on the same questions as ours: models, not their code.

smg     the cache-aware policy of the Rust gateway `smg` 1.x, as its sources have it: out of balance
        by a difference and a factor the least loaded, else who matches more than a half, else the
        least loaded; the first by name among equals.
dynamo  the cost of NVIDIA Dynamo's router at weight 1 and temperature 0: blocks that are to be
        prefilled there with this one, less what is cached, and blocks that are being decoded. Of
        those a router knows the requests alone, so each counts with the mean prompt so far.

Both are given what all routers have in flight, which smg does not share and Dynamo does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import ClassVar

from meshlib.limits import TREE_CHARACTERS_MAX
from meshlib.routing import Policy, Question, RouteReason
from meshlib.routing.settings import Range

BLOCK_TOKENS = 16


class Model:
    """What both have; `max_tree_size` is given as to ours."""

    records: ClassVar[bool] = True
    RANGES: ClassVar[Mapping[str, Range]] = {}
    characters_per_token: ClassVar[float] = 4.0
    refresh_s: float = 60.0

    def __init__(self, config: str) -> None:
        self.characters_max: int = json.loads(config).get("max_tree_size", TREE_CHARACTERS_MAX)


class Smg(Model):
    """Cache-aware routing as smg 1.x does it."""

    policy_type: ClassVar[str] = "smg"

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        loads, held = question.loads, question.held
        names = sorted(loads)
        least = min(names, key=lambda name: loads[name])
        low, high = loads[least], max(loads.values())
        if high - low > 32 and high > low * 1.1:
            return least, RouteReason.IMBALANCE
        longest = max(names, key=lambda name: held.get(name, 0))
        if held.get(longest, 0) > 0.5 * len(question.text):
            return longest, RouteReason.PREFIX_MATCH
        return least, RouteReason.NO_MATCH


class Dynamo(Model):
    """The least cost in blocks."""

    policy_type: ClassVar[str] = "dynamo"

    def __init__(self, config: str) -> None:
        super().__init__(config)
        self._tokens, self._count = 0.0, 0

    def choose(self, question: Question, /) -> tuple[str, RouteReason]:
        self._tokens += question.tokens
        self._count += 1
        mean = self._tokens / self._count
        per_character = question.tokens / max(1, len(question.text))

        def cost(name: str) -> float:
            prefill = question.load.backlog(name, now=question.now) + question.tokens
            cached = question.held.get(name, 0) * per_character
            decoding = question.loads[name] * mean + question.tokens
            return (prefill - cached + decoding) / BLOCK_TOKENS

        return min(sorted(question.loads), key=cost), RouteReason.LEAST_LOADED


CONTENDERS: dict[str, Callable[[str], Policy]] = {"smg": Smg, "dynamo": Dynamo}
