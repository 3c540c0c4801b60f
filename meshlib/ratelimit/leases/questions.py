"""What nodes ask the owners of keys, and what those answer.

A question asks for units, and says what was admitted on credit; an answer grants or refuses.

Rule: their bytes are written and read in this file alone; reading raises `RemoteError`s and
nothing else, before anything has changed.
"""

from __future__ import annotations

from typing import Any, Final

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


@frozen(slots=True)
class QuestionPart:
    """What a node asks of one key.

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


@frozen(slots=True)
class Questions:
    """Questions of one node to one owner."""

    actor: ActorId
    parts: tuple[QuestionPart, ...]

    def encode(self) -> bytes:
        """Write the questions."""
        rows = [
            (
                part.key,
                part.number,
                part.attempt,
                part.costs,
                part.ahead,
                part.credit_total,
                part.credit_answered,
                part.returned_number,
                part.returned_units,
            )
            for part in self.parts
        ]
        data: bytes = pack((FORMAT_VERSION, self.actor, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Questions:
        """Read questions.

        Raises:
            RemoteError: not what they should be.
        """
        actor, rows = read_body(data, 3)
        return cls(read_actor(actor), read_parts(rows, _read_question))


def _read_question(row: Any) -> QuestionPart:
    items = read_rows(row, "a question", count=9)
    costs = read_rows(items[3], "costs")
    if len(costs) > RATE_COSTS_MAX:
        raise LimitExceeded("costs in a question", size=len(costs), limit=RATE_COSTS_MAX)
    part = QuestionPart(
        read_key(items[0]),
        read_integer(items[1], "a number"),
        read_integer(items[2], "an attempt"),
        tuple(read_integer(cost, "a cost", minimum=1) for cost in costs),
        *(read_integer(item, "units") for item in items[4:]),
    )
    require(part.credit_answered <= part.credit_total, "more credit is answered than was taken")
    return part


@frozen(slots=True)
class AnswerPart:
    """An owner's word on one question.

    Args:
        key: the rate-limit key.
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

    key: str
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
        rows = []
        for part in self.parts:
            row: tuple[Any, ...] = (
                part.key,
                part.number,
                part.attempt,
                part.fits,
                part.lease,
                part.spent_s or 0,
                part.remaining,
                part.used,
            )
            if (part.window, part.window_left_s) != window:
                row = (*row, part.window, part.window_left_s)
            rows.append(row)
        data: bytes = pack((FORMAT_VERSION, self.actor, self.asker, self.epoch, window, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Answers:
        """Read answers.

        Raises:
            RemoteError: not what they should be.
        """
        actor, asker, epoch, window, rows = read_body(data, 6)
        window = tuple(read_rows(window, "a window", count=2))
        return cls(
            read_actor(actor),
            read_actor(asker),
            read_integer(epoch, "an epoch"),
            read_parts(rows, lambda row: _read_answer(row, window)),
        )


def _read_answer(row: Any, window: tuple[Any, ...]) -> AnswerPart:
    """Read one answer; one without a window of its own is of the message's."""
    items = read_rows(row, "an answer", count_max=10)
    require(len(items) in (8, 10), "an answer must have 8 or 10 items")
    number, left_s = items[8:] or window
    fits = read_rows(items[3], "what fits")
    if len(fits) > RATE_COSTS_MAX:
        raise LimitExceeded("costs in an answer", size=len(fits), limit=RATE_COSTS_MAX)
    return AnswerPart(
        read_key(items[0]),
        read_integer(items[1], "a number"),
        read_integer(items[2], "an attempt"),
        read_integer(number, "a window"),
        read_seconds(left_s),
        tuple(read_bool(fit, "what fits") for fit in fits),
        read_integer(items[4], "a lease"),
        read_seconds(items[5]),
        read_integer(items[6], "what remains"),
        read_integer(items[7], "what is used"),
    )
