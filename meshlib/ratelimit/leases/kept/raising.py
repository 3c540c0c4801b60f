"""Up to what an owner may grant in long windows: ceilings, which a majority keeps.

Rule: nothing is granted beyond a ceiling before a majority keeps it; and nothing is granted of a
key at all before a majority that remembers has said what it kept of it.
Source: a register that a majority reads and writes, Attiya, Bar-Noy and Dolev 1995; here with one
writer at a time, whom the mandate makes the only one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import define, field

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import RATE_PENDING_MAX
from meshlib.ratelimit.leases.kept.keeper import Keeper
from meshlib.ratelimit.leases.kept.messages import KEEP_DOCUMENT, Ceiling, Keep, Kept
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.wire import batches
from meshlib.ratelimit.records import RateMessage

__all__ = ["Ceilings", "Raise"]

RETRY_S: Final = (0.05, 0.2)
"""The first and the longest pause before what was not answered is sent again, to all then."""

ABANDON_S: Final = 2.0
"""How long a ceiling is tried to be raised; whoever asks still has it tried again."""


@define(slots=True)
class Raise:
    """A ceiling that is to be raised, and who keeps it already.

    Args:
        wanted: what is to be kept.
        is_first: whether what was kept before is not known yet, and only those count who remember.
        begun_at: when it was asked for.
        before: the most that any of those who count kept before.
        first_round: the first message that said it; None before.
        retry_at: when it is said again, in monotonic seconds.
        pause_s: until then.
        holders: who keeps it, of those who count.
    """

    wanted: Ceiling
    is_first: bool
    begun_at: float
    before: Ceiling
    first_round: int | None = None
    retry_at: float = math.inf
    pause_s: float = RETRY_S[0]
    holders: set[str] = field(factory=set)


class Ceilings:
    """The ceilings that one owner has under way.

    Args:
        name: this node.
        actor: this node, in this start.
        keeper: what this node itself keeps.
    """

    def __init__(self, name: str, actor: ActorId, *, keeper: Keeper) -> None:
        self._name = name
        self._actor = actor
        self._keeper = keeper
        self._under_way: dict[str, Raise] = {}
        self._round_number = 0
        self._fresh: list[Raise] = []
        self._retry_at = math.inf

    def __contains__(self, key: object) -> bool:
        return key in self._under_way

    def clear(self) -> None:
        """Forget what is under way: somebody else may have granted since."""
        self._under_way.clear()
        self._fresh.clear()
        self._retry_at = math.inf

    def want(
        self, wanted: Ceiling, *, is_first: bool, view: View, second: int, now: float
    ) -> Raise | None:
        """Have a ceiling kept; what is under way of a key already is waited for first.

        Returns:
            the raise when it is done at once, because this node is a majority.
        """
        if wanted.key in self._under_way or len(self._under_way) >= RATE_PENDING_MAX:
            return None
        before = self._keeper.get(wanted.key) or Ceiling(wanted.key, 0, 0, 0, 0)
        if not self._keeper.keep(wanted, second=second):
            return None
        rising = self._under_way[wanted.key] = Raise(wanted, is_first, now, before)
        self._note(rising, self._name, before, is_whole=self._keeper.is_whole)
        if self._is_done(rising, view):
            del self._under_way[wanted.key]
            return rising
        self._fresh.append(rising)
        return None

    def _note(self, rising: Raise, name: str, before: Ceiling, *, is_whole: bool) -> None:
        if is_whole or not rising.is_first:
            rising.holders.add(name)
            rising.before = rising.before.joined(before)

    def _is_done(self, rising: Raise, view: View) -> bool:
        return view.is_majority(len(rising.holders.intersection(view.names)))

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        return -math.inf if self._fresh else self._retry_at

    def tick(self, view: View, now: float) -> list[RateMessage]:
        """Say what is to be kept, to as many as are needed; and what was not answered to all."""
        fresh, self._fresh = self._fresh, []
        messages = list(self._say(fresh, self._others(view, is_all=False), now))
        if now < self._retry_at:
            return messages
        late = []
        for key, rising in list(self._under_way.items()):
            if now - rising.begun_at > ABANDON_S:
                del self._under_way[key]
            elif rising.retry_at <= now:
                self._note_own(rising)
                rising.pause_s = min(2 * rising.pause_s, RETRY_S[1])
                late.append(rising)
        messages += self._say(late, self._others(view, is_all=True), now)
        due = (rising.retry_at for rising in self._under_way.values())
        self._retry_at = min(due, default=math.inf)
        return messages

    def _note_own(self, rising: Raise) -> None:
        """Count what this node keeps, if it remembers by now; it may have heard of more since."""
        kept = self._keeper.get(rising.wanted.key)
        if self._keeper.is_whole and kept is not None and self._name not in rising.holders:
            self._note(rising, self._name, kept, is_whole=True)

    def _others(self, view: View, *, is_all: bool) -> tuple[str, ...]:
        """Return whom to tell: the next ones after this node, enough for a majority with it."""
        names = view.names
        place = names.index(self._name) if self._name in names else 0
        others = names[place + 1 :] + names[:place]
        return others if is_all else others[: view.member_count // 2]

    def _say(self, rising: list[Raise], to: tuple[str, ...], now: float) -> Iterator[RateMessage]:
        for some in batches(rising):
            self._round_number += 1
            for one in some:
                if one.first_round is None:
                    one.first_round = self._round_number
                one.retry_at = now + one.pause_s
                self._retry_at = min(self._retry_at, one.retry_at)
            if to:
                message = Keep(self._actor, self._round_number, tuple(one.wanted for one in some))
                yield RateMessage(to, KEEP_DOCUMENT, message.encode())

    def receive(self, name: str, kept: Kept, *, view: View) -> list[Raise]:
        """Take what a keeper says; return what is done. O(keys of the message)."""
        done = []
        if kept.owner != self._actor or name not in view.names:
            return []
        for before in kept.before:
            rising = self._under_way.get(before.key)
            first_round = None if rising is None else rising.first_round
            if rising is None or first_round is None or kept.round_number < first_round:
                continue
            self._note(rising, name, before, is_whole=kept.is_whole)
            if self._is_done(rising, view):
                del self._under_way[before.key]
                done.append(rising)
        return done

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what is under way. O(1)."""
        return {"under_way": self._under_way, "fresh": self._fresh}

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(ceilings under way)."""
        require(self, len(self._under_way) <= RATE_PENDING_MAX, "more ceilings rise than may")
        for key, rising in self._under_way.items():
            require(self, key == rising.wanted.key, f"the ceiling of another key rises for {key!r}")
