"""The records that the stores keep and answer with, and the checks of what goes into them.

Rule: whatever a caller may put into a store is checked here, before any change. What a peer
wrote is read by the same checks and never raises: a value that does not pass is unreadable.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from attrs import frozen

from meshlib.errors import InvalidTypeError, InvalidValueError, LimitError
from meshlib.limits import KEY_BYTES_MAX, WORKER_TTL_S_MAX, WORKER_TTL_S_MIN

__all__ = [
    "LIMIT_PER_SECOND_MAX",
    "PolicyState",
    "StateChange",
    "StoreName",
    "WorkerState",
    "check_flag",
    "check_identifier",
    "check_limit",
    "check_load",
    "check_text",
    "check_ttl",
]

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
        health: whether it may be chosen: what was written, and on this node not longer than its
            time to live without a word of it.
        load: how busy it is, 0 or more, in a unit that all workers of a model share.
        version: counts the changes of this worker, from 1; the same on every node.
        ttl_s: seconds after which it is not healthy unless it was heard of again; None: for ever.
    """

    worker_id: str
    model_id: str
    url: str
    health: bool
    load: float
    version: int
    ttl_s: float | None = None


@frozen(slots=True, kw_only=True)
class PolicyState:
    """The routing policy of one model.

    Args:
        model_id: the model.
        policy_type: `cache_aware`, or any other name that the router knows.
        config: the policy's own configuration, kept as it was given.
        version: counts the changes of this policy, from 1; the same on every node. 0 of a default.
        default_of: the node whose file says so, since nobody has written a policy of this model;
            None when it was written.
    """

    model_id: str
    policy_type: str
    config: str
    version: int
    default_of: str | None = None


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
        raise InvalidTypeError(f"{what} must be a string, not {type(value).__name__}")
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


def check_ttl(value: object) -> float | None:
    """Check a worker's time to live: 1 to 86,400 seconds, or None for no end.

    Raises:
        InvalidTypeError: neither a number nor None; a bool is no number.
        InvalidValueError: out of range, or NaN.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"ttl_s must be a number, not {type(value).__name__}")
    if not WORKER_TTL_S_MIN <= value <= WORKER_TTL_S_MAX:
        raise InvalidValueError(
            f"ttl_s must be {WORKER_TTL_S_MIN:g} to {WORKER_TTL_S_MAX:g} seconds, got {value}"
        )
    return float(value)


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
