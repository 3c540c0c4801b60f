"""Why links end, and addresses that could not be reached.

Rule this file owns: whoever is heard again at an address that was lost is dialled without a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from meshlib.invariants import require
from meshlib.limits import MEMBERS_MAX

__all__ = ["LinkEnd", "LostAddresses"]


class LinkEnd(StrEnum):
    """What is known of why a link broke, or could not be made."""

    BROKEN = "broken"
    """Nothing."""

    REFUSED = "refused"
    """Its host answered a dial that nothing listens there."""

    DENIED = "denied"
    """A peer answered there that it does not let this node in: it asks for another token, or speaks
    other formats. One of a cluster of another name is no peer at all."""


class LostAddresses:
    """Remembers where nobody could be reached, until a frame comes from there; bounded."""

    __slots__ = ("_heard_again", "_lost")

    def __init__(self) -> None:
        self._lost: dict[str, None] = {}
        self._heard_again: dict[str, None] = {}

    def note_lost(self, address: str) -> None:
        """Take note that a link broke or a dial was refused. O(1)."""
        if len(self._lost) >= MEMBERS_MAX:
            del self._lost[next(iter(self._lost))]
        self._lost[address] = None

    def note_heard(self, address: str) -> None:
        """Take note that a frame came from there. O(1)."""
        if address in self._lost:
            del self._lost[address]
            if len(self._heard_again) < MEMBERS_MAX:
                self._heard_again[address] = None

    def heard_again(self) -> list[str]:
        """Return the addresses that were lost and from where a frame came; drains."""
        addresses, self._heard_again = self._heard_again, {}
        return list(addresses)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show the addresses that could not be reached, and those heard again since."""
        return {"lost": tuple(self._lost), "heard_again": tuple(self._heard_again)}

    def _check(self) -> None:
        """Assert that there are no more of them than may be."""
        require(self, len(self._lost) <= MEMBERS_MAX, "too many addresses are lost")
        require(self, len(self._heard_again) <= MEMBERS_MAX, "too many are heard again")
