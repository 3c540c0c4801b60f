"""What an owner grants of its keys, and what it has to have kept before it may.

Rule: units are granted through this file alone, with a mandate, in windows that the mandate
covers and that no other owner can have granted in; in windows longer than a second up to ceilings
that a majority keeps.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from attrs import frozen

from meshlib.identity import ActorId
from meshlib.limits import RATE_KEYS_MAX, RATE_PENDING_MAX
from meshlib.ratelimit.leases.demand import DemandMeter
from meshlib.ratelimit.leases.kept.keeper import Keeper
from meshlib.ratelimit.leases.kept.messages import Ceiling, Kept
from meshlib.ratelimit.leases.kept.raising import Ceilings, Raise
from meshlib.ratelimit.leases.mandate import Mandate
from meshlib.ratelimit.leases.meters import STEPS, held_s
from meshlib.ratelimit.leases.owned import ASKER_KEPT_S, OwnedKey
from meshlib.ratelimit.leases.questions import AnswerPart, QuestionPart
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.windows import (
    WindowClock,
    window_end,
    window_of,
    window_start,
)
from meshlib.state import Limit

__all__ = ["SKEW_WINDOWS", "KeyGranter", "Settled"]

SKEW_WINDOWS: Final = 2
"""A former owner's clock that is further ahead than this is followed, and not waited for."""

SWEPT_PER_KEY: Final = 2
"""Old keys that are looked at, and forgotten, for each new one."""

UNUSED_KEPT_S: Final = 5
"""For how many seconds a key is kept of which nothing is used or owed, while there is room: one
that is used each second is then not made anew each time."""

STEP_S: Final = 0.1
"""A ceiling is raised by what is asked for in so many seconds, or by a part of the limit."""

STEPS_PER_LIMIT: Final = 100


@frozen(slots=True)
class Settled:
    """An answer to a question that had to wait for a majority."""

    name: str
    actor: ActorId
    part: AnswerPart


