"""The keys of one node, and what it asks their owners: units that it needs, and credit it took.

Rule: one question for a key is under way at a time, and is repeated until it is answered. The
limiter on top of this decides; here nothing is admitted but by an owner's word, or its absence.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from meshlib.errors import DecodeError, InvalidTypeError, LocalError, MeshError
from meshlib.identity import ActorId
from meshlib.limits import EVENTS_QUEUED_MAX, RATE_KEYS_MAX
from meshlib.ratelimit.config import RateLimitConfig
from meshlib.ratelimit.leases.holder import HeldKey, Ticket, TicketGroup
from meshlib.ratelimit.leases.owner import KeyOwner, Settled
from meshlib.ratelimit.leases.questions import (
    ANSWER_DOCUMENT,
    QUESTION_DOCUMENT,
    AnswerPart,
    Answers,
    QuestionPart,
    Questions,
)
from meshlib.ratelimit.leases.timers import Due, KeyTimers
from meshlib.ratelimit.leases.views import View
from meshlib.ratelimit.leases.votes import CLOCK_RATE_MARGIN, START_WINDOWS
from meshlib.ratelimit.leases.windows import PERIOD_S, WindowClock
from meshlib.ratelimit.leases.wire import batches
from meshlib.ratelimit.records import Decision, RateMessage
from meshlib.ratelimit.settings import LimitSettings
from meshlib.state import Limit

__all__ = ["UNLIMITED", "LeaseAsker", "refused_key"]

UNLIMITED: Final = Decision(True, 0, -1, 0.0, confirmed=True)
"""The decision where there is no limit."""

LOOK_S: Final = 0.1
"""How long a limit that a peer has written may go unnoticed."""

RETRY_S: Final = (0.01, 0.2)
"""The shortest and the longest pause before a question is sent again."""

ROUND_TRIPS_TO_RETRY: Final = 1.5
"""How many usual round trips the first pauses last; later each is twice the one before."""

EVEN_ATTEMPTS: Final = 8
"""Attempts before the pauses grow: of ten frames three may be lost, or else nobody is there."""

CREDIT_DELAY_S: Final = 0.1
"""How long credit of a key that is asked for seldom waits to be told, with that of other keys."""

CREDIT_RETRY_S: Final = 1.0
"""The pause between two attempts for nobody but to tell of credit."""

EVICTION_CHOICES: Final = 8
"""Keys that are looked at when one has to make room."""

PATIENCE_S: Final = 0.25
"""How much longer a node waits for an owner at its start than an owner may take, in seconds.

