"""What owners have others keep, and how a node that has forgotten it asks again, as bytes.

Rule: their bytes are written and read in this file alone; reading raises `RemoteError`s and
nothing else, before anything has changed.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import evolve, frozen

from meshlib.codec import pack
from meshlib.identity import ActorId
from meshlib.limits import KEY_BYTES_MAX
from meshlib.ratelimit.leases.wire import FORMAT_VERSION, read_body, read_key, read_parts
from meshlib.reading import read_actor, read_bool, read_integer, read_rows, read_text, require

__all__ = [
    "KEEP_DOCUMENT",
    "KEPT_DOCUMENT",
    "RECALLED_DOCUMENT",
    "RECALL_DOCUMENT",
    "Ceiling",
    "Keep",
    "Kept",
    "Recall",
    "Recalled",
    "decode_rows",
    "encode_rows",
]

KEEP_DOCUMENT: Final = "rate_limit:keep"
KEPT_DOCUMENT: Final = "rate_limit:kept"
RECALL_DOCUMENT: Final = "rate_limit:recall"
RECALLED_DOCUMENT: Final = "rate_limit:recalled"


@frozen(slots=True)
class Ceiling:
    """Up to what an owner may grant of a key in a window, before it has to ask again.

    Args:
        key: the rate-limit key.
        number: the window, by its first second.
        until: the second in which it ends.
        used: units that may be granted in it.
        debt: units admitted on credit that later windows have to repay.
    """

    key: str
    number: int
    until: int
    used: int
    debt: int

    def joined(self, other: Ceiling | None) -> Ceiling:
        """Return what holds where both were said: the later window, and the most of one. O(1)."""
        if other is None or other.number < self.number:
            return self
        if other.number > self.number:
            return other
        return evolve(
            self,
            until=max(self.until, other.until),
            used=max(self.used, other.used),
            debt=max(self.debt, other.debt),
        )


def _row(ceiling: Ceiling) -> tuple[str, int, int, int, int]:
    return (ceiling.key, ceiling.number, ceiling.until, ceiling.used, ceiling.debt)


def _read_ceiling(row: Any) -> Ceiling:
    key, number, until, used, debt = read_rows(row, "a ceiling", count=5)
    ceiling = Ceiling(
        read_key(key),
        read_integer(number, "a window"),
        read_integer(until, "the end of a window"),
        read_integer(used, "what may be used"),
        read_integer(debt, "a debt"),
    )
    require(ceiling.until > ceiling.number or not ceiling.until, "a window must not end before it")
    return ceiling


def encode_rows(ceilings: tuple[Ceiling, ...]) -> bytes:
    """Write ceilings for a file. O(rows)."""
    data: bytes = pack((FORMAT_VERSION, [_row(ceiling) for ceiling in ceilings]))
    return data


def decode_rows(data: bytes) -> tuple[Ceiling, ...]:
    """Read ceilings from a file.

    Raises:
        RemoteError: not what it should be.
    """
    (rows,) = read_body(data, 2)
    return read_parts(rows, _read_ceiling)


@frozen(slots=True)
class Keep:
    """An owner has ceilings kept.

    Args:
        actor: the owner.
        round_number: its number of this message.
        ceilings: what to keep.
    """

    actor: ActorId
    round_number: int
    ceilings: tuple[Ceiling, ...]

    def encode(self) -> bytes:
        """Write it."""
        rows = [_row(ceiling) for ceiling in self.ceilings]
        data: bytes = pack((FORMAT_VERSION, self.actor, self.round_number, rows))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Keep:
        """Read it.

        Raises:
            RemoteError: not what it should be.
        """
        actor, round_number, rows = read_body(data, 4)
        return cls(
            read_actor(actor),
            read_integer(round_number, "a round"),
            read_parts(rows, _read_ceiling),
        )


@frozen(slots=True)
class Kept:
    """What a keeper knew of keys before it kept what an owner has just asked for.

    Args:
        actor: the keeper.
        owner: whom it answers, in that one's start.
        round_number: of the message that it answers.
        is_whole: whether it remembers all that it was ever given to keep.
        before: one for each key that it keeps now; of one that it did not know, with 0 for all.
    """

    actor: ActorId
    owner: ActorId
    round_number: int
    is_whole: bool
    before: tuple[Ceiling, ...]

    def encode(self) -> bytes:
        """Write it."""
        rows = [_row(ceiling) for ceiling in self.before]
        data: bytes = pack(
            (FORMAT_VERSION, self.actor, self.owner, self.round_number, self.is_whole, rows)
        )
        return data

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        """Read it.

        Raises:
            RemoteError: not what it should be.
        """
        actor, owner, round_number, is_whole, rows = read_body(data, 6)
        return cls(
            read_actor(actor),
            read_actor(owner),
            read_integer(round_number, "a round"),
            read_bool(is_whole, "whether all is remembered"),
            read_parts(rows, _read_ceiling),
        )


@frozen(slots=True)
class Recall:
    """A keeper that has started anew asks what others keep.

    Args:
        actor: who asks.
        after: the last key that it has been told; empty at first.
    """

    actor: ActorId
    after: str

    def encode(self) -> bytes:
        """Write it."""
        data: bytes = pack((FORMAT_VERSION, self.actor, self.after))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Recall:
        """Read it.

        Raises:
            RemoteError: not what it should be.
        """
        actor, after = read_body(data, 3)
        return cls(read_actor(actor), _read_place(after))


@frozen(slots=True)
class Recalled:
    """A page of what one keeper keeps.

    Args:
        actor: the keeper.
        asker: whom it answers, in that one's start.
        after: as it was asked.
        is_whole: whether it remembers all that it was ever given to keep.
        is_last: whether no key comes after these.
        ceilings: by keys, ascending.
    """

    actor: ActorId
    asker: ActorId
    after: str
    is_whole: bool
    is_last: bool
    ceilings: tuple[Ceiling, ...]

    def encode(self) -> bytes:
        """Write it."""
        rows = [_row(ceiling) for ceiling in self.ceilings]
        body = (self.actor, self.asker, self.after, self.is_whole, self.is_last, rows)
        data: bytes = pack((FORMAT_VERSION, *body))
        return data

    @classmethod
    def decode(cls, data: bytes) -> Recalled:
        """Read it.

        Raises:
            RemoteError: not what it should be.
        """
        actor, asker, after, is_whole, is_last, rows = read_body(data, 7)
        return cls(
            read_actor(actor),
            read_actor(asker),
            _read_place(after),
            read_bool(is_whole, "whether all is remembered"),
            read_bool(is_last, "whether it is the last page"),
            read_parts(rows, _read_ceiling),
        )


def _read_place(after: Any) -> str:
    return read_text(after, "a rate-limit key", bytes_max=KEY_BYTES_MAX)
