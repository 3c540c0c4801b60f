"""Whom this node was told of, and which of them it has never met.

Rule this file owns: an address that was configured, or named by a source of seeds, stands for a
node until a member is known by it, or answers to it. Who has never been met is absent, and counts
for the majority: a node that was told of others does not take itself, or a few that began with
it, for the whole cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from attrs import frozen

from meshlib.invariants import require
from meshlib.limits import MEMBERS_MAX
from meshlib.membership.members import MemberTable

__all__ = ["SeedSet", "ToldAddresses", "ToldSeed"]


@frozen(slots=True)
class ToldSeed:
    """A seed where nobody was ever met, as whoever writes members off sees it.

    Args:
        name: its address.
        incarnation: that of no start of a node, and below all of them.
    """

    name: str
    incarnation: int = 0


class SeedSet(Protocol):
    """Seeds of which something holds."""

    def __contains__(self, seed: ToldSeed, /) -> bool:
        """Tell whether it holds of a seed."""
        ...


class ToldAddresses:
    """The addresses that this node was told of, met or not.

    Args:
        members: the table: whoever is in it was met, by this node or by another one.
    """

    __slots__ = (
        "_has_known_others",
        "_is_open",
        "_members",
        "_members_revision",
        "_met",
        "_unmet",
        "revision",
    )

    def __init__(self, members: MemberTable) -> None:
        self._members = members
        self._met: set[str] = set()
        self._unmet: dict[str, None] = {}
        self._members_revision = -1
        self._is_open = False
        self._has_known_others = False
        self.revision = 0
        """Grows when somebody was met, or others were named: for caches."""

    def tell(self, addresses: Iterable[str], *, own: str, may_find_more: bool) -> None:
        """Take the addresses that are named now, in place of those before. O(addresses).

        Args:
            addresses: this node's own among them or not.
            own: this node's own.
            may_find_more: whether the source may name others later: one that names nobody
                yet, not even this node, stands for one other node until another one is known.
        """
        given = dict.fromkeys(addresses)
        self._is_open = may_find_more and not given
        self._met.intersection_update(given)
        given.pop(own, None)
        unmet = [address for address in given if address not in self._met]
        self._unmet = dict.fromkeys(unmet[:MEMBERS_MAX])
        self._members_revision = -1
        self.revision += 1

    def is_unmet(self, address: str) -> bool:
        """Tell whether this node was told of an address, and has met nobody there. O(1)."""
        return address in self._unmet

    def meet(self, address: str) -> None:
        """Take note that it is known by now who is reached at an address. O(1)."""
        if address in self._unmet:
            del self._unmet[address]
            self._met.add(address)
            self.revision += 1

    def unmet(self) -> tuple[str, ...]:
        """Return the addresses where nobody was ever met. O(members) after a change."""
        revision = self._members.revision
        if revision != self._members_revision:
            self._members_revision = revision
            self._has_known_others = self._has_known_others or len(self._members) > 1
            if self._unmet:
                for member in self._members:
                    self.meet(member.address)
        return tuple(self._unmet)

    def unmet_count(self, written_off: SeedSet = ()) -> int:
        """Return how many nodes there are to be that were never met. O(members) after a change.

        Args:
            written_off: of which an operator has said that they are not to be awaited.
        """
        unmet = self.unmet()
        if unmet:
            count = sum(ToldSeed(address) not in written_off for address in unmet)
            # Who is remembered from before a restart may be one of them, under another name.
            recalled = (member.address for member in self._members.recalled())
            return max(0, count - sum(address not in self._met for address in recalled))
        return int(self._is_open and not self._has_known_others)

    def diagnostics(self) -> Mapping[str, Any]:
        """Show where somebody was met, and where nobody."""
        return {
            "met": tuple(sorted(self._met)),
            "unmet": tuple(self._unmet),
            "is_open": self._is_open,
        }

    def _check(self) -> None:
        """Assert that who was met is not awaited, and that there is a bound."""
        require(self, self._met.isdisjoint(self._unmet), "an address is met and unmet")
        require(self, len(self._unmet) <= MEMBERS_MAX, "too many addresses are unmet")
