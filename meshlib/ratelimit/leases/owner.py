"""One node as the owner of keys: what it has granted, and to whom.

Rule: units are granted through this file alone, with a mandate, in windows that the mandate
covers and that no other owner can have granted in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import evolve, frozen

from meshlib.identity import ActorId
from meshlib.invariants import require
from meshlib.limits import RATE_KEYS_MAX, RATE_KEYS_PER_MESSAGE_MAX, RATE_PENDING_MAX
from meshlib.ratelimit.leases.calls import (
    CALL_DOCUMENT,
    FAREWELL_DOCUMENT,
    VOTE_DOCUMENT,
    Call,
    Farewell,
    encode_vote,
)
from meshlib.ratelimit.leases.mandate import Mandate
from meshlib.ratelimit.leases.meters import held_s
from meshlib.ratelimit.leases.owned import OwnedKey
from meshlib.ratelimit.leases.questions import AnswerPart, QuestionPart
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.votes import HeldCount, Vote, Voter
from meshlib.ratelimit.leases.windows import WindowClock
from meshlib.ratelimit.leases.wire import batches
from meshlib.ratelimit.records import RateMessage
from meshlib.state import Limit

__all__ = ["KeyOwner", "Settled"]

CALL_RETRY_S: Final = (0.025, 0.1)
"""The first and the longest pause between two calls for votes while a majority is missing."""

SKEW_WINDOWS: Final = 2
"""A former owner's clock that is further ahead than this is followed, and not waited for."""

SWEPT_PER_KEY: Final = 2
"""Old keys that are looked at, and forgotten, for each new one."""


@frozen(slots=True)
class Settled:
    """An answer to a question that had to wait for a majority."""

    name: str
    actor: ActorId
    part: AnswerPart


