"""What nodes and the owners of rate-limit keys tell each other.

A question asks for units, and says what was admitted on credit; an answer grants or refuses. A
call for votes lets an owner decide for a while; a farewell hands on what a leaving owner has
counted. Each begins with its format version.

Rule: their bytes are written and read in this file alone; reading raises `RemoteError`s and
nothing else, before anything has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import LimitExceeded, VersionMismatch
from meshlib.identity import ActorId
from meshlib.limits import KEY_BYTES_MAX, RATE_COSTS_MAX, RATE_KEYS_PER_MESSAGE_MAX
from meshlib.ratelimit.leases.votes import HeldCount, Vote
from meshlib.reading import (
    read_actor,
    read_bool,
    read_integer,
    read_number,
    read_rows,
    read_text,
    read_tree,
    require,
)

__all__ = [
    "ANSWER_DOCUMENT",
    "CALL_DOCUMENT",
    "FAREWELL_DOCUMENT",
    "QUESTION_DOCUMENT",
    "VOTE_DOCUMENT",
    "AnswerPart",
    "Answers",
    "Call",
    "Farewell",
    "QuestionPart",
    "Questions",
    "batches",
    "decode_vote",
    "encode_vote",
]

QUESTION_DOCUMENT: Final = "rate_limit:question"
ANSWER_DOCUMENT: Final = "rate_limit:answer"
CALL_DOCUMENT: Final = "rate_limit:call"
VOTE_DOCUMENT: Final = "rate_limit:vote"
FAREWELL_DOCUMENT: Final = "rate_limit:farewell"

FORMAT_VERSION: Final = 2
"""1 were the reports and answers of shares, under other documents."""

HASH_MAX: Final = (1 << 64) - 1
SECONDS_MAX: Final = 1e9

PartT = TypeVar("PartT")


@frozen(slots=True)
class QuestionPart:
    """What a node asks of one key.

    Args:
        key: the rate-limit key.
        number: counts this node's questions for the key; one is under way at a time.
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
        actor, rows = _read_body(data, 3)
        return cls(read_actor(actor), _read_parts(rows, _read_question))


