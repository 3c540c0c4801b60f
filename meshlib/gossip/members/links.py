"""Why links end, addresses that could not be reached, and what that shows.

Rules this file owns:
- Whoever is heard again at an address that was lost is dialled without a pause.
- A refused dial shows that a process has ended, unless that very process is heard later: then its
  address is not the one that it listens on, or something refuses in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import MEMBERS_MAX
from meshlib.membership import MemberRecord

__all__ = ["LinkEnd", "LostAddresses", "Refusals"]

ON_THE_WAY_S = 1.0
"""What a process sent before its end is read within this time after its address refused a dial."""


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


class Refusals:
    """Tells whether a refused dial shows that a member's process has ended."""

    __slots__ = ("_alive", "_refused")

    def __init__(self) -> None:
        self._refused: dict[str, tuple[ActorId, float]] = {}
        self._alive: dict[str, ActorId] = {}

    def note(self, member: MemberRecord, now: float) -> bool:
        """Take note that a member's own address refused a dial. O(1).

        Returns:
            Whether its process has ended, as far as is known.
        """
        before = self._refused.get(member.name)
        if before is None or before[0] != member.actor:
            self._refused[member.name] = member.actor, now
        return self._alive.get(member.name) != member.actor

    def is_fresh(self, member: MemberRecord, now: float) -> bool:
        """Tell whether a member's own address has just refused a dial, as far as is known. O(1)."""
        actor, refused_at = self._refused.get(member.name, (None, 0.0))
        is_same = actor == member.actor and self._alive.get(member.name) != actor
        return is_same and now - refused_at <= ON_THE_WAY_S

    def hear(self, name: str, actor: ActorId, now: float) -> bool:
        """Take note that a frame of a member came. O(1).

        Returns:
            Whether it shows that a process lives that was held for ended.
        """
        refused = self._refused.get(name)
        if refused is None or refused[0] != actor or now - refused[1] <= ON_THE_WAY_S:
            return False
        is_news = self._alive.get(name) != actor
        self._alive[name] = actor
        return is_news

    def forget(self, name: str) -> None:
        """Drop what is kept about a member. O(1)."""
        self._refused.pop(name, None)
        self._alive.pop(name, None)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show whose addresses refused a dial, and who lives all the same."""
        return {"refused": tuple(self._refused), "alive": tuple(self._alive)}

    def _check(self) -> None:
        """Assert that only a member whose address refused lives all the same."""
        require(self, self._alive.keys() <= self._refused.keys(), "nobody refused, and one lives")
