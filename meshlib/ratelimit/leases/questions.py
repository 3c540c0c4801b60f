"""What nodes ask the owners of keys, and what those answer.

A question asks for units, and says what was admitted on credit; an answer grants or refuses.

Rule: their bytes are written and read in this file alone; reading raises `RemoteError`s and
nothing else, before anything has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import LimitExceeded
from meshlib.identity import ActorId
from meshlib.limits import RATE_COSTS_MAX
from meshlib.ratelimit.leases.wire import (
    FORMAT_VERSION,
    read_body,
    read_key,
    read_parts,
    read_seconds,
)
from meshlib.reading import read_actor, read_bool, read_integer, read_rows, require

__all__ = [
    "ANSWER_DOCUMENT",
    "QUESTION_DOCUMENT",
    "AnswerPart",
    "Answers",
    "QuestionPart",
    "Questions",
]

QUESTION_DOCUMENT: Final = "rate_limit:question"
ANSWER_DOCUMENT: Final = "rate_limit:answer"

_BLANK_QUESTION: Final = ("", 0, (), 0, 0, 0, 0, 0, 0)
_BLANK_ANSWER: Final = (0, (), 0, 0, 0, 0, 0)


class QuestionPart(NamedTuple):
    """What a node asks of one key.

    A named tuple, as answers are: many are made and read each second.

    Args:
        key: the rate-limit key.
        number: counts this node's questions; one for a key is under way at a time.
        attempt: how often it was sent before.
        costs: units of the requests that wait, first come first.
        ahead: units to hold for requests to come.
        credit_total: units admitted on credit so far, in this start of the node.
        credit_answered: how much of it an owner has confirmed to know.
        returned_number: the window of what is given back.
        returned_units: units that were granted and are given back; 0 mostly.
    """

    key: str
    number: int
    attempt: int
    costs: tuple[int, ...]
    ahead: int
    credit_total: int
    credit_answered: int
    returned_number: int
    returned_units: int

    def telling(self, credit_total: int, *, attempt: int) -> QuestionPart:
        """Return the same question as an attempt that tells of the credit so far."""
        return self._replace(credit_total=credit_total, attempt=attempt)


@frozen(slots=True)
class Questions:
    """Questions of one node to one owner."""

    actor: ActorId
    parts: tuple[QuestionPart, ...]

    def encode(self) -> bytes:
        """Write the questions."""
        first = min((part.number for part in self.parts), default=0)
        rows = [
            _short(
                (
                    part.key,
                    part.number - first,
                    part.costs,
                    part.credit_total,
                    part.credit_answered,
                    part.ahead,
                    part.attempt,
                    part.returned_number,
                    part.returned_units,
                ),
                least=2,
            )
            for part in self.parts
        ]
        data: bytes = pack((FORMAT_VERSION, self.actor, first, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Questions:
        """Read questions.

        Raises:
            RemoteError: not what they should be.
        """
        actor, first, rows = read_body(data, 4)
        read_integer(first, "a number")
        return cls(read_actor(actor), read_parts(rows, lambda row: _read_question(row, first)))


def _short(row: tuple[Any, ...], *, least: int) -> tuple[Any, ...]:
    """Return a row without what is 0 or empty at its end."""
    size = len(row)
    while size > least and not row[size - 1]:
        size -= 1
    return row[:size]


def _long(row: Any, what: str, *, least: int, blank: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the items of a row, with those of a blank one for what is left out at its end."""
    items = read_rows(row, what, count_max=len(blank))
    require(len(items) >= least, f"{what} must have at least {least} items")
    return (*items, *blank[len(items) :])


def _read_several(items: Any, what: str) -> Sequence[Any]:
    found = read_rows(items, what)
    if len(found) > RATE_COSTS_MAX:
        raise LimitExceeded(what, size=len(found), limit=RATE_COSTS_MAX)
    return found


