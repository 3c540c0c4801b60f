"""The replica's vector: for each writer the highest number absorbed without a gap.

Rule: everything about forgetting a writer in vectors must live in this file. A writer that was
forgotten leaves the vector, so that vectors do not grow with every restart of every node; nodes
do so at different times, and these keep that from looking like something is missing:

- its number is kept aside for a while, its old entries are refused by it, and vectors sent to
  peers carry it as a *mark*: "this much I had, I need no more of it";
- a peer that sees a mark forgets too, so that the hashes are soon equal again, unless it knows
  of somebody who has forgotten the writer with less;
- whoever gets more of a forgotten writer than it had, from the state of a peer that was cut off,
  counts it again, until everybody in reach has as much;
- `BASE` stands in the vector of every node that holds content of writers it has forgotten: a
  node without it cannot get that content from a log and is sent a state transfer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from meshlib.hashing import HASH64_MASK, hash64
from meshlib.identity import ActorId
from meshlib.invariants import require

__all__ = ["BASE", "Vector", "VersionVector", "is_mark", "marked_number", "vector_hash"]

Vector = Mapping[ActorId, int]
"""Writer to number, as it travels: marks included."""

BASE: Final = ActorId(bytes(16))
"""The writer of content whose writers were forgotten. It has one number, 1, and no entries."""

MARK: Final = 1 << 62
"""Set in the number of a writer that was forgotten. No writer makes as many entries."""

FORGOTTEN_MAX: Final = 16_384
"""Forgotten writers whose entries are refused by name; older ones come from nowhere any more."""

MARKS_MAX: Final = 256
"""Forgotten writers named in a vector that is sent: 7 KiB; peers learn them at once."""

ENTRIES_MAX: Final = 32_768
"""Writers of a vector with all its marks: 27 bytes each at most, which fit a frame."""


def is_mark(sequence: int) -> bool:
    """Tell whether a number says that its writer was forgotten."""
    return sequence >= MARK


def marked_number(sequence: int) -> int:
    """Return the number proper, a mark aside."""
    return sequence & (MARK - 1)


def _term(actor: ActorId, sequence: int) -> int:
    return hash64(actor + sequence.to_bytes(8, "big"))


def vector_hash(vector: Vector) -> int:
    """Return 64 bits that are equal for equal vectors; marks do not count. O(actors)."""
    total = sum(_term(actor, n) for actor, n in vector.items() if n and not is_mark(n))
    return total & HASH64_MASK


class VersionVector:
    """A vector with its hash, kept up with each number that moves."""

    __slots__ = ("_numbers", "_sum", "forgotten", "view")

    def __init__(self) -> None:
        self._numbers: dict[ActorId, int] = {}
        self._sum = 0
        self.view: Final[Mapping[ActorId, int]] = MappingProxyType(self._numbers)
        self.forgotten: dict[ActorId, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def get(self, actor: ActorId) -> int:
        """Return a writer's number, 0 without one. O(1)."""
        return self._numbers.get(actor, 0)

    def number(self, actor: ActorId) -> int:
        """Return what was absorbed of a writer, a forgotten one too. O(1)."""
        return self._numbers.get(actor) or self.forgotten.get(actor, 0)

    def set(self, actor: ActorId, sequence: int) -> None:
        """Move a writer's number up; it is the latest that moved. O(1)."""
        before = self._numbers.pop(actor, None)
        self._numbers[actor] = sequence
        self._sum += _term(actor, sequence)
        if before is not None:
            self._sum -= _term(actor, before)

    def rename(self, actor: ActorId, new: ActorId) -> None:
        """Count a writer's numbers for another one, who has none. O(1)."""
        number = self._numbers.pop(actor, None)
        if number is not None:
            self._sum -= _term(actor, number)
            self.set(new, number)

    def hash(self) -> int:
        """Return 64 bits that are equal for equal vectors. O(1)."""
        return self._sum & HASH64_MASK

    def latest(self, count: int) -> dict[ActorId, int]:
        """Return the numbers that moved last, `count` at most. O(count)."""
        return dict(islice(reversed(self._numbers.items()), count))

    def rest_hash(self, actors: Iterable[ActorId]) -> int:
        """Return the hash of the vector without some of its writers. O(those).

        Where two vectors have equal hashes without the same writers, they differ in these alone.
        """
        numbers = self._numbers
        named = sum(_term(actor, numbers[actor]) for actor in actors if actor in numbers)
        return (self._sum - named) & HASH64_MASK

    def covers(self, actor: ActorId, sequence: int) -> bool:
        """Tell whether a write was absorbed here. One without a number never was. O(1)."""
        number = self._numbers.get(actor)
        if number is None:
            number = self.forgotten.get(actor, 0)
        return 0 < sequence <= number

    def reaches(self, vector: Vector) -> bool:
        """Tell whether everything that a peer's vector names was absorbed here. O(actors).

        What the peer has forgotten and this node never heard of needs not be.
        """
        numbers, forgotten = self._numbers, self.forgotten
        return all(
            numbers.get(actor, 0) >= (number := marked_number(sequence))
            or forgotten.get(actor, 0) >= number
            or (is_mark(sequence) and actor not in numbers and actor not in forgotten)
            for actor, sequence in vector.items()
        )

    def lacks_forgotten(self, peer_vector: Vector) -> bool:
        """Tell whether a peer lacks writes of a writer forgotten here or there. O(peer's actors).

        Its log entries are refused where it is forgotten: only the state brings them. A peer that
        does not name a writer forgotten here has forgotten it too, or is new and lacks `BASE`.
        """
        forgotten, numbers = self.forgotten, self._numbers
        return any(
            marked_number(sequence) < forgotten.get(actor, 0)
            or (is_mark(sequence) and marked_number(sequence) < numbers.get(actor, 0))
            for actor, sequence in peer_vector.items()
        )

    def names_forgotten(self, peer_vector: Vector) -> bool:
        """Tell whether a peer still counts a writer that was forgotten here. O(peer's actors)."""
        forgotten = self.forgotten
        return bool(forgotten) and any(
            not is_mark(sequence) and actor in forgotten for actor, sequence in peer_vector.items()
        )

    def forget(self, actor: ActorId, sequence: int) -> None:
        """Take a writer out of the vector and keep its number aside. O(1)."""
        before = self._numbers.pop(actor, None)
        if before is not None:
            self._sum -= _term(actor, before)
        sequence = max(sequence, self.forgotten.pop(actor, 0))
        self.forgotten[actor] = sequence
        if len(self.forgotten) > FORGOTTEN_MAX:
            del self.forgotten[next(iter(self.forgotten))]

    def recall(self, actor: ActorId, sequence: int) -> None:
        """Count a writer again that was forgotten with less. O(1).

        What more of it came is in no other vector that has forgotten it: uncounted, two nodes
        would have equal vectors and other content.
        """
        del self.forgotten[actor]
        self.set(actor, sequence)

    def advertised(
        self, *, named: Iterable[ActorId] = (), is_complete: bool = False
    ) -> dict[ActorId, int]:
        """Return the vector to send to peers: the numbers, and marks for the newest forgotten.

        O(actors).

        Args:
            named: writers that are marked as well, if they were forgotten.
            is_complete: mark all that were forgotten, as far as a frame has room: for the vector
                of a state, of which an entry that no vector covers is news.
        """
        vector, forgotten = dict(self._numbers), self.forgotten
        count = max(MARKS_MAX, ENTRIES_MAX - len(vector)) if is_complete else MARKS_MAX
        for actor in islice(reversed(forgotten), count):
            vector[actor] = MARK | forgotten[actor]
        return vector | self.marks(named)

    def marks(self, actors: Iterable[ActorId]) -> dict[ActorId, int]:
        """Return the marks of those among some writers that were forgotten. O(those)."""
        forgotten = self.forgotten
        return {actor: MARK | forgotten[actor] for actor in actors if actor in forgotten}

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the numbers, and those of forgotten writers."""
        return {"numbers": self.view, "forgotten": MappingProxyType(self.forgotten)}

    def _check(self) -> None:
        """Assert that the hash is kept up, and that nobody is counted and forgotten."""
        numbers, forgotten = self._numbers, self.forgotten
        require(self, self.hash() == vector_hash(numbers), "the hash is not kept up")
        is_plain = all(0 < n < MARK for n in (*numbers.values(), *forgotten.values()))
        require(self, is_plain, "a number is none")
        require(self, numbers.keys().isdisjoint(forgotten), "a writer is counted and forgotten")
        require(self, len(forgotten) <= FORGOTTEN_MAX, "too many forgotten writers are kept")
        require(self, BASE not in forgotten, "what forgotten writers left is forgotten")
