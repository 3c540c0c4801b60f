"""What a caller asks of a policy beside the prompt: checked, and brought into a form.

Rule: nothing here knows a policy or a tree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from meshlib.arguments import check_kind, check_number
from meshlib.errors import InvalidTypeError, InvalidValueError, check_several
from meshlib.routing.prompts import check_session, prompt_key, session_key
from meshlib.state import WorkerState, check_text

__all__ = ["check_held", "check_tokens", "eligible", "keys_of"]


def check_tokens(tokens: float) -> None:
    """Check how many tokens a prompt is said to have. O(1).

    Raises:
        InvalidTypeError: no number.
        InvalidValueError: negative, or none that is finite.
    """
    check_number("tokens", tokens, wanted="a number of tokens")
    if not 0 <= tokens < math.inf:
        raise InvalidValueError(f"tokens must be 0 or more and finite, got {tokens}")


def check_held(held: Mapping[str, int], *, length: int) -> None:
    """Check what workers are said to hold of a prompt. O(workers).

    Args:
        held: characters, by worker.
        length: of the prompt.

    Raises:
        InvalidTypeError: no mapping, or other things in it than names and whole numbers.
        InvalidValueError: less than nothing, or more than there is.
    """
    check_kind("held", held, Mapping, wanted="a mapping of workers to characters")
    for worker_id, count in held.items():
        check_text("a worker's id", worker_id)
        if type(count) is not int:
            kind = type(count).__name__
            raise InvalidTypeError(f"held must be whole numbers of characters, not {kind}")
        if not 0 <= count <= length:
            raise InvalidValueError(
                f"held must be 0 to the {length} characters of the text, got {count}"
            )


def eligible(
    workers: Mapping[str, WorkerState],
    exclude: Collection[str],
    candidates: Collection[str] | None,
) -> dict[str, WorkerState]:
    """Return the workers that may be chosen. O(workers).

    Raises:
        InvalidTypeError: names that are none.
    """
    left_out = _names("exclude", exclude)
    wanted = workers.keys() if candidates is None else _names("candidates", candidates)
    return {
        name: worker for name, worker in workers.items() if name in wanted and name not in left_out
    }


def keys_of(
    text: str, salt: str, session: str, session_ttl_s: float
) -> tuple[str, tuple[str, float] | None]:
    """Return what stands in the tree for a prompt, and for its session where it has one.

    Raises:
        LocalError: as `CacheAwarePolicy.select` says of the salt, the session and its time to live.
    """
    check_text("salt", salt)
    key = prompt_key(text, salt=salt)
    if not session and type(session) is str:
        return key, None
    check_session(session, session_ttl_s)
    return key, (session_key(session, salt=salt), float(session_ttl_s))


def _names(what: str, worker_ids: Collection[str]) -> set[str]:
    check_several(what, worker_ids)
    for worker_id in worker_ids:
        check_text("a worker's id", worker_id)
    return set(worker_ids)