def _read_question(row: Any, first: int) -> QuestionPart:
    items = _long(row, "a question", least=2, blank=_BLANK_QUESTION)
    key, number, costs, total, answered, ahead, attempt, window, returned = items
    part = QuestionPart(
        read_key(key),
        read_integer(first + read_integer(number, "a number"), "a number"),
        read_integer(attempt, "an attempt"),
        tuple(read_integer(cost, "a cost", minimum=1) for cost in _read_several(costs, "costs")),
        read_integer(ahead, "units ahead"),
        read_integer(total, "credit"),
        read_integer(answered, "credit"),
        read_integer(window, "a window"),
        read_integer(returned, "units"),
    )
    require(part.credit_answered <= part.credit_total, "more credit is answered than was taken")
    return part


class AnswerPart(NamedTuple):
    """An owner's word on one question.

    Args:
        number: the question's.
        attempt: the attempt that was decided on; times count from when that was sent.
        window: the number of the window in which it was decided.
        window_left_s: seconds until that window ends.
        fits: for each cost, whether it was granted.
        lease: units to hold.
        spent_s: seconds until there will be room again; 0 while there is.
        remaining: units that nobody has been granted yet.
        used: units granted in the window, credit and leases included.
    """

    number: int
    attempt: int
    window: int
    window_left_s: float
    fits: tuple[bool, ...]
    lease: int
    spent_s: float
    remaining: int
    used: int


@frozen(slots=True)
class Answers:
    """Answers of one owner to one node, in that one's start.

    Args:
        actor: the owner.
        asker: whom it answers.
        epoch: of the owner's mandate.
        parts: one for each question.
    """

    actor: ActorId
    asker: ActorId
    epoch: int
    parts: tuple[AnswerPart, ...]

    def encode(self) -> bytes:
        """Write the answers."""
        # Most keys have windows of a second, and so the same one: it is said once.
        window = (self.parts[0].window, self.parts[0].window_left_s) if self.parts else (0, 0)
        first = min((part.number for part in self.parts), default=0)
        rows = []
        for part in self.parts:
            row: tuple[Any, ...] = (
                part.number - first,
                part.fits,
                part.remaining,
                part.used,
                part.lease,
                part.attempt,
                part.spent_s or 0,
            )
            own = (part.window, part.window_left_s)
            rows.append(_short(row, least=2) if own == window else (*row, *own))
        data: bytes = pack(
            (FORMAT_VERSION, self.actor, self.asker, self.epoch, window, first, rows)
        )
        return data

    @classmethod
    def decode(cls, data: bytes) -> Answers:
        """Read answers.

        Raises:
            RemoteError: not what they should be.
        """
        actor, asker, epoch, window, first, rows = read_body(data, 7)
        number, left_s = read_rows(window, "a window", count=2)
        shared = (read_integer(number, "a window"), read_seconds(left_s))
        read_integer(first, "a number")
        return cls(
            read_actor(actor),
            read_actor(asker),
            read_integer(epoch, "an epoch"),
            read_parts(rows, lambda row: _read_answer(row, first, shared)),
        )


def _read_answer(row: Any, first: int, window: tuple[int, float]) -> AnswerPart:
    """Read one answer; one without a window of its own is of the message's."""
    items = read_rows(row, "an answer", count_max=9)
    if len(items) == 9:
        window = read_integer(items[7], "a window"), read_seconds(items[8])
        items = items[:7]
    number, fits, remaining, used, lease, attempt, spent_s = _long(
        items, "an answer", least=2, blank=_BLANK_ANSWER
    )
    return AnswerPart(
        read_integer(first + read_integer(number, "a number"), "a number"),
        read_integer(attempt, "an attempt"),
        *window,
        tuple(read_bool(fit, "what fits") for fit in _read_several(fits, "what fits")),
        read_integer(lease, "a lease"),
        read_seconds(spent_s),
        read_integer(remaining, "what remains"),
        read_integer(used, "what is used"),
    )
