"""The rate limiter of one node: decisions from what is held, and words of the owners.

Each key has an owner, found on a hash ring over the members in reach. A node admits from units
that the owner has granted it, and the owner grants no more than the limit in any window.

Rule: the engine's contract holds here too. Time and messages are arguments and results; nothing
here sends, sleeps or calls back, but for one hook that says "there is something to send".
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from attrs import evolve

from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LocalError,
    MeshError,
    RejectReason,
    UnknownKeyError,
)
from meshlib.identity import ActorId, actor_name_hash
from meshlib.limits import EVENTS_QUEUED_MAX, RATE_WAITING_MAX
from meshlib.ratelimit.config import PartitionMode
from meshlib.ratelimit.leases.config import LeaseConfig
from meshlib.ratelimit.leases.holder import HeldKey, Ticket
from meshlib.ratelimit.leases.owner import KeyOwner, Settled
from meshlib.ratelimit.leases.questions import (
    ANSWER_DOCUMENT,
    CALL_DOCUMENT,
    FAREWELL_DOCUMENT,
    QUESTION_DOCUMENT,
    VOTE_DOCUMENT,
    AnswerPart,
    Answers,
    Call,
    Farewell,
    QuestionPart,
    Questions,
    batches,
    decode_vote,
)
from meshlib.ratelimit.leases.records import HeldDecision
from meshlib.ratelimit.leases.timers import Due, KeyTimers
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.votes import CLOCK_RATE_MARGIN
from meshlib.ratelimit.leases.windows import PERIOD_S, WindowClock
from meshlib.ratelimit.messages import RateMessage
from meshlib.ratelimit.records import RateLimitStats
from meshlib.ratelimit.settings import LimitSettings

__all__ = ["LeaseLimiter"]

LOOK_S: Final = 0.1
"""How long a limit that a peer has written may go unnoticed."""

WATCH_INTERVAL_S: Final = 0.1
RETRY_S: Final = (0.01, 0.2)
"""The shortest and the longest pause before a question is sent again."""

ROUND_TRIPS_TO_RETRY: Final = 1.5
"""How many usual round trips the first pauses last; later each is twice the one before."""

EVEN_ATTEMPTS: Final = 4
"""Attempts before the pauses grow: a frame or two was lost, or else nobody is there."""

CREDIT_RETRY_S: Final = 1.0
"""The pause between two attempts for nobody but to tell of credit."""

ABANDON_S: Final = 2.0
"""How long a question is repeated for which nobody waits."""

_UNLIMITED: Final = HeldDecision(True, 0, -1, 0.0)
_UNLIMITED_STATS: Final = RateLimitStats(limit_per_second=0, current_count=0, remaining=-1)


class LeaseLimiter:
    """Decides who may pass under limits that hold for the whole cluster.

    Args:
        name: this node's name.
        actor: this node in this start; numbers its questions together with their own numbers.
        limits: where the limits are kept.
        wall_clock: returns seconds since 1970; where this node owns a key, windows are its seconds.
        config: the settings.
        on_urgent: called when `next_deadline` is earlier than it was. Must not call back.
        now: monotonic seconds of the start: a node that has just started does not vote at once.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        limits: LimitSettings,
        wall_clock: Callable[[], float],
        config: LeaseConfig | None = None,
        on_urgent: Callable[[], None] | None = None,
        now: float = 0.0,
    ) -> None:
        self.config: Final = config if config is not None else LeaseConfig()
        self.on_urgent = on_urgent
        self._name = name
        self._actor = actor
        self._limits = limits
        self._now = now
        self._windows = WindowClock(wall_clock)
        self._view = View((name,), member_count=1)
        self._owner = KeyOwner(
            name,
            actor=actor,
            limit_of=self._limit_of,
            windows=self._windows,
            mandate_s=self.config.mandate_s,
            view=self._view,
        )
        self._owner.start(now)
        self._silent_s = self.config.mandate_s * CLOCK_RATE_MARGIN
        self._round_trip_s = RETRY_S[0] / ROUND_TRIPS_TO_RETRY / 2
        self._tracked: OrderedDict[str, HeldKey] = OrderedDict()
        self._asking: dict[str, HeldKey] = {}
        self._outgoing: dict[str, list[HeldKey]] = {}
        self._outgoing_due_at = math.inf
        self._decided: deque[Ticket] = deque(maxlen=EVENTS_QUEUED_MAX)
        self._timers = KeyTimers(_is_live)
        limits.watch(self._limit_written)

    # Decisions

    def acquire(self, key: str, *, cost: int = 1, now: float) -> HeldDecision:
        """Decide at once whether a request may pass, and count it when it may. O(1), and local.

        Admits from units that this node holds, else on credit: up to an equal part of the limit,
        or one request, that no owner has heard of yet. The owner takes credit out of the running
        window as far as there is room, and off the next ones beyond that.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: a key that is not text, or a cost that is no integer.
            InvalidValueError: a cost under 1, or over the limit: it could never pass.
            UnknownKeyError: no limit is set for the key. The global one is then unlimited.
            DecodeError: what is stored as the limit is none. Nothing is counted in any case.
        """
        tracked = self._open(key, cost, now)
        if not tracked.limit:
            return _UNLIMITED
        decision = self._decide_here(tracked, cost, now)
        if decision is not None:
            return decision
        if tracked.owner == self._name and self._owner.mandate.is_valid(now):
            ticket = self._enqueue(tracked, cost, now)
            if ticket.decision is not None:
                return ticket.decision
            self._withdraw(tracked, ticket)
        return self._decide_on_credit(tracked, cost, now)

    def ask(self, key: str, *, cost: int = 1, timeout_s: float | None = None, now: float) -> Ticket:
        """Ask the cluster whether a request may pass; the answer may take a round trip.

        What this node holds, and a window that the owner has called spent, answer at once.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.
            timeout_s: seconds to wait for the owner; then `partition_mode` answers, with
                `confirmed` False. None: as configured.
            now: monotonic seconds.

        Returns:
            A ticket. Its `decision` is there at once, or once `decided` has returned it.

        Raises:
            LocalError, DecodeError: as `acquire`, and InvalidValueError for a timeout that is not
                over 0 and finite. Nothing is counted.
        """
        wait_s = self.config.confirm_timeout_s if timeout_s is None else timeout_s
        if not 0 < wait_s < math.inf:
            raise InvalidValueError(f"timeout_s must be over 0 and finite, got {timeout_s}")
        tracked = self._open(key, cost, now)
        if not tracked.limit:
            return Ticket(key, cost, now, _UNLIMITED)
        decision = self._decide_here(tracked, cost, now)
        if decision is None and (tracked.is_cut_off or len(tracked.queue) >= RATE_WAITING_MAX):
            self._question(tracked, now)
            decision = self._decide_alone(tracked, cost, now)
        if decision is not None:
            return Ticket(key, cost, now, decision)
        ticket = self._enqueue(tracked, cost, now, expires_at=now + wait_s)
        if ticket.decision is None:
            ticket.is_awaited = True
            self._timers.set(ticket.expires_at, Due.TICKET, tracked, ticket)
            self._hurry()
        return ticket

    def decided(self) -> list[Ticket]:
        """Return the tickets that were decided since the last call, after `ask` had returned."""
        if not self._decided:
            return []
        tickets = list(self._decided)
        self._decided.clear()
        return tickets

    def stats(self, key: str, *, now: float) -> RateLimitStats:
        """Return what the whole cluster used of a limit in the current window.

        A node that does not own the key asks the owner from the first call on: the next one, a
        round trip later, is up to date.

        Args:
            key: the rate-limit key.
            now: monotonic seconds.

        Raises:
            InvalidTypeError: a key that is not text.
            UnknownKeyError: no limit is set for the key. The global one is then unlimited.
            DecodeError: what is stored as the limit is none.
        """
        if type(key) is not str:
            raise _refused_key(key)
        tracked = self._track(key, now)
        self._look(tracked, now)
        limit = tracked.limit
        if not limit:
            return _UNLIMITED_STATS
        if tracked.watched_until == -math.inf:
            self._timers.set(now + WATCH_INTERVAL_S, Due.WATCH, tracked, None)
            self._hurry()
        tracked.watched_until = now + self.config.watch_s
        if tracked.owner == self._name or now - tracked.heard_at >= WATCH_INTERVAL_S:
            self._question(tracked, now, is_for_statistics=True)
        used = tracked.used if now < tracked.used_until else 0
        if tracked.used_number == tracked.held_number:
            used = max(0, used - tracked.held)
        used += tracked.static_used if now < tracked.static_until else 0
        count = min(used, limit) if not tracked.static_used else used
        return RateLimitStats(
            limit_per_second=limit, current_count=count, remaining=max(0, limit - count)
        )

    def _open(self, key: str, cost: int, now: float) -> HeldKey:
        """Return a key's state, looked up and noted; raises for what cannot be decided."""
        if type(cost) is not int or cost < 1:
            raise _refused_cost(cost)
        self._now = now
        try:
            tracked = self._tracked.get(key)
        except TypeError:
            raise _refused_key(key) from None
        if tracked is None:
            tracked = self._track(key, now)
        if now >= tracked.look_at or tracked.view_id != self._view.view_id:
            self._look(tracked, now)
        limit = tracked.limit
        if limit:
            if cost > limit:
                raise InvalidValueError(f"cost {cost} can never pass a limit of {limit} a second")
            tracked.meter.note(cost, now)
            tracked.last_at = now
        return tracked

    def _decide_here(self, tracked: HeldKey, cost: int, now: float) -> HeldDecision | None:
        """Decide from what is held, from what the owner said, or because it says nothing."""
        if not tracked.queue and tracked.take(cost, now):
            if tracked.held <= tracked.low and tracked.under_way is None:
                self._question(tracked, now)
            return tracked.granted(tracked.held_number, now)
        if now < tracked.spent_until:
            return tracked.refused(now)
        since = tracked.unanswered_since
        if since is not None and now - since > self._silent_s:
            self._question(tracked, now)
            return self._decide_alone(tracked, cost, now)
        return None

    def _decide_on_credit(self, tracked: HeldKey, cost: int, now: float) -> HeldDecision:
        limit = tracked.limit
        unheard = tracked.credit_total - tracked.credit_answered
        if now >= tracked.credit_until:
            tracked.credit_used, tracked.credit_until = 0, now + self._windows.left_s(now)
        taken = max(unheard, tracked.credit_used)
        is_admitted = not taken or taken + cost <= limit // self._view.member_count
        if is_admitted:
            tracked.credit_total += cost
            tracked.credit_used += cost
        self._question(tracked, now, is_waiting_call=False)
        if is_admitted:
            return HeldDecision(True, limit, tracked.remaining(now), 0.0)
        return HeldDecision(False, limit, tracked.remaining(now), self._windows.left_s(now))

    def _decide_alone(self, tracked: HeldKey, cost: int, now: float) -> HeldDecision:
        """Decide without any owner's word, as the partition mode says.

        Parts begin with the first window in which an owner that stands on the other side of a
        cut can no longer decide: until then it may be granting the whole limit.
        """
        limit = tracked.limit
        left_s = self._windows.left_s(now)
        refused = HeldDecision(False, limit, 0, left_s)
        mode = self.config.partition_mode
        if mode is PartitionMode.CLOSED:
            return refused
        since = tracked.unanswered_since
        part = limit if mode is PartitionMode.OPEN else limit // self._view.member_count
        if now >= tracked.static_until:
            tracked.static_used, tracked.static_until = 0, now + left_s
        is_safe = since is not None and now + left_s - PERIOD_S >= since + self._silent_s
        if tracked.static_used + cost > part or not (is_safe or mode is PartitionMode.OPEN):
            return refused
        tracked.static_used += cost
        return HeldDecision(True, limit, part - tracked.static_used, 0.0)

    # Questions

    def _enqueue(
        self, tracked: HeldKey, cost: int, now: float, *, expires_at: float = math.inf
    ) -> Ticket:
        ticket = Ticket(tracked.key, cost, expires_at)
        tracked.queue.append(ticket)
        self._question(tracked, now)
        return ticket

    def _withdraw(self, tracked: HeldKey, ticket: Ticket) -> None:
        """Take back a request that does not wait after all."""
        if ticket in tracked.queue:
            tracked.queue.remove(ticket)
        ticket.decision = _UNLIMITED  # whatever is granted for it is held instead

    def _question(
        self,
        tracked: HeldKey,
        now: float,
        *,
        is_waiting_call: bool = True,
        is_for_statistics: bool = False,
        returned: int = 0,
    ) -> None:
        """Ask the owner, unless a question is under way."""
        if tracked.under_way is not None:
            return
        under_way = tracked.begin(
            now,
            node_count=len(self._view.names),
            is_waiting_call=is_waiting_call,
            is_for_statistics=is_for_statistics,
            returned=returned,
            pause_s=min(RETRY_S[1], max(RETRY_S[0], ROUND_TRIPS_TO_RETRY * self._round_trip_s)),
            round_trip_s=self._round_trip_s,
        )
        if tracked.unanswered_since is None:
            tracked.unanswered_since = now
        if tracked.owner == self._name:
            answer = self._owner.ask(self._name, self._actor, under_way.part, now)
            if answer is not None:
                self._learn(tracked, answer, now)
                return
        else:
            self._send_later(tracked, now + self.config.batch_delay_s)
        self._asking[tracked.key] = tracked
        self._timers.set(now + under_way.pause_s, Due.RETRY, tracked, under_way)
        self._hurry()

    def _send_later(self, tracked: HeldKey, due_at: float) -> None:
        self._outgoing.setdefault(tracked.owner, []).append(tracked)
        self._outgoing_due_at = min(self._outgoing_due_at, due_at)

    def _learn(self, tracked: HeldKey, answer: AnswerPart, now: float) -> None:
        """Take the owner's word, and serve those who wait."""
        under_way = tracked.under_way
        assert under_way is not None
        if tracked.owner != self._name and not under_way.part.attempt:
            trip_s = now - under_way.when_sent(answer.attempt)
            self._round_trip_s += (min(trip_s, RETRY_S[1]) - self._round_trip_s) / 8
        self._asking.pop(tracked.key, None)
        self._tell(tracked.learn(answer, now))
        queue = tracked.queue
        while queue:
            ticket = queue[0]
            if ticket.decision is None:
                if now < tracked.spent_until:
                    ticket.decision = tracked.refused(now)
                elif tracked.take(ticket.cost, now):
                    ticket.decision = tracked.granted(tracked.held_number, now)
                else:
                    break
                self._tell([ticket])
            queue.popleft()
        if queue:
            self._question(tracked, now)
        elif tracked.held and len(self._view.names) > 1:
            self._timers.set(now + self.config.idle_return_s, Due.IDLE, tracked, tracked.number)

    def _tell(self, tickets: Iterable[Ticket]) -> None:
        self._decided.extend(ticket for ticket in tickets if ticket.is_awaited)

    def _retry(self, tracked: HeldKey, now: float) -> None:
        """Send a question again, or to another owner, or give it up."""
        under_way = tracked.under_way
        assert under_way is not None
        is_awaited = bool(tracked.queue) or any(t.decision is None for t in under_way.tickets)
        has_credit = tracked.credit_total > tracked.credit_answered
        if not is_awaited and now - tracked.last_at > ABANDON_S:
            if not has_credit and now >= tracked.watched_until:
                tracked.under_way = None
                tracked.unanswered_since = None
                self._asking.pop(tracked.key, None)
                return
            under_way.pause_s = CREDIT_RETRY_S
        part = evolve(under_way.part, attempt=under_way.part.attempt + 1)
        if len(under_way.sent_at) == under_way.sent_at.maxlen:
            under_way.first_attempt += 1
        under_way.part = part
        under_way.sent_at.append(now)
        if part.attempt >= EVEN_ATTEMPTS:
            under_way.pause_s = max(under_way.pause_s, min(2 * under_way.pause_s, RETRY_S[1]))
        self._timers.set(now + under_way.pause_s, Due.RETRY, tracked, under_way)
        if tracked.owner != self._name:
            self._send_later(tracked, now)
            return
        answer = self._owner.ask(self._name, self._actor, part, now)
        if answer is not None:
            self._learn(tracked, answer, now)

    def _ask_anew(self, tracked: HeldKey, now: float) -> None:
        """Ask another owner what the last one has not answered; under a new number."""
        under_way = tracked.under_way
        if under_way is not None:
            tracked.queue.extendleft(t for t in reversed(under_way.tickets) if t.decision is None)
            tracked.under_way = None
            self._asking.pop(tracked.key, None)
            tracked.epoch = 0
            tracked.unanswered_since = None
            self._question(tracked, now, is_waiting_call=bool(tracked.queue))

    # The driver's side

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, in monotonic seconds, or None while nothing is."""
        due_at = min(
            self._timers.next_deadline(), self._outgoing_due_at, self._owner.next_deadline()
        )
        return None if due_at == math.inf else due_at

    def tick(self, now: float) -> list[RateMessage]:
        """Return what is to be sent by now. O(what is due).

        Args:
            now: monotonic seconds.
        """
        self._now = now
        messages, settled = self._owner.tick(now)
        messages += self._answer(settled, now)
        for _ in range(len(self._timers)):
            item = self._timers.pop(now)
            if item is None:
                break
            due, tracked, token = item
            self._handle(due, tracked, token, now)
        if now >= self._outgoing_due_at:
            messages += self._questions()
        return messages

    def _handle(self, due: Due, tracked: HeldKey, token: Any, now: float) -> None:
        if due is Due.TICKET:
            tracked.is_cut_off = tracked.under_way is not None
            token.decision = self._decide_alone(tracked, token.cost, now)
            self._tell([token])
        elif due is Due.RETRY:
            self._retry(tracked, now)
        elif due is Due.IDLE:
            self._give_back(tracked, now)
        elif now >= tracked.watched_until:
            tracked.watched_until = -math.inf
        else:
            if now - tracked.heard_at >= WATCH_INTERVAL_S / 2:
                self._question(tracked, now, is_for_statistics=True)
            self._timers.set(now + WATCH_INTERVAL_S, Due.WATCH, tracked, None)

    def _give_back(self, tracked: HeldKey, now: float) -> None:
        """Give back what is held once nobody has asked for it for a while."""
        idle_at = tracked.last_at + self.config.idle_return_s
        if not tracked.held or now >= tracked.held_until:
            return
        if now < idle_at - 1e-6 or tracked.under_way is not None:
            due_at = max(idle_at, now + self.config.idle_return_s / 4)
            self._timers.set(due_at, Due.IDLE, tracked, tracked.number)
            return
        returned, tracked.held = tracked.held, 0
        self._question(tracked, now, returned=returned)

    def _questions(self) -> list[RateMessage]:
        """Return the questions that wait to be sent, one message for the keys of one owner."""
        messages = []
        for owner, keys in self._outgoing.items():
            parts: dict[str, QuestionPart] = {}
            for tracked in keys:
                under_way = tracked.under_way
                if under_way is not None and tracked.owner == owner:
                    parts[tracked.key] = under_way.part
            for some in batches(list(parts.values())):
                payload = Questions(self._actor, some).encode()
                messages.append(RateMessage((owner,), QUESTION_DOCUMENT, payload))
        self._outgoing = {}
        self._outgoing_due_at = math.inf
        return messages

    def _answer(self, settled: Iterable[Settled], now: float) -> list[RateMessage]:
        """Hand out answers: those for this node here, the others as messages."""
        by_asker: dict[tuple[str, ActorId], list[AnswerPart]] = {}
        for answer in settled:
            if answer.name == self._name:
                self._hear(self._name, self._owner.mandate.epoch, answer.part, now)
            else:
                by_asker.setdefault((answer.name, answer.actor), []).append(answer.part)
        epoch = self._owner.mandate.epoch
        return [
            RateMessage((name,), ANSWER_DOCUMENT, Answers(self._actor, actor, epoch, some).encode())
            for (name, actor), parts in by_asker.items()
            for some in batches(parts)
        ]

    def receive_volatile(
        self, document: str, payload: bytes, *, sender: str, now: float
    ) -> list[RateMessage]:
        """Take a message of another node; return what to answer.

        Args:
            document: the volatile document it came for.
            payload: its bytes.
            sender: the name of the node that sent it, as its link or frame vouches.
            now: monotonic seconds.

        Raises:
            RemoteError: not what it should be. Nothing was changed.
        """
        self._now = now
        if document == QUESTION_DOCUMENT:
            questions = Questions.decode(payload)
            _check_sender(questions.actor, sender)
            return self._receive_questions(sender, questions, now)
        if document == ANSWER_DOCUMENT:
            answers = Answers.decode(payload)
            _check_sender(answers.actor, sender)
            if answers.asker == self._actor:
                for part in answers.parts:
                    self._hear(sender, answers.epoch, part, now)
            return []
        if document == CALL_DOCUMENT:
            call = Call.decode(payload)
            _check_sender(call.actor, sender)
            return self._owner.receive_call(sender, call, now)
        if document == VOTE_DOCUMENT:
            vote = decode_vote(payload)
            _check_sender(vote.actor, sender)
            return self._answer(self._owner.receive_vote(sender, vote, now), now)
        if document == FAREWELL_DOCUMENT:
            farewell = Farewell.decode(payload)
            _check_sender(farewell.actor, sender)
            self._owner.receive_farewell(sender, farewell, now)
            return []
        raise DecodeError(f"no volatile document {document!r}", reason=RejectReason.TYPE)

    def _receive_questions(
        self, sender: str, questions: Questions, now: float
    ) -> list[RateMessage]:
        settled = []
        for part in questions.parts:
            answer = self._owner.ask(sender, questions.actor, part, now)
            if answer is not None:
                settled.append(Settled(sender, questions.actor, answer))
        return self._answer(settled, now)

    def _hear(self, owner: str, epoch: int, part: AnswerPart, now: float) -> None:
        """Take an answer, if it is the one that is waited for."""
        tracked = self._tracked.get(part.key)
        if tracked is None or tracked.under_way is None:
            return
        under_way = tracked.under_way
        is_awaited = under_way.part.number == part.number and under_way.owner == owner
        if is_awaited and epoch >= tracked.epoch and part.attempt <= under_way.part.attempt:
            tracked.epoch = epoch
            self._learn(tracked, part, now)

    def update_members(
        self,
        names: Collection[str],
        *,
        has_quorum: bool = True,
        member_count: int | None = None,
        is_ready: bool = True,
        now: float | None = None,
    ) -> None:
        """Take the members as they are now: who owns which key follows from them.

        Args:
            names: the members that take part, Alive or Suspected; this node always does.
            has_quorum: whether this node's side of the cluster reaches a majority.
            member_count: the members that a majority is one of, those out of reach included;
                None: those in reach, and without a majority no fewer than before.
            is_ready: whether this node knows enough of its cluster to decide or vote in it.
            now: monotonic seconds; None: as last given.
        """
        if now is not None:
            self._now = now
        members = {self._name, *names}
        if member_count is None:
            known = 0 if has_quorum else self._view.member_count
            member_count = max(known, len(members))
        view = View(members, member_count=member_count)
        is_same = view.view_id == self._view.view_id
        if is_same:
            self._view.member_count = view.member_count
        else:
            self._view = view
        self._owner.set_view(self._view, has_quorum=has_quorum, is_ready=is_ready, now=self._now)
        if not is_same:
            for tracked in list(self._asking.values()):
                self._look(tracked, self._now)
        self._hurry()

    def leave(self, *, now: float) -> list[RateMessage]:
        """Stop deciding as an owner, and return what hands on what was counted."""
        self._now = now
        return self._owner.leave()

    # Keys that are tracked here

    def _limit_of(self, key: str) -> int | None:
        """Return a key's limit; None while it is unlimited, not set, or not readable."""
        tracked = self._tracked.get(key)
        if tracked is not None and tracked.limits_tag == self._limits.tag():
            return tracked.limit or None
        try:
            return self._limits.limit(key) or None
        except MeshError:
            return None if tracked is None else tracked.limit or None

    def _track(self, key: str, now: float) -> HeldKey:
        if type(key) is not str:
            raise _refused_key(key)
        tracked = self._tracked.get(key)
        if tracked is not None:
            return tracked
        self._limits.limit(key)  # raises for a key without a limit, before anything is kept
        if len(self._tracked) >= self.config.keys_max:
            _, oldest = self._tracked.popitem(last=False)
            self._drop(oldest, now)
        tracked = self._tracked[key] = HeldKey(key)
        return tracked

    def _drop(self, tracked: HeldKey, now: float) -> None:
        """Forget a key. What it holds is given back where that needs no message."""
        self._release(tracked, now)
        self._tracked.pop(tracked.key, None)
        self._asking.pop(tracked.key, None)
        tracked.watched_until = tracked.held_until = -math.inf
        tracked.under_way = None
        for ticket in tracked.queue:
            if ticket.decision is None:
                ticket.decision = self._decide_alone(tracked, ticket.cost, now)
                self._tell([ticket])

    def _release(self, tracked: HeldKey, now: float) -> None:
        if tracked.held and tracked.owner == self._name and tracked.under_way is None:
            returned, tracked.held = tracked.held, 0
            self._question(tracked, now, returned=returned)

    def _limit_written(self, key: str) -> None:
        """Let the next decision of a key read its limit again."""
        tracked = self._tracked.get(key)
        if tracked is not None:
            tracked.look_at = -math.inf

    def _look(self, tracked: HeldKey, now: float) -> None:
        """Bring a key to the limit that is set now, and to the owner that it has now."""
        self._tracked.move_to_end(tracked.key)
        tracked.look_at = now + LOOK_S
        self._read_limit(tracked, now)
        if tracked.view_id == self._view.view_id:
            return
        tracked.view_id = self._view.view_id
        owner = self._view.owner(tracked.key)
        if owner != tracked.owner:
            tracked.owner = owner
            tracked.is_cut_off = False
            tracked.spent_until = -math.inf
            self._ask_anew(tracked, now)

    def _read_limit(self, tracked: HeldKey, now: float) -> None:
        tag = self._limits.tag()
        if tag == tracked.limits_tag:
            return
        try:
            limit = self._limits.limit(tracked.key)
        except DecodeError:
            if tracked.limits_tag is None:
                self._drop(tracked, now)
                raise
            tracked.limits_tag = tag  # the last limit that could be read stays in force
            return
        except UnknownKeyError:
            self._drop(tracked, now)
            raise
        tracked.limits_tag = tag
        if limit != tracked.limit:
            self._release(tracked, now)
            tracked.limit = limit
            tracked.spent_until = -math.inf

    def _hurry(self) -> None:
        """Tell the driver that there may be something to do earlier than it knows."""
        if self.on_urgent is not None:
            self.on_urgent()

    def _check(self) -> None:
        """Assert what must hold between two calls."""
        assert len(self._tracked) <= self.config.keys_max
        for key, tracked in self._tracked.items():
            assert key == tracked.key
            tracked._check()  # noqa: SLF001 - invariants reach inside on purpose
        for key, tracked in self._asking.items():
            assert tracked.under_way is not None, key
        self._owner._check()  # noqa: SLF001


def _is_live(due: Due, tracked: HeldKey, token: Any) -> bool:
    """Tell whether a timer still means something."""
    if due is Due.TICKET:
        return token.decision is None
    if due is Due.RETRY:
        return tracked.under_way is token
    if due is Due.IDLE:
        return bool(tracked.held) and token == tracked.number
    return math.isfinite(tracked.watched_until)


def _check_sender(actor: ActorId, sender: str) -> None:
    if actor[:8] != actor_name_hash(sender):
        raise DecodeError(f"{sender!r} speaks for another writer", reason=RejectReason.IDENTITY)


def _refused_cost(cost: object) -> LocalError:
    if type(cost) is not int:
        return InvalidTypeError(f"cost must be an integer, not {type(cost).__name__}")
    return InvalidValueError(f"cost must be at least 1, got {cost}")


def _refused_key(key: object) -> LocalError:
    return InvalidTypeError(f"a rate-limit key must be text, not {type(key).__name__}")