Nodes that start together vote for nobody before one mandate is over, for they may have voted
before, and grant nothing in the windows for which they may have voted then."""

ABANDON_S: Final = 2.0
"""How long a question is repeated for which nobody waits."""


class LeaseAsker:
    """The keys that one node is asked for, and its talk with their owners, itself included.

    Args:
        name: this node's name.
        actor: this node in this start; numbers its questions together with their own numbers.
        limits: where the limits are kept.
        wall_clock: returns seconds since 1970; where this node owns a key, windows are its seconds.
        config: the settings.
        on_urgent: called when the deadline is earlier than it was. Must not call back.
        now: monotonic seconds of the start: a node that has just started does not vote at once.
    """

    def __init__(
        self,
        name: str,
        *,
        actor: ActorId,
        limits: LimitSettings,
        wall_clock: Callable[[], float],
        config: RateLimitConfig,
        on_urgent: Callable[[], None] | None,
        now: float,
    ) -> None:
        self.config: Final = config
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
        self._plans: dict[str, tuple[HeldKey, ...]] = {}
        """The limits of each key that was asked for; made anew when the settings have changed."""
        self._terms: dict[str, Limit | None] = {}
        """The limits of keys that this node owns, as they were when it looked last."""
        self._tag = -1
        """The settings by which both were made; see `_look_at_settings`."""
        self._settings_look_at = -math.inf
        self._asking: dict[int, HeldKey] = {}
        """The keys of which a question is under way, by its number."""
        self._outgoing: dict[str, list[HeldKey]] = {}
        self._due: dict[str, float] = {}
        """When the questions to each owner are to be sent."""
        self._outgoing_due_at = math.inf
        self._decided: deque[Ticket] = deque(maxlen=EVENTS_QUEUED_MAX)
        self._timers = KeyTimers(_is_live)
        self._numbers = itertools.count(1)
        self._settled_at = now + (START_WINDOWS + 1) * PERIOD_S + PATIENCE_S
        """When no window is closed any more because this node may have voted before its start."""
        self._patient_until: float | None = None
        """Until when an owner is awaited that may be gathering its first votes; None before this
        node could have voted itself."""
        self._is_waiting = False
        """Whether this node has met nobody yet of others, who may be there."""
        self._credit_floor = 0
        """No key that was forgotten had taken more credit: those that follow count from there."""
        limits.watch(self._limit_written)

    def _is_patient(self, now: float) -> bool:
        """Tell whether owners may still be gathering their first votes. O(1)."""
        return self._patient_until is not None and now < self._patient_until

    # Questions

    def _decide_alone(self, tracked: HeldKey, cost: int, now: float) -> Decision:
        """Decide without any owner's word."""
        raise NotImplementedError

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
        ticket.decision = UNLIMITED  # whatever is granted for it is held instead

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
            self._hasten(tracked, now)
            return
        self._follow_view(tracked, now)
        under_way = tracked.begin(
            now,
            number=next(self._numbers),
            node_count=len(self._view.names),
            is_own=tracked.owner == self._name,
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
            delay_s = 0.0
        else:
            # Nobody waits for it, and nobody is likely to ask again before it is told.
            is_credit_alone = not is_waiting_call and not is_for_statistics and not returned
            is_to_wait = is_credit_alone and tracked.is_rare
            delay_s = CREDIT_DELAY_S if is_to_wait else self.config.batch_delay_s
            self._send_later(tracked, now + delay_s)
        self._asking[under_way.part.number] = tracked
        self._timers.set(now + delay_s + under_way.pause_s, Due.RETRY, tracked, under_way)
        self._hurry()

    def _hasten(self, tracked: HeldKey, now: float) -> None:
        """Send what waits for other credit to be told sooner: somebody asks again."""
        under_way = tracked.under_way
        is_out = under_way is None or under_way.is_sent
        if not is_out and tracked.owner in self._outgoing:
            self._let_out(tracked.owner, now + self.config.batch_delay_s)
            self._hurry()

    def _send_later(self, tracked: HeldKey, due_at: float) -> None:
        self._outgoing.setdefault(tracked.owner, []).append(tracked)
        self._let_out(tracked.owner, due_at)

    def _let_out(self, owner: str, due_at: float) -> None:
        """Have what waits for an owner sent by a time."""
        if due_at < self._due.get(owner, math.inf):
            self._due[owner] = due_at
            self._outgoing_due_at = min(self._outgoing_due_at, due_at)

    def _learn(self, tracked: HeldKey, answer: AnswerPart, now: float) -> None:
        """Take the owner's word, and serve those who wait."""
        under_way = tracked.under_way
        assert under_way is not None
        self._asking.pop(under_way.part.number, None)
        if tracked.owner != self._name and not under_way.part.attempt:
            trip_s = now - under_way.attempt(answer.attempt)[0]
            self._round_trip_s += (min(trip_s, RETRY_S[1]) - self._round_trip_s) / 8
        self._tell(tracked.learn(answer, now, node_count=len(self._view.names)))
        queue = tracked.queue
        while queue:
            ticket = queue[0]
            if ticket.decision is None:
                if now < tracked.spent_until:
                    ticket.decision = tracked.refused(now, ticket.cost)
                elif tracked.take(ticket.cost, now):
                    ticket.decision = tracked.granted(tracked.held_number, now)
                else:
                    break
                self._tell([ticket])
            queue.popleft()
        if queue or tracked.credit_total > tracked.credit_answered:
            self._question(tracked, now, is_waiting_call=bool(queue))
        elif tracked.refunds or tracked.lookers:
            self._question(tracked, now, is_for_statistics=True)
        elif tracked.held and self._is_to_give_back(tracked):
            self._timers.set(now + self.config.idle_return_s, Due.IDLE, tracked, tracked.number)

    def _is_to_give_back(self, tracked: HeldKey) -> bool:
        """Tell whether what is held and not asked for is of use to others, or may become so."""
        is_long = tracked.terms is not None and tracked.terms.per != 1
        return is_long or len(self._view.names) > 1

    def _tell(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            if ticket.group is not None:
                self._join(ticket.group)
            elif ticket.is_awaited:
                self._decided.append(ticket)

    def _join(self, group: TicketGroup) -> None:
        """Take note that a part of a request for several limits was decided."""
        raise NotImplementedError

    def _retry(self, tracked: HeldKey, now: float) -> None:
        """Send a question again, or to another owner, or give it up."""
        under_way = tracked.under_way
        assert under_way is not None
        is_awaited = bool(tracked.queue or tracked.lookers) or any(
            t.decision is None for t in (*under_way.tickets, *under_way.lookers)
        )
        has_credit = tracked.credit_total > tracked.credit_answered
        if not is_awaited and now - tracked.last_at > ABANDON_S:
            if not has_credit and now >= tracked.watched_until:
                tracked.under_way = None
                tracked.unanswered_since = None
                self._asking.pop(under_way.part.number, None)
                return
            under_way.pause_s = CREDIT_RETRY_S
        part = under_way.again(now, credit_total=tracked.credit_total)
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
            tracked.lookers.extend(t for t in under_way.lookers if t.decision is None)
            tracked.under_way = None
            self._asking.pop(under_way.part.number, None)
            tracked.epoch = 0
            since = tracked.unanswered_since
            if since is not None and now - since <= self._silent_s:
                # Who has been cut off for longer is so still, until this owner answers.
                tracked.unanswered_since = None
            self._question(tracked, now, is_waiting_call=bool(tracked.queue))

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

    def _questions(self, now: float, *, is_all: bool = False) -> list[RateMessage]:
        """Return the questions that are to be sent, one message for the keys of one owner."""
        messages = []
        due = self._due
        for owner in [name for name, due_at in due.items() if is_all or now >= due_at]:
            del due[owner]
            parts: dict[str, QuestionPart] = {}
            for tracked in self._outgoing.pop(owner):
                under_way = tracked.under_way
                if under_way is not None and tracked.owner == owner:
                    if not under_way.is_sent:
                        under_way.send(now, credit_total=tracked.credit_total)
                    parts[tracked.key] = under_way.part
            for some in batches(list(parts.values())):
                payload = Questions(self._actor, some).encode()
                messages.append(RateMessage((owner,), QUESTION_DOCUMENT, payload))
        self._outgoing_due_at = min(due.values(), default=math.inf)
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

    def _hear(self, owner: str, epoch: int, part: AnswerPart, now: float) -> None:
        """Take an answer, if it is the one that is waited for."""
        tracked = self._asking.get(part.number)
        if tracked is None or tracked.under_way is None:
            return
        under_way = tracked.under_way
        if (
            under_way.owner == owner
            and epoch >= tracked.epoch
            and part.attempt <= under_way.part.attempt
        ):
            tracked.epoch = epoch
            self._learn(tracked, part, now)

    # Keys that are tracked here

    def _limit_of(self, key: str) -> Limit | None:
        """Return a key's limit; None while it is unlimited, not set, or not readable."""
        if self._now >= self._settings_look_at:
            self._look_at_settings(self._now)
        if key in self._terms:
            return self._terms[key]
        try:
            limit = self._limits.slot_limit(key)
        except MeshError:
            return None  # nothing is granted of it, as on any node that had just started
        if len(self._terms) >= RATE_KEYS_MAX:
            self._terms = {}
        self._terms[key] = limit
        return limit

    def _look_at_settings(self, now: float) -> None:
        """Read all limits anew if any may be different. O(1), and O(limits) then."""
        self._settings_look_at = now + LOOK_S
        tag = self._limits.tag()
        if tag != self._tag:
            self._tag = tag
            self._plans, self._terms = {}, {}

    def _track(self, key: str, now: float) -> HeldKey:
        tracked = self._tracked.get(key)
        if tracked is not None:
            return tracked
        if len(self._tracked) >= self.config.keys_max:
            self._drop(self._least_missed(), now)
        floor = self._credit_floor
        tracked = self._tracked[key] = HeldKey(key, credit_total=floor, credit_answered=floor)
        return tracked

    def _least_missed(self) -> HeldKey:
        """Return the longest unused key, or one almost as long unused that asks nothing now."""
        oldest = list(itertools.islice(self._tracked.values(), EVICTION_CHOICES))
        return next((tracked for tracked in oldest if tracked.under_way is None), oldest[0])

    def _drop(self, tracked: HeldKey, now: float) -> None:
        """Forget a key. What it holds is given back where that needs no message."""
        self._release(tracked, now)
        self._credit_floor = max(self._credit_floor, tracked.credit_total)
        self._tracked.pop(tracked.key, None)
        if tracked.under_way is not None:
            self._asking.pop(tracked.under_way.part.number, None)
        tracked.watched_until = tracked.held_until = -math.inf
        tracked.under_way = tracked.owned = None
        self._plans.pop(tracked.key.partition("\0")[0], None)
        for ticket in (*tracked.queue, *tracked.lookers):
            if ticket.decision is None:
                ticket.decision = self._decide_alone(tracked, ticket.cost, now)
                self._tell([ticket])

    def _release(self, tracked: HeldKey, now: float) -> None:
        if tracked.held and tracked.owner == self._name and tracked.under_way is None:
            returned, tracked.held = tracked.held, 0
            self._question(tracked, now, returned=returned)

    def _limit_written(self, _key: str) -> None:
        """Let the next decision of a key read its limit again."""
        self._settings_look_at = -math.inf

    def _look(self, tracked: HeldKey, now: float) -> None:
        """Bring a key to the limit that is set now, and to the owner that it has now."""
        self._tracked.move_to_end(tracked.key)
        tracked.look_at = now + LOOK_S
        self._read_limit(tracked, now)
        self._follow_view(tracked, now)

    def _follow_view(self, tracked: HeldKey, now: float) -> None:
        """Ask the owner that a key has now, if it has another one."""
        if tracked.view_id == self._view.view_id:
            return
        tracked.view_id = self._view.view_id
        tracked.owned = None
        owner = self._view.owner(tracked.key)
        if owner != tracked.owner:
            tracked.owner = owner
            tracked.is_cut_off = False
            tracked.spent_until = -math.inf
            self._ask_anew(tracked, now)

    def _read_limit(self, tracked: HeldKey, now: float) -> None:
        if now >= self._settings_look_at:
            self._look_at_settings(now)
        if tracked.limits_tag == self._tag:
            return
        try:
            terms = self._limits.slot_limit(tracked.key)
        except (DecodeError, LocalError):
            # The last limit that could be read is known on some nodes only, and is no limit of
            # the cluster: all nodes answer what they would after a restart.
            self._drop(tracked, now)
            raise
        self._set_terms(tracked, terms, now)

    def _set_terms(self, tracked: HeldKey, terms: Limit | None, now: float) -> None:
        """Take the limit of a key as it is now."""
        tracked.limits_tag = self._tag
        if terms != tracked.terms:
            tracked.owned = None
            self._release(tracked, now)
            tracked.terms = terms
            tracked.limit = 0 if terms is None else terms.capacity
            tracked.policy = "" if terms is None else str(terms)
            tracked.is_window = terms is None or terms.is_window
            tracked.longest_s = math.inf if terms is None else terms.longest_s
            tracked.spent_until = -math.inf

    def _hurry(self) -> None:
        """Tell the driver that there may be something to do earlier than it knows."""
        if self.on_urgent is not None:
            self.on_urgent()


def _is_live(due: Due, tracked: Any, token: Any) -> bool:
    """Tell whether a timer still means something."""
    if due in (Due.TICKET, Due.DEADLINE):
        return token.decision is None
    if due is Due.LINE:
        return tracked.token is token
    if due is Due.RETRY:
        return tracked.under_way is token
    if due is Due.IDLE:
        return bool(tracked.held) and token == tracked.number
    return math.isfinite(tracked.watched_until)


def refused_key(key: object) -> LocalError:
    """Return the error for a rate-limit key that is no text."""
    return InvalidTypeError(f"a rate-limit key must be text, not {type(key).__name__}")
