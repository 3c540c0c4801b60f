"""What nodes and the owners of rate-limit keys tell each other.

A report carries what its sender itself admitted, cumulatively, and what it is asked for. An
answer carries what all others admitted and are asked for. Both are whole and small, so a lost,
repeated, reordered or re-routed one changes nothing that the next does not put right.

Rule: bytes of reports and answers are written and read in this file alone; reading raises
`RemoteError`s and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.crdt import WindowCounter
from meshlib.errors import VersionMismatch
from meshlib.identity import ActorId
from meshlib.limits import KEY_BYTES_MAX, MEMBERS_MAX
from meshlib.reading import (
    read_actor,
    read_integer,
    read_number,
    read_rows,
    read_text,
    read_tree,
    require,
)

__all__ = [
    "ANSWER_DOCUMENT",
    "KEYS_PER_MESSAGE_MAX",
    "REPORT_DOCUMENT",
    "Answer",
    "KeyAnswer",
    "KeyReport",
    "RateCounter",
    "RateMessage",
    "Report",
    "batches",
]

REPORT_DOCUMENT: Final = "rate_limit:report"
"""The volatile document of reports to owners."""

ANSWER_DOCUMENT: Final = "rate_limit:answer"
"""The volatile document of the owners' answers."""

RateCounter: Final = WindowCounter.of(4)
"""Counts of one key: the current window, the last, one ahead, and one to spare."""

FORMAT_VERSION: Final = 1

KEYS_PER_MESSAGE_MAX: Final = 256
"""Keys in one message: with keys at their limit it stays within half a frame."""

_WINDOWS_PER_ANSWER_MAX: Final = 8


@frozen(slots=True)
class RateMessage:
    """Bytes of a volatile document, and whom they are for.

    Args:
        to: names of nodes; none of them is this one.
        document: the volatile document.
        payload: its bytes.
    """

    to: tuple[str, ...]
    document: str
    payload: bytes


@frozen(slots=True)
class KeyReport:
    """What the sender says of one key.

    Args:
        key: the rate-limit key.
        demand: units a second that it is asked for.
        counter: what it admitted in its current and last windows, under its own actor.
    """

    key: str
    demand: float
    counter: WindowCounter


@frozen(slots=True)
class Report:
    """What a node tells the owners of some keys.

    Args:
        actor: the sender's writer.
        sequence: grows with each report of this actor.
        keys: one part for each key.
    """

    actor: ActorId
    sequence: int
    keys: tuple[KeyReport, ...]

    def encode(self) -> bytes:
        """Write the report."""
        rows = [(part.key, part.demand, part.counter.to_wire()) for part in self.keys]
        data: bytes = pack((FORMAT_VERSION, self.actor, self.sequence, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Report:
        """Read a report.

        Raises:
            DecodeError: not a report, or one that speaks for another actor.
            VersionMismatch: of a version that this node does not speak.
            LimitExceeded: more than a limit allows.
        """
        actor, sequence, rows = _read_body(data, 4)
        writer = read_actor(actor)
        parts = []
        for row in _read_parts(rows):
            key, demand, counter = read_rows(row, "a key's report", count=3)
            read = RateCounter.from_wire(counter)
            require(
                all(list(read.by_actor(window)) in ([], [writer]) for window in read.windows()),
                "a report may carry its sender's own counts only",
            )
            parts.append(KeyReport(_read_key(key), _read_rate(demand), read))
        return cls(writer, read_integer(sequence, "a sequence"), tuple(parts))


@frozen(slots=True)
class KeyAnswer:
    """What an owner knows of one key, leaving out whom it answers.

    Args:
        key: the rate-limit key.
        others_demand: units a second that all others are asked for.
        others_active: how many others are asked for anything.
        others_admitted: (window, units) that all others admitted, for the newest windows.
    """

    key: str
    others_demand: float
    others_active: int
    others_admitted: tuple[tuple[int, int], ...]


@frozen(slots=True)
class Answer:
    """What an owner answers to a report.

    Args:
        actor: the owner's writer.
        sequence: grows with each answer of this actor.
        keys: one part for each key of the report.
    """

    actor: ActorId
    sequence: int
    keys: tuple[KeyAnswer, ...]

    def encode(self) -> bytes:
        """Write the answer."""
        rows = [
            (part.key, part.others_demand, part.others_active, part.others_admitted)
            for part in self.keys
        ]
        data: bytes = pack((FORMAT_VERSION, self.actor, self.sequence, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Read an answer.

        Raises:
            DecodeError: not an answer.
            VersionMismatch: of a version that this node does not speak.
            LimitExceeded: more than a limit allows.
        """
        actor, sequence, rows = _read_body(data, 4)
        parts = []
        for row in _read_parts(rows):
            key, demand, active, admitted = read_rows(row, "a key's answer", count=4)
            parts.append(
                KeyAnswer(
                    _read_key(key),
                    _read_rate(demand),
                    read_integer(active, "active nodes", maximum=MEMBERS_MAX),
                    _read_windows(admitted),
                )
            )
        return cls(read_actor(actor), read_integer(sequence, "a sequence"), tuple(parts))


def batches(parts: Sequence[Any]) -> Iterable[tuple[Any, ...]]:
    """Cut parts into messages of a size that fits a frame."""
    for start in range(0, len(parts), KEYS_PER_MESSAGE_MAX):
        yield tuple(parts[start : start + KEYS_PER_MESSAGE_MAX])


def _read_body(data: bytes, count: int) -> Sequence[Any]:
    rows = read_rows(read_tree(data), "a rate-limit message")
    require(len(rows) >= 1, "a rate-limit message must not be empty")
    version = read_integer(rows[0], "the version", minimum=1)
    if version != FORMAT_VERSION:
        raise VersionMismatch("a rate-limit message", ours=FORMAT_VERSION, theirs=version)
    require(len(rows) == count, f"a rate-limit message must have {count} items")
    return rows[1:]


def _read_parts(rows: Any) -> Sequence[Any]:
    return read_rows(rows, "the keys of a message", count_max=KEYS_PER_MESSAGE_MAX)


def _read_key(key: Any) -> str:
    return read_text(key, "a rate-limit key", bytes_max=KEY_BYTES_MAX, is_empty_allowed=False)


def _read_rate(rate: Any) -> float:
    return read_number(rate, "a demand")


def _read_windows(wire: Any) -> tuple[tuple[int, int], ...]:
    pairs = []
    for row in read_rows(wire, "windows", count_max=_WINDOWS_PER_ANSWER_MAX):
        window, count = read_rows(row, "a window", count=2)
        pairs.append((read_integer(window, "a window"), read_integer(count, "a count")))
    return tuple(pairs)