class KeyOwner:
    """The owner's side of the limiter, for all keys of one node.

    Args:
        name: this node.
        actor: this node, in this start.
        limit_of: returns the limit of a key, or None while it is unlimited or not known.
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
        self.voter = Voter(actor, mandate_s=mandate_s)
        self.view = view
        self._name = name
        self._actor = actor
        self._limit_of = limit_of
        self._windows = windows
        self._mandate_s = mandate_s
        self._has_quorum = True
        self._is_ready = True
        self._has_left = False
        self._is_used = False
        self._call_due_at = math.inf
        self._called_at = -math.inf
        self._call_pause_s = CALL_RETRY_S[0]
        self._pending: OrderedDict[tuple[str, str], tuple[ActorId, QuestionPart, float]] = (
            OrderedDict()
        )
        self._parting: dict[str, HeldCount] = {}
        self._parting_until = -math.inf
        self._farewells: dict[str, HeldCount] = {}

    # Who is in

    def start(self, now: float) -> None:
        """Learn the time: an earlier start of this node may have voted shortly before."""
        self.voter.start(now, number=self._windows.read(now))

    def set_view(self, view: View, *, has_quorum: bool, is_ready: bool, now: float) -> None:
        """Take the members as they are now. O(keys) when they changed."""
        self._has_quorum, self._is_ready = has_quorum, is_ready
        if view.view_id == self.view.view_id:
            self.view.member_count = view.member_count
            return
        self.view = view
        self.mandate.pass_view(view)
        self._part(view, now)
        if self.mandate.is_valid(now):
            # What others promised to this node's former view would hold all up until it ran out.
            self._want_call(now)

    def _part(self, view: View, now: float) -> None:
        """Put what was counted of keys that are others' now aside for them."""
        former = self.mandate.view
        lost = [key for key in self.keys if view.owner(key) != self._name]
        for key in lost:
            owned = self.keys.pop(key)
            if former is not None and len(self._parting) < RATE_KEYS_MAX:
                self._parting[key] = owned.count(former.view_id, key)
        for key in [key for key in self._parting if view.owner(key) == self._name]:
            del self._parting[key]
        self._parting_until = now + 4 * self._mandate_s

    # Questions

    def ask(self, name: str, actor: ActorId, part: QuestionPart, now: float) -> AnswerPart | None:
        """Decide on a question, or keep it until that may be. O(costs).

        Args:
            name: who asks.
            actor: who asks, in its start.
            part: the question.
            now: monotonic seconds.

        Returns:
            The answer; the same as before when the question was decided on before. None when
            nothing can be decided now, or the question is an old one.
        """
        if self._has_left or self.view.owner(part.key) != self._name:
            return None
        self._is_used = True
        if not self.mandate.is_valid(now) and len(self.view.names) == 1:
            self._call_alone(now)
        answer = None
        if self.mandate.is_valid(now):
            answer = self._decide(name, actor, part, now)
            if self.mandate.valid_until - now < self._mandate_s / 2:
                self._want_call(now)
            if answer is not None or self._is_old(name, actor, part):
                return answer
        self._keep(name, actor, part, now)
        self._want_call(now)
        return None

    def _is_old(self, name: str, actor: ActorId, part: QuestionPart) -> bool:
        owned = self.keys.get(part.key)
        known = None if owned is None else owned.askers.get(name)
        return known is not None and known.actor == actor and part.number < known.number

    def _keep(self, name: str, actor: ActorId, part: QuestionPart, now: float) -> None:
        pending = self._pending
        if (name, part.key) not in pending and len(pending) >= RATE_PENDING_MAX:
            pending.popitem(last=False)
        pending[name, part.key] = (actor, part, now)

    def _state(self, key: str, limit: Limit, now: float) -> OwnedKey | None:
        """Return a key in its current window; None while nothing may be granted of it."""
        former = self.mandate.view
        if former is None or former.owner(key) != self._name:
            return None  # the majority's word is still for a view in which it is another's
        number = self._windows.read(now)
        owned = self.keys.get(key)
        if owned is None:
            if self.mandate.closed_until(key) >= number or not self._make_room(number, now):
                return None
            owned = self.keys[key] = OwnedKey(number)
        else:
            self.keys.move_to_end(key)
        owned.enter(number, limit=limit, now=now)
        return None if owned.number > self.mandate.number_max else owned

    def _make_room(self, number: int, now: float) -> bool:
        """Forget a few keys that hold nothing that matters any more."""
        for _ in range(SWEPT_PER_KEY):
            if not self.keys:
                return True
            key, owned = next(iter(self.keys.items()))
            limit = self._limit_of(key)
            if limit is not None:
                owned.enter(number, limit=limit, now=now)
            is_empty = limit is not None and not (owned.used or owned.debt or owned.askers)
            if owned.number < number or (is_empty and owned.number == number):
                del self.keys[key]
            else:
                self.keys.move_to_end(key)
        return len(self.keys) < RATE_KEYS_MAX

    def _decide(
        self, name: str, actor: ActorId, part: QuestionPart, now: float
    ) -> AnswerPart | None:
        limit = self._limit_of(part.key)
        if limit is None:
            return None
        owned = self._state(part.key, limit, now)
        if owned is None:
            return None
        return owned.decide(
            name,
            actor=actor,
            part=part,
            limit=limit,
            node_count=len(self.view.names),
            window_left_s=self._left_s(limit, now),
            now=now,
        )

    def _left_s(self, limit: Limit, now: float) -> float:
        """Return how long what is granted holds: to the end of the window, or a little while."""
        return self._windows.left_of(limit, now) if limit.is_window else held_s(limit)

    # A majority

    def _want_call(self, now: float) -> None:
        # Many keys ask at once, and each call goes to every member.
        due_at = max(now, self._called_at + CALL_RETRY_S[0])
        self._call_due_at = min(self._call_due_at, due_at)

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        if self._has_left or not (self._has_quorum and self._is_ready):
            return math.inf
        return self._call_due_at

    def _needs_votes(self, now: float) -> bool:
        is_low = self.mandate.valid_until - now < self._mandate_s / 2
        is_other = self.mandate.view is None or self.mandate.view.view_id != self.view.view_id
        return (
            bool(self._pending)
            or (self._is_used and is_low)
            or (is_other and self.mandate.is_valid(now))
        )

    def tick(self, now: float) -> tuple[list[RateMessage], list[Settled]]:
        """Call for votes when that is due."""
        if now < self.next_deadline():
            return [], []
        self._call_due_at = math.inf
        self._drop_pending(now)
        if not self._needs_votes(now):
            self._call_pause_s = CALL_RETRY_S[0]
            return [], []
        others = tuple(name for name in self.view.names if name != self._name)
        call = self._make_call(now)
        self._call_due_at = now + self._call_pause_s
        self._call_pause_s = min(2 * self._call_pause_s, CALL_RETRY_S[1])
        settled = self._vote_for_self(call, now)
        if not others:
            return [], settled
        return [RateMessage(others, CALL_DOCUMENT, call.encode())], settled

    def _drop_pending(self, now: float) -> None:
        while self._pending:
            place, (_, _, asked_at) = next(iter(self._pending.items()))
            if now - asked_at <= 1.0:
                return
            del self._pending[place]

    def _make_call(self, now: float) -> Call:
        self._called_at = now
        # A vote counts for less than a window: it may reach into the next one and no further.
        number_max = self._windows.read(now) + (self._windows.left_s(now) < self._mandate_s)
        number = self.mandate.ask(self.view, number_max=number_max, now=now)
        return Call(self._actor, number, self.view.view_id, self.mandate.epoch, number_max)

    def _call_alone(self, now: float) -> None:
        if self._is_ready and self._has_quorum:
            self._vote_for_self(self._make_call(now), now)

    def _vote_for_self(self, call: Call, now: float) -> list[Settled]:
        vote = self._vote(self._name, call, now)
        return [] if vote is None else self.receive_vote(self._name, vote, now)

    def _vote(self, name: str, call: Call, now: float) -> Vote | None:
        return self.voter.vote(
            name,
            actor=call.actor,
            round_number=call.round_number,
            view=self.view,
            epoch=call.epoch,
            number_max=call.number_max,
            now=now,
        )

    def receive_call(self, name: str, call: Call, now: float) -> list[RateMessage]:
        """Vote for an owner, when it stands in this node's view and nothing forbids it."""
        is_of_view = call.view_id == self.view.view_id and name in self.view.names
        if self._has_left or not self._is_ready or not is_of_view:
            return []
        vote = self._vote(name, call, now)
        if vote is None:
            return []
        counts: tuple[HeldCount, ...] = ()
        if self._parting and now < self._parting_until:
            due = [c for c in self._parting.values() if self.view.owner(c.key) == name]
            # More than fit a message are left out: their keys are closed for a window or two.
            counts = tuple(due[:RATE_KEYS_PER_MESSAGE_MAX])
        else:
            self._parting.clear()
        message = encode_vote(evolve(vote, counts=counts))
        return [RateMessage((name,), VOTE_DOCUMENT, message)]

    def receive_vote(self, name: str, vote: Vote, now: float) -> list[Settled]:
        """Take a vote; return what can be answered now that could not before."""
        if self._has_left:
            return []
        number = self._windows.read(now)
        is_beginning = self.mandate.receive(name, vote, view=self.view, number=number, now=now)
        if is_beginning and not self.mandate.is_continuous:
            self.keys.clear()
        if is_beginning or vote.counts:
            self._take_over(now)
        if not self.mandate.is_valid(now):
            return []
        self.mandate.forget_passed(self._windows.read(now))
        if not self._needs_votes(now):
            self._call_pause_s = CALL_RETRY_S[0]
        if self._is_used and len(self.view.names) > 1:
            self._is_used = False
            self._call_due_at = self.mandate.valid_until - self._mandate_s / 2
        return self._settle_pending(now)

    def _settle_pending(self, now: float) -> list[Settled]:
        settled = []
        for (name, key), (actor, part, _) in list(self._pending.items()):
            if self.view.owner(key) != self._name:
                del self._pending[name, key]
                continue
            answer = self._decide(name, actor, part, now)
            if answer is not None:
                del self._pending[name, key]
                settled.append(Settled(name, actor, answer))
        if settled:
            self._is_used = True
        return settled

    # Handing on

    def _take_over(self, now: float) -> None:
        """Go on from what the owners of the view before have counted."""
        number = self._windows.read(now)
        prior = self.mandate.prior_view_id
        handed = self.mandate.counts_to_take()
        handed += [count for count in self._farewells.values() if count.view_id == prior]
        for count in handed:
            is_ours = self.view.owner(count.key) == self._name
            is_closed = self.mandate.closed_until(count.key) >= number
            if not is_ours or not is_closed or count.key in self.keys:
                continue
            if not self._make_room(number, now):
                return
            if count.number > number + SKEW_WINDOWS:
                self._windows.skip_to(count.number, now=now)
                number = count.number
            self.keys[count.key] = OwnedKey(count.number, count.used, count.debt)
        closed = self.mandate.closed_until("")
        if closed > number + SKEW_WINDOWS:
            self._windows.skip_to(closed, now=now)

    def receive_farewell(self, name: str, farewell: Farewell, now: float) -> None:
        """Take what a leaving owner hands on, and let its promise go."""
        self.voter.release(name, actor=farewell.actor)
        for count in farewell.counts:
            if len(self._farewells) >= RATE_KEYS_MAX:
                self._farewells.clear()
            self._farewells[count.key] = count
        self._want_call(now)

    def leave(self) -> list[RateMessage]:
        """Decide nothing more, and hand on what was counted."""
        if self._has_left:
            return []
        self._has_left = True
        others = [name for name in self.view.names if name != self._name]
        former = self.mandate.view
        if not others or former is None:
            return []
        after = View(others, member_count=len(others))
        by_owner: dict[str, list[HeldCount]] = {name: [] for name in others}
        for key, owned in self.keys.items():
            by_owner[after.owner(key)].append(owned.count(former.view_id, key))
        return [
            RateMessage((name,), FAREWELL_DOCUMENT, Farewell(self._actor, parts).encode())
            for name, counts in by_owner.items()
            for parts in (list(batches(counts)) or [()])
        ]

    def diagnostics(self) -> Mapping[str, Any]:
        """Show what it keeps: views of live state. O(1)."""
        return {
            "view": self.view,
            "keys": self.keys,
            "pending": self._pending,
            "parting": self._parting,
            "farewells": self._farewells,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(keys)."""
        require(self, len(self.keys) <= RATE_KEYS_MAX, "more keys than an owner keeps")
        require(self, len(self._pending) <= RATE_PENDING_MAX, "more questions wait than may")
        for key, owned in self.keys.items():
            require(self, owned.used >= 0, f"less than nothing of {key!r} is used")
            require(self, owned.debt >= 0, f"less than nothing is owed for {key!r}")