def _read_question(row: Any) -> QuestionPart:
    items = read_rows(row, "a question", count=9)
    costs = read_rows(items[3], "costs")
    if len(costs) > RATE_COSTS_MAX:
        raise LimitExceeded("costs in a question", size=len(costs), limit=RATE_COSTS_MAX)
    part = QuestionPart(
        _read_key(items[0]),
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
        rows = [
            (
                part.key,
                part.number,
                part.attempt,
                part.window,
                part.window_left_s,
                part.fits,
                part.lease,
                part.spent_s,
                part.remaining,
                part.used,
            )
            for part in self.parts
        ]
        data: bytes = pack((FORMAT_VERSION, self.actor, self.asker, self.epoch, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Answers:
        """Read answers.

        Raises:
            RemoteError: not what they should be.
        """
        actor, asker, epoch, rows = _read_body(data, 5)
        return cls(
            read_actor(actor),
            read_actor(asker),
            read_integer(epoch, "an epoch"),
            _read_parts(rows, _read_answer),
        )


def _read_answer(row: Any) -> AnswerPart:
    items = read_rows(row, "an answer", count=10)
    fits = read_rows(items[5], "what fits")
    if len(fits) > RATE_COSTS_MAX:
        raise LimitExceeded("costs in an answer", size=len(fits), limit=RATE_COSTS_MAX)
    return AnswerPart(
        _read_key(items[0]),
        read_integer(items[1], "a number"),
        read_integer(items[2], "an attempt"),
        read_integer(items[3], "a window"),
        _read_seconds(items[4]),
        tuple(read_bool(fit, "what fits") for fit in fits),
        read_integer(items[6], "a lease"),
        _read_seconds(items[7]),
        read_integer(items[8], "what remains"),
        read_integer(items[9], "what is used"),
    )


@frozen(slots=True)
class Call:
    """An owner's call for votes.

    Args:
        actor: the owner.
        round_number: its number of this call.
        view_id: the view in which it wants to decide.
        epoch: of its mandate so far.
        number_max: the highest window in which it will grant on the strength of these votes.
    """

    actor: ActorId
    round_number: int
    view_id: int
    epoch: int
    number_max: int

    def encode(self) -> bytes:
        """Write the call."""
        data: bytes = pack(
            (
                FORMAT_VERSION,
                self.actor,
                self.round_number,
                self.view_id,
                self.epoch,
                self.number_max,
            )
        )
        return data

    @classmethod
    def decode(cls, data: bytes) -> Call:
        """Read a call.

        Raises:
            RemoteError: not what it should be.
        """
        actor, round_number, view_id, epoch, number_max = _read_body(data, 6)
        return cls(
            read_actor(actor),
            read_integer(round_number, "a round"),
            read_integer(view_id, "a view", maximum=HASH_MAX),
            read_integer(epoch, "an epoch"),
            read_integer(number_max, "a window"),
        )


def encode_vote(vote: Vote) -> bytes:
    """Write a vote."""
    data: bytes = pack(
        (
            FORMAT_VERSION,
            vote.actor,
            vote.round_number,
            vote.view_id,
            vote.serial,
            vote.previous_view_id,
            vote.epoch,
            vote.number_max,
            [_count_row(count) for count in vote.counts],
        )
    )
    return data


def decode_vote(data: bytes) -> Vote:
    """Read a vote.

    Raises:
        RemoteError: not what it should be.
    """
    actor, round_number, view_id, serial, previous, epoch, number_max, rows = _read_body(data, 9)
    return Vote(
        read_actor(actor),
        read_integer(round_number, "a round"),
        read_integer(view_id, "a view", maximum=HASH_MAX),
        read_integer(serial, "a serial"),
        read_integer(previous, "a view", maximum=HASH_MAX),
        read_integer(epoch, "an epoch"),
        read_integer(number_max, "a window", minimum=-1),
        _read_parts(rows, _read_count),
    )


@frozen(slots=True)
class Farewell:
    """What an owner that leaves hands on, after its last decision.

    Args:
        actor: the owner.
        counts: of keys that are the receiver's now; maybe none.
    """

    actor: ActorId
    counts: tuple[HeldCount, ...]

    def encode(self) -> bytes:
        """Write the farewell."""
        rows = [_count_row(count) for count in self.counts]
        data: bytes = pack((FORMAT_VERSION, self.actor, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Farewell:
        """Read a farewell.

        Raises:
            RemoteError: not what it should be.
        """
        actor, rows = _read_body(data, 3)
        return cls(read_actor(actor), _read_parts(rows, _read_count))


def _count_row(count: HeldCount) -> tuple[int, str, int, int, int]:
    return (count.view_id, count.key, count.number, count.used, count.debt)


def _read_count(row: Any) -> HeldCount:
    view_id, key, number, used, debt = read_rows(row, "a count", count=5)
    return HeldCount(
        read_integer(view_id, "a view", maximum=HASH_MAX),
        _read_key(key),
        read_integer(number, "a window"),
        read_integer(used, "what is used"),
        read_integer(debt, "a debt"),
    )


def batches(parts: Sequence[PartT]) -> Iterable[tuple[PartT, ...]]:
    """Cut parts into messages of a size that fits a frame."""
    for start in range(0, len(parts), RATE_KEYS_PER_MESSAGE_MAX):
        yield tuple(parts[start : start + RATE_KEYS_PER_MESSAGE_MAX])


def _read_body(data: bytes, count: int) -> Sequence[Any]:
    rows = read_rows(read_tree(data), "a rate-limit message")
    require(len(rows) >= 1, "a rate-limit message must not be empty")
    version = read_integer(rows[0], "the version", minimum=1)
    if version != FORMAT_VERSION:
        raise VersionMismatch("a rate-limit message", ours=FORMAT_VERSION, theirs=version)
    require(len(rows) == count, f"a rate-limit message must have {count} items")
    return rows[1:]


def _read_parts(rows: Any, read: Callable[[Any], PartT]) -> tuple[PartT, ...]:
    parts = read_rows(rows, "the keys of a message", count_max=RATE_KEYS_PER_MESSAGE_MAX)
    return tuple(read(part) for part in parts)


def _read_key(key: Any) -> str:
    return read_text(key, "a rate-limit key", bytes_max=KEY_BYTES_MAX, is_empty_allowed=False)


def _read_seconds(value: Any) -> float:
    return read_number(value, "a duration", maximum=SECONDS_MAX)
