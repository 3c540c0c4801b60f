"""Whom this node has met, and the one place where all that is kept about a member is dropped.

Rule this file owns: whatever a part of the engine keeps under a member's name it drops in a
`forget` of its own, and those are called here and nowhere else. What is kept about one start of
a member goes when it begins again; the rest when it is forgotten for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from meshlib.gossip.entries.beginning import Beginning
from meshlib.invariants import require

__all__ = ["Acquaintances", "Keeper"]


class Keeper(Protocol):
    """Whoever keeps something about members."""

    def forget(self, name: str, /) -> object:
        """Drop what is kept about a member."""


class Acquaintances:
    """Lets every part begin anew with a member, or forget it.

    Args:
        beginning: hears that somebody was met; a keeper of starts.
        of_starts: the other parts that keep something about one start of a member.
        of_members: those that keep something about a member whatever start it is.
    """

    __slots__ = ("_beginning", "_met", "_of_members", "_of_starts")

    def __init__(
        self, *, beginning: Beginning, of_starts: Sequence[Keeper], of_members: Sequence[Keeper]
    ) -> None:
        self._beginning = beginning
        self._of_starts = (*of_starts, beginning)
        self._of_members = tuple(of_members)
        self._met: dict[str, None] = {}

    def meet(self, name: str) -> None:
        """Begin anew with a member that has come into reach, or has begun again. O(parts)."""
        self._forget_start(name)
        self._beginning.has_met = True
        self._met[name] = None

    def forget(self, name: str) -> None:
        """Drop all that is kept about a member. O(parts)."""
        self._met.pop(name, None)
        self._forget_start(name)
        for keeper in self._of_members:
            keeper.forget(name)

    def _forget_start(self, name: str) -> None:
        for keeper in self._of_starts:
            keeper.forget(name)

    def just_met(self) -> list[str]:
        """Return whom this node has met and not greeted yet, in order; drains."""
        if not self._met:
            return []
        met, self._met = list(self._met), {}
        return met

    def diagnostics(self) -> Mapping[str, Any]:
        """Show whom this node has met and not greeted yet."""
        return {"met": tuple(self._met), "has_met": self._beginning.has_met}

    def _check(self) -> None:
        """Assert that whoever was met counts as met."""
        require(self, not self._met or self._beginning.has_met, "somebody was met, and nobody")
