"""Frames of a peer, damaged in ways that pass the checksum: what a decoder must stand.

Damage is done where a decoder looks: to one place of the decoded tree of a header, a message, a
log entry's delta, a page of a transfer or a report of the limiter, or to the bits of a message.
Everything above it is then packed again, and the checksum is computed anew. One seed makes one
sequence of frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from meshlib.codec import pack, unpack
from meshlib.crdt import registry
from meshlib.errors import DecodeError, RemoteError
from meshlib.gossip.messages import frames
from meshlib.gossip.messages.frames import FORMAT_VERSION, PREFIX_BYTES, decode_frame
from meshlib.gossip.messages.kinds import EntriesMessage, TransferPageMessage
from meshlib.limits import FORMATS
from meshlib.replication.page_content import PageContent
from meshlib.replication.records import LogEntry

__all__ = ["Mutator", "forges_a_write", "parse_frame", "seal"]

CLUSTER: Final = "mesh"

PACKED_INSIDE: Final = {9: 4, 16: 4, 18: 2}
"""Message code to the place of bytes that are packed themselves (of each entry, for code 9)."""

HOSTILE: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**16, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 1.0, 1e308, float("inf"), float("-inf"), float("nan"),
    "", "x", "\x00", "0.0.0.0:1", "[::]:1", "host", "host:", ":1", "host:0", "host:65536",
    "host:1:1", "[::1", "a" * 300 + ":1", "a." * 200 + "b:1", "x" * 100_000, "\u2024" * 400,
    b"", b"\x00", b"\xff" * 16, b"\x00" * 8, b"x" * 100_000,
    (), ((),), {}, {"a": 1}, (None,) * 1000, (0,) * 70_000,
)  # fmt: skip


def seal(body: bytes) -> bytes:
    """Put the head with the right checksum before a frame's body."""
    return frames.seal(body, FORMAT_VERSION, FORMATS)


def parse_frame(frame: bytes) -> list[Any]:
    """Return a frame's fields, the messages as trees."""
    *header, messages = unpack(frame[PREFIX_BYTES:])
    return [*header, [list(unpack(message)) for message in messages]]


def build_frame(fields: Sequence[Any]) -> bytes:
    """Return the frame of what `parse_frame` returned."""
    *header, messages = fields
    return seal(pack((*header, [pack(message) for message in messages])))


def _contents(frame: bytes) -> dict[bytes, bytes]:
    """Return what a frame carries of documents: states by the bytes they were read from."""
    found: dict[bytes, bytes] = {}
    for message in decode_frame(frame, cluster=CLUSTER).messages:
        if isinstance(message, EntriesMessage):
            found |= {
                entry.delta: entry.delta for entry in message.entries if isinstance(entry, LogEntry)
            }
        elif isinstance(message, TransferPageMessage) and message.state:
            found[message.state] = PageContent.decode(message.state).part
    return found


def forges_a_write(frame: bytes, *, good: bytes) -> bool:
    """Tell whether a damaged frame carries a sound state that the good one does not.

    Such a frame is a write in somebody's name. It harms nobody who has that write already; of
    one who has not, nothing tells it from what was written.
    """
    try:
        contents, known = _contents(frame), set(_contents(good).values())
    except RemoteError:
        return False
    for part in set(contents.values()) - known:
        try:
            registry.decode(part)
        except RemoteError:
            continue
        return True
    return False


def _thaw(tree: Any) -> Any:
    return [_thaw(item) for item in tree] if isinstance(tree, tuple | list) else tree


def _places(tree: Any, found: list[tuple[list[Any], int]]) -> list[tuple[list[Any], int]]:
    """List every place of a tree of lists, as (list, index)."""
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            found.append((tree, index))
            _places(item, found)
    return found


