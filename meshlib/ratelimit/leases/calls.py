"""What owners and voters tell each other, and what a leaving owner hands on.

A call for votes lets an owner decide for a while, once a majority has answered it with votes.

Rule: their bytes are written and read in this file alone; reading raises `RemoteError`s and
nothing else, before anything has changed.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.identity import ActorId
from meshlib.ratelimit.leases.votes import HeldCount, Vote
from meshlib.ratelimit.leases.wire import (
    FORMAT_VERSION,
    HASH_MAX,
    read_body,
    read_key,
    read_parts,
)
from meshlib.reading import read_actor, read_integer, read_rows

__all__ = [
    "CALL_DOCUMENT",
    "FAREWELL_DOCUMENT",
    "VOTE_DOCUMENT",
    "Call",
    "Farewell",
    "decode_vote",
    "encode_vote",
]

CALL_DOCUMENT: Final = "rate_limit:call"
VOTE_DOCUMENT: Final = "rate_limit:vote"
FAREWELL_DOCUMENT: Final = "rate_limit:farewell"


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
        actor, round_number, view_id, epoch, number_max = read_body(data, 6)
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
            vote.started_number_max,
            [_count_row(count) for count in vote.counts],
        )
    )
    return data


def decode_vote(data: bytes) -> Vote:
    """Read a vote.

    Raises:
        RemoteError: not what it should be.
    """
    items = read_body(data, 10)
    actor, round_number, view_id, serial, previous, epoch, number_max, started, rows = items
    return Vote(
        read_actor(actor),
        read_integer(round_number, "a round"),
        read_integer(view_id, "a view", maximum=HASH_MAX),
        read_integer(serial, "a serial"),
        read_integer(previous, "a view", maximum=HASH_MAX),
        read_integer(epoch, "an epoch"),
        read_integer(number_max, "a window", minimum=-1),
        read_integer(started, "a window", minimum=-1),
        read_parts(rows, _read_count),
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
        actor, rows = read_body(data, 3)
        return cls(read_actor(actor), read_parts(rows, _read_count))


def _count_row(count: HeldCount) -> tuple[int, str, int, int, int]:
    return (count.view_id, count.key, count.number, count.used, count.debt)


def _read_count(row: Any) -> HeldCount:
    view_id, key, number, used, debt = read_rows(row, "a count", count=5)
    return HeldCount(
        read_integer(view_id, "a view", maximum=HASH_MAX),
        read_key(key),
        read_integer(number, "a window"),
        read_integer(used, "what is used"),
        read_integer(debt, "a debt"),
    )
