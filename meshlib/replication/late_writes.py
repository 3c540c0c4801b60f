"""Writes that arrive when removals they may come before have been dropped.

A removal is dropped once every member has it and everything that each had written before is
here (`StabilityTracker.settled`): what a member writes later is stamped later. A writer that
was not counted then, because it had been forgotten, or both sides had forgotten each other, or
a node began from an old state, may still bring an older write; nobody can tell any more whether
it would have been removed.

Rule R4: such a write is kept, because losing one is worse, and written again as a write of now,
as soon as no more of them come: what its writer wrote next may be on its way, and must not lose
against it. So it is later than the removal for everyone, those included who still have its
tombstone, and what was removed has come back by a later write only. Readers may see it meanwhile,
also as a part of a state that is not joined yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from meshlib.clock import Stamp
from meshlib.invariants import require
from meshlib.replication.document import HeldDocument

__all__ = ["NEVER", "LateWrites", "Time"]

Time = tuple[int, int]
"""A stamp without its actor: wall milliseconds and logical."""

NEVER: Final[Time] = (0, 0)

POSTPONED_MAX: Final = 8
"""How often late writes are waited for that follow others."""


class LateWrites:
    """Knows up to when removals were dropped, and gathers the writes that are not after that.

    The horizon is one for all documents and keys, and travels with every state that is taken
    over. It is never before a removal that was dropped, and no write of a counted member
    arrives before it, so that nothing is written again in ordinary operation.
    """

    __slots__ = ("_found", "_is_fresh", "_postponed", "horizon")

    def __init__(self) -> None:
        self.horizon: Time = NEVER
        self._found: dict[str, dict[Any, None]] = {}
        self._is_fresh = False
        self._postponed = 0

    def join(self, horizon: Time) -> None:
        """Move the horizon: a removal of that time was dropped, here or where a state is from."""
        if horizon > self.horizon:
            self.horizon = horizon

    def is_late(self, stamp: Stamp) -> bool:
        """Tell whether a write may come before a removal that was dropped. O(1)."""
        return self.horizon != NEVER and stamp[:2] <= self.horizon

    def find(self, document: HeldDocument, part: Any) -> list[Any]:
        """Return the keys that a part sets late, and that are not set here. O(part).

        Only for maps, which alone drop removals; to be asked before the part is absorbed, or shown.
        """
        if self.horizon == NEVER or not document.traits.is_prunable:
            return []
        return [
            key
            for key, entry in part.entries()
            if entry.payload is not None
            and self.is_late(entry.stamp)
            and self._may_be_removed(document.view.entry(key))
        ]

    def _may_be_removed(self, held: Any) -> bool:
        """Tell whether a removal newer than what is held may have been dropped.

        Not where a value is held; a tombstone may have come late itself.
        """
        return held is None or (held.payload is None and self.is_late(held.stamp))

    def note(self, document: HeldDocument, keys: Iterable[Any]) -> None:
        """Gather those of the found keys that were absorbed, or are shown. O(keys)."""
        for key in keys:
            if document.view.entry(key) is not None:
                self._found.setdefault(document.name, {})[key] = None
                self._is_fresh = True

    def __bool__(self) -> bool:
        """Whether anything was gathered and is not drained yet."""
        return bool(self._found)

    def waits(self, document: str, key: Any) -> bool:
        """Tell whether a key was gathered and is not drained yet. O(1)."""
        return key in self._found.get(document, ())

    def drain(self) -> Iterator[tuple[str, Any]]:
        """Yield document and key of what was gathered, once; nothing if more came since asked.

        After `POSTPONED_MAX` such answers it yields all the same.
        """
        if self._is_fresh and self._postponed < POSTPONED_MAX:
            self._is_fresh = False
            self._postponed += 1
            return
        self._is_fresh = False
        self._postponed = 0
        found, self._found = self._found, {}
        for name, keys in found.items():
            for key in keys:
                yield name, key

    def diagnostics(self) -> Mapping[str, Any]:
        """Show up to when removals were dropped, and which keys came late."""
        return {
            "horizon": self.horizon,
            "waiting": MappingProxyType(self._found),
            "postponed_count": self._postponed,
        }

    def _check(self) -> None:
        """Assert that nothing is late while no removal was dropped, and nothing waits for ever."""
        require(self, all(self._found.values()), "a document is kept without keys")
        is_late = self.horizon != NEVER or not self._found
        require(self, is_late, "a write is late for no removal")
        require(self, self._found or not self._is_fresh, "nothing has come and is new")
        require(self, 0 <= self._postponed <= POSTPONED_MAX, "late writes wait for ever")