class KeyGranter:
    """The keys of one owner, and what was granted of them.

    Args:
        name: this node.
        actor: this node, in this start.
        limit_of: returns what an owner must know of a key's limit, or None while it is unlimited
            or not known.
        windows: numbers the windows.
        mandate_s: how long a vote counts.
        view: the members as this node sees them.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        limit_of: Callable[[str], Limit | None],
        windows: WindowClock,
        mandate_s: float,
        view: View,
    ) -> None:
        self.keys: OrderedDict[str, OwnedKey] = OrderedDict()
        self.mandate = Mandate(name, mandate_s=mandate_s)
        self.view = view
        self.keeper = Keeper(name, actor, view=view)
        self.ceilings = Ceilings(name, actor, keeper=self.keeper)
        self._name = name
        self._actor = actor
        self._limit_of = limit_of
        self._windows = windows
        self._blocked: dict[str, OrderedDict[str, tuple[ActorId, QuestionPart]]] = {}

    def _state(self, key: str, limit: Limit, now: float) -> OwnedKey | None:
        """Return a key in its current window; None while nothing may be granted of it."""
        former = self.mandate.view
        if former is None or not self._is_own(former, key):
            return None  # the majority's word is still for a view in which it is another's
        number = self._windows.read(now)
        owned = self.keys.get(key)
        if _is_kept(limit):
            if owned is not None and not owned.is_kept:
                self._forget(key)  # its limit was one of a second before
                owned = None
            if owned is None:
                return None
        elif owned is None:
            if self.mandate.closed_until(key) >= number or not self._make_room(number, now):
                return None
            owned = self.keys[key] = OwnedKey(number)
            return None if number > self.mandate.number_max else owned
        self.keys.move_to_end(key)
        owned.enter(number, limit=limit, now=now)
        return None if owned.number > self.mandate.number_max else owned

    def _forget(self, key: str) -> OwnedKey:
        owned = self.keys.pop(key)
        owned.open_until = -math.inf
        return owned

    def close(self) -> None:
        """Let no key be used here before it was looked whether it still may be. O(keys)."""
        for owned in self.keys.values():
            owned.open_until = -math.inf

    def note_use(self, owned: OwnedKey, key: str, limit: Limit, cost: int, now: float) -> None:
        """Take note of what was used of an open key that others keep: it may need more soon."""
        assert owned.demand is not None
        owned.demand.note(cost, now)
        self._look_ahead(owned, key, limit, now)

    def _make_room(self, number: int, now: float) -> bool:
        """Forget a few keys that hold nothing that matters any more."""
        for _ in range(SWEPT_PER_KEY):
            if not self.keys:
                return True
            key, owned = next(iter(self.keys.items()))
            if self._is_needless(key, owned, number, now):
                self._forget(key)
            else:
                self.keys.move_to_end(key)
        return len(self.keys) < RATE_KEYS_MAX

    def _is_needless(self, key: str, owned: OwnedKey, number: int, now: float) -> bool:
        if now < owned.open_until:
            return False
        if owned.number < number and not (owned.debt or owned.askers or owned.demand):
            # Of a second that is over, and owes nothing; but it may be asked for again soon.
            return number - owned.number > UNUSED_KEPT_S or len(self.keys) >= RATE_KEYS_MAX
        limit = self._limit_of(key)
        if owned.is_kept or limit is not None:
            for asker in owned.askers.values():
                if now - asker.asked_at <= ASKER_KEPT_S:
                    return False
        if owned.is_kept:
            if limit is not None:
                owned.enter(number, limit=limit, now=now)
            # Others keep what was counted, and up to a step more: that is lost to make room only.
            # So it is where all was refunded: of this window the ceiling is still kept.
            is_kept_high = limit is not None and limit.is_window and owned.ceiling > 0
            is_unused = limit is None or not (owned.used or owned.debt or is_kept_high)
            return is_unused or len(self.keys) >= RATE_KEYS_MAX
        if limit is not None:
            owned.enter(number, limit=limit, now=now)
        is_empty = limit is not None and not (owned.used or owned.debt or owned.askers)
        return owned.number < number or (is_empty and owned.number == number)

    def _is_own(self, former: View, key: str) -> bool:
        """Tell whether a key, which is this node's now, was so in the view that was voted for."""
        return former.view_id == self.view.view_id or former.owner(key) == self._name

    def _decide(
        self, name: str, actor: ActorId, part: QuestionPart, now: float
    ) -> AnswerPart | None:
        limit = self._limit_of(part.key)
        if limit is None:
            return None
        owned = self._state(part.key, limit, now)
        if owned is None and _is_kept(limit):
            owned = self._begin_key(part, limit, now)
        if owned is not None and owned.is_kept:
            owned = self._raised_for(owned, name, actor, part, limit, now)
        if owned is None:
            if part.key in self.ceilings:
                self._block(name, actor, part)
            return None
        before = owned.used
        answer = owned.decide(
            name,
            actor=actor,
            part=part,
            limit=limit,
            node_count=len(self.view.names),
            window_left_s=self._left_s(limit, now),
            now=now,
        )
        if owned.demand is not None:
            owned.demand.note(max(0, owned.used - before), now)
            self._look_ahead(owned, part.key, limit, now)
        return answer

    def _left_s(self, limit: Limit, now: float) -> float:
        """Return how long what is granted holds: to the end of the window, or a little while."""
        return self._windows.left_of(limit, now) if limit.is_window else held_s(limit)

    # Windows longer than a second, and what counts in none

    def _look_ahead(self, owned: OwnedKey, key: str, limit: Limit, now: float) -> None:
        """Have a ceiling raised before it is needed; and one that is far above it lowered."""
        step = _step(owned, limit)
        above = owned.ceiling - owned.used
        is_low = owned.ceiling < limit.capacity and above < step / 2
        is_high = above > 2 * step and self._ceiling_number(limit, now) > owned.ceiling_number
        if is_low or is_high:
            self._want(owned, key, limit, used=owned.used, debt=owned.debt, now=now)

    def _ceiling_number(self, limit: Limit, now: float) -> int:
        """Return by what a later ceiling is told from an earlier one.

        Where units come back all the time, a ceiling holds until there is a later one.
        """
        second = self._windows.read(now)
        if limit.is_window:
            return window_of(second, limit)
        return second // max(1, int(limit.period_s) // STEPS)

    def _begin_key(self, part: QuestionPart, limit: Limit, now: float) -> OwnedKey | None:
        """Ask a majority what it keeps of a key, and have kept what is needed first with it."""
        former, second = self.mandate.view, self._windows.read(now)
        if (
            part.key in self.keys  # known, and of a window that is still to come
            or part.key in self.ceilings
            or not self.mandate.is_valid(now)
            or former is None
            or not self._is_own(former, part.key)
            or second > self.mandate.number_max
            or not self._make_room(second, now)
        ):
            return None
        blank = OwnedKey(second, demand=DemandMeter())
        credit = max(0, part.credit_total - part.credit_answered)
        used = min(limit.capacity, credit + sum(part.costs))
        return self._want(blank, part.key, limit, used=used, debt=0, now=now, is_first=True)

    def _want(
        self,
        owned: OwnedKey,
        key: str,
        limit: Limit,
        *,
        used: int,
        debt: int,
        now: float,
        is_first: bool = False,
    ) -> OwnedKey | None:
        """Have a ceiling kept a step above a need; return the key when that is done at once."""
        if key in self.ceilings:
            return None
        number = self._ceiling_number(limit, now)
        if limit.is_window:
            number = window_of(owned.number, limit)
            until = window_end(owned.number, limit)
        else:
            until = self._windows.read(now) + math.ceil(limit.longest_s) + 1
        top = min(max(limit.capacity, used), used + _step(owned, limit))
        if not is_first and number > owned.ceiling_number:
            # As soon as one keeps the later one, the one before holds no longer.
            owned.ceiling = min(owned.ceiling, max(top, owned.used))
            owned.debt_ceiling = min(owned.debt_ceiling, max(debt, owned.debt))
        done = self.ceilings.want(
            Ceiling(key, number, until, top, debt),
            is_first=is_first,
            view=self.view,
            second=self._windows.read(now),
            now=now,
        )
        return None if done is None else self._raised(done, now)

    def _raised(self, rising: Raise, now: float) -> OwnedKey | None:
        """Go on from what a majority keeps now."""
        wanted = rising.wanted
        limit = self._limit_of(wanted.key)
        if limit is None or not _is_kept(limit):
            return None
        if rising.is_first:
            if wanted.key in self.keys:
                self._forget(wanted.key)
            self.keys[wanted.key] = self._taken_over(rising.before, limit, now)
        owned = self.keys.get(wanted.key)
        if owned is None or not owned.is_kept:
            return None
        is_of_now = not limit.is_window or window_of(owned.number, limit) == wanted.number
        if is_of_now and wanted.number >= owned.ceiling_number:
            owned.ceiling = max(owned.ceiling, wanted.used)
            owned.debt_ceiling = max(owned.debt_ceiling, wanted.debt)
            owned.ceiling_number = wanted.number
        return owned

    def _taken_over(self, before: Ceiling, limit: Limit, now: float) -> OwnedKey:
        """Return a key as it is by the most that may have been granted before."""
        second = self._windows.read(now)
        owned = OwnedKey(second, demand=DemandMeter(), ceiling=0, debt_ceiling=0)
        if before.until and limit.is_window:
            start = window_start(before.number, limit)
            if start > second + SKEW_WINDOWS:
                self._windows.skip_to(start, now=now)
                self.close()
            owned.number = max(start, min(second, before.until - 1))
        if before.until and (limit.is_window or before.until > second):
            owned.used, owned.debt = before.used, before.debt
            owned.ceiling, owned.debt_ceiling = before.used, before.debt
            owned.ceiling_number = before.number
        owned.enter(self._windows.read(now), limit=limit, now=now)
        owned.ceiling = max(owned.ceiling, owned.used)
        return owned

    def _raised_for(
        self,
        owned: OwnedKey,
        name: str,
        actor: ActorId,
        part: QuestionPart,
        limit: Limit,
        now: float,
    ) -> OwnedKey | None:
        """Return a key whose ceiling allows for the answer to a question; None before."""
        used, debt = owned.needed(
            name, actor=actor, part=part, limit=limit, node_count=len(self.view.names)
        )
        if used <= max(owned.ceiling, owned.used) and debt <= owned.debt_ceiling:
            return owned
        return self._want(owned, part.key, limit, used=used, debt=debt, now=now)

    def _block(self, name: str, actor: ActorId, part: QuestionPart) -> None:
        """Keep a question until a majority keeps a higher ceiling."""
        blocked = self._blocked.setdefault(part.key, OrderedDict())
        blocked[name] = (actor, part)
        if len(self._blocked) > RATE_PENDING_MAX:
            del self._blocked[next(iter(self._blocked))]  # it is asked again

    def receive_kept(self, name: str, kept: Kept, now: float) -> list[Settled]:
        """Take what a keeper says; return what can be answered now that could not before."""
        settled = []
        for rising in self.ceilings.receive(name, kept, view=self.view):
            self._raised(rising, now)
            blocked = self._blocked.pop(rising.wanted.key, None)
            for asker, (actor, part) in [] if blocked is None else list(blocked.items()):
                if not self.mandate.is_valid(now) or self.view.owner(part.key) != self._name:
                    break
                answer = self._decide(asker, actor, part, now)
                if answer is not None:
                    settled.append(Settled(asker, actor, answer))
        return settled

    def _forget_kept(self) -> None:
        """Forget what is counted of keys that others keep, for somebody else may have granted."""
        self.ceilings.clear()
        self._blocked.clear()


def _is_kept(limit: Limit) -> bool:
    """Tell whether others keep what is counted: not of a second, which is over too soon."""
    return limit.per != 1 or not limit.is_window


def _step(owned: OwnedKey, limit: Limit) -> int:
    """Return how far a ceiling is raised above what is needed, in units: what a death may lose."""
    rate = 0.0 if owned.demand is None else owned.demand.rate()
    return max(1, limit.capacity // STEPS_PER_LIMIT, int(rate * STEP_S))
