"""What a routing tree is made of, and what a router is answered."""

from __future__ import annotations

from enum import StrEnum

from attrs import field, frozen

__all__ = [
    "RouteDecision",
    "RouteReason",
    "TreeInsert",
    "TreeMatch",
    "TreeOperation",
    "TreeRemove",
    "TreeState",
]


@frozen(slots=True)
class TreeInsert:
    """A tenant has a text cached.

    Args:
        text: 1 to 262,144 characters.
        tenant: the worker.
    """

    text: str
    tenant: str


@frozen(slots=True)
class TreeRemove:
    """A tenant has nothing cached any more: it went away, or started afresh.

    Args:
        tenant: the worker.
    """

    tenant: str


TreeOperation = TreeInsert | TreeRemove
"""What is synchronised of a routing tree."""


@frozen(slots=True, kw_only=True)
class TreeState:
    """The routing tree of one model.

    Args:
        model_id: the model.
        operations: what makes the tree when applied in this order to an empty one: an insertion
            for each text that is cached, least recently used first.
        version: counts the operations that changed the tree, removals included; the same on
            every node.
    """

    model_id: str
    operations: tuple[TreeOperation, ...]
    version: int


@frozen(slots=True, kw_only=True)
class TreeMatch:
    """The longest prefix of a text that a tenant has cached.

    Args:
        tenants: all who hold the deepest matched point, sorted; empty without a match.
        matched: characters of the match.
        input_length: characters of the text.
    """

    tenants: tuple[str, ...]
    matched: int
    input_length: int

    @property
    def tenant(self) -> str | None:
        """The first of the tenants, or None."""
        return self.tenants[0] if self.tenants else None


class RouteReason(StrEnum):
    """Why a worker was chosen. The value is a metric label."""

    PREFIX_MATCH = "prefix_match"
    """It holds the longest prefix above the threshold."""

    NO_MATCH = "no_match"
    """Nobody holds enough of the text."""

    HOLDER_UNAVAILABLE = "holder_unavailable"
    """Who holds enough of the text is unhealthy or gone."""

    IMBALANCE = "imbalance"
    """The loads are too far apart, so the least loaded was chosen whatever it holds."""

    EXPECTED_SOONER = "expected_sooner"
    """Another worker holds more of it, and would still be later with the first token."""

    LEAST_LOADED = "least_loaded"
    """It is the least loaded; nothing else was looked at."""

    IN_TURN = "in_turn"
    """It was its turn."""

    DRAWN = "drawn"
    """It was drawn."""

    HASHED = "hashed"
    """The beginning of the prompt is meant for it."""

    SESSION = "session"
    """The session was given to it last."""

    NO_WORKER = "no_worker"
    """The model has no healthy worker, so none was chosen."""


@frozen(slots=True, kw_only=True)
class RouteDecision:
    """Where a request goes. True in a boolean context when there is a worker.

    Args:
        worker_id: the worker, or None when the model has no healthy one.
        url: where it is reached, or None.
        matched: characters of the text that the worker was known to hold before.
        reason: why this one.
        origin: what was asked: the model, the key (which is the prompt, or has it in it), the
            characters of the prompt and its tokens. It is never shown and never compared.
        session: the key of its session in the tree and the seconds that it lives, where it has
            one. Neither shown nor compared.
    """

    worker_id: str | None
    url: str | None
    matched: int
    reason: RouteReason
    origin: tuple[str, str, int, float] = field(default=("", "", 0, 0.0), eq=False, repr=False)
    session: tuple[str, float] | None = field(default=None, eq=False, repr=False)

    @property
    def model_id(self) -> str:
        """The model that was asked for."""
        return self.origin[0]

    @property
    def key(self) -> str:
        """What `placed` records: the prompt, behind its salt where it has one."""
        return self.origin[1]

    @property
    def prefill_tokens(self) -> float:
        """Tokens that the worker is expected to prefill for it; what `begin` counts."""
        _, _, characters, tokens = self.origin
        return tokens * (1.0 - self.matched / characters) if characters else tokens

    def __bool__(self) -> bool:
        return self.worker_id is not None
