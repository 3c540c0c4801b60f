"""Entries without what their readers have: a text that begins as another travels as its end.

Rules this file owns:
- A short entry stands for one entry and no other: who makes it whole again compares the hash of all
  of its bytes. Where a name is not known, or leads elsewhere, there is no entry: it is asked for,
  as one that was lost on the way, and then sent whole.
- Only what is pushed is short. The log, gaps, exchanges and transfers have whole entries: what one
  node can give does not depend on what another has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from meshlib.crdt import KnownText
from meshlib.hashing import hash64
from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import ENTRY_BYTES_MAX, HOLES_MAX
from meshlib.prefix import common_bytes
from meshlib.replication.records import Hole, LogEntry, ShortEntry

__all__ = ["ShortEntries", "shortened", "whole"]

_SOUGHT_BYTES: Final = 64

SHORT_ENTRIES_MAX: Final = 1024
SHORT_BYTES_MAX: Final = 1 << 20
"""What is kept of entries that may be passed on."""


def shortened(entry: LogEntry, known: Sequence[KnownText], *, bytes_min: int) -> ShortEntry | None:
    """Return an entry without the beginnings that are known; None where that spares nothing.

    O(size of the entry and the texts, in C).

    Args:
        entry: just made.
        known: of the deltas that are in it.
        bytes_min: how long a beginning must be to be left out.
    """
    data, at, group, previous = entry.delta, 0, "", b""
    kept: list[bytes] = []
    holes: list[Hole] = []
    inside = {text.own_name for text in known}
    for text in sorted(known, key=attrgetter("group", "data")):
        # What a text shares with the one before it in its row is not written a second time.
        is_next = text.group == group and previous[:1] == text.data[:1]
        start = common_bytes(previous, text.data, 0) if is_next and previous else 0
        group, previous = text.group, text.data
        if text.size - start < bytes_min or text.name in inside or len(holes) >= HOLES_MAX:
            continue
        # Its first bytes are looked for: to look for all of them would begin by reading them.
        piece = text.data[start : text.size]
        found = data.find(piece[:_SOUGHT_BYTES], at)
        if found < 0 or not data.startswith(piece, found):
            continue
        kept.append(data[at:found])
        holes.append(Hole(len(kept[-1]), text.name, start, text.size))
        at = found + len(piece)
    if not holes:
        return None
    kept.append(data[at:])
    return ShortEntry(
        entry.actor, entry.first, entry.last, entry.document,
        rest=b"".join(kept), digest=hash64(data), holes=tuple(holes),
    )  # fmt: skip


def whole(short: ShortEntry, text_of: Callable[[int], bytes | None]) -> LogEntry | None:
    """Return the entry that a short one stands for; None where it cannot be made. O(size).

    Args:
        short: as it came.
        text_of: returns the bytes of a text by its name.
    """
    size = len(short.rest) + sum(hole.end - hole.start for hole in short.holes)
    if size > ENTRY_BYTES_MAX:
        return None
    pieces: list[bytes] = []
    at = 0
    for after, name, start, end in short.holes:
        text = text_of(name)
        if text is None:
            return None
        pieces += short.rest[at : at + after], text[start:end]
        at += after
    pieces.append(short.rest[at:])
    data = b"".join(pieces)
    if hash64(data) != short.digest:
        return None
    return LogEntry(short.actor, short.first, short.last, short.document, data)


class ShortEntries:
    """The short forms of the latest entries, for those that are still to be told of them."""

    __slots__ = ("_bytes", "_entries")

    def __init__(self) -> None:
        self._entries: dict[tuple[ActorId, int, int], ShortEntry] = {}
        self._bytes = 0

    def put(self, short: ShortEntry) -> None:
        """Keep one; the oldest go for it. Amortised O(1)."""
        key = short.actor, short.first, short.last
        former = self._entries.pop(key, None)
        self._bytes += len(short.rest) - (0 if former is None else len(former.rest))
        self._entries[key] = short
        while len(self._entries) > SHORT_ENTRIES_MAX or self._bytes > SHORT_BYTES_MAX:
            self._bytes -= len(self._entries.pop(next(iter(self._entries))).rest)

    def get(self, entry: LogEntry) -> LogEntry | ShortEntry:
        """Return an entry's short form, itself without one. O(1)."""
        return self._entries.get((entry.actor, entry.first, entry.last), entry)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how much is kept."""
        return {"entry_count": len(self._entries), "bytes": self._bytes}

    def _check(self) -> None:
        """Assert the bounds."""
        require(self, len(self._entries) <= SHORT_ENTRIES_MAX, "too many short entries are kept")
        size = sum(len(short.rest) for short in self._entries.values())
        require(self, size == self._bytes <= SHORT_BYTES_MAX, "their bytes are miscounted")
