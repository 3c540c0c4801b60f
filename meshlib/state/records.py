"""The records that the stores keep and answer with, and the checks of what goes into them.

Rule: whatever a caller may put into a store is checked here, before any change. What a peer
wrote is read by the same checks and never raises: a value that does not pass is unreadable.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, NamedTuple

from attrs import frozen

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.limits import KEY_BYTES_MAX

__all__ = [
    "GLOBAL_KEY",
    "LIMIT_PER_SECOND_MAX",
    "Decision",
    "PolicyState",
    "RateLimitStats",
    "RouteDecision",
    "RouteReason",
    "StateChange",
    "StoreName",
    "TreeInsert",
    "TreeMatch",
    "TreeOperation",
    "TreeRemove",
    "TreeState",
    "WorkerState",
    "check_flag",
    "check_identifier",
    "check_limit",
    "check_load",
    "check_text",
]

GLOBAL_KEY: Final = "global"
"""The rate-limit key of the global limit."""

LIMIT_PER_SECOND_MAX: Final = 1 << 53
"""The highest limit: above it a float no longer holds every count."""


class StoreName(StrEnum):
    """Which store a change was made in."""

    WORKERS = "workers"
    POLICIES = "policies"
    APP = "app"
    TREES = "trees"


@frozen(slots=True, kw_only=True)
class WorkerState:
    """One worker, as the specification's `/mesh/workers` shows it.

    Args:
        worker_id: the worker's name, unique in the cluster.
        model_id: the model that it serves.
        url: where it is reached.
        health: whether it may be chosen.
        load: how busy it is, 0 or more, in a unit that all workers of a model share.
        version: counts the changes of this worker, from 1; the same on every node.
    """

    worker_id: str
    model_id: str
    url: str
    health: bool
    load: float
    version: int


@frozen(slots=True, kw_only=True)
class PolicyState:
    """The routing policy of one model.

    Args:
        model_id: the model.
        policy_type: `cache_aware`, or any other name that the router knows.
        config: the policy's own configuration, kept as it was given.
        version: counts the changes of this policy, from 1; the same on every node.
    """

    model_id: str
    policy_type: str
    config: str
    version: int


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


@frozen(slots=True, kw_only=True)
class RateLimitStats:
    """What is used of a rate limit.

    Args:
        limit_per_second: the limit; 0 means unlimited.
        current_count: units admitted on all nodes in the current window of a second.
        remaining: what the limit leaves in this window, never under 0; -1 when unlimited.
    """

    limit_per_second: int
    current_count: int
    remaining: int


class Decision(NamedTuple):
    """Whether a request may pass. True in a boolean context when it may.

    A named tuple and not an attrs record: one is made for each request.

    Args:
        allowed: whether it may.
        limit: units a second for the whole cluster; 0 means unlimited.
        remaining: units that this node would still admit now; -1 when unlimited.
        retry_after_s: when the same request could be admitted, in seconds; 0 when it was.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float

    def __bool__(self) -> bool:
        return self.allowed


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
    """

    worker_id: str | None
    url: str | None
    matched: int
    reason: RouteReason

    def __bool__(self) -> bool:
        return self.worker_id is not None


@frozen(slots=True)
class StateChange:
    """Something in a store became different; what it is now, the store tells.

    Args:
        store: which store.
        key: the worker, the model, or the configuration key; None when anything in the store
            may be different.
        is_local: whether this node wrote it.
    """

    store: StoreName
    key: str | None
    is_local: bool


def check_text(what: str, value: object) -> str:
    """Check a text of any content that will travel.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: not encodable as UTF-8 (a lone surrogate).
    """
    if not isinstance(value, str):
        raise InvalidTypeError(f"{what} must be text, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidValueError(f"{what} cannot be encoded as UTF-8") from error
    return value


def check_identifier(what: str, value: object) -> str:
    """Check an id or a key: any text but the empty one, 1 KiB of UTF-8 at most.

    Raises:
        InvalidTypeError: not a `str`.
        InvalidValueError: empty, or not encodable as UTF-8.
        LimitError: longer than 1 KiB in UTF-8.
    """
    text = check_text(what, value)
    if not text:
        raise InvalidValueError(f"{what} must not be empty")
    size = len(text) if text.isascii() else len(text.encode())
    if size > KEY_BYTES_MAX:
        raise LimitError(f"{what} bytes", size=size, limit=KEY_BYTES_MAX)
    return text


def check_flag(what: str, value: object) -> bool:
    """Check a truth value: `True` or `False`, and no number that resembles one.

    Raises:
        InvalidTypeError: not a `bool`.
    """
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{what} must be true or false, not {type(value).__name__}")
    return value


def check_load(value: object) -> float:
    """Check a load: a finite number, 0 or more. Returns it as a float, never as -0.0.

    Raises:
        InvalidTypeError: not an `int` or a `float`; a bool is neither.
        InvalidValueError: negative, infinite, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"load must be a number, not {type(value).__name__}")
    try:
        load = float(value)
    except OverflowError:
        load = math.inf
    if not math.isfinite(load) or load < 0:
        raise InvalidValueError(f"load must be finite and at least 0, got {load}")
    return load + 0.0


def check_limit(value: object) -> int:
    """Check a limit: an integer from 0 (unlimited) to 2**53.

    Raises:
        InvalidTypeError: not an `int`; a bool is none.
        InvalidValueError: out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"limit_per_second must be an integer, not {type(value).__name__}")
    if not 0 <= value <= LIMIT_PER_SECOND_MAX:
        raise InvalidValueError(f"limit_per_second must be from 0 to 2**53, got {value}")
    return value
