"""Which worker a session was with, in the tree where everybody knows it.

A session is a short text of its own in its model's tree, held by the worker that it was given to
last. So all that is true of a placement is true of it: every router knows it, a node that restarts
has it before it is ready, a worker that is removed or cleared loses it, and the least recently
used one makes room.

Rule: the name of a session is hashed. It may be somebody's secret, and the tree can be read.
"""

from __future__ import annotations

from typing import Final

from meshlib.arguments import check_number
from meshlib.errors import InvalidValueError
from meshlib.hashing import hash128
from meshlib.routing.prompts.keys import SESSION_MARK, prompt_key
from meshlib.routing.trees import TreeSync
from meshlib.state import check_identifier

__all__ = [
    "SESSION_TTL_MAX_S",
    "SESSION_TTL_S",
    "check_session",
    "session_holder",
    "session_key",
]

SESSION_TTL_S: Final = 600.0
"""How long after its last prompt a session is still its worker's, unless somebody says else."""

SESSION_TTL_MAX_S: Final = 86_400.0

_SESSION_TTL_MIN_S: Final = 1.0


def check_session(session: str, ttl_s: float) -> None:
    """Raise what is wrong with a session's name or its time to live. O(length).

    Raises:
        InvalidTypeError: one of another type.
        InvalidValueError: a name that is not Unicode, a time out of range.
        LimitError: a name over 1 KiB in UTF-8.
    """
    check_identifier("session", session)
    check_number("session_ttl_s", ttl_s, wanted="a number of seconds")
    if not _SESSION_TTL_MIN_S <= ttl_s <= SESSION_TTL_MAX_S:
        raise InvalidValueError(
            f"session_ttl_s must be {_SESSION_TTL_MIN_S:g} to {SESSION_TTL_MAX_S:g}, got {ttl_s}"
        )


def session_key(session: str, *, salt: str = "") -> str:
    """Return what stands for a session in a tree; equal names of two salts are two. O(length)."""
    return f"{SESSION_MARK}{hash128(prompt_key(session, salt=salt).encode()).hex()}"


def session_holder(trees: TreeSync, model_id: str, key: str, *, ttl_s: float) -> str | None:
    """Return the worker that a session was given to last, or None after its time. O(holders).

    Two routers that are asked at the same moment may give a new session to two workers; the later
    of the two is its worker for all of them once they have heard of each other.

    Args:
        trees: the routing trees.
        model_id: the model.
        key: as `session_key` says.
        ttl_s: how long ago that may be, in seconds; by the stamps of the nodes' clocks.
    """
    last = trees.last_user(model_id, key)
    return None if last is None or last[1] > ttl_s else last[0]