class Mutator:
    """Makes damaged frames out of good ones.

    Args:
        seed: of all chance.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.forged_count = 0
        """Frames that were made and put away, because a peer may write."""

    def damage(self, frame: bytes) -> bytes:
        """Return a frame with one thing wrong under a right checksum, and no forged write."""
        while True:
            damaged = self._damaged(frame)
            if not forges_a_write(damaged, good=frame):
                return damaged
            self.forged_count += 1

    def _damaged(self, frame: bytes) -> bytes:
        fields = _thaw(parse_frame(frame))
        choice = self.rng.random()
        if choice < 0.15:
            *header, messages = fields
            self._damage_tree(header)
            return self._pack_or_flip([*header, messages], frame)
        if choice < 0.3:
            return self.flip_body(frame)
        message = self.rng.choice(fields[-1])
        if choice < 0.4:
            data = self._flip(pack(message))
            *header, messages = fields
            packed = [data if other is message else pack(other) for other in messages]
            return seal(pack((*header, packed)))
        if choice < 0.65 and self._damage_inside(message):
            return self._pack_or_flip(fields, frame)
        self._damage_tree(message)
        return self._pack_or_flip(fields, frame)

    def flip_body(self, frame: bytes) -> bytes:
        """Return a frame with one byte of its body changed."""
        return seal(self._flip(frame[PREFIX_BYTES:]))

    def _pack_or_flip(self, fields: Sequence[Any], frame: bytes) -> bytes:
        try:
            return build_frame(fields)
        except (ValueError, TypeError, OverflowError):
            return self.flip_body(frame)

    def _flip(self, data: bytes) -> bytes:
        """Change one bit or byte, or lose one, or add one."""
        rng = self.rng
        body = bytearray(data)
        if not body:
            return b"\x00"
        at = rng.randrange(len(body))
        choice = rng.random()
        if choice < 0.6:
            body[at] ^= 1 << rng.randrange(8)
        elif choice < 0.8:
            body[at] = rng.randrange(256)
        elif choice < 0.9:
            del body[at]
        else:
            body.insert(at, rng.randrange(256))
        return bytes(body)

    def _damage_inside(self, message: list[Any]) -> bool:
        """Damage what a message carries packed; tell whether it carries anything."""
        place = PACKED_INSIDE.get(message[0]) if isinstance(message[0], int) else None
        if place is None:
            return False
        holder = self.rng.choice(message[1]) if message[0] == 9 and message[1] else message
        if not isinstance(holder, list) or len(holder) <= place or not holder[place]:
            return False
        try:
            holder[place] = self._damage_packed(holder[place])
        except (DecodeError, ValueError, TypeError, OverflowError):
            holder[place] = self._flip(holder[place])
        return True

    def _damage_packed(self, data: bytes) -> bytes:
        """Damage a packed tree, or what is packed within it again."""
        if self.rng.random() < 0.3:
            return self._flip(data)
        tree = _thaw(unpack(data))
        inner = [
            (holder, index)
            for holder, index in _places(tree, [])
            if isinstance(holder[index], bytes) and len(holder[index]) > 16
        ]
        if inner and self.rng.random() < 0.5:
            holder, index = self.rng.choice(inner)
            try:
                holder[index] = self._damage_packed(holder[index])
            except DecodeError:
                holder[index] = self._flip(holder[index])
        else:
            self._damage_tree(tree)
        packed: bytes = pack(tree)
        return packed

    def _damage_tree(self, tree: list[Any]) -> None:
        """Change one place of a tree to something else."""
        places = _places(tree, [])
        if not places:
            return
        holder, index = self.rng.choice(places)
        changes: tuple[Callable[[list[Any], int], None], ...] = (
            self._replace, self._replace, self._replace, self._nudge, self._nudge, self._swap,
            self._repeat, self._drop, self._nest,
        )  # fmt: skip
        self.rng.choice(changes)(holder, index)

    def _replace(self, holder: list[Any], index: int) -> None:
        holder[index] = self.rng.choice(HOSTILE)

    def _nudge(self, holder: list[Any], index: int) -> None:
        """Make another value of the same type, near or far."""
        value, rng = holder[index], self.rng
        if isinstance(value, bool):
            holder[index] = not value
        elif isinstance(value, int):
            near = value + rng.choice((-1, 1, -2, 2, 2**20, -(2**20)))
            holder[index] = rng.choice((near, rng.getrandbits(63), rng.getrandbits(16)))
        elif isinstance(value, str) and value:
            at = rng.randrange(len(value))
            letter = chr(rng.choice((ord(value[at]) ^ 1, rng.randrange(32, 127), 0x2024)))
            holder[index] = value[:at] + letter + value[at + 1 :]
        elif isinstance(value, bytes) and value:
            holder[index] = self._flip(value)
        else:
            self._replace(holder, index)

    def _swap(self, holder: list[Any], index: int) -> None:
        other = self.rng.randrange(len(holder))
        holder[index], holder[other] = holder[other], holder[index]

    def _repeat(self, holder: list[Any], index: int) -> None:
        holder[index:index] = [holder[index]] * self.rng.choice((1, 1, 2, 300))

    def _drop(self, holder: list[Any], index: int) -> None:
        del holder[index]

    def _nest(self, holder: list[Any], index: int) -> None:
        for _ in range(self.rng.choice((1, 2, 40, 400))):
            holder[index] = [holder[index]]
