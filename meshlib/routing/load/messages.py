"""What routers tell each other of the requests that they have in flight.

A row says all that one router has at one worker, so a lost, repeated or joined message changes
nothing that the next one does not put right.

Rule: bytes of shared load are written and read in this file alone; reading raises `RemoteError`s
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import VersionMismatch
from meshlib.identity import ActorId
from meshlib.limits import KEY_BYTES_MAX, LOAD_ROWS_PER_MESSAGE_MAX, PREFILL_TOKENS_MAX
from meshlib.reading import (
    read_actor,
    read_bool,
    read_integer,
    read_rows,
    read_text,
    read_tree,
    require,
)

__all__ = ["LOAD_DOCUMENT", "LoadMessage", "LoadRow"]

LOAD_DOCUMENT: Final = "load:in_flight"
"""The volatile document that shared load travels in."""

FORMAT_VERSION: Final = 1

_EPOCH_MAX: Final = (1 << 63) - 1
_COUNT_MAX: Final = (1 << 48) - 1


@frozen(slots=True)
class LoadRow:
    """What one router has in flight at one worker.

    Args:
        worker_id: the worker.
        epoch: the worker's epoch in its model's tree when these were begun: what a restarted
            worker was given before is gone.
        request_count: requests that were begun and have not ended.
        prefill_tokens: tokens of them that are still to be prefilled, as of the sending.
        wait_ms: milliseconds until the worker is expected to begin with the first of those.
        speed: tokens a second that this router has measured at the worker; 0: none yet.
        decoded_tokens: what the requests have decoded so far, as far as this router knows.
    """

    worker_id: str
    epoch: int
    request_count: int
    prefill_tokens: int
    wait_ms: int
    speed: int
    decoded_tokens: int = 0


@frozen(slots=True)
class LoadMessage:
    """Some rows of one router.

    Args:
        actor: the router's start: what an earlier start of it had in flight is gone with it.
        sequence: grows with each message of this start.
        is_timed: whether this start has ever told of tokens to prefill.
        rows: one for each worker that it speaks of.
    """

    actor: ActorId
    sequence: int
    is_timed: bool
    rows: Sequence[LoadRow]

    def encode(self) -> bytes:
        """Write the message. O(rows)."""
        rows = [
            (
                row.worker_id,
                row.epoch,
                row.request_count,
                row.prefill_tokens,
                row.wait_ms,
                row.speed,
                row.decoded_tokens,
            )
            for row in self.rows
        ]
        data: bytes = pack((FORMAT_VERSION, self.actor, self.sequence, self.is_timed, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> LoadMessage:
        """Read a message. O(rows).

        Raises:
            DecodeError: no such message.
            VersionMismatch: of a version that this node does not speak.
            LimitExceeded: more than a limit allows.
        """
        items = read_rows(read_tree(data), "shared load")
        require(len(items) >= 1, "shared load must not be empty")
        version = read_integer(items[0], "the version", minimum=1)
        if version != FORMAT_VERSION:
            raise VersionMismatch("shared load", ours=FORMAT_VERSION, theirs=version)
        require(len(items) == 5, "shared load must have 5 items")
        wires = read_rows(items[4], "rows of load", count_max=LOAD_ROWS_PER_MESSAGE_MAX)
        rows = []
        for wire in wires:
            worker_id, epoch, count, tokens, wait_ms, speed, decoded = read_rows(
                wire, "a row of load", count=7
            )
            rows.append(
                LoadRow(
                    read_text(
                        worker_id, "a worker's id", bytes_max=KEY_BYTES_MAX, is_empty_allowed=False
                    ),
                    read_integer(epoch, "an epoch", maximum=_EPOCH_MAX),
                    read_integer(count, "requests in flight", maximum=_COUNT_MAX),
                    read_integer(tokens, "tokens to prefill", maximum=PREFILL_TOKENS_MAX),
                    read_integer(wait_ms, "milliseconds", maximum=_COUNT_MAX),
                    read_integer(speed, "tokens a second", maximum=_COUNT_MAX),
                    read_integer(decoded, "decoded tokens", maximum=_COUNT_MAX),
                )
            )
        return cls(
            read_actor(items[1]),
            read_integer(items[2], "a sequence", maximum=_COUNT_MAX),
            read_bool(items[3]),
            rows,
        )
