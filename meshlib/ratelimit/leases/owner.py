"""One node as the owner of keys: the votes it decides by, and what it hands on.

Rule: a question is decided on with a mandate, or waits for one; granting.py says what is granted.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import evolve, frozen

from meshlib.identity import ActorId, actor_incarnation
from meshlib.invariants import require
from meshlib.limits import (
    MEMBERS_MAX,
    RATE_KEYS_MAX,
    RATE_KEYS_PER_MESSAGE_MAX,
    RATE_PENDING_MAX,
)
from meshlib.ratelimit.leases.calls import (
    CALL_DOCUMENT,
    FAREWELL_DOCUMENT,
    VOTE_DOCUMENT,
    Call,
    Farewell,
    encode_vote,
)
from meshlib.ratelimit.leases.granting import SKEW_WINDOWS, KeyGranter, Settled
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

OPEN_S: Final = 0.1
"""For how long an owner uses keys of its own before it looks again whether it still may, once half
of its mandate is over: then votes are to be asked for."""

STARTS_MAX: Final = 2 * MEMBERS_MAX
"""Nodes of which the newest start is remembered."""

TERMS_MAX: Final = 64
"""Views gone through without a break that are remembered; after more it counts as a break."""


@frozen(slots=True)
class _Term:
    """A view that this node has seen, or that a majority has voted for: its mandate began then."""

    view: View
    at: float
    is_mandate: bool


@frozen(slots=True)
class _Handed:
    """What an owner that left has handed on.

    Args:
        name: the owner.
        until: for how long it is gone on from, in monotonic seconds.
        count: of one key.
    """

    name: str
    until: float
    count: HeldCount


class KeyOwner(KeyGranter):
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
        super().__init__(
            name, actor=actor, limit_of=limit_of, windows=windows, mandate_s=mandate_s, view=view
        )
        self.open_until = -math.inf
        """Until when the keys that are open may be used, in monotonic seconds: not for longer than
        the mandate is valid. What ends it before closes each of them."""
        self.voter = Voter(actor, mandate_s=mandate_s)
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
        self._farewells: dict[str, _Handed] = {}
        self._starts: dict[str, ActorId] = {}
        """The newest start of each node that was heard to vote, to call for votes or to leave."""
        self._terms: list[_Term] = []
        """The views since the last break in what a majority voted for, the newest last."""

    # Who is in

    def start(self, now: float) -> None:
        """Learn the time: an earlier start of this node may have voted shortly before."""
        self.voter.start(now, number=self._windows.read(now))

    def set_view(self, view: View, *, has_quorum: bool, is_ready: bool, now: float) -> None:
        """Take the members as they are now. O(keys) when they changed."""
        self._has_quorum, self._is_ready = has_quorum, is_ready
        self.keeper.set_view(view, is_ready=is_ready, now=now)
        if view.view_id == self.view.view_id:
            self.view.member_count = view.member_count
            return
        for name in set(view.names) - set(self.view.names):
            self._drop_farewells(name)  # who is back may have decided since
        self.view = view
        self.close()
        self.mandate.pass_view(view)
        # Whose keys it is that are not this node's in this view may have been decided by them.
        self._note_term(view, is_mandate=False, now=now)
        self._part(view, now)
        self._forget_kept()
        if self.mandate.is_valid(now):
            # What others promised to this node's former view would hold all up until it ran out.
            self._want_call(now)

    def _part(self, view: View, now: float) -> None:
        """Put what was counted of keys that are others' now aside for them."""
        former = self.mandate.view
        lost = [key for key in self.keys if view.owner(key) != self._name]
        for key in lost:
            owned = self.keys.pop(key)
            if former is not None and not owned.is_kept and len(self._parting) < RATE_KEYS_MAX:
                self._parting[key] = owned.count(former.view_id, key)
        for key in [key for key in self._parting if view.owner(key) == self._name]:
            del self._parting[key]
        self._parting_until = now + 4 * self._mandate_s

    # Questions

    def open(self, key: str, limit: Limit, now: float) -> OwnedKey | None:
        """Return a key of which this node may use units itself, each without a question. O(1).

        Whoever uses some adds it to `used`, up to the limit and the ceiling, and says so in
        `note_use` where others keep it; until its `open_until` or that of this owner, and no
        longer.

        Args:
            key: the rate-limit key.
            limit: its limit.
            now: monotonic seconds.

        Returns:
            None while this node may not: it is not the owner, has no mandate, or what may be used
            is not known yet; and where units come back all the time.
        """
        is_own = key in self.keys or self.view.owner(key) == self._name
        if self._has_left or not is_own or not limit.is_window:
            return None
        self._is_used = True
        mandate = self.mandate
        if not mandate.is_valid(now) and len(self.view.names) == 1:
            self._call_alone(now)
        if not mandate.is_valid(now):
            return None
        if mandate.valid_until - now < self._mandate_s / 2:
            self._want_call(now)
        owned = self._state(key, limit, now)
        if owned is not None:
            owned.open_until = now + self._windows.left_s(now)
            again_at = max(now + OPEN_S, mandate.valid_until - self._mandate_s / 2)
            self.open_until = min(mandate.valid_until, again_at)
        return owned

    def go_on(self, owned: OwnedKey, key: str, now: float) -> bool:
        """Open a key anew whose second is over, where nothing else has ended; as `open`. O(1).

        Args:
            owned: a key of windows of a second that `open` has returned.
            key: the rate-limit key.
            now: monotonic seconds.

        Returns:
            whether it is open; else it is to be looked at from the ground up.
        """
        number = self._windows.read(now)
        was_closed = owned.open_until == -math.inf  # or forgotten
        if was_closed or owned.debt or owned.askers or owned.number >= number:
            return False
        if now >= self.open_until or number > self.mandate.number_max:
            return False
        self.keys.move_to_end(key)
        owned.number, owned.used = number, 0
        owned.open_until = now + self._windows.left_s(now)
        return True

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
        is_own = part.key in self.keys or self.view.owner(part.key) == self._name
        if self._has_left or not is_own:
            return None
        self._is_used = True
        if not self.mandate.is_valid(now) and len(self.view.names) == 1:
            self._call_alone(now)
        answer = None
        if self.mandate.is_valid(now):
            answer = self._decide(name, actor, part, now)
            if self.mandate.valid_until - now < self._mandate_s / 2:
                self._want_call(now)
            if answer is not None or self._is_old(name, actor, part) or part.key in self.ceilings:
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

    # A majority

    def decides_since(self, key: str, now: float) -> tuple[float, bool] | None:
        """Tell since when nobody but this node decides on a key. O(views that it has gone through).

        Asks for votes where they are missing, or run out soon.

        Args:
            key: of whatever is owned as keys of limits are.
            now: monotonic seconds.

        Returns:
            The time, the same as long as nobody else can have decided in between, and whether
            this node is a cluster of its own; None while it may not decide.
        """
        if self._has_left or self.view.owner(key) != self._name:
            return None
        self._is_used = True
        if not self.mandate.is_valid(now) and len(self.view.names) == 1:
            self._call_alone(now)
        if self.mandate.valid_until - now < self._mandate_s / 2:
            self._want_call(now)
        if not self.mandate.is_valid(now):
            return None
        since = None
        for term in reversed(self._terms):
            if term.view.owner(key) != self._name:
                break
            since = term.at if term.is_mandate else since
        return None if since is None else (since, self.view.member_count == 1)

    def _note_term(self, view: View, *, is_mandate: bool, now: float) -> None:
        if len(self._terms) >= TERMS_MAX:
            self._terms.clear()
        self._terms.append(_Term(view, now, is_mandate))

    def _note_mandate(self, now: float, *, is_beginning: bool) -> None:
        """Take note of a mandate for a view that began, or was seen again, since the last one."""
        mandate, last = self.mandate, self._terms[-1] if self._terms else None
        if mandate.view is None or not mandate.is_valid(now):
            return
        if is_beginning and not mandate.is_continuous:
            self._terms.clear()
        asked_at = mandate.valid_until - self._mandate_s
        is_seen_again = last is not None and not last.is_mandate and asked_at >= last.at
        if is_beginning or (is_seen_again and mandate.view.view_id == self.view.view_id):
            self._note_term(mandate.view, is_mandate=True, now=now)

    def _want_call(self, now: float) -> None:
        # Many keys ask at once, and each call goes to every member.
        due_at = max(now, self._called_at + CALL_RETRY_S[0])
        self._call_due_at = min(self._call_due_at, due_at)

    def next_deadline(self) -> float:
        """Return when `tick` is due, in monotonic seconds; infinity when it is not."""
        if self._has_left:
            return math.inf
        due_at, other_at = self.keeper.next_deadline(), self.ceilings.next_deadline()
        if other_at < due_at:
            due_at = other_at
        return self._call_due_at if self._call_due_at < due_at and self._may_call() else due_at

    def _may_call(self) -> bool:
        return self._has_quorum and self._is_ready

    def _needs_votes(self, now: float) -> bool:
        is_low = self.mandate.valid_until - now < self._mandate_s / 2
        is_other = self.mandate.view is None or self.mandate.view.view_id != self.view.view_id
        return (
            bool(self._pending)
            or (self._is_used and is_low)
            or (is_other and self.mandate.is_valid(now))
        )

    def tick(self, now: float) -> tuple[list[RateMessage], list[Settled]]:
        """Call for votes, and have ceilings kept, when that is due."""
        if now < self.next_deadline():
            return [], []
        messages = self.keeper.tick(now) + self.ceilings.tick(self.view, now)
        if now < self._call_due_at or not self._may_call():
            return messages, []
        called, settled = self._call(now)
        return messages + called, settled

    def _call(self, now: float) -> tuple[list[RateMessage], list[Settled]]:
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
        self._note_start(name, call.actor)
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
        self._note_start(name, vote.actor)
        number = self._windows.read(now)
        is_beginning = self.mandate.receive(name, vote, view=self.view, number=number, now=now)
        self._note_mandate(now, is_beginning=is_beginning)
        if is_beginning or vote.counts:
            self.close()
        if is_beginning and not self.mandate.is_continuous:
            self.keys.clear()
            self._forget_kept()
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
            if answer is not None or key in self.ceilings:
                del self._pending[name, key]
            if answer is not None:
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
        handed += [
            each.count
            for each in self._farewells.values()
            if each.count.view_id == prior and now < each.until
        ]
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
        if self._note_start(name, farewell.actor):
            until = now + self._mandate_s
            for count in farewell.counts:
                if len(self._farewells) >= RATE_KEYS_MAX:
                    self._farewells.clear()
                self._farewells[count.key] = _Handed(name, until, count)
        self._want_call(now)

    def _note_start(self, name: str, actor: ActorId) -> bool:
        """Note which start of a node was heard; tell whether it is the newest. O(1) mostly.

        What an earlier one has handed on is of before this one, which may have decided since, in
        the same view even: the same names make it.
        """
        known = self._starts.get(name)
        if known == actor:
            return True
        if known is not None and actor_incarnation(actor) < actor_incarnation(known):
            return False  # it comes late
        if len(self._starts) >= STARTS_MAX:
            self._starts.clear()
            self._farewells.clear()
        self._starts[name] = actor
        self._drop_farewells(name)
        return True

    def _drop_farewells(self, name: str) -> None:
        kept = {key: each for key, each in self._farewells.items() if each.name != name}
        self._farewells = kept

    def leave(self) -> list[RateMessage]:
        """Decide nothing more, and hand on what was counted."""
        if self._has_left:
            return []
        self._has_left = True
        self.close()
        others = [name for name in self.view.names if name != self._name]
        former = self.mandate.view
        if not others or former is None:
            return []
        after = View(others, member_count=len(others))
        by_owner: dict[str, list[HeldCount]] = {name: [] for name in others}
        for key, owned in self.keys.items():
            if owned.is_kept:
                continue  # a majority keeps what the next owner goes on from
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
            "keeper": self.keeper,
            "ceilings": self.ceilings,
        }

    def _check(self) -> None:
        """Assert what must hold between two calls: BrokenInvariant. O(keys)."""
        require(self, len(self.keys) <= RATE_KEYS_MAX, "more keys than an owner keeps")
        require(self, len(self._pending) <= RATE_PENDING_MAX, "more questions wait than may")
        for key, owned in self.keys.items():
            require(self, owned.used >= 0, f"less than nothing of {key!r} is used")
            require(self, owned.debt >= 0, f"less than nothing is owed for {key!r}")
            is_within = not owned.is_kept or owned.used <= owned.ceiling
            require(self, is_within, f"more of {key!r} is used than is kept")
        self.keeper._check()  # noqa: SLF001 - invariants reach inside on purpose
        self.ceilings._check()  # noqa: SLF001
